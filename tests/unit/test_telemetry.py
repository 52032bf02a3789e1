"""The operator's own metrics say what happened, and nothing of what is gone."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer
from kubernetes.aio.client.rest import ApiException
from kubernetes.aio.dynamic.exceptions import api_exception
from prometheus_client.parser import text_string_to_metric_families

from crossfade.api.v1alpha1 import ModelDeploymentStatus
from crossfade.core import rollback
from crossfade.errors import ClusterError, ConflictError, CrossfadeError, MetricSourceError
from crossfade.evidence.verdicts import Evidence, MetricAnswer, Verdict
from crossfade.kube.cluster import KubernetesCluster, about
from crossfade.metrics import prometheus
from crossfade.metrics.endpoints import Endpoint
from crossfade.metrics.prometheus import PrometheusClient, RawSeries
from crossfade.names import NamespacedName
from crossfade.probes import STUCK_SECONDS, application_of, served
from crossfade.reconcile.queue import WorkQueue
from crossfade.reconcile.reconciler import work
from crossfade.telemetry import REASONS, Telemetry
from tests.unit.world import KEY, REF, START, World, healthy_world, manifest

OUTCOMES = ("ok", "error")
CORE = Path(rollback.__file__).parent
FRAUD = {"namespace": KEY.namespace, "name": KEY.name}


def series(_metric: str, /, **labels: str) -> str:
    """Return a series as it is written here: labels by the alphabet."""
    return _metric + "{" + ",".join(f'{k}="{v}"' for k, v in sorted(labels.items())) + "}"


def samples(telemetry: Telemetry) -> dict[str, float]:
    """Return what Prometheus would read, by series as it is written."""
    return {
        series(s.name, **s.labels): s.value
        for family in text_string_to_metric_families(telemetry.text().decode())
        for s in family.samples
    }


def in_phase(phase: str) -> ModelDeploymentStatus:
    """Return a status that says no more than where it is."""
    return ModelDeploymentStatus.model_validate({"phase": phase})


def about_fraud(world: World) -> dict[str, float]:
    """Return the series that name the world's ModelDeployment."""
    return {s: v for s, v in samples(world.reconciler.telemetry).items() if 'name="fraud"' in s}


def counted(world: World, name: str) -> dict[str, float]:
    """Return the series of a counter that are not 0, by their labels."""
    found = samples(world.reconciler.telemetry)
    return {s.removeprefix(name): v for s, v in found.items() if s.startswith(name + "{") and v}


# ── what is about one ModelDeployment ─────────────────────────────────────────────────────────────


async def test_only_the_present_phase_has_a_series_and_the_weight_is_that_in_force() -> None:
    world = await healthy_world()
    assert about_fraud(world) == {
        series("crossfade_modeldeployment_phase", **FRAUD, phase="Healthy"): 1,
        series("crossfade_canary_weight", **FRAUD): 0,
        series("crossfade_rollout_deadline_exceeded", **FRAUD): 0,
    }

    world.apply(manifest("2.0.0"))
    await world.run_until(lambda: world.status.get("weight") == 50)
    seen = about_fraud(world)
    assert seen[series("crossfade_canary_weight", **FRAUD)] == 50
    assert [s for s in seen if s.startswith("crossfade_modeldeployment_phase")] == [
        series("crossfade_modeldeployment_phase", **FRAUD, phase="Progressing")
    ]


async def test_deleted_modeldeployment_leaves_no_series_and_an_empty_namespace_no_counter() -> None:
    world = await healthy_world()
    world.apply(manifest("2.0.0"))
    await world.run_until(lambda: world.phase == "Probation")
    await world.run_until(lambda: world.phase == "Healthy")
    assert counted(world, "crossfade_rollouts_total") == {'{namespace="ml",result="promoted"}': 1}

    world.cluster.delete(REF)
    await world.settle()
    left = samples(world.reconciler.telemetry)
    assert not [s for s in left if "fraud" in s or 'namespace="ml"' in s]


def test_namespace_keeps_its_counter_while_it_has_another_modeldeployment() -> None:
    telemetry = Telemetry()
    status = in_phase("Healthy")
    other = NamespacedName(KEY.namespace, "other")
    for key in (KEY, other):
        telemetry.seen(key, status, None)
    telemetry.moved(KEY, in_phase("Probation"), status, "abc", START)
    telemetry.gone(KEY)
    promoted = 'crossfade_rollouts_total{namespace="ml",result="promoted"}'
    assert samples(telemetry)[promoted] == 1
    telemetry.gone(other)
    assert promoted not in samples(telemetry)
    telemetry.seen(KEY, status, None)
    assert samples(telemetry)[promoted] == 0


async def test_what_a_look_said_is_told_of_each_metric_until_the_rollout_is_over() -> None:
    world = await healthy_world()
    world.analyst.alert = "amount moved"
    world.apply(manifest("2.0.0"))
    await world.run_until(lambda: bool(world.status.get("metrics")))
    seen = about_fraud(world)
    said = world.status["metrics"][0]["verdict"]
    assert seen[series("crossfade_metric_verdict", **FRAUD, metric="errors", verdict=said)] == 1
    assert seen[series("crossfade_inputs_moved", **FRAUD, metric="errors")] == 1

    await world.run_until(lambda: world.phase == "Probation")
    await world.run_until(lambda: world.phase == "Healthy")
    await world.settle()
    assert not [s for s in about_fraud(world) if "metric=" in s]


def test_evidence_is_told_beside_what_is_needed_and_not_where_there_is_none() -> None:
    telemetry = Telemetry()
    answers = (
        MetricAnswer("errors", Verdict.HARM, "", Evidence(6.5, 5.3)),
        MetricAnswer("custom", Verdict.UNAVAILABLE, ""),
    )
    telemetry.seen(KEY, in_phase("Progressing"), answers)
    seen = samples(telemetry)
    assert seen[series("crossfade_evidence_log_e", **FRAUD, metric="errors")] == 6.5
    assert seen[series("crossfade_evidence_log_e_needed", **FRAUD, metric="errors")] == 5.3
    assert (
        seen[series("crossfade_metric_verdict", **FRAUD, metric="custom", verdict="unavailable")]
        == 1
    )
    assert not [s for s in seen if s.startswith("crossfade_evidence") and "custom" in s]


async def test_rollout_that_is_held_beyond_its_deadline_is_told() -> None:
    spec = manifest()["spec"]["rollout"] | {"deadlineSeconds": 60}
    world = await healthy_world()
    world.analyst.verdicts["2.0.0"] = Verdict.NOT_ENOUGH_DATA
    world.apply(manifest("2.0.0", rollout=spec))
    await world.run(30)
    late = series("crossfade_rollout_deadline_exceeded", **FRAUD)
    assert about_fraud(world)[late] == 0
    await world.run(40)
    assert about_fraud(world)[late] == 1


# ── what is counted ───────────────────────────────────────────────────────────────────────────────


async def test_harm_is_counted_once_with_the_time_since_the_first_weight() -> None:
    world = await healthy_world()
    world.apply(manifest("2.0.0"))
    await world.run_until(lambda: world.weight == 10)
    weighted_at = world.now
    world.analyst.verdicts["2.0.0"] = Verdict.HARM
    await world.run_until(lambda: world.phase == "RollingBack")
    took = (world.now - weighted_at).total_seconds()
    await world.run(600)

    assert world.phase == "RolledBack"
    assert counted(world, "crossfade_rollbacks_total") == {'{reason="MetricHarm"}': 1}
    assert counted(world, "crossfade_rollouts_total") == {'{namespace="ml",result="rolledBack"}': 1}
    assert counted(world, "crossfade_rollback_seconds_count") == {'{reason="MetricHarm"}': 1}
    sums = counted(world, "crossfade_rollback_seconds_sum")
    assert sums == {'{reason="MetricHarm"}': pytest.approx(took, abs=1)}
    assert took >= 1


async def abort(world: World) -> None:
    world.order("abort")


async def supersede(world: World) -> None:
    world.apply(manifest("3.0.0"))


async def cancel(world: World) -> None:
    world.apply(manifest("1.0.0"))


async def lose_patience(world: World) -> None:
    spec = manifest()["spec"]["rollout"] | {"deadlineSeconds": 60, "onDeadline": "rollBack"}
    world.apply(manifest("2.0.0", rollout=spec))


@pytest.mark.parametrize(
    ("what", "reason", "result"),
    [
        (abort, "Aborted", "rolledBack"),
        (supersede, "Superseded", "withdrawn"),
        (cancel, "Cancelled", "withdrawn"),
        (lose_patience, "DeadlineExceeded", "rolledBack"),
    ],
)
async def test_every_way_back_is_counted_by_its_reason(
    what: Callable[[World], Any], reason: str, result: str
) -> None:
    world = await healthy_world()
    world.analyst.verdicts["2.0.0"] = Verdict.NOT_ENOUGH_DATA
    world.apply(manifest("2.0.0"))
    await world.run_until(lambda: world.status.get("weight") == 10)
    await what(world)
    await world.run_until(lambda: world.phase == "RollingBack")
    assert counted(world, "crossfade_rollbacks_total") == {f'{{reason="{reason}"}}': 1}
    ended = counted(world, "crossfade_rollouts_total")
    assert ended == {f'{{namespace="ml",result="{result}"}}': 1}


@pytest.mark.parametrize(
    ("order", "reason"), [("harm", "MetricHarm"), ("cancel", "Cancelled"), ("abort", "Aborted")]
)
async def test_rollback_in_probation_counts_from_the_promotion(order: str, reason: str) -> None:
    world = await healthy_world()
    world.apply(manifest("2.0.0"))
    await world.run_until(lambda: world.phase == "Probation")
    await world.run(20)
    match order:
        case "harm":
            world.analyst.verdicts["2.0.0"] = Verdict.HARM
        case "cancel":
            world.apply(manifest("1.0.0"))
        case _:
            world.order("abort")
    await world.run_until(lambda: world.phase == "RollingBack")
    (took,) = counted(world, "crossfade_rollback_seconds_sum").values()
    assert 20 <= took <= 26
    assert counted(world, "crossfade_rollbacks_total") == {f'{{reason="{reason}"}}': 1}
    assert 'result="promoted"' not in str(counted(world, "crossfade_rollouts_total"))


async def test_version_that_never_got_weight_has_no_seconds() -> None:
    world = await healthy_world()
    world.cluster.unready = {"2.0.0"}
    world.apply(manifest("2.0.0"))
    await world.run_until(lambda: world.phase == "RollingBack")
    assert counted(world, "crossfade_rollbacks_total") == {'{reason="NotReady"}': 1}
    assert not counted(world, "crossfade_rollback_seconds_count")


async def test_status_that_could_not_be_written_is_not_counted_twice() -> None:
    world = await healthy_world()
    world.apply(manifest("2.0.0"))
    await world.run_until(lambda: world.weight == 10)
    write = world.cluster.write_status

    async def lost_once(*args: Any) -> Any:
        if args[1]["phase"] == "RollingBack":
            world.cluster.write_status = write  # type: ignore[method-assign]
            raise ClusterError("no answer")
        return await write(*args)

    world.cluster.write_status = lost_once  # type: ignore[assignment, method-assign]
    world.order("abort")
    await world.run(60)
    assert world.failures
    assert counted(world, "crossfade_rollbacks_total") == {'{reason="Aborted"}': 1}


def test_every_reason_of_the_core_is_there_from_the_start() -> None:
    source = "".join(
        path.read_text() for path in CORE.glob("*.py")
    )  # the reason is the second argument of each call
    called = re.findall(r"(?:take_back|return_to_previous)\(\s*turn,\s*\"(\w+)\"", source)
    assert len(called) >= 10
    assert set(called) == set(REASONS)
    zeros = samples(Telemetry())
    assert all(zeros[f'crossfade_rollbacks_total{{reason="{reason}"}}'] == 0 for reason in REASONS)


# ── turns, queue, requests ────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ConflictError("somebody was first"), "conflict"),
        (CrossfadeError("refused"), "refused"),
        (ZeroDivisionError(), "bug"),
    ],
)
async def test_failed_turns_are_counted_by_kind_and_timed(error: Exception, kind: str) -> None:
    world = await healthy_world()
    queue: WorkQueue[NamespacedName] = WorkQueue()
    telemetry = world.reconciler.telemetry
    telemetry.watch_queue(queue)
    turned = asyncio.Event()

    async def fail(key: NamespacedName) -> None:
        turned.set()
        raise error

    world.reconciler.reconcile = fail  # type: ignore[method-assign]
    worker = asyncio.create_task(work(queue, world.reconciler, lambda: world.now))
    queue.add(KEY)
    await asyncio.wait_for(turned.wait(), 10)
    for _ in range(20):
        await asyncio.sleep(0)
    seen = samples(telemetry)
    worker.cancel()
    with suppress(asyncio.CancelledError):
        await worker
    assert seen[f'crossfade_reconcile_errors_total{{kind="{kind}"}}'] == 1
    assert seen["crossfade_reconcile_seconds_count{}"] == 1
    assert seen[series("crossfade_reconcile_failures", **FRAUD)] == (kind != "conflict")


async def test_modeldeployment_whose_first_turn_fails_is_told_too() -> None:
    queue: WorkQueue[NamespacedName] = WorkQueue()
    telemetry = Telemetry()
    telemetry.watch_queue(queue)
    failures = series("crossfade_reconcile_failures", **FRAUD)
    queue.failed(KEY)
    queue.failed(KEY)
    assert samples(telemetry)[failures] == 2
    telemetry.seen(KEY, in_phase("Initializing"), None)
    assert samples(telemetry)[failures] == 2
    queue.succeeded(KEY)
    assert samples(telemetry)[failures] == 0


async def test_queue_tells_how_many_wait_and_how_long_the_first_has() -> None:
    now = 100.0
    queue: WorkQueue[NamespacedName] = WorkQueue(clock=lambda: now)
    telemetry = Telemetry()
    telemetry.watch_queue(queue)

    def told() -> tuple[float, float]:
        seen = samples(telemetry)
        return seen["crossfade_queue_depth{}"], seen["crossfade_queue_age_seconds{}"]

    assert told() == (0, 0)
    queue.add(KEY)
    now = 103.0
    queue.add(NamespacedName("ml", "other"), urgent=True)
    queue.add(KEY, urgent=True)
    now = 110.0
    assert told() == (2, 10)
    assert await queue.get() == KEY
    assert told() == (2, 7)


@pytest.mark.parametrize(
    ("method", "path", "verb", "resource"),
    [
        ("get", "/apis/apps/v1/deployments", "list", "deployments"),
        ("get", "/api/v1/namespaces/ml/secrets/token", "get", "secrets"),
        ("patch", "/apis/apps/v1/namespaces/ml/deployments/fraud-1", "patch", "deployments"),
        (
            "patch",
            "/apis/crossfade.dev/v1alpha1/namespaces/ml/modeldeployments/fraud/status",
            "patch",
            "modeldeployments/status",
        ),
        ("post", "/api/v1/namespaces/ml/events", "create", "events"),
        ("put", "/apis/x/v1/namespaces/ml/virtualservices/web", "update", "virtualservices"),
        ("delete", "/api/v1/namespaces/ml/services/fraud-1", "delete", "services"),
        ("get", "/version", "get", "/version"),
    ],
)
def test_request_is_named_as_rbac_names_it(
    method: str, path: str, verb: str, resource: str
) -> None:
    assert about(method, path) == (verb, resource)


class Client:
    """An API server's client that answers one thing."""

    def __init__(self, outcome: Exception | int) -> None:
        self.outcome = outcome

    async def request(self, *_args: Any, **_options: Any) -> Client:
        if isinstance(self.outcome, Exception):
            raise self.outcome
        self.status = self.outcome
        return self

    async def json(self) -> object:
        return {"major": "1", "minor": "36"}


@pytest.mark.parametrize(
    ("outcome", "code"),
    [
        (200, "200"),
        (api_exception(ApiException(status=403, reason="Forbidden")), "403"),
        (TimeoutError(), "error"),
    ],
)
async def test_each_request_is_counted_once_by_its_outcome(
    outcome: Exception | int, code: str
) -> None:
    telemetry = Telemetry()
    client: Any = Client(outcome)
    with suppress(ClusterError):
        await KubernetesCluster(client, telemetry.api_request).version()
    requests = {s: v for s, v in samples(telemetry).items() if s.startswith("crossfade_api")}
    expected = series("crossfade_api_requests_total", verb="get", resource="/version", code=code)
    assert requests == {expected: 1}


async def test_each_look_is_timed() -> None:
    world = await healthy_world()
    telemetry = world.reconciler.telemetry
    world.looks._watched = telemetry.look
    world.apply(manifest("2.0.0"))
    await world.run_until(lambda: len(world.analyst.looks) == 2)
    assert samples(telemetry)["crossfade_look_seconds_count{}"] == 2


async def test_each_question_to_prometheus_is_counted_once_and_timed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    telemetry = Telemetry()
    client = PrometheusClient((), telemetry.prometheus_query)
    endpoint = Endpoint("http://127.0.0.1:9")

    def fail(*_: object) -> list[RawSeries]:
        raise MetricSourceError("partial")

    monkeypatch.setattr(prometheus, "_call", lambda *_: [])
    assert await client.instant(endpoint, "up[5m]", 1) == []
    monkeypatch.setattr(prometheus, "_call", fail)
    with pytest.raises(MetricSourceError):
        await client.steps(endpoint, "up", 0, 10, 5)
    client.close()
    seen = samples(telemetry)
    asked = {r: seen[series("crossfade_prometheus_queries_total", result=r)] for r in OUTCOMES}
    assert asked == {"ok": 1, "error": 1}
    assert seen["crossfade_prometheus_query_seconds_count{}"] == 2


# ── the port ──────────────────────────────────────────────────────────────────────────────────────


async def test_port_serves_metrics_and_fails_the_probe_when_no_turn_ends() -> None:
    now = 0.0
    queue: WorkQueue[NamespacedName] = WorkQueue(clock=lambda: now)
    telemetry = Telemetry()
    telemetry.watch_queue(queue)
    async with TestClient(TestServer(application_of(queue, telemetry))) as client:
        answer = await client.get("/metrics")
        assert answer.headers["Content-Type"].startswith("text/plain")
        assert "crossfade_queue_depth 0.0" in await answer.text()
        assert "process_resident_memory_bytes" in await answer.text()

        now = 10 * STUCK_SECONDS
        assert (await client.get("/healthz")).status == 200, "a queue without work is not stuck"
        queue.add(KEY)
        await queue.get()
        queue.done(KEY)
        queue.add(KEY)
        now += STUCK_SECONDS
        assert (await client.get("/healthz")).status == 200
        now += 1
        answer = await client.get("/healthz")
        assert (answer.status, await answer.text()) == (503, "no turn was finished for 121 s\n")


async def test_port_is_open_while_it_is_served_and_a_taken_one_is_an_error(
    unused_tcp_port: int,
) -> None:
    application = application_of(WorkQueue(), Telemetry())
    address = ("127.0.0.1", unused_tcp_port)
    async with served(application, unused_tcp_port):
        _, writer = await asyncio.open_connection(*address)
        writer.close()
        with pytest.raises(OSError, match="address already in use"):
            async with served(application_of(WorkQueue(), Telemetry()), unused_tcp_port):
                pass
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(*address)
