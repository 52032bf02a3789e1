"""A real one-node Kubernetes cluster for tests, demos and benchmarks.

Exists because the end-to-end tests must run on a real API server, kubelet, gateway and Prometheus
on machines that have neither Docker nor an image registry. Must not know anything of Crossfade
itself: it offers a cluster, loads images, and takes it down again.

Run as ``python -m cluster up | down | status | build | load ARCHIVE... | env``.
"""
