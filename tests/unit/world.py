"""A simulated cluster at our own protocols: the API server, its controllers, a gateway, metrics.

The operator in it is the real one: reconciler, core, routers, rendering. Only what is beyond
:class:`crossfade.kube.cluster.Cluster`, :class:`crossfade.metrics.analyst.Analyst` and
:class:`crossfade.kube.sidecars.Sidecars` is simulated. Time is a number that the test moves.
"""

from __future__ import annotations

import asyncio
import copy
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from crossfade.api.v1alpha1 import Analysis
from crossfade.core.actions import Apply, Delete, Manifest, MergePatch, ObjectRef, Replace, Write
from crossfade.core.observation import UNSEEN, Arrivals, DrillResult
from crossfade.errors import ClusterError, ConflictError, SidecarError, WebhookError
from crossfade.evidence.verdicts import Forecast, MetricAnswer, Verdict
from crossfade.kube.resources import CHILDREN, ROUTES, model_deployment_ref, ref_of
from crossfade.kube.store import Store
from crossfade.metrics.analyst import Arm, Subject
from crossfade.names import ANNOTATION_SIDECAR, LABEL_NAME, LABEL_REVISION, NamespacedName
from crossfade.reconcile.drills import Drills
from crossfade.reconcile.gates import Gates
from crossfade.reconcile.looks import Looks
from crossfade.reconcile.notices import Notices
from crossfade.reconcile.reconciler import Reconciler
from crossfade.reconcile.targets import Targets
from crossfade.sidecar.config import Config, Golden, read_config
from crossfade.webhooks.client import Answer
from crossfade.webhooks.sender import Sender
from crossfade.workload.sidecar import Injection

START = datetime(2026, 11, 24, 12, 0, 0, tzinfo=UTC)
KEY = NamespacedName("ml", "fraud")
REF = model_deployment_ref(KEY.namespace, KEY.name)


GARBLED = "{}"
"""What is no configuration of a sidecar's."""


class Killed(BaseException):
    """SIGKILL: no handler of the operator sees it."""


def manifest(version: str = "1.0.0", **spec: Any) -> Manifest:
    """Build a ModelDeployment; keywords replace parts of its spec."""
    return {
        "apiVersion": "crossfade.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": KEY.name, "namespace": KEY.namespace},
        "spec": {
            "model": {"name": "fraud", "version": version},
            "replicas": 2,
            "template": {"spec": {"containers": [{"name": "model", "image": f"fraud:{version}"}]}},
            "traffic": {"gateway": {"parentRefs": [{"name": "public", "namespace": "gateways"}]}},
            "rollout": {
                "steps": [
                    {"weightPercent": 10, "minSeconds": 10},
                    {"weightPercent": 50, "minSeconds": 10},
                ],
                "probationSeconds": 60,
                "readyDeadlineSeconds": 120,
            },
            "analysis": {
                "prometheus": {"address": "http://prometheus:9090"},
                "intervalSeconds": 5,
                "source": {"preset": "mlserver"},
                "metrics": [{"name": "errors", "errorRate": {"maxPercent": 2}}],
            },
            **spec,
        },
    }


def guarded(version: str = "1.0.0", *targets: str, **spec: Any) -> Manifest:
    """Build a ModelDeployment with a fallback to some targets; keywords replace parts of its spec.

    Without targets it has a sidecar that can do no more than ask the model.
    """
    written = {
        "stable": {"stable": {}},
        "previous": {"previous": {}},
        "service": {"service": {"name": "legacy", "port": 80}},
        "static": {"static": {"body": {"score": 0.5}}},
    }
    fallback = {"fallback": {"targets": [written[name] for name in targets]}} if targets else {}
    golden = {"path": "/v2/models/fraud/infer", "body": {"age": 30}}
    return manifest(version, **{"sidecar": {"goldenRequest": golden}, **fallback, **spec})


@dataclass
class FakeCluster:
    """An API server and the controllers behind it, as far as Crossfade can tell."""

    objects: dict[ObjectRef, Manifest] = field(default_factory=dict)
    writes: list[str] = field(default_factory=list)
    """What the operator wrote, as "verb Kind name"."""
    events: list[tuple[str, str]] = field(default_factory=list)
    """Reason and note of each posted Event."""
    kill_after: int | None = None
    """Die right after this many writes."""
    refuse: Callable[[Write], str | None] = lambda _write: None
    """Return why a write is refused; None lets it through."""
    on_change: Callable[[str, Manifest], None] = lambda _verb, _manifest: None
    unready: set[str] = field(default_factory=set)
    """Versions whose pods never get ready."""
    ready_at_most: int = 1000
    """Of each version's pods."""
    gateway_accepts: bool = True
    _version: int = 100

    # ── the operator's side ───────────────────────────────────────────────────────────────────

    async def write(self, write: Write) -> Manifest | None:
        refusal = self.refuse(write)
        if refusal is not None:
            raise ClusterError(refusal)
        result = self._carry_out(write)
        self._count(write)
        return copy.deepcopy(result)

    async def write_status(self, ref: ObjectRef, status: Mapping[str, Any]) -> Manifest | None:
        if ref not in self.objects:
            return None
        body = {**self.objects[ref], "status": copy.deepcopy(dict(status))}
        self._keep(body)
        self.writes.append(f"status {ref.kind} {ref.name}")
        self._maybe_die()
        return copy.deepcopy(self.objects[ref])

    async def post_event(self, event: Manifest) -> None:
        self.events.append((event["reason"], event["message"]))

    def _count(self, write: Write) -> None:
        ref = write.ref if isinstance(write, Delete) else ref_of(write.manifest)
        self.writes.append(f"{type(write).__name__.lower()} {ref.kind} {ref.name}")
        self._maybe_die()

    def _maybe_die(self) -> None:
        if self.kill_after is not None and len(self.writes) >= self.kill_after:
            self.kill_after = None
            raise Killed

    def _carry_out(self, write: Write) -> Manifest | None:
        match write:
            case Apply(new, force):
                known = self.objects.get(ref_of(new))
                if known is not None and not force and LABEL_NAME not in _labels(known):
                    raise ClusterError(f"{ref_of(new)} exists and is somebody else's")
                return self._keep(_applied(known, new))
            case Replace(new):
                known = self.objects.get(ref_of(new))
                if known is None:
                    raise ClusterError("not found")
                if new["metadata"]["resourceVersion"] != known["metadata"]["resourceVersion"]:
                    raise ConflictError("the object has been modified")
                return self._keep(copy.deepcopy(new))
            case MergePatch(patch):
                known = self.objects.get(ref_of(patch))
                if known is None:
                    return None
                version = patch["metadata"].get("resourceVersion")
                if version not in (None, known["metadata"]["resourceVersion"]):
                    raise ConflictError("the object has been modified")
                return self._keep(_merged(known, patch))
            case Delete(ref):
                self.delete(ref)
                return None

    # ── everybody else's side ─────────────────────────────────────────────────────────────────

    def apply(self, body: Manifest) -> None:
        """Do what a user's ``kubectl apply`` does."""
        known = self.objects.get(ref_of(body))
        self._keep(_applied(known, body))

    def edit(self, ref: ObjectRef, change: Callable[[Manifest], None]) -> None:
        """Change an object behind the operator's back."""
        body = copy.deepcopy(self.objects[ref])
        change(body)
        self._keep(body)

    def delete(self, ref: ObjectRef) -> None:
        """Delete an object, or mark it while somebody holds a finalizer; then its children."""
        body = self.objects.get(ref)
        if body is None:
            return
        if body["metadata"].get("finalizers"):
            body = copy.deepcopy(body)
            body["metadata"].setdefault("deletionTimestamp", "2026-11-24T12:00:00Z")
            self._keep(body)
            return
        self._drop(ref)

    def _drop(self, ref: ObjectRef) -> None:
        gone = self.objects.pop(ref)
        self.on_change("DELETED", gone)
        uid = gone["metadata"]["uid"]
        for child in list(self.objects.values()):
            owners = child["metadata"].get("ownerReferences", ())
            if any(owner["uid"] == uid for owner in owners):
                self.delete(ref_of(child))

    def _keep(self, body: Manifest) -> Manifest:
        ref = ref_of(body)
        self._version += 1
        known = self.objects.get(ref)
        meta = body["metadata"]
        meta.setdefault("uid", f"uid-{self._version}")
        meta["resourceVersion"] = str(self._version)
        changed = known is None or known.get("spec") != body.get("spec")
        before = known["metadata"]["generation"] if known is not None else 0
        meta["generation"] = before + 1 if changed else before
        self.objects[ref] = body
        if meta.get("deletionTimestamp") and not meta.get("finalizers"):
            self._drop(ref)
            return body
        self._control(body)
        self.on_change("MODIFIED", self.objects[ref])
        return self.objects[ref]

    def _control(self, body: Manifest) -> None:
        """Play the Deployment controller, kubelet and gateway: they have caught up at once."""
        generation = body["metadata"]["generation"]
        if body["kind"] == "Deployment":
            image = body["spec"]["template"]["spec"]["containers"][0]["image"]
            replicas = body["spec"].get("replicas", 1)
            ready = 0 if image.split(":")[-1] in self.unready else min(replicas, self.ready_at_most)
            body["status"] = {
                "observedGeneration": generation,
                "replicas": replicas,
                "updatedReplicas": replicas,
                "readyReplicas": ready,
                "availableReplicas": ready,
            }
            if config_of(body) is not None:
                self._run_pods(body, replicas, ready)
        elif body["kind"] == "HTTPRoute":
            self._accept(body, generation)

    def _run_pods(self, deployment: Manifest, replicas: int, ready: int) -> None:
        """Play kubelet, where somebody asks the pods themselves: the first ones are ready."""
        meta = deployment["metadata"]
        owner = {"kind": "Deployment", "name": meta["name"], "uid": meta["uid"]}
        for nth in range(100):
            ref = ObjectRef("v1", "Pod", meta["namespace"], f"{meta['name']}-{nth}")
            if nth >= replicas:
                if ref not in self.objects:
                    return
                self._drop(ref)
                continue
            known = self.objects.get(ref)
            fresh = f"10.0.{self._version // 250}.{self._version % 250}"
            address = known["status"]["podIP"] if known else fresh
            ready_now = "True" if nth < ready else "False"
            self._keep(
                {
                    "apiVersion": "v1",
                    "kind": "Pod",
                    "metadata": {
                        **(known["metadata"] if known else {}),
                        "name": ref.name,
                        "namespace": ref.namespace,
                        "labels": deployment["spec"]["template"]["metadata"]["labels"],
                        "ownerReferences": [owner],
                    },
                    "status": {
                        "podIP": address,
                        "conditions": [{"type": "Ready", "status": ready_now}],
                    },
                }
            )

    def _accept(self, body: Manifest, generation: int) -> None:
        accepted = {
            "type": "Accepted",
            "status": "True" if self.gateway_accepts else "False",
            "reason": "Accepted" if self.gateway_accepts else "NotAllowedByListeners",
            "message": "",
            "observedGeneration": generation,
        }
        resolved = {**accepted, "type": "ResolvedRefs", "status": "True", "reason": "ResolvedRefs"}
        body["status"] = {
            "parents": [
                {
                    "parentRef": parent,
                    "controllerName": "example.com/gateway",
                    "conditions": [accepted, resolved],
                }
                for parent in body["spec"].get("parentRefs", ())
            ]
        }

    def revive(self, version: str) -> None:
        """Let a version's pods become ready, or unready, according to ``unready``."""
        for body in list(self.objects.values()):
            if body["kind"] == "Deployment":
                image = body["spec"]["template"]["spec"]["containers"][0]["image"]
                if image.endswith(f":{version}"):
                    self._keep(copy.deepcopy(body))


def _labels(body: Manifest) -> dict[str, str]:
    return dict(body["metadata"].get("labels", {}))


def _applied(known: Manifest | None, new: Manifest) -> Manifest:
    """Server-side apply, near enough: our fields replace, status and identity stay."""
    body = copy.deepcopy(new)
    if known is not None:
        meta = known["metadata"]
        body["metadata"] = {
            **{k: meta[k] for k in ("uid", "resourceVersion", "generation")},
            **({"finalizers": meta["finalizers"]} if "finalizers" in meta else {}),
            **({"annotations": meta["annotations"]} if "annotations" in meta else {}),
            **body["metadata"],
        }
        if "status" in known:
            body["status"] = known["status"]
    return body


def _merged(known: Any, patch: Any) -> Any:
    """Merge as RFC 7386 says."""
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    result = copy.deepcopy(known) if isinstance(known, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = _merged(result.get(key), value)
    return result


@dataclass
class FakeAnalyst:
    """Judges as the test says."""

    verdicts: dict[str, Verdict] = field(default_factory=dict)
    """The verdict on each version; others are healthy once their weight is in force."""
    unavailable: bool = False
    alert: str = ""
    """What every answer alerts of."""
    forecast: Callable[[int], tuple[Forecast, ...]] = lambda _look: ()
    """What the answer of the n-th look forecasts."""
    no_forecast: str = ""
    still_arriving: bool = False
    """A leaving version still gets requests."""
    looks: list[Subject] = field(default_factory=list)

    async def look(self, subject: Subject, now: datetime) -> tuple[MetricAnswer, ...]:
        self.looks.append(subject)
        if self.unavailable:
            return (MetricAnswer("errors", Verdict.UNAVAILABLE, "Prometheus does not answer"),)
        default = Verdict.HEALTHY if subject.in_force_at else Verdict.NOT_ENOUGH_DATA
        verdict = self.verdicts.get(subject.canary.version, default)
        forecast = self.forecast(len(self.looks))
        words = f"{verdict.value} it is"
        return (
            MetricAnswer(
                "errors",
                verdict,
                words,
                alert=self.alert,
                forecast=forecast,
                no_forecast=self.no_forecast,
            ),
        )

    async def arrivals(
        self, key: NamespacedName, analysis: Analysis, arm: Arm, since: datetime, now: datetime
    ) -> Arrivals:
        if self.unavailable:
            return UNSEEN
        return Arrivals(now if self.still_arriving else None, now)

    def forget(self, key: NamespacedName) -> None:
        """Nothing is remembered."""


def config_of(deployment: Manifest) -> Config | None:
    """Return the configuration of the sidecars in a Deployment's pods; None: they have none."""
    annotations = deployment["spec"]["template"]["metadata"].get("annotations") or {}
    written = annotations.get(ANNOTATION_SIDECAR)
    return read_config(written.encode()) if written and written != GARBLED else None


@dataclass
class FakeSidecars:
    """The sidecars of the cluster's pods; targets answer as the test says."""

    cluster: FakeCluster
    failing: dict[str, str] = field(default_factory=dict)
    """What targets do instead of answering, by their names."""
    silent: bool = False
    """No sidecar answers."""
    refuses: tuple[str, ...] = ()
    """What the contract of whoever is asked finds wrong with a golden request."""
    drilled: list[str] = field(default_factory=list)
    """The names of the pods that were asked for a drill."""
    checked: list[Golden] = field(default_factory=list)

    async def drill(self, address: str, port: int, seconds: float) -> tuple[DrillResult, ...]:
        config = self._config(address, port)
        assert config.fallback is not None
        assert seconds == sum(target.timeout_seconds for target in config.fallback.targets)
        return tuple(
            DrillResult(t.name, ok=t.name not in self.failing, message=self.failing.get(t.name, ""))
            for t in config.fallback.targets
        )

    async def check(self, address: str, port: int, golden: Golden) -> tuple[str, ...]:
        self._config(address, port)
        self.checked.append(golden)
        return self.refuses

    def _config(self, address: str, port: int) -> Config:
        objects = self.cluster.objects
        (pod,) = (
            o for r, o in objects.items() if r.kind == "Pod" and o["status"]["podIP"] == address
        )
        self.drilled.append(pod["metadata"]["name"])
        owner = pod["metadata"]["ownerReferences"][0]["name"]
        config = config_of(objects[ObjectRef("apps/v1", "Deployment", KEY.namespace, owner)])
        assert config is not None
        assert config.admin_port == port
        if self.silent:
            raise SidecarError(f"{address}:{port} did not answer in 3 s")
        return config


@dataclass(frozen=True)
class Posted:
    """One request that a receiver or a gate got."""

    address: str
    headers: Mapping[str, str]
    body: dict[str, Any]
    at: datetime


@dataclass
class FakeOutside:
    """Receivers and gates, and the Secrets for them."""

    clock: Callable[[], datetime]
    secrets: dict[str, dict[str, bytes]] = field(default_factory=dict)
    """Data by the Secret's name."""
    answer: Callable[[Posted], Answer | WebhookError] = lambda _: Answer(200)
    """What is answered."""
    posted: list[Posted] = field(default_factory=list)
    hanging: set[str] = field(default_factory=set)
    """Addresses that take a request and say nothing."""

    async def post(
        self,
        address: str,
        headers: Mapping[str, str],
        body: bytes,
        seconds: float,
        *,
        reads: bool,
    ) -> Answer:
        if address in self.hanging:
            await asyncio.Event().wait()
        posted = Posted(address, headers, json.loads(body), self.clock())
        self.posted.append(posted)
        answer = self.answer(posted)
        if isinstance(answer, WebhookError):
            raise answer
        return answer

    async def read(self, namespace: str, name: str) -> Mapping[str, bytes] | None:
        assert namespace == KEY.namespace
        return self.secrets.get(name)

    def to(self, address: str) -> list[Posted]:
        """Return what was posted to an address."""
        return [posted for posted in self.posted if posted.address == address]


def is_watched(body: Manifest) -> bool:
    """Tell whether the operator's watches bring an object: children are selected by label."""
    if body["kind"] in {k.kind for k in CHILDREN}:
        return LABEL_NAME in _labels(body)
    return body["kind"] in {REF.kind, *(k.kind for k in ROUTES)}


class World:
    """The operator in a simulated cluster."""

    def __init__(self) -> None:
        self.now = START
        self.cluster = FakeCluster()
        self.cluster.on_change = self._watch
        self.analyst = FakeAnalyst()
        self.sidecars = FakeSidecars(self.cluster)
        self.outside = FakeOutside(lambda: self.now)
        self.trail: list[tuple[str, int, str]] = []
        """Phase, weight on the route and stable version, each time one of them changed."""
        self.start_operator()

    def start_operator(self) -> None:
        """Start the operator with an empty memory, as after a kill."""
        self.store = Store()
        for body in self.cluster.objects.values():
            if is_watched(body):
                self.store.put(copy.deepcopy(body))
        self.targets = Targets()
        self.looks = Looks(self.analyst, self._wake, lambda: self.now)
        self.drills = Drills(self.sidecars, self._wake, lambda: self.now)
        sender = Sender(self.outside, self.outside, lambda: self.now)
        self.reconciler = Reconciler(
            self.cluster,
            self.store,
            self.looks,
            self.drills,
            self.targets,
            notices=Notices(sender, self._wake, lambda: self.now),
            gates=Gates(sender, self._wake, lambda: self.now),
            clock=lambda: self.now,
            injection=Injection("crossfade:1"),
        )
        self.awake = True
        self.again: datetime | None = None
        self.failures: list[BaseException] = []

    def _wake(self, key: NamespacedName, *, urgent: bool) -> None:
        self.awake = True

    def _watch(self, verb: str, body: Manifest) -> None:
        if not is_watched(body):
            return
        if verb == "DELETED":
            self.store.drop(copy.deepcopy(body))
        else:
            self.store.put(copy.deepcopy(body))
        self.awake = True
        self._note()

    def _note(self) -> None:
        if REF not in self.cluster.objects:
            return
        entry = (self.phase, self.weight, self.stable)
        if not self.trail or self.trail[-1] != entry:
            self.trail.append(entry)

    # ── moving time ───────────────────────────────────────────────────────────────────────────

    async def step(self) -> bool:
        """Reconcile once if there is reason to at this instant; tell whether there was."""
        for _ in range(6):
            await asyncio.sleep(0)
        due = self.again is not None and self.again <= self.now
        if not self.awake and not due:
            return False
        self.awake, self.again = False, None
        try:
            self.again = await self.reconciler.reconcile(KEY)
        except ClusterError as e:
            self.failures.append(e)
            await self.reconciler.report_failure(KEY, e)
            self.again = self.now + timedelta(seconds=1)
            self.awake = False
        return True

    async def settle(self) -> None:
        """Let everything happen that happens at this instant."""
        for _ in range(200):
            if not await self.step():
                return
        raise AssertionError(f"no end in sight: {self.cluster.writes[-10:]} {self.status}")

    async def run(self, seconds: float) -> None:
        """Move time on, from one thing that is due to the next."""
        end = self.now + timedelta(seconds=seconds)
        await self.settle()
        while self.again is not None and self.again <= end:
            self.now = max(self.now, self.again)
            await self.settle()
        self.now = end
        await self.settle()

    async def run_until(self, condition: Callable[[], bool], limit: float = 3600) -> None:
        """Move time on until something holds."""
        end = self.now + timedelta(seconds=limit)
        while not condition():
            if await self.step():
                continue
            if self.again is None or self.again > end:
                raise AssertionError(f"never happened; {self.trail} {self.status}")
            self.now = max(self.now, self.again)

    # ── looking and acting ────────────────────────────────────────────────────────────────────

    def apply(self, body: Manifest) -> None:
        """Apply as a user."""
        self.cluster.apply(body)

    def order(self, command: str) -> None:
        """Set the command annotation."""

        def annotate(body: Manifest) -> None:
            body["metadata"].setdefault("annotations", {})["crossfade.dev/command"] = command

        self.cluster.edit(REF, annotate)

    @property
    def status(self) -> dict[str, Any]:
        return dict(self.cluster.objects[REF].get("status", {}))

    @property
    def phase(self) -> str:
        return str(self.status.get("phase", ""))

    @property
    def stable(self) -> str:
        return str((self.status.get("stable") or {}).get("version", ""))

    @property
    def route(self) -> Manifest | None:
        return next((o for r, o in self.cluster.objects.items() if r.kind == "HTTPRoute"), None)

    @property
    def shares(self) -> dict[str, int]:
        """Percent of the traffic by version, as the route says."""
        if self.route is None:
            return {}
        versions = {
            f"{KEY.name}-{d['metadata']['labels'][LABEL_REVISION]}": d["spec"]["template"]["spec"][
                "containers"
            ][0]["image"].split(":")[-1]
            for d in self.deployments.values()
        }
        backends = self.route["spec"]["rules"][0]["backendRefs"]
        total = sum(b.get("weight", 1) for b in backends) or 1
        return {
            versions.get(b["name"], b["name"]): round(100 * b.get("weight", 1) / total)
            for b in backends
            if b.get("weight", 1)
        }

    @property
    def weight(self) -> int:
        """The canary's percent on the route; everything that stable does not get."""
        return 100 - self.shares.get(self.stable, 0) if self.shares and self.stable else 0

    @property
    def deployments(self) -> dict[str, Manifest]:
        return {
            r.name: o
            for r, o in self.cluster.objects.items()
            if r.kind == "Deployment" and o["metadata"]["labels"].get(LABEL_NAME) == KEY.name
        }

    @property
    def revisions(self) -> list[Manifest]:
        """The ControllerRevisions, in the order of their numbers."""
        found = [o for r, o in self.cluster.objects.items() if r.kind == "ControllerRevision"]
        return sorted(found, key=lambda it: int(it["revision"]))

    @property
    def versions(self) -> set[str]:
        """The versions that have a Deployment."""
        return {
            d["spec"]["template"]["spec"]["containers"][0]["image"].split(":")[-1]
            for d in self.deployments.values()
        }

    @property
    def reasons(self) -> list[str]:
        """The reasons of the posted Events."""
        return [reason for reason, _ in self.cluster.events]


async def healthy_world(version: str = "1.0.0", **spec: Any) -> World:
    """Return a world in which a version serves."""
    world = World()
    world.apply(manifest(version, **spec))
    await world.run_until(lambda: world.phase == "Healthy", 60)
    await world.settle()
    return world
