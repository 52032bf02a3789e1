"""No gateway: the Service named like the ModelDeployment, and how many pods stand behind it.

The Service is the route. With one version it selects that version's pods; while a canary has weight
it selects those of both, and kube-proxy spreads connections evenly over ready pods. So a weight is
met as well as numbers of pods allow, and only over many connections: a caller that keeps one
connection open stays with one pod.

A selector has no room for a weight, so the weights that were asked for stand beside it in an
annotation. They count while the selector agrees with them; what the pods really amount to is
:attr:`RouteState.share`::

    selector {name, revision: A}   A 100 %
    selector {name}                annotation A=75,B=25; share by ready pods
    selector {name, revision: B}   B 100 %

Nor does a Service lead to different ports of different pods, unless all of them name one alike,
which those of an older version cannot be made to. So as long as it selects a version with a sidecar
and one without, or with another port, it leads to the models themselves, past the sidecars: no
request is lost, and none is checked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from typing_extensions import override

from crossfade.core.actions import Manifest, ObjectRef
from crossfade.core.observation import RouteState
from crossfade.names import ANNOTATION_WEIGHTS, LABEL_NAME, LABEL_REVISION, selector_labels
from crossfade.routing.owned import (
    OwnedRouter,
    agrees,
    is_as_written,
    render_metadata,
)
from crossfade.routing.shares import percents

SERVICE: Final = "Service"
PORT_NAME: Final = "http"


@dataclass(frozen=True, slots=True)
class ReplicasRouter(OwnedRouter):
    """Splits traffic by the number of ready pods behind one Service."""

    port: int
    target_ports: Mapping[str, int] = field(default_factory=dict)
    """Which port of its pods takes requests, by revision; those that are not here: ``port``."""

    @property
    @override
    def target(self) -> ObjectRef:
        return ObjectRef("v1", SERVICE, self.owner.namespace, self.owner.name)

    @override
    def _read(self, live: Manifest, ready: Mapping[str, int]) -> RouteState:
        """Read the Service; in force means that it selects what it should.

        kube-proxy follows within about a second, and nothing in the API says when.
        """
        selector = live.get("spec", {}).get("selector") or {}
        weights = _weights_asked_for(live)
        if self._selector(weights) == selector:
            mixed = LABEL_REVISION not in selector
            return RouteState(
                found=True,
                weights=weights,
                current=self._is_current(weights, live),
                in_force=True,
                share=percents(ready) if mixed else None,
            )
        actual = _weights_of_selector(selector, self.owner.name, ready)
        problem = f"{self.target} does not select what its weights ask for"
        return RouteState(found=True, weights=actual, current=False, problem=problem)

    @override
    def canary_replicas(self, weight: int, full: int) -> int:
        """Return the pods whose share beside ``full`` stable ones comes nearest to ``weight``.

        At least 1 and at most ``full``, so that a canary gets at most half until it is promoted.
        """
        if weight >= 50:  # noqa: PLR2004 - percent; as many pods as stable has make half
            return full
        fewer = full * weight // (100 - weight)
        return min(
            (max(1, fewer), min(full, fewer + 1)),
            key=lambda pods: abs(pods * 100 / (pods + full) - weight),
        )

    @property
    @override
    def _advice(self) -> str:
        return (
            "delete it, or hand it over with the labels app.kubernetes.io/managed-by=crossfade and"
            f" {LABEL_NAME}={self.owner.name}"
        )

    def _is_current(self, weights: Mapping[str, int], live: Manifest) -> bool:
        """Tell whether all but the split is as written; ports that others added stay theirs."""
        wanted = self._manifest(weights)
        ours = wanted["spec"]["ports"][0]
        found = [p for p in live["spec"].get("ports") or () if agrees(ours, p)]
        return is_as_written(wanted, {**live, "spec": {**live["spec"], "ports": found}})

    def _selector(self, weights: Mapping[str, int]) -> dict[str, str]:
        """Return the selector for weights above zero; {} for none."""
        if len(weights) == 1:
            return selector_labels(self.owner.name, next(iter(weights)))
        return {LABEL_NAME: self.owner.name} if weights else {}

    def _target_port(self, weights: Mapping[str, int]) -> int:
        """Return the port that all selected pods have in common: the sidecars', or the models'."""
        known, port = self.target_ports, self.port
        if len(weights) == 1:
            return known.get(next(iter(weights)), port)
        ports = {*known.values(), *(known.get(revision, port) for revision in weights)}
        return ports.pop() if len(ports) == 1 else port

    @override
    def _manifest(self, weights: Mapping[str, int]) -> Manifest:
        """Build the Service; but for the annotation it is the address of other routers."""
        weights = {revision: weight for revision, weight in weights.items() if weight}
        annotation = ",".join(f"{revision}={weight}" for revision, weight in weights.items())
        return {
            "apiVersion": "v1",
            "kind": SERVICE,
            "metadata": {
                **render_metadata(self.owner),
                "annotations": {ANNOTATION_WEIGHTS: annotation},
            },
            "spec": {
                "type": "ClusterIP",
                "selector": self._selector(weights),
                "ports": [
                    {
                        "name": PORT_NAME,
                        "protocol": "TCP",
                        "port": self.port,
                        "targetPort": self._target_port(weights),
                    }
                ],
            },
        }


def _weights_asked_for(live: Manifest) -> dict[str, int]:
    """Read the annotation; {} when it is not there or is not what we write."""
    text = (live["metadata"].get("annotations") or {}).get(ANNOTATION_WEIGHTS, "")
    weights = {}
    for part in text.split(","):
        revision, _, weight = part.partition("=")
        if not revision or not weight.isdecimal():
            return {}
        weights[revision] = int(weight)
    return weights if sum(weights.values()) == 100 and all(weights.values()) else {}  # noqa: PLR2004


def _weights_of_selector(
    selector: Mapping[str, str], name: str, ready: Mapping[str, int]
) -> dict[str, int]:
    """Return what a selector that is not as written amounts to."""
    revision = selector.get(LABEL_REVISION)
    if revision is not None and selector == selector_labels(name, revision):
        return {revision: 100}
    return percents(ready) if selector == {LABEL_NAME: name} else {}
