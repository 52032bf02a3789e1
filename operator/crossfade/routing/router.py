"""The contract between the reconciler and whatever splits the traffic.

A router is pure: it turns the route object that was seen into a :class:`RouteState`, and a wanted
:class:`Split` into one write. It does no I/O, so the same code serves tests and clusters.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from crossfade.core.actions import Manifest, ObjectRef, Split, Write
from crossfade.core.observation import RouteState


class TrafficRouter(Protocol):
    """Splits the traffic of one ModelDeployment between its revisions."""

    @property
    def target(self) -> ObjectRef:
        """The one object that carries the weights."""
        ...

    @property
    def joins(self) -> bool:
        """True when ``target`` is somebody else's object, to be put back on deletion."""
        ...

    def observe(self, live: Manifest | None, ready: Mapping[str, int]) -> RouteState:
        """Read the object as last seen; None when it does not exist.

        Args:
            live: the object.
            ready: ready pods by revision.
        """
        ...

    def original_backend(self, live: Manifest | None) -> Manifest | None:
        """Return what ``restore`` should put back, to be written down before the first write.

        None where nothing is joined or nothing can be told.
        """
        ...

    def render(self, split: Split, live: Manifest | None) -> Write:
        """Return the one write that makes the split; idempotent.

        Raises:
            RouteError: the object cannot carry the split; says what to change.
        """
        ...

    def restore(self, live: Manifest | None) -> Write | None:
        """Return the write that takes our backends out again; None when nothing is to be done.

        Raises:
            RouteError: it cannot be told which of its backends are ours.
        """
        ...

    def canary_replicas(self, weight: int, full: int) -> int:
        """Return how many canary pods a weight (percent) needs where stable has ``full``."""
        ...
