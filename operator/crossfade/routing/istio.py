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
from crossfade.core.actions import Manifest, ObjectRef
from crossfade.names import child_name
from crossfade.routing.owned import (
    WeightedRouter,
    render_metadata,
    stamp,
)
from crossfade.routing.shares import (
    revision_of,
    whole_number,
)

API_VERSION: Final = "networking.istio.io/v1"
VIRTUAL_SERVICE: Final = "VirtualService"
MESH: Final = "mesh"
"""Istio's name for all sidecars; what a VirtualService without gateways means."""


@dataclass(frozen=True, slots=True)
class IstioRouter(WeightedRouter):
    """Splits traffic by the destinations of a VirtualService."""

    istio: IstioTraffic
    port: int

    @property
    @override
    def target(self) -> ObjectRef:
        return ObjectRef(API_VERSION, VIRTUAL_SERVICE, self.owner.namespace, self.owner.name)

    @property
    @override
    def _advice(self) -> str:
        return "delete it, or rename the ModelDeployment"

    @override
    def _problem(self, live: Manifest) -> str:
        return _problem_of_status(live)

    @override
    def _weights(self, live: Manifest) -> tuple[dict[str, int], str]:
        """Read them; a destination without a weight gets nothing, unless it is the only one."""
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

    @override
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
