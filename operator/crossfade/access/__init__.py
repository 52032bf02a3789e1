"""What is outside of the cluster's API: which addresses may be reached, and with which Secrets."""
