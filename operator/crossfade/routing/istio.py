"""An Istio VirtualService of Crossfade's own.

Istio publishes no status that says which proxies follow which generation (its ``status`` is off by
default, PILOT_ENABLE_STATUS). So ``in_force`` means here no more than: the API server has the
object as it was written, and where Istio does publish a status, it is that of this generation and
names no error. istiod pushes to the proxies a moment later; that old pods still get requests is
seen by their counters, and they are not removed before.

Each revision has its own Service and is a destination of its own: there are no subsets, so there is
no DestinationRule that could lag behind the weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from typing_extensions import override

from crossfade.api.v1alpha1 import IstioTraffic
from crossfade.core.actions import Apply, Manifest, ObjectRef, Split, Write
from crossfade.core.observation import RouteState
from crossfade.errors import RouteError
from crossfade.names import child_name
from crossfade.routing.gateway_api import weights_of
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

API_VERSION: Final = "networking.istio.io/v1"
VIRTUAL_SERVICE: Final = "VirtualService"
MESH: Final = "mesh"
"""Istio's name for all sidecars; what a VirtualService without gateways means."""


@dataclass(frozen=True, slots=True)
class IstioRouter(TrafficRouter):
    """Splits traffic by the destinations of a VirtualService."""

    owner: RouteOwner
    istio: IstioTraffic
    port: int

    @property
    @override
    def target(self) -> ObjectRef:
        return ObjectRef(API_VERSION, VIRTUAL_SERVICE, self.owner.namespace, self.owner.name)

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
        problem = malformed or _problem_of_status(live)
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
        return problem_of_ownership(live, self.owner, "delete it, or rename the ModelDeployment")

    def _weights(self, live: Manifest) -> tuple[dict[str, int], str]:
        """Return the raw weights by revision, and what is wrong with them.

        A destination without a weight gets nothing, unless it is the only one.
        """
        weights: dict[str, int] = {}
        for route in live.get("spec", {}).get("http") or ():
            destinations = route.get("route") or ()
            absent = 100 if len(destinations) == 1 else 0
            for entry in destinations:
                weight = whole_number(entry.get("weight", absent))
                if weight is None:
                    return {}, f"{self.target} has a destination whose weight is no whole number"
                revision = self._revision(entry.get("destination", {}).get("host"))
                if revision is not None:
                    weights[revision] = weights.get(revision, 0) + weight
        return weights, ""

    def _revision(self, host: object) -> str | None:
        suffix = self._host("")
        if not isinstance(host, str) or not host.endswith(suffix):
            return None
        return revision_of(host.removesuffix(suffix), self.owner.name)

    def _host(self, service: str) -> str:
        """Spell a Service's name in full: Istio completes short ones by rules of its own."""
        return f"{service}.{self.owner.namespace}.svc.cluster.local"

    def _manifest(self, weights: Mapping[str, int]) -> Manifest:
        destinations = [
            {
                "destination": {
                    "host": self._host(child_name(self.owner.name, revision)),
                    "port": {"number": self.port},
                },
                "weight": weight,
            }
            for revision, weight in weights.items()
        ]
        return stamp(self._body(destinations), self._body([]))

    def _body(self, destinations: list[Manifest]) -> Manifest:
        return {
            "apiVersion": API_VERSION,
            "kind": VIRTUAL_SERVICE,
            "metadata": render_metadata(self.owner),
            "spec": {
                "hosts": list(self.istio.hosts),
                "gateways": list(self.istio.gateways) or [MESH],
                "http": [{"route": destinations}],
            },
        }


def _problem_of_status(live: Manifest) -> str:
    """Say what Istio's own status has against this generation; "" also when it has no status."""
    status, generation = live.get("status") or {}, live["metadata"].get("generation", 0)
    observed = status.get("observedGeneration")
    # An int64 of protobuf: a string in JSON, and its CRD takes both.
    if observed is not None and str(observed) != str(generation):
        return "Istio has not taken over the newest generation yet"
    for condition in status.get("conditions") or ():
        if condition.get("type") == "Reconciled" and condition.get("status") == "False":
            message = condition.get("message") or condition.get("reason") or "it does not say why"
            return f"Istio has not reconciled the VirtualService: {message}"
    return ""
