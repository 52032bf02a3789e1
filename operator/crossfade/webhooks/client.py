"""The edge: a POST to an address that a user named, of whose answer little is believed.

Neither proxies nor a .netrc are heeded, and no redirect is followed: they would decide where a
request goes to. No message tells an address, which may itself be a secret.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol
from weakref import WeakValueDictionary

import aiohttp
from yarl import URL

from crossfade.access.addresses import is_below
from crossfade.errors import WebhookError

LARGEST_ANSWER: Final = 64 * 1024
"""More than that is no answer of a gate's, in bytes."""

CHUNK: Final = 16 * 1024

PER_HOST: Final = 8
AT_ONCE: Final = 128
"""So many requests are under way to one host, and in all: one that hangs leaves room for others."""

SETTING: Final = "CROSSFADE_WEBHOOK_ADDRESSES"


class NotAllowedError(WebhookError):
    """The administrator does not let this address be reached: no other try helps."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back."""

    status: int
    body: bytes = b""
    """Empty where nobody wanted it."""
    retry_after: str = ""
    """The header, as it is."""


class Posts(Protocol):
    """Posts to an address."""

    async def post(
        self,
        address: str,
        headers: Mapping[str, str],
        body: bytes,
        seconds: float,
        *,
        reads: bool,
    ) -> Answer:
        """Post, and return the answer, whatever its status is.

        Args:
            address: the URL.
            headers: of the request.
            body: of the request.
            seconds: how long it may take from its beginning.
            reads: the answer's body is wanted.

        Raises:
            WebhookError: there is no answer; says why, without the address.
        """
        ...


class HttpPosts:
    """:class:`Posts` over HTTP. A connection for each: they are few."""

    def __init__(self, allowed: Sequence[str] = ()) -> None:
        """Post only below these addresses; to any, when there are none."""
        self._allowed = allowed
        self._all = asyncio.Semaphore(AT_ONCE)
        self._hosts: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    async def post(
        self,
        address: str,
        headers: Mapping[str, str],
        body: bytes,
        seconds: float,
        *,
        reads: bool,
    ) -> Answer:
        """See :meth:`Posts.post`."""
        if self._allowed and not is_below(address, self._allowed):
            raise NotAllowedError(
                "the operator may not post to its address, only to "
                f"{', '.join(self._allowed)} ({SETTING})"
            )
        host = self._host(address)
        async with host, self._all:
            try:
                async with asyncio.timeout(seconds):
                    return await _post(address, headers, body, reads=reads)
            except TimeoutError as e:
                raise WebhookError(f"it did not answer in {seconds:g} s") from e
            except (aiohttp.ClientError, OSError, ValueError) as e:
                raise WebhookError(_reason(e)) from e

    def _host(self, address: str) -> asyncio.Semaphore:
        try:
            origin = str(URL(address).origin())
        except ValueError as e:
            raise WebhookError("its address is no URL") from e
        known = self._hosts.get(origin)
        if known is None:
            known = self._hosts[origin] = asyncio.Semaphore(PER_HOST)
        return known


async def _post(address: str, headers: Mapping[str, str], body: bytes, *, reads: bool) -> Answer:
    sent = {"User-Agent": "crossfade", "Accept-Encoding": "identity", **headers}
    said = b""
    async with (
        aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=None), auto_decompress=False
        ) as session,
        session.post(address, headers=sent, data=body, allow_redirects=False) as answer,
    ):
        if reads:
            async for chunk in answer.content.iter_chunked(CHUNK):
                said += chunk
                if len(said) > LARGEST_ANSWER:
                    raise WebhookError("it does not stop answering")
        return Answer(answer.status, said, answer.headers.get("Retry-After", ""))


def _reason(error: Exception) -> str:
    """Say why without the address, which aiohttp's own words have."""
    match error:
        case aiohttp.ClientConnectorCertificateError():
            return "its certificate is not trusted"
        case aiohttp.ClientConnectorDNSError():
            return "its name is not known"
        case aiohttp.ClientConnectorError(errno=int(number)) if number > 0:
            return f"it is not reached: {os.strerror(number)}"
        case aiohttp.ClientConnectorError():
            return "it is not reached"
        case _:
            return f"it gave no answer of HTTP ({type(error).__name__})"
