"""Route objects that Crossfade creates: whose they are, and whether they are as they were written.

Knows no kind of route.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from typing_extensions import override

from crossfade.core.actions import Apply, Manifest, Split, Write
from crossfade.core.observation import RouteState
from crossfade.errors import RouteError
from crossfade.names import ANNOTATION_ROUTE_HASH, API_VERSION, KIND, child_labels
from crossfade.routing.router import TrafficRouter
from crossfade.routing.shares import are_whole_percents, percents, replicas_for_weight

_HASH_LENGTH: Final = 16


@dataclass(frozen=True, slots=True)
class RouteOwner:
    """The ModelDeployment that a route belongs to."""

    name: str
    namespace: str
    uid: str


@dataclass(frozen=True, slots=True)
class OwnedRouter(TrafficRouter, ABC):
    """Splits traffic by an object that Crossfade creates, owns and puts right."""

    owner: RouteOwner

    @property
    @override
    def joins(self) -> bool:
        return False

    @override
    def observe(self, live: Manifest | None, ready: Mapping[str, int]) -> RouteState:
        if live is None:
            return RouteState(found=False)
        foreign = self._foreign(live)
        if foreign:
            return RouteState(
                found=True, current=False, in_force=False, problem=foreign, writable=False
            )
        return self._read(live, ready)

    @override
    def original_backend(self, live: Manifest | None) -> Manifest | None:
        return None

    @override
    def render(self, split: Split, live: Manifest | None) -> Write:
        if live is not None and (foreign := self._foreign(live)):
            raise RouteError(foreign)
        return Apply(self._manifest(split.weights))

    @override
    def restore(self, live: Manifest | None) -> Write | None:
        return None

    def _foreign(self, live: Manifest) -> str:
        return problem_of_ownership(live, self.owner, self._advice)

    @property
    @abstractmethod
    def _advice(self) -> str:
        """What to do about an object of our name that is somebody else's; ends a sentence."""

    @abstractmethod
    def _read(self, live: Manifest, ready: Mapping[str, int]) -> RouteState:
        """Read an object that is ours."""

    @abstractmethod
    def _manifest(self, weights: Mapping[str, int]) -> Manifest:
        """Build the object for weights by revision."""


@dataclass(frozen=True, slots=True)
class WeightedRouter(OwnedRouter):
    """An owned object that carries weights itself."""

    @override
    def canary_replicas(self, weight: int, full: int) -> int:
        return replicas_for_weight(weight, full)

    @override
    def _read(self, live: Manifest, ready: Mapping[str, int]) -> RouteState:
        weights, malformed = self._weights(live)
        problem = malformed or self._problem(live)
        return RouteState(
            found=True,
            weights=percents(weights),
            current=not malformed
            and are_whole_percents(weights)
            and is_as_written(self._manifest(weights), live),
            in_force=not problem,
            problem=problem,
        )

    @abstractmethod
    def _weights(self, live: Manifest) -> tuple[dict[str, int], str]:
        """Return the raw weights by revision, and what is wrong with them."""

    @abstractmethod
    def _problem(self, live: Manifest) -> str:
        """Say why the newest generation is not in force; "" when it is."""


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
