"""Requests to the API server, through the official client; its errors become ours here."""

from __future__ import annotations

import base64
import os
import re
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final, Protocol

import aiohttp
from kubernetes.aio import client as kubernetes_client
from kubernetes.aio import config as kubernetes_config
from kubernetes.aio.dynamic import DynamicClient, Resource
from kubernetes.aio.dynamic.exceptions import DynamicApiError

from crossfade.core.actions import Apply, Delete, Manifest, MergePatch, ObjectRef, Replace, Write
from crossfade.errors import ClusterError, ConflictError
from crossfade.kube.resources import CONFIG_MAP, EVENT, KINDS, SECRET, ResourceKind, ref_of
from crossfade.names import FIELD_MANAGER

REQUEST_TIMEOUT_SECONDS: Final = 15
"""How long one request may take; a write that is lost is found missing by the next look."""

NOT_FOUND: Final = 404
CONFLICT: Final = 409


OnAnswer = Callable[[str, str, str, float], None]
"""Is told of each request: verb, resource, HTTP status, and its seconds. The status is "error" when
there is no usable answer."""


class Cluster(Protocol):
    """What reconciling needs of an API server."""

    async def write(self, write: Write) -> Manifest | None:
        """Send one write; return the object as it is afterwards, None when it is gone.

        Raises:
            ConflictError: a guarded write lost a race.
            ClusterError: refused, or no answer.
        """
        ...

    async def write_status(self, ref: ObjectRef, status: Mapping[str, Any]) -> Manifest | None:
        """Apply the whole status; None when the object is gone.

        Raises:
            ClusterError: refused, or no answer.
        """
        ...

    async def post_event(self, event: Manifest) -> None:
        """Create a Kubernetes Event.

        Raises:
            ClusterError: refused, or no answer.
        """
        ...


class NoDiscovery:
    """Spares the discovery requests: the kinds that are used are known (``resources.py``)."""

    def __init__(self, client: Any, cache_file: str | None) -> None:
        del client, cache_file

    def __await__(self) -> Any:
        async def itself() -> NoDiscovery:
            return self

        return itself().__await__()


class KubernetesCluster:
    """A :class:`Cluster` on a real API server."""

    def __init__(self, client: DynamicClient, on_answer: OnAnswer = lambda *_: None) -> None:
        self._client = client
        self._on_answer = on_answer

    async def write(self, write: Write) -> Manifest | None:
        """See :meth:`Cluster.write`."""
        match write:
            case Apply(manifest, force):
                return await self._apply(manifest, force=force)
            case Replace(manifest):
                return await self._send(
                    "put", ref_of(manifest), manifest, field_manager=FIELD_MANAGER
                )
            case MergePatch(manifest):
                return await self._send("patch", ref_of(manifest), manifest, **_MERGE)
            case Delete(ref):
                await self._send("delete", ref, {"propagationPolicy": "Background"})
                return None

    async def _apply(self, manifest: Manifest, *, force: bool) -> Manifest:
        ref = ref_of(manifest)
        params = {**_APPLY, "force_conflicts": force}
        try:
            after = await self._send("patch", ref, manifest, **params)
        except ConflictError as e:
            raise ClusterError(
                f"{ref} exists and is somebody else's; remove it, or give the ModelDeployment "
                f"another name ({e})"
            ) from e
        if after is None:
            raise ClusterError(
                f"the API server knows no {ref.kind} of {ref.api_version}, or no namespace "
                f"{ref.namespace}; is that API installed?"
            )
        return after

    async def write_status(self, ref: ObjectRef, status: Mapping[str, Any]) -> Manifest | None:
        """See :meth:`Cluster.write_status`."""
        body = {
            "apiVersion": ref.api_version,
            "kind": ref.kind,
            "metadata": {"namespace": ref.namespace, "name": ref.name},
            "status": dict(status),
        }
        return await self._send("patch", ref, body, subresource="/status", **_APPLY)

    async def post_event(self, event: Manifest) -> None:
        """See :meth:`Cluster.post_event`."""
        namespace = event["metadata"]["namespace"]
        path = _resource(EVENT).path(namespace=namespace)
        await self._request("post", path, event)

    async def list_objects(
        self, kind: ResourceKind, label_selector: str = "", *, namespace: str | None = None
    ) -> list[Manifest]:
        """List a kind in a namespace, or in all; a kind that is not installed has no objects.

        Raises:
            ClusterError: refused, or no answer.
        """
        path = _resource(kind).path(namespace=namespace)
        answer = await self._request("get", path, None, label_selector=label_selector or None)
        items = answer.get("items", []) if answer is not None else []
        return [{**item, "apiVersion": kind.api_version, "kind": kind.kind} for item in items]

    async def read(self, namespace: str, name: str) -> Mapping[str, bytes] | None:
        """Read the data of a Secret; None when there is none.

        Raises:
            ClusterError: refused, or no answer.
        """
        data = await self._data(SECRET, namespace, name)
        return None if data is None else {k: base64.b64decode(v) for k, v in data.items()}

    async def read_config_map(self, namespace: str, name: str) -> Mapping[str, str] | None:
        """Read the data of a ConfigMap; None when there is none.

        Raises:
            ClusterError: refused, or no answer.
        """
        return await self._data(CONFIG_MAP, namespace, name)

    async def serves(self, kind: ResourceKind) -> bool:
        """Tell whether the API server knows a kind, for which nobody needs rights.

        Raises:
            ClusterError: no answer.
        """
        answer = await self._request("get", f"/apis/{kind.api_version}", None) or {}
        return any(it["name"] == kind.plural for it in answer.get("resources", []))

    async def may_list(self, kind: ResourceKind, namespace: str) -> bool:
        """Tell whether there is a right to list a kind in a namespace: anybody may ask that.

        Raises:
            ClusterError: no answer.
        """
        asked = {"group": kind.group, "resource": kind.plural, "verb": "list"}
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": {**asked, "namespace": namespace}},
        }
        path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
        answer = await self._request("post", path, review) or {}
        return bool(answer.get("status", {}).get("allowed"))

    async def version(self) -> tuple[int, int]:
        """Ask which Kubernetes this is: major and minor.

        Raises:
            ClusterError: refused, or no answer.
        """
        answer = await self._request("get", "/version", None) or {}
        try:
            return int(answer["major"]), int(re.sub(r"\D.*", "", answer["minor"]))
        except (KeyError, ValueError) as e:
            raise ClusterError(f"GET /version: not understood: {answer}") from e

    async def _data(
        self, kind: ResourceKind, namespace: str, name: str
    ) -> Mapping[str, str] | None:
        path = _resource(kind).path(namespace=namespace, name=name)
        answer = await self._request("get", path, None)
        return None if answer is None else answer.get("data") or {}

    async def _send(
        self, method: str, ref: ObjectRef, body: Manifest, subresource: str = "", **params: Any
    ) -> Manifest | None:
        resource = _resource(KINDS[ref.kind])
        path = resource.path(namespace=ref.namespace, name=ref.name) + subresource
        return await self._request(method, path, body, **params)

    async def _request(
        self, method: str, path: str, body: Manifest | None, **params: Any
    ) -> Manifest | None:
        began, code = time.monotonic(), "error"
        try:
            response = await self._client.request(
                method,
                path,
                body=body,
                serialize=False,
                _request_timeout=REQUEST_TIMEOUT_SECONDS,
                **params,
            )
            code = str(response.status)
            answer: Manifest = await response.json()
        except DynamicApiError as e:
            code = str(e.status)
            if e.status == NOT_FOUND:
                return None
            kind = ConflictError if e.status == CONFLICT else ClusterError
            raise kind(f"{method.upper()} {path}: {_message(e)}") from e
        except (TimeoutError, aiohttp.ClientError, OSError, ValueError) as e:
            raise ClusterError(f"{method.upper()} {path}: {e!r}") from e
        finally:
            self._on_answer(*about(method, path), code, time.monotonic() - began)
        return answer


_APPLY: Final[dict[str, Any]] = {
    "content_type": "application/apply-patch+yaml",
    "field_manager": FIELD_MANAGER,
    "force_conflicts": True,
}
_MERGE: Final[dict[str, Any]] = {
    "content_type": "application/merge-patch+json",
    "field_manager": FIELD_MANAGER,
}


def _resource(kind: ResourceKind) -> Resource:
    return Resource(
        prefix="apis" if kind.group else "api",
        group=kind.group,
        api_version=kind.version,
        kind=kind.kind,
        name=kind.plural,
        namespaced=True,
    )


def about(method: str, path: str) -> tuple[str, str]:
    """Return verb and resource of a request, as an RBAC rule names them."""
    parts = path.strip("/").split("/")
    skipped = {"api": 2, "apis": 3}.get(parts[0])
    if skipped is None or len(parts) <= skipped:
        return method, path
    parts = parts[skipped:]
    if parts[0] == "namespaces":
        parts = parts[2:]
    plural, name, subresource = (*parts, "", "")[:3]
    resource = f"{plural}/{subresource}" if subresource else plural
    if method == "get":
        return ("get" if name else "list"), resource
    return {"post": "create", "put": "update"}.get(method, method), resource


def _message(error: DynamicApiError) -> str:
    """Return what the API server said, which names the field that it refused."""
    try:
        return str(error.summary())
    except (ValueError, TypeError, AttributeError):
        return str(error.reason)


@asynccontextmanager
async def connect(
    on_answer: OnAnswer = lambda *_: None,
) -> AsyncIterator[KubernetesCluster]:
    """Connect with the pod's service account, or with the current kubeconfig.

    Raises:
        kubernetes.aio.config.ConfigException: neither is there.
    """
    if "KUBERNETES_SERVICE_HOST" in os.environ:
        kubernetes_config.load_incluster_config()
    else:
        await kubernetes_config.load_kube_config()
    async with kubernetes_client.ApiClient() as api:
        yield KubernetesCluster(await DynamicClient(api, discoverer=NoDiscovery), on_answer)
