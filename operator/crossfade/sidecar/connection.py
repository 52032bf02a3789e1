"""One client: an HTTP/1.1 connection, parsed by llhttp.

Its requests are handled one after the other, each by a task that ends with the connection: a client
that goes away takes the work for it along.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, cast

import httptools
from typing_extensions import override

from crossfade.sidecar.exchange import (
    BODY_SECONDS,
    ClientGoneError,
    Exchange,
    phrase,
    status_line,
    too_large,
)
from crossfade.sidecar.framing import (
    MAX_HEAD_BYTES,
    PREFACE,
    RefusedError,
    RequestHead,
    error_answer,
    read_request_head,
    trailers_going_on,
    with_length,
    write_head,
)
from crossfade.sidecar.room import Rooms

if TYPE_CHECKING:
    from crossfade.sidecar.server import Server

HEAD_SECONDS: Final = 10.0
"""How long a head may take once it has begun."""

IDLE_SECONDS: Final = 3700.0
"""Without a request. Longer than gateways keep a connection (nginx 60 s, Traefik 90 s, Envoy an
hour by default): who closes first loses no request that is on its way."""

SEND_SECONDS: Final = 60.0
"""How long a client may read nothing of its answer."""

LINGER_SECONDS: Final = 2.0
"""How long what a client still sends is thrown away after an answer that closes: to close at once
would be a reset, and the client might never see the answer (RFC 9112, 9.6)."""

MAX_CONNECTIONS: Final = 1000
"""Open at once, tunnels with them; one more is answered with 503. Gateways keep some tens. About
what nginx (512, both sides counted) and gunicorn's workers (1,000) allow by default."""

_log = logging.getLogger(__name__)


class Connection(asyncio.Protocol):
    """One client. llhttp's callbacks are the methods named ``on_``."""

    __slots__ = (
        "_body_as_plain",
        "_current",
        "_drainer",
        "_fed",
        "_head_since",
        "_headers",
        "_held",
        "_is_detached",
        "_is_lingering",
        "_linger_until",
        "_loop",
        "_newest",
        "_parser",
        "_paused",
        "_queue",
        "_start",
        "_target",
        "_task",
        "_touched",
        "_transport",
        "_unsent",
        "server",
    )

    def __init__(self, server: Server) -> None:
        self.server = server
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpRequestParser(self)
        self._current: Exchange | None = None
        self._newest: Exchange | None = None  # the one that the parser is in
        self._queue: deque[Exchange | RefusedError] = deque()
        self._task: asyncio.Task[None] | None = None
        self._target = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._fed = 0  # bytes of a head, or of what is between two pieces of a body
        self._start: bytes | None = b""  # of the connection, until it is no HTTP/2 preface
        self._held = b""  # arrived behind a request for another protocol
        self._body_as_plain = False  # see _parse_body_after_upgrade
        self._paused = False
        self._drainer: asyncio.Future[None] | None = None
        self._unsent = 0  # when the client was last seen to read
        self._is_detached = False
        self._is_lingering = False
        self._linger_until = 0.0
        self._touched = self._loop.time()
        self._head_since: float | None = None

    # The transport's.

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        if len(self.server.connections) >= MAX_CONNECTIONS:
            said = "too many connections are open; use those that you have"
            self._write_refusal(RefusedError(HTTPStatus.SERVICE_UNAVAILABLE, said))
            self._is_lingering = True
            transport.close()
            return
        self.server.connections.add(self)

    @override
    def data_received(self, data: bytes) -> None:
        if self._drainer is None:
            self._touched = self._loop.time()
        if self._is_lingering:
            return
        if self._start is not None:
            begun = self._start + data
            if PREFACE.startswith(begun[: len(PREFACE)]):
                self._begin_http2(begun)
                return
            self._start = None
            data = begun
        self._feed(data)

    @override
    def eof_received(self) -> bool:
        """A client that sends no more is taken for gone, as by Go's server and by nginx."""
        return False

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self.server.connections.discard(self)
        self._queue.clear()
        self.resume_writing()
        if self._task is not None:
            self._task.cancel()

    @override
    def pause_writing(self) -> None:
        self._drainer = self._loop.create_future()
        self._touched = self._loop.time()
        if self._transport is not None:
            self._unsent = self._transport.get_write_buffer_size()

    @override
    def resume_writing(self) -> None:
        if self._drainer is not None and not self._drainer.done():
            self._drainer.set_result(None)
        self._drainer = None
        if self._current is None and self._queue:
            self._start_next()
            self.resume_reading()

    # For exchanges.

    @property
    def max_body_bytes(self) -> int:
        """A larger body is refused."""
        return self.server.max_body_bytes

    @property
    def is_draining(self) -> bool:
        """Whether the connection ends with the next answer."""
        return self.server.is_draining

    @property
    def rooms(self) -> Rooms:
        """Where bodies are held."""
        return self.server.rooms

    def write(self, data: bytes) -> None:
        """Send."""
        if self._transport is not None:
            self._transport.write(data)

    async def drain(self) -> None:
        """Wait until the client has read most of what was written."""
        if self._transport is None or self._transport.is_closing():
            raise ClientGoneError
        if self._drainer is not None:
            await asyncio.shield(self._drainer)

    def pause_reading(self) -> None:
        """Take no more from the client."""
        if not self._paused and self._transport is not None and not self._transport.is_closing():
            self._paused = True
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Take more from the client, if nothing waits that is not yet handled."""
        transport = self._transport
        if transport is None or transport.is_closing() or self._queue or self._held:
            return
        if self._paused:
            self._paused = False
            self._touched = self._loop.time()
            transport.resume_reading()

    def detach(self) -> tuple[asyncio.Transport, bytes]:
        """Give the transport away."""
        transport = self._transport
        if transport is None:
            raise ClientGoneError
        self._is_detached = True
        held, self._held = self._held, b""
        return transport, held

    def sweep(self, now: float) -> None:
        """Close what has been waited for too long."""
        if self._is_detached or self._transport is None:
            return
        current = self._current
        quiet = now - self._touched
        if self._drainer is not None:
            self._sweep_reader(self._transport, now)
        elif current is not None:
            if current.is_waiting and (quiet > BODY_SECONDS or current.is_slow(now)):
                current.fail(RefusedError(HTTPStatus.REQUEST_TIMEOUT, "send the body faster"))
        elif self._is_lingering:
            if now > self._linger_until:
                self._transport.abort()
        elif self._head_since is not None:
            if now - self._head_since > HEAD_SECONDS:
                self._refuse(RefusedError(HTTPStatus.REQUEST_TIMEOUT, "send the head faster"))
        elif quiet > IDLE_SECONDS:
            self._transport.close()

    def _sweep_reader(self, transport: asyncio.Transport, now: float) -> None:
        """Close if the client has read nothing for too long."""
        unsent = transport.get_write_buffer_size()
        if unsent < self._unsent:
            self._unsent, self._touched = unsent, now
        elif now - self._touched > SEND_SECONDS:
            transport.abort()

    # Parsing.

    def _feed(self, data: bytes) -> None:
        if self._newest is None and self._head_since is None:
            self._head_since = self._loop.time()
        self._fed += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._leave_http(data[upgrade.args[0] :])
        except httptools.HttpParserCallbackError as error:
            cause = error.__context__
            if not isinstance(cause, RefusedError):
                raise
            self._refuse(cause)
        except httptools.HttpParserError as error:
            self._refuse(RefusedError(HTTPStatus.BAD_REQUEST, f"send valid HTTP/1.1: {error}"))
        else:
            if self._fed > MAX_HEAD_BYTES:
                self._refuse(_head_too_large())
        self._start_next()

    def _leave_http(self, rest: bytes) -> None:
        """Go on behind the head of a request that asks for another protocol."""
        newest = self._newest
        if newest is None:  # closes after the request before
            return
        self._parser = httptools.HttpRequestParser(self)
        if newest.head.asks_for_websocket:
            self._held = rest
            self.pause_reading()
            self._end_message()
        else:
            self._parse_body_after_upgrade(newest.head, rest)

    def _parse_body_after_upgrade(self, head: RequestHead, rest: bytes) -> None:
        """Parse the body of a request whose wish for another protocol is ignored.

        llhttp takes everything behind such a head for that protocol's. So a new parser is told a
        head with the same framing, and goes on from there.
        """
        if not head.has_body:
            self._end_message()
        else:
            self._body_as_plain = True
            framing = b"content-length: %d" % (head.length or 0)
            if head.chunked:
                framing = b"transfer-encoding: chunked"
            self._parser.feed_data(b"POST / HTTP/1.1\r\n" + framing + b"\r\n\r\n")
            self._body_as_plain = False
        if rest:
            self._feed(rest)

    def on_url(self, url: bytes) -> None:
        """Take the target, or a part of it."""
        if not self._body_as_plain:
            self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header, or a trailer."""
        if self._body_as_plain:
            return
        self._headers.append((name, value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        """Take the head."""
        if self._body_as_plain:
            return
        parser = self._parser
        headers, self._headers = self._headers, []
        target, self._target = self._target, b""
        if len(target) + sum(len(name) + len(value) for name, value in headers) > MAX_HEAD_BYTES:
            raise _head_too_large()
        head = read_request_head(
            parser.get_method().decode(), target, headers, parser.get_http_version()
        )
        if head.asks_for_websocket and head.has_body:
            raise RefusedError(HTTPStatus.BAD_REQUEST, "ask for a websocket without a body")
        limit = self.server.max_body_bytes
        if head.length is not None and head.length > limit:
            raise too_large(limit)
        self._newest = exchange = Exchange(self, head)
        self._head_since = None
        self._fed = 0
        if self._current is None and not self._queue and self._drainer is None:
            self._current = exchange
        else:
            self._queue.append(exchange)

    def on_body(self, piece: bytes) -> None:
        """Take a piece of the body."""
        self._fed = 0
        if self._newest is not None:
            self._newest.take_piece(piece)

    def on_message_complete(self) -> None:
        """Take note of the end."""
        if not self._body_as_plain and not self._parser.should_upgrade():
            self._end_message()

    def _end_message(self) -> None:
        newest = self._newest
        if newest is None:
            return
        newest.trailers, self._headers = trailers_going_on(self._headers), []
        newest.complete = True
        newest.wake()
        self._newest = None
        self._fed = 0

    # The exchanges, one after the other.

    def _start_next(self) -> None:
        """Begin with the next request, if there is one and the answer before is mostly read."""
        if self._current is None and self._queue and self._drainer is None:
            following = self._queue.popleft()
            if isinstance(following, RefusedError):
                self._say(following)
                return
            self._current = following
        if self._queue:
            self.pause_reading()
        if self._current is not None and self._task is None:
            self._task = self.server.begin(self._run(self._current))

    async def _run(self, exchange: Exchange) -> None:
        try:
            await self.server.handler(exchange)
        except RefusedError as error:
            if not exchange.begun:
                exchange.fail(error)
                exchange.answer(error_answer(error.status, error.message))
        except ClientGoneError:
            pass
        except Exception:  # noqa: BLE001 - whatever it is, one request fails and no more
            _log.exception("a request failed target=%s", exchange.head.target.split("?")[0])
            if not exchange.begun:
                said = "the sidecar failed; its log says why"
                exchange.answer(error_answer(HTTPStatus.INTERNAL_SERVER_ERROR, said))
        finally:
            exchange.let_go()
            if self._is_detached:
                self.server.connections.discard(self)
            self._task = None
            self._current = None
            self._after(exchange)

    def _after(self, exchange: Exchange) -> None:
        transport = self._transport
        if transport is None or self._is_detached:
            return
        if not exchange.ended:  # broken off: only a reset says so, of a body without a length
            transport.abort()
        elif exchange.closes:
            self._close(is_all_read=exchange.complete and not self._queue)
        else:
            self._touched = self._loop.time()
            if self._held and not self._queue:
                held, self._held = self._held, b""
                self._feed(held)
            else:
                self._start_next()
            self.resume_reading()

    def _refuse(self, error: RefusedError) -> None:
        """Answer with an error, after the requests before, and take nothing more."""
        broken, self._newest = self._newest, None
        self._is_lingering = True
        if broken is not None:
            broken.fail(error)
        elif self._current is None and not self._queue:
            self._say(error)
        else:
            self._queue.append(error)

    def _say(self, error: RefusedError) -> None:
        self._write_refusal(error)
        self._close(is_all_read=False)

    def _write_refusal(self, error: RefusedError) -> None:
        answer = error_answer(error.status, error.message)
        headers = with_length(answer.headers, len(answer.body))
        line = status_line(answer.status, phrase(answer.status))
        self.write(write_head(line, headers, b"connection: close\r\n") + answer.body)

    def _close(self, *, is_all_read: bool) -> None:
        """Close when the client has everything; see LINGER_SECONDS."""
        self._queue.clear()
        self._held = b""
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        if is_all_read or not transport.can_write_eof():
            transport.close()
            return
        self._is_lingering = True
        self._linger_until = self._loop.time() + LINGER_SECONDS
        try:
            transport.write_eof()
        except OSError:  # the client has just gone
            transport.abort()
        self.resume_reading()

    def close_if_idle(self) -> None:
        """Close unless a request is under way."""
        if self._current is None and self._transport is not None and not self._is_detached:
            self._transport.close()

    def _begin_http2(self, begun: bytes) -> None:
        if len(begun) < len(PREFACE):
            self._start = begun
            self._head_since = self._head_since or self._loop.time()
            return
        self._start = None
        self._head_since = None
        http2 = self.server.http2
        if http2 is None or self._transport is None:
            said = "HTTP/2 is not spoken here; use HTTP/1.1"
            self._refuse(RefusedError(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, said))
            return
        self.pause_reading()
        transport, _ = self.detach()
        self._task = self.server.begin(http2(transport, begun))
        self._task.add_done_callback(lambda _: self.server.connections.discard(self))


def _head_too_large() -> RefusedError:
    said = f"send a head of at most {MAX_HEAD_BYTES} bytes"
    return RefusedError(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, said)
