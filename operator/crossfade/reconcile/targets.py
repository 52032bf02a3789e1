"""Which ModelDeployments carry their weights on which route object."""

from __future__ import annotations

from collections import defaultdict

from crossfade.core.actions import Manifest, ObjectRef
from crossfade.kube.resources import ref_of
from crossfade.names import NamespacedName


class Targets:
    """Who must look again when a route object changes."""

    def __init__(self) -> None:
        self._users: defaultdict[ObjectRef, set[NamespacedName]] = defaultdict(set)
        self._target: dict[NamespacedName, ObjectRef] = {}

    def note(self, key: NamespacedName, target: ObjectRef | None) -> None:
        """Remember a ModelDeployment's target; None forgets it."""
        before = self._target.get(key)
        if before == target:
            return
        if before is not None:
            self._users[before].discard(key)
            if not self._users[before]:
                del self._users[before]
            del self._target[key]
        if target is not None:
            self._users[target].add(key)
            self._target[key] = target

    def who_uses(self, route: Manifest) -> tuple[NamespacedName, ...]:
        """Return the ModelDeployments whose weights an object carries."""
        return tuple(self._users.get(ref_of(route), ()))
