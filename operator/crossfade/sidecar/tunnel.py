"""Bytes both ways: websockets, and HTTP/2 (gRPC). The sidecar does not look into them."""

from __future__ import annotations

import asyncio
from typing import Final

from typing_extensions import override

from crossfade.sidecar.upstream import CONNECT_SECONDS

_SETTINGS: Final = bytes.fromhex("000000 04 00 00000000")
"""A frame without any: how an HTTP/2 server begins (RFC 9113, 3.4)."""

_HTTP_1_1_REQUIRED: Final = 0xD
"""The error code "requests need HTTP/1.1" (RFC 9113, 7)."""


class _End(asyncio.Protocol):
    """One end of a tunnel: what comes in here goes out at the other."""

    __slots__ = ("closed", "has_ended", "other", "transport")

    def __init__(self, transport: asyncio.Transport) -> None:
        self.transport = transport
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.has_ended = False
        self.other = self

    @override
    def data_received(self, data: bytes) -> None:
        if not self.other.transport.is_closing():
            self.other.transport.write(data)

    @override
    def eof_received(self) -> bool:
        """Pass the end on. The other way may go on: each has an end of its own."""
        self.has_ended = True
        other = self.other
        if other.has_ended:
            other.transport.close()
            return False
        if not other.transport.is_closing() and other.transport.can_write_eof():
            try:
                other.transport.write_eof()
            except OSError:  # it has just gone
                return False
        return True

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self.other.transport.close()
        if not self.closed.done():
            self.closed.set_result(None)

    @override
    def pause_writing(self) -> None:
        if not self.other.transport.is_closing():
            self.other.transport.pause_reading()

    @override
    def resume_writing(self) -> None:
        if not self.other.transport.is_closing():
            self.other.transport.resume_reading()


async def join(
    client: asyncio.Transport, server: asyncio.Transport, to_client: bytes, to_server: bytes
) -> None:
    """Pass bytes both ways, first these, until both ends are closed."""
    one, two = _End(client), _End(server)
    one.other, two.other = two, one
    for end, first in ((one, to_client), (two, to_server)):
        end.transport.set_protocol(end)
        if end.transport.is_closing():  # its connection_lost may have gone to who had it before
            end.connection_lost(None)
            continue
        if first:
            end.transport.write(first)
        end.transport.resume_reading()
    try:
        await asyncio.wait((one.closed, two.closed))
    finally:
        client.close()
        server.close()


async def join_server(client: asyncio.Transport, begun: bytes, host: str, port: int) -> None:
    """Connect a client, of whom ``begun`` was read, to a server.

    Raises:
        OSError: there is no connection.
    """
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            server, _ = await loop.create_connection(asyncio.Protocol, host, port)
    except BaseException:
        client.abort()
        raise
    await join(client, server, b"", begun)


def refuse_http2(client: asyncio.Transport, message: str) -> None:
    """End an HTTP/2 connection: GOAWAY, with a message that gRPC's clients show."""
    debug = message.encode()
    payload = bytes(4) + _HTTP_1_1_REQUIRED.to_bytes(4, "big") + debug
    goaway = len(payload).to_bytes(3, "big") + b"\x07\x00" + bytes(4) + payload
    client.write(_SETTINGS + goaway)
    client.close()
