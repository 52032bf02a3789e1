"""The decisions: pure functions from what was seen to what is done."""
