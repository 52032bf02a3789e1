"""Read HTTP/1.1 responses from bytes: as much of it as a load generator needs.

Standard library only, as load.py. Knows no sockets.
"""

from __future__ import annotations

from typing import Final, NamedTuple

MAX_RESPONSE_BYTES: Final = 16_777_216


class Response(NamedTuple):
    """An HTTP response, whole."""

    status: int
    head: bytes
    """Status line and header lines."""
    body: bytes
    keep_alive: bool = True


def parse_response(received: bytes | bytearray, *, ended: bool = False) -> Response | None:
    """Parse a response; None while it is not whole.

    Args:
        received: All bytes since the request was sent.
        ended: Whether the server has closed its side; a body without a length ends there.

    Raises:
        ValueError: It is not HTTP, too long, or more than one response.
    """
    if len(received) > MAX_RESPONSE_BYTES:
        raise ValueError("too long")
    end = received.find(b"\r\n\r\n")
    if end < 0:
        return None
    head = bytes(received[:end])
    if not head.startswith(b"HTTP/1."):
        raise ValueError("not HTTP/1")
    status = int(head[9:12])
    keep_alive = header(head, b"connection") != b"close" and not head.startswith(b"HTTP/1.0")
    if header(head, b"transfer-encoding") == b"chunked":
        chunked = _parse_chunks(received, end + 4)
        return None if chunked is None else Response(status, head, chunked, keep_alive)
    length = header(head, b"content-length")
    if length is None and status not in {204, 304}:
        return (
            Response(status, head, bytes(received[end + 4 :]), keep_alive=False) if ended else None
        )
    total = end + 4 + int(length or 0)
    if len(received) > total:
        raise ValueError("more than was asked for")
    if len(received) < total:
        return None
    return Response(status, head, bytes(received[end + 4 : total]), keep_alive)


def header(head: bytes, name: bytes) -> bytes | None:
    """Return a header's value, None if it is not there; `name` is in lower case."""
    begin = head.lower().find(b"\r\n" + name + b":")
    if begin < 0:
        return None
    begin += len(name) + 3
    end = head.find(b"\r\n", begin)
    return head[begin : end if end >= 0 else len(head)].strip()


def _parse_chunks(received: bytes | bytearray, position: int) -> bytes | None:
    chunks: list[bytes] = []
    while True:
        end = received.find(b"\r\n", position)
        if end < 0:
            return None
        size = int(bytes(received[position:end]).split(b";")[0], 16)
        position = end + 2
        if size == 0:
            # Trailers, if any, and an empty line.
            rest = received[position:]
            is_whole = rest == b"\r\n" or rest.endswith(b"\r\n\r\n")
            return b"".join(chunks) if is_whole else None
        if len(received) < position + size + 2:
            return None
        chunks.append(bytes(received[position : position + size]))
        position += size + 2
