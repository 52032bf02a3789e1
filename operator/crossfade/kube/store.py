"""The objects as last seen: filled by one list at start, by watches, and by our own writes.

Reconciling reads from here, so that looking costs no request. Objects are kept by reference and
must not be changed by readers.
"""

from __future__ import annotations

import json
from collections import defaultdict
from sys import intern

from crossfade.core.actions import Manifest, ObjectRef
from crossfade.kube.resources import CONTROLLER_REVISION, POD, ref_of
from crossfade.names import LABEL_NAME


class Store:
    """Objects by identity, and children by the ModelDeployment that owns them."""

    def __init__(self) -> None:
        self._objects: dict[ObjectRef, Manifest] = {}
        self._children: defaultdict[tuple[str, str, str], set[ObjectRef]] = defaultdict(set)

    def put(self, manifest: Manifest) -> bool:
        """Keep an object unless a newer one is kept already; tell whether it was news."""
        ref = ref_of(manifest)
        known = self._objects.get(ref)
        if known is not None and not _is_newer(manifest, known):
            return False
        self._objects[ref] = _trim(manifest)
        owner = _owner_key(manifest)
        if owner is not None:
            self._children[owner].add(ref)
        return True

    def drop(self, manifest: Manifest) -> None:
        """Forget an object that is gone; a namesake that was created since then is kept."""
        ref = ref_of(manifest)
        known = self._objects.get(ref)
        if known is None or known["metadata"].get("uid") != manifest["metadata"].get("uid"):
            return
        del self._objects[ref]
        owner = _owner_key(known)
        if owner is not None:
            self._children[owner].discard(ref)
            if not self._children[owner]:
                del self._children[owner]

    def get(self, ref: ObjectRef) -> Manifest | None:
        """Return an object as last seen; None when there is none."""
        return self._objects.get(ref)

    def children(self, kind: str, namespace: str, name: str) -> list[Manifest]:
        """Return the objects of a kind that carry a ModelDeployment's name label."""
        refs = self._children.get((kind, namespace, name), ())
        return [self._objects[ref] for ref in sorted(refs)]


def _owner_key(manifest: Manifest) -> tuple[str, str, str] | None:
    meta = manifest["metadata"]
    name = (meta.get("labels") or {}).get(LABEL_NAME)
    return (manifest["kind"], meta.get("namespace", ""), name) if name else None


def _is_newer(new: Manifest, known: Manifest) -> bool:
    """Compare resource versions, which are ordered integers since Kubernetes 1.35 (KEP-5504).

    A watch may still bring what our own write has overtaken; that must not turn the clock back.
    """
    before, after = known["metadata"], new["metadata"]
    if before.get("uid") != after.get("uid"):
        return True
    try:
        return int(after["resourceVersion"]) > int(before["resourceVersion"])
    except (KeyError, ValueError):
        return True


def _trim(manifest: Manifest) -> Manifest:
    """Drop what nobody reads; managedFields alone may be half of an object."""
    meta = {k: v for k, v in manifest["metadata"].items() if k != "managedFields"}
    match manifest["kind"]:
        case POD.kind:
            return _pod(manifest, meta)
        case CONTROLLER_REVISION.kind:
            return _controller_revision(manifest, meta)
        case _:
            return {**manifest, "metadata": meta}


def _pod(manifest: Manifest, meta: Manifest) -> Manifest:
    kept = ("name", "namespace", "uid", "resourceVersion", "labels", "creationTimestamp")
    slim = {k: meta[k] for k in kept if k in meta}
    if "deletionTimestamp" in meta:
        slim["deletionTimestamp"] = meta["deletionTimestamp"]
    return {
        "apiVersion": manifest["apiVersion"],
        "kind": manifest["kind"],
        "metadata": slim,
        "status": manifest.get("status", {}),
    }


def _controller_revision(manifest: Manifest, meta: Manifest) -> Manifest:
    """Keep ``data`` as text: there are ten of each ModelDeployment, and most are never read."""
    kept = ("name", "namespace", "uid", "resourceVersion")
    slim: Manifest = {k: meta[k] for k in kept if k in meta}
    # Of these, keys and labels are the same strings in all of them.
    slim["labels"] = {intern(k): intern(v) for k, v in (meta.get("labels") or {}).items()}
    slim["annotations"] = {intern(k): v for k, v in (meta.get("annotations") or {}).items()}
    data = json.dumps(manifest.get("data"), separators=(",", ":"), ensure_ascii=False)
    return {
        "apiVersion": CONTROLLER_REVISION.api_version,
        "kind": CONTROLLER_REVISION.kind,
        "metadata": slim,
        "revision": manifest.get("revision", 0),
        "data": data.encode(),
    }
