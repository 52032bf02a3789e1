"""What may be kept of a message: masked fields and headers are gone before anything is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import msgspec

from crossfade.sidecar.config import Recording
from crossfade.sidecar.documents import parse_answer, parse_request
from crossfade.sidecar.messages import Answer, Document, Headers, Request
from crossfade.sidecar.paths import Path

HIDDEN: Final = "***"

MASKED_HEADERS: Final = frozenset(
    {b"authorization", b"cookie", b"set-cookie", b"proxy-authorization", b"x-api-key"}
)
"""Always masked."""

MAX_BODY: Final = 1024 * 1024
"""Bytes of a body that is kept; as Keploy has it (``LargeBodyThreshold``)."""

_OF_THE_BODY: Final = frozenset({b"content-length", b"content-encoding"})


@dataclass(frozen=True, slots=True)
class Message:
    """What is kept of a request or of an answer."""

    headers: Headers
    body: bytes
    """Empty where it is left out."""
    size: int
    """Of the whole body, in bytes, as it was sent."""
    left_out: str = ""
    """Why the body is not here, in words."""


class Masks:
    """Hides what a recording must not hold."""

    def __init__(self, recording: Recording) -> None:
        """Compile the paths.

        Raises:
            ValueError: one is no JSONPath.
        """
        self._paths = tuple(Path(text) for text in recording.mask)
        more = (name.strip().lower().encode() for name in recording.mask_headers)
        self._headers = MASKED_HEADERS.union(more)

    def target(self, target: str) -> str:
        """Return a target whose query is masked where fields are: they may be in there as well."""
        path, mark, _ = target.partition("?")
        return path + mark + HIDDEN if mark and self._paths else target

    def request(self, request: Request) -> Message:
        """Return what may be kept of a request."""
        return self._kept(
            request.headers, request.body, lambda: parse_request(request, "http", MAX_BODY)
        )

    def answer(self, answer: Answer) -> Message:
        """Return what may be kept of an answer."""
        return self._kept(
            answer.headers, answer.body, lambda: parse_answer(answer, "http", MAX_BODY)
        )

    def _kept(self, headers: Headers, body: bytes, parse: Callable[[], Document]) -> Message:
        shown = tuple(
            (name, HIDDEN.encode() if name.lower() in self._headers else value)
            for name, value in headers
        )
        if len(body) > MAX_BODY:
            return Message(shown, b"", len(body), f"it has {len(body)} bytes")
        if not self._paths or not body:
            return Message(shown, body, len(body))
        try:
            value = parse().value
            for path in self._paths:
                value = path.replace(value, HIDDEN)
            masked = msgspec.json.encode(value)
        except Exception:  # noqa: BLE001 - whatever is wrong with a body, it is not kept then
            return Message(shown, b"", len(body), "it is no JSON whose fields could be masked")
        return Message(_of_body(shown, masked), masked, len(body))


def _of_body(headers: Headers, body: bytes) -> Headers:
    """Return headers that are true of the body that is kept."""
    kept = [header for header in headers if header[0].lower() not in _OF_THE_BODY]
    return (*kept, (b"Content-Length", str(len(body)).encode()))
