"""From actions to requests. Every request is idempotent; the first that fails stops the rest."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from crossfade.api.v1alpha1 import ModelDeploymentSpec
from crossfade.core.actions import (
    Action,
    Apply,
    AskGates,
    Delete,
    DeleteRevision,
    EnsureWorkload,
    LabelRole,
    Manifest,
    MergePatch,
    ObjectRef,
    PointAddress,
    RemoveCommand,
    RestoreRoute,
    Scale,
    SetFinalizer,
    SetWeights,
    Write,
)
from crossfade.errors import RouteError
from crossfade.kube.resources import AUTOSCALER, DEPLOYMENT, SERVICE, ResourceKind, child_ref
from crossfade.kube.store import Store
from crossfade.logs import about
from crossfade.names import (
    ANNOTATION_COMMAND,
    API_VERSION,
    FINALIZER,
    KIND,
    NamespacedName,
)
from crossfade.reconcile.observe import View
from crossfade.workload import render
from crossfade.workload.sidecar import (
    Injection,
    read_stable,
    target_port,
    target_port_of,
)
from crossfade.workload.sidecar_config import Stable

_log = logging.getLogger(__name__)


def writes_of(  # noqa: C901, PLR0912 - one row for each action
    action: Action, view: View, store: Store, injection: Injection
) -> Iterator[Write]:
    """Return the requests that carry out an action, in order.

    Raises:
        RouteError: the route cannot carry the split.
    """
    owner = view.owner
    match action:
        case EnsureWorkload():
            yield from _create(action, view, store, injection)
        case Scale(revision, replicas):
            scaled = _child(store, AUTOSCALER, view, revision)
            patch = render.patch_autoscaler if scaled is not None else render.patch_scale
            yield patch(owner, revision, replicas)
        case LabelRole(revision, role):
            yield render.patch_role(owner, revision, role)
        case SetWeights(split):
            if view.router is not None:
                yield view.router.render(split, store.get(view.router.target))
        case PointAddress(revision):
            yield Apply(_address(view, store, revision))
        case DeleteRevision(revision):
            for kind in (SERVICE, AUTOSCALER, DEPLOYMENT):
                child = _child(store, kind, view, revision)
                if child is not None:
                    yield Delete(_child_ref(kind, view, revision))
        case RestoreRoute():
            yield from _restore(view, store)
        case SetFinalizer(present):
            yield _finalizer_patch(view, present=present)
        case RemoveCommand():
            yield _patch(view, {"annotations": {ANNOTATION_COMMAND: None}})
        case AskGates():
            return  # asked beside the loop


def _create(
    action: EnsureWorkload, view: View, store: Store, injection: Injection
) -> Iterator[Write]:
    """The Deployment comes last: seeing it means that the rest is there."""
    owner, spec, revision = view.owner, _spec(view), action.revision
    if _child(store, SERVICE, view, revision) is None:
        yield Apply(render.render_service(owner, spec, revision))
    if spec.autoscaling is not None:
        yield Apply(render.render_autoscaler(owner, spec, revision, action.replicas))
    yield Apply(
        render.render_deployment(
            owner, spec, revision, action.role, action.replicas, injection, _stable(view, store)
        )
    )


def _stable(view: View, store: Store) -> Stable | None:
    """Return the version that is stable now, with what its sidecars were told."""
    stable = view.seen.status.stable
    if stable is None:
        return None
    return read_stable(stable.revision, _child(store, DEPLOYMENT, view, stable.revision))


def _address(view: View, store: Store, revision: str) -> Manifest:
    """Render the address for a version that the spec may not ask for any more."""
    spec = _spec(view)
    asked_for = revision == view.seen.revision
    default = target_port(spec) if asked_for else spec.serving.port
    port = target_port_of(_child(store, DEPLOYMENT, view, revision), default)
    return render.render_address(view.owner, spec, revision, port)


def _restore(view: View, store: Store) -> Iterator[Write]:
    """A route that cannot be put back must not keep the ModelDeployment from being deleted."""
    if view.router is None:
        return
    try:
        write = view.router.restore(store.get(view.router.target))
    except RouteError as e:
        key = NamespacedName(view.owner.namespace, view.owner.name)
        _log.warning("the route is left as it is", extra=about(key, error=e))
        return
    if write is not None:
        yield write


def _finalizer_patch(view: View, *, present: bool) -> Write:
    """Finalizers are one list of everybody's, so the patch is guarded by the resourceVersion."""
    meta = view.body["metadata"]
    others = [f for f in meta.get("finalizers", ()) if f != FINALIZER]
    finalizers = [*others, FINALIZER] if present else others
    return _patch(
        view, {"resourceVersion": meta["resourceVersion"], "finalizers": finalizers or None}
    )


def _patch(view: View, metadata: Manifest) -> MergePatch:
    name = {"namespace": view.owner.namespace, "name": view.owner.name}
    return MergePatch({"apiVersion": API_VERSION, "kind": KIND, "metadata": {**name, **metadata}})


def _spec(view: View) -> ModelDeploymentSpec:
    if view.seen.spec is None:
        raise LookupError("an action on workloads was decided without a spec")
    return view.seen.spec


def _child_ref(kind: ResourceKind, view: View, revision: str) -> ObjectRef:
    return child_ref(kind, view.owner.namespace, view.owner.name, revision)


def _child(store: Store, kind: ResourceKind, view: View, revision: str) -> Manifest | None:
    return store.get(_child_ref(kind, view, revision))
