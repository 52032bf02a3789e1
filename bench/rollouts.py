"""Measure the operator on a real cluster: many rollouts at once, harm, restraint, memory, outage.

    python -m cluster up && python -m cluster.install model-stub
    python -m bench.rollouts --help

Every scenario makes a namespace ``bench-...`` of its own, is bounded in time, and deletes what it
made. Load goes to the gateway's cluster IP only. Everything is as in ``tests/e2e``: the model is a
stub that fails on demand, all the rest is real.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import secrets
import signal
import statistics
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from typing_extensions import override

from bench.gauges import (
    AuditMark,
    Machine,
    Watch,
    find_operator,
    metering,
    prometheus_queries,
    watching,
)
from bench.gauges import read_operator as read_operator_process
from examples.demo.kubectl import Kubectl, KubectlError
from examples.demo.load import Load, run_load
from examples.demo.stats import Stats
from tests.e2e.rollouts import BODY, Rollout, eventually

FIFTY: Final = 50
BATCH: Final = 10
HELD_WEIGHT: Final = 10
GOAL_SECONDS: Final = {"weight": 15.0, "harm": 5.0}

Spec = dict[str, Any]
LONG: Final[Spec] = {"rollout": {"steps": [{"weightPercent": HELD_WEIGHT, "minSeconds": 900}]}}
"""A step that nothing ends but harm."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table."""

    scenario: str
    what: str
    value: str
    goal: str = ""


class One(Rollout):
    """One of several ModelDeployments in a namespace: its pods are those of its name."""

    @override
    def pods(self, version: str) -> list[Spec]:
        mine = {"crossfade.dev/name": self.name}.items()
        return [it for it in super().pods(version) if mine <= it["metadata"]["labels"].items()]


class Fleet:
    """ModelDeployments of one namespace."""

    def __init__(self, kubectl: Kubectl, namespace: str, gateway: str) -> None:
        self.kubectl = kubectl
        self.namespace = namespace
        self.gateway = gateway
        self.rollouts: list[Rollout] = []

    def create(self, count: int, faults: Spec | None = None, **spec: Any) -> None:
        """Create some that serve version 1.0.0, a few at a time; wait until all serve."""
        for begin in range(0, count, BATCH):
            batch = [
                One(self.kubectl, self.namespace, f"m{i:02}")
                for i in range(begin, min(begin + BATCH, count))
            ]
            self.apply("1.0.0", batch, faults, **spec)
            self.rollouts += batch
            self.wait_phase("Healthy", batch, seconds=120)

    def apply(
        self, version: str, some: Sequence[Rollout], faults: Spec | None = None, **spec: Any
    ) -> None:
        """Give some the same version, in one request for each, as ``kubectl apply`` does."""
        items = [it.manifest(version, faults, **spec) for it in some]
        self.kubectl.run(
            "apply", "--server-side", "-f", "-", seconds=120,
            stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": items}),
        )  # fmt: skip

    def statuses(self) -> dict[str, Spec]:
        """Return the status of each."""
        path = f"/apis/crossfade.dev/v1alpha1/namespaces/{self.namespace}/modeldeployments"
        items = self.kubectl.read(path)["items"]
        return {it["metadata"]["name"]: it.get("status", {}) for it in items}

    def wait_phase(self, phase: str, some: Sequence[Rollout], *, seconds: float) -> None:
        """Wait until some are in a phase and ready."""
        names = {it.name for it in some}

        def there() -> bool | None:
            time.sleep(0.5)
            found = self.statuses()
            ok = {
                name for name, it in found.items()
                if it.get("phase") == phase and it.get("readyReplicas", 0) > 0
            }  # fmt: skip
            return names <= ok or None

        eventually(there, seconds, lambda: f"{phase}: {Counter(map(_phase, self.statuses()))}")


def _phase(status: Any) -> str:
    return str(status.get("phase")) if isinstance(status, dict) else str(status)


class Traffic:
    """One thread that sends a load to each of some ModelDeployments, with an account of each."""

    def __init__(self, gateway: str) -> None:
        self._gateway = gateway
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._running: list[asyncio.Future[Stats]] = []
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self.accounts: list[tuple[str, Stats]] = []

    def add(self, rollout: Rollout, rate: float, seconds: float = 900) -> Stats:
        """Begin to send to one, at a rate in requests per second."""
        stats = Stats()
        load = Load(
            host=self._gateway,
            port=80,
            path="/v2/models/fraud/infer",
            host_header=rollout.host,
            rate_per_second=rate,
            seconds=seconds,
            body=lambda _: BODY,
            concurrency=8,
        )

        def begin() -> None:
            self._running.append(
                self._loop.create_task(run_load(load, stop=self._stop, stats=stats))
            )

        self._loop.call_soon_threadsafe(begin)
        self.accounts.append((rollout.name, stats))
        return stats

    def close(self) -> None:
        """End all, and wait for the answers that are on their way."""
        self._loop.call_soon_threadsafe(self._stop.set)
        asyncio.run_coroutine_threadsafe(self._gather(), self._loop).result(30)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(30)
        self._loop.close()

    async def _gather(self) -> None:
        await asyncio.gather(*self._running)

    def lost(self) -> str:
        """Say how many of how many requests were lost, and how."""
        total: Counter[str] = Counter()
        for _, stats in self.accounts:
            total.update({fate.name: n for fate, n in stats.lost().items()})
        sent = sum(len(stats) for _, stats in self.accounts)
        when = [it.ended_at for _, stats in self.accounts for it in stats if it.fate]
        whose = [name for name, stats in self.accounts if stats.lost()]
        told = ""
        if total:
            first, last = (time.strftime("%H:%M:%S", time.gmtime(f(when))) for f in (min, max))
            told = f" {dict(total)} of {len(whose)} ModelDeployments, {first} to {last}"
        return f"{sum(total.values())} of {sent}{told}"


@contextmanager
def traffic(gateway: str) -> Iterator[Traffic]:
    """Send loads while the block runs."""
    it = Traffic(gateway)
    try:
        yield it
    finally:
        it.close()


class Bench:
    """The scenarios."""

    def __init__(self, kubectl: Kubectl, options: argparse.Namespace) -> None:
        self.kubectl = kubectl
        self.options = options
        self.gateway = self._address("gateways", "gateway")
        self.prometheus = self._address("monitoring", "prometheus")
        self.rows: list[Row] = []

    def _address(self, namespace: str, service: str) -> str:
        path = "jsonpath={.spec.clusterIP}"
        return self.kubectl.run("-n", namespace, "get", "service", service, "-o", path)

    def say(self, scenario: str, what: str, value: str, goal: str = "") -> None:
        """Add a line to the table, and print it at once."""
        self.rows.append(Row(scenario, what, value, goal))
        print(f"{time.strftime('%H:%M:%S')} {scenario}: {what}: {value} {goal and f'({goal})'}")
        sys.stdout.flush()

    @contextmanager
    def fleet(self, scenario: str) -> Iterator[Fleet]:
        """Give a namespace of its own; it is deleted afterwards."""
        namespace = f"bench-{scenario}-{secrets.token_hex(2)}"
        self.kubectl.run("create", "namespace", namespace)
        try:
            yield Fleet(self.kubectl, namespace, self.gateway)
        finally:
            # In this order, so that no garbage collection races the operator's own clean-up.
            with suppress(KubectlError):
                words = ("delete", "modeldeployments.crossfade.dev", "--all", "--timeout=100s")
                self.kubectl.run("-n", namespace, *words, seconds=110)
            self.kubectl.run("delete", "namespace", namespace, "--wait=false")

    # ── fifty ─────────────────────────────────────────────────────────────────────────────────

    def fifty(self) -> None:
        """50 rollouts at once: how long until all have weight, and what looking at all costs."""
        with self.fleet("fifty") as fleet, traffic(self.gateway) as loads:
            self._fifty(fleet, loads, "fifty", self.options.seconds)
            self.say("fifty", "requests lost", loads.lost(), "0")

    def floor(self) -> None:
        """What 50 plain Deployments take to get ready beside 50 that serve: no operator in it."""
        count = self.options.count
        with self.fleet("floor") as fleet, traffic(self.gateway) as loads:
            fleet.create(count)
            for rollout in fleet.rollouts:
                loads.add(rollout, self.options.rate)
            time.sleep(8)
            items: list[Spec] = []
            for rollout in fleet.rollouts:
                items += _plain(rollout)
            text = json.dumps({"apiVersion": "v1", "kind": "List", "items": items})
            machine, begun = Machine(), time.time()
            self.kubectl.run("apply", "--server-side", "-f", "-", stdin=text, seconds=120)
            self.say("floor", "kubectl apply of all took", f"{time.time() - begun:.1f} s")
            path = f"/apis/apps/v1/namespaces/{fleet.namespace}/deployments"

            def ready() -> bool | None:
                time.sleep(0.5)
                found = [it["status"] for it in self.kubectl.read(path)["items"]]
                return sum(it.get("readyReplicas", 0) for it in found) >= 2 * count or None

            eventually(ready, 120, lambda: "all plain Deployments are ready")
            took = time.time() - begun
            self.say("floor", f"{count} plain Deployments: last is ready after", f"{took:.1f} s")
            self.say("floor", "machine, until then", machine.used())
            self.say("floor", "  pods: created, ready", _pod_times(fleet, begun))

    def fifty_broken(self) -> None:
        """50 rollouts looked at each second, of which one breaks, and one is broken from birth."""
        name = "fifty-broken"
        with self.fleet(name) as fleet, traffic(self.gateway) as loads:
            self._fifty(fleet, loads, name, 10)
            for i in range(self.options.repeat):
                self._break(fleet.rollouts[i], loads, name, HELD_WEIGHT)
            for i in range(self.options.repeat):
                self._born_bad(fleet, fleet.rollouts[i], loads, name)
            self.say(name, "requests lost", loads.lost(), "0")

    def _fifty(self, fleet: Fleet, loads: Traffic, name: str, seconds: float) -> None:
        count = self.options.count
        fleet.create(count)
        time.sleep(5)
        with metering(self.kubectl) as meter, watching(fleet.namespace) as watch:
            before = meter.last
            self.say(name, f"RSS / working set, {count} settled", _megabytes(before), "≤ 100 MB")
            for rollout in fleet.rollouts:
                loads.add(rollout, self.options.rate)
            machine = Machine()
            time.sleep(5)
            self.say(name, "machine, before", machine.used())
            mark, machine, begun = AuditMark(), Machine(), time.time()
            cpu = meter.last.cpu_seconds
            fleet.apply("2.0.0", fleet.rollouts, **LONG)
            self.say(name, "kubectl apply of all took", f"{time.time() - begun:.1f} s")
            self._wait_weights(watch, begun, count, name)
            self.say(name, "machine, until then", machine.used())
            self.say(name, "  pods: created, ready", _pod_times(fleet, begun))
            cpu = meter.last.cpu_seconds - cpu
            self.say(name, "CPU of the operator until then", f"{cpu:.1f} s")
            self.say(name, "requests to get there", _counted(mark.requests(fleet.namespace)))
            self._looking(fleet, meter, name, seconds)
            rss, working = meter.peak()
            self.say(name, "RSS / working set, peak", f"{rss:.1f} / {working:.1f} MB", "≤ 100 MB")
            if meter.restarts:
                self.say(name, "THE OPERATOR WAS REPLACED MEANWHILE", str(meter.restarts))

    def _wait_weights(self, watch: Watch, begun: float, count: int, name: str) -> None:
        def weighted() -> dict[str, float] | None:
            found = watch.first(begun, lambda it: it.get("weight") == HELD_WEIGHT)
            return found if len(found) == count else None

        def ready(status: Spec) -> bool:
            return (status.get("rollout") or {}).get("readyAt") is not None

        found = eventually(weighted, 180, lambda: "a weight in force for all")
        times = sorted(at - begun for at in found.values())
        pods = sorted(at - begun for at in watch.first(begun, ready).values())
        self.say(
            name, f"{count} started together: last has weight after", f"{times[-1]:.1f} s",
            f"≤ {GOAL_SECONDS['weight']:.0f} s",
        )  # fmt: skip
        self.say(name, "  first / median", f"{times[0]:.1f} / {statistics.median(times):.1f} s")
        if pods:
            self.say(name, "  last pod seen ready", f"{pods[-1]:.1f} s")

    def _looking(self, fleet: Fleet, meter: Any, name: str, seconds: float) -> None:
        """Measure what looks at all of them cost."""
        time.sleep(3)
        mark, before = AuditMark(), meter.last
        queries, begun = prometheus_queries(self.prometheus), time.time()
        time.sleep(seconds)
        took = time.time() - begun
        asked = (prometheus_queries(self.prometheus) - queries) / took
        cpu = (meter.last.cpu_seconds - before.cpu_seconds) / (meter.last.at - before.at)
        self.say(name, "CPU of the operator at 1-s looks", f"{cpu * 60:.1f} s a minute")
        self.say(name, "Prometheus queries (all askers)", f"{asked:.1f} a second")
        self.say(name, f"requests in {took:.0f} s", _counted(mark.requests(fleet.namespace)))

    def _break(self, rollout: Rollout, loads: Traffic, name: str, weight: int) -> None:
        stats = loads.add(rollout, 20 - self.options.rate)
        time.sleep(5)
        rollout.wait_weight(weight, seconds=30)
        rollout.fault("2.0.0", ERROR_PERCENT=50)
        broken = time.time()
        self._harm(rollout, stats, loads, name, "2.0.0", broken, "breaks")

    def _born_bad(self, fleet: Fleet, rollout: Rollout, loads: Traffic, name: str) -> None:
        begun = time.time()
        fleet.apply("3.0.0", [rollout], {"ERROR_PERCENT": 50}, **LONG)
        stats = next(it for n, it in reversed(loads.accounts) if n == rollout.name)
        self._harm(rollout, stats, loads, name, "3.0.0", begun, "bad from its first request")

    def _harm(
        self,
        rollout: Rollout,
        stats: Stats,
        loads: Traffic,
        name: str,
        version: str,
        since: float,
        how: str,
    ) -> None:
        """Wait for the rollback and count the bad answers of all loads to this ModelDeployment."""
        seconds = 60.0

        def there() -> bool | None:
            found = rollout.status
            rejected = [it["version"] for it in found.get("rejected", ())]
            return (found["phase"] == "RolledBack" and version in rejected) or None

        try:
            eventually(there, seconds, rollout.explain)
        except AssertionError as e:
            self.say(name, f"{rollout.name} {how}", f"NOT ROLLED BACK within {seconds:.0f} s: {e}")
            return
        mine = [it for n, it in loads.accounts if n == rollout.name] or [stats]
        bad = [
            it.ended_at for one in mine for it in one
            if it.is_bad and it.version == version and it.ended_at >= since
        ]  # fmt: skip
        if not bad:
            self.say(name, f"{rollout.name} {how}", "no bad answer was given")
            return
        took = max(bad) - min(bad)
        self.say(
            name, f"{rollout.name} {how}", f"{took:.1f} s, {len(bad)} bad answers",
            f"≤ {GOAL_SECONDS['harm']:.0f} s, ≤ 8" if name != "scrape5" else "",
        )  # fmt: skip

    # ── restraint ─────────────────────────────────────────────────────────────────────────────

    def healthy(self) -> None:
        """Healthy canaries: 1 % errors on both versions, limit 2 %; how many are promoted."""
        wanted, workers = self.options.healthy, min(self.options.parallel, self.options.healthy)
        steps = [
            {"weightPercent": 10, "minSeconds": 20, "minRequests": 40},
            {"weightPercent": 50, "minSeconds": 20, "minRequests": 150},
        ]
        spec: Spec = {"rollout": {"steps": steps, "probationSeconds": 5}}
        errors = {"ERROR_PERCENT": 1}
        ends: Counter[str] = Counter()
        times: list[float] = []
        told: list[str] = []
        with self.fleet("healthy") as fleet, traffic(self.gateway) as loads:
            fleet.create(workers, errors, **spec)
            for rollout in fleet.rollouts:
                loads.add(rollout, 20, 2000)
            time.sleep(5)

            def work(worker: int) -> None:
                rollout = fleet.rollouts[worker]
                for number in range(worker, wanted, workers):
                    version, begun = f"2.{number}.0", time.time()
                    fleet.apply(version, [rollout], errors, **spec)
                    end = self._end_of(rollout, version)
                    ends[end] += 1
                    times.append(time.time() - begun)
                    if end != "Healthy":
                        told.append(f"{rollout.name} {version}: {rollout.explain()}")

            with ThreadPoolExecutor(workers) as pool:
                list(pool.map(work, range(workers)))
        promoted = f"{ends['Healthy']} of {wanted}"
        self.say("healthy", "promoted", promoted, f"{wanted} of {wanted}")
        self.say("healthy", "each took, median / longest", _spread(times))
        self.say("healthy", "requests lost", loads.lost(), "0")
        for line in told:
            self.say("healthy", "not promoted", line)

    def _end_of(self, rollout: Rollout, version: str) -> str:
        """Wait for the end of a rollout; return its phase."""
        deadline = time.monotonic() + 240
        while time.monotonic() < deadline:
            status = rollout.status
            rejected = [it["version"] for it in status.get("rejected", ())]
            if status["phase"] == "RolledBack" and version in rejected:
                return "RolledBack"
            if status["phase"] == "Healthy" and status["stable"]["version"] == version:
                return "Healthy"
            time.sleep(1)
        return "no end within 240 s"

    # ── rest ──────────────────────────────────────────────────────────────────────────────────

    def memory(self) -> None:
        """The operator's memory at rest, and with one rollout."""
        reading = read_operator_process(find_operator(self.kubectl))
        others = len(self.kubectl.read("/apis/crossfade.dev/v1alpha1/modeldeployments")["items"])
        self.say("memory", f"RSS / working set, {others} ModelDeployments", _megabytes(reading))
        with self.fleet("memory") as fleet, traffic(self.gateway) as loads:
            fleet.create(1)
            loads.add(fleet.rollouts[0], 20)
            fleet.apply("2.0.0", fleet.rollouts, **LONG)
            fleet.rollouts[0].wait_weight(HELD_WEIGHT)
            with metering(self.kubectl) as meter:
                time.sleep(30)
            rss, working = meter.peak()
        said = f"{rss:.1f} / {working:.1f} MB"
        self.say("memory", "RSS / working set, one rollout under way", said, "≤ 85 MB")

    def settled(self) -> None:
        """50 settled ModelDeployments: what the operator asks of the API server."""
        with self.fleet("settled") as fleet:
            fleet.create(self.options.count)
            time.sleep(5)
            with metering(self.kubectl) as meter:
                mark = AuditMark()
                queries = prometheus_queries(self.prometheus)
                time.sleep(self.options.seconds)
                counted = mark.requests(fleet.namespace)
                asked = prometheus_queries(self.prometheus) - queries
            cpu = meter.last.cpu_seconds - meter.readings[0].cpu_seconds
        name = f"requests in {self.options.seconds:.0f} s, watches apart"
        self.say("settled", name, _counted(counted), "0")
        self.say("settled", "Prometheus queries (all askers)", f"{asked:.0f}")
        self.say("settled", "CPU of the operator (all it does)", f"{cpu:.2f} s")
        self.say("settled", f"RSS / working set, {self.options.count}", _megabytes(meter.last))

    # ── trouble, with a Prometheus of its own ─────────────────────────────────────────────────

    def outage(self) -> None:
        """Prometheus is away in the middle of a rollout: its weight stays, then it goes on."""
        seconds = self.options.outage
        steps = [{"weightPercent": 10, "minSeconds": 30, "minRequests": 20}]
        with self.fleet("outage") as fleet, traffic(self.gateway) as loads:
            address = self._own_prometheus(fleet.namespace, "1s")
            spec = {
                **_asking(fleet, address),
                "rollout": {"steps": steps, "probationSeconds": 0},
            }
            fleet.create(1, **spec)
            rollout = fleet.rollouts[0]
            loads.add(rollout, 20, seconds + 600)
            with watching(fleet.namespace) as watch:
                fleet.apply("2.0.0", [rollout], **spec)
                rollout.wait_weight(10)
                time.sleep(5)
                scale = ("-n", fleet.namespace, "scale", "deployment", "prometheus")
                self.kubectl.run(*scale, "--replicas=0")
                time.sleep(2)
                begun, mark = time.time(), AuditMark()
                time.sleep(seconds)
                ended = time.time()
                counted = mark.requests(fleet.namespace)
                away = rollout.status
                self.kubectl.run(*scale, "--replicas=1")
                back = time.time()
                end = self._end_of(rollout, "2.0.0")
                took = time.time() - back
                seen = {
                    int(s.get("weight", 0)) for at, _, s in watch.changes if begun <= at <= ended
                }
            news = Counter(reason for reason, _ in rollout.events())
        self.say(
            "outage", f"weights seen in {seconds:.0f} s", str(sorted(seen | {int(away["weight"])}))
        )
        self.say("outage", "says", f"{away['phase']}, {away.get('verdict', '')}")
        self.say("outage", "API requests meanwhile", _counted(counted))
        self.say("outage", "events MetricsUnavailable", str(news["MetricsUnavailable"]), "1")
        self.say("outage", "end, after Prometheus was back", f"{end}, {took:.0f} s", "Healthy")
        self.say("outage", "requests lost", loads.lost(), "0")

    def scrape5(self) -> None:
        """Harm at a 5-s scrape."""
        with self.fleet("scrape5") as fleet, traffic(self.gateway) as loads:
            address = self._own_prometheus(fleet.namespace, "5s")
            spec = {**_asking(fleet, address), **LONG}
            fleet.create(self.options.repeat, **spec)
            for rollout in fleet.rollouts:
                loads.add(rollout, self.options.rate)
            fleet.apply("2.0.0", fleet.rollouts, **spec)
            for rollout in fleet.rollouts:
                rollout.wait_weight(HELD_WEIGHT)
            time.sleep(20)
            for rollout in fleet.rollouts:
                self._break(rollout, loads, "scrape5", HELD_WEIGHT)
            self.say("scrape5", "requests lost", loads.lost(), "0")

    def _own_prometheus(self, namespace: str, scrape: str) -> str:
        """Start a Prometheus for one namespace, as the cluster's is; return its address.

        So nobody else's rollouts lose theirs.
        """
        read = self.kubectl.read
        config = read("/api/v1/namespaces/monitoring/configmaps/prometheus")["data"]
        text = config["prometheus.yml"]
        for key in ("scrape_interval", "scrape_timeout", "evaluation_interval"):
            text = _replace_line(text, f"{key}:", f"{key}: {scrape}")
        only = f"- {{role: pod, namespaces: {{names: [{namespace}]}}}}"
        text = text.replace("- role: pod", only)
        live = read("/apis/apps/v1/namespaces/monitoring/deployments/prometheus")
        meta = {"name": "prometheus", "namespace": namespace}
        account = {"kind": "ServiceAccount", **meta}
        role = {"kind": "ClusterRole", "name": "crossfade-prometheus"}
        rbac = "rbac.authorization.k8s.io"
        ports = [{"name": "web", "port": 9090, "targetPort": "web"}]
        # A RoleBinding: it is allowed to see the pods of this namespace, and goes with it.
        self.kubectl.apply([
            {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta},
            {"apiVersion": f"{rbac}/v1", "kind": "RoleBinding", "metadata": meta,
             "roleRef": {"apiGroup": rbac, **role}, "subjects": [account]},
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta,
             "data": {"prometheus.yml": text}},
            {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta,
             "spec": live["spec"]},
            {"apiVersion": "v1", "kind": "Service", "metadata": meta,
             "spec": {"selector": {"app": "prometheus"}, "ports": ports}},
        ])  # fmt: skip
        words = ("rollout", "status", "deployment/prometheus", "--timeout=60s")
        self.kubectl.run("-n", namespace, *words, seconds=70)
        return f"http://prometheus.{namespace}:9090"


def _plain(rollout: Rollout) -> list[Spec]:
    """Return a Deployment and a Service as somebody without an operator would write them."""
    template = rollout.manifest("2.0.0")["spec"]["template"]
    container = template["spec"]["containers"][0]
    container["readinessProbe"] = {
        "httpGet": {"path": "/v2/models/fraud/ready", "port": 8080},
        "periodSeconds": 1,
    }
    labels = {"app": rollout.name}
    template["metadata"]["labels"] = labels
    meta = {"name": f"plain-{rollout.name}", "namespace": rollout.namespace}
    spec = {"replicas": 1, "selector": {"matchLabels": labels}, "template": template}
    service = {"selector": labels, "ports": [{"port": 8080}]}
    return [
        {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": service},
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta, "spec": spec},
    ]


def _pod_times(fleet: Fleet, begun: float) -> str:
    """Say when the new pods were created and became ready, by the API server's whole seconds."""
    created, ready = [], []
    for pod in fleet.kubectl.read(f"/api/v1/namespaces/{fleet.namespace}/pods")["items"]:
        at = _seconds(pod["metadata"]["creationTimestamp"])
        if at < int(begun):
            continue
        created.append(at - begun)
        conditions = pod["status"].get("conditions", ())
        ready += [
            _seconds(it["lastTransitionTime"]) - begun
            for it in conditions
            if it["type"] == "Ready" and it["status"] == "True"
        ]
    spans = (f"{min(it):.0f} to {max(it):.0f} s" if it else "none" for it in (created, ready))
    return ", ".join(spans)


def _seconds(time_stamp: str) -> float:
    return datetime.fromisoformat(time_stamp).timestamp()


def _asking(fleet: Fleet, address: str) -> Spec:
    """Return the analysis of the tests' manifest with another Prometheus."""
    template = Rollout(fleet.kubectl, fleet.namespace).manifest("0")
    analysis: Spec = template["spec"]["analysis"]
    return {"analysis": {**analysis, "prometheus": {"address": address}}}


def _replace_line(text: str, key: str, new: str) -> str:
    lines = text.split("\n")
    return "\n".join(
        line[: len(line) - len(line.lstrip())] + new if line.lstrip().startswith(key) else line
        for line in lines
    )


def _megabytes(reading: Any) -> str:
    return f"{reading.rss_mb:.1f} / {reading.working_mb:.1f} MB"


def _counted(requests: Counter[str]) -> str:
    return f"{sum(requests.values())} {dict(requests.most_common())}"


def _spread(times: Sequence[float]) -> str:
    return f"{statistics.median(times):.0f} / {max(times):.0f} s" if times else "none"


SCENARIOS: Final[dict[str, Callable[[Bench], None]]] = {
    "fifty": Bench.fifty,
    "floor": Bench.floor,
    "fifty-broken": Bench.fifty_broken,
    "healthy": Bench.healthy,
    "memory": Bench.memory,
    "settled": Bench.settled,
    "outage": Bench.outage,
    "scrape5": Bench.scrape5,
}


def _parser() -> argparse.ArgumentParser:
    lines = [f"  {name:<14}{(it.__doc__ or '').strip()}" for name, it in SCENARIOS.items()]
    parser = argparse.ArgumentParser(
        prog="python -m bench.rollouts",
        description="Measure the operator on the cluster of this machine (python -m cluster).",
        epilog="scenarios:\n" + "\n".join(lines),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("scenarios", nargs="+", choices=[*SCENARIOS], metavar="SCENARIO", help="see below")
    add("--count", type=int, default=FIFTY, help="ModelDeployments of fifty... (%(default)s)")
    add("--rate", type=float, default=2, help="requests/s to each of fifty... (%(default)s)")
    add("--seconds", type=float, default=60, help="of measuring costs (%(default)s)")
    add("--repeat", type=int, default=3, help="versions that break, of each sort (%(default)s)")
    add("--healthy", type=int, default=20, help="canaries of healthy (%(default)s)")
    add("--parallel", type=int, default=5, help="of them at a time (%(default)s)")
    add("--outage", type=float, default=60, help="seconds without Prometheus (%(default)s)")
    return parser


def main(arguments: list[str]) -> int:
    """Run scenarios; return 1 when one could not be carried out."""
    options = _parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that all is cleaned up
    bench = Bench(Kubectl(os.environ), options)
    failed = 0
    for name in options.scenarios:
        try:
            SCENARIOS[name](bench)
        except (AssertionError, KubectlError, LookupError) as e:
            bench.say(name, "FAILED", str(e)[:500])
            failed = 1
    width = max((len(row.what) for row in bench.rows), default=0)
    print()
    for row in bench.rows:
        goal = f"   (goal: {row.goal})" if row.goal else ""
        print(f"{row.scenario:<13} {row.what:<{width}}  {row.value}{goal}")
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
