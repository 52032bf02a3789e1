"""The load generator against a server whose behaviour each test chooses."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import pytest

from examples.demo.http1 import Response, parse_response
from examples.demo.load import Load, run_load
from examples.demo.stats import Fate, Judgement, Reading, Stats

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

OK = b'HTTP/1.1 200 OK\r\ncontent-length: 21\r\n\r\n{"model_version":"1"}'


async def read_request(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    return head + await reader.readexactly(length)


def answering(response: bytes, *, then_close: bool = False, after_seconds: float = 0) -> Handler:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await read_request(reader)
            await asyncio.sleep(after_seconds)
            writer.write(response)
            if then_close:
                return

    return handle


@asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[int]:
    """Serve, and yield the port."""
    tasks: set[asyncio.Task[None] | None] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.current_task())
        try:
            await handler(reader, writer)
        except (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    server = await asyncio.start_server(handle, "127.0.0.1")
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await asyncio.gather(*filter(None, tasks))


def load_of(port: int, **changed: object) -> Load:
    values: dict[str, object] = {
        "host": "127.0.0.1",
        "port": port,
        "path": "/v2/models/m/infer",
        "host_header": "m.example",
        "rate_per_second": 200.0,
        "seconds": 0.1,
        "body": lambda index: b"%d" % index,
        "timeout_seconds": 0.3,
    }
    return Load(**(values | changed))  # type: ignore[arg-type]


async def run_against(handler: Handler, **changed: object) -> Stats:
    async with serving(handler) as port:
        return await run_load(load_of(port, **changed))


async def test_accounts_for_every_request_once() -> None:
    stats = await run_against(answering(OK))
    assert len(stats) == stats.scheduled == 20
    assert stats.answers_by_version() == {"1": 20}
    assert not stats.lost()


async def test_sends_body_and_host_of_each_request() -> None:
    seen = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            seen.append(await read_request(reader))
            writer.write(OK)

    await run_against(handle, rate_per_second=100, seconds=0.03, concurrency=1)
    assert [it.rpartition(b"\r\n\r\n")[2] for it in seen] == [b"0", b"1", b"2"]
    assert seen[0].startswith(b"POST /v2/models/m/infer HTTP/1.1\r\nhost: m.example\r\n")


async def test_arrivals_do_not_wait_for_answers() -> None:
    arrived = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        arrived.append(time.monotonic())
        await asyncio.sleep(0.2)
        writer.write(OK)

    stats = await run_against(handle)
    assert arrived[-1] - arrived[0] < 0.2
    assert stats.answers_by_version() == {"1": 20}
    assert all(it.seconds >= 0.2 for it in stats)


async def test_latency_counts_from_when_a_request_was_due() -> None:
    stats = await run_against(
        answering(OK, after_seconds=0.05),
        concurrency=1,
        rate_per_second=100,
        seconds=0.03,
        timeout_seconds=1,
    )
    # Due after 0, 10 and 20 ms, answered one after the other in 50 ms each.
    for record, least in zip(stats, (0.05, 0.09, 0.13), strict=True):
        assert record.seconds > least - 0.005


async def test_reuses_connections() -> None:
    connections = 0

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await answering(OK)(reader, writer)

    await run_against(handle)
    assert connections < 15


@pytest.mark.parametrize("says_so", [True, False])
async def test_loses_nothing_when_the_server_closes_idle_connections(says_so: bool) -> None:
    response = OK.replace(b"\r\n", b"\r\nconnection: close\r\n", 1) if says_so else OK
    stats = await run_against(answering(response, then_close=True), rate_per_second=100)
    assert not stats.lost()


@pytest.mark.parametrize(
    ("status", "fate"),
    [
        (404, Fate.NOT_FOUND),
        (502, Fate.BAD_GATEWAY),
        (503, Fate.UNAVAILABLE),
        (504, Fate.GATEWAY_TIMEOUT),
    ],
)
async def test_a_gateways_errors_are_losses(status: int, fate: Fate) -> None:
    response = b"HTTP/1.1 %d Sorry\r\ncontent-length: 0\r\n\r\n" % status
    stats = await run_against(answering(response))
    assert stats.lost() == {fate: 20}
    assert stats.statuses() == {status: 20}


async def test_a_models_error_is_a_failed_answer() -> None:
    response = b"HTTP/1.1 500 Oh\r\nx-model-version: 2\r\ncontent-length: 0\r\n\r\n"
    stats = await run_against(answering(response))
    assert not stats.lost()
    assert stats.failed() == 20
    assert stats.bad_by_version() == {"2": 20}


async def test_a_connection_that_ends_before_the_answer_is_a_reset() -> None:
    stats = await run_against(answering(OK[:-3], then_close=True))
    assert stats.lost() == {Fate.RESET: 20}


async def test_a_refused_connection_is_a_loss() -> None:
    async with serving(answering(OK)) as port:
        pass
    stats = await run_load(load_of(port))
    assert stats.lost() == {Fate.CONNECT: 20}


async def test_no_answer_is_a_timeout() -> None:
    stats = await run_against(answering(OK, after_seconds=0.2), timeout_seconds=0.1)
    assert stats.lost() == {Fate.TIMEOUT: 20}


async def test_requests_that_found_no_connection_in_time_are_unsent() -> None:
    stats = await run_against(
        answering(OK, after_seconds=0.2),
        timeout_seconds=0.1,
        concurrency=2,
        # Due, and so given up, all at once.
        rate_per_second=1e6,
        seconds=1e-5,
    )
    assert stats.lost() == {Fate.TIMEOUT: 2, Fate.UNSENT: 8}


async def test_what_is_not_http_is_malformed() -> None:
    stats = await run_against(answering(b"220 mail.example ESMTP\r\n\r\n"))
    assert stats.lost() == {Fate.MALFORMED: 20}


async def test_what_read_does_not_understand_is_malformed() -> None:
    def read(_index: int, _response: Response) -> Reading:
        raise ValueError

    stats = await run_against(answering(OK), read=read)
    assert stats.lost() == {Fate.MALFORMED: 20}


async def test_stop_ends_arrivals_and_waits_for_answers() -> None:
    stop = asyncio.Event()
    async with serving(answering(OK, after_seconds=0.1)) as port:
        load = load_of(port, rate_per_second=100, seconds=60)
        running = asyncio.create_task(run_load(load, stop=stop))
        await asyncio.sleep(0.1)
        stop.set()
        stats = await running
    assert 0 < len(stats) == stats.scheduled < 50
    assert not stats.lost()


async def test_knows_the_first_bad_answer_and_counts_between_times() -> None:
    def read(index: int, _response: Response) -> Reading:
        version = "2" if index >= 10 else "1"
        return Reading(version, Judgement.WRONG if index >= 15 else Judgement.RIGHT)

    stats = await run_against(answering(OK), read=read)
    first_bad = stats.first_bad_at("2")
    assert first_bad is not None
    assert stats.first_bad_at("1") is None
    assert stats.answers_by_version(end=first_bad) == {"1": 10, "2": 5}
    assert stats.bad_by_version(begin=first_bad) == {"2": 5}
    last = stats.last_answer_at("2")
    assert last is not None
    assert 0 < last - first_bad < 1
    assert abs(last - time.time()) < 2
    low, high = stats.latency_seconds((0, 1), "2")
    assert 0 < low <= high


def test_parses_chunks_as_they_come() -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    whole = head + b"4\r\nwiki\r\n5;x=y\r\npedia\r\n0\r\n\r\n"
    for size in range(len(whole)):
        assert parse_response(whole[:size]) is None
    response = parse_response(whole)
    assert response is not None
    assert response.body == b"wikipedia"
    assert response.keep_alive


def test_parses_a_body_that_ends_with_the_connection() -> None:
    received = b"HTTP/1.0 200 OK\r\n\r\nall"
    assert parse_response(received) is None
    assert parse_response(received, ended=True) == (200, b"HTTP/1.0 200 OK", b"all", False)


def test_parses_a_response_as_it_comes() -> None:
    for size in range(len(OK)):
        assert parse_response(OK[:size]) is None
    with pytest.raises(ValueError, match="more than"):
        parse_response(OK + b"x")
