"""Raw HTTP over loopback, for the tests of the sidecar's proxy, byte by byte."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, ParamSpec, cast

import uvloop

from crossfade.sidecar.framing import AnswerHead
from crossfade.sidecar.messages import Answer
from crossfade.sidecar.room import Rooms
from crossfade.sidecar.server import Handler, Http2Handler, Server
from crossfade.sidecar.upstream_connection import UpstreamAnswer

MAX_BODY = 1_000_000
PATIENCE = 20.0
"""Seconds after which a test that waits has failed."""

Arguments = ParamSpec("Arguments")


def on_both_loops(
    test: Callable[Arguments, Coroutine[Any, Any, None]],
) -> Callable[Arguments, None]:
    """Run a test on uvloop, as the sidecar does, and on asyncio's: their edges differ."""

    @functools.wraps(test)
    def run(*args: Arguments.args, **kwargs: Arguments.kwargs) -> None:
        for make_loop in (uvloop.new_event_loop, asyncio.new_event_loop):
            with asyncio.Runner(loop_factory=make_loop) as runner:
                runner.run(test(*args, **kwargs))

    return run


Reader = asyncio.StreamReader
Writer = asyncio.StreamWriter


@asynccontextmanager
async def serving(
    handler: Handler, *, max_body: int = MAX_BODY, http2: Http2Handler | None = None
) -> AsyncIterator[Server]:
    server = Server(handler, max_body, Rooms(max_body), http2)
    await server.start("127.0.0.1", 0)
    try:
        yield server
    finally:
        await server.close()


@asynccontextmanager
async def dialled(port: int) -> AsyncIterator[tuple[Reader, Writer]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**24)
    try:
        async with asyncio.timeout(PATIENCE):
            yield reader, writer
    finally:
        writer.close()
        await asyncio.gather(writer.wait_closed(), return_exceptions=True)


async def said(port: int, sent: bytes) -> bytes:
    """Send bytes and return all that comes until the other side closes."""
    async with dialled(port) as (reader, writer):
        writer.write(sent)
        return await reader.read()


async def read_message(reader: Reader) -> tuple[bytes, bytes]:
    """Return a message's head and its body, by its Content-Length or its chunks, with trailers."""
    head = await reader.readuntil(b"\r\n\r\n")
    lower = head.lower()
    if b"transfer-encoding: chunked" in lower:
        body = b""
        while True:
            size = await reader.readuntil(b"\r\n")
            if int(size, 16) == 0:
                return head, body + b"".join(await _lines(reader))
            body += await reader.readexactly(int(size, 16))
            await reader.readexactly(2)
    length = 0
    for line in lower.split(b"\r\n"):
        if line.startswith(b"content-length:"):
            length = int(line.partition(b":")[2])
    return head, await reader.readexactly(length)


async def _lines(reader: Reader) -> list[bytes]:
    lines = []
    while (line := await reader.readuntil(b"\r\n")) != b"\r\n":
        lines.append(line)
    return lines


def arrived(answer: Answer) -> UpstreamAnswer:
    """Return a whole answer as a connection gives it."""
    head = AnswerHead(
        answer.status, b"", answer.headers, len(answer.body), chunked=False, closes=False
    )
    made = UpstreamAnswer(cast("Any", None), head)
    made.release()
    if answer.body:
        made.take_piece(answer.body)
    made.finish(())
    return made


OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"

Script = Callable[[Reader, Writer], Awaitable[None]]


@dataclass
class Model:
    """A server that does exactly what the test says: one script for each connection, in order.

    The last script is used again. Without one it answers every message with OK.
    """

    scripts: list[Script] = field(default_factory=list)
    seen: list[tuple[bytes, bytes]] = field(default_factory=list)
    """Heads and bodies."""
    connections: int = 0
    port: int = 0

    async def _serve(self, reader: Reader, writer: Writer) -> None:
        number = self.connections
        self.connections += 1
        script = self.scripts[min(number, len(self.scripts) - 1)] if self.scripts else self.echo
        try:
            await script(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def echo(self, reader: Reader, writer: Writer) -> None:
        while True:
            await self.take(reader)
            writer.write(OK)

    async def take(self, reader: Reader) -> tuple[bytes, bytes]:
        message = await read_message(reader)
        self.seen.append(message)
        return message

    def says(self, *answers: bytes, closes: bool = True) -> None:
        """Answer each connection's first message with one of these, then close or wait."""

        def script(answer: bytes) -> Script:
            async def one(reader: Reader, writer: Writer) -> None:
                await self.take(reader)
                writer.write(answer)
                await writer.drain()
                if not closes:
                    await reader.read()

            return one

        self.scripts += [script(answer) for answer in answers]


@asynccontextmanager
async def modelled(model: Model) -> AsyncIterator[Model]:
    server = await asyncio.start_server(model._serve, "127.0.0.1", model.port, limit=2**17)
    model.port = server.sockets[0].getsockname()[1]
    try:
        yield model
    finally:
        server.close()
        for task in asyncio.all_tasks():
            if task.get_coro().__qualname__ == "Model._serve":  # type: ignore[union-attr]
                task.cancel()


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop run until something is so."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - of things that have no event
            await asyncio.sleep(0.001)
