"""Observe, decide, act: the shell around the core."""
