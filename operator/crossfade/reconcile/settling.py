"""Since when a route is in force, as this process saw it.

A gateway reports a route as accepted before its data plane has taken it over: Traefik's counts
followed 25 to 234 ms later (docs/adr/0004-routing.md). So a weight counts as in force a moment
after it is reported to be.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from crossfade.names import NamespacedName

SETTLING: Final = timedelta(seconds=1)
"""Four times the longest delay that was measured."""


@dataclass(frozen=True, slots=True)
class _Seen:
    generation: int
    in_force_since: datetime | None


class Settling:
    """Remembers, for each ModelDeployment, when its route's present generation got in force."""

    def __init__(self) -> None:
        self._seen: dict[NamespacedName, _Seen] = {}

    def has_settled(
        self, key: NamespacedName, generation: int, *, in_force: bool, now: datetime
    ) -> bool:
        """Note what is seen of a route; tell whether it has been in force for long enough.

        What is in force when a process first looks has been so for long enough.
        """
        known = self._seen.get(key)
        since = known.in_force_since if known and known.generation == generation else None
        if not in_force:
            since = None
        elif since is None:
            since = now if known is not None else now - SETTLING
        self._seen[key] = _Seen(generation, since)
        return since is not None and now - since >= SETTLING

    def forget(self, key: NamespacedName) -> None:
        """Drop a ModelDeployment that is gone."""
        self._seen.pop(key, None)
