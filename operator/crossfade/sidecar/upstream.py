"""The side that faces servers: HTTP/1.1 connections to the model and to the targets of a fallback.

Connections are kept for the next request, but less long than servers keep theirs. If a server
closes one all the same just when a request is sent, the request goes once more, on a new one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, Protocol, cast

import httptools
from typing_extensions import override

from crossfade.sidecar.framing import (
    MAX_HEAD_BYTES,
    AnswerHead,
    RequestHead,
    has_no_body,
    read_answer_head,
    with_length,
    write_chunk,
    write_head,
    write_trailers,
)
from crossfade.sidecar.messages import Answer, Headers, Request, end_to_end

IDLE_SECONDS: Final = 4.0
"""How long a connection is kept without a request: uvicorn closes at 5 s (its
timeout_keep_alive), others later."""

CONNECT_SECONDS: Final = 3.0
"""Until there is a connection, with the name looked up. A lost SYN is sent again after 1 s."""

BUFFERED_BYTES: Final = 256 * 1024
"""More of an answer's body than this is not read from the connection before it is wanted."""

MAX_WHOLE_BYTES: Final = 64 * 1024 * 1024
"""Of an answer that is held whole in memory."""

Inform = Callable[[int, bytes, Headers], None]
"""Told of an interim answer: status, reason, headers."""


class Body(Protocol):
    """A request's body that may still be on its way."""

    @property
    def trailers(self) -> Headers:
        """What follows it."""
        ...

    async def read(self) -> bytes:
        """Return the next piece; b"": the end."""
        ...


class BrokenError(ConnectionError):
    """The server closed the connection, or what it said is no HTTP."""

    def __init__(self, message: str, *, may_retry: bool = False) -> None:
        super().__init__(message)
        self.may_retry = may_retry


class UpstreamAnswer:
    """An answer whose head is known; its body comes as it is read."""

    __slots__ = (
        "_buffered",
        "_connection",
        "_error",
        "_is_released",
        "_pieces",
        "_waiter",
        "complete",
        "head",
        "trailers",
    )

    def __init__(self, connection: UpstreamConnection, head: AnswerHead) -> None:
        self._connection = connection
        self._pieces: list[bytes] = []
        self._buffered = 0
        self._waiter: asyncio.Future[None] | None = None
        self._error: OSError | None = None
        self._is_released = False
        self.head = head
        self.complete = False
        """All of it has arrived."""
        self.trailers: Headers = ()

    async def read(self) -> bytes:
        """Return what has arrived since the last time; b"": the end.

        Raises:
            OSError: the connection broke.
        """
        while not self._pieces:
            if self._error is not None:
                raise self._error
            if self.complete:
                return b""
            self._connection.resume_reading()
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        piece = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        self._pieces.clear()
        self._buffered = 0
        return piece

    def read_nowait(self) -> bytes:
        """Return what is there; b"" if nothing is."""
        pieces, self._pieces = self._pieces, []
        self._buffered = 0
        return b"".join(pieces)

    async def read_all(self, limit: int = MAX_WHOLE_BYTES) -> bytes:
        """Return the whole body.

        Raises:
            OSError: the connection broke, or there is more.
        """
        pieces = []
        size = 0
        while piece := await self.read():
            pieces.append(piece)
            size += len(piece)
            if size > limit:
                self.abandon()
                raise BrokenError(f"the answer has more than {limit} bytes")
        return b"".join(pieces)

    def abandon(self) -> None:
        """Do without the rest, if there is one: the connection is closed."""
        if not self._is_released:
            self._connection.close()

    def detach(self) -> tuple[asyncio.Transport, bytes]:
        """Give the connection away, after status 101; returns what follows the head."""
        self._is_released = True
        return self._connection.detach()

    # For the connection.

    def take_piece(self, piece: bytes) -> None:
        """Add to the body."""
        self._pieces.append(piece)
        self._buffered += len(piece)
        if self._buffered > BUFFERED_BYTES:
            self._connection.pause_reading()
        self._wake()

    def finish(self, trailers: Headers) -> None:
        """Take note of the end."""
        self.trailers = trailers
        self.complete = True
        self._wake()

    def release(self) -> None:
        """Have nothing more to do with the connection."""
        self._is_released = True

    def fail(self, error: OSError) -> None:
        """Take note that there will be no end."""
        self._error = error
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class UpstreamConnection(asyncio.Protocol):
    """One connection, with one request at a time. llhttp's callbacks are named ``on_``."""

    __slots__ = (
        "_answer",
        "_drainer",
        "_fed",
        "_headers",
        "_inform",
        "_is_detached",
        "_is_new",
        "_is_sent",
        "_loop",
        "_may_switch",
        "_method",
        "_parser",
        "_paused",
        "_pool",
        "_pumping",
        "_reason",
        "_rest",
        "_silent",
        "_transport",
        "_waiter",
        "idle_since",
    )

    def __init__(self, pool: _Pool) -> None:
        self._pool = pool
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._waiter: asyncio.Future[UpstreamAnswer] | None = None
        self._answer: UpstreamAnswer | None = None
        self._headers: list[tuple[bytes, bytes]] = []
        self._reason = b""
        self._method = ""
        self._may_switch = False
        self._inform: Inform | None = None
        self._fed = 0
        self._silent = True  # no byte of an answer yet
        self._is_new = True
        self._is_sent = False
        self._is_detached = False
        self._paused = False
        self._drainer: asyncio.Future[None] | None = None
        self._pumping: asyncio.Task[None] | None = None
        self._rest = b""
        self.idle_since = 0.0

    # The transport's.

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    @override
    def data_received(self, data: bytes) -> None:
        if self._waiter is None and self._answer is None:
            self.close()  # nobody asked
            return
        self._silent = False
        self._fed += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._switch(data[upgrade.args[0] :])
        except httptools.HttpParserCallbackError as error:
            self._break(BrokenError(f"the answer is not understood: {error.__context__}"))
        except httptools.HttpParserError as error:
            self._break(BrokenError(f"the answer is no HTTP/1.1: {error}"))
        else:
            if self._fed > MAX_HEAD_BYTES:
                self._break(BrokenError(f"the answer's head has over {MAX_HEAD_BYTES} bytes"))
        self._settle()

    @override
    def eof_received(self) -> bool:
        return False

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self.resume_writing()
        self._pool.forget(self)
        answer = self._answer
        if answer is not None and exc is None and _ends_with_connection(answer.head, self._method):
            self._finish(answer)
            return
        may_retry = self._silent and not self._is_new
        self._break(BrokenError("the server closed the connection", may_retry=may_retry))

    @override
    def pause_writing(self) -> None:
        self._drainer = self._loop.create_future()

    @override
    def resume_writing(self) -> None:
        if self._drainer is not None and not self._drainer.done():
            self._drainer.set_result(None)
        self._drainer = None

    # For who sends.

    async def ask(
        self, head: RequestHead, data: bytes, body: Body | None, inform: Inform | None
    ) -> UpstreamAnswer:
        """Send a request, and return the answer when its head is there.

        Args:
            head: of the request.
            data: the head as bytes, and as much of the body as is known.
            body: the rest of it; None: there is none.
            inform: told of interim answers.

        Raises:
            BrokenError: there is no answer.
            RefusedError: from the body.
        """
        if self._transport is None:
            raise BrokenError("the server closed the connection", may_retry=not self._is_new)
        self._method = head.method
        self._may_switch = head.asks_for_websocket
        self._inform = inform
        self._silent = True
        self._is_sent = body is None
        self._fed = 0
        waiter: asyncio.Future[UpstreamAnswer] = self._loop.create_future()
        self._waiter = waiter
        self._transport.write(data)
        if body is not None:
            self._pumping = self._loop.create_task(self._pump(body, chunked=head.chunked))
            self._pumping.add_done_callback(self._pumped)
        try:
            return await waiter
        except asyncio.CancelledError:
            # With its answer the connection may have gone on to another request already.
            if self._waiter is waiter:
                self._waiter = None
                self.close()
            elif waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                waiter.result().abandon()
            raise

    def close(self) -> None:
        """Close at once, and take no more of the request's body."""
        if self._pumping is not None:
            self._pumping.cancel()
        if self._transport is not None:
            self._transport.abort()

    def detach(self) -> tuple[asyncio.Transport, bytes]:
        """Give the transport away."""
        transport = self._transport
        if transport is None:
            raise BrokenError("the server closed the connection")
        self._is_detached = True
        self._transport = None
        self._answer = None
        rest, self._rest = self._rest, b""
        return transport, rest

    def pause_reading(self) -> None:
        """Take no more of the answer."""
        if not self._paused and self.is_open and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Take more of the answer."""
        if self._paused and self.is_open and self._transport is not None:
            self._paused = False
            self._transport.resume_reading()

    @property
    def is_open(self) -> bool:
        """Tell whether it can be used."""
        return self._transport is not None and not self._transport.is_closing()

    async def _pump(self, body: Body, *, chunked: bool) -> None:
        """Send the rest of the request, as fast as the server takes it."""
        while piece := await body.read():
            if self._transport is None:
                return
            self._transport.write(write_chunk(piece) if chunked else piece)
            if self._drainer is not None:
                await self._drainer
        if self._transport is None:
            return
        if chunked:
            self._transport.write(write_trailers(body.trailers))
        self._pumping = None
        self._is_sent = True
        self._settle()

    def _pumped(self, pump: asyncio.Task[None]) -> None:
        error = None if pump.cancelled() else pump.exception()
        if self._pumping is not pump:
            return
        self._pumping = None
        if error is not None:
            self.close()
            self._refuse(error)

    # Parsing.

    def on_status(self, reason: bytes) -> None:
        """Take the reason, or a part of it."""
        self._reason += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header, or a trailer."""
        self._headers.append((name, value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        """Take the head."""
        parser = self._parser
        headers, self._headers = self._headers, []
        reason, self._reason = self._reason, b""
        status = parser.get_status_code()
        head = read_answer_head(status, reason, headers, parser.get_http_version())
        self._fed = 0
        if status < 200 and status != 101:  # noqa: PLR2004 - 1xx: an interim answer
            if self._inform is not None:
                self._inform(status, reason, head.headers)
            return
        if self._waiter is None or self._answer is not None:
            raise BrokenError("an answer too many")
        if status == 101 and not self._may_switch:  # noqa: PLR2004
            raise BrokenError("it switches to a protocol that nobody asked for")
        self._answer = UpstreamAnswer(self, head)

    def on_body(self, piece: bytes) -> None:
        """Take a piece of the body."""
        self._fed = 0
        if self._answer is not None and not has_no_body(self._method, self._answer.head.status):
            self._answer.take_piece(piece)

    def on_message_complete(self) -> None:
        """Take note of the end."""
        answer = self._answer
        if answer is not None and answer.head.status != 101:  # noqa: PLR2004 - see _switch
            trailers, self._headers = tuple(self._headers), []
            answer.finish(trailers)

    def _switch(self, rest: bytes) -> None:
        """The server speaks another protocol from here on."""
        self._rest = rest
        self.pause_reading()

    def _settle(self) -> None:
        """Hand out the answer whose head is there, and take the connection back after its end."""
        answer = self._answer
        if answer is None or self._is_detached:
            return
        ended_early = not answer.complete and has_no_body(self._method, answer.head.status)
        if ended_early and answer.head.status != 101:  # noqa: PLR2004
            # To a HEAD: llhttp waits for the body that the head speaks of.
            self._parser = httptools.HttpResponseParser(self)
            answer.finish(())
        self._hand_out(answer)
        if answer.complete:
            self._finish(answer)

    def _finish(self, answer: UpstreamAnswer) -> None:
        if not answer.complete:
            answer.finish(())
        self._hand_out(answer)
        if answer.head.closes or _ends_with_connection(answer.head, self._method):
            self._answer = None
            answer.release()
            self.close()
        elif self._is_sent:
            self._answer = None
            answer.release()
            self._is_new = False
            self.resume_reading()
            self._pool.put(self)

    def _break(self, error: BrokenError) -> None:
        answer, self._answer = self._answer, None
        if self._pumping is not None:
            self._pumping.cancel()
        if answer is not None and not answer.complete:
            answer.fail(error)
        self._refuse(error)
        self.close()

    def _hand_out(self, answer: UpstreamAnswer) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(answer)

    def _refuse(self, error: BaseException) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_exception(error)


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
        data = write_head(line, head.headers, more)
        rest: Body | None = None
        if not isinstance(body, bytes):
            rest = body
        elif head.chunked:
            data += (write_chunk(body) if body else b"") + write_trailers(trailers)
        else:
            data += body
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
        async with asyncio.timeout(timeout):
            answer = await self.begin(host, port, head, request.body)
            try:
                body = await answer.read_all()
            finally:
                answer.abandon()
        return Answer(answer.head.status, answer.head.headers, body)

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


def _ends_with_connection(head: AnswerHead, method: str) -> bool:
    return head.length is None and not head.chunked and not has_no_body(method, head.status)
