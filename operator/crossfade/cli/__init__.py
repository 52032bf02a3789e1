"""What people run: one module for each verb. Starts no operator and knows no cluster."""
