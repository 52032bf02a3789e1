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
from crossfade.core.actions import Manifest, ObjectRef
from crossfade.names import child_name
from crossfade.routing.acceptance import GATEWAY_GROUP, GATEWAY_KIND, problem_of_acceptance
from crossfade.routing.owned import (
    WeightedRouter,
    render_metadata,
    stamp,
)
from crossfade.routing.shares import (
    revision_of,
    whole_number,
)

API_VERSION: Final = f"{GATEWAY_GROUP}/v1"
HTTP_ROUTE: Final = "HTTPRoute"
DEFAULT_WEIGHT: Final = 1
"""What a backendRef without a weight means."""


@dataclass(frozen=True, slots=True)
class OwnRouteRouter(WeightedRouter):
    """Splits traffic by an HTTPRoute that is created, owned and put right by Crossfade."""

    gateway: GatewayTraffic
    port: int

    @property
    @override
    def target(self) -> ObjectRef:
        return ObjectRef(API_VERSION, HTTP_ROUTE, self.owner.namespace, self.owner.name)

    @property
    @override
    def _advice(self) -> str:
        return (
            "delete it, or join it with spec.traffic.gateway.routeRef from a ModelDeployment"
            " of another name"
        )

    @override
    def _problem(self, live: Manifest) -> str:
        return problem_of_acceptance(live)

    @override
    def _weights(self, live: Manifest) -> tuple[dict[str, int], str]:
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

    @override
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


def _parent(ref: ParentRef) -> Manifest:
    optional = {"namespace": ref.namespace, "sectionName": ref.section_name, "port": ref.port}
    return {
        "group": GATEWAY_GROUP,
        "kind": GATEWAY_KIND,
        "name": ref.name,
        **{key: value for key, value in optional.items() if value is not None},
    }
