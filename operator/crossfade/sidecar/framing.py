"""Where a message begins and ends, and which of its headers go on: the rules of HTTP/1.1.

llhttp parses, and is strict: of a bare LF, a folded line, a space before the colon, a control
character in a value, two lengths, or a length beside a transfer coding, it makes an error (the
tests prove each). What it lets pass and the sidecar does not is refused here. All messages are
written anew from what was parsed, so the next hop cannot read other borders into them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

import msgspec

from crossfade.sidecar.messages import HOP_BY_HOP, LOOP_GUARD, Answer, Headers

MAX_HEAD_BYTES: Final = 64 * 1024
"""Of the request line and all headers, and of all trailers: as much as Envoy's default of 60 KiB,
and more than uvicorn's 64 KiB of one read needs."""

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
"""How a client begins that knows it speaks HTTP/2 (RFC 9113, 3.4)."""

LAST_CHUNK: Final = b"0\r\n"

_DROPPED: Final = HOP_BY_HOP - {b"trailer"}
"""What does not go on when a message is streamed: its trailers do, so their announcement does."""

_NO_TRAILERS: Final = HOP_BY_HOP | {
    b"authorization",
    b"content-encoding",
    b"content-length",
    b"content-range",
    b"content-type",
    b"cookie",
    b"expect",
    b"host",
    b"inference-header-content-length",
    LOOP_GUARD,
}
"""What says where a message goes, who sends it and how it is read must not follow it (RFC 9110,
6.5.1): uvicorn, for one, takes trailers for headers."""

_KEPT: Final = frozenset({b"host", b"content-length"})
"""What Connection cannot name away: the message would not be the same one without."""


class RefusedError(Exception):
    """A request that is answered by the sidecar itself; the connection is closed after it."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


@dataclass(slots=True)
class RequestHead:
    """All of a request but its body."""

    method: str
    target: str
    headers: Headers
    """Those that go on to the next hop."""
    is_http_11: bool
    closes: bool
    """The client wants no other request on this connection."""
    length: int | None
    """Content-Length; None: there is none."""
    chunked: bool
    expects_continue: bool
    asks_for_websocket: bool
    """The only other protocol that is understood; the wish for any other is ignored."""
    takes_trailers: bool
    """The client said so, with TE."""

    @property
    def has_body(self) -> bool:
        """Tell whether bytes follow."""
        return self.chunked or bool(self.length)


@dataclass(slots=True)
class AnswerHead:
    """All of an answer but its body."""

    status: int
    reason: bytes
    headers: Headers
    """Those that go on."""
    length: int | None
    chunked: bool
    closes: bool
    """The connection is not used again."""


def read_request_head(
    method: str, target: bytes, headers: Iterable[tuple[bytes, bytes]], version: str
) -> RequestHead:
    """Return the head of a request that llhttp parsed.

    Raises:
        RefusedError: it is not understood the same way by everyone.
    """
    if version not in ("1.1", "1.0"):
        raise RefusedError(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, "speak HTTP/1.1")
    if method == "CONNECT":
        raise RefusedError(HTTPStatus.NOT_IMPLEMENTED, "this is no proxy for other hosts")
    if b"#" in target:
        raise RefusedError(HTTPStatus.BAD_REQUEST, "remove the fragment (#) from the path")
    is_http_11 = version == "1.1"
    parts = _take_apart(headers)
    hosts = parts.hosts
    if hosts > 1 or (hosts == 0 and is_http_11):
        raise RefusedError(HTTPStatus.BAD_REQUEST, "send exactly one Host header")
    if parts.codings and not (is_http_11 and parts.chunked):
        raise RefusedError(
            HTTPStatus.BAD_REQUEST, "the only Transfer-Encoding understood is chunked"
        )
    return RequestHead(
        method=method,
        target=target.decode("ascii"),
        headers=parts.going_on,
        is_http_11=is_http_11,
        closes=b"close" in parts.options if is_http_11 else b"keep-alive" not in parts.options,
        length=parts.length,
        chunked=parts.chunked,
        expects_continue=is_http_11 and parts.expect == b"100-continue",
        asks_for_websocket=is_http_11
        and parts.upgrade == b"websocket"
        and b"upgrade" in parts.options,
        takes_trailers=b"trailers" in parts.te,
    )


def read_answer_head(
    status: int, reason: bytes, headers: Iterable[tuple[bytes, bytes]], version: str
) -> AnswerHead:
    """Return the head of an answer that llhttp parsed.

    Raises:
        ConnectionError: where its body ends is not known.
    """
    parts = _take_apart(headers)
    if parts.codings and not parts.chunked:
        raise ConnectionError("the answer has a transfer coding that is not understood")
    return AnswerHead(
        status=status,
        reason=reason,
        headers=parts.going_on,
        length=parts.length,
        chunked=parts.chunked,
        closes=version != "1.1" or b"close" in parts.options,
    )


@dataclass(slots=True)
class _Parts:
    going_on: Headers = ()
    options: frozenset[bytes] = frozenset()
    length: int | None = None
    codings: int = 0
    chunked: bool = False
    hosts: int = 0
    expect: bytes = b""
    upgrade: bytes = b""
    te: bytes = b""


def _take_apart(headers: Iterable[tuple[bytes, bytes]]) -> _Parts:
    """Return what the sidecar must know of the headers, and those that go on."""
    parts = _Parts()
    going_on = []
    named: list[bytes] = []
    for header in headers:
        name = header[0].lower()
        if name in _DROPPED:
            _take_hop_by_hop(parts, named, name, header[1].lower())
            continue
        going_on.append(header)
        if name == b"content-length":
            parts.length = int(header[1])
        elif name == b"host":
            parts.hosts += 1
        elif name == b"expect":
            parts.expect = header[1].lower()
    parts.going_on = tuple(going_on)
    if named:
        parts.options = frozenset(named)
        dropped = parts.options - _KEPT
        parts.going_on = tuple(h for h in going_on if h[0].lower() not in dropped)
    return parts


def _take_hop_by_hop(parts: _Parts, named: list[bytes], name: bytes, value: bytes) -> None:
    if name == b"connection":
        named.extend(option.strip() for option in value.split(b","))
    elif name == b"transfer-encoding":
        parts.codings += 1
        parts.chunked = value == b"chunked" and parts.codings == 1
    elif name == b"upgrade":
        parts.upgrade = value
    elif name == b"te":
        parts.te = value


def trailers_going_on(trailers: Iterable[tuple[bytes, bytes]]) -> Headers:
    """Return a request's trailers without what servers must not see there."""
    return tuple(
        trailer
        for trailer in trailers
        if trailer[0].lower().replace(b"_", b"-") not in _NO_TRAILERS
    )


def write_head(first_line: bytes, headers: Headers, more: bytes = b"") -> bytes:
    """Return a head as bytes; ``more`` are whole header lines of the connection's own."""
    lines = [first_line]
    for name, value in headers:
        lines += (name, b": ", value, b"\r\n")
    lines += (more, b"\r\n")
    return b"".join(lines)


def write_trailers(trailers: Headers) -> bytes:
    """Return the end of a chunked body."""
    return write_head(LAST_CHUNK, trailers)


def write_chunk(piece: bytes) -> bytes:
    """Return a piece, which is not empty, as a chunk."""
    return b"%x\r\n%b\r\n" % (len(piece), piece)


def has_no_body(method: str, status: int) -> bool:
    """Tell whether an answer ends with its head, whatever that says (RFC 9112, 6.3)."""
    return method == "HEAD" or status in (204, 304) or status < HTTPStatus.OK


def with_length(headers: Headers, length: int) -> Headers:
    """Return headers with this Content-Length and no other."""
    said = b"%d" % length
    found = [value for name, value in headers if name.lower() == b"content-length"]
    if found == [said]:
        return headers
    rest = tuple(header for header in headers if header[0].lower() != b"content-length")
    return (*rest, (b"content-length", said))


def error_answer(status: int, message: str) -> Answer:
    """Return an answer of the sidecar's own, which says what to do."""
    body = msgspec.json.encode({"error": message})
    return Answer(status, ((b"content-type", b"application/json"),), body)
