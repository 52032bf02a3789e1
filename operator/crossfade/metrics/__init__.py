"""Judges versions by metrics; ``analyst`` is the contract, the rest is Prometheus."""
