"""The edge to the API server: requests out, watched objects in. Knows nothing of rollouts."""
