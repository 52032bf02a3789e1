"""Fixtures of the rollout tests: the installed operator, the gateway, a namespace for each test."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from cluster.install import install
from cluster.paths import Paths
from cluster.process import ClusterError
from examples.demo.kubectl import Kubectl
from tests.e2e.rollouts import Rollout


@pytest.fixture(scope="session")
def cluster() -> Kubectl:
    """Return kubectl on a cluster in which the operator of this checkout runs, from its image."""
    try:
        install(Paths.from_environment(), ["model-stub"])
    except ClusterError as e:
        pytest.exit(
            f"the operator cannot be installed: {e}\nIs there a cluster? make cluster-up", 1
        )
    return Kubectl(os.environ)


@pytest.fixture(scope="session")
def gateway(cluster: Kubectl) -> str:
    """Return the address of the gateway."""
    return cluster.run(
        "-n", "gateways", "get", "service", "gateway", "-o", "jsonpath={.spec.clusterIP}"
    )


@pytest.fixture(scope="session")
def prometheus(cluster: Kubectl) -> str:
    """Return the address of the cluster's Prometheus from here."""
    address = cluster.run(
        "-n", "monitoring", "get", "service", "prometheus", "-o", "jsonpath={.spec.clusterIP}"
    )
    return f"http://{address}:9090"


@contextmanager
def namespace_of(cluster: Kubectl, words: str) -> Iterator[str]:
    """Make a namespace that is named after some words; it is deleted afterwards."""
    words = re.sub(r"[^a-z0-9]+", "-", words.lower())[:40].strip("-")
    name = f"e2e-{words}-{secrets.token_hex(2)}"
    cluster.run("create", "namespace", name)
    try:
        yield name
    finally:
        cluster.run("delete", "namespace", name, "--wait=false")


@pytest.fixture
def namespace(cluster: Kubectl, request: pytest.FixtureRequest) -> Iterator[str]:
    """Return a namespace of the test's own; it is deleted afterwards."""
    with namespace_of(cluster, request.node.name) as name:
        yield name


@pytest.fixture
def rollout(cluster: Kubectl, namespace: str) -> Rollout:
    """Return a ModelDeployment that is not applied yet."""
    return Rollout(cluster, namespace)
