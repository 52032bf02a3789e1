"""The side that faces clients: listens, counts what is open, and ends in order."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, Protocol

from crossfade.sidecar.connection import Connection
from crossfade.sidecar.exchange import Exchange
from crossfade.sidecar.messages import Answer, Request
from crossfade.sidecar.room import Rooms

QUIET_SECONDS: Final = 1.0
"""A drain is over when no request has come for so long: who sends here learns of the pod's end
later than the pod, and a connection that is closed meanwhile may have a request on its way."""

SWEEP_SECONDS: Final = 1.0
"""How often connections are looked at for what has taken too long."""


class Handler(Protocol):
    """What answers."""

    async def __call__(self, exchange: Exchange) -> None:
        """Answer one request. Cancelled when the client goes away."""
        ...


Http2Handler = Callable[[asyncio.Transport, bytes], Coroutine[Any, Any, None]]
"""Takes a connection over, with what was read of it, and returns when it is done with it."""


class Server:
    """Listens, counts what is open, and ends in order."""

    def __init__(
        self,
        handler: Handler,
        max_body_bytes: int,
        rooms: Rooms,
        http2: Http2Handler | None = None,
    ) -> None:
        """Not yet listening.

        Args:
            handler: answers.
            max_body_bytes: larger bodies are answered with 413.
            rooms: where bodies are held.
            http2: takes connections that speak HTTP/2; None: they are refused.
        """
        self.handler = handler
        self.max_body_bytes = max_body_bytes
        self.rooms = rooms
        self.http2 = http2
        self.connections: set[Connection] = set()
        """Those that were given away are among them, until who has them is done."""
        self.open_requests = 0
        self.is_draining = False
        self._last_begun = 0.0
        self._nothing_open = asyncio.Event()
        self._listening: asyncio.Server | None = None
        self._sweeper: asyncio.TimerHandle | None = None

    async def start(self, host: str | None, port: int) -> None:
        """Listen; host None: on all addresses."""
        loop = asyncio.get_running_loop()
        self._listening = await loop.create_server(
            lambda: Connection(self), host, port, backlog=1024
        )
        self._sweep()

    @property
    def port(self) -> int:
        """The port, where 0 was asked for."""
        assert self._listening is not None  # noqa: S101 - start() comes first
        return int(self._listening.sockets[0].getsockname()[1])

    def begin_drain(self) -> None:
        """Let each answer from now on end its connection; what is sent here is still answered."""
        self.is_draining = True

    async def drained(self, seconds: float) -> bool:
        """Wait until nobody sends here any more, at most so long.

        Returns:
            Whether no request is under way.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        self._last_begun = loop.time()
        try:
            async with asyncio.timeout_at(deadline):
                while self.open_requests or loop.time() < self._last_begun + QUIET_SECONDS:
                    self._nothing_open.clear()
                    if self.open_requests:
                        await self._nothing_open.wait()
                    await asyncio.sleep(self._last_begun + QUIET_SECONDS - loop.time())
        except TimeoutError:
            pass
        return self.open_requests == 0

    async def close(self) -> None:
        """Stop listening, and close the connections without a request under way."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        if self._listening is not None:
            self._listening.close()
        for connection in tuple(self.connections):
            connection.close_if_idle()

    def begin(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Begin with a request, and count it until its task is done, be it before it ran."""
        loop = asyncio.get_running_loop()
        task = loop.create_task(work)
        task.add_done_callback(self._ended)
        self.open_requests += 1
        self._last_begun = loop.time()
        return task

    def _ended(self, _: asyncio.Task[None]) -> None:
        self.open_requests -= 1
        if not self.open_requests:
            self._nothing_open.set()

    def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        for connection in tuple(self.connections):
            connection.sweep(now)
        self._sweeper = loop.call_later(SWEEP_SECONDS, self._sweep)


def whole(handler: Callable[[Request], Awaitable[Answer]]) -> Handler:
    """Return a handler of exchanges from one of whole requests."""

    async def handle(exchange: Exchange) -> None:
        head = exchange.head
        body = await exchange.read_all()
        exchange.answer(await handler(Request(head.method, head.target, head.headers, body)))

    return handle


async def serve(
    handler: Callable[[Request], Awaitable[Answer]],
    host: str | None,
    port: int,
    max_body_bytes: int,
    rooms: Rooms,
) -> Server:
    """Listen, and answer whole requests."""
    server = Server(whole(handler), max_body_bytes, rooms)
    await server.start(host, port)
    return server
