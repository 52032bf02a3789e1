"""The life of a request: who answers it, what is counted, and what is seen of it."""

from __future__ import annotations

import asyncio
import gzip
import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import hypothesis
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from crossfade.sidecar.breaker import CircuitBreaker
from crossfade.sidecar.config import Breaker, Config, Fallback, Inputs, Observed, Recording, Target
from crossfade.sidecar.contract import Contract
from crossfade.sidecar.fallback import Chain
from crossfade.sidecar.looker import Looker
from crossfade.sidecar.metrics import Metrics
from crossfade.sidecar.observer import Observer
from crossfade.sidecar.proxy import OBSERVED_BYTES, Proxy
from crossfade.sidecar.recording import Recorder
from crossfade.sidecar.room import ANSWERS_BYTES, Room
from crossfade.sidecar.server import Server
from crossfade.sidecar.upstream import UpstreamClient
from crossfade.sidecar.upstream_connection import HELD_BYTES
from tests.unit.wires import (
    MAX_BODY,
    Model,
    Reader,
    Writer,
    dialled,
    modelled,
    on_both_loops,
    read_message,
    said,
    serving,
    until,
)

STATIC = Target(name="static", status=203, body="static")
SCHEMA = {"type": "object", "required": ["age"], "properties": {"age": {"minimum": 0}}}
GOOD = b'{"age": 3}'
BAD = b'{"age": -3}'
AGE = Observed(name="age", json_path="$.age", buckets=(1.0, 5.0))
SCORE = Observed(name="score", json_path="$.score", buckets=(0.5,))


@dataclass
class Sidecar:
    proxy: Proxy
    metrics: Metrics
    recorder: Recorder
    server: Server
    model: Model
    room: Room
    """Of answers."""

    @property
    def port(self) -> int:
        return self.server.port

    def count(self, name: str, **labels: str) -> float:
        """Return a counter's value; 0 if there is none."""
        wanted = [f'{label}="{value}"' for label, value in labels.items()]
        for line in self.metrics.render().decode().splitlines():
            series, _, value = line.rpartition(" ")
            if re.match(rf"{name}(\{{|$)", series) and all(label in series for label in wanted):
                return float(value)
        return 0.0

    def codes(self) -> dict[str, float]:
        """Return how often the model answered with what."""
        found = re.findall(
            r'crossfade_model_requests_total\{code="(\d+)"\} (\S+)', self.metrics.render().decode()
        )
        return {code: float(value) for code, value in found if float(value)}


@asynccontextmanager
async def sidecar(
    model: Model,
    *,
    clock: Any = None,
    is_down: bool = False,
    doubt: Callable[[], None] = lambda: None,
    **settings: Any,
) -> AsyncIterator[Sidecar]:
    async with modelled(model):
        config = Config(
            namespace="ml",
            name="iris",
            model="iris",
            version="1",
            revision="iris-1",
            port=0,
            admin_port=0,
            model_port=1 if is_down else model.port,
            **{"protocol": "http", **settings},
        )
        metrics = Metrics(config)
        client = UpstreamClient()
        clock = clock or asyncio.get_running_loop().time
        room = Room(ANSWERS_BYTES)
        chain, breaker = None, None
        if config.fallback is not None:
            targets = config.fallback.targets
            chain = Chain(targets, client, metrics, config.revision, clock, room)
            breaker = CircuitBreaker(config.fallback.breaker, clock)
        recorder = Recorder(config, metrics, lambda: 0.0, lambda: datetime(2026, 1, 1, tzinfo=UTC))
        proxy = Proxy(
            config,
            contract=Contract(config),
            features=Observer("features", config.features, metrics),
            predictions=Observer("predictions", config.predictions, metrics),
            chain=chain,
            breaker=breaker,
            recorder=recorder,
            metrics=metrics,
            client=client,
            looker=Looker(),
            room=room,
            doubt=doubt,
        )
        async with serving(proxy.handle, max_body=config.max_body_bytes) as server:
            yield Sidecar(proxy, metrics, recorder, server, model, room)
        client.close()


def post(body: bytes, target: str = "/predict", *more: bytes) -> bytes:
    lines = (b"Host: x", b"Content-Type: application/json", *more)
    length = b"Content-Length: %d" % len(body)
    head = b"\r\n".join((f"POST {target} HTTP/1.1".encode(), *lines, length))
    return head + b"\r\n\r\n" + body


async def ask(port: int, sent: bytes) -> tuple[int, bytes, bytes]:
    """Return the status, the head and the body of the answer."""
    async with dialled(port) as (reader, writer):
        writer.write(sent)
        head, body = await read_message(reader)
        return int(head.split()[1]), head, body


def answer(body: bytes, status: int = 200, *more: bytes) -> bytes:
    lines = (b"HTTP/1.1 %d Said" % status, *more, b"Content-Length: %d" % len(body))
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def fallback(*targets: Target, **settings: Any) -> Fallback:
    return Fallback(targets=targets or (STATIC,), **settings)


@pytest.mark.parametrize(("status", "doubts"), [(200, 0), (404, 0), (500, 1), (503, 1)])
async def test_a_model_that_fails_a_request_is_doubted(status: int, doubts: int) -> None:
    model, doubted = Model(), []
    model.says(answer(b"{}", status))
    async with sidecar(model, doubt=lambda: doubted.append(1)) as made:
        assert (await ask(made.port, post(b"{}")))[0] == status
    assert len(doubted) == doubts


async def test_a_model_that_is_down_is_doubted() -> None:
    doubted: list[int] = []
    async with sidecar(Model(), is_down=True, doubt=lambda: doubted.append(1)) as made:
        assert (await ask(made.port, post(b"{}")))[0] == 502
    assert doubted == [1]


# What nobody looks into.


@on_both_loops
async def test_a_request_and_its_answer_go_through_as_they_are() -> None:
    model = Model()
    model.says(
        b"HTTP/1.1 201 Very Well\r\nx-B: 1\r\nX-b: 2\r\nSet-Cookie: a\r\nset-cookie: b\r\n"
        b"Connection: x-gone\r\nX-Gone: 1\r\nContent-Length: 3\r\n\r\n\x00\xff\n"
    )
    async with sidecar(model) as made:
        sent = b"POST /a%2F?b=c&d HTTP/1.1\r\nhoSt: x\r\nB: 1\r\nA: 2\r\nb: 3\r\n"
        _, head, body = await ask(made.port, sent + b"Content-Length: 2\r\n\r\n\xfe\x00")
        assert model.seen == [(sent + b"Content-Length: 2\r\n\r\n", b"\xfe\x00")]
        assert head == (
            b"HTTP/1.1 201 Very Well\r\nx-B: 1\r\nX-b: 2\r\nSet-Cookie: a\r\nset-cookie: b\r\n"
            b"Content-Length: 3\r\n\r\n"
        )
        assert body == b"\x00\xff\n"
        assert made.codes() == {"201": 1}


@on_both_loops
async def test_an_event_stream_is_sent_event_by_event() -> None:
    next_event = asyncio.Event()

    async def stream(reader: Reader, writer: Writer) -> None:
        await model.take(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n")
        writer.write(b"Transfer-Encoding: chunked\r\n\r\n")
        for number in range(3):
            writer.write(b"9\r\ndata: %d\n\n\r\n" % number)
            await next_event.wait()
            next_event.clear()
        writer.write(b"0\r\nSum: 3\r\n\r\n")

    model = Model([stream])
    async with sidecar(model, fallback=fallback(), recording=Recording()) as made:
        async with dialled(made.port) as (reader, writer):
            writer.write(post(GOOD))
            await reader.readuntil(b"\r\n\r\n")
            for number in range(3):
                assert await reader.readuntil(b"\n\n\r\n") == b"9\r\ndata: %d\n\n\r\n" % number
                next_event.set()
            assert await reader.readuntil(b"\r\n\r\n") == b"0\r\nSum: 3\r\n\r\n"
            await until(lambda: made.server.open_requests == 0)
        assert made.codes() == {"200": 1}


@on_both_loops
async def test_a_large_body_is_sent_on_while_it_arrives() -> None:
    first = asyncio.Event()

    async def take(reader: Reader, writer: Writer) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(1)
        first.set()
        rest = await reader.readexactly(MAX_BODY - 1)
        writer.write(answer(b"%d" % (len(rest) + 1)))
        await reader.read()

    async with sidecar(Model([take])) as made, dialled(made.port) as (reader, writer):
        writer.write(post(b"x" * MAX_BODY)[: -MAX_BODY + 1])
        await first.wait()
        writer.write(b"x" * (MAX_BODY - 1))
        assert (await read_message(reader))[1] == b"%d" % MAX_BODY


@on_both_loops
async def test_trailers_go_both_ways() -> None:
    model = Model()
    model.says(
        b"HTTP/1.1 200 OK\r\nTrailer: Sum\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"2\r\nok\r\n0\r\nSum: 2\r\n\r\n"
    )
    chunked = (
        b"POST /a HTTP/1.1\r\nHost: x\r\nTE: trailers\r\nTrailer: T\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nT: 1\r\n\r\n"
    )
    held: dict[str, Any] = {"fallback": fallback()}
    for settings in ({}, held):
        async with sidecar(model, **settings) as made:
            _, head, body = await ask(made.port, chunked)
        assert body == b"okSum: 2\r\n"
        assert b"Trailer: Sum\r\n" in head
        sent, body = model.seen[-1]
        assert body == b"abcT: 1\r\n"
        assert b"\r\nTrailer: T\r\n" in sent
        assert b"\r\nte: trailers\r\n" in sent


@on_both_loops
async def test_the_model_says_whether_a_body_is_wanted() -> None:
    async def go_on(reader: Reader, writer: Writer) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"Expect: 100-continue" in head
        writer.write(b"HTTP/1.1 100 Go On\r\n\r\n")
        assert await reader.readexactly(2) == b"ok"
        writer.write(answer(b"thanks"))

    model = Model([go_on])
    model.says(answer(b"no", 417))
    async with sidecar(model) as made:
        sent = post(b"ok", "/", b"Expect: 100-continue")
        async with dialled(made.port) as (reader, writer):
            writer.write(sent[:-2])
            assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Go On\r\n\r\n"
            writer.write(sent[-2:])
            assert (await read_message(reader))[1] == b"thanks"


@on_both_loops
async def test_where_the_body_is_held_the_sidecar_says_it() -> None:
    model = Model()
    async with sidecar(model, fallback=fallback()) as made:
        sent = post(b"ok", "/", b"Expect: 100-continue")
        async with dialled(made.port) as (reader, writer):
            writer.write(sent[:-2])
            assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            writer.write(sent[-2:])
            assert (await read_message(reader))[1] == b"ok"
    assert b"xpect" not in model.seen[0][0]


@on_both_loops
async def test_a_head_request_has_the_model_s_headers() -> None:
    model = Model()
    model.says(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n")
    held: dict[str, Any] = {"fallback": fallback()}
    for settings in ({}, held):
        async with sidecar(model, **settings) as made:
            said_ = await said(
                made.port, b"HEAD / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
            )
            assert made.codes() == {"200": 1}
        assert said_ == b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\nconnection: close\r\n\r\n"


@on_both_loops
async def test_without_a_model_and_without_others_it_is_502() -> None:
    async with sidecar(Model(), is_down=True) as made:
        status, _, body = await ask(made.port, post(GOOD))
        assert status == 502
        assert "model" in json.loads(body)["error"]
        assert made.codes() == {"502": 1}


@on_both_loops
async def test_an_answer_that_breaks_off_is_broken_off_and_counted() -> None:
    model = Model()
    model.says(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n")
    async with sidecar(model) as made:
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await ask(made.port, post(GOOD))
        await until(lambda: made.server.open_requests == 0)
        assert made.codes() == {"502": 1}


@pytest.mark.parametrize("early", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"])
@on_both_loops
async def test_a_request_that_is_broken_counts_against_nobody(early: bytes) -> None:
    async def listen(reader: Reader, writer: Writer) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(early)
        await reader.read()

    async with sidecar(Model([listen])) as made, dialled(made.port) as (reader, writer):
        writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        if early:
            await reader.readuntil(b"half")
        else:
            await until(lambda: made.model.connections == 1)
        writer.write(b"no chunk")
        with suppress(ConnectionError):
            answered = await reader.read()
            assert answered.startswith(b"HTTP/1.1 400 ") is not bool(early)
        await until(lambda: made.server.open_requests == 0)
        assert made.codes() == {"499": 1}


@pytest.mark.parametrize("settings", [{}, {"fallback": fallback()}], ids=["streamed", "held"])
@on_both_loops
async def test_a_client_that_goes_away_counts_against_nobody(settings: dict[str, Any]) -> None:
    gone = asyncio.Event()

    async def wait(reader: Reader, writer: Writer) -> None:
        await model.take(reader)
        await reader.read()
        gone.set()

    model = Model([wait])
    async with sidecar(model, **settings) as made:
        async with dialled(made.port) as (_, writer):
            writer.write(post(GOOD))
            await until(lambda: bool(model.seen))
        async with asyncio.timeout(10):
            await gone.wait()
        await until(lambda: made.server.open_requests == 0)
        assert made.codes() == {"499": 1}
        if made.proxy._breaker is not None:
            assert made.proxy._breaker._requests.total() == 0


# Inputs.


@on_both_loops
async def test_what_breaks_the_contract_never_reaches_the_model() -> None:
    model = Model()
    async with sidecar(model, inputs=Inputs(schema=SCHEMA)) as made:
        status, head, body = await ask(made.port, post(BAD))
        assert status == 422
        assert b"content-type: application/json" in head
        (violation,) = json.loads(body)["violations"]
        assert violation["field"] == "age"
        assert violation["rule"] == "minimum"
        assert violation["message"]
        assert (await ask(made.port, post(GOOD)))[0] == 200
        assert [body for _, body in model.seen] == [GOOD]
        assert made.codes() == {"200": 1}
        assert made.count("crossfade_inputs_total", result="rejected") == 1
        assert made.count("crossfade_inputs_total", result="accepted") == 1
        assert made.count("crossfade_input_violations_total", field="age", rule="minimum") == 1


@on_both_loops
async def test_a_contract_sees_the_headers_that_the_model_gets() -> None:
    """Without its Content-Encoding, which Connection names away, the body is no JSON."""
    model = Model()
    async with sidecar(model, inputs=Inputs(schema=SCHEMA)) as made:
        zipped = gzip.compress(GOOD)
        assert (await ask(made.port, post(zipped, "/", b"Content-Encoding: gzip")))[0] == 200
        named = (b"Content-Encoding: gzip", b"Connection: content-encoding")
        assert (await ask(made.port, post(zipped, "/", *named)))[0] == 422
    assert len(model.seen) == 1


@pytest.mark.parametrize("method", [b"GET", b"DELETE", b"OPTIONS", b"HEAD"])
@on_both_loops
async def test_a_body_is_checked_whatever_the_method(method: bytes) -> None:
    model = Model()
    async with sidecar(model, inputs=Inputs(schema=SCHEMA)) as made:
        sent = post(BAD, "/", b"Connection: close").replace(b"POST", method)
        assert (await said(made.port, sent)).startswith(b"HTTP/1.1 422 ")
        sent = method + b" / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        assert (await said(made.port, sent)).startswith(b"HTTP/1.1 200 ")
    assert len(model.seen) == 1


@on_both_loops
async def test_a_violation_may_be_logged_only() -> None:
    model = Model()
    async with sidecar(model, inputs=Inputs(schema=SCHEMA, on_violation="log")) as made:
        assert (await ask(made.port, post(BAD)))[0] == 200
        assert made.count("crossfade_inputs_total", result="logged") == 1
    assert len(model.seen) == 1


@on_both_loops
async def test_others_may_answer_what_breaks_the_contract() -> None:
    model = Model()
    inputs = Inputs(schema=SCHEMA, on_violation="fallback")
    async with sidecar(model, inputs=inputs, fallback=fallback()) as made:
        status, head, body = await ask(made.port, post(BAD))
        assert (status, body) == (203, b"static")
        assert b"crossfade-fallback: static\r\ncrossfade-fallback-reason: violation\r\n" in head
        assert made.count("crossfade_inputs_total", result="fallback") == 1
        guarded = post(BAD, "/", b"Crossfade-Fallback-From: iris-2")
        assert (await ask(made.port, guarded))[0] == 422
        assert made.codes() == {}
    assert model.seen == []


@on_both_loops
async def test_what_cannot_be_validated_is_refused_before_it_is_read_twice() -> None:
    model = Model()
    async with sidecar(model, inputs=Inputs(schema=SCHEMA), max_body_bytes=100) as made:
        assert (await ask(made.port, post(b" " * 101)))[0] == 413
        assert (await ask(made.port, post(b'{"age":1,"age":-1}')))[0] == 422
        assert (await ask(made.port, post(b"\xff")))[0] == 422
    assert model.seen == []


# Fallback.


@pytest.mark.parametrize(
    ("script", "code", "reason"),
    [
        (answer(b"broken", 500), "500", "serverError"),
        (answer(b"later", 503), "503", "serverError"),
        (b"", "502", "connection"),
        (b"no HTTP", "502", "connection"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", "502", "connection"),
    ],
)
@on_both_loops
async def test_others_answer_where_the_model_fails(script: bytes, code: str, reason: str) -> None:
    model = Model()
    model.says(script)
    async with sidecar(model, fallback=fallback()) as made:
        status, head, body = await ask(made.port, post(GOOD))
        assert (status, body) == (203, b"static")
        assert b"\r\ncrossfade-fallback: static\r\n" in head
        assert f"\r\ncrossfade-fallback-reason: {reason}\r\n".encode() in head
        assert made.codes() == {code: 1}
        assert made.count("crossfade_fallbacks_total", target="static", reason=reason) == 1
        assert made.proxy._breaker is not None
        assert made.proxy._breaker._failures.total() == 1


@pytest.mark.parametrize("begun", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"])
@on_both_loops
async def test_others_answer_where_the_model_takes_too_long(begun: bytes) -> None:
    model = Model()
    model.says(begun, closes=False)
    async with sidecar(model, fallback=fallback(timeout_seconds=0.05)) as made:
        _, head, body = await ask(made.port, post(GOOD))
        assert body == b"static"
        assert b"crossfade-fallback-reason: timeout\r\n" in head
        assert made.codes() == {"504": 1}


@on_both_loops
async def test_others_get_the_whole_request() -> None:
    async with modelled(Model()) as stable:
        target = Target(name="stable", host="127.0.0.1", port=stable.port)
        async with sidecar(Model(), is_down=True, fallback=fallback(target)) as made:
            sent = post(GOOD, "/predict?a=b", b"X-Id: 7", b"Connection: close")
            _, head, body = await ask(made.port, sent)
    assert body == b"ok"
    assert b"crossfade-fallback: stable\r\n" in head
    got, body = stable.seen[0]
    assert got.startswith(b"POST /predict?a=b HTTP/1.1\r\nHost: x\r\n")
    assert b"\r\nX-Id: 7\r\n" in got
    assert b"\r\ncrossfade-fallback-from: iris-1\r\n" in got
    assert body == GOOD


@on_both_loops
async def test_an_event_stream_of_others_is_sent_event_by_event() -> None:
    got_first = asyncio.Event()

    async def stream(reader: Reader, writer: Writer) -> None:
        await other.take(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n")
        await got_first.wait()
        writer.write(b"data: 2\n\n")

    other = Model([stream])
    async with modelled(other):
        service = Target(name="service", host="127.0.0.1", port=other.port)
        async with (
            sidecar(Model(), is_down=True, fallback=fallback(service)) as made,
            dialled(made.port) as (reader, writer),
        ):
            writer.write(post(b"{}", "/predict", b"Connection: close"))
            head = await reader.readuntil(b"\r\n\r\n")
            assert b"crossfade-fallback: service\r\n" in head
            assert b"data: 1\n\n" in await reader.readuntil(b"1\n\n")
            got_first.set()
            assert b"data: 2\n\n" in await reader.read()
            assert (
                made.count("crossfade_fallbacks_total", target="service", reason="connection") == 1
            )


@on_both_loops
async def test_an_answer_of_others_that_breaks_off_is_broken_off_and_counted() -> None:
    other = Model()
    other.says(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\nhalf" % (HELD_BYTES + 1))
    async with modelled(other):
        service = Target(name="service", host="127.0.0.1", port=other.port)
        async with sidecar(Model(), is_down=True, fallback=fallback(service, STATIC)) as made:
            with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
                await ask(made.port, post(b"{}"))
            await until(lambda: not made.server.open_requests)
            failed = made.count(
                "crossfade_fallback_failures_total", target="service", reason="connection"
            )
            assert failed == 1


@on_both_loops
async def test_a_large_answer_of_others_comes_through_whole() -> None:
    body = b"y" * (3 * HELD_BYTES)
    other = Model()
    other.says(answer(body))
    async with modelled(other):
        service = Target(name="service", host="127.0.0.1", port=other.port)
        async with sidecar(Model(), is_down=True, fallback=fallback(service)) as made:
            status, head, got = await ask(made.port, post(b"{}"))
            assert (status, got) == (200, body)
            assert b"crossfade-fallback: service\r\n" in head
            assert made.room.taken == 0


@on_both_loops
async def test_without_room_answers_are_passed_on_and_not_observed() -> None:
    model = Model()
    model.says(answer(b'{"score":0.4}', 200, b"Content-Type: application/json"))
    async with sidecar(model, fallback=fallback(), predictions=(SCORE,)) as made:
        assert made.room.try_take(ANSWERS_BYTES)
        status, _, body = await ask(made.port, post(b"{}"))
        assert (status, body) == (200, b'{"score":0.4}')
        await until(
            lambda: made.count("crossfade_unobserved_total", what="predictions", why="memory") == 1
        )
        made.room.give(ANSWERS_BYTES)
        await ask(made.port, post(b"{}"))
        await until(lambda: made.count("crossfade_predictions_count") == 1)
        await until(lambda: made.room.taken == 0)


@on_both_loops
async def test_an_answer_below_500_is_the_model_s_business() -> None:
    model = Model()
    model.says(answer(b"who?", 404))
    async with sidecar(model, fallback=fallback()) as made:
        assert (await ask(made.port, post(GOOD)))[0] == 404
        assert made.codes() == {"404": 1}
        assert made.proxy._breaker is not None
        assert made.proxy._breaker._failures.total() == 0
        assert made.proxy._breaker._requests.total() == 1


@on_both_loops
async def test_a_request_that_fell_back_already_does_not_again() -> None:
    async with sidecar(Model(), is_down=True, fallback=fallback()) as made:
        guarded = post(GOOD, "/", b"crossfade-fallback-from: iris-2")
        assert (await ask(made.port, guarded))[0] == 502
        assert made.count("crossfade_fallbacks_total", target="static") == 0


@on_both_loops
async def test_only_for_the_reasons_that_are_named() -> None:
    model = Model()
    model.says(answer(b"mine", 500), b"")
    async with sidecar(model, fallback=fallback(on=("connection",))) as made:
        assert (await ask(made.port, post(GOOD)))[::2] == (500, b"mine")
        assert (await ask(made.port, post(GOOD)))[2] == b"static"


@on_both_loops
async def test_if_nobody_answers_the_model_s_own_failure_is_sent() -> None:
    model = Model()
    model.says(
        answer(b"mine", 503, b"Retry-After: 7"),
        b"HTTP/1.1 500 Oh\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nmine\r\n0\r\n\r\n",
        b"HTTP/1.1 500 Oh\r\nContent-Length: 9\r\n\r\nhalf",
        b"",
    )
    nobody = Target(name="stable", host="127.0.0.1", port=1)
    async with sidecar(model, fallback=fallback(nobody)) as made:
        status, head, body = await ask(made.port, post(GOOD))
        assert (status, body) == (503, b"mine")
        assert b"Retry-After: 7" in head
        assert (await ask(made.port, post(GOOD)))[::2] == (500, b"mine")
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await ask(made.port, post(GOOD))
        assert (await ask(made.port, post(GOOD)))[0] == 502
        assert made.codes() == {"503": 1, "500": 2, "502": 1}


@on_both_loops
async def test_a_long_answer_is_streamed_and_cannot_be_taken_back() -> None:
    model = Model()
    model.says(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\nhalf" % (HELD_BYTES + 1))
    async with sidecar(model, fallback=fallback()) as made:
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await ask(made.port, post(GOOD))
        await until(lambda: made.server.open_requests == 0)
        assert made.codes() == {"502": 1}
        assert made.count("crossfade_fallbacks_total", target="static") == 0


@on_both_loops
async def test_an_open_circuit_spares_the_model() -> None:
    now = 100.0
    model = Model()
    model.says(answer(b"broken", 500), answer(b"broken", 500), answer(b"well"))
    rules = Breaker(min_requests=2)
    async with sidecar(model, clock=lambda: now, fallback=fallback(breaker=rules)) as made:
        for _ in range(4):
            _, head, body = await ask(made.port, post(GOOD))
            assert body == b"static"
        assert b"crossfade-fallback-reason: openCircuit" in head
        assert len(model.seen) == 2
        assert made.codes() == {"500": 2, "503": 2}
        assert made.count("crossfade_circuit_open") == 1
        guarded = post(GOOD, "/", b"crossfade-fallback-from: iris-2")
        assert (await ask(made.port, guarded))[0] == 503
        now += rules.open_seconds
        assert (await ask(made.port, post(GOOD)))[2] == b"well"
        assert made.count("crossfade_circuit_open") == 0


# What is seen.


def numbers(made: Sidecar, kind: str) -> tuple[float, float]:
    return made.count(f"crossfade_{kind}_count"), made.count(f"crossfade_{kind}_sum")


@on_both_loops
async def test_features_and_predictions_are_observed() -> None:
    model = Model()
    zipped = gzip.compress(b'{"score": 0.5}')
    model.says(
        answer(b'{"score": 0.25}'),
        answer(zipped, 200, b"Content-Encoding: gzip"),
        answer(b'{"score": 4}', 404),
        answer(b'{"score": 5}', 500),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        b'8\r\n{"score"\r\n3\r\n:1}\r\n0\r\n\r\n',
    )
    async with sidecar(model, features=(AGE,), predictions=(SCORE,)) as made:
        for _ in range(5):
            await ask(made.port, post(GOOD))
        await ask(made.port, b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        assert numbers(made, "features") == (5, 15)
        assert numbers(made, "predictions") == (3, 1.75)


@on_both_loops
async def test_what_others_answer_is_no_prediction() -> None:
    target = Target(name="static", body='{"score": 1}')
    async with sidecar(
        Model(), is_down=True, predictions=(SCORE,), fallback=fallback(target)
    ) as made:
        assert (await ask(made.port, post(GOOD)))[2] == b'{"score": 1}'
        assert numbers(made, "predictions")[0] == 0


@on_both_loops
async def test_what_cannot_be_observed_is_counted() -> None:
    model = Model()
    large = b'{"score": 1, "x": "' + b"x" * OBSERVED_BYTES + b'"}'
    bomb = gzip.compress(b'{"score": 1, "x": "' + b"x" * (50 * OBSERVED_BYTES) + b'"}')
    model.says(
        answer(large),
        answer(bomb, 200, b"Content-Encoding: gzip"),
        answer(b"x", 200, b"Content-Encoding: br"),
        answer(b"no JSON"),
    )
    async with sidecar(model, features=(AGE,), predictions=(SCORE,)) as made:
        for body in (b"no JSON", GOOD, GOOD, GOOD):
            await ask(made.port, post(body))
        assert numbers(made, "features")[0] == 3
        assert numbers(made, "predictions")[0] == 0
        unobserved = re.findall(
            r'crossfade_unobserved_total{what="(\w+)",why="(\w+)"} (\d)',
            made.metrics.render().decode(),
        )
        assert sorted(unobserved) == [
            ("features", "json", "1"),
            ("predictions", "contentEncoding", "1"),
            ("predictions", "json", "1"),
            ("predictions", "size", "2"),
        ]


@on_both_loops
async def test_only_what_infers_is_observed() -> None:
    observed = Observed(name="score", tensor="y", buckets=(1.0,))
    model = Model()
    body = b'{"outputs":[{"name":"y","datatype":"FP32","shape":[1],"data":[2.0]}]}'
    model.says(answer(body))
    async with sidecar(model, protocol="openInference", predictions=(observed,)) as made:
        await ask(made.port, post(GOOD, "/v2/repository/index"))
        assert made.count("crossfade_unobserved_total") == 0
        assert numbers(made, "predictions")[0] == 0
        await ask(made.port, post(GOOD, "/v2/models/iris/infer"))
        assert numbers(made, "predictions") == (1, 2)


@on_both_loops
async def test_pairs_are_recorded() -> None:
    model = Model()
    model.says(answer(b'{"score": 1}'), answer(b"broken", 500))
    async with sidecar(model, recording=Recording(percent=100)) as made:
        await ask(made.port, post(GOOD))
        await ask(made.port, post(GOOD))
        cases = list(yaml.safe_load_all(made.recorder.export()))
        assert made.count("crossfade_recorded_total") == 1
    assert len(cases) == 1
    assert '{"score": 1}' in str(cases[0])
    assert '{"age": 3}' in str(cases[0])


@on_both_loops
async def test_a_hundred_at_once_each_get_their_own_answer() -> None:
    async def echo(reader: Reader, writer: Writer) -> None:
        while True:
            _, body = await read_message(reader)
            await asyncio.sleep(0)
            writer.write(answer(body))

    async with sidecar(Model([echo]), fallback=fallback(), inputs=Inputs(schema=SCHEMA)) as made:

        async def client(number: int) -> None:
            async with dialled(made.port) as (reader, writer):
                for turn in range(5):
                    body = b'{"age": %d, "turn": %d}' % (number, turn)
                    writer.write(post(body))
                    assert (await read_message(reader))[1] == body

        await asyncio.gather(*(client(number) for number in range(100)))
        assert made.codes() == {"200": 500}
        assert made.server.open_requests == 0


FRAGMENTS = [
    b"POST /predict HTTP/1.1\r\nHost: x\r\n",
    b"POST /predict HTTP/1.0\r\n",
    b"GET /predict HTTP/1.1\r\nHost: x\r\n",
    b"Content-Length: 10\r\n",
    b"Content-Length: 11\r\n",
    b"Content-Length : 11\r\n",
    b"content-length: 21\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: identity\r\n",
    b"Transfer-Encoding:\tchunked\r\n",
    b"transfer-encoding\r\n : chunked\r\n",
    b"Connection: content-length, transfer-encoding\r\n",
    b"Connection: Upgrade\r\nUpgrade: h2c\r\n",
    b"Connection: Upgrade\r\nUpgrade: websocket\r\n",
    b"Content-Encoding: gzip\r\n",
    b"Expect: 100-continue\r\n",
    b"X: \r\n",
    b"X: y\n",
    b"\r\n",
    b"\n",
    GOOD,
    BAD,
    b"a\r\n" + GOOD + b"\r\n",
    b"b\r\n" + BAD + b"\r\n",
    b"0\r\n\r\n",
    b"0\r\nContent-Length: 3\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    post(GOOD),
    post(BAD),
]


@hypothesis.settings(max_examples=300)
@given(pieces=st.lists(st.sampled_from(FRAGMENTS), min_size=1, max_size=9))
def test_whatever_is_sent_the_model_sees_only_what_is_valid(pieces: list[bytes]) -> None:
    async def scenario() -> list[tuple[bytes, bytes]]:
        model = Model()
        async with (
            sidecar(model, inputs=Inputs(schema=SCHEMA)) as made,
            dialled(made.port) as (reader, writer),
        ):
            writer.write(b"".join(pieces) + post(GOOD, "/", b"Connection: close"))
            async with asyncio.TaskGroup() as tasks:
                answers = tasks.create_task(reader.read())
                # A body that is not finished is waited for; the sweep then ends the connection.
                for _ in range(200):
                    await asyncio.sleep(0.001)
                    if answers.done():
                        break
                for connection in tuple(made.server.connections):
                    connection.sweep(asyncio.get_running_loop().time() + 1000)
        return model.seen

    for head, body in asyncio.run(scenario()):
        assert head.startswith((b"POST ", b"GET "))
        if body or head.startswith(b"POST "):
            assert json.loads(body)["age"] >= 0
