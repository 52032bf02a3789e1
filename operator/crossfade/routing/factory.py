"""Which router a spec asks for."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from crossfade.api.v1alpha1 import (
    GatewayTraffic,
    IstioTraffic,
    ModelDeploymentSpec,
    ReplicasTraffic,
    RouteRef,
    Traffic,
)
from crossfade.core.actions import Manifest
from crossfade.errors import InvalidSpecError
from crossfade.routing.gateway_api import OwnRouteRouter
from crossfade.routing.istio import IstioRouter
from crossfade.routing.joined import JoinedRouteRouter
from crossfade.routing.owned import RouteOwner
from crossfade.routing.replicas import ReplicasRouter
from crossfade.routing.router import TrafficRouter


def router_for(
    name: str,
    namespace: str,
    uid: str,
    spec: ModelDeploymentSpec,
    joined_backend: Manifest | None = None,
    target_ports: Mapping[str, int] = MappingProxyType({}),
) -> TrafficRouter:
    """Return the router of a ModelDeployment.

    Args:
        name: the ModelDeployment's name.
        namespace: its namespace.
        uid: its uid, for what it owns.
        spec: what it asks for.
        joined_backend: the backend of a joined route as it was, from its status.
        target_ports: which port of their pods takes requests, by revision.

    Raises:
        InvalidSpecError: it asks for no way to split.
    """
    owner, port = RouteOwner(name, namespace, uid), spec.serving.port
    match spec.traffic:
        case Traffic(gateway=GatewayTraffic(route_ref=RouteRef() as ref)):
            return JoinedRouteRouter(name, namespace, ref, joined_backend)
        case Traffic(gateway=GatewayTraffic(parent_refs=[_, *_]) as gateway):
            return OwnRouteRouter(owner, gateway, port)
        case Traffic(istio=IstioTraffic() as istio):
            return IstioRouter(owner, istio, port)
        case Traffic(replicas=ReplicasTraffic()):
            return ReplicasRouter(owner, port, target_ports)
        case _:
            raise InvalidSpecError(
                "spec.traffic does not say who splits the traffic: give gateway (with parentRefs"
                " or routeRef), istio or replicas"
            )
