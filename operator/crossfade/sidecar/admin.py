"""What the sidecar says about itself, on a port of its own.

Anybody who reaches the port may ask, so nothing here changes what happens to requests; a drill is
the golden request, sent once to each target.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import parse_qs

import msgspec

from crossfade.sidecar.contract import Contract
from crossfade.sidecar.fallback import Drilled, Drills
from crossfade.sidecar.looker import Looker
from crossfade.sidecar.messages import Answer, Request, Violation
from crossfade.sidecar.metrics import Metrics
from crossfade.sidecar.readiness import Readiness
from crossfade.sidecar.recording import Recorder

JSON: Final = b"application/json"
TEXT: Final = b"text/plain; charset=utf-8"
YAML: Final = b"application/yaml"
"""RFC 9512."""

EXPOSITION: Final = b"text/plain; version=0.0.4; charset=utf-8"
"""Prometheus' text format."""


class Admin:
    """Answers the kubelet, Prometheus, the operator, and people."""

    def __init__(
        self,
        metrics: Metrics,
        readiness: Readiness,
        drills: Drills | None,
        recorder: Recorder,
        contract: Contract,
        looker: Looker,
    ) -> None:
        self._metrics = metrics
        self._readiness = readiness
        self._drills = drills
        self._recorder = recorder
        self._contract = contract
        self._looker = looker
        self._routes: dict[tuple[str, str], Callable[[Request], Awaitable[Answer]]] = {
            ("GET", "/metrics"): self._get_metrics,
            ("GET", "/ready"): self._get_ready,
            ("GET", "/live"): self._get_live,
            ("GET", "/drill"): self._get_drill,
            ("POST", "/drill"): self._post_drill,
            ("GET", "/recordings"): self._get_recordings,
            ("POST", "/check"): self._post_check,
        }

    async def answer(self, request: Request) -> Answer:
        """Answer a request."""
        path = request.target.partition("?")[0]
        route = self._routes.get((request.method, path))
        if route is not None:
            return await route(request)
        known = ", ".join(f"{method} {path}" for method, path in self._routes)
        is_path = any(path == of for _, of in self._routes)
        status = HTTPStatus.METHOD_NOT_ALLOWED if is_path else HTTPStatus.NOT_FOUND
        return _text(status, f"there are: {known}")

    async def _get_metrics(self, _: Request) -> Answer:
        return _answer(HTTPStatus.OK, EXPOSITION, self._metrics.render())

    async def _get_live(self, _: Request) -> Answer:
        return _text(HTTPStatus.OK, "live")

    async def _get_ready(self, _: Request) -> Answer:
        why_not = await self._readiness.why_not()
        if why_not:
            return _text(HTTPStatus.SERVICE_UNAVAILABLE, why_not)
        return _text(HTTPStatus.OK, "ready")

    async def _get_drill(self, _: Request) -> Answer:
        if self._drills is None:
            return _text(HTTPStatus.NOT_FOUND, "no fallback is configured, so none is drilled")
        targets = [_said(drilled) for drilled in self._drills.last]
        return _json({"ok": self._drills.are_ok, "targets": targets})

    async def _post_drill(self, request: Request) -> Answer:
        if self._drills is not None:
            await self._drills.run()
        return await self._get_drill(request)

    async def _get_recordings(self, _: Request) -> Answer:
        cases = await asyncio.to_thread(self._recorder.export)
        return _answer(HTTPStatus.OK, YAML, cases)

    async def _post_check(self, request: Request) -> Answer:
        """Say what the contract has against a request with this body for another path."""
        path = parse_qs(request.target.partition("?")[2]).get("path")
        if not path:
            return _text(HTTPStatus.BAD_REQUEST, "say for which path: POST /check?path=/predict")
        asked = Request("POST", path[0], request.headers, request.body)
        if not self._contract.applies_to(asked.method, asked.target):
            return _json({"violations": []})
        return _json({"violations": await self._looker.look(asked, self._violations)})

    def _violations(self, request: Request) -> tuple[Violation, ...]:
        violations, _ = self._contract.check(request)
        return violations


def _said(drilled: Drilled) -> dict[str, Any]:
    return {
        "name": drilled.target,
        "ok": drilled.ok,
        "status": drilled.status,
        "milliseconds": round(drilled.seconds * 1000),
        "why": drilled.why,
    }


def _text(status: HTTPStatus, words: str) -> Answer:
    return _answer(status, TEXT, f"{words}\n".encode())


def _json(value: Any) -> Answer:
    return _answer(HTTPStatus.OK, JSON, msgspec.json.encode(value))


def _answer(status: HTTPStatus, content_type: bytes, body: bytes) -> Answer:
    return Answer(status, ((b"content-type", content_type),), body)
