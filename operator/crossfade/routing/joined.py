"""An HTTPRoute that is somebody else's, of which Crossfade joins one rule (``routeRef``).

``rules`` and ``backendRefs`` are atomic lists, so server-side apply cannot share them. The route is
read, our entries in the one rule are changed, and it is written back under the resourceVersion that
was read; everything else, the order of entries included, stays as it is::

    as found            {name: fraud, port: 80, weight: 100}   {name: other, weight: 50}
    while we are there  {name: fraud-<stable>, port: 80, weight: 95}
                        {name: fraud-<canary>, port: 80, weight: 5}   {name: other, weight: 50}

``fraud``, the address, selects stable's pods. So if Git puts the entry back, nothing breaks:
everything goes to stable until the split is written again. :meth:`JoinedRouteRouter.observe` tells
it by ``current=False`` and no weights, since a route does not know which revision is stable.

Argo CD compares with Git and needs to be told which entries are not Git's::

    ignoreDifferences:
    - group: gateway.networking.k8s.io
      kind: HTTPRoute
      name: <route>
      jqPathExpressions:
      - >-
        .spec.rules[]? | select(.name == "<rule>") | .backendRefs[]?
        | select(.name | test("^<ModelDeployment>(-[bcdfghjklmnpqrstvwxz2456789]{8})?$"))

Without a rule name leave out the first ``select``. It compares without our entries on both sides,
so the rest stays under its control, and self-healing does not start because of a split. A sync that
has another reason does write the whole list: the split is gone for the moment it takes to write it
again, and stable gets everything. Do not add the sync option RespectIgnoreDifferences: for custom
resources it keeps the *whole* live ``rules``, so changes in Git never arrive
(https://github.com/argoproj/argo-cd/issues/17694).
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass

from typing_extensions import override

from crossfade.api.v1alpha1 import RouteRef
from crossfade.core.actions import Manifest, ObjectRef, Replace, Split, Write
from crossfade.core.observation import RouteState
from crossfade.errors import RouteError
from crossfade.names import child_name
from crossfade.routing.acceptance import problem_of_acceptance
from crossfade.routing.gateway_api import API_VERSION, DEFAULT_WEIGHT, HTTP_ROUTE
from crossfade.routing.router import TrafficRouter
from crossfade.routing.shares import (
    are_whole_percents,
    percents,
    replicas_for_weight,
    revision_of,
    whole_number,
)


@dataclass(frozen=True, slots=True)
class _Place:
    """The rule that is joined, and which of its backends are ours."""

    rule: int
    entries: list[Manifest]
    original: int | None
    """Where the backend is that is named like the ModelDeployment; None while we replace it."""
    split: dict[int, str]
    """Where the backends of revisions are."""

    @property
    def ours(self) -> list[int]:
        return sorted([*self.split, *([] if self.original is None else [self.original])])

    @property
    def foreign_weight(self) -> int:
        return sum(_weight(e) for i, e in enumerate(self.entries) if i not in self.ours)

    @property
    def total(self) -> int:
        return sum(_weight(self.entries[i]) for i in self.ours)

    @property
    def weights(self) -> dict[str, int]:
        weights: dict[str, int] = {}
        for index, revision in self.split.items():
            weights[revision] = weights.get(revision, 0) + _weight(self.entries[index])
        return weights

    def replaced(self, new: list[Manifest]) -> list[Manifest]:
        """Return the backends with ours replaced, where the first of ours was."""
        first, ours = self.ours[0], set(self.ours)
        before, after = self.entries[:first], self.entries[first:]
        rest = [e for i, e in enumerate(after, first) if i not in ours]
        return [*before, *new, *rest]


@dataclass(frozen=True, slots=True)
class JoinedRouteRouter(TrafficRouter):
    """Splits traffic by the backends of one rule of somebody else's HTTPRoute."""

    name: str
    namespace: str
    ref: RouteRef
    joined_backend: Manifest | None
    """The entry as it was before it was replaced, from the status."""

    @property
    @override
    def target(self) -> ObjectRef:
        return ObjectRef(API_VERSION, HTTP_ROUTE, self.namespace, self.ref.name)

    @property
    @override
    def joins(self) -> bool:
        return True

    @override
    def observe(self, live: Manifest | None, ready: Mapping[str, int]) -> RouteState:
        try:
            place = self._weighted_place(live)
        except RouteError as e:
            return RouteState(
                found=live is not None,
                current=False,
                in_force=False,
                problem=str(e),
                writable=False,
            )
        assert live is not None  # noqa: S101 - without it there is no place; narrows for mypy
        problem = problem_of_acceptance(live, ours=self.name)
        untouched = place.original is None
        weights = place.weights
        return RouteState(
            found=True,
            weights=percents(weights) if untouched else {},
            current=untouched and len(weights) == len(place.split) and are_whole_percents(weights),
            in_force=untouched and not problem,
            problem=problem,
        )

    @override
    def original_backend(self, live: Manifest | None) -> Manifest | None:
        """Return the entry to remember, the newest first.

        That is: the one in the route; else the one that was remembered; else, when there is our
        split and no memory (a status that was lost), one that stands for both.
        """
        try:
            place = self._place(live)
        except RouteError:
            return deepcopy(self.joined_backend)
        if place.original is not None:
            return deepcopy(place.entries[place.original])
        if self.joined_backend is not None:
            return deepcopy(self.joined_backend)
        first = place.entries[place.ours[0]]
        return {**deepcopy(first), "name": self.name, "weight": place.total}

    @override
    def render(self, split: Split, live: Manifest | None) -> Write:
        """Replace our entries; each is a copy of the original, or of what stands in its place.

        Where others in the rule have weight, our sum stays what it is, so that their share does
        not move.
        """
        place = self._weighted_place(live)
        total = self._total(place, split)
        new = [
            {
                **self._template(place, revision),
                "name": child_name(self.name, revision),
                "weight": percent * total // 100,
            }
            for revision, percent in split.weights.items()
        ]
        return self._replace(live, place, new)

    @override
    def restore(self, live: Manifest | None) -> Write | None:
        """Put the original back; a sum that others rely on is kept."""
        if live is None or not self._candidates(live):
            return None
        place = self._place(live)
        original = self.original_backend(live)
        if not place.split or original is None:
            return None
        shared = place.foreign_weight > 0 and place.total > 0
        if shared and original.get("weight", DEFAULT_WEIGHT) != place.total:
            original["weight"] = place.total
        return self._replace(live, place, [original])

    @override
    def canary_replicas(self, weight: int, full: int) -> int:
        return replicas_for_weight(weight, full)

    # ── finding our entries ───────────────────────────────────────────────────────────────────

    def _weighted_place(self, live: Manifest | None) -> _Place:
        place = self._place(live)
        if any(whole_number(e.get("weight", DEFAULT_WEIGHT)) is None for e in place.entries):
            raise RouteError(f"{self._where()} has a backendRef whose weight is no whole number")
        if place.total == 0:
            raise RouteError(
                f"{self._where()} gives the Service {self.name} a weight of 0, so there is nothing"
                " to split; give it one"
            )
        return place

    def _place(self, live: Manifest | None) -> _Place:
        """Find the rule and our entries.

        Raises:
            RouteError: there is none, or more than one could be meant.
        """
        if live is None:
            raise RouteError(
                f"{self.target} does not exist; create it or correct"
                " spec.traffic.gateway.routeRef.name"
            )
        candidates = self._candidates(live)
        if len(candidates) > 1:
            raise RouteError(
                f"{self.target} has several rules that send to the Service {self.name}; name the"
                " one to join in spec.traffic.gateway.routeRef.rule"
            )
        if not candidates:
            raise RouteError(self._missing(live))
        originals = [
            i for i, e in enumerate(candidates[0].entries) if self._is_service(e, self.name)
        ]
        if len(originals) > 1:
            raise RouteError(f"{self._where()} names the Service {self.name} twice; merge the two")
        return candidates[0]

    def _missing(self, live: Manifest) -> str:
        names = [rule.get("name") for rule in live.get("spec", {}).get("rules") or ()]
        if self.ref.rule is not None and self.ref.rule not in names:
            return (
                f'{self.target} has no rule named "{self.ref.rule}"; name the rule in the route or'
                " correct spec.traffic.gateway.routeRef.rule"
            )
        return (
            f"{self._where()} does not send to the Service {self.name}; add a backendRef of that"
            " name"
        )

    def _candidates(self, live: Manifest) -> list[_Place]:
        places = []
        for index, rule in enumerate(live.get("spec", {}).get("rules") or ()):
            if self.ref.rule is not None and rule.get("name") != self.ref.rule:
                continue
            entries = rule.get("backendRefs") or []
            original = next(
                (i for i, e in enumerate(entries) if self._is_service(e, self.name)), None
            )
            split = {
                i: revision
                for i, e in enumerate(entries)
                if self._is_service(e, str(e.get("name")))
                and (revision := revision_of(e.get("name"), self.name)) is not None
            }
            if split or original is not None:
                places.append(_Place(index, entries, original, split))
        return places

    def _is_service(self, entry: Manifest, name: str) -> bool:
        return (
            entry.get("name") == name
            and entry.get("group", "") == ""
            and entry.get("kind", "Service") == "Service"
            and entry.get("namespace", self.namespace) == self.namespace
        )

    def _where(self) -> str:
        return f'rule "{self.ref.rule}" of {self.target}' if self.ref.rule else str(self.target)

    # ── replacing them ────────────────────────────────────────────────────────────────────────

    def _total(self, place: _Place, split: Split) -> int:
        """Return what our weights must sum to.

        The sum that was remembered is tried too: a hand that changed one of our two weights has
        changed the sum, perhaps to one that cannot be split.
        """
        if place.foreign_weight == 0:
            return 100
        remembered = whole_number((self.joined_backend or {}).get("weight", DEFAULT_WEIGHT)) or 0
        for total in (place.total, remembered):
            if total > 0 and total * split.weight % 100 == 0:
                return total
        raise RouteError(
            f"{self._where()} gives the Service {self.name} a weight of {place.total} beside"
            f" others, and {split.weight} % of that is no whole number; write a weight of 100"
            " there, and those of the others in proportion"
        )

    def _template(self, place: _Place, revision: str) -> Manifest:
        if place.original is not None:
            return place.entries[place.original]
        known = next((i for i, r in place.split.items() if r == revision), place.ours[0])
        return place.entries[known]

    def _replace(self, live: Manifest | None, place: _Place, new: list[Manifest]) -> Replace:
        manifest = deepcopy(live) or {}
        manifest["spec"]["rules"][place.rule]["backendRefs"] = deepcopy(place.replaced(new))
        return Replace(manifest)


def _weight(entry: Manifest) -> int:
    return whole_number(entry.get("weight", DEFAULT_WEIGHT)) or 0
