"""Traces of turns and looks, sent to an OpenTelemetry collector as OTLP/HTTP in JSON.

A trace is a turn or a look with the requests that it sent, one level below. A turn that sent none
and did not fail is no news and is not kept. What a collector does not take is lost: traces must
never hold anything up, nor fill the memory.

The format is https://opentelemetry.io/docs/specs/otlp/#otlphttp; a library for it would be larger
than the operator.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Final

import aiohttp

MOST_WAITING: Final = 4096
"""Spans that wait to be sent; the oldest make room. A span is about 1 kB."""

SEND_SECONDS: Final = 5.0
"""The time between two sendings."""

TIMEOUT_SECONDS: Final = 5.0
"""The longest that a sending may take."""

INTERNAL: Final = 1
CLIENT: Final = 3
ERROR: Final = 2

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Span:
    """Something that took time."""

    name: str
    kind: int
    trace_id: str
    parent_id: str
    began: int
    """Nanoseconds since the epoch."""
    ended: int
    attributes: dict[str, str]
    problem: str = ""
    """Why it failed; "" when it did not."""
    span_id: str = field(default_factory=lambda: secrets.token_hex(8))


_current: ContextVar[list[Span] | None] = ContextVar("current", default=None)
"""The trace under way: its root, then what was done in it."""


class Tracer:
    """Keeps what was done until it is sent; keeps nothing when it is off."""

    def __init__(self, *, on: bool = False, clock: Callable[[], int] = time.time_ns) -> None:
        self._on = on
        self._clock = clock
        self._waiting: deque[Span] = deque(maxlen=MOST_WAITING)

    @contextmanager
    def trace(self, what: str, /, **attributes: str) -> Iterator[None]:
        """Trace what is done while the block runs, also in tasks that begin in it."""
        if not self._on:
            yield
            return
        root = Span(what, INTERNAL, secrets.token_hex(16), "", self._clock(), 0, attributes)
        spans = [root]
        token = _current.set(spans)
        try:
            yield
        except Exception as e:
            root.problem = str(e) or type(e).__name__
            raise
        finally:
            _current.reset(token)
            root.ended = self._clock()
            if len(spans) > 1 or root.problem:
                self._waiting.extend(spans)

    def done(self, what: str, seconds: float, problem: str = "", /, **attributes: str) -> None:
        """Note a request that has just ended, if there is a trace that it belongs to."""
        spans = _current.get()
        if spans is None:
            return
        root, ended = spans[0], self._clock()
        began = ended - int(seconds * 1e9)
        spans.append(
            Span(what, CLIENT, root.trace_id, root.span_id, began, ended, attributes, problem)
        )

    def take(self) -> list[Span]:
        """Return what waits to be sent, and keep it no longer."""
        spans = list(self._waiting)
        self._waiting.clear()
        return spans


@asynccontextmanager
async def sent(tracer: Tracer, address: str, instance: str) -> AsyncIterator[None]:
    """Send what is traced while the block runs; nothing without an address."""
    task = asyncio.create_task(_send_forever(tracer, address, instance)) if address else None
    try:
        yield
    finally:
        if task is not None:
            task.cancel()


async def _send_forever(tracer: Tracer, address: str, instance: str) -> None:
    """Send what was traced every few seconds; say once when nobody takes it, and when again."""
    heard = True
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_SECONDS)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        while True:
            await asyncio.sleep(SEND_SECONDS)
            spans = tracer.take()
            if not spans:
                continue
            problem = await _send(session, address, render(spans, instance))
            if problem and heard:
                _log.warning("traces are lost: %s: %s", address, problem)
            elif not problem and not heard:
                _log.info("traces are taken again: %s", address)
            heard = not problem


async def _send(session: aiohttp.ClientSession, address: str, body: Mapping[str, Any]) -> str:
    """Send once; return why it was not taken, "" when it was."""
    try:
        async with session.post(address, json=body) as answer:
            return "" if answer.ok else f"HTTP {answer.status}"
    except (TimeoutError, aiohttp.ClientError, OSError) as e:
        return repr(e)


def render(spans: Sequence[Span], instance: str) -> dict[str, Any]:
    """Return the body of a request to a collector."""
    resource = {"service.name": "crossfade", "service.instance.id": instance}
    return {
        "resourceSpans": [
            {
                "resource": {"attributes": _attributes(resource)},
                "scopeSpans": [{"scope": {"name": __name__}, "spans": [_span(s) for s in spans]}],
            }
        ]
    }


def _span(span: Span) -> dict[str, Any]:
    rendered: dict[str, Any] = {
        "traceId": span.trace_id,
        "spanId": span.span_id,
        "name": span.name,
        "kind": span.kind,
        "startTimeUnixNano": str(span.began),
        "endTimeUnixNano": str(span.ended),
        "attributes": _attributes(span.attributes),
    }
    if span.parent_id:
        rendered["parentSpanId"] = span.parent_id
    if span.problem:
        rendered["status"] = {"code": ERROR, "message": span.problem}
    return rendered


def _attributes(values: Mapping[str, str]) -> list[dict[str, Any]]:
    return [{"key": key, "value": {"stringValue": value}} for key, value in values.items()]
