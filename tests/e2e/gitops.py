"""A GitOps tool that never rests, and everything that happens to an object while it works.

It compares and applies as Argo CD does with ``examples/argocd/application.yaml`` (self-healing,
ServerSideApply, ApplyOutOfSyncOnly), only each second, and a ModelDeployment also when it is in
sync: whatever the operator wrote to its spec or metadata would be taken from it.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

import yaml

from cluster.gitops import JQ, judge
from cluster.paths import Paths
from examples.demo.kubectl import Kubectl

Manifest = dict[str, Any]

APPLICATION: Final = Path(__file__).parents[2] / "examples/argocd/application.yaml"
MANAGER: Final = "argocd-controller"
"""The field manager of Argo CD's server-side apply."""

SYNC_SECONDS: Final = 1.0


def ignored_paths() -> list[str]:
    """Return what the example says is not Git's, as jq paths."""
    (ignored,) = yaml.safe_load(APPLICATION.read_text())["spec"]["ignoreDifferences"]
    return list(ignored["jqPathExpressions"])


def as_in_git(live: Any, git: Any) -> Any:
    """Return of what is live only what Git speaks of; the rest are defaults and others' fields."""
    if isinstance(live, dict) and isinstance(git, dict):
        return {key: as_in_git(live[key], git[key]) for key in git if key in live}
    if isinstance(live, list) and isinstance(git, list) and len(live) == len(git):
        return [as_in_git(one, other) for one, other in zip(live, git, strict=True)]
    return live


@dataclass
class SelfHealing:
    """Keeps the cluster as Git says; it works while its ``with`` block runs."""

    kubectl: Kubectl
    model: Manifest
    """The ModelDeployment as it is in Git."""
    route: Manifest
    """The HTTPRoute as it is in Git."""
    syncs: int = 0
    """How often the ModelDeployment was applied."""
    route_syncs: int = 0
    """How often the HTTPRoute was out of sync, and applied."""
    failures: list[str] = field(default_factory=list)
    _done: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self._sync()
        self._thread = threading.Thread(target=self._sync_until_done)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        assert self._thread is not None
        self._thread.join()

    def _sync_until_done(self) -> None:
        while not self._done.wait(SYNC_SECONDS):
            try:
                self._sync()
            except Exception as e:  # noqa: BLE001 - whatever it is, the test shall say it
                self.failures.append(repr(e))

    def _sync(self) -> None:
        self._apply(self.model)
        self.syncs += 1
        if self._is_route_out_of_sync():
            self._apply(self.route)
            self.route_syncs += 1

    def _apply(self, body: Manifest) -> None:
        words = ["--server-side", "--force-conflicts", f"--field-manager={MANAGER}"]
        self.kubectl.run("apply", *words, "-f", "-", stdin=json.dumps(body))

    def _is_route_out_of_sync(self) -> bool:
        meta = self.route["metadata"]
        words = ("-n", meta["namespace"], "get", "httproute", meta["name"])
        found = self.kubectl.run(*words, "--ignore-not-found", "-o", "json")
        if not found:
            return True
        paths = ignored_paths()
        jobs = [{"paths": paths, "object": it} for it in (json.loads(found), self.route)]
        live, git = judge(JQ, jobs)
        return bool(as_in_git(live, git) != git)


@dataclass
class Film:
    """Every state in which an object was, the oldest first."""

    states: list[Manifest] = field(default_factory=list)


@contextmanager
def filmed(kind: str, namespace: str, name: str) -> Iterator[Film]:
    """Watch an object while the block runs; the film is there after it."""
    paths, film = Paths.from_environment(), Film()
    environment = {"KUBECONFIG": str(paths.kubeconfig), **os.environ}
    kubectl = str(paths.bin / "kubectl")
    command = [kubectl, "-n", namespace, "get", kind, name, "--watch", "-o", "json"]
    with tempfile.TemporaryFile("w+") as file:
        watch = subprocess.Popen(command, stdout=file, env=environment)
        try:
            yield film
        finally:
            ended = watch.poll()
            watch.terminate()
            watch.wait(20)
            file.seek(0)
            film.states.extend(_objects(file.read()))
        assert ended is None, f"the watch of {kind} {name} ended with {ended}"


def _objects(text: str) -> Iterator[Manifest]:
    """Read JSON objects that follow each other; the last may be cut off."""
    decoder = json.JSONDecoder()
    rest = text.lstrip()
    while rest:
        try:
            body, end = decoder.raw_decode(rest)
        except json.JSONDecodeError:
            return
        yield body
        rest = rest[end:].lstrip()


def without_repeats(items: list[Any]) -> list[Any]:
    """Return a list without what is the same as the one before."""
    return [it for i, it in enumerate(items) if i == 0 or it != items[i - 1]]
