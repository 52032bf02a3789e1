"""Builders of the routing tests: a ModelDeployment ``ml/fraud``, its routes, a healthy gateway."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from crossfade.api.v1alpha1 import ModelDeploymentSpec
from crossfade.core.actions import Apply, Manifest, Replace, Split
from crossfade.routing.factory import router_for
from crossfade.routing.router import TrafficRouter

STABLE = "bbbbbbbb"
CANARY = "cccccccc"
SPLIT = Split(STABLE, CANARY, 10)
GATEWAY = {"name": "public", "namespace": "gateways"}
OWN = {"gateway": {"parentRefs": [GATEWAY], "hostnames": ["fraud.example.com"]}}
JOINED = {"gateway": {"routeRef": {"name": "shared", "rule": "predict"}}}
ISTIO = {"istio": {"hosts": ["fraud.example.com"], "gateways": ["istio-system/public"]}}
REPLICAS: Manifest = {"replicas": {}}


def spec_of(traffic: Manifest) -> ModelDeploymentSpec:
    return ModelDeploymentSpec.model_validate(
        {
            "model": {"name": "fraud", "version": "1"},
            "template": {"spec": {"containers": [{"name": "model", "image": "fraud:1"}]}},
            "traffic": traffic,
        }
    )


def router(
    traffic: Manifest,
    joined_backend: Manifest | None = None,
    uid: str = "uid-1",
    target_ports: Mapping[str, int] | None = None,
) -> TrafficRouter:
    ports = target_ports or {}
    return router_for("fraud", "ml", uid, spec_of(traffic), joined_backend, ports)


def written(by: TrafficRouter, split: Split = SPLIT, live: Manifest | None = None) -> Manifest:
    """Return what a router writes, as it would be read back."""
    write = by.render(split, live)
    assert isinstance(write, Apply | Replace)
    return deepcopy(write.manifest)


def condition(type_: str, status: str = "True", generation: int = 1, **said: str) -> Manifest:
    return {"type": type_, "status": status, "observedGeneration": generation, **said}


def parent_status(
    *conditions: Manifest, parent: Manifest | None = None, controller: str = "example.com/gateway"
) -> Manifest:
    return {
        "parentRef": parent or GATEWAY,
        "controllerName": controller,
        "conditions": list(conditions or (condition("Accepted"), condition("ResolvedRefs"))),
    }


def accepted(route: Manifest, *parents: Manifest, generation: int = 1) -> Manifest:
    """Return a route with a status; without ``parents``, a gateway that took everything over."""
    metadata = {**route["metadata"], "generation": generation, "resourceVersion": "7"}
    healthy = parent_status(
        condition("Accepted", generation=generation),
        condition("ResolvedRefs", generation=generation),
    )
    return {**route, "metadata": metadata, "status": {"parents": list(parents or (healthy,))}}


def backend(name: str, weight: int | None = None, **more: Any) -> Manifest:
    return {"name": name, "port": 8080, **({} if weight is None else {"weight": weight}), **more}


def shared_route(*backends: Manifest, **rule: Any) -> Manifest:
    """Return a route of somebody else, whose rule ``predict`` has these backends."""
    return accepted(
        {
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "HTTPRoute",
            "metadata": {"name": "shared", "namespace": "ml", "annotations": {"team": "shop"}},
            "spec": {
                "parentRefs": [GATEWAY],
                "rules": [
                    {"name": "shop", "backendRefs": [backend("shop", 3)]},
                    {"name": "predict", "backendRefs": list(backends), **rule},
                ],
            },
        }
    )


def backends_of(route: Manifest, rule: int = 1) -> list[tuple[str, int | None]]:
    return [(b["name"], b.get("weight")) for b in route["spec"]["rules"][rule]["backendRefs"]]
