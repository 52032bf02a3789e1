"""What the end-to-end tests share: a running cluster (``python -m cluster up``)."""

from __future__ import annotations

import json
import os
import subprocess
from typing import Any, Protocol

import pytest

from cluster.paths import Paths


class Kubectl(Protocol):
    """Runs kubectl against the cluster of the cache, and no other."""

    def __call__(
        self, *arguments: str, manifest: dict[str, Any] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Return what it did, also when it failed; ``manifest`` is its standard input."""
        ...


@pytest.fixture(scope="session")
def kubectl() -> Kubectl:
    paths = Paths.from_environment()
    environment = os.environ | {"KUBECONFIG": str(paths.kubeconfig)}

    def run(
        *arguments: str, manifest: dict[str, Any] | None = None
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(paths.bin / "kubectl"), *arguments],
            input=None if manifest is None else json.dumps(manifest),
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    return run


pytest_plugins = ["tests.e2e.fixtures", "tests.e2e.served"]
