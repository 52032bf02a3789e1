"""Traces say what a turn and a look sent, and hold nothing up.

The check by the Collector's own parser is built from source on the first run.
"""

from __future__ import annotations

import asyncio
import json
import logging
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from cluster.binaries import OTLP_CHECK, SLOWEST_BUILD_SECONDS, ensure_built
from cluster.paths import Paths
from crossfade import tracing
from crossfade.errors import ClusterError
from crossfade.kube.cluster import KubernetesCluster
from crossfade.settings import Settings
from crossfade.telemetry import Telemetry
from crossfade.tracing import MOST_WAITING, Span, Tracer, render, sent
from tests.unit.world import KEY

SECOND = 1_000_000_000
ABOUT_FRAUD = {"namespace": "ml", "name": "fraud"}


class Clock:
    """Nanoseconds that go on by a second each time somebody looks."""

    def __init__(self) -> None:
        self.now = 0

    def __call__(self) -> int:
        self.now += SECOND
        return self.now


def traced() -> tuple[Tracer, Telemetry]:
    tracer = Tracer(on=True, clock=Clock())
    return tracer, Telemetry(tracer)


# ── what is kept ──────────────────────────────────────────────────────────────────────────────────


def test_turn_is_a_trace_with_its_requests_one_level_below() -> None:
    tracer, telemetry = traced()
    with telemetry.turn(KEY):
        telemetry.api_request("patch", "deployments", "200", 0.5)
        telemetry.api_request("patch", "httproutes", "403", 0.5)
    turn, patched, refused = tracer.take()
    assert (turn.name, turn.parent_id, turn.attributes) == ("turn", "", ABOUT_FRAUD)
    assert (turn.began, turn.ended) == (1 * SECOND, 4 * SECOND)
    assert (patched.name, patched.attributes, patched.problem) == (
        "patch deployments", {"code": "200"}, "",
    )  # fmt: skip
    assert (patched.began, patched.ended) == (SECOND * 3 // 2, 2 * SECOND)
    assert refused.problem == "403"
    assert {s.parent_id for s in (patched, refused)} == {turn.span_id}
    assert len({s.trace_id for s in (turn, patched, refused)}) == 1
    assert len({s.span_id for s in (turn, patched, refused)}) == 3
    assert tracer.take() == []


@pytest.mark.parametrize("code", ["404", "409"])
def test_not_to_be_there_and_to_be_late_are_answers(code: str) -> None:
    tracer, telemetry = traced()
    with telemetry.turn(KEY):
        telemetry.api_request("delete", "services", code, 0.1)
    assert [span.problem for span in tracer.take()] == ["", ""]


def test_idle_turn_is_no_trace_and_a_failed_one_is() -> None:
    tracer, telemetry = traced()
    with telemetry.turn(KEY):
        pass
    assert tracer.take() == []
    with pytest.raises(ClusterError), telemetry.turn(KEY):
        raise ClusterError("no answer")
    (turn,) = tracer.take()
    assert turn.problem == "no answer"


async def test_questions_of_tasks_that_begin_in_a_look_belong_to_it() -> None:
    tracer, telemetry = traced()

    async def ask(result: str) -> None:
        await asyncio.sleep(0)
        telemetry.prometheus_query(result, 0.1)

    async def look() -> None:
        with telemetry.look(KEY):
            await asyncio.gather(ask("ok"), ask("error"))

    await asyncio.gather(look(), look())
    spans = tracer.take()
    roots = [s for s in spans if s.name == "look"]
    assert len(roots) == 2
    for root in roots:
        below = [s for s in spans if s.parent_id == root.span_id]
        assert [(s.name, s.problem) for s in below] == [("query", ""), ("query", "error")]
        assert {s.trace_id for s in below} == {root.trace_id}


async def test_requests_outside_of_turns_and_those_of_a_tracer_that_is_off_are_not_kept() -> None:
    tracer, telemetry = traced()
    telemetry.api_request("list", "pods", "200", 0.1)
    assert tracer.take() == []
    off = Tracer()
    telemetry = Telemetry(off)
    with telemetry.turn(KEY):
        telemetry.api_request("list", "pods", "200", 0.1)
    assert off.take() == []


def test_spans_that_nobody_takes_make_room_for_new_ones() -> None:
    tracer, telemetry = traced()
    for nth in range(MOST_WAITING):
        with telemetry.turn(KEY):
            telemetry.api_request("get", f"n{nth}", "200", 0.1)
    spans = tracer.take()
    assert len(spans) == MOST_WAITING
    assert spans[-1].name == f"get n{MOST_WAITING - 1}"


async def test_request_of_the_cluster_has_its_seconds() -> None:
    class Client:
        status = 200

        async def request(self, *_args: Any, **_options: Any) -> Client:
            await asyncio.sleep(0.02)
            return self

        async def json(self) -> object:
            return {"major": "1", "minor": "36"}

    tracer, telemetry = traced()
    client: Any = Client()
    with telemetry.turn(KEY):
        await KubernetesCluster(client, telemetry.api_request).version()
    _, request = tracer.take()
    assert request.ended - request.began >= 0.02 * SECOND


# ── what is sent ──────────────────────────────────────────────────────────────────────────────────


class Collector:
    """Takes traces, or refuses them."""

    def __init__(self) -> None:
        self.status = 200
        self.bodies: list[dict[str, Any]] = []
        self.came = asyncio.Event()

    async def take(self, request: web.Request) -> web.Response:
        self.bodies.append(await request.json())
        self.came.set()
        return web.Response(status=self.status)

    async def next(self) -> dict[str, Any]:
        """Wait for the next request."""
        await asyncio.wait_for(self.came.wait(), 20)
        self.came.clear()
        return self.bodies[-1]


async def test_traces_are_sent_and_losses_are_said_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tracing, "SEND_SECONDS", 0.01)
    monkeypatch.setattr(tracing, "TIMEOUT_SECONDS", 20.0)
    caplog.set_level(logging.INFO)
    tracer, telemetry = traced()
    collector = Collector()
    application = web.Application()
    application.add_routes([web.post("/v1/traces", collector.take)])

    def do(resource: str) -> None:
        with telemetry.turn(KEY):
            telemetry.api_request("patch", resource, "200", 0.1)

    async with TestServer(application) as server:
        async with sent(tracer, str(server.make_url("/v1/traces")), "operator-1"):
            do("first")
            body = await collector.next()
            for status in (503, 503, 200):
                collector.status = status
                do("again")
                await collector.next()
            do("last")
            await collector.next()
        do("after")
        await asyncio.sleep(0.05)
    names = [[s["name"] for s in spans_of(b)] for b in collector.bodies]
    assert names == [
        ["turn", "patch first"],
        *[["turn", "patch again"]] * 3,
        ["turn", "patch last"],
    ]
    (resource,) = body["resourceSpans"]
    assert resource["resource"]["attributes"][1]["value"] == {"stringValue": "operator-1"}
    said = [r.message.partition(":")[0] for r in caplog.records if r.name == tracing.__name__]
    assert said == ["traces are lost", "traces are taken again"]


async def test_collector_that_is_away_is_said_and_harms_nobody(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, unused_tcp_port: int
) -> None:
    monkeypatch.setattr(tracing, "SEND_SECONDS", 0.01)
    tracer, telemetry = traced()
    async with sent(tracer, f"http://127.0.0.1:{unused_tcp_port}/v1/traces", "operator-1"):
        with telemetry.turn(KEY):
            telemetry.api_request("patch", "pods", "200", 0.1)

        async def said() -> None:
            while not caplog.records:  # noqa: ASYNC110 - the log has no event
                await asyncio.sleep(0.01)

        await asyncio.wait_for(said(), 20)
    assert "traces are lost" in caplog.text


def spans_of(body: dict[str, Any]) -> list[dict[str, Any]]:
    return list(body["resourceSpans"][0]["scopeSpans"][0]["spans"])


@pytest.mark.timeout(SLOWEST_BUILD_SECONDS)
def test_the_collectors_own_parser_reads_what_is_sent() -> None:
    paths = Paths.from_environment()
    ensure_built(paths, (OTLP_CHECK,))
    tracer, telemetry = traced()
    with telemetry.turn(KEY):
        telemetry.api_request("patch", "httproutes", "403", 0.5)
    turn, request = tracer.take()
    text = json.dumps(render([turn, request], "operator-1"))
    program = paths.bin / OTLP_CHECK.name
    done = subprocess.run(
        [program], input=text, capture_output=True, text=True, check=False, timeout=20
    )
    assert done.returncode == 0, done.stderr
    assert [json.loads(line) for line in done.stdout.splitlines()] == [
        read(turn, kind="Internal", status="Unset"),
        read(request, kind="Client", status="Error"),
    ]


def read(span: Span, **more: str) -> dict[str, Any]:
    """Return a span as the check writes it."""
    return {
        "resource": {"service.name": "crossfade", "service.instance.id": "operator-1"},
        "trace": span.trace_id,
        "span": span.span_id,
        "parent": span.parent_id,
        "name": span.name,
        "start": span.began,
        "end": span.ended,
        "attributes": span.attributes,
        "message": span.problem,
        **more,
    }


@contextmanager
def variable(monkeypatch: pytest.MonkeyPatch, value: str) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setenv("CROSSFADE_TRACES_ADDRESS", value)
        yield


def test_address_is_checked_at_start(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Settings().traces_address == ""
    with variable(monkeypatch, "http://collector.observability:4318/v1/traces"):
        assert Settings().traces_address.endswith("/v1/traces")
    with variable(monkeypatch, "collector:4318"), pytest.raises(ValueError, match="traces_address"):
        Settings()
