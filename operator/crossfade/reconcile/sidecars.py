"""What Deployments and pods say of their sidecars: whom to ask, and how two contracts differ.

A sidecar's configuration is read where it is in force, in the pod template of a revision's
Deployment, and not from the spec, which may ask for the next version already.
"""

from __future__ import annotations

import logging
from functools import lru_cache
from typing import Any, Final

from crossfade.api.v1alpha1 import ModelDeploymentStatus, Phase
from crossfade.core.actions import Manifest
from crossfade.core.observation import Drill
from crossfade.core.phases import WITH_CANARY
from crossfade.kube.resources import DEPLOYMENT, POD, child_ref
from crossfade.kube.store import Store
from crossfade.names import ANNOTATION_SIDECAR, LABEL_REVISION, NamespacedName, child_name
from crossfade.reconcile.drills import Asked
from crossfade.sidecar.config import Config, read_config

MOST_PODS: Final = 3
"""So many pods of a version are asked: all have one configuration, but not one network."""


_log = logging.getLogger(__name__)


def asked_of(
    store: Store, key: NamespacedName, status: ModelDeploymentStatus, revision: str
) -> Asked | Drill | None:
    """Return whom to ask before a version gets traffic; None when there is nothing to ask.

    Where the configuration cannot be read, another operator wrote it, in words of its own: that is
    an answer, and no good one.

    Args:
        store: what was seen.
        key: the ModelDeployment.
        status: its status.
        revision: what its spec asks for.
    """
    if status.phase is Phase.PREPARING and status.canary is not None:
        revision = status.canary.revision
    elif status.phase is not Phase.INITIALIZING:
        return None
    written = _written(store, key, revision)
    config = _read(written)
    if config is None:
        name = child_name(key.name, revision)
        words = f"the annotation {ANNOTATION_SIDECAR} of Deployment {name} cannot be read"
        return Drill(problem=words) if written else None
    stable = _config(store, key, status.stable.revision) if status.stable is not None else None
    golden = stable.golden if stable is not None and config.inputs is not None else None
    targets = config.fallback.targets if config.fallback is not None else ()
    if not targets and golden is None:
        return None
    return Asked(
        key,
        revision,
        pods=_pods(store, key, revision),
        port=config.admin_port,
        targets=tuple(target.name for target in targets),
        seconds=sum(target.timeout_seconds for target in targets),
        golden=golden,
    )


def narrowed_by_canary(
    store: Store, key: NamespacedName, status: ModelDeploymentStatus
) -> tuple[str, ...] | None:
    """Return what the canary's contract refuses that stable's accepts; None: nothing to compare."""
    if status.phase not in WITH_CANARY or status.canary is None or status.stable is None:
        return None
    old = _written(store, key, status.stable.revision)
    new = _written(store, key, status.canary.revision)
    return _narrowed(old, new)


@lru_cache(maxsize=64)
def _narrowed(old: str, new: str) -> tuple[str, ...] | None:
    canary = _read(new)
    if canary is None or canary.inputs is None:
        return None
    stable = _read(old)
    if old and stable is None:
        return ("the stable version's contract cannot be read, so nobody knows",)
    # It knows JSON Schema, whose library the operator needs only where there is a contract.
    from crossfade.sidecar.narrowing import narrowings  # noqa: PLC0415

    try:
        return narrowings(stable.inputs if stable is not None else None, canary.inputs)
    except Exception:  # noqa: BLE001 - words for people must not keep a rollback from happening
        _log.exception("bug: two contracts cannot be compared")
        return ("the two contracts cannot be compared; the operator's log says why",)


def _config(store: Store, key: NamespacedName, revision: str) -> Config | None:
    return _read(_written(store, key, revision))


@lru_cache(maxsize=64)
def _read(text: str) -> Config | None:
    """None: there is none, or it cannot be read."""
    try:
        return read_config(text.encode()) if text else None
    except ValueError:
        return None


def _written(store: Store, key: NamespacedName, revision: str) -> str:
    """Return the configuration as the revision's pods have it; "" for none."""
    deployment = store.get(child_ref(DEPLOYMENT, key.namespace, key.name, revision))
    if deployment is None:
        return ""
    metadata: dict[str, Any] = deployment["spec"]["template"].get("metadata") or {}
    return str((metadata.get("annotations") or {}).get(ANNOTATION_SIDECAR, ""))


def _pods(store: Store, key: NamespacedName, revision: str) -> tuple[tuple[str, str], ...]:
    """Return name and address of the first ready pods."""
    ready = [
        (str(pod["metadata"]["name"]), str(pod["status"]["podIP"]))
        for pod in store.children(POD.kind, key.namespace, key.name)
        if _is_of(pod, revision) and _is_ready(pod)
    ]
    return tuple(ready[:MOST_PODS])


def _is_of(pod: Manifest, revision: str) -> bool:
    labels = pod["metadata"].get("labels") or {}
    return labels.get(LABEL_REVISION) == revision


def _is_ready(pod: Manifest) -> bool:
    status = pod.get("status") or {}
    if "deletionTimestamp" in pod["metadata"] or not status.get("podIP"):
        return False
    conditions = status.get("conditions") or ()
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
