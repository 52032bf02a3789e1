"""Every kopf decorator of the project: kopf watches and runs; it decides nothing.

Handlers are ``on.event`` only, of at most three lines: put what was seen into the store, and wake
whoever it concerns. kopf writes nothing to anybody's objects this way.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import kopf

from crossfade.core.actions import Manifest
from crossfade.kube.resources import CHILDREN, MODEL_DEPLOYMENT, ROUTES, ResourceKind
from crossfade.kube.store import Store
from crossfade.names import LABEL_NAME, MANAGED_SELECTOR, NamespacedName
from crossfade.reconcile.queue import WorkQueue
from crossfade.reconcile.targets import Targets


def registry_of(
    store: Store,
    queue: WorkQueue[NamespacedName],
    targets: Targets,
    children: Iterable[ResourceKind] = CHILDREN,
) -> kopf.OperatorRegistry:
    """Return the handlers, in a registry of their own: nothing is global."""
    registry = kopf.OperatorRegistry()

    def see(event: Mapping[str, Any]) -> Manifest:
        manifest: Manifest = dict(event["object"])
        if event["type"] == "DELETED":
            store.drop(manifest)
        else:
            store.put(manifest)
        return manifest

    @kopf.on.event(*_selector(MODEL_DEPLOYMENT), registry=registry)
    async def model_deployment(event: Any, **_: Any) -> None:
        meta = see(event)["metadata"]
        queue.add(NamespacedName(meta["namespace"], meta["name"]))

    for kind in children:

        @kopf.on.event(*_selector(kind), registry=registry, id=f"child-{kind.plural}")
        async def child(event: Any, **_: Any) -> None:
            meta = see(event)["metadata"]
            queue.add(NamespacedName(meta["namespace"], meta["labels"][LABEL_NAME]))

    for kind in ROUTES:

        @kopf.on.event(*_selector(kind), registry=registry, id=f"route-{kind.plural}")
        async def route(event: Any, **_: Any) -> None:
            for key in targets.who_uses(see(event)):
                queue.add(key)

    @kopf.on.login(registry=registry)
    async def login(**kwargs: Any) -> kopf.ConnectionInfo | None:
        in_cluster = kopf.login_with_service_account(**kwargs)
        return in_cluster or kopf.login_with_kubeconfig(**kwargs)

    return registry


def settings_of(*, clusterwide: bool) -> kopf.OperatorSettings:
    """Return kopf's settings: no events, no peering, no state on anybody's objects.

    With named namespaces it looks once, at its start, which kinds there are, and takes the
    namespaces as given: Roles cannot allow it to watch for either.
    """
    settings = kopf.OperatorSettings()
    settings.scanning.disabled = not clusterwide
    settings.posting.enabled = False
    settings.peering.standalone = True
    settings.watching.chunk_size = 500
    settings.networking.request_timeout = 30
    settings.networking.connect_timeout = 10
    for kind in CHILDREN:
        settings.watching.label_selectors[_selector(kind)] = MANAGED_SELECTOR
    return settings


def _selector(kind: ResourceKind) -> tuple[str, str, str]:
    return (kind.group, kind.version, kind.plural)
