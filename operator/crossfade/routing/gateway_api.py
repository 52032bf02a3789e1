"""An HTTPRoute of Crossfade's own (Gateway API).

Both backends are listed while there is a canary, also at weight 0: the Gateway API forwards no
traffic to such an entry, and answers 503 for the share of a Service without ready endpoints (500
for the share of one that does not exist), which at weight 0 is nobody's share. Traefik does so:
with the canary at 0 and its pods or its Service gone, everything is served by stable
(docs/adr/0004-routing.md). Envoy Gateway was not tried. But a Service that does not exist makes
ResolvedRefs False with BackendNotFound whatever its weight, so the route is not seen in force: a
revision's Service must be there before the route names it, and outlive that.

No time-outs and no retries are added: both change what the model's users see, and a retry by the
gateway would hide a failing canary from its own counters.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from typing_extensions import override

from crossfade.api.v1alpha1 import GatewayTraffic, ParentRef
from crossfade.core.actions import Apply, Manifest, ObjectRef, Split, Write
from crossfade.core.observation import RouteState
from crossfade.errors import RouteError
from crossfade.names import child_name
from crossfade.routing.acceptance import GATEWAY_GROUP, GATEWAY_KIND, problem_of_acceptance
from crossfade.routing.owned import (
    RouteOwner,
    is_as_written,
    problem_of_ownership,
    render_metadata,
    stamp,
)
from crossfade.routing.router import TrafficRouter
from crossfade.routing.shares import (
    are_whole_percents,
    percents,
    replicas_for_weight,
    revision_of,
    whole_number,
)

API_VERSION: Final = f"{GATEWAY_GROUP}/v1"
HTTP_ROUTE: Final = "HTTPRoute"
DEFAULT_WEIGHT: Final = 1
"""What a backendRef without a weight means."""


@dataclass(frozen=True, slots=True)
class OwnRouteRouter(TrafficRouter):
    """Splits traffic by an HTTPRoute that is created, owned and put right by Crossfade."""

    owner: RouteOwner
    gateway: GatewayTraffic
    port: int

    @property
    @override
    def target(self) -> ObjectRef:
        return ObjectRef(API_VERSION, HTTP_ROUTE, self.owner.namespace, self.owner.name)

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
        weights, malformed = self._weights(live)
        problem = malformed or problem_of_acceptance(live)
        return RouteState(
            found=True,
            weights=percents(weights),
            current=not malformed
            and are_whole_percents(weights)
            and is_as_written(self._manifest(weights), live),
            in_force=not problem,
            problem=problem,
        )

    @override
    def original_backend(self, live: Manifest | None) -> Manifest | None:
        return None

    @override
    def render(self, split: Split, live: Manifest | None) -> Write:
        if live is not None and (foreign := self._foreign(live)):
            raise RouteError(foreign)
        return Apply(self._manifest(weights_of(split)))

    @override
    def restore(self, live: Manifest | None) -> Write | None:
        return None

    @override
    def canary_replicas(self, weight: int, full: int) -> int:
        return replicas_for_weight(weight, full)

    def _foreign(self, live: Manifest) -> str:
        advice = (
            "delete it, or join it with spec.traffic.gateway.routeRef from a ModelDeployment"
            " of another name"
        )
        return problem_of_ownership(live, self.owner, advice)

    def _weights(self, live: Manifest) -> tuple[dict[str, int], str]:
        """Return the raw weights by revision, and what is wrong with them."""
        weights: dict[str, int] = {}
        for rule in live.get("spec", {}).get("rules") or ():
            for entry in rule.get("backendRefs") or ():
                revision = revision_of(entry.get("name"), self.owner.name)
                weight = whole_number(entry.get("weight", DEFAULT_WEIGHT))
                if weight is None:
                    return {}, f"{self.target} has a backendRef whose weight is no whole number"
                if revision is not None:
                    weights[revision] = weights.get(revision, 0) + weight
        return weights, ""

    def _manifest(self, weights: Mapping[str, int]) -> Manifest:
        bare = self._body([])
        return stamp(self._body([self._backend(r, w) for r, w in weights.items()]), bare)

    def _body(self, backends: list[Manifest]) -> Manifest:
        """Build the route. Defaults are written out, so that what is read back is the same.

        ``hostnames`` is written also when it is empty: a field that is not written cannot be taken
        back from somebody else who wrote it.
        """
        everything = {"path": {"type": "PathPrefix", "value": "/"}}
        return {
            "apiVersion": API_VERSION,
            "kind": HTTP_ROUTE,
            "metadata": render_metadata(self.owner),
            "spec": {
                "parentRefs": [_parent(ref) for ref in self.gateway.parent_refs or ()],
                "hostnames": list(self.gateway.hostnames),
                "rules": [{"matches": [everything], "backendRefs": backends}],
            },
        }

    def _backend(self, revision: str, weight: int) -> Manifest:
        return {
            "group": "",
            "kind": "Service",
            "name": child_name(self.owner.name, revision),
            "port": self.port,
            "weight": weight,
        }


def weights_of(split: Split) -> dict[str, int]:
    """Return the percent of each backend to list: one at weight 0 is listed too."""
    if split.canary is None:
        return {split.stable: 100}
    return {split.stable: 100 - split.weight, split.canary: split.weight}


def _parent(ref: ParentRef) -> Manifest:
    optional = {"namespace": ref.namespace, "sectionName": ref.section_name, "port": ref.port}
    return {
        "group": GATEWAY_GROUP,
        "kind": GATEWAY_KIND,
        "name": ref.name,
        **{key: value for key, value in optional.items() if value is not None},
    }
