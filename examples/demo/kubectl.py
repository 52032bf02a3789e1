"""kubectl as a function: the demo's only way to the cluster.

Knows nothing of the demo. Every call has a time-out and says what failed in kubectl's own words.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any, Final

from cluster.paths import Paths

Manifest = dict[str, Any]
"""A Kubernetes object as its API takes it."""

CALL_SECONDS: Final = 30


class KubectlError(Exception):
    """kubectl failed, or there is none."""


class NotFoundError(KubectlError):
    """The object, or its kind, is not there."""


class Kubectl:
    """Calls kubectl on the cluster of the environment, else on the one `python -m cluster` made."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        paths = Paths.from_environment()
        self._environment = dict(environment)
        if "KUBECONFIG" not in environment and paths.kubeconfig.exists():
            self._environment["KUBECONFIG"] = str(paths.kubeconfig)
        self._environment["PATH"] = f"{paths.bin}{os.pathsep}{environment.get('PATH', '')}"

    def run(self, *words: str, stdin: str = "", seconds: float = CALL_SECONDS) -> str:
        """Run kubectl and return what it prints.

        Raises:
            NotFoundError: The object is not there.
            KubectlError: It failed otherwise, or took longer than `seconds`.
        """
        try:
            done = subprocess.run(
                ["kubectl", *words],
                input=stdin,
                env=self._environment,
                capture_output=True,
                text=True,
                timeout=seconds,
                check=False,
            )
        except FileNotFoundError as error:
            raise KubectlError("kubectl is not there: run python -m cluster up") from error
        except subprocess.TimeoutExpired as error:
            raise KubectlError(f"kubectl {words[0]} took longer than {seconds:.0f} s") from error
        if done.returncode:
            kind = NotFoundError if "(NotFound)" in done.stderr else KubectlError
            raise kind(f"kubectl {' '.join(words[:3])}: {done.stderr.strip()}")
        return done.stdout

    def read(self, path: str) -> Any:
        """Read a path of the API server, as JSON.

        Raises:
            KubectlError: As `run`.
        """
        return json.loads(self.run("get", "--raw", path))

    def apply(self, manifests: Sequence[Manifest]) -> None:
        """Apply manifests, server-side: a ConfigMap may be too large for the other way.

        Raises:
            KubectlError: As `run`.
        """
        document = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(manifests)})
        options = ("--server-side", "--field-manager=demo", "--filename=-")
        self.run("apply", *options, stdin=document)
