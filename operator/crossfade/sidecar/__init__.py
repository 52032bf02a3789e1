"""What runs beside a model, in its pods, and needs nobody: it works while the operator is down."""
