"""Read the Deployment of a revision and its pods: how many are ready, and why others are not."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from textwrap import shorten
from typing import Any, Final

from crossfade.core.actions import Manifest, Role
from crossfade.core.observation import Workload
from crossfade.names import ANNOTATION_VERSION, LABEL_REVISION, LABEL_ROLE

_NO_IMAGE: Final = frozenset(
    {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"}
)
_NOT_STARTED: Final = frozenset(
    {"CreateContainerConfigError", "CreateContainerError", "RunContainerError"}
)
_CRASHES: Final = "CrashLoopBackOff"

_MOST_CHARACTERS: Final = 240
"""Of somebody else's message, so that a sentence stays one."""


def read_workload(
    deployment: Manifest, pods: Sequence[Manifest], autoscaler: Manifest | None
) -> Workload:
    """Read one revision.

    Ready pods count also while the controller has not seen the newest generation: after creation
    the number is only scaled, so the last count is right, and none would look like a loss of all.

    Args:
        deployment: the revision's.
        pods: of this revision; others would be taken for its own.
        autoscaler: the revision's; its minimum is what was asked for.
    """
    metadata, spec = deployment["metadata"], deployment["spec"]
    status = deployment.get("status") or {}
    asked = spec.get("replicas", 1)
    if autoscaler is not None:
        asked = autoscaler["spec"].get("minReplicas", 1)
    role = metadata["labels"].get(LABEL_ROLE)
    return Workload(
        revision=metadata["labels"][LABEL_REVISION],
        version=(metadata.get("annotations") or {}).get(ANNOTATION_VERSION, ""),
        role=Role(role) if role in set(Role) else None,
        replicas=asked,
        ready=status.get("readyReplicas", 0),
        trouble=next(_troubles(deployment, pods), ""),
        settled=status.get("observedGeneration", 0) >= metadata.get("generation", 0),
    )


def _troubles(deployment: Manifest, pods: Sequence[Manifest]) -> Iterator[str]:
    """Yield what is wrong, the most telling first."""
    present = [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]
    for pod in present:
        yield from _container_troubles(_containers(pod))
    for pod in present:
        yield from _unschedulable(pod)
    yield from _replica_failure(deployment)
    for pod in present:
        yield from _not_ready(pod)


def _containers(pod: Manifest) -> list[dict[str, Any]]:
    status = pod.get("status") or {}
    return [
        *(status.get("initContainerStatuses") or ()),
        *(status.get("containerStatuses") or ()),
    ]


def _container_troubles(containers: Iterable[dict[str, Any]]) -> Iterator[str]:
    for container in containers:
        state = container.get("state") or {}
        waiting = state.get("waiting") or {}
        reason, message = waiting.get("reason", ""), waiting.get("message", "")
        if reason in _NO_IMAGE:
            yield f'image "{container["image"]}" cannot be pulled ({_cause(message) or reason})'
        elif reason in _NOT_STARTED:
            yield f'container "{container["name"]}" cannot be started ({_short(message) or reason})'
        elif crash := _crash(container, state, reason):
            words = f"{crash.get('reason', 'Error')}, exit code {crash.get('exitCode', 'unknown')}"
            said = _short(crash.get("message", ""))
            yield f'container "{container["name"]}" crashes ({words}{": " if said else ""}{said})'


def _crash(container: dict[str, Any], state: dict[str, Any], waiting: str) -> dict[str, Any] | None:
    """Return how a container that is not ready ended last.

    The same answer while it is down, waits for its next start, and starts: the state of a container
    that crashes changes every few seconds, and the words for it should not.
    """
    if container.get("ready"):
        return None
    ended: dict[str, Any] | None = state.get("terminated") or (
        container.get("lastState") or {}
    ).get("terminated")
    if ended is None or (ended.get("exitCode") == 0 and waiting != _CRASHES):
        return None
    return ended


def _cause(message: str) -> str:
    """Return the end of a chain of errors, which both attempts and pauses between them report."""
    return _short(message.rpartition(": ")[2])


def _short(message: str) -> str:
    return shorten(message, _MOST_CHARACTERS, placeholder=" ...")


def _conditions(manifest: Manifest, kind: str) -> Iterator[dict[str, Any]]:
    for condition in (manifest.get("status") or {}).get("conditions") or ():
        if condition["type"] == kind:
            yield condition


def _unschedulable(pod: Manifest) -> Iterator[str]:
    for condition in _conditions(pod, "PodScheduled"):
        if condition["status"] == "False":
            yield f"a pod cannot be scheduled: {_short(condition.get('message', ''))}"


def _replica_failure(deployment: Manifest) -> Iterator[str]:
    for condition in _conditions(deployment, "ReplicaFailure"):
        if condition["status"] == "True":
            yield f"a pod cannot be created: {_short(condition.get('message', ''))}"


def _not_ready(pod: Manifest) -> Iterator[str]:
    for condition in _conditions(pod, "Ready"):
        if condition["status"] == "False":
            since = condition.get("lastTransitionTime", "its start")
            yield f"pod {pod['metadata']['name']} is not ready since {since}"
