"""A request and the answer to it, as whoever answers sees them: read here, written here.

A body is read only as fast as it is wanted, and an answer written only as fast as the client reads.
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Final, Protocol

from crossfade.sidecar.framing import (
    RefusedError,
    RequestHead,
    has_no_body,
    with_length,
    write_chunk,
    write_head,
    write_trailers,
)
from crossfade.sidecar.messages import HOP_BY_HOP, Answer, Headers
from crossfade.sidecar.room import SMALL_BYTES, Place, Rooms

BUFFERED_BYTES: Final = 256 * 1024
"""More of a body than this is not read from the connection before it is wanted."""

BODY_SECONDS: Final = 30.0
"""How long a body may stand still while it is waited for, and be waited for in all, beside the
time that it has by its size."""

LEAST_RATE: Final = 500
"""Bytes a second that a body must come with, as in Apache's mod_reqtimeout: less than any stream of
sound or pictures has."""

LEAST_HELD_RATE: Final = 32 * 1024
"""That of a body which takes up memory: the largest, of 10 MiB, has six minutes, about what Envoy's
documentation advises for a whole request (300 s)."""

_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


class ClientGoneError(ConnectionError):
    """There is nobody any more to write to."""


class Line(Protocol):
    """What an exchange needs of its connection."""

    @property
    def max_body_bytes(self) -> int:
        """A larger body is refused."""
        ...

    @property
    def is_draining(self) -> bool:
        """Whether the connection ends with the next answer."""
        ...

    @property
    def rooms(self) -> Rooms:
        """Where bodies are held."""
        ...

    def write(self, data: bytes) -> None:
        """Send."""
        ...

    async def drain(self) -> None:
        """Wait until the client has read most of what was written."""
        ...

    def pause_reading(self) -> None:
        """Take no more from the client."""
        ...

    def resume_reading(self) -> None:
        """Take more from the client."""
        ...

    def detach(self) -> tuple[asyncio.Transport, bytes]:
        """Give the transport away, and what was read behind the request."""
        ...


class Exchange:
    """A request, whose body may still be on its way, and the answer to it."""

    __slots__ = (
        "_buffered",
        "_chunks",
        "_closes",
        "_continued",
        "_error",
        "_least_rate",
        "_line",
        "_pieces",
        "_places",
        "_taken",
        "_waited",
        "_waiter",
        "_waiting_since",
        "begun",
        "complete",
        "ended",
        "head",
        "relays_continue",
        "trailers",
    )

    def __init__(self, line: Line, head: RequestHead) -> None:
        self._line = line
        self._pieces: list[bytes] = []
        self._buffered = 0
        self._taken = 0
        self._waiter: asyncio.Future[None] | None = None
        self._waited = 0.0  # seconds for the client to send, until the last time
        self._waiting_since = 0.0
        self._least_rate = LEAST_RATE
        self._places: list[Place] = []
        self._error: RefusedError | None = None
        self._continued = False
        self._chunks = False
        self._closes = head.closes
        self.head = head
        self.complete = False
        """The whole body, with its trailers, has arrived."""
        self.trailers: Headers = ()
        self.relays_continue = False
        """Who answers sends "100 Continue" itself, with ``inform``."""
        self.begun = False
        """The head of the answer was sent."""
        self.ended = False

    # The request.

    async def read(self) -> bytes:
        """Return what has arrived of the body since the last time, at least a byte; b"": the end.

        Raises:
            RefusedError: it is too large, too slow, or no HTTP.
        """
        while not self._pieces:
            if self._error is not None:
                raise self._error
            if self.complete:
                return b""
            if self.head.expects_continue and not (self._continued or self.relays_continue):
                self._continued = True
                if not self.begun and not self._taken:
                    self._line.write(_CONTINUE)
            self._line.resume_reading()
            loop = asyncio.get_running_loop()
            self._waiter = loop.create_future()
            self._waiting_since = loop.time()
            try:
                await self._waiter
            finally:
                self._waiter = None
                self._waited += loop.time() - self._waiting_since
        piece = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        self._pieces.clear()
        self._buffered = 0
        if not self.complete:
            self._line.resume_reading()
        return piece

    async def read_all(self) -> bytes:
        """Return the whole body, which has its place in memory until ``let_go``.

        The place is there before the body is: if many clients had a part of theirs in memory, none
        might have the room for the rest. A body of unknown length is small until it is not.

        Raises:
            RefusedError: as above, or too many large ones are held.
        """
        self._least_rate = LEAST_HELD_RATE
        length = self._taken if self.complete else self.head.length
        most = self._line.max_body_bytes
        if length is None:
            await self._hold(min(SMALL_BYTES, most))
        elif length:
            await self._hold(length)
        pieces = []
        size = 0
        while piece := await self.read():
            pieces.append(piece)
            size += len(piece)
            if length is None and size > SMALL_BYTES and len(self._places) == 1:
                await self._hold(most - SMALL_BYTES)
        if length is None:
            self.let_go(keep=size)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def _hold(self, size: int) -> None:
        # Who has a part in the one room waits in the other: nobody waits for himself.
        is_small = size <= SMALL_BYTES and not self._places
        room = self._line.rooms.small if is_small else self._line.rooms.large
        self._places.append(room.place_now(size) or await room.place(size))

    def let_go(self, keep: int = 0) -> None:
        """Give the body's place in memory back, but so much of it."""
        for place in self._places:
            kept = min(place.size, keep)
            place.shrink(kept)
            keep -= kept

    @property
    def is_broken(self) -> bool:
        """Tell whether the request will never be whole, by the client's fault."""
        return self._error is not None

    @property
    def is_waiting(self) -> bool:
        """Tell whether somebody waits for the client to send."""
        return self._waiter is not None

    def is_slow(self, now: float) -> bool:
        """Tell whether the client has taken too long for what it has sent so far."""
        waited = self._waited + now - self._waiting_since
        return self.is_waiting and waited > BODY_SECONDS + self._taken / self._least_rate

    def take_piece(self, piece: bytes) -> None:
        """Add to the body."""
        self._taken += len(piece)
        if self._taken > self._line.max_body_bytes:
            self.fail(too_large(self._line.max_body_bytes))
            return
        self._pieces.append(piece)
        self._buffered += len(piece)
        if self._buffered > BUFFERED_BYTES:
            self._line.pause_reading()
        self.wake()

    def fail(self, error: RefusedError) -> None:
        """Let who reads the body know that it will never be whole."""
        if self._error is None:
            self._error = error
        self._pieces.clear()
        self._closes = True
        self.wake()

    def wake(self) -> None:
        """Let who reads the body look again."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # The answer.

    def inform(self, status: int, reason: bytes, headers: Headers) -> None:
        """Send an interim answer (1xx)."""
        if self.head.is_http_11 and not self.begun:
            self._line.write(write_head(status_line(status, reason), headers))

    def begin(
        self,
        status: int,
        reason: bytes,
        headers: Headers,
        body: bytes = b"",
        *,
        last: bool = False,
    ) -> None:
        """Send the head, and a piece of the body with it; with ``last`` it is the whole body.

        Without a Content-Length among the headers the body is chunked, or, for HTTP/1.0, ends
        with the connection.
        """
        self.begun = True
        bodyless = has_no_body(self.head.method, status)
        framed = bodyless or any(name.lower() == b"content-length" for name, _ in headers)
        more = b""
        if not framed:
            self._chunks = self.head.is_http_11
            if self._chunks:
                more = b"transfer-encoding: chunked\r\n"
            else:
                self._closes = True
        self._closes = self._closes or not self.complete or self._line.is_draining
        if self._closes:
            more += b"connection: close\r\n"
        elif not self.head.is_http_11:
            more += b"connection: keep-alive\r\n"
        data = write_head(status_line(status, reason), headers, more)
        if body and not bodyless:
            data += write_chunk(body) if self._chunks else body
        if last:
            if self._chunks:
                data += write_trailers(())
            self.ended = True
        self._line.write(data)

    async def write(self, piece: bytes) -> None:
        """Send a piece of the body, and wait until the client has read most of it.

        Raises:
            ClientGoneError: there is no client any more.
        """
        if piece:
            self._line.write(write_chunk(piece) if self._chunks else piece)
            await self._line.drain()

    def end(self, trailers: Headers = ()) -> None:
        """Send the end of the body. A body that is not chunked has no place for trailers."""
        if self._chunks:
            kept = tuple(header for header in trailers if header[0].lower() not in HOP_BY_HOP)
            self._line.write(write_trailers(kept))
        self.ended = True

    def answer(self, answer: Answer, reason: bytes | None = None) -> None:
        """Send a whole answer."""
        headers = answer.headers
        if not has_no_body(self.head.method, answer.status):
            headers = with_length(headers, len(answer.body))
        if reason is None:
            reason = phrase(answer.status)
        self.begin(answer.status, reason, headers, answer.body, last=True)

    async def drain(self) -> None:
        """Wait until the client has read most of what was written."""
        await self._line.drain()

    def detach(self) -> tuple[asyncio.Transport, bytes]:
        """Give the connection away; returns what was read of it but not yet looked at."""
        self.ended = True
        return self._line.detach()

    @property
    def closes(self) -> bool:
        """Tell whether the connection ends with this exchange."""
        return self._closes or not self.ended or not self.complete


def status_line(status: int, reason: bytes) -> bytes:
    """Return the first line of an answer."""
    return b"HTTP/1.1 %d %b\r\n" % (status, reason)


def phrase(status: int) -> bytes:
    """Return the usual reason phrase."""
    try:
        return HTTPStatus(status).phrase.encode()
    except ValueError:
        return b""


def too_large(limit: int) -> RefusedError:
    """Return the refusal of a body."""
    said = f"send at most {limit} bytes, or raise maxBodyBytes"
    return RefusedError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, said)
