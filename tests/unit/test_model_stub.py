"""The end-to-end tests' model server does what faults it is told to."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest

SOURCE = Path(__file__).parents[1] / "images" / "model-stub" / "server.py"
INFERENCE = {"inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP64", "data": [1, 2, 4]}]}


def _load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("model_stub", SOURCE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["model_stub"] = module
    spec.loader.exec_module(module)
    return module


stub: Any = _load()


class Answer(NamedTuple):
    code: int
    headers: dict[str, str]
    body: str

    def json(self) -> Any:
        return json.loads(self.body)


class Client:
    """One keep-alive connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer

    async def ask(self, method: str, path: str, body: object = None) -> Answer:
        self.send(method, path, body)
        return await self.receive()

    async def infer(self) -> Answer:
        return await self.ask("POST", "/v2/models/digits/infer", INFERENCE)

    def send(self, method: str, path: str, body: object = None) -> None:
        content = b"" if body is None else json.dumps(body).encode()
        head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(content)}\r\n\r\n"
        self.writer.write(head.encode() + content)

    async def receive(self) -> Answer:
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = dict(line.split(": ", 1) for line in head[1:] if line)
        body = await self._reader.readexactly(int(headers["content-length"]))
        return Answer(int(head[0].split()[1]), headers, body.decode())

    async def is_closed(self) -> bool:
        return await asyncio.wait_for(self._reader.read(1), 1) == b""


@asynccontextmanager
async def serving(**settings: Any) -> AsyncIterator[tuple[Client, Any]]:
    defaults = {"PORT": 0, "POD_NAME": "stub-0", "DRAIN_SECONDS": 0.05}
    server = stub.Server(stub.Model(stub.Settings(**(defaults | settings))))
    port = await server.start("127.0.0.1")
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield Client(reader, writer), server
    finally:
        writer.close()
        await writer.wait_closed()
        await server.drain()


async def test_answers_an_inference_and_says_who_did() -> None:
    async with serving(MODEL_VERSION="2.3.0") as (client, _):
        answer = await client.infer()
    assert answer.code == 200
    assert answer.headers["x-pod"] == "stub-0"
    assert answer.headers["x-model-version"] == "2.3.0"
    assert answer.json() == {
        "model_name": "digits",
        "model_version": "2.3.0",
        "outputs": [{"name": "predict", "shape": [1], "datatype": "INT64", "data": [1]}],
    }


async def test_counters_are_there_before_the_first_request() -> None:
    async with serving() as (client, _):
        metrics = (await client.ask("GET", "/metrics")).body
    assert 'model_requests_total{code="200"} 0\n' in metrics
    assert 'model_requests_total{code="500"} 0\n' in metrics
    assert 'model_request_seconds_bucket{le="+Inf"} 0\n' in metrics


async def test_fault_breaks_a_running_model_and_counts_read_back() -> None:
    async with serving() as (client, _):
        assert (await client.infer()).code == 200
        await client.ask("POST", "/fault", {"ERROR_PERCENT": 100})
        assert (await client.infer()).code == 500
        assert (await client.ask("GET", "/counts")).json() == {"200": 1, "500": 1}
        metrics = (await client.ask("GET", "/metrics")).body
    assert 'model_requests_total{code="500"} 1\n' in metrics
    assert "model_request_seconds_count 2\n" in metrics


async def test_a_seed_makes_errors_repeatable_and_as_many_as_asked() -> None:
    seen = []
    async with serving() as (client, _):
        for _run in range(2):
            await client.ask("POST", "/fault", {"ERROR_PERCENT": 20, "ERROR_SEED": 7})
            seen.append([(await client.infer()).code for _request in range(200)])
    assert seen[0] == seen[1]
    assert 20 <= seen[0].count(500) <= 60


async def test_flip_makes_two_stubs_disagree() -> None:
    async with serving(FLIP_PERCENT=100) as (client, _):
        answer = await client.infer()
    assert answer.json()["outputs"][0]["data"] == [0]


async def test_predictions_and_scores_are_counted_and_can_be_moved() -> None:
    async with serving(FLIP_PERCENT=100, SCORE_SHIFT=1, SCORE_BUCKETS=4) as (client, _):
        for _request in range(3):
            await client.infer()
        await client.ask("POST", "/fault", {"FLIP_PERCENT": 0, "SCORE_SHIFT": -1})
        await client.infer()
        metrics = (await client.ask("GET", "/metrics")).body
    assert 'model_predictions_total{label="0"} 3\n' in metrics
    assert 'model_predictions_total{label="1"} 1\n' in metrics
    borders = [line for line in metrics.splitlines() if line.startswith("model_score_bucket")]
    assert borders == [
        'model_score_bucket{le="0.25"} 1',
        'model_score_bucket{le="0.5"} 1',
        'model_score_bucket{le="0.75"} 1',
        'model_score_bucket{le="1.0"} 4',
        'model_score_bucket{le="+Inf"} 4',
    ]


async def test_an_inference_that_fails_predicts_nothing() -> None:
    async with serving(ERROR_PERCENT=100) as (client, _):
        await client.infer()
        metrics = (await client.ask("GET", "/metrics")).body
    assert 'model_predictions_total{label="1"} 0\n' in metrics
    assert "model_score_count 0\n" in metrics


async def test_latency_is_felt_and_lands_in_its_bucket() -> None:
    async with serving(LATENCY_MS=15, SLOW_PERCENT=100, SLOW_MS=15) as (client, _):
        await client.infer()
        metrics = (await client.ask("GET", "/metrics")).body
    assert 'model_request_seconds_bucket{le="0.025"} 0\n' in metrics
    assert 'model_request_seconds_bucket{le="+Inf"} 1\n' in metrics


async def test_pipelined_requests_are_answered_in_order() -> None:
    async with serving(LATENCY_MS=10) as (client, _):
        client.send("POST", "/v2/models/slow/infer", INFERENCE)
        client.send("GET", "/v2/models/quick")
        assert (await client.receive()).json()["model_name"] == "slow"
        assert (await client.receive()).json()["name"] == "quick"


def test_is_ready_only_after_a_while() -> None:
    now = 100.0
    model = stub.Model(stub.Settings(READY_AFTER_SECONDS=5), now=lambda: now)
    ready = stub.Request("GET", "/v2/models/digits/ready", b"")
    assert model.answer(ready).code == 503
    now += 5
    assert model.answer(ready).code == 200


async def test_what_is_never_ready_serves_nothing() -> None:
    async with serving(NEVER_READY=True) as (client, _):
        assert (await client.ask("GET", "/v2/health/ready")).code == 503
        assert (await client.ask("GET", "/v2/health/live")).code == 200
        assert (await client.infer()).code == 503


async def test_crashes_when_told_to(monkeypatch: pytest.MonkeyPatch) -> None:
    crashed = asyncio.Event()
    monkeypatch.setattr(stub.os, "_exit", lambda _code: crashed.set())
    async with serving() as (client, _):
        await client.ask("POST", "/fault", {"CRASH_AFTER_SECONDS": 0.01})
        await asyncio.wait_for(crashed.wait(), 1)


async def test_draining_serves_unready_then_ends() -> None:
    async with serving(DRAIN_SECONDS=0.1, LATENCY_MS=20) as (client, server):
        draining = asyncio.create_task(server.drain())
        await asyncio.sleep(0)
        answer = await client.infer()
        assert answer.code == 200
        assert answer.headers["connection"] == "close"
        assert await client.is_closed()
        await asyncio.wait_for(draining, 1)


async def test_an_answer_outstanding_at_the_end_of_the_drain_is_still_given() -> None:
    async with serving(DRAIN_SECONDS=0, LATENCY_MS=50) as (client, server):
        client.send("POST", "/v2/models/digits/infer", INFERENCE)
        await asyncio.sleep(0.01)
        draining = asyncio.create_task(server.drain())
        assert (await client.receive()).code == 200
        await asyncio.wait_for(draining, 1)


@pytest.mark.parametrize(
    ("method", "path", "body", "code"),
    [
        ("GET", "/nowhere", None, 404),
        ("GET", "/v2/models/digits/infer", None, 405),
        ("DELETE", "/counts", None, 405),
        ("POST", "/v2/models/digits/infer", {"no": "inputs"}, 400),
        ("POST", "/fault", {"EROR_PERCENT": 1}, 400),
        ("POST", "/fault", {"ERROR_PERCENT": "many"}, 400),
    ],
)
async def test_refuses_what_it_does_not_know(
    method: str, path: str, body: object, code: int
) -> None:
    async with serving() as (client, _):
        answer = await client.ask(method, path, body)
    assert answer.code == code
    assert answer.json()["error"]


async def test_refuses_a_body_of_unknown_length() -> None:
    async with serving() as (client, _):
        client.writer.write(b"POST /fault HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
        assert (await client.receive()).code == 411
        assert await client.is_closed()


def test_environment_sets_what_it_names_and_ignores_the_rest() -> None:
    settings = stub.Settings.from_environment(
        {"ERROR_PERCENT": "2.5", "NEVER_READY": "true", "HOSTNAME": "pod-7", "PATH": "/bin"}
    )
    assert (settings.ERROR_PERCENT, settings.NEVER_READY) == (2.5, True)
    assert settings.POD_NAME == "pod-7"
