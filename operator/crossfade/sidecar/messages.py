"""Requests and answers as the parts of the sidecar hand them to each other: whole, in memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from http import HTTPStatus
from typing import Any, Final, Protocol

Headers = tuple[tuple[bytes, bytes], ...]
"""In the order and the spelling of the wire."""

LOOP_GUARD: Final = b"crossfade-fallback-from"
"""On a request that another sidecar sent here as its fallback; its value is that one's revision.
Such a request is answered by this pod's model or not at all."""

ANSWERED_BY: Final = b"crossfade-fallback"
"""On an answer that did not come from the version asked: the target's name."""

BECAUSE: Final = b"crossfade-fallback-reason"

HOP_BY_HOP: Final = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
"""Of one connection, not of the message (RFC 9110, 7.6.1, and RFC 2616, 13.5.1), beside those that
Connection names."""


class Reason(StrEnum):
    """Why the model's own answer is not the one that is sent."""

    TIMEOUT = "timeout"
    CONNECTION = "connection"
    SERVER_ERROR = "serverError"
    OPEN_CIRCUIT = "openCircuit"
    VIOLATION = "violation"


@dataclass(frozen=True, slots=True)
class Request:
    """A request with its whole body."""

    method: str
    target: str
    """As on the wire: path and query."""
    headers: Headers
    body: bytes


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer with its whole body."""

    status: int
    headers: Headers
    body: bytes

    @property
    def is_success(self) -> bool:
        """Whether the status is 2xx."""
        return HTTPStatus.OK <= self.status < HTTPStatus.MULTIPLE_CHOICES


def end_to_end(headers: Headers) -> Headers:
    """Return the headers that go on to the next hop when a whole message does."""
    named = {
        option.strip().lower()
        for name, value in headers
        if name.lower() == b"connection"
        for option in value.split(b",")
    }
    dropped = HOP_BY_HOP | named
    return tuple(header for header in headers if header[0].lower() not in dropped)


@dataclass(frozen=True, slots=True)
class Violation:
    """What is wrong with a request, without any of its values."""

    field: str
    """A path such as "inputs[0].age", made of names that the contract knows; "" for the whole."""
    rule: str
    """One word: required, type, minimum, shape, ..."""
    message: str
    """For the client, who knows the value anyway; never in a metric or a log."""


@dataclass(frozen=True, slots=True)
class Tensors:
    """The named tensors of an Open Inference Protocol message, by name."""

    by_name: Mapping[str, TensorData]


@dataclass(frozen=True, slots=True)
class TensorData:
    """One tensor."""

    datatype: str
    shape: tuple[int, ...]
    data: Any
    """A flat sequence of numbers, booleans or strings; None for null."""


@dataclass(frozen=True, slots=True)
class Document:
    """A body that was parsed once, for all who look into it."""

    value: Any
    """The JSON."""
    tensors: Tensors | None = None
    """With the Open Inference Protocol."""


class Client(Protocol):
    """Sends whole requests elsewhere."""

    async def send(self, host: str, port: int, request: Request, timeout: float) -> Answer:  # noqa: ASYNC109 - whole answers only
        """Send a request and return the whole answer.

        Raises:
            TimeoutError: no whole answer in ``timeout`` seconds.
            OSError: no connection, or it broke (also: an answer that is no HTTP).
        """
        ...
