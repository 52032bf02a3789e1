"""Build the children of a ModelDeployment. Pure: what is built is applied by somebody else.

A revision's Deployment is applied once, from the spec that asked for it. From then on it is only
patched (pods, role), since its template is no longer in the spec when the next version is.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

from crossfade.api.v1alpha1 import Model, ModelDeploymentSpec
from crossfade.core.actions import Manifest, MergePatch, Role
from crossfade.names import (
    ANNOTATION_VERSION,
    API_VERSION,
    KIND,
    LABEL_NAME,
    LABEL_ROLE,
    NamespacedName,
    child_labels,
    child_name,
    selector_labels,
)
from crossfade.workload.drain import pause_seconds
from crossfade.workload.sidecar import NO_INJECTION, Injection, add_sidecar, target_port
from crossfade.workload.sidecar_config import Stable, config_of

__all__ = [
    "Owner",
    "metadata_of",
    "patch_autoscaler",
    "patch_role",
    "patch_scale",
    "render_address",
    "render_autoscaler",
    "render_deployment",
    "render_service",
    "render_template",
]

PORT_NAME: Final = "http"
"""The name of the one port of each Service."""

ENV_NAME: Final = "CROSSFADE_MODEL_NAME"
ENV_VERSION: Final = "CROSSFADE_MODEL_VERSION"
ENV_URI: Final = "CROSSFADE_MODEL_URI"


@dataclass(frozen=True, slots=True)
class Owner:
    """The ModelDeployment that the children belong to."""

    name: str
    namespace: str
    uid: str


def render_deployment(
    owner: Owner,
    spec: ModelDeploymentSpec,
    revision: str,
    role: Role,
    replicas: int,
    injection: Injection = NO_INJECTION,
    stable: Stable | None = None,
) -> Manifest:
    """Build the Deployment of a revision; with an autoscaler, that one says how many pods.

    Args:
        owner: the ModelDeployment.
        spec: what asks for the revision.
        revision: its hash.
        role: its role now.
        replicas: how many pods.
        injection: how a sidecar is added, if the spec asks for one.
        stable: the version that is stable now, which that sidecar falls back to.
    """
    scale = {"replicas": replicas} if spec.autoscaling is None else {}
    manifest = _deployment(owner, revision)
    manifest["metadata"] |= metadata_of(owner, revision)
    manifest["metadata"]["labels"][LABEL_ROLE] = role.value
    manifest["metadata"]["annotations"] = _version(spec.model)
    manifest["spec"] = {
        **scale,
        "selector": {"matchLabels": selector_labels(owner.name, revision)},
        # Should a person restart it, it keeps its pods until new ones are ready.
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0}},
        # Going back is Crossfade's business, not that of old ReplicaSets.
        "revisionHistoryLimit": 0,
        "template": render_template(owner, spec, revision, injection, stable),
    }
    return manifest


def render_template(
    owner: Owner,
    spec: ModelDeploymentSpec,
    revision: str,
    injection: Injection = NO_INJECTION,
    stable: Stable | None = None,
) -> Manifest:
    """Build the pod template: the user's, with what a rollout needs where the user says nothing.

    That is: labels and the version as an annotation; the model's name, version and URI in the
    environment; with openInference, a readiness probe of the first container that asks whether
    the model is loaded (servers report ready before); a pause before each container ends.

    Where the spec asks for a sidecar, that one tells whether the model is ready.
    """
    template = deepcopy(spec.template)
    metadata = template.get("metadata") or {}
    template["metadata"] = {
        **metadata,
        "labels": (metadata.get("labels") or {}) | child_labels(owner.name, revision),
        "annotations": (metadata.get("annotations") or {}) | _version(spec.model),
    }
    pod = template["spec"]
    for container in (*(pod.get("initContainers") or ()), *pod["containers"]):
        _tell_model(container, spec.model)
    if spec.proxy is not None:
        told = config_of(NamespacedName(owner.namespace, owner.name), spec, revision, stable)
        add_sidecar(template, told, spec.proxy.resources, injection)
    elif spec.serving.protocol == "openInference":
        _probe(pod["containers"][0], spec.model.name, spec.serving.port)
    for container in pod["containers"]:
        _drain(container, pause_seconds(pod))
    return template


def render_service(owner: Owner, spec: ModelDeploymentSpec, revision: str) -> Manifest:
    """Build the Service of a revision, a backend for routes."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            **_identity(owner, child_name(owner.name, revision)),
            **metadata_of(owner, revision),
        },
        "spec": _service_spec(spec, selector_labels(owner.name, revision), target_port(spec)),
    }


def render_address(
    owner: Owner,
    spec: ModelDeploymentSpec,
    selector_revision: str | None,
    port: int | None = None,
) -> Manifest:
    """Build the Service named like the ModelDeployment, the one address inside the cluster.

    Args:
        owner: the ModelDeployment.
        spec: what it asks for; its pods may be those of another version.
        selector_revision: whose pods it selects; None for those of all revisions.
        port: the port of those pods; None for the model's own.
    """
    selector = (
        {LABEL_NAME: owner.name}
        if selector_revision is None
        else selector_labels(owner.name, selector_revision)
    )
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            **_identity(owner, owner.name),
            **metadata_of(owner, None),
        },
        "spec": _service_spec(spec, selector, spec.serving.port if port is None else port),
    }


def render_autoscaler(
    owner: Owner, spec: ModelDeploymentSpec, revision: str, min_replicas: int
) -> Manifest:
    """Build the autoscaler of a revision; its minimum is at most its maximum.

    Unlike the Deployment it may be applied again, for every revision, when the spec changes.

    Raises:
        ValueError: the spec asks for no autoscaler.
    """
    autoscaling = spec.autoscaling
    if autoscaling is None:
        raise ValueError("spec.autoscaling is not set")
    name = child_name(owner.name, revision)
    behavior = {"behavior": autoscaling.behavior} if autoscaling.behavior is not None else {}
    metrics = {"metrics": autoscaling.metrics} if autoscaling.metrics else {}
    manifest = _autoscaler(owner, revision)
    manifest["metadata"] |= metadata_of(owner, revision)
    manifest["spec"] = {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
        "minReplicas": min(min_replicas, autoscaling.max_replicas),
        "maxReplicas": autoscaling.max_replicas,
        **deepcopy(metrics),
        **deepcopy(behavior),
    }
    return manifest


def patch_scale(owner: Owner, revision: str, replicas: int) -> MergePatch:
    """Ask for another number of pods."""
    return MergePatch(_deployment(owner, revision) | {"spec": {"replicas": replicas}})


def patch_autoscaler(owner: Owner, revision: str, min_replicas: int) -> MergePatch:
    """Ask for another minimum of an autoscaler. The caller keeps it at or below the maximum."""
    return MergePatch(_autoscaler(owner, revision) | {"spec": {"minReplicas": min_replicas}})


def patch_role(owner: Owner, revision: str, role: Role) -> MergePatch:
    """Rename the role of a revision. It is a label of the Deployment, so no pod restarts."""
    manifest = _deployment(owner, revision)
    manifest["metadata"]["labels"] = {LABEL_ROLE: role.value}
    return MergePatch(manifest)


def _identity(owner: Owner, name: str) -> dict[str, Any]:
    return {"name": name, "namespace": owner.namespace}


def _deployment(owner: Owner, revision: str) -> Manifest:
    metadata = _identity(owner, child_name(owner.name, revision))
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata}


def _autoscaler(owner: Owner, revision: str) -> Manifest:
    metadata = _identity(owner, child_name(owner.name, revision))
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": metadata,
    }


def metadata_of(owner: Owner, revision: str | None) -> dict[str, Any]:
    """Return the labels of a child, and whose child it is."""
    reference = {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "name": owner.name,
        "uid": owner.uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }
    return {"labels": child_labels(owner.name, revision), "ownerReferences": [reference]}


def _version(model: Model) -> dict[str, str]:
    """Return the version as an annotation: a label could not hold every version."""
    return {ANNOTATION_VERSION: model.version}


def _service_spec(
    spec: ModelDeploymentSpec, selector: dict[str, str], target: int
) -> dict[str, Any]:
    port = spec.serving.port
    return {
        "type": "ClusterIP",
        "selector": selector,
        "ports": [{"name": PORT_NAME, "protocol": "TCP", "port": port, "targetPort": target}],
    }


def _tell_model(container: dict[str, Any], model: Model) -> None:
    """Put the model in front of the environment, so that ``$(CROSSFADE_...)`` works in the rest."""
    own = list(container.get("env") or ())
    taken = {variable["name"] for variable in own}
    told = ((ENV_NAME, model.name), (ENV_VERSION, model.version), (ENV_URI, model.uri))
    container["env"] = [
        {"name": name, "value": value}
        for name, value in told
        if value is not None and name not in taken
    ] + own


def _drain(container: dict[str, Any], seconds: int) -> None:
    """Let a container go on for a while before it is told to end.

    When a pod ends, its address leaves the gateways at about the same time as the process gets its
    signal: whoever is faster. Requests that arrive in between would fail.
    """
    lifecycle = container.get("lifecycle") or {}
    if seconds > 0 and lifecycle.get("preStop") is None:
        container["lifecycle"] = lifecycle | {"preStop": {"sleep": {"seconds": seconds}}}


def _probe(container: dict[str, Any], model: str, port: int) -> None:
    """Ask each second whether the model is loaded: the default of ten makes each start as slow.

    An answer may take 5 s: with the default of 1 s a busy node makes good pods unready.
    """
    if container.get("readinessProbe") is None:
        path = f"/v2/models/{quote(model, safe='')}/ready"
        container["readinessProbe"] = {
            "httpGet": {"path": path, "port": port},
            "periodSeconds": 1,
            "timeoutSeconds": 5,
            "failureThreshold": 3,
        }
