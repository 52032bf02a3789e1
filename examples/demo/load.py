"""A load generator that accounts for every request exactly once.

Arrivals are open-loop: request *i* is due at `start + i / rate` whatever became of those before it,
so a server that stalls is seen as it is by users who do not wait for one another. Latency counts
from when a request was due. Nothing is retried: a retry would hide a lost request. What is sent is
bounded in count and time by construction: `rate * seconds`, known before the first.

A kept-alive connection that the server has closed is found before it is used, not by using it:
    * its end is read by the event loop, or by a look at the socket just before sending;
    * one that was idle for `IDLE_SECONDS` is closed here, sooner than servers do.

Standard library only, and without the rest of this repository: it also runs inside a pod. Knows
HTTP, and nothing of models or clusters: what an answer says is read by the caller's `read`.
"""

from __future__ import annotations

import asyncio
import json
import select
import socket
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from examples.demo.http1 import Response, header, parse_response
from examples.demo.stats import LOST_BY_STATUS, NO_READING, Fate, Reading, Record, Stats

if TYPE_CHECKING:
    from typing_extensions import override
else:

    def override(method: Callable[..., Any]) -> Callable[..., Any]:
        """Stand in for `typing.override`, which Python 3.11 lacks."""
        return method


IDLE_SECONDS: Final = 4.0
"""Connections that were idle for longer are not used again.

Shorter than what servers allow by default, the shortest known here being uvicorn's 5 s
(https://www.uvicorn.org/settings/#timeouts), so that both ends do not decide at the same moment.
"""

TICK_SECONDS: Final = 0.001
"""Arrivals that are due within one tick are sent together."""

LOOK_SECONDS: Final = 0.05
"""How often, at least, time-outs and `stop` are looked at."""


def read_version(_index: int, response: Response) -> Reading:
    """Read the version from the header `x-model-version`, else from `model_version` in the body.

    The default of `run_load`. It judges no answer.
    """
    if version := header(response.head, b"x-model-version"):
        return Reading(version.decode("latin-1"))
    with suppress(ValueError):
        document = json.loads(response.body)
        if isinstance(document, dict):
            return Reading(str(document.get("model_version", "")))
    return Reading("")


class _Request:
    """One request that is due, until its fate is known."""

    __slots__ = ("connection", "due", "index", "is_done")

    def __init__(self, index: int, due: float) -> None:
        self.index = index
        self.due = due
        """When, by the event loop's clock."""
        self.connection: _Connection | None = None
        self.is_done = False


class _Connection(asyncio.Protocol):
    """A connection with at most one request on it."""

    def __init__(self, run: _Run) -> None:
        self._run = run
        self._received = bytearray()
        self._transport: asyncio.Transport | None = None
        self._poll = select.poll()
        self.request: _Request | None = None
        self.idle_since = 0.0

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - that is what TCP gives
        self._transport = transport
        self._poll.register(transport.get_extra_info("socket").fileno(), select.POLLIN)

    def send(self, request: _Request, message: bytes) -> None:
        """Send a request, whose fate this connection then settles."""
        if self._transport is None or self._transport.is_closing():
            # Accepted, and closed before there was anything to answer.
            self._run.lose(request, Fate.RESET)
            return
        self.request, request.connection = request, self
        self._transport.write(message)

    def is_usable(self, now: float) -> bool:
        """Whether it is open, was not idle for long, and has nothing to be read.

        What could be read on an idle connection is its end: the event loop may not have come to
        it yet.
        """
        if self._transport is None or self._transport.is_closing():
            return False
        return now - self.idle_since < IDLE_SECONDS and not self._poll.poll(0)

    def close(self) -> None:
        """Close it now; an outstanding answer no longer matters."""
        self.request = None
        if self._transport is not None:
            self._transport.abort()

    @override
    def data_received(self, data: bytes) -> None:
        self._received += data
        self._look(ended=False)

    @override
    def eof_received(self) -> None:
        self._look(ended=True)

    @override
    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - its name is fixed
        self._transport = None
        self._run.connections.discard(self)
        if request := self.request:
            self.request = None
            self._run.lose(request, Fate.RESET)
        self._run.send_waiting()

    def _look(self, *, ended: bool) -> None:
        request = self.request
        if request is None:
            self.close()
            return
        try:
            response = parse_response(self._received, ended=ended)
        except ValueError:
            self.close()
            self._run.lose(request, Fate.MALFORMED)
            return
        if response is None:
            return
        self._received.clear()
        self.request = None
        self._run.answer(request, response)
        if response.keep_alive and not ended:
            self._run.release(self)
        else:
            self.close()


@dataclass(frozen=True, slots=True)
class Load:
    """What is asked of one run."""

    host: str
    """Name or address that is connected to; a name is resolved once."""
    port: int
    path: str
    host_header: str
    rate_per_second: float
    seconds: float
    """How long requests become due. The run takes up to `timeout_seconds` longer."""
    body: Callable[[int], bytes]
    """Makes the body of request *i*."""
    read: Callable[[int, Response], Reading] = read_version
    """Reads answer *i*, errors included; a `ValueError` makes it a loss, `MALFORMED`."""
    concurrency: int = 64
    """The most connections. Requests that find all busy wait for one: see `Fate.UNSENT`."""
    timeout_seconds: float = 5.0
    """From when a request is due."""


class _Run:
    """The state of one run."""

    def __init__(self, load: Load, stats: Stats) -> None:
        self.connections: set[_Connection] = set()
        """Those that are open, or being opened."""
        self._load = load
        self._stats = stats
        self._loop = asyncio.get_running_loop()
        self._epoch = time.time() - self._loop.time()
        self._idle: list[_Connection] = []
        self._connecting: set[asyncio.Task[None]] = set()
        self._waiting: deque[_Request] = deque()
        self._pending: deque[_Request] = deque()
        """Requests in the order in which they were due, and so in which they time out."""
        self._address: tuple[str, int] = (load.host, load.port)
        self._head = (
            f"POST {load.path} HTTP/1.1\r\nhost: {load.host_header}\r\n"
            "content-type: application/json\r\ncontent-length: "
        ).encode("latin-1")

    async def go(self, stop: asyncio.Event) -> None:
        """Send all, and return when all fates are known."""
        load, loop = self._load, self._loop
        found = await loop.getaddrinfo(load.host, load.port, type=socket.SOCK_STREAM)
        self._address = str(found[0][4][0]), load.port
        total = round(load.rate_per_second * load.seconds)
        begin = loop.time()
        try:
            while self._stats.scheduled < total and not stop.is_set():
                now = loop.time()
                due = min(total, int((now - begin) * load.rate_per_second) + 1)
                for index in range(self._stats.scheduled, due):
                    self._arrive(_Request(index, begin + index / load.rate_per_second))
                self._expire(now)
                wait = begin + due / load.rate_per_second - loop.time()
                await asyncio.sleep(min(max(TICK_SECONDS, wait), LOOK_SECONDS))
            while self._pending:
                self._expire(loop.time())
                await asyncio.sleep(10 * TICK_SECONDS)
        finally:
            await self._close()

    def answer(self, request: _Request, response: Response) -> None:
        """Settle a request that was answered."""
        try:
            reading = self._load.read(request.index, response)
        except ValueError:
            self._settle(request, Fate.MALFORMED, response.status)
            return
        fate = LOST_BY_STATUS.get(response.status, Fate.ANSWERED)
        self._settle(request, fate, response.status, reading)

    def lose(self, request: _Request, fate: Fate) -> None:
        """Settle a request that was not answered."""
        self._settle(request, fate, 0)

    def release(self, connection: _Connection) -> None:
        """Take back a connection whose answer has come."""
        connection.idle_since = self._loop.time()
        self._idle.append(connection)
        self.send_waiting()

    def send_waiting(self) -> None:
        """Send what waited for a connection, as far as there are connections now."""
        while self._waiting:
            request = self._waiting[0]
            if not request.is_done and not self._start(request):
                return
            self._waiting.popleft()

    def _arrive(self, request: _Request) -> None:
        self._stats.scheduled += 1
        self._pending.append(request)
        if not self._start(request):
            self._waiting.append(request)

    def _start(self, request: _Request) -> bool:
        """Send a request, or begin to connect for it; False if all connections are busy."""
        now = self._loop.time()
        # The one used last first: the others grow old, and are closed before the server does.
        while self._idle:
            connection = self._idle.pop()
            if connection.is_usable(now):
                connection.send(request, self._message(request))
                return True
            connection.close()
        if len(self.connections) >= self._load.concurrency:
            return False
        connection = _Connection(self)
        self.connections.add(connection)
        task = self._loop.create_task(self._connect(connection, request))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)
        return True

    async def _connect(self, connection: _Connection, request: _Request) -> None:
        host, port = self._address
        left = request.due + self._load.timeout_seconds - self._loop.time()
        try:
            async with asyncio.timeout(left):
                await self._loop.create_connection(lambda: connection, host, port)
        except OSError:  # TimeoutError is one
            self.connections.discard(connection)
            self.lose(request, Fate.CONNECT)
            self.send_waiting()
            return
        connection.idle_since = self._loop.time()
        if request.is_done:
            self.release(connection)
        else:
            connection.send(request, self._message(request))

    def _message(self, request: _Request) -> bytes:
        body = self._load.body(request.index)
        return b"%b%d\r\n\r\n%b" % (self._head, len(body), body)

    def _expire(self, now: float) -> None:
        """Settle the requests whose time is over, and close what was idle for too long."""
        while self._idle and not self._idle[0].is_usable(now):
            self._idle.pop(0).close()
        pending, timeout = self._pending, self._load.timeout_seconds
        while pending and (pending[0].is_done or now - pending[0].due >= timeout):
            request = pending.popleft()
            if request.is_done:
                continue
            if request.connection is not None:
                request.connection.close()
                self.lose(request, Fate.TIMEOUT)
            else:
                self.lose(request, Fate.UNSENT if request in self._waiting else Fate.CONNECT)

    def _settle(
        self, request: _Request, fate: Fate, status: int, reading: Reading = NO_READING
    ) -> None:
        if request.is_done:
            return
        request.is_done = True
        request.connection = None
        self._stats.add(
            Record(
                due_at=self._epoch + request.due,
                seconds=self._loop.time() - request.due,
                fate=fate,
                status=status,
                version=reading.version,
                judgement=reading.judgement,
            )
        )

    async def _close(self) -> None:
        self._waiting.clear()
        for task in tuple(self._connecting):
            task.cancel()
        await asyncio.gather(*self._connecting, return_exceptions=True)
        for connection in tuple(self.connections):
            connection.close()
        # Transports end at the next turn of the loop.
        await asyncio.sleep(0)


async def run_load(
    load: Load, *, stop: asyncio.Event | None = None, stats: Stats | None = None
) -> Stats:
    """Send a load and return what became of every request.

    Args:
        load: What to send.
        stop: Ends the arrivals early when set; requests on their way are still waited for.
        stats: Filled while the load runs, for those who want to watch; by default a new one.

    Returns:
        The statistics: `len(stats) == stats.scheduled`.

    Raises:
        OSError: The host's name cannot be resolved.
    """
    stats = Stats() if stats is None else stats
    await _Run(load, stats).go(stop or asyncio.Event())
    return stats
