"""The user's own kubectl: whatever authentication, context and rights it has, the command has."""

from __future__ import annotations

import argparse
import json
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

from crossfade.cli.exits import FailedError
from crossfade.names import (
    ANNOTATION_COMMAND,
    CLI_FIELD_MANAGER,
    GROUP,
    KIND,
    LABEL_NAME,
    PLURAL,
)

Body = Mapping[str, Any]
"""An object as the API server gives it."""

RESOURCE: Final = f"{PLURAL}.{GROUP}"
"""With the group, since others may have a kind of the same name."""

CALL_SECONDS: Final = 30
"""For one call; kubectl itself waits without an end for an API server that does not answer."""

REQUEST_TIMEOUT: Final = "20s"
"""For one request of kubectl, so that it says itself what it waited for."""

_MANAGER: Final = f"--field-manager={CLI_FIELD_MANAGER}"


class NotThereError(FailedError):
    """There is no such ModelDeployment."""


class Cluster(Protocol):
    """What commands ask of a cluster. All of it may raise :class:`FailedError`."""

    def deployment(self, name: str) -> Body:
        """Return a ModelDeployment.

        Raises:
            NotThereError: there is none of this name.
        """
        ...

    def deployments(self, *, everywhere: bool) -> list[Body]:
        """Return those of the namespace, or all."""
        ...

    def events(self, body: Body) -> list[Body]:
        """Return the Events of a ModelDeployment."""
        ...

    def revisions(self, body: Body) -> list[Body]:
        """Return the ControllerRevisions of a ModelDeployment."""
        ...

    def order(self, body: Body, command: str) -> bool:
        """Set the command annotation; False: the object is not any more as ``body`` has it."""
        ...

    def set_paused(self, body: Body, *, paused: bool) -> None:
        """Set ``spec.rollout.paused``."""
        ...


class Kubectl:
    """A cluster by running kubectl."""

    def __init__(self, options: argparse.Namespace) -> None:
        """Pass on which cluster, which user and which namespace."""
        self._namespace: str | None = options.namespace
        self._flags = [f"--request-timeout={REQUEST_TIMEOUT}"]
        for flag in ("context", "kubeconfig"):
            value = getattr(options, flag)
            if value is not None:
                self._flags.append(f"--{flag}={value}")

    def deployment(self, name: str) -> Body:
        """See :class:`Cluster`."""
        return dict(self._object("get", RESOURCE, name, *self._where(), "--output=json"))

    def deployments(self, *, everywhere: bool) -> list[Body]:
        """See :class:`Cluster`."""
        where = ["--all-namespaces"] if everywhere else self._where()
        return list(self._object("get", RESOURCE, *where, "--output=json")["items"])

    def events(self, body: Body) -> list[Body]:
        """See :class:`Cluster`. The old API of Events: Kubernetes' role ``view`` allows it."""
        meta = body["metadata"]
        selector = f"involvedObject.kind={KIND},involvedObject.name={meta['name']}"
        found = self._object(
            "get", "events", f"--namespace={meta['namespace']}",
            f"--field-selector={selector}", "--output=json",
        )  # fmt: skip
        return list(found["items"])

    def revisions(self, body: Body) -> list[Body]:
        """See :class:`Cluster`."""
        meta = body["metadata"]
        found = self._object(
            "get", "controllerrevisions.apps", f"--namespace={meta['namespace']}",
            f"--selector={LABEL_NAME}={meta['name']}", "--output=json",
        )  # fmt: skip
        return list(found["items"])

    def order(self, body: Body, command: str) -> bool:
        """See :class:`Cluster`."""
        meta = body["metadata"]
        try:
            self._run(
                "annotate", RESOURCE, meta["name"], f"--namespace={meta['namespace']}",
                f"--resource-version={meta['resourceVersion']}", _MANAGER,
                f"{ANNOTATION_COMMAND}={command}",
            )  # fmt: skip
        except _ConflictError:
            return False
        return True

    def set_paused(self, body: Body, *, paused: bool) -> None:
        """See :class:`Cluster`."""
        meta = body["metadata"]
        patch = json.dumps({"spec": {"rollout": {"paused": paused}}})
        self._run(
            "patch", RESOURCE, meta["name"], f"--namespace={meta['namespace']}",
            "--type=merge", f"--patch={patch}", _MANAGER,
        )  # fmt: skip

    def _where(self) -> list[str]:
        return [f"--namespace={self._namespace}"] if self._namespace is not None else []

    def _object(self, *words: str) -> Any:
        out = self._run(*words)
        try:
            return json.loads(out)
        except ValueError as e:
            raise FailedError(f"kubectl {words[0]} did not answer in JSON: {out[:80]!r}") from e

    def _run(self, *words: str) -> str:
        try:
            done = subprocess.run(
                ["kubectl", *words, *self._flags],
                capture_output=True, text=True, check=False, timeout=CALL_SECONDS,
            )  # fmt: skip
        except FileNotFoundError as e:
            raise FailedError(
                "kubectl is not in the PATH: install it; crossfade reaches the cluster through it"
            ) from e
        except subprocess.TimeoutExpired as e:
            raise FailedError(
                f"kubectl {words[0]} took longer than {CALL_SECONDS} s: is the API server reached?"
            ) from e
        if done.returncode:
            raise _failure(words, done.stderr)
        return done.stdout


class _ConflictError(FailedError):
    """Somebody wrote the object in between."""


def _failure(words: Sequence[str], said: str) -> FailedError:
    """Say in one line what kubectl said, and what to do about it where that is known."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    last = lines[-1] if lines else f"kubectl {words[0]} failed and said nothing"
    line = last.removeprefix("error: ").removeprefix("Error from server ")
    if "(NotFound)" in last and f'{RESOURCE} "' in last:
        return NotThereError(
            f'there is no ModelDeployment "{words[2]}" here: crossfade list --all-namespaces shows '
            "all; choose one with --namespace, or another cluster with --context"
        )
    if "doesn't have a resource type" in last or "(NotFound)" in last:
        return FailedError(
            "this cluster has no ModelDeployments: install Crossfade in it, or choose another "
            "cluster with --context"
        )
    if "(Conflict)" in last or "the object has been modified" in last:
        return _ConflictError(line)
    if "(Forbidden)" in last:
        return FailedError(
            f"{line.removeprefix('(Forbidden): ')}; the role edit of this namespace allows all "
            "that crossfade does, and view what it only shows"
        )
    return FailedError(f"kubectl: {line}")
