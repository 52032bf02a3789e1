"""The side that faces servers: HTTP/1.1 connections to the model and to the targets of a fallback.

Connections are kept for the next request, but less long than servers keep theirs. If a server
closes one all the same just when a request is sent, the request goes once more, on a new one.
"""

from __future__ import annotations

import asyncio
from typing import Final

from crossfade.sidecar.framing import (
    RequestHead,
    with_length,
    write_chunk,
    write_head,
    write_trailers,
)
from crossfade.sidecar.messages import Answer, Headers, Request, end_to_end
from crossfade.sidecar.upstream_connection import (
    Body,
    BrokenError,
    Inform,
    UpstreamAnswer,
    UpstreamConnection,
)

IDLE_SECONDS: Final = 4.0
"""How long a connection is kept without a request: uvicorn closes at 5 s (its
timeout_keep_alive), others later."""

COPIED_BYTES: Final = 64 * 1024
"""A whole body up to this size is sent in one piece with its head; of a larger one a copy would
take as much memory again."""

CONNECT_SECONDS: Final = 3.0
"""Until there is a connection, with the name looked up. A lost SYN is sent again after 1 s."""


class _Pool:
    """The connections to one server that have nothing to do, the one used last first."""

    def __init__(self, host: str, port: int) -> None:
        self._host = host
        self._port = port
        self._idle: list[UpstreamConnection] = []
        self._sweeper: asyncio.TimerHandle | None = None

    async def take(self, *, fresh: bool = False) -> UpstreamConnection:
        """Return a connection.

        Raises:
            OSError: there is none to be had.
        """
        loop = asyncio.get_running_loop()
        oldest = loop.time() - IDLE_SECONDS
        while self._idle and not fresh:
            connection = self._idle.pop()
            if connection.is_open and connection.idle_since > oldest:
                return connection
            connection.close()
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                _, made = await loop.create_connection(
                    lambda: UpstreamConnection(self), self._host, self._port
                )
        except TimeoutError:
            raise ConnectionError(f"no connection in {CONNECT_SECONDS:g} s") from None
        return made

    def put(self, connection: UpstreamConnection) -> None:
        """Keep a connection for a while."""
        loop = asyncio.get_running_loop()
        connection.idle_since = loop.time()
        self._idle.append(connection)
        if self._sweeper is None:
            self._sweeper = loop.call_later(IDLE_SECONDS, self._sweep)

    def forget(self, connection: UpstreamConnection) -> None:
        """Do not use a connection any more."""
        if connection in self._idle:
            self._idle.remove(connection)

    def close(self) -> None:
        """Close those that have nothing to do."""
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        for connection in self._idle:
            connection.close()
        self._idle.clear()

    def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        oldest = loop.time() - IDLE_SECONDS
        self._sweeper = None
        kept = []
        for connection in self._idle:
            if connection.idle_since > oldest:
                kept.append(connection)
            else:
                connection.close()
        self._idle = kept
        if kept:
            self._sweeper = loop.call_at(kept[0].idle_since + IDLE_SECONDS, self._sweep)


class UpstreamClient:
    """Sends requests to servers; of each it keeps a few connections."""

    def __init__(self) -> None:
        self._pools: dict[tuple[str, int], _Pool] = {}

    async def begin(
        self,
        host: str,
        port: int,
        head: RequestHead,
        body: bytes | Body,
        *,
        trailers: Headers = (),
        more: bytes = b"",
        inform: Inform | None = None,
    ) -> UpstreamAnswer:
        """Send a request as it came, and return the answer when its head is there.

        Args:
            host: a name or an address.
            port: of the server.
            head: as read from the client.
            body: as bytes where it is whole, or as it comes.
            trailers: what follows it, where it is whole.
            more: header lines of the connection.
            inform: told of interim answers.

        Raises:
            OSError: no connection, or no answer.
            RefusedError: from the body.
        """
        if head.chunked:
            more += b"transfer-encoding: chunked\r\n"
        if head.takes_trailers:
            more += b"te: trailers\r\nconnection: te\r\n"
        line = f"{head.method} {head.target} HTTP/1.1\r\n".encode("ascii")
        data = [write_head(line, head.headers, more)]
        rest: Body | None = None
        if not isinstance(body, bytes):
            rest = body
        elif len(body) > COPIED_BYTES:
            data += (b"%x\r\n" % len(body), body, b"\r\n") if head.chunked else (body,)
        elif body:
            data[0] += write_chunk(body) if head.chunked else body
        if rest is None and head.chunked:
            data[-1] += write_trailers(trailers)
        counted = _Counted(rest) if rest is not None else None
        pool = self._pool(host, port)
        connection = await pool.take()
        try:
            return await connection.ask(head, data, counted, inform)
        except BrokenError as error:
            if not error.may_retry or (counted is not None and counted.is_begun):
                raise
        connection = await pool.take(fresh=True)
        return await connection.ask(head, data, counted, inform)

    async def send(self, host: str, port: int, request: Request, timeout: float) -> Answer:  # noqa: ASYNC109 - messages.Client
        """Send a whole request and return the whole answer; see messages.Client."""
        async with asyncio.timeout(timeout):
            answer = await self.open(host, port, request)
            try:
                body = await answer.read_all()
            finally:
                answer.abandon()
        return Answer(answer.head.status, answer.head.headers, body)

    async def open(self, host: str, port: int, request: Request) -> UpstreamAnswer:
        """Send a whole request and return the answer when its head is there.

        Raises:
            OSError: no connection, or no answer.
        """
        headers = end_to_end(request.headers)
        if request.body or any(name.lower() == b"content-length" for name, _ in headers):
            headers = with_length(headers, len(request.body))
        head = RequestHead(
            method=request.method,
            target=request.target,
            headers=headers,
            is_http_11=True,
            closes=False,
            length=len(request.body),
            chunked=False,
            expects_continue=False,
            asks_for_websocket=False,
            takes_trailers=False,
        )
        return await self.begin(host, port, head, request.body)

    def close(self) -> None:
        """Close the connections that have nothing to do."""
        for pool in self._pools.values():
            pool.close()

    def _pool(self, host: str, port: int) -> _Pool:
        pool = self._pools.get((host, port))
        if pool is None:
            pool = self._pools[host, port] = _Pool(host, port)
        return pool


class _Counted:
    """A body that knows whether any of it was taken."""

    def __init__(self, body: Body) -> None:
        self._body = body
        self.is_begun = False

    @property
    def trailers(self) -> Headers:
        return self._body.trailers

    async def read(self) -> bytes:
        piece = await self._body.read()
        self.is_begun = True
        return piece
