"""The API: what users write, what the operator reports, and the CRD that says so."""
