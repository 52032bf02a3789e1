"""Crossfade: one model version fades out while the next fades in."""
