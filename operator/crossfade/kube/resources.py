"""The kinds that Crossfade reads and writes, and how their objects are named."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from crossfade.core.actions import Manifest, ObjectRef
from crossfade.names import API_VERSION, GROUP, KIND, PLURAL, VERSION, child_name


@dataclass(frozen=True, slots=True)
class ResourceKind:
    """A kind of the Kubernetes API."""

    group: str
    version: str
    plural: str
    kind: str

    @property
    def api_version(self) -> str:
        """``group/version``, or the version alone for the core group."""
        return f"{self.group}/{self.version}" if self.group else self.version


MODEL_DEPLOYMENT: Final = ResourceKind(GROUP, VERSION, PLURAL, KIND)
DEPLOYMENT: Final = ResourceKind("apps", "v1", "deployments", "Deployment")
SERVICE: Final = ResourceKind("", "v1", "services", "Service")
POD: Final = ResourceKind("", "v1", "pods", "Pod")
AUTOSCALER: Final = ResourceKind(
    "autoscaling", "v2", "horizontalpodautoscalers", "HorizontalPodAutoscaler"
)
CONTROLLER_REVISION: Final = ResourceKind("apps", "v1", "controllerrevisions", "ControllerRevision")
HTTP_ROUTE: Final = ResourceKind("gateway.networking.k8s.io", "v1", "httproutes", "HTTPRoute")
VIRTUAL_SERVICE: Final = ResourceKind(
    "networking.istio.io", "v1", "virtualservices", "VirtualService"
)
SECRET: Final = ResourceKind("", "v1", "secrets", "Secret")
CONFIG_MAP: Final = ResourceKind("", "v1", "configmaps", "ConfigMap")
EVENT: Final = ResourceKind("", "v1", "events", "Event")

CHILDREN: Final = (DEPLOYMENT, SERVICE, POD, AUTOSCALER, CONTROLLER_REVISION)
"""Watched by label: only what carries Crossfade's managed-by label."""

ROUTES: Final = (HTTP_ROUTE, VIRTUAL_SERVICE)
"""Watched whole, since a joined route carries no label of ours. Either may not be installed."""

KINDS: Final[Mapping[str, ResourceKind]] = {
    k.kind: k for k in (MODEL_DEPLOYMENT, *CHILDREN, *ROUTES, SECRET, CONFIG_MAP, EVENT)
}


def ref_of(manifest: Manifest) -> ObjectRef:
    """Return the identity of an object."""
    meta = manifest["metadata"]
    return ObjectRef(
        manifest["apiVersion"], manifest["kind"], meta.get("namespace", ""), meta["name"]
    )


def child_ref(kind: ResourceKind, namespace: str, name: str, revision: str) -> ObjectRef:
    """Return the identity of the child that a revision of a ModelDeployment has of a kind."""
    return ObjectRef(kind.api_version, kind.kind, namespace, child_name(name, revision))


def model_deployment_ref(namespace: str, name: str) -> ObjectRef:
    """Return the identity of a ModelDeployment."""
    return ObjectRef(API_VERSION, KIND, namespace, name)
