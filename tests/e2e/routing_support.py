"""What the routing tests say: send this write, read that object back, ask the gateway.

The operator takes no part. Routers' writes go through kubectl, in the way that ``core/actions``
says they are sent.
"""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Final, Self, TypeVar

from crossfade.core.actions import Apply, Manifest, ObjectRef, Replace, Write
from crossfade.names import API_VERSION, FIELD_MANAGER, KIND
from tests.e2e.conftest import Kubectl

T = TypeVar("T")

POLL_SECONDS: Final = 0.05
STABLE: Final = "bbbbbbbb"
CANARY: Final = "cccccccc"


class RefusedError(Exception):
    """The API server did not take it."""


class Cluster:
    """A namespace of the test's own on the real API server."""

    def __init__(self, kubectl: Kubectl, namespace: str) -> None:
        self._kubectl = kubectl
        self.namespace = namespace

    def run(self, *arguments: str, manifest: Manifest | None = None) -> str:
        """Run kubectl in the namespace.

        Raises:
            RefusedError: it failed; says why.
        """
        done = self._kubectl("-n", self.namespace, *arguments, manifest=manifest)
        if done.returncode:
            raise RefusedError(done.stderr)
        return done.stdout

    def write(self, write: Write) -> Manifest:
        """Send what a router wrote; return the object as stored."""
        match write:
            case Apply(manifest):
                words = ["apply", "--server-side", f"--field-manager={FIELD_MANAGER}"]
                words += ["--force-conflicts"]
            case Replace(manifest):
                words = ["replace", f"--field-manager={FIELD_MANAGER}"]
            case _:
                raise AssertionError(f"no router writes {write}")
        out = self.run(*words, "-f", "-", "-o", "json", manifest=manifest)
        return dict(json.loads(out))

    def write_when_unchanged(self, ref: ObjectRef, render: Callable[[Manifest], Write]) -> Manifest:
        """Look, write, and look again if somebody wrote in between: gateways write the status."""
        for _ in range(20):
            try:
                return self.write(render(self.get(ref)))
            except RefusedError as e:
                if "the object has been modified" not in str(e):
                    raise
        raise AssertionError(f"{ref} never stood still")

    def create(self, manifest: Manifest) -> Manifest:
        """Create as a user does; unknown fields are refused."""
        words = ("create", "--validate=strict", "-f", "-", "-o", "json")
        return dict(json.loads(self.run(*words, manifest=manifest)))

    def get(self, ref: ObjectRef) -> Manifest:
        """Read an object."""
        group = ref.api_version.rpartition("/")[0]
        kind = f"{ref.kind}.{ref.api_version.rpartition('/')[2]}.{group}" if group else ref.kind
        return dict(json.loads(self.run("get", kind, ref.name, "-o", "json")))

    def owner_uid(self) -> str:
        """Create the ModelDeployment that owns what is written; return its uid.

        The garbage collector deletes what names an owner that is not there. An operator that runs
        in the cluster leaves its route alone: no node takes its pods, so it never gets ready.
        """
        body = {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "metadata": {"name": "fraud"},
            "spec": spec_values({"gateway": {"parentRefs": [{"name": "nowhere"}]}}),
        }
        return str(self.create(body)["metadata"]["uid"])


def eventually(look: Callable[[], T], holds: Callable[[T], bool], seconds: float = 15) -> T:
    """Look until it holds; return what was seen."""
    end = time.monotonic() + seconds
    while True:
        seen = look()
        if holds(seen):
            return seen
        if time.monotonic() > end:
            raise AssertionError(f"not within {seconds} s: {seen}")
        time.sleep(POLL_SECONDS)


def service(name: str) -> Manifest:
    """Build a Service without pods: routes resolve, nothing answers."""
    ports = [{"name": "http", "port": 8080}]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"selector": {"app": name}, "ports": ports},
    }


def status_free(route: Manifest) -> Manifest:
    """Return what a route's owner wrote: no status, and no metadata that the API server keeps."""
    kept = {"resourceVersion", "generation", "managedFields"}
    metadata = {k: v for k, v in route["metadata"].items() if k not in kept}
    return {**{k: v for k, v in route.items() if k != "status"}, "metadata": metadata}


def spec_values(traffic: Manifest) -> Manifest:
    """Return the spec of a ModelDeployment that only its traffic matters of."""
    nowhere = {"nodeSelector": {"crossfade.dev/nowhere": "true"}}
    container = {"name": "model", "image": "crossfade.dev/model-stub:dev"}
    return {
        "model": {"name": "fraud", "version": "1"},
        "template": {"spec": {"containers": [container], **nowhere}},
        "traffic": traffic,
        "rollout": {"steps": [{"weightPercent": 50, "pause": {}}]},
    }


def stub_pod(revision: str) -> Manifest:
    """Build a pod behind a revision's Service."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": revision, "labels": {"app": f"fraud-{revision}"}},
        "spec": {
            "terminationGracePeriodSeconds": 1,
            "containers": [
                {
                    "name": "model",
                    "image": "crossfade.dev/model-stub:dev",
                    "imagePullPolicy": "IfNotPresent",
                    "env": [{"name": "MODEL_VERSION", "value": revision}],
                    "readinessProbe": {
                        "periodSeconds": 1,
                        "httpGet": {"path": "/v2/health/ready", "port": 8080},
                    },
                }
            ],
        },
    }


class Caller:
    """Sends requests at a steady, bounded rate while its ``with`` block runs."""

    REQUESTS_PER_SECOND: Final = 50
    MOST_REQUESTS: Final = 1500

    def __init__(self, address: str, host: str) -> None:
        self._address = address
        self._host = host
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._send_all)
        self.answers: Counter[tuple[int, str]] = Counter()
        """How many answers of each status and model version; status 0: there was no answer."""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _send_all(self) -> None:
        began = time.monotonic()
        for number in range(self.MOST_REQUESTS):
            due = began + number / self.REQUESTS_PER_SECOND
            if self._done.wait(max(0.0, due - time.monotonic())):
                return
            self.answers[self.send()] += 1

    def send(self) -> tuple[int, str]:
        """Send one request; return its status and the version that answered."""
        connection = http.client.HTTPConnection(self._address, timeout=5)
        try:
            connection.request("GET", "/v2/models/fraud", headers={"Host": self._host})
            answer = connection.getresponse()
            answer.read()
        except OSError:
            return 0, ""
        else:
            return answer.status, answer.getheader("x-model-version", "")
        finally:
            connection.close()
