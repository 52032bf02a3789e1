"""What counts say about a version: pure, without a clock, the standard library only."""
