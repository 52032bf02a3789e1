"""One look at one ModelDeployment: everything that a decision may know, from the store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from crossfade.api.parse import parse_status
from crossfade.api.v1alpha1 import (
    DEFAULT_STEPS,
    ModelDeploymentSpec,
    ModelDeploymentStatus,
    Phase,
    RevisionStatus,
)
from crossfade.core.actions import Manifest
from crossfade.core.decide import is_look_due
from crossfade.core.drain import leaving_revision
from crossfade.core.observation import UNSEEN, Arrivals, Drill, Observation, RouteState, Workload
from crossfade.errors import InvalidSpecError
from crossfade.kube.resources import AUTOSCALER, DEPLOYMENT, POD, SERVICE
from crossfade.kube.store import Store
from crossfade.metrics.analyst import Arm, Subject
from crossfade.names import (
    ANNOTATION_COMMAND,
    FINALIZER,
    LABEL_NAME,
    LABEL_REVISION,
    NamespacedName,
)
from crossfade.reconcile.drills import Asked, Drills
from crossfade.reconcile.gates import Gates
from crossfade.reconcile.looks import Looks
from crossfade.reconcile.notices import Notices
from crossfade.reconcile.settling import Settling
from crossfade.reconcile.sidecars import asked_of, narrowed_by_canary
from crossfade.reconcile.wanted import Wanted, history_of, wanted_of
from crossfade.routing.factory import router_for
from crossfade.routing.router import TrafficRouter
from crossfade.webhooks.events import Origin
from crossfade.workload.read import read_workload
from crossfade.workload.render import Owner
from crossfade.workload.sidecar import NO_INJECTION, Injection, target_port_of


@dataclass(frozen=True, slots=True)
class View:
    """One look, with what the shell needs to act on the decision."""

    body: Manifest
    owner: Owner
    seen: Observation
    router: TrafficRouter | None
    """None when the spec cannot be read."""


@dataclass(frozen=True, slots=True)
class Memory:
    """What lasts from one look to the next: what was asked, and what was answered."""

    looks: Looks
    drills: Drills
    notices: Notices
    gates: Gates
    settling: Settling

    def forget(self, key: NamespacedName) -> None:
        """Drop a ModelDeployment that is gone."""
        self.looks.forget(key)
        self.drills.forget(key)
        self.notices.forget(key)
        self.gates.forget(key)
        self.settling.forget(key)


def observe(
    body: Manifest,
    store: Store,
    memory: Memory,
    now: datetime,
    injection: Injection = NO_INJECTION,
) -> View:
    """Look at a ModelDeployment. Asks metrics and sidecars when that is due, and waits for none.

    Raises:
        InvalidSpecError: the status cannot be read, so nothing may be concluded from it.
    """
    meta = body["metadata"]
    owner = Owner(name=meta["name"], namespace=meta["namespace"], uid=meta["uid"])
    status = parse_status(body)
    common = {
        "name": owner.name,
        "namespace": owner.namespace,
        "uid": owner.uid,
        "generation": meta.get("generation", 0),
        "status": status,
        "command": (meta.get("annotations") or {}).get(ANNOTATION_COMMAND, ""),
        "deleting": "deletionTimestamp" in meta,
        "has_finalizer": FINALIZER in meta.get("finalizers", ()),
    }
    try:
        wanted = wanted_of(body, owner, status, store, injection)
    except InvalidSpecError as e:
        blank = RouteState(found=False, writable=False)
        seen = Observation(
            **common,
            spec=None,
            spec_problem=str(e),
            revision="",
            workloads={},
            route=blank,
            address=None,
        )
        return View(body, owner, seen, None)
    return _observe(body, owner, wanted, common, store, memory, now)


def _observe(
    body: Manifest,
    owner: Owner,
    wanted: Wanted,
    common: dict[str, object],
    store: Store,
    memory: Memory,
    now: datetime,
) -> View:
    status, spec, revision = common["status"], wanted.spec, wanted.revision
    assert isinstance(status, ModelDeploymentStatus)  # noqa: S101 - narrows for mypy
    router = router_for(
        owner.name,
        owner.namespace,
        owner.uid,
        spec,
        status.joined_backend,
        _target_ports(store, owner, spec.serving.port),
    )
    live = store.get(router.target)
    workloads = _workloads(store, owner)
    ready = {w.revision: w.ready for w in workloads.values()}
    looks = memory.looks
    key = NamespacedName(owner.namespace, owner.name)
    drills, drill = _drill(store, key, status, revision, memory.drills)
    origin = Origin(key, owner.uid, spec.model.name)
    told, tell_again_at = memory.notices.send(origin, spec.notifications or (), status.notices)
    subject = subject_of(owner, spec, status)
    if subject is not None and is_look_due(spec, status, looks.began_at(subject.key), now):
        looks.ask(subject)
    seen = Observation(
        **common,  # type: ignore[arg-type]  # the keys are those above
        spec=spec,
        revision=revision,
        asked=wanted.asked,
        undo_problem=wanted.undo_problem,
        history=history_of(owner, store),
        workloads=workloads,
        route=_route(router, live, ready, key, memory.settling, now),
        address=_address(store, owner),
        needed=_needed(spec, status, workloads, router),
        answers=looks.fresh(subject) if subject is not None else None,
        current_answers=looks.current(subject) if subject is not None else None,
        known_answers=looks.known(subject) if subject is not None else None,
        narrowed=narrowed_by_canary(store, key, status),
        drills=drills,
        drill=drill,
        gate_answers=memory.gates.known(key),
        told=told,
        tell_again_at=tell_again_at,
        leaving=_leaving(owner, spec, status, looks, now),
        joins=router.joins,
        original_backend=router.original_backend(live),
        addressed=spec.traffic.replicas is None,
    )
    return View(body, owner, seen, router)


def _route(
    router: TrafficRouter,
    live: Manifest | None,
    ready: Mapping[str, int],
    key: NamespacedName,
    settling: Settling,
    now: datetime,
) -> RouteState:
    route = router.observe(live, ready)
    generation = live["metadata"].get("generation", 0) if live is not None else 0
    settled = settling.has_settled(key, generation, in_force=route.in_force, now=now)
    if settled == route.in_force:
        return route
    return replace(route, in_force=settled, settling=True)


def _drill(
    store: Store,
    key: NamespacedName,
    status: ModelDeploymentStatus,
    revision: str,
    drills: Drills,
) -> tuple[bool, Drill | None]:
    """Return whether there are sidecars to ask, and what they said."""
    asked = asked_of(store, key, status, revision)
    if isinstance(asked, Asked):
        return True, drills.known(asked) if asked.pods else None
    drills.forget(key)
    return asked is not None, asked


def _workloads(store: Store, owner: Owner) -> dict[str, Workload]:
    """Return every revision that has a Deployment of ours, by hash."""
    autoscalers = {
        _revision(a): a for a in store.children(AUTOSCALER.kind, owner.namespace, owner.name)
    }
    pods: dict[str, list[Manifest]] = {}
    for pod in store.children(POD.kind, owner.namespace, owner.name):
        pods.setdefault(_revision(pod), []).append(pod)
    found = {}
    for deployment in store.children(DEPLOYMENT.kind, owner.namespace, owner.name):
        revision = _revision(deployment)
        if revision and "deletionTimestamp" not in deployment["metadata"]:
            found[revision] = read_workload(
                deployment, pods.get(revision, []), autoscalers.get(revision)
            )
    return found


def _target_ports(store: Store, owner: Owner, model_port: int) -> dict[str, int]:
    """Return which port of its pods takes requests, of each revision that has or wants pods."""
    return {
        _revision(deployment): target_port_of(deployment, model_port)
        for deployment in store.children(DEPLOYMENT.kind, owner.namespace, owner.name)
        if deployment["spec"].get("replicas") or (deployment.get("status") or {}).get("replicas")
    }


def _revision(manifest: Manifest) -> str:
    labels = manifest["metadata"].get("labels") or {}
    return str(labels.get(LABEL_REVISION, ""))


def _address(store: Store, owner: Owner) -> str | None:
    """Return the revision that the Service named like the ModelDeployment selects."""
    for service in store.children(SERVICE.kind, owner.namespace, owner.name):
        if service["metadata"]["name"] == owner.name:
            selector = service.get("spec", {}).get("selector") or {}
            return selector.get(LABEL_REVISION) if LABEL_NAME in selector else None
    return None


def _needed(
    spec: ModelDeploymentSpec,
    status: ModelDeploymentStatus,
    workloads: dict[str, Workload],
    router: TrafficRouter,
) -> dict[int, int]:
    """Return the canary pods that each weight needs; 100 percent is the full capacity.

    With an autoscaler, stable may run more pods than its minimum. While there is a canary that is
    the full capacity: stable must not shrink because a canary takes some of its load, and what
    replaces it must be able to carry what it carries now.
    """
    full = spec.replicas or 1
    if spec.autoscaling is not None:
        full = spec.autoscaling.min_replicas
        stable = workloads.get(status.stable.revision) if status.stable is not None else None
        if status.canary is not None and stable is not None:
            full = min(max(full, stable.ready), spec.autoscaling.max_replicas)
    weights = {step.weight_percent for step in spec.rollout.steps or DEFAULT_STEPS}
    if status.rollout is not None:
        weights.add(status.rollout.target_weight)
    needed = {w: router.canary_replicas(w, full) for w in weights if 0 < w < 100}  # noqa: PLR2004
    return {**needed, 100: full}


def subject_of(
    owner: Owner, spec: ModelDeploymentSpec, status: ModelDeploymentStatus
) -> Subject | None:
    """Return what is to be judged; None when nothing is."""
    if spec.analysis is None or status.stable is None:
        return None
    key = NamespacedName(owner.namespace, owner.name)
    rollout, steps = status.rollout, spec.rollout.steps or DEFAULT_STEPS
    if status.phase is Phase.PROBATION and status.promoted_at is not None:
        return Subject(
            key=key,
            model=spec.model.name,
            analysis=spec.analysis,
            canary=_arm(status.stable),
            stable=None,
            since=status.promoted_at,
            in_force_at=status.promoted_at,
            min_requests=0,
        )
    if rollout is None or rollout.weighted_at is None or status.canary is None:
        return None
    step = steps[min(max(rollout.step, 0), len(steps) - 1)]
    return Subject(
        key=key,
        model=spec.model.name,
        analysis=spec.analysis,
        canary=_arm(status.canary),
        stable=_arm(status.stable),
        since=rollout.weighted_at,
        in_force_at=rollout.in_force_at,
        min_requests=step.min_requests,
        ladder=tuple(one.weight_percent for one in steps),
    )


def _arm(revision: RevisionStatus) -> Arm:
    return Arm(revision.revision, revision.version)


def _leaving(
    owner: Owner,
    spec: ModelDeploymentSpec,
    status: ModelDeploymentStatus,
    looks: Looks,
    now: datetime,
) -> Arrivals | None:
    revision = leaving_revision(status, spec, now)
    if revision is None or status.drained_since is None:
        return None
    if spec.analysis is None:
        return UNSEEN
    named = next(r for r in (status.canary, status.previous) if r is not None)
    key = NamespacedName(owner.namespace, owner.name)
    return looks.arrivals(key, spec.analysis, _arm(named), status.drained_since)
