"""Route objects that Crossfade creates: whose they are, and whether they are as they were written.

Knows no kind of route.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Final

from crossfade.core.actions import Manifest
from crossfade.names import ANNOTATION_ROUTE_HASH, API_VERSION, KIND, child_labels

_HASH_LENGTH: Final = 16


@dataclass(frozen=True, slots=True)
class RouteOwner:
    """The ModelDeployment that a route belongs to."""

    name: str
    namespace: str
    uid: str


def render_metadata(owner: RouteOwner) -> Manifest:
    """Build the metadata of a route of ours; it goes when its ModelDeployment goes."""
    return {
        "name": owner.name,
        "namespace": owner.namespace,
        "labels": child_labels(owner.name),
        "ownerReferences": [
            {
                "apiVersion": API_VERSION,
                "kind": KIND,
                "name": owner.name,
                "uid": owner.uid,
                "controller": True,
                "blockOwnerDeletion": True,
            }
        ],
    }


def stamp(manifest: Manifest, without_split: Manifest) -> Manifest:
    """Write the hash of a route without its split into the annotations of the route."""
    text = json.dumps(without_split, sort_keys=True, separators=(",", ":"))
    digest = hashlib.sha256(text.encode()).hexdigest()[:_HASH_LENGTH]
    metadata = manifest["metadata"]
    annotations = {**metadata.get("annotations", {}), ANNOTATION_ROUTE_HASH: digest}
    return {**manifest, "metadata": {**metadata, "annotations": annotations}}


def problem_of_ownership(live: Manifest, owner: RouteOwner, advice: str) -> str:
    """Say why an object may not be taken over; "" when it is ours.

    It is ours when we control it, or when nobody does and it carries our labels: then its owner was
    deleted without its children, and this is the owner's successor.

    Args:
        live: the object.
        owner: whose it should be.
        advice: what the user can do, as the end of a sentence.
    """
    metadata = live["metadata"]
    controller = next(
        (o for o in metadata.get("ownerReferences") or () if o.get("controller")), None
    )
    what = f"{live['kind']} {owner.namespace}/{owner.name}"
    if controller is None:
        if agrees(child_labels(owner.name), metadata.get("labels") or {}):
            return ""
        return f"{what} exists and is not Crossfade's; {advice}"
    if controller.get("uid") == owner.uid:
        return ""
    of = f"{controller.get('kind')} {controller.get('name')}"
    if controller.get("kind") == KIND and controller.get("name") == owner.name:
        return f"{what} still belongs to an earlier {of}; Kubernetes is about to delete it"
    return f"{what} belongs to {of}; {advice}"


def is_as_written(wanted: Manifest, live: Manifest) -> bool:
    """Tell whether an object of ours agrees with what would be written now.

    The hash sees what we would write differently (another spec, another Crossfade); the comparison
    sees what others changed.
    """
    before, after = live["metadata"], wanted["metadata"]
    ours = after["ownerReferences"][0]["uid"]
    return (
        agrees(after["labels"], before.get("labels") or {})
        and agrees(after["annotations"], before.get("annotations") or {})
        and any(o.get("uid") == ours for o in before.get("ownerReferences") or ())
        and agrees(wanted["spec"], live.get("spec") or {})
    )


def agrees(wanted: object, live: object, *, within_list: bool = False) -> bool:
    """Tell whether writing ``wanted`` by server-side apply would leave ``live`` as it is.

    A field of somebody else beside ours stays theirs, so it does not count, or we would write for
    ever. Lists of routes are atomic: what others put into an entry goes with the next write, so
    it counts, unless it is a scalar: API servers fill in defaults, which are scalars.
    """
    if isinstance(wanted, dict) and isinstance(live, dict):
        same = all(
            key in live and agrees(value, live[key], within_list=within_list)
            for key, value in wanted.items()
        )
        foreign = (value for key, value in live.items() if key not in wanted)
        return same and not (within_list and any(isinstance(v, dict | list) for v in foreign))
    if isinstance(wanted, list) and isinstance(live, list):
        return len(wanted) == len(live) and all(
            agrees(w, x, within_list=True) for w, x in zip(wanted, live, strict=True)
        )
    return wanted == live
