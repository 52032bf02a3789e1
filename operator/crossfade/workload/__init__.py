"""What runs a model version: its revision, its children, and what they look like when seen."""
