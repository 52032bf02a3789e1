"""What the end-to-end tests say: apply this version, send this load, wait for that phase.

Everything here is real: kubectl, the API server, the kubelet, Traefik, Prometheus, and the
operator in the cluster. Only the model is a stub that fails on demand (``tests/images``).
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar

from cluster.paths import Paths
from examples.demo.kubectl import Kubectl
from examples.demo.load import Load, run_load
from examples.demo.stats import Stats

BODY: Final = json.dumps(
    {"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1.0, 2.0]}]}
).encode()

POLL_SECONDS: Final = 0.1
PROMETHEUS: Final = "http://prometheus.monitoring:9090"


class Rollout:
    """One ModelDeployment of model stubs, as a user handles it."""

    def __init__(self, kubectl: Kubectl, namespace: str, name: str = "fraud") -> None:
        self.kubectl = kubectl
        self.namespace = namespace
        self.name = name
        self.host = f"{name}.{namespace}.example"

    # ── what a user does ──────────────────────────────────────────────────────────────────────

    def manifest(
        self, version: str, faults: dict[str, Any] | None = None, **spec: Any
    ) -> dict[str, Any]:
        """Build a ModelDeployment whose steps are quick; keywords replace parts of its spec."""
        env = [{"name": k, "value": str(v)} for k, v in (faults or {}).items()]
        return {
            "apiVersion": "crossfade.dev/v1alpha1",
            "kind": "ModelDeployment",
            "metadata": {"name": self.name, "namespace": self.namespace},
            "spec": {
                "model": {"name": "fraud", "version": version},
                "template": {
                    "metadata": {
                        "annotations": {
                            "prometheus.io/scrape": "true",
                            "prometheus.io/port": "8080",
                        }
                    },
                    "spec": {
                        "containers": [
                            {
                                "name": "model",
                                "image": "crossfade.dev/model-stub:dev",
                                "imagePullPolicy": "IfNotPresent",
                                "env": [{"name": "MODEL_VERSION", "value": version}, *env],
                                "ports": [{"containerPort": 8080}],
                            }
                        ]
                    },
                },
                "traffic": {
                    "gateway": {
                        "parentRefs": [{"name": "public", "namespace": "gateways"}],
                        "hostnames": [self.host],
                    }
                },
                "rollout": {
                    "steps": [
                        {"weightPercent": 10, "minSeconds": 3, "minRequests": 5},
                        {"weightPercent": 50, "minSeconds": 3, "minRequests": 5},
                    ],
                    "probationSeconds": 5,
                },
                "analysis": {
                    "prometheus": {"address": PROMETHEUS},
                    "intervalSeconds": 1,
                    "source": {
                        "requests": "model_requests_total",
                        "errors": 'model_requests_total{code=~"5.."}',
                        "latency": "model_request_seconds",
                    },
                    "metrics": [{"name": "errors", "errorRate": {"maxPercent": 2}}],
                },
                **spec,
            },
        }

    def apply(self, version: str, faults: dict[str, Any] | None = None, **spec: Any) -> None:
        """Apply as a user does."""
        self.apply_manifest(self.manifest(version, faults, **spec))

    def apply_manifest(self, manifest: dict[str, Any]) -> None:
        """Apply a manifest of any kind, as a user does."""
        self.kubectl.run("apply", "-f", "-", stdin=json.dumps(manifest))

    def order(self, command: str) -> None:
        """Set the command annotation."""
        self.kubectl.run(
            "-n", self.namespace, "annotate", "modeldeployments.crossfade.dev", self.name,
            f"crossfade.dev/command={command}",
        )  # fmt: skip

    # ── what a user sees ──────────────────────────────────────────────────────────────────────

    def get(self, kind: str, name: str) -> dict[str, Any]:
        """Read an object."""
        out = self.kubectl.run("-n", self.namespace, "get", kind, name, "-o", "json")
        return dict(json.loads(out))

    def objects(self, kind: str) -> list[dict[str, Any]]:
        """List the objects of a kind in the namespace."""
        out = self.kubectl.run("-n", self.namespace, "get", kind, "-o", "json")
        return list(json.loads(out)["items"])

    @property
    def status(self) -> dict[str, Any]:
        return dict(self.get("modeldeployments.crossfade.dev", self.name).get("status", {}))

    def events(self) -> list[tuple[str, str]]:
        """Return reason and message of the ModelDeployment's Events, the oldest first."""
        events = [
            e for e in self.objects("events.v1.events.k8s.io")
            if e["regarding"]["kind"] == "ModelDeployment" and e["regarding"]["name"] == self.name
        ]  # fmt: skip
        events.sort(key=lambda e: e["eventTime"] or "")
        return [(e["reason"], e.get("note", "")) for e in events]

    def wait(
        self, phase: str, *, stable: str | None = None, seconds: float = 120
    ) -> dict[str, Any]:
        """Wait for a phase, and for which version is stable; return the status."""

        def there() -> dict[str, Any] | None:
            status = self.status
            version = (status.get("stable") or {}).get("version")
            ok = status.get("phase") == phase and stable in (None, version)
            return status if ok else None

        return eventually(there, seconds, lambda: f"{phase} of {stable}; it is {self.explain()}")

    def wait_weight(self, weight: int, *, seconds: float = 120) -> dict[str, Any]:
        """Wait until the canary's weight is observed in force."""

        def there() -> dict[str, Any] | None:
            status = self.status
            return status if status.get("weight") == weight else None

        return eventually(there, seconds, lambda: f"weight {weight}; it is {self.explain()}")

    def explain(self) -> str:
        """Say where it is, for a failed test."""
        status = self.status
        keys = ("phase", "stable", "canary", "weight", "step", "verdict", "message")
        return json.dumps({k: status.get(k) for k in keys}) + f" events={self.events()[-6:]}"

    def pods(self, version: str) -> list[dict[str, Any]]:
        """Return the pods of a version."""
        annotation = "crossfade.dev/model-version"
        return [
            p for p in self.objects("pods")
            if p["metadata"].get("annotations", {}).get(annotation) == version
        ]  # fmt: skip

    def counts(self, version: str) -> int:
        """Return the requests that a version's pods say they answered."""
        total = 0
        for pod in self.pods(version):
            url = f"http://{pod['status']['podIP']}:8080/counts"
            with urllib.request.urlopen(url, timeout=5) as answer:
                total += sum(json.load(answer).values())
        return total

    def fault(self, version: str, **faults: Any) -> None:
        """Break, or mend, a version's running pods."""
        for pod in self.pods(version):
            url = f"http://{pod['status']['podIP']}:8080/fault"
            request = urllib.request.Request(url, data=json.dumps(faults).encode(), method="POST")
            urllib.request.urlopen(request, timeout=5).close()

    # ── load ──────────────────────────────────────────────────────────────────────────────────

    @contextmanager
    def load(
        self,
        rate: float,
        gateway: str,
        *,
        port: int = 80,
        seconds: float = 600,
        body: Callable[[int], bytes] = lambda _: BODY,
    ) -> Iterator[Stats]:
        """Send a load through the gateway while the block runs, at most for ``seconds``.

        ``body`` gives the body of the request with that number.
        """
        stats, stop = Stats(), asyncio.Event()
        load = Load(
            host=gateway,
            port=port,
            path="/v2/models/fraud/infer",
            host_header=self.host,
            rate_per_second=rate,
            seconds=seconds,
            body=body,
        )
        loop = asyncio.new_event_loop()
        thread = threading.Thread(
            target=loop.run_until_complete, args=(run_load(load, stop=stop, stats=stats),)
        )
        thread.start()
        try:
            yield stats
        finally:
            loop.call_soon_threadsafe(stop.set)
            thread.join(30)
            assert not thread.is_alive(), "the load did not end"
            loop.close()


T = TypeVar("T")


def eventually(look: Callable[[], T | None], seconds: float, what: Callable[[], str]) -> T:
    """Look again and again until something is there."""
    deadline = time.monotonic() + seconds
    while True:
        found = look()
        if found is not None:
            return found
        assert time.monotonic() < deadline, f"not within {seconds} s: {what()}"
        time.sleep(POLL_SECONDS)


def kill_operator(cluster: Kubectl) -> None:
    """End the operator's process with SIGKILL, as its node does when memory runs out."""
    out = cluster.run("-n", "crossfade-system", "get", "pods", "-o", "json")
    containers = [
        status["containerID"].removeprefix("containerd://")
        for pod in json.loads(out)["items"]
        for status in pod["status"]["containerStatuses"]
        if "running" in status["state"]
    ]
    socket = Paths.from_environment().run / "containerd.sock"
    for container in containers:
        command = ["ctr", "--address", str(socket), "--namespace", "k8s.io", "tasks", "kill"]
        subprocess.run([*command, "--signal", "SIGKILL", container], check=True, timeout=20)
    # A container that ended is started again ever later; its pod is replaced at once.
    cluster.run("-n", "crossfade-system", "delete", "pods", "--all", "--wait=false")
