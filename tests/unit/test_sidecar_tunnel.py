"""Websockets and HTTP/2 go through as bytes, or not at all where inputs must be valid."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from crossfade.sidecar.config import Config, Inputs
from crossfade.sidecar.contract import Contract
from crossfade.sidecar.framing import PREFACE
from crossfade.sidecar.looker import Looker
from crossfade.sidecar.metrics import Metrics
from crossfade.sidecar.proxy import Proxy
from crossfade.sidecar.room import Room, Rooms
from crossfade.sidecar.server import Server
from crossfade.sidecar.upstream import UpstreamClient
from tests.unit.wires import (
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

UPGRADE = (
    b"GET /chat HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n"
    b"Sec-WebSocket-Key: abc\r\n\r\n"
)
SWITCHED = b"HTTP/1.1 101 Sure\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nX-A: 1\r\n\r\n"


def proxy_of(model: Model, inputs: Inputs | None = None) -> Proxy:
    config = Config(
        namespace="ml",
        name="iris",
        model="iris",
        version="1",
        revision="iris-1",
        protocol="http",
        port=0,
        admin_port=0,
        model_port=model.port,
        inputs=inputs,
    )
    return Proxy(
        config,
        contract=Contract(config),
        features=None,
        predictions=None,
        chain=None,
        breaker=None,
        recorder=None,
        metrics=Metrics(config),
        client=UpstreamClient(),
        looker=Looker(),
        room=Room(1000),
    )


async def _shout(reader: Reader, writer: Writer) -> None:
    """Give back all that comes, in capitals, and then a word of farewell."""
    while piece := await reader.read(65536):
        writer.write(piece.upper())
        await writer.drain()
    writer.write(b"bye")
    writer.write_eof()


@on_both_loops
async def test_a_websocket_goes_through_byte_by_byte() -> None:
    async def accept(reader: Reader, writer: Writer) -> None:
        await model.take(reader)
        writer.write(SWITCHED + b"first")
        await _shout(reader, writer)

    model = Model([accept])
    async with (
        modelled(model),
        serving(proxy_of(model).handle) as server,
        dialled(server.port) as (reader, writer),
    ):
        writer.write(UPGRADE + b"early ")
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 Sure\r\nX-A: 1\r\n")
        assert b"connection: upgrade\r\nupgrade: websocket\r\n" in head
        writer.write(b"GET / HTTP/1.1\r\n\r\n\x00\xff")
        assert server.open_requests == 1
        assert len(server.connections) == 1  # it counts, and nothing cuts it off
        (connection,) = server.connections
        connection.sweep(asyncio.get_running_loop().time() + 1_000_000)
        writer.write_eof()
        assert await reader.read() == b"firstEARLY GET / HTTP/1.1\r\n\r\n\x00\xffbye"
        await until(lambda: server.open_requests == 0)
        assert not server.connections
    head, _ = model.seen[0]
    assert b"\r\nconnection: upgrade\r\nupgrade: websocket\r\n" in head
    assert b"Sec-WebSocket-Key: abc\r\n" in head
    assert b"keep-alive" not in head


@on_both_loops
async def test_a_model_that_wants_no_websocket_answers_as_ever() -> None:
    model = Model()
    async with (
        modelled(model),
        serving(proxy_of(model).handle) as server,
        dialled(server.port) as (reader, writer),
    ):
        writer.write(UPGRADE + b"GET /next HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await read_message(reader))[1] == b"ok"
        assert (await read_message(reader))[1] == b"ok"
    assert [head.split()[1] for head, _ in model.seen] == [b"/chat", b"/next"]


@pytest.mark.parametrize("which", ["client", "model"])
@on_both_loops
async def test_when_one_end_breaks_the_other_is_closed(which: str) -> None:
    ended = asyncio.Event()

    async def accept(reader: Reader, writer: Writer) -> None:
        await model.take(reader)
        writer.write(SWITCHED)
        await reader.readexactly(1)
        if which == "model":
            writer.transport.abort()
        else:
            await reader.read()
        ended.set()

    model = Model([accept])
    async with (
        modelled(model),
        serving(proxy_of(model).handle) as server,
        dialled(server.port) as (reader, writer),
    ):
        writer.write(UPGRADE)
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"x")
        if which == "client":
            writer.transport.abort()
        else:
            assert await reader.read() == b""
            writer.close()
        async with asyncio.timeout(10):
            await ended.wait()
        await until(lambda: server.open_requests == 0)


@on_both_loops
async def test_a_tunnel_holds_little() -> None:
    size = 40_000_000
    go_on = asyncio.Event()
    sent = 0

    async def accept(reader: Reader, writer: Writer) -> None:
        await model.take(reader)
        writer.write(SWITCHED)
        await go_on.wait()
        count = 0
        while piece := await reader.read(1_000_000):
            count += len(piece)
        writer.write(b"%d" % count)

    async def send(writer: Writer) -> None:
        nonlocal sent
        while sent < size:
            writer.write(b"x" * 100_000)
            sent += 100_000
            await writer.drain()
        writer.write_eof()

    model = Model([accept])
    async with (
        modelled(model),
        serving(proxy_of(model).handle) as server,
        dialled(server.port) as (reader, writer),
    ):
        writer.write(UPGRADE)
        await reader.readuntil(b"\r\n\r\n")
        sending = asyncio.create_task(send(writer))
        previous = -1
        while sent != previous:
            previous = sent
            await asyncio.sleep(0.05)
        assert sent < size
        go_on.set()
        assert await reader.read() == b"%d" % size
        await sending


def _served(proxy: Proxy) -> Server:
    return Server(proxy.handle, 1000, Rooms(1000), proxy.http2)


@pytest.mark.parametrize("cuts", [(), (1,), (3, 18), (23,)])
@on_both_loops
async def test_http2_goes_through_from_its_first_byte(cuts: tuple[int, ...]) -> None:
    model = Model([_shout])
    sent = PREFACE + b"\x00\x01frames"
    async with modelled(model):
        proxy = proxy_of(model)
        async with serving(proxy.handle, http2=proxy.http2) as server:
            async with dialled(server.port) as (reader, writer):
                begun = 0
                for end in (*cuts, len(sent)):
                    writer.write(sent[begun:end])
                    await writer.drain()
                    await asyncio.sleep(0.001)
                    begun = end
                await until(lambda: server.open_requests == 1)
                assert len(server.connections) == 1
                writer.write_eof()
                assert await reader.read() == sent.upper() + b"bye"
            await until(lambda: server.open_requests == 0)
            assert not server.connections


@on_both_loops
async def test_http2_without_a_model_ends() -> None:
    async with modelled(Model()) as model:
        pass
    proxy = proxy_of(model)
    async with serving(proxy.handle, http2=proxy.http2) as server:
        with suppress(ConnectionResetError):
            assert await said(server.port, PREFACE) == b""
        await until(lambda: server.open_requests == 0)


CONTRACTS = [
    Inputs(schema={}),
    Inputs(schema={}, on_violation="fallback"),
    Inputs(schema={}, paths=("/predict",)),
]


@pytest.mark.parametrize("inputs", CONTRACTS)
@on_both_loops
async def test_nothing_passes_unvalidated(inputs: Inputs) -> None:
    model = Model([_shout])
    async with modelled(model):
        proxy = proxy_of(model, inputs)
        async with serving(proxy.handle, http2=proxy.http2) as server:
            answer = await said(server.port, PREFACE)
            assert answer[3] == 4
            assert answer[12] == 7
            assert b"HTTP/1.1" in answer
            async with dialled(server.port) as (reader, writer):
                writer.write(UPGRADE)
                head, body = await read_message(reader)
            assert head.startswith(b"HTTP/1.1 403 ")
            assert b"websockets" in body
    assert model.connections == 0


@on_both_loops
async def test_a_contract_that_only_logs_lets_them_pass() -> None:
    async def accept(reader: Reader, writer: Writer) -> None:
        await model.take(reader)
        writer.write(SWITCHED + b"ok")

    model = Model([accept, _shout])
    async with modelled(model):
        proxy = proxy_of(model, Inputs(schema={}, on_violation="log"))
        async with serving(proxy.handle, http2=proxy.http2) as server:
            assert (await said(server.port, UPGRADE)).endswith(b"\r\n\r\nok")
            async with dialled(server.port) as (reader, writer):
                writer.write(PREFACE)
                writer.write_eof()
                assert await reader.read() == PREFACE.upper() + b"bye"


@on_both_loops
async def test_where_http2_is_not_passed_on_it_is_said_in_http1() -> None:
    async def handle(exchange: object) -> None:
        raise AssertionError

    async with serving(handle) as server:
        answer = await said(server.port, PREFACE)
    assert answer.startswith(b"HTTP/1.1 505 ")


@on_both_loops
async def test_a_switch_that_was_not_asked_for_is_an_error() -> None:
    model = Model()
    model.says(SWITCHED)
    async with modelled(model), serving(proxy_of(model).handle) as server:
        get = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        assert (await said(server.port, get)).startswith(b"HTTP/1.1 502 ")
        h2c = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, close\r\nUpgrade: h2c\r\n\r\n"
        assert (await said(server.port, h2c)).startswith(b"HTTP/1.1 502 ")
    assert all(b"pgrade" not in head for head, _ in model.seen)
