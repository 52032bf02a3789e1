"""One HTTP/1.1 connection to a server, and the answer that comes from it, parsed by llhttp."""

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
    write_chunk,
    write_trailers,
)
from crossfade.sidecar.messages import Headers

BUFFERED_BYTES: Final = 256 * 1024
"""More of an answer's body than this is not read from the connection before it is wanted."""

HELD_BYTES: Final = 1024 * 1024
"""With a fallback, answers up to this size are sent when they are whole; see ADR 7."""

MAX_WHOLE_BYTES: Final = 16 * 1024 * 1024
"""Of an answer that is held whole in memory: to the golden request, or a short one."""

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


class Pool(Protocol):
    """Where connections go that have nothing to do."""

    def put(self, connection: UpstreamConnection) -> None:
        """Take one for later."""
        ...

    def forget(self, connection: UpstreamConnection) -> None:
        """Have no more to do with one that is closed."""
        ...


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

    @property
    def is_short(self) -> bool:
        """Tell whether it is one to wait for until it is whole, by what it says of itself."""
        length = self.head.length
        return length is not None and length <= HELD_BYTES and not _is_event_stream(self.head)

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
        "_has_more",
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

    def __init__(self, pool: Pool) -> None:
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
        self._has_more = False  # something follows the answer that nobody asked for
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
        self, head: RequestHead, data: list[bytes], body: Body | None, inform: Inform | None
    ) -> UpstreamAnswer:
        """Send a request, and return the answer when its head is there.

        Args:
            head: of the request.
            data: the head as bytes, and as much of the body as is known; none of it is copied.
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
        if len(data) == 1:
            self._transport.write(data[0])
        else:
            self._transport.writelines(data)
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

    def on_message_begin(self) -> None:
        """Take note of what follows an answer: it must not be the beginning of the next one."""
        self._has_more = self._answer is not None

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
        closes = answer.head.closes or self._has_more
        if closes or _ends_with_connection(answer.head, self._method):
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


def _is_event_stream(head: AnswerHead) -> bool:
    return any(
        name.lower() == b"content-type" and value.lower().startswith(b"text/event-stream")
        for name, value in head.headers
    )


def _ends_with_connection(head: AnswerHead, method: str) -> bool:
    return head.length is None and not head.chunked and not has_no_body(method, head.status)
