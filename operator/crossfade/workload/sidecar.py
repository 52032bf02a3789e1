"""The sidecar in a pod template: its container, and what that needs of the pod.

It is added once everything else of the template is rendered, so that nothing of that reaches it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from crossfade.api.v1alpha1 import ModelDeploymentSpec
from crossfade.core.actions import Manifest
from crossfade.errors import InvalidSpecError
from crossfade.names import (
    ANNOTATION_SIDECAR,
    SIDECAR,
    SIDECAR_ADMIN_PORT,
    SIDECAR_PORT,
    NamespacedName,
)
from crossfade.sidecar.config import Config, Golden, read_config, write_config
from crossfade.sidecar.messages import Request
from crossfade.workload.sidecar_config import MOST_BYTES, Stable, config_of

if TYPE_CHECKING:
    from crossfade.sidecar.contract import Contract

CONFIG_VOLUME: Final = SIDECAR
NO_TOKEN_VOLUME: Final = f"{SIDECAR}-no-token"
RECORDINGS_VOLUME: Final = f"{SIDECAR}-recordings"
OWN_VOLUMES: Final = frozenset({CONFIG_VOLUME, NO_TOKEN_VOLUME, RECORDINGS_VOLUME})

CONFIG_DIRECTORY: Final = "/etc/crossfade"
CONFIG_FILE: Final = "sidecar.json"

TOKEN_DIRECTORY: Final = "/var/run/secrets/kubernetes.io/serviceaccount"  # noqa: S105 - a path
"""Where a pod's token is mounted into each container, unless something is mounted there already
(Kubernetes, plugin/pkg/admission/serviceaccount/admission.go, mountServiceAccountToken)."""

RECORDINGS_DIRECTORY: Final = "/var/run/crossfade/recordings"
"""Where the sidecar keeps its recordings (``sidecar/recording.py``), over restarts of itself."""

RECORDINGS_OVERHEAD: Final = 2
"""How much larger recordings may be as YAML than as bytes: 1.4 times was seen."""

CASE_BYTES: Final = 4096
"""What a recording takes beside its bodies on a disk, at most: a block."""

USER: Final = 65532
"""The image's user (Dockerfile). It is written out, since a pod's own may be root."""

DEFAULT_RESOURCES: Final[Mapping[str, Any]] = {
    "requests": {"cpu": "50m", "memory": "64Mi"},
    "limits": {"memory": "256Mi"},
}

SCRAPE: Final = "prometheus.io/"


NATIVE_SIDECARS: Final = (1, 29)
"""The first Kubernetes that has native sidecars by default (KEP-753)."""


@dataclass(frozen=True, slots=True)
class Injection:
    """How this operator, on this cluster, adds sidecars."""

    image: str = ""
    """The operator's own; empty: nobody has set it, so none can be added."""
    is_native: bool = True
    """As an init container that goes on: it starts before the others and ends after them."""


NO_INJECTION: Final = Injection()
"""Of an operator that adds none."""

LET_GO: Final = {"exec": {"command": ["sh", "-c", "kill -USR1 1"]}}
"""Has a native sidecar end its connections as soon as the pod is told to end. Its SIGTERM comes
only once the other containers have ended, its preStop at once (KEP-753); till then clients that
keep their connections would go on sending, to a model that is gone in the end."""


def check(owner: NamespacedName, spec: ModelDeploymentSpec, injection: Injection) -> None:
    """Find out before anything is created whether the sidecar would take its configuration.

    Raises:
        InvalidSpecError: it would not, or there is no image of it.
    """
    if spec.proxy is None:
        return
    if not injection.image:
        raise InvalidSpecError(
            "spec asks for a sidecar, but the operator does not know its image: set the environment"
            " variable CROSSFADE_SIDECAR_IMAGE of the operator's Deployment to the operator's image"
        )
    for volume in spec.template["spec"].get("volumes") or ():
        if isinstance(volume, dict) and volume.get("name") in OWN_VOLUMES:
            raise InvalidSpecError(
                f"spec.template.spec.volumes: the name {volume['name']} is taken by the sidecar"
            )
    problem = _problem_of(write_config(config_of(owner, spec, "", None)))
    if problem:
        raise InvalidSpecError(problem)


@lru_cache(maxsize=1024)
def _problem_of(text: str) -> str:
    """Return what the sidecar would say of its configuration; "" when it takes it."""
    # Schemas and paths are the sidecar's: the operator needs their libraries only where they are.
    from crossfade.sidecar.contract import Contract  # noqa: PLC0415
    from crossfade.sidecar.paths import Path  # noqa: PLC0415

    if len(text.encode()) > MOST_BYTES:
        return (
            f"the sidecar's configuration takes more than {MOST_BYTES:,} bytes: shorten"
            " spec.inputs.schema, or give spec.sidecar.goldenRequest a smaller body"
        )
    told = read_config(text.encode())
    masked = told.recording.mask if told.recording is not None else ()
    observed = [one.json_path for one in (*told.features, *told.predictions)]
    try:
        for path in (*masked, *filter(None, observed)):
            Path(path)
    except ValueError as error:
        return f"spec: {error}"
    try:
        return _problem_of_golden(told.golden, Contract(told))
    except ValueError as error:
        return f"spec.inputs: {error}"


def _problem_of_golden(golden: Golden | None, contract: Contract) -> str:
    """The golden request is known to be good, so a contract that refuses it is wrong."""
    if golden is None or not contract.applies_to(golden.method, golden.path):
        return ""
    headers = ((b"content-type", golden.content_type.encode()),)
    violations, _ = contract.check(
        Request(golden.method, golden.path, headers, golden.body.encode())
    )
    said = "; ".join(violation.message for violation in violations[:3])
    return f"spec.inputs refuses the golden request: {said}" if said else ""


def read_stable(revision: str, deployment: Manifest | None) -> Stable:
    """Read what a version's sidecar was told from the version's Deployment."""
    template = _template(deployment)
    text = ((template.get("metadata") or {}).get("annotations") or {}).get(ANNOTATION_SIDECAR)
    try:
        return Stable(revision, read_config(text.encode()) if text else None)
    except ValueError:  # from an operator that wrote it in other words
        return Stable(revision)


def target_port(spec: ModelDeploymentSpec) -> int:
    """Return the port of a version's pods that takes requests."""
    return spec.proxy.port if spec.proxy is not None else spec.serving.port


def target_port_of(deployment: Manifest | None, model_port: int) -> int:
    """Return the same of a version that exists, whose spec may be gone."""
    pod = _template(deployment).get("spec") or {}
    for container in (*(pod.get("initContainers") or ()), *(pod.get("containers") or ())):
        if container["name"] == SIDECAR:
            for port in container.get("ports") or ():
                if port.get("name") == SIDECAR_PORT:
                    return int(port["containerPort"])
    return model_port


def add_sidecar(template: Manifest, told: Config, resources: Any, injection: Injection) -> None:
    """Add the sidecar to a template that is otherwise complete.

    Args:
        template: changed in place.
        told: its configuration.
        resources: as in a container; None for the default ones.
        injection: how it is added.
    """
    annotations = template["metadata"]["annotations"]
    annotations[ANNOTATION_SIDECAR] = write_config(told)
    if not any(name.startswith(SCRAPE) for name in annotations):
        annotations |= {
            f"{SCRAPE}scrape": "true",
            f"{SCRAPE}port": str(told.admin_port),
            f"{SCRAPE}path": "/metrics",
        }
    pod = template["spec"]
    pod["volumes"] = [*(pod.get("volumes") or ()), *_volumes(told)]
    container = _container(told, resources, injection.image)
    if injection.is_native:
        native = {**container, "restartPolicy": "Always", "lifecycle": {"preStop": LET_GO}}
        pod["initContainers"] = [native, *(pod.get("initContainers") or ())]
    else:
        pod["containers"].append(container)


def _container(told: Config, resources: Any, image: str) -> Manifest:
    admin = {"port": SIDECAR_ADMIN_PORT, "scheme": "HTTP"}
    mounts = [
        {"name": CONFIG_VOLUME, "mountPath": CONFIG_DIRECTORY, "readOnly": True},
        {"name": NO_TOKEN_VOLUME, "mountPath": TOKEN_DIRECTORY, "readOnly": True},
    ]
    if told.recording is not None:
        mounts.append({"name": RECORDINGS_VOLUME, "mountPath": RECORDINGS_DIRECTORY})
    return {
        "name": SIDECAR,
        "image": image,
        "command": ["python", "-m", "crossfade.sidecar"],
        "ports": [
            {"name": SIDECAR_PORT, "containerPort": told.port, "protocol": "TCP"},
            {"name": SIDECAR_ADMIN_PORT, "containerPort": told.admin_port, "protocol": "TCP"},
        ],
        "readinessProbe": {
            "httpGet": {"path": "/ready", **admin},
            "periodSeconds": 1,
            "timeoutSeconds": 5,
            "failureThreshold": 3,
        },
        "livenessProbe": {
            "httpGet": {"path": "/live", **admin},
            "periodSeconds": 10,
            "timeoutSeconds": 5,
            "failureThreshold": 3,
        },
        "resources": dict(DEFAULT_RESOURCES) if resources is None else resources,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "volumeMounts": mounts,
    }


def _volumes(told: Config) -> list[Manifest]:
    field = {"fieldPath": f"metadata.annotations['{ANNOTATION_SIDECAR}']"}
    volumes: list[Manifest] = [
        {
            "name": CONFIG_VOLUME,
            "downwardAPI": {"items": [{"path": CONFIG_FILE, "fieldRef": field}]},
        },
        {"name": NO_TOKEN_VOLUME, "emptyDir": {}},
    ]
    if told.recording is not None:
        limit = RECORDINGS_OVERHEAD * told.recording.max_bytes + told.recording.keep * CASE_BYTES
        volumes.append({"name": RECORDINGS_VOLUME, "emptyDir": {"sizeLimit": str(limit)}})
    return volumes


def _template(deployment: Manifest | None) -> Manifest:
    spec: Manifest = (deployment or {}).get("spec") or {}
    template: Manifest = spec.get("template") or {}
    return template
