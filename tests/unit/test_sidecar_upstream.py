"""Requests to servers: connections are used again, and whatever servers do becomes an error."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typing_extensions import override

from crossfade.sidecar.framing import MAX_HEAD_BYTES, RequestHead
from crossfade.sidecar.messages import Answer, Headers, Request
from crossfade.sidecar.upstream import (
    IDLE_SECONDS,
    UpstreamClient,
    _Pool,
)
from crossfade.sidecar.upstream_connection import (
    BUFFERED_BYTES,
    BrokenError,
    UpstreamConnection,
)
from tests.unit.wires import (
    OK,
    Model,
    Reader,
    Writer,
    modelled,
    on_both_loops,
    read_message,
    until,
)

HOST = "127.0.0.1"
GET = Request("GET", "/a", ((b"Host", b"x"),), b"")
POST = Request("POST", "/a", ((b"Host", b"x"), (b"X", b"1")), b"body")


def head_of(
    method: str = "GET", *, chunked: bool = False, length: int | None = None
) -> RequestHead:
    headers: Headers = ((b"Host", b"x"),)
    if length is not None:
        headers = (*headers, (b"Content-Length", b"%d" % length))
    return RequestHead(
        method=method,
        target="/a",
        headers=headers,
        is_http_11=True,
        closes=False,
        length=length,
        chunked=chunked,
        expects_continue=False,
        asks_for_websocket=False,
        takes_trailers=False,
    )


class Pieces:
    """A body that comes as the test gives it."""

    def __init__(self, trailers: Headers = ()) -> None:
        self.queue: asyncio.Queue[bytes] = asyncio.Queue()
        self.trailers = trailers

    async def read(self) -> bytes:
        return await self.queue.get()


async def send(model: Model, client: UpstreamClient, request: Request = GET) -> Answer:
    return await client.send(HOST, model.port, request, 10)


@on_both_loops
async def test_a_request_is_sent_as_it_is_and_its_length_is_right() -> None:
    client = UpstreamClient()
    wrong = Request("POST", "/a?b", ((b"hOst", b"x"), (b"Content-Length", b"9")), b"body")
    async with modelled(Model()) as model:
        answer = await send(model, client, wrong)
        client.close()
    assert model.seen == [(b"POST /a?b HTTP/1.1\r\nhOst: x\r\ncontent-length: 4\r\n\r\n", b"body")]
    assert answer == Answer(200, ((b"content-length", b"2"),), b"ok")


@on_both_loops
async def test_headers_of_the_connection_do_not_go_on() -> None:
    client = UpstreamClient()
    headers = ((b"Host", b"x"), (b"Connection", b"close, X-A"), (b"X-A", b"1"))
    async with modelled(Model()) as model:
        await send(model, client, Request("GET", "/", headers, b""))
        client.close()
    assert model.seen[0][0] == b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


@on_both_loops
async def test_a_connection_is_used_again() -> None:
    client = UpstreamClient()
    async with modelled(Model()) as model:
        for _ in range(3):
            assert (await send(model, client, POST)).body == b"ok"
        assert model.connections == 1
        client.close()


@on_both_loops
async def test_at_the_same_time_each_request_has_a_connection() -> None:
    client = UpstreamClient()
    async with modelled(Model()) as model:
        await asyncio.gather(*(send(model, client) for _ in range(5)))
        assert model.connections == 5
        await asyncio.gather(*(send(model, client) for _ in range(5)))
        assert model.connections == 5
        client.close()


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\n\r\nok",
    ],
    ids=["close", "HTTP/1.0", "no length"],
)
@on_both_loops
async def test_a_connection_that_ends_is_not_used_again(answer: bytes) -> None:
    client = UpstreamClient()
    model = Model()
    model.says(answer)
    async with modelled(model):
        assert (await send(model, client)).body == b"ok"
        assert (await send(model, client)).body == b"ok"
        assert model.connections == 2


@on_both_loops
async def test_a_connection_is_kept_less_long_than_servers_keep_it() -> None:
    client = UpstreamClient()
    async with modelled(Model()) as model:
        await send(model, client)
        pool = client._pool(HOST, model.port)
        pool._idle[0].idle_since -= IDLE_SECONDS
        await send(model, client)
        assert model.connections == 2
        pool._idle[0].idle_since -= IDLE_SECONDS
        pool._sweep()
        assert pool._idle == []
    assert IDLE_SECONDS < 5


@pytest.mark.parametrize("request_", [GET, POST], ids=["GET", "POST"])
@on_both_loops
async def test_a_server_that_closes_an_old_connection_is_asked_again(request_: Request) -> None:
    async def once(reader: Reader, writer: Writer) -> None:
        await model.take(reader)
        writer.write(OK)
        await model.take(reader)  # and says nothing

    client = UpstreamClient()
    model = Model()
    model.scripts = [once, model.echo]
    async with modelled(model):
        await send(model, client, request_)
        assert (await send(model, client, request_)).body == b"ok"
        assert model.connections == 2
        assert [head for head, _ in model.seen] == [model.seen[0][0]] * 3
        client.close()


@on_both_loops
async def test_a_server_that_closes_a_new_connection_is_not_asked_again() -> None:
    client = UpstreamClient()
    model = Model()
    model.says(b"")
    async with modelled(model):
        with pytest.raises(BrokenError):
            await send(model, client)
        assert model.connections == 1


@on_both_loops
async def test_a_server_that_has_begun_its_answer_is_not_asked_again() -> None:
    async def once(reader: Reader, writer: Writer) -> None:
        await model.take(reader)
        writer.write(OK)
        await model.take(reader)
        writer.write(b"HTTP/1.1 2")

    client = UpstreamClient()
    model = Model()
    model.scripts = [once, model.echo]
    async with modelled(model):
        await send(model, client)
        with pytest.raises(BrokenError):
            await send(model, client)
        assert model.connections == 1


@on_both_loops
async def test_a_body_that_was_begun_is_not_sent_twice() -> None:
    async def once(reader: Reader, writer: Writer) -> None:
        await model.take(reader)
        writer.write(OK)
        await reader.readuntil(b"piece")

    client = UpstreamClient()
    model = Model()
    model.scripts = [once, model.echo]
    body = Pieces()
    body.queue.put_nowait(b"piece")
    async with modelled(model):
        await send(model, client)
        with pytest.raises(BrokenError):
            await client.begin(HOST, model.port, head_of("POST", chunked=True), body)
        assert model.connections == 1


CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"

BROKEN = {
    "nothing": b"",
    "no HTTP": b"+OK ready\r\n",
    "TLS": b"\x15\x03\x01\x00\x02\x02\x46",
    "half a head": b"HTTP/1.1 200 OK\r\nContent-",
    "half a body": b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf",
    "half a chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nhalf",
    "no last chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n",
    "length and coding": b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n" + CHUNKED,
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
    "an unknown coding": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nabc",
    "a coding before chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, " + CHUNKED[19:],
    "bare LF": b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
    "a status of four digits": b"HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n",
    "an endless head": b"HTTP/1.1 200 OK\r\nA: " + b"b" * (8 * MAX_HEAD_BYTES),
    "another protocol": b"HTTP/1.1 101 Go\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
    "another protocol, not named": b"HTTP/1.1 101 Go\r\n\r\n",
}


@pytest.mark.parametrize("answer", BROKEN.values(), ids=BROKEN.keys())
@on_both_loops
async def test_what_is_no_answer_is_an_error(answer: bytes) -> None:
    client = UpstreamClient()
    model = Model()
    model.says(answer)
    async with modelled(model):
        with pytest.raises(OSError, match=r"answer|closed|nobody"):
            await send(model, client)


@on_both_loops
async def test_where_nobody_listens_there_is_no_connection() -> None:
    async with modelled(Model()) as model:
        pass
    with pytest.raises(ConnectionRefusedError):
        await send(model, UpstreamClient())


@on_both_loops
async def test_time_is_limited_to_the_end_of_the_answer() -> None:
    client = UpstreamClient()
    model = Model()
    model.says(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", closes=False)
    async with modelled(model):
        with pytest.raises(TimeoutError):
            await client.send(HOST, model.port, GET, 0.05)
        pool = client._pool(HOST, model.port)
        assert pool._idle == []


@on_both_loops
async def test_bytes_that_nobody_asked_for_end_a_connection() -> None:
    async def twice(reader: Reader, writer: Writer) -> None:
        await model.take(reader)
        writer.write(OK)
        await model.take(reader)
        writer.write(OK + OK)
        await model.echo(reader, writer)

    client = UpstreamClient()
    model = Model()
    model.scripts = [twice, model.echo]
    async with modelled(model):
        await send(model, client)
        pool = client._pool(HOST, model.port)
        with pytest.raises(BrokenError):  # both in one packet
            await send(model, client)
        await until(lambda: pool._idle == [])
        assert (await send(model, client)).body == b"ok"
        assert model.connections == 2
        client.close()


@pytest.mark.parametrize(
    ("method", "answer"),
    [
        ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"),
        ("HEAD", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
        ("HEAD", b"HTTP/1.1 200 OK\r\n\r\n"),
        ("GET", b"HTTP/1.1 304 Same\r\nContent-Length: 9\r\n\r\n"),
        ("GET", b"HTTP/1.1 204 None\r\n\r\n"),
    ],
)
@on_both_loops
async def test_an_answer_without_a_body_leaves_the_connection_usable(
    method: str, answer: bytes
) -> None:
    async def serve(reader: Reader, writer: Writer) -> None:
        await model.take(reader)
        writer.write(answer)
        await model.echo(reader, writer)

    client = UpstreamClient()
    model = Model([serve])
    async with modelled(model):
        assert (await send(model, client, Request(method, "/", GET.headers, b""))).body == b""
        assert (await send(model, client)).body == b"ok"
        assert model.connections == 1
        client.close()


@on_both_loops
async def test_interim_answers_are_told_and_the_answer_follows() -> None:
    model = Model()
    model.says(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nLink: a\r\n\r\n" + OK)
    told = []
    async with modelled(model):
        answer = await UpstreamClient().begin(
            HOST, model.port, head_of(), b"", inform=lambda *interim: told.append(interim)
        )
        assert await answer.read_all() == b"ok"
    assert told == [(100, b"Continue", ()), (103, b"Hints", ((b"Link", b"a"),))]


@on_both_loops
async def test_trailers_go_both_ways() -> None:
    model = Model()
    model.says(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nSum: 2\r\n\r\n"
    )
    body = Pieces(trailers=((b"Sum", b"1"),))
    for piece in (b"ab", b"c", b""):
        body.queue.put_nowait(piece)
    client = UpstreamClient()
    async with modelled(model):
        answer = await client.begin(HOST, model.port, head_of("POST", chunked=True), body)
        assert await answer.read_all() == b"ok"
        assert answer.trailers == ((b"Sum", b"2"),)
        whole = head_of("POST", chunked=True)
        await client.begin(HOST, model.port, whole, b"abc", trailers=body.trailers)
    assert [body for _, body in model.seen] == [b"abcSum: 1\r\n"] * 2


@on_both_loops
async def test_an_early_answer_ends_the_sending() -> None:
    async def refuse(reader: Reader, writer: Writer) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 No\r\nContent-Length: 2\r\n\r\nno")
        await reader.read()

    body = Pieces()
    body.queue.put_nowait(b"x")
    client = UpstreamClient()
    before = asyncio.all_tasks()
    model = Model([refuse])
    async with modelled(model):
        answer = await client.begin(HOST, model.port, head_of("POST", length=9), body)
        assert await answer.read_all() == b"no"
        answer.abandon()
        await until(lambda: not (asyncio.all_tasks() - before - _serving()))
        assert client._pool(HOST, model.port)._idle == []


def _serving() -> set[asyncio.Task[object]]:
    return {t for t in asyncio.all_tasks() if "Model" in t.get_coro().__qualname__}  # type: ignore[union-attr]


@on_both_loops
async def test_neither_way_is_more_in_memory_than_is_wanted() -> None:
    size = 30_000_000
    go_on = asyncio.Event()

    async def serve(reader: Reader, writer: Writer) -> None:
        await go_on.wait()
        _, body = await read_message(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        await reader.read()

    class Endless(Pieces):
        taken = 0

        @override
        async def read(self) -> bytes:
            await asyncio.sleep(0)
            piece = b"x" * min(100_000, size - self.taken)
            self.taken += len(piece)
            return piece

    body = Endless()
    client = UpstreamClient()
    async with modelled(Model([serve])) as model:
        asking = asyncio.create_task(
            client.begin(HOST, model.port, head_of("POST", length=size), body)
        )
        pool = client._pool(HOST, model.port)
        previous = -1
        while body.taken != previous:
            previous = body.taken
            await asyncio.sleep(0.05)
        assert body.taken < size
        go_on.set()
        answer = await asking
        await until(lambda: answer._connection._paused)
        assert answer._buffered < 3 * BUFFERED_BYTES
        assert len(await answer.read_all(size)) == size
        assert len(pool._idle) == 1
        client.close()


@on_both_loops
async def test_who_stops_waiting_closes_the_connection() -> None:
    gone = asyncio.Event()

    async def serve(reader: Reader, writer: Writer) -> None:
        await model.take(reader)
        await reader.read()
        gone.set()

    client = UpstreamClient()
    model = Model([serve])
    async with modelled(model):
        asking = asyncio.create_task(send(model, client))
        await until(lambda: bool(model.seen))
        asking.cancel()
        async with asyncio.timeout(10):
            await gone.wait()


class Wire(asyncio.Transport):
    """A connection without a network."""

    def __init__(self) -> None:
        super().__init__()
        self.is_aborted = False

    @override
    def write(self, data: bytes | bytearray | memoryview) -> None:
        pass

    @override
    def is_closing(self) -> bool:
        return self.is_aborted

    @override
    def abort(self) -> None:
        self.is_aborted = True


@pytest.mark.parametrize("cancelled", [False, True])
async def test_a_connection_may_go_on_before_who_asked_first_does(cancelled: bool) -> None:
    """The steps of two tasks, in an order that a busy loop chooses now and then."""
    connection, wire = UpstreamConnection(_Pool(HOST, 1)), Wire()
    connection.connection_made(wire)
    first = connection.ask(head_of(), [b"1"], None, None)
    first.send(None)
    connection.data_received(OK)
    second = connection.ask(head_of(), [b"2"], None, None)
    second.send(None)
    if cancelled:
        with pytest.raises(asyncio.CancelledError):
            first.throw(asyncio.CancelledError())
    else:
        with pytest.raises(StopIteration) as stopped:
            first.send(None)
        assert stopped.value.value.read_nowait() == b"ok"
    connection.data_received(OK.replace(b"ok", b"ko"))
    with pytest.raises(StopIteration) as stopped:
        second.send(None)
    assert stopped.value.value.read_nowait() == b"ko"
    assert not wire.is_aborted


@settings(max_examples=150)
@given(
    pieces=st.lists(
        st.one_of(st.binary(max_size=40), st.sampled_from([*BROKEN.values(), OK])), max_size=5
    )
)
def test_whatever_a_server_says_is_an_answer_or_an_error(pieces: list[bytes]) -> None:
    problems: list[str] = []

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: problems.append(str(context)))
        client = UpstreamClient()
        model = Model()
        model.says(*pieces, OK)
        async with modelled(model):
            for _ in range(len(pieces) + 1):
                try:
                    await client.send(HOST, model.port, GET, 10)
                except OSError:
                    continue
        client.close()

    asyncio.run(scenario())
    assert problems == []
