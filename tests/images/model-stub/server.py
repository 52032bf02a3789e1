"""A model server that fails on demand, for end-to-end tests and benchmarks.

It speaks the part of the Open Inference Protocol that rollouts touch, counts what it answered,
and can be made slow, wrong, unready or dead, by environment variables or while it runs, by
`POST /fault`. Standard library only, and nothing is imported that is not needed: many of these
run on one small node.

    GET  /v2/health/live   /v2/health/ready   /v2/models/{name}   /v2/models/{name}/ready
    POST /v2/models/{name}/infer                    (also …/versions/{version}/infer)
    GET  /metrics          model_requests_total{code}, model_request_seconds (histogram),
                           model_predictions_total{label}, model_score (histogram)
    GET  /counts           {"200": 41, "500": 1}
    GET  /fault            what is set now;  POST /fault  {"ERROR_PERCENT": 20} sets it

A model's answer is deterministic (the parity of the sum of its inputs), so that two stubs agree
unless `FLIP_PERCENT` makes one of them differ. Its score is drawn evenly from 0 to 1, moved by
`SCORE_SHIFT`.
"""

from __future__ import annotations

import sys

if __name__ == "__main__":
    # asyncio does without ssl when it is missing; that saves 4 of 19 MB.
    sys.modules["ssl"] = None  # type: ignore[assignment]

import asyncio
import json
import os
import random
import signal
from bisect import bisect_left
from dataclasses import asdict, dataclass, fields, replace
from time import monotonic, perf_counter
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from typing_extensions import override
else:

    def override(method: Callable[..., Any]) -> Callable[..., Any]:
        """Stand in for `typing.override`, which Python 3.11 lacks."""
        return method


BUCKETS_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds of the latency histogram: the Prometheus clients' default."""

MAX_HEADER_BYTES: Final = 16_384
MAX_BODY_BYTES: Final = 16_777_216

_REASONS: Final = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    411: "Length Required",
    413: "Content Too Large",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    503: "Service Unavailable",
}


@dataclass(frozen=True, slots=True)
class Settings:
    """What the server does; each field is an environment variable and a key of `POST /fault`."""

    MODEL_VERSION: str = "1"
    """Reported in answers and in the header `x-model-version`."""
    POD_NAME: str = ""
    """Reported in the header `x-pod`; the host's name if empty."""
    ERROR_PERCENT: float = 0.0
    """Share of inferences answered with 500."""
    ERROR_SEED: int = -1
    """Makes all draws repeatable, from the moment it is set; -1: random."""
    LATENCY_MS: float = 0.0
    """Added to each inference, in milliseconds."""
    SLOW_PERCENT: float = 0.0
    """Share of inferences that take `SLOW_MS` longer."""
    SLOW_MS: float = 0.0
    """Milliseconds added to slow inferences."""
    FLIP_PERCENT: float = 0.0
    """Share of answers that are the wrong way round: prediction drift, shadow disagreement."""
    SCORE_SHIFT: float = 0.0
    """Added to each score, which stays within 0 and 1: score drift."""
    SCORE_BUCKETS: int = 10
    """Buckets of the score histogram from 0 to 1; read at the start only."""
    READY_AFTER_SECONDS: float = 0.0
    """Not ready (503 everywhere but live) until so long after the start."""
    NEVER_READY: bool = False
    """Not ready, ever."""
    CRASH_AFTER_SECONDS: float = 0.0
    """End the process with code 1 so long after this was set; 0: do not."""
    DRAIN_SECONDS: float = 1.0
    """After SIGTERM, serve for so long, unready, with `Connection: close`."""
    PORT: int = 8080
    """Port to listen on; read at the start only."""

    def changed(self, values: Mapping[str, Any]) -> Settings:
        """Return these settings with `values` set.

        Args:
            values: Field names and their new values, as JSON values or as text.

        Raises:
            ValueError: A name is unknown or a value is of the wrong kind.
        """
        kinds = {field.name: type(getattr(self, field.name)) for field in fields(self)}
        if unknown := sorted(values.keys() - kinds.keys()):
            raise ValueError(f"unknown: {', '.join(unknown)}; known: {', '.join(kinds)}")
        return replace(self, **{key: _parse(kinds[key], text) for key, text in values.items()})

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Settings:
        """Read the settings from environment variables, ignoring all others.

        Raises:
            ValueError: A value is of the wrong kind.
        """
        names = {field.name for field in fields(cls)}
        found = {key: value for key, value in environment.items() if key in names and value}
        pod = environment.get("HOSTNAME", "unknown")
        return cls(POD_NAME=pod).changed(found)


def _parse(kind: type, value: Any) -> Any:
    if kind is bool and isinstance(value, str):
        return value.strip().lower() in {"1", "true", "yes"}
    return kind(value)


class Request(NamedTuple):
    """A parsed HTTP request."""

    method: str
    path: str
    body: bytes


class Response(NamedTuple):
    """What to answer, and how long to wait before doing so."""

    code: int
    body: bytes
    content_type: str = "application/json"
    delay_seconds: float = 0.0
    counted: bool = False


class Histogram:
    """Counts numbers by upper bounds."""

    def __init__(self, name: str, bounds: Sequence[float]) -> None:
        self._name = name
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, number: float) -> None:
        """Count a number."""
        self._counts[bisect_left(self._bounds, number)] += 1
        self._sum += number

    def lines(self, text: str) -> list[str]:
        """Render in the Prometheus text format."""
        name, total = self._name, 0
        lines = [f"# HELP {name} {text}", f"# TYPE {name} histogram"]
        for bound, count in zip((*self._bounds, "+Inf"), self._counts, strict=True):
            total += count
            lines.append(f'{name}_bucket{{le="{bound}"}} {total}')
        return [*lines, f"{name}_sum {self._sum!r}", f"{name}_count {total}"]


class Model:
    """The behaviour: settings, dice and counters; knows no sockets."""

    def __init__(self, settings: Settings, *, now: Callable[[], float] = monotonic) -> None:
        self.settings = settings
        self.counts: dict[int, int] = {200: 0, 500: 0}
        self.draining = False
        self.on_change: Callable[[Settings], None] = lambda _settings: None
        self._now = now
        self._started = now()
        self._dice = _dice(settings)
        self._seconds = Histogram("model_request_seconds", BUCKETS_SECONDS)
        count = settings.SCORE_BUCKETS
        self._scores = Histogram("model_score", [(i + 1) / count for i in range(count)])
        self._labels = [0, 0]

    @property
    def is_ready(self) -> bool:
        """Whether inferences are served; false while draining, though they then still are."""
        return self._is_loaded and not self.draining

    @property
    def _is_loaded(self) -> bool:
        settings = self.settings
        age = self._now() - self._started
        return not settings.NEVER_READY and age >= settings.READY_AFTER_SECONDS

    def answer(self, request: Request) -> Response:
        """Decide the answer to a request."""
        path = request.path
        if path.startswith("/v2/models/") and path.endswith("/infer"):
            return self._infer(request) if request.method == "POST" else _error(405, "use POST")
        if path == "/fault" and request.method == "POST":
            return self._set_fault(request.body)
        if request.method not in {"GET", "HEAD"}:
            return _error(405, f"no {request.method} here")
        return self._read(path)

    def count(self, code: int, seconds: float) -> None:
        """Count an inference that was answered with `code` after `seconds`."""
        self.counts[code] = self.counts.get(code, 0) + 1
        self._seconds.observe(seconds)

    def metrics(self) -> str:
        """Render the counters in the Prometheus text format."""
        lines = [
            "# HELP model_requests_total Inferences answered, by HTTP status code.",
            "# TYPE model_requests_total counter",
        ]
        lines += [
            f'model_requests_total{{code="{code}"}} {count}'
            for code, count in sorted(self.counts.items())
        ]
        lines += [
            "# HELP model_predictions_total Predictions, by what was predicted.",
            "# TYPE model_predictions_total counter",
        ]
        lines += [
            f'model_predictions_total{{label="{label}"}} {count}'
            for label, count in enumerate(self._labels)
        ]
        lines += self._seconds.lines("Time to answer an inference.")
        lines += self._scores.lines("How sure the model is.")
        return "\n".join(lines) + "\n"

    def _read(self, path: str) -> Response:
        match path.split("/")[1:]:
            case ["metrics"]:
                text = "text/plain; version=0.0.4; charset=utf-8"
                return Response(200, self.metrics().encode(), text)
            case ["counts"]:
                return _json({str(code): count for code, count in sorted(self.counts.items())})
            case ["fault"]:
                return _json(asdict(self.settings))
            case ["v2", "health", "live"]:
                return _json({"live": True})
            case ["v2", "health", "ready"] | ["v2", "models", _, "ready"]:
                return _json({"ready": self.is_ready}, code=200 if self.is_ready else 503)
            case ["v2", "models", name]:
                return _json({"name": name, "versions": [self.settings.MODEL_VERSION]})
            case _:
                return _error(404, f"nothing at {path}")

    def _infer(self, request: Request) -> Response:
        settings, dice = self.settings, self._dice.random
        if not self._is_loaded:
            return _error(503, "the model is not loaded")._replace(counted=True)
        delay_ms = settings.LATENCY_MS
        if settings.SLOW_PERCENT and dice() * 100 < settings.SLOW_PERCENT:
            delay_ms += settings.SLOW_MS
        if settings.ERROR_PERCENT and dice() * 100 < settings.ERROR_PERCENT:
            response = _error(500, "injected fault")
        else:
            flip = bool(settings.FLIP_PERCENT) and dice() * 100 < settings.FLIP_PERCENT
            response = self._predict(request, flip=flip)
        return response._replace(delay_seconds=delay_ms / 1000, counted=True)

    def _predict(self, request: Request, *, flip: bool) -> Response:
        try:
            document = json.loads(request.body)
            total = sum(sum(tensor["data"]) for tensor in document["inputs"])
        except (ValueError, KeyError, TypeError) as e:
            return _error(400, f"not an inference request: {e!r}")
        label = (int(total) + flip) % 2
        self._labels[label] += 1
        self._scores.observe(min(max(self._dice.random() + self.settings.SCORE_SHIFT, 0.0), 1.0))
        tensor = {"name": "predict", "shape": [1], "datatype": "INT64"}
        answer = {
            "model_name": request.path.split("/")[3],
            "model_version": self.settings.MODEL_VERSION,
            "outputs": [tensor | {"data": [label]}],
        }
        return _json(answer | {"id": document["id"]} if "id" in document else answer)

    def _set_fault(self, body: bytes) -> Response:
        try:
            values = json.loads(body)
            settings = self.settings.changed(values)
        except (ValueError, TypeError, AttributeError) as e:
            return _error(400, str(e))
        self.settings = settings
        if "ERROR_SEED" in values:
            self._dice = _dice(settings)
        if "CRASH_AFTER_SECONDS" in values:
            self.on_change(settings)
        return _json(asdict(settings))


def _dice(settings: Settings) -> random.Random:
    return random.Random(settings.ERROR_SEED if settings.ERROR_SEED >= 0 else None)


def _json(value: object, *, code: int = 200) -> Response:
    return Response(code, json.dumps(value).encode())


def _error(code: int, message: str) -> Response:
    return _json({"error": message}, code=code)


class Connection(asyncio.Protocol):
    """One keep-alive HTTP/1.1 connection; answers one request after another."""

    def __init__(self, model: Model, connections: set[Connection]) -> None:
        self._model = model
        self._connections = connections
        self._buffer = bytearray()
        self._transport: asyncio.Transport | None = None
        self._is_busy = False
        self._loop = asyncio.get_running_loop()

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._connections.add(self)

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._connections.discard(self)

    @override
    def data_received(self, data: bytes) -> None:
        self._buffer += data
        self._serve_next()

    def close_if_idle(self) -> None:
        """Close unless an answer is outstanding; its end then closes."""
        if self._transport and not self._is_busy:
            self._transport.close()

    def _serve_next(self) -> None:
        """Serve the requests that have arrived whole, up to one that has to wait."""
        while self._transport and not self._is_busy:
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                if len(self._buffer) > MAX_HEADER_BYTES:
                    self._send(_error(431, "header too large"), close=True)
                return
            head = bytes(self._buffer[:end])
            length, close, refusal = _framing(head.lower())
            if refusal:
                self._send(refusal, close=True)
                return
            total = end + 4 + length
            if len(self._buffer) < total:
                return
            body = bytes(self._buffer[end + 4 : total])
            del self._buffer[:total]
            self._serve(head, body, close=close)

    def _serve(self, head: bytes, body: bytes, *, close: bool) -> None:
        parts = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ")
        if len(parts) != 3:
            self._send(_error(400, "not HTTP"), close=True)
            return
        method, target, version = parts
        started = perf_counter()
        response = self._model.answer(Request(method, target.split("?", 1)[0], body))
        close = close or version == "HTTP/1.0"
        if response.delay_seconds <= 0:
            self._finish(response, started, close=close)
            return
        self._is_busy = True
        self._loop.call_later(response.delay_seconds, self._finish_late, response, started, close)

    def _finish_late(self, response: Response, started: float, close: bool) -> None:
        self._is_busy = False
        self._finish(response, started, close=close)
        self._serve_next()

    def _finish(self, response: Response, started: float, *, close: bool) -> None:
        if response.counted:
            self._model.count(response.code, perf_counter() - started)
        self._send(response, close=close)

    def _send(self, response: Response, *, close: bool) -> None:
        if self._transport is None:
            return
        settings = self._model.settings
        close = close or self._model.draining
        head = (
            f"HTTP/1.1 {response.code} {_REASONS[response.code]}\r\n"
            f"content-type: {response.content_type}\r\n"
            f"content-length: {len(response.body)}\r\n"
            f"x-pod: {settings.POD_NAME}\r\n"
            f"x-model-version: {settings.MODEL_VERSION}\r\n"
            f"{'connection: close' if close else 'connection: keep-alive'}\r\n\r\n"
        )
        self._transport.write(head.encode("latin-1") + response.body)
        if close:
            self._transport.close()


def _framing(head: bytes) -> tuple[int, bool, Response | None]:
    """Return the body's length, whether the client closes, and a refusal if it cannot be read."""
    length, close = 0, False
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name == b"content-length":
            if not value.strip().isdigit():
                return 0, True, _error(400, "bad content-length")
            length = int(value)
        elif name == b"connection":
            close = b"close" in value
        elif name == b"transfer-encoding":
            return 0, True, _error(411, "send a content-length")
    refusal = _error(413, "body too large") if length > MAX_BODY_BYTES else None
    return length, close, refusal


class Server:
    """Listens, crashes when told to, and drains when asked to end."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self._connections: set[Connection] = set()
        self._listener: asyncio.Server | None = None
        self._crash: asyncio.TimerHandle | None = None
        model.on_change = self._plan_crash

    async def start(self, host: str = "0.0.0.0") -> int:  # noqa: S104 - it serves a pod's network
        """Listen, and return the port."""
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(
            lambda: Connection(self.model, self._connections),
            host,
            self.model.settings.PORT,
            backlog=1024,
        )
        self._plan_crash(self.model.settings)
        port: int = self._listener.sockets[0].getsockname()[1]
        return port

    async def drain(self) -> None:
        """Serve on, unready, for `DRAIN_SECONDS`; then stop listening and end what is open.

        New connections are taken meanwhile: load balancers learn of a pod's end only after it.
        """
        self.model.draining = True
        await asyncio.sleep(self.model.settings.DRAIN_SECONDS)
        if self._crash:
            self._crash.cancel()
        if self._listener:
            self._listener.close()
        while self._connections:
            for connection in tuple(self._connections):
                connection.close_if_idle()
            await asyncio.sleep(0.01)

    def _plan_crash(self, settings: Settings) -> None:
        if self._crash:
            self._crash.cancel()
            self._crash = None
        if settings.CRASH_AFTER_SECONDS > 0:
            loop = asyncio.get_running_loop()
            # No clean-up: a crash is to look like one.
            self._crash = loop.call_later(settings.CRASH_AFTER_SECONDS, os._exit, 1)


async def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT, then drain."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    server = Server(Model(settings))
    port = await server.start()
    print(f"model version {settings.MODEL_VERSION} on port {port}", flush=True)  # noqa: T201
    await stop.wait()
    await server.drain()


if __name__ == "__main__":
    asyncio.run(serve(Settings.from_environment(os.environ)))
