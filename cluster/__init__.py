"""Real one-node Kubernetes for the tests, the demo and the benchmarks, with no Docker daemon."""
