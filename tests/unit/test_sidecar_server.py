"""HTTP/1.1 as clients send it: what is understood, what is refused, and how connections end."""

from __future__ import annotations

import asyncio
import json
import logging

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typing_extensions import override

from crossfade.sidecar.connection import (
    HEAD_SECONDS,
    IDLE_SECONDS,
    LINGER_SECONDS,
    SEND_SECONDS,
    Connection,
)
from crossfade.sidecar.exchange import (
    BODY_SECONDS,
    BUFFERED_BYTES,
    LEAST_HELD_RATE,
    LEAST_RATE,
    Exchange,
)
from crossfade.sidecar.framing import MAX_HEAD_BYTES
from crossfade.sidecar.messages import Answer, Request
from crossfade.sidecar.room import Rooms
from crossfade.sidecar.server import Server, whole
from tests.unit.wires import dialled, on_both_loops, read_message, said, serving, until


class Handler:
    """Answers with what it was asked, and remembers it."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.exchanges: list[Exchange] = []

    async def __call__(self, exchange: Exchange) -> None:
        self.exchanges.append(exchange)
        await whole(self.answer)(exchange)

    async def answer(self, request: Request) -> Answer:
        self.requests.append(request)
        body = f"{request.method} {request.target} {request.body.decode('latin-1')}"
        return Answer(200, (), body.encode("latin-1"))


GET = b"GET /a HTTP/1.1\r\nHost: x\r\n"
POST = b"POST /a HTTP/1.1\r\nHost: x\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"
LAST = b"0\r\n\r\n"

REFUSED = {
    "length and coding": POST + b"Content-Length: 3\r\n" + CHUNKED + LAST,
    "coding and length": POST + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n" + LAST,
    "two lengths": POST + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
    "two equal lengths": POST + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
    "a list of lengths": POST + b"Content-Length: 3, 3\r\n\r\nabc",
    "a signed length": POST + b"Content-Length: +3\r\n\r\nabc",
    "a negative length": POST + b"Content-Length: -3\r\n\r\nabc",
    "a hexadecimal length": POST + b"Content-Length: 0x3\r\n\r\nabc",
    "a length with a space": POST + b"Content-Length: 1 1\r\n\r\nabc",
    "an empty length": POST + b"Content-Length:\r\n\r\nabc",
    "a length that overflows": POST + b"Content-Length: 18446744073709551619\r\n\r\nabc",
    "a length among the trailers": POST + CHUNKED + b"0\r\nContent-Length: 3\r\n\r\n",
    "another coding before chunked": POST + b"Transfer-Encoding: gzip, " + CHUNKED[19:] + LAST,
    "another coding after chunked": POST + b"Transfer-Encoding: chunked, gzip\r\n\r\n" + LAST,
    "an unknown coding": POST + b"Transfer-Encoding: xchunked\r\n\r\n" + LAST,
    "a quoted coding": POST + b'Transfer-Encoding: "chunked"\r\n\r\n' + LAST,
    "identity": POST + b"Transfer-Encoding: identity\r\n\r\nabc",
    "chunked twice": POST + b"Transfer-Encoding: chunked\r\n" + CHUNKED + LAST,
    "a vertical tab before chunked": POST + b"Transfer-Encoding:\x0bchunked\r\n\r\n" + LAST,
    "chunked with HTTP/1.0": b"POST /a HTTP/1.0\r\n" + CHUNKED + LAST,
    "a folded line": GET + b"A: b\r\n c\r\n\r\n",
    "a folded line after nothing": GET + b"A:\r\n c\r\n\r\n",
    "a bare LF after a header": GET + b"A: b\nB: c\r\n\r\n",
    "a bare LF after the head": GET + b"A: b\r\n\n",
    "bare LFs only": b"GET /a HTTP/1.1\nHost: x\n\n",
    "a bare LF after a chunk's size": POST + CHUNKED + b"3\nabc\r\n" + LAST,
    "a bare LF after a chunk's extension": POST + CHUNKED + b"3;a=b\nabc\r\n" + LAST,
    "a chunk longer than it says": POST + CHUNKED + b"3\r\nabcXX" + LAST,
    "a chunk's size with a sign": POST + CHUNKED + b"+3\r\nabc\r\n" + LAST,
    "a chunk's size in C": POST + CHUNKED + b"0x3\r\nabc\r\n" + LAST,
    "a chunk's size that overflows": POST + CHUNKED + b"fffffffffffffffff\r\nabc\r\n" + LAST,
    "a space before the colon": GET + b"A : b\r\n\r\n",
    "a space before the name": b"GET /a HTTP/1.1\r\n Host: x\r\n\r\n",
    "a space in the name": GET + b"A B: c\r\n\r\n",
    "no name": GET + b": b\r\n\r\n",
    "no colon": GET + b"A\r\n\r\n",
    "a name that is no token": GET + b'A"B: c\r\n\r\n',
    "NUL in a value": GET + b"A: b\x00c\r\n\r\n",
    "CR in a value": GET + b"A: b\rc\r\n\r\n",
    "a control character in a value": GET + b"A: b\x01c\r\n\r\n",
    "DEL in a value": GET + b"A: b\x7fc\r\n\r\n",
    "two hosts": GET + b"host: y\r\n\r\n",
    "no host": b"GET /a HTTP/1.1\r\n\r\n",
    "a fragment": b"GET /a#b HTTP/1.1\r\nHost: x\r\n\r\n",
    "a space in the path": b"GET /a b HTTP/1.1\r\nHost: x\r\n\r\n",
    "a control character in the path": b"GET /a\x01 HTTP/1.1\r\nHost: x\r\n\r\n",
    "a byte beyond ASCII in the path": b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n",
    "a path without a slash": b"GET a/b HTTP/1.1\r\nHost: x\r\n\r\n",
    "an unknown method": b"STEAL /a HTTP/1.1\r\nHost: x\r\n\r\n",
    "a method in small letters": b"get /a HTTP/1.1\r\nHost: x\r\n\r\n",
    "HTTP/1.2": b"GET /a HTTP/1.2\r\nHost: x\r\n\r\n",
    "a websocket with a body": POST
    + b"Connection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 3\r\n\r\nabc",
    "no HTTP": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 no TLS here, please\r\n\r\n",
}


@pytest.mark.parametrize("sent", REFUSED.values(), ids=REFUSED.keys())
@on_both_loops
async def test_what_two_servers_may_read_in_two_ways_is_refused(sent: bytes) -> None:
    handler = Handler()
    async with serving(handler) as server:
        answer = await said(server.port, sent + b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n")
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert b"connection: close" in head
    assert json.loads(body)["error"]
    assert handler.requests == []


@pytest.mark.parametrize(
    ("first", "status"),
    [
        (b"GET /a HTTP/2.0\r\n", 505),
        (b"GET /a\r\n", 505),
        (b"GET /a HTTP/0.9\r\n", 505),
        (b"CONNECT x:1 HTTP/1.1\r\n", 501),
    ],
)
@on_both_loops
async def test_other_versions_and_connect_are_not_spoken(first: bytes, status: int) -> None:
    handler = Handler()
    async with serving(handler) as server:
        answer = await said(server.port, first + b"Host: x\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert answer.count(b"HTTP/1.1 ") == 1
    assert handler.requests == []


@on_both_loops
async def test_requests_of_one_connection_are_answered_in_order() -> None:
    handler = Handler()
    async with serving(handler) as server, dialled(server.port) as (reader, writer):
        writer.write(b"GET /1 HTTP/1.1\r\nHost: x\r\n\r\n" + POST + b"Content-Length: 1\r\n\r\nb")
        writer.write(POST + CHUNKED + b"2\r\ncd\r\n" + LAST)
        bodies = [(await read_message(reader))[1] for _ in range(3)]
    assert bodies == [b"GET /1 ", b"POST /a b", b"POST /a cd"]


@on_both_loops
async def test_one_request_is_handled_at_a_time() -> None:
    open_now = 0
    most = 0

    async def handle(exchange: Exchange) -> None:
        nonlocal open_now, most
        open_now += 1
        most = max(most, open_now)
        await asyncio.sleep(0)
        exchange.answer(Answer(204, (), b""))
        open_now -= 1

    async with serving(handle) as server, dialled(server.port) as (reader, writer):
        writer.write((GET + b"\r\n") * 500)
        for _ in range(500):
            await read_message(reader)
    assert most == 1


@on_both_loops
async def test_what_comes_before_an_error_is_answered() -> None:
    handler = Handler()
    async with serving(handler) as server:
        answer = await said(server.port, GET + b"\r\n" + POST + b"Content-Length: x\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 OK")
    assert answer.count(b"HTTP/1.1 400") == 1


@on_both_loops
async def test_nothing_after_a_request_that_closes_is_handled() -> None:
    handler = Handler()
    async with serving(handler) as server:
        answer = await said(server.port, GET + b"Connection: close\r\n\r\n" + GET + b"\r\n")
    assert answer.count(b"HTTP/1.1") == 1
    assert b"connection: close" in answer
    assert len(handler.requests) == 1


@pytest.mark.parametrize(("option", "stays"), [(b"", False), (b"Connection: keep-alive\r\n", True)])
@on_both_loops
async def test_http_10_stays_only_if_it_asks(option: bytes, stays: bool) -> None:
    async with serving(Handler()) as server, dialled(server.port) as (reader, writer):
        writer.write(b"GET /a HTTP/1.0\r\n" + option + b"\r\n")
        head, _ = await read_message(reader)
        assert (b"connection: keep-alive" in head) is stays
        assert (b"connection: close" in head) is not stays
        if stays:
            writer.write(b"GET /b HTTP/1.0\r\n\r\n")
            assert (await read_message(reader))[1] == b"GET /b "
        assert await reader.read() == b""


@on_both_loops
async def test_a_stream_to_http_10_ends_with_the_connection() -> None:
    async def handle(exchange: Exchange) -> None:
        exchange.begin(200, b"OK", ())
        await exchange.write(b"ab")
        await exchange.write(b"cd")
        exchange.end(((b"Sum", b"1"),))

    async with serving(handle) as server:
        keep_alive = b"Connection: keep-alive\r\n"
        answer = await said(server.port, b"GET /a HTTP/1.0\r\n" + keep_alive + b"\r\n")
    assert answer == b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nabcd"


@on_both_loops
async def test_headers_are_as_they_came_without_those_of_the_connection() -> None:
    handler = Handler()
    sent = (
        b"GET /a?b=%20 HTTP/1.1\r\nhOsT: x\r\nX-b: 1 \r\nx-B:2\r\nEmpty:\r\nHigh: \xe4\r\n"
        b"Connection: keep-alive, X-Gone\r\nX-Gone: 1\r\nKeep-Alive: 5\r\nTE: gzip\r\n"
        b"Proxy-Connection: x\r\nUpgrade: h2c\r\nHTTP2-Settings: y\r\n\r\n"
    )
    async with serving(handler) as server, dialled(server.port) as (reader, writer):
        writer.write(sent)
        await read_message(reader)
    assert handler.requests[0].headers == (
        (b"hOsT", b"x"),
        (b"X-b", b"1"),
        (b"x-B", b"2"),
        (b"Empty", b""),
        (b"High", b"\xe4"),
        (b"HTTP2-Settings", b"y"),
    )


@on_both_loops
async def test_connection_cannot_name_away_what_frames_a_message() -> None:
    handler = Handler()
    named = b"Connection: content-length, host, x-a\r\nX-A: 1\r\n"
    async with serving(handler) as server, dialled(server.port) as (reader, writer):
        writer.write(POST + named + b"Content-Length: 3\r\n\r\nabc")
        await read_message(reader)
    assert handler.requests[0].headers == ((b"Host", b"x"), (b"Content-Length", b"3"))


@pytest.mark.parametrize(
    ("framing", "body"),
    [
        (b"Content-Length: 3\r\n\r\n", b"abc"),
        (CHUNKED, b"1\r\na\r\n2;x=y\r\nbc\r\n0\r\nSum: 1\r\n\r\n"),
        (b"\r\n", b""),
    ],
)
@pytest.mark.parametrize("protocol", [b"h2c", b"other/1"])
@on_both_loops
async def test_a_wish_for_another_protocol_is_ignored(
    framing: bytes, body: bytes, protocol: bytes
) -> None:
    handler = Handler()
    upgrade = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: " + protocol + b"\r\n"
    sent = POST + upgrade + framing + body + b"GET /b HTTP/1.1\r\nHost: x\r\n\r\n"
    for split in range(1, len(sent), 7):
        async with serving(handler) as server, dialled(server.port) as (reader, writer):
            writer.write(sent[:split])
            await writer.drain()
            writer.write(sent[split:])
            assert (await read_message(reader))[1] == (b"POST /a " + (b"abc" if body else b""))
            assert (await read_message(reader))[1] == b"GET /b "
    if b"Sum" in body:
        assert handler.exchanges[0].trailers == ((b"Sum", b"1"),)


@on_both_loops
async def test_trailers_come_with_the_end() -> None:
    async def handle(exchange: Exchange) -> None:
        body = await exchange.read_all()
        exchange.begin(200, b"Fine", ((b"Trailer", b"Sum"),), body)
        exchange.end((*exchange.trailers, (b"Transfer-Encoding", b"x")))

    async with serving(handle) as server, dialled(server.port) as (reader, writer):
        writer.write(POST + CHUNKED + b"2\r\nab\r\n0\r\nSum: 7\r\nMore: 8\r\n\r\n")
        head, body = await read_message(reader)
    assert head == b"HTTP/1.1 200 Fine\r\nTrailer: Sum\r\ntransfer-encoding: chunked\r\n\r\n"
    assert body == b"abSum: 7\r\nMore: 8\r\n"


@pytest.mark.parametrize(
    ("method", "status"), [("HEAD", 200), ("GET", 204), ("GET", 304), ("HEAD", 404)]
)
@on_both_loops
async def test_some_answers_have_no_body(method: str, status: int) -> None:
    async def handle(exchange: Exchange) -> None:
        exchange.answer(Answer(status, ((b"Content-Length", b"9"),), b"never sent"))

    async with serving(handle) as server:
        answer = await said(
            server.port, f"{method} /a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode()
        )
    assert answer.endswith(b"\r\nContent-Length: 9\r\nconnection: close\r\n\r\n")


@on_both_loops
async def test_who_waits_to_be_told_to_send_is_told() -> None:
    handler = Handler()
    async with serving(handler) as server, dialled(server.port) as (reader, writer):
        writer.write(POST + b"Expect: 100-continue\r\nContent-Length: 3\r\n\r\n")
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"abc")
        assert (await read_message(reader))[1] == b"POST /a abc"


@on_both_loops
async def test_who_is_refused_is_not_told_to_send() -> None:
    handler = Handler()
    async with serving(handler) as server:
        expect = b"Expect: 100-continue\r\nContent-Length: 1000001\r\n\r\n"
        answer = await said(server.port, POST + expect)
    assert answer.startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize("chunked", [False, True])
@on_both_loops
async def test_a_body_over_the_limit_is_refused_while_it_is_sent(chunked: bool) -> None:
    handler = Handler()
    async with serving(handler, max_body=1000) as server, dialled(server.port) as (reader, writer):
        if chunked:
            writer.write(POST + CHUNKED + b"%x\r\n" % 100_000)
        else:
            writer.write(POST + b"Content-Length: 100000\r\n\r\n")
        writer.write(b"x" * 100_000)
        head, body = await read_message(reader)
        assert head.startswith(b"HTTP/1.1 413 ")
        assert "1000 bytes" in json.loads(body)["error"]
        assert await reader.read() == b""
    assert handler.requests == []


@on_both_loops
async def test_a_body_at_the_limit_is_taken() -> None:
    handler = Handler()
    async with serving(handler, max_body=1000) as server, dialled(server.port) as (reader, writer):
        writer.write(POST + b"Content-Length: 1000\r\n\r\n" + b"x" * 1000)
        assert (await read_message(reader))[0].startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    "sent",
    [
        GET + b"A: " + b"b" * MAX_HEAD_BYTES + b"\r\n\r\n",
        GET + b"A: b\r\n" * (MAX_HEAD_BYTES // 2) + b"\r\n",
        b"GET /" + b"a" * MAX_HEAD_BYTES + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        GET + b"a" * (MAX_HEAD_BYTES * 8),
        POST + CHUNKED + b"1;" + b"a" * (MAX_HEAD_BYTES * 8),
        POST + CHUNKED + b"1\r\na\r\n0\r\n" + b"a: b\r\n" * MAX_HEAD_BYTES,
    ],
    ids=["value", "lines", "path", "endless name", "endless extension", "trailers"],
)
@on_both_loops
async def test_a_head_over_the_limit_is_refused(sent: bytes) -> None:
    handler = Handler()
    async with serving(handler) as server, dialled(server.port) as (reader, writer):
        writer.write(sent)
        head, _ = await read_message(reader)
    assert head.startswith(b"HTTP/1.1 431 ")
    assert handler.requests == []


# Time. The sweep is told a time, so no test waits for it.


def sweep(server: Server, seconds: float) -> None:
    for connection in tuple(server.connections):
        connection.sweep(asyncio.get_running_loop().time() + seconds)


@on_both_loops
async def test_a_slow_head_is_refused() -> None:
    async with serving(Handler()) as server, dialled(server.port) as (reader, writer):
        writer.write(b"GET / HT")
        await until(lambda: any(c._head_since is not None for c in server.connections))
        sweep(server, HEAD_SECONDS - 1)
        writer.write(b"TP/1")
        sweep(server, HEAD_SECONDS + 1)
        head, _ = await read_message(reader)
    assert head.startswith(b"HTTP/1.1 408 ")


@on_both_loops
async def test_a_body_that_stands_still_is_refused() -> None:
    handler = Handler()
    async with serving(handler) as server, dialled(server.port) as (reader, writer):
        writer.write(POST + b"Content-Length: 3\r\n\r\na")
        await until(lambda: bool(handler.exchanges) and handler.exchanges[0].is_waiting)
        sweep(server, BODY_SECONDS - 1)
        assert server.open_requests == 1
        sweep(server, BODY_SECONDS + 1)
        head, _ = await read_message(reader)
    assert head.startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize(
    ("held", "rate"), [(True, LEAST_HELD_RATE), (False, LEAST_RATE)], ids=["held", "streamed"]
)
@on_both_loops
async def test_a_body_that_trickles_is_refused(held: bool, rate: int) -> None:
    exchanges: list[Exchange] = []

    async def handle(exchange: Exchange) -> None:
        exchanges.append(exchange)
        if held:
            await exchange.read_all()
        while await exchange.read():
            pass

    sent = 2 * rate
    async with (
        serving(handle, max_body=3 * rate) as server,
        dialled(server.port) as (reader, writer),
    ):
        writer.write(POST + b"Content-Length: %d\r\n\r\n" % (3 * rate) + b"x" * sent)
        await until(lambda: bool(exchanges) and exchanges[0]._taken == sent)
        (connection,) = server.connections
        now = asyncio.get_running_loop().time()
        for seconds in range(1, int(BODY_SECONDS) + 2):
            connection._touched = now + seconds  # a byte each second
            exchanges[0]._waited = seconds
            connection.sweep(now)
        await asyncio.sleep(0)
        assert server.open_requests == 1
        exchanges[0]._waited = BODY_SECONDS + 3
        connection.sweep(now)
        head, _ = await read_message(reader)
    assert head.startswith(b"HTTP/1.1 408 ")


@on_both_loops
async def test_a_body_that_nobody_waits_for_is_not_slow() -> None:
    exchanges: list[Exchange] = []
    go_on = asyncio.Event()

    async def handle(exchange: Exchange) -> None:
        exchanges.append(exchange)
        await go_on.wait()
        body = await exchange.read_all()
        exchange.answer(Answer(200, (), body))

    async with serving(handle) as server, dialled(server.port) as (reader, writer):
        writer.write(POST + b"Content-Length: 3\r\n\r\na")
        await until(lambda: bool(exchanges))
        sweep(server, 10_000)
        writer.write(b"bc")
        go_on.set()
        assert (await read_message(reader))[1] == b"abc"


@on_both_loops
async def test_a_connection_too_many_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crossfade.sidecar.connection.MAX_CONNECTIONS", 2)
    handler = Handler()
    async with (
        serving(handler) as server,
        dialled(server.port) as (_, first),
        dialled(server.port) as (reader, writer),
    ):
        await until(lambda: len(server.connections) == 2)
        async with dialled(server.port) as (refused, _):
            answer = await refused.read()
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"connection: close" in answer
        assert len(server.connections) == 2
        writer.write(GET + b"\r\n")
        await read_message(reader)
        first.close()
        await until(lambda: len(server.connections) == 1)
        async with dialled(server.port) as (other, to_other):
            to_other.write(GET + b"\r\n")
            await read_message(other)
    assert len(handler.requests) == 2


@on_both_loops
async def test_a_connection_without_requests_is_closed_late() -> None:
    async with serving(Handler()) as server, dialled(server.port) as (reader, writer):
        writer.write(GET + b"\r\n")
        await read_message(reader)
        sweep(server, IDLE_SECONDS - 1)
        writer.write(GET + b"\r\n")
        await read_message(reader)
        sweep(server, IDLE_SECONDS + 1)
        assert await reader.read() == b""


@on_both_loops
async def test_an_answer_that_takes_long_is_not_cut_off() -> None:
    finish = asyncio.Event()

    async def handle(exchange: Exchange) -> None:
        await finish.wait()
        exchange.answer(Answer(200, (), b"at last"))

    async with serving(handle) as server, dialled(server.port) as (reader, writer):
        writer.write(GET + b"Connection: close\r\n\r\nand more that is ignored")
        await until(lambda: server.open_requests == 1)
        sweep(server, 10_000)
        finish.set()
        assert (await read_message(reader))[1] == b"at last"


@on_both_loops
async def test_a_client_that_reads_nothing_is_cut_off() -> None:
    async def handle(exchange: Exchange) -> None:
        exchange.begin(200, b"OK", ())
        while True:
            await exchange.write(b"x" * 100_000)

    async with serving(handle) as server, dialled(server.port) as (_, writer):
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(GET + b"\r\n")
        await until(lambda: any(c._drainer is not None for c in server.connections))
        sweep(server, SEND_SECONDS - 1)
        assert server.open_requests == 1
        sweep(server, SEND_SECONDS + 1)
        await until(lambda: server.open_requests == 0)


@on_both_loops
async def test_who_goes_on_sending_after_an_error_is_cut_off() -> None:
    async with serving(Handler()) as server, dialled(server.port) as (reader, writer):
        writer.write(POST + b"Content-Length: x\r\n\r\n")
        assert (await read_message(reader))[0].startswith(b"HTTP/1.1 400 ")
        await until(lambda: all(c._is_lingering for c in server.connections))
        sweep(server, LINGER_SECONDS + 1)
        await until(lambda: not server.connections)


# Flow.


@on_both_loops
async def test_a_client_that_goes_away_ends_the_work_for_it() -> None:
    cancelled = asyncio.Event()

    async def handle(exchange: Exchange) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    async with serving(handle) as server:
        async with dialled(server.port) as (_, writer):
            writer.write(GET + b"\r\n")
            await until(lambda: server.open_requests == 1)
        async with asyncio.timeout(10):
            await cancelled.wait()
        await until(lambda: server.open_requests == 0)
    assert not server.connections


@on_both_loops
async def test_a_client_that_is_gone_at_once_leaves_nothing_open() -> None:
    handler = Handler()
    server = Server(handler, 1000, Rooms(1000))
    wire = Wire(server)
    wire.feed(GET + b"\r\n")
    wire.lose()
    for _ in range(3):
        await asyncio.sleep(0)
    assert server.open_requests == 0
    assert not server.connections
    assert handler.requests == []


@on_both_loops
async def test_a_body_is_not_read_before_it_is_wanted() -> None:
    wanted = asyncio.Event()
    sizes = []

    async def handle(exchange: Exchange) -> None:
        await wanted.wait()
        sizes.append(exchange._buffered)
        exchange.answer(Answer(200, (), b"%d" % len(await exchange.read_all())))

    size = 30_000_000
    async with serving(handle, max_body=size) as server, dialled(server.port) as (reader, writer):
        writer.write(POST + b"Content-Length: %d\r\n\r\n" % size)
        writer.write(b"x" * size)
        await until(lambda: any(c._paused for c in server.connections))
        wanted.set()
        assert (await read_message(reader))[1] == b"%d" % size
    assert sizes[0] <= 3 * BUFFERED_BYTES


@on_both_loops
async def test_an_answer_is_not_written_faster_than_it_is_read() -> None:
    written = 0

    async def handle(exchange: Exchange) -> None:
        nonlocal written
        exchange.begin(200, b"OK", ())
        for _ in range(300):
            await exchange.write(b"x" * 100_000)
            written += 100_000
        exchange.end()

    async with serving(handle) as server, dialled(server.port) as (reader, writer):
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(GET + b"\r\n")
        await until(lambda: any(c._drainer is not None for c in server.connections))
        assert written < 20_000_000
        writer.transport.resume_reading()  # type: ignore[attr-defined]
        _, body = await read_message(reader)
    assert len(body) == written == 30_000_000


@on_both_loops
async def test_an_early_answer_closes_and_still_arrives() -> None:
    async def handle(exchange: Exchange) -> None:
        exchange.answer(Answer(403, (), b"no"))

    async with serving(handle) as server, dialled(server.port) as (reader, writer):
        writer.write(POST + b"Content-Length: 900000\r\n\r\n" + b"x" * 1000)
        head, body = await read_message(reader)
        assert b"connection: close" in head
        assert body == b"no"
        writer.write(b"x" * 800_000)
        assert await reader.read() == b""


@on_both_loops
async def test_an_answer_that_breaks_off_is_no_whole_one() -> None:
    async def handle(exchange: Exchange) -> None:
        exchange.begin(200, b"OK", ())
        await exchange.write(b"half")

    async with serving(handle) as server, dialled(server.port) as (reader, writer):
        writer.write(GET + b"\r\n")
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await read_message(reader)


@on_both_loops
async def test_a_fault_of_ours_is_an_answer_and_a_log(caplog: pytest.LogCaptureFixture) -> None:
    async def handle(exchange: Exchange) -> None:
        raise ZeroDivisionError

    async with serving(handle) as server, dialled(server.port) as (reader, writer):
        with caplog.at_level(logging.ERROR):
            writer.write(GET[:6] + b"?secret" + GET[6:] + b"\r\n")
            head, _ = await read_message(reader)
    assert head.startswith(b"HTTP/1.1 500 ")
    assert "ZeroDivisionError" in caplog.text
    assert "secret" not in caplog.text


# The end.


@on_both_loops
async def test_a_drain_loses_nothing() -> None:
    finish = asyncio.Event()

    async def handle(exchange: Exchange) -> None:
        if exchange.head.target == "/slow":
            await finish.wait()
        exchange.answer(Answer(200, (), b"done"))

    async with (
        serving(handle) as server,
        dialled(server.port) as slow,
        dialled(server.port) as idle,
    ):
        idle[1].write(GET + b"\r\n")
        assert b"close" not in (await read_message(idle[0]))[0]
        slow[1].write(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
        await until(lambda: server.open_requests == 1)
        server.begin_drain()
        drained = asyncio.create_task(server.drained(30))
        async with dialled(server.port) as late:
            late[1].write(GET + b"\r\n")
            assert b"connection: close" in (await read_message(late[0]))[0]
        idle[1].write(GET + b"\r\n")
        assert b"connection: close" in (await read_message(idle[0]))[0]
        assert not drained.done()
        finish.set()
        assert b"connection: close" in (await read_message(slow[0]))[0]
        assert await drained


@on_both_loops
async def test_a_drain_does_not_wait_for_ever() -> None:
    async def handle(exchange: Exchange) -> None:
        await asyncio.Event().wait()

    async with serving(handle) as server, dialled(server.port) as (_, writer):
        writer.write(GET + b"\r\n")
        await until(lambda: server.open_requests == 1)
        assert not await server.drained(0.01)


# Anything at all.


@settings(max_examples=150)
@given(
    pieces=st.lists(
        st.one_of(
            st.binary(max_size=30),
            st.sampled_from(
                [
                    *REFUSED.values(),
                    GET,
                    POST,
                    CHUNKED,
                    LAST,
                    b"\r\n",
                    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
                    b"Connection: upgrade\r\nUpgrade: websocket\r\n\r\n",
                    b"Connection: upgrade\r\nUpgrade: h2c\r\n",
                    b"Content-Length: 3\r\n\r\nabc",
                ]
            ),
        ),
        max_size=8,
    )
)
def test_nothing_that_is_sent_breaks_it(pieces: list[bytes]) -> None:
    problems: list[str] = []

    class Complaints(logging.Handler):
        @override
        def emit(self, record: logging.LogRecord) -> None:
            problems.append(record.getMessage())

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: problems.append(str(context)))
        handler = Handler()
        async with serving(handler) as server:
            async with dialled(server.port) as (_, writer):
                for piece in pieces:
                    writer.write(piece)
                    await asyncio.sleep(0)
            async with dialled(server.port) as (reader, writer):
                writer.write(GET + b"\r\n")
                assert (await read_message(reader))[1] == b"GET /a "
            await until(lambda: not server.connections)
            assert server.open_requests == 0

    complaints = Complaints(logging.ERROR)
    logging.getLogger().addHandler(complaints)
    try:
        asyncio.run(scenario())
    finally:
        logging.getLogger().removeHandler(complaints)
    assert problems == []


@settings(max_examples=60)
@given(cuts=st.sets(st.integers(1, 400)))
def test_how_bytes_are_cut_into_packets_makes_no_difference(cuts: set[int]) -> None:
    sent = (
        GET
        + b"A: b\r\n\r\n"
        + POST
        + b"Content-Length: 5\r\n\r\nhello"
        + POST
        + CHUNKED
        + b"3;q=1\r\nabc\r\n0\r\nT: 1\r\n\r\n"
        + POST
        + b"Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 2\r\n\r\nxy"
        + GET
        + b"Connection: close\r\n\r\n"
    )

    async def scenario() -> list[Request]:
        handler = Handler()
        server = Server(handler, 1000, Rooms(1000))
        connection = Wire(server)
        begun = 0
        for end in (*sorted(cut for cut in cuts if cut < len(sent)), len(sent)):
            connection.feed(sent[begun:end])
            begun = end
            await asyncio.sleep(0)
        await until(lambda: server.open_requests == 0)
        return handler.requests

    requests = asyncio.run(scenario())
    assert [(request.method, request.body) for request in requests] == [
        ("GET", b""),
        ("POST", b"hello"),
        ("POST", b"abc"),
        ("POST", b"xy"),
        ("GET", b""),
    ]


class Wire(asyncio.Transport):
    """A connection without a network."""

    def __init__(self, server: Server) -> None:
        super().__init__()
        self._connection = Connection(server)
        self._connection.connection_made(self)
        self._pending = b""
        self._reading = True

    def feed(self, data: bytes) -> None:
        self._pending += data
        if self._reading:
            data, self._pending = self._pending, b""
            self._connection.data_received(data)

    def lose(self) -> None:
        self._connection.connection_lost(None)

    @override
    def pause_reading(self) -> None:
        self._reading = False

    @override
    def resume_reading(self) -> None:
        self._reading = True
        if self._pending:
            asyncio.get_running_loop().call_soon(self.feed, b"")

    @override
    def write(self, data: bytes | bytearray | memoryview) -> None:
        pass

    @override
    def is_closing(self) -> bool:
        return False

    @override
    def can_write_eof(self) -> bool:
        return False

    @override
    def close(self) -> None:
        pass
