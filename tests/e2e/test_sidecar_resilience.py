"""The sidecar before a model that fails, and clients that send too much or too many things.

Through the real gateway. The model is a program of the test's own, which fails when it is told to
and counts what it is asked. It is told past the sidecar, at its pod's own address.
"""

from __future__ import annotations

import asyncio
import json
import socket
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import aiohttp
import pytest

from tests.e2e.rollouts import Rollout, eventually
from tests.e2e.served import container, serving

MODEL: Final = """
import asyncio
import os
from aiohttp import web

state = {"fails": "", "asked": 0, "whole": 0}

async def health(request):
    return web.Response()

async def see(request):
    return web.json_response(state)

async def tell(request):
    state["fails"] = await request.text()
    return web.Response()

async def predict(request):
    state["asked"] += 1
    body = await request.read()
    state["whole"] += 1
    if state["fails"] == "serverError":
        return web.json_response({"error": "as I was told"}, status=500)
    if state["fails"] == "timeout":
        await asyncio.Event().wait()
    return web.json_response(
        {
            "version": os.environ["VERSION"],
            "bytes": len(body),
            "label": request.query.get("label", "none"),
            "from": request.headers.get("crossfade-fallback-from"),
        }
    )

app = web.Application(client_max_size=2**30)
app.router.add_get("/health", health)
app.router.add_get("/state", see)
app.router.add_post("/fails", tell)
app.router.add_route("*", "/{path:.*}", predict)
web.run_app(app, port=8080, shutdown_timeout=1)
"""

GOLDEN: Final = {"goldenRequest": {"path": "/health", "method": "GET"}}

BY_HAND: Final = {"steps": [{"weightPercent": 50, "pause": {}}], "probationSeconds": 3600}

NOBODY: Final = {"static": {"body": {"version": "nobody"}}}


class Answer(NamedTuple):
    """What a client gets."""

    status: int
    by: str
    """The fallback's target; "": the model."""
    why: str
    body: dict[str, Any]


@dataclass
class Model:
    """A model that fails when it is told to, behind a sidecar and the gateway."""

    rollout: Rollout
    gateway: str

    def serve(self, version: str, **spec: Any) -> None:
        """Apply a version that people judge."""
        parts = serving(MODEL, "operator:dev", env=[{"name": "VERSION", "value": version}])
        usual = {"sidecar": GOLDEN, "rollout": BY_HAND}
        manifest = self.rollout.manifest(version, **(parts | usual | spec))
        del manifest["spec"]["analysis"]
        self.rollout.apply_manifest(manifest)

    def serve_first(self, **spec: Any) -> None:
        """Apply the first version, and wait until it serves."""
        self.serve("1.0.0", **spec)
        self.rollout.wait("Healthy", stable="1.0.0")

    def ask(
        self,
        body: bytes | Iterable[bytes] = b"{}",
        path: str = "/predict",
        method: str = "POST",
    ) -> Answer:
        """Send a request through the gateway, on a connection of its own."""
        request = urllib.request.Request(
            f"http://{self.gateway}{path}",
            data=body,
            headers={"Host": self.rollout.host, "Content-Type": "application/json"},
            method=method,
        )
        try:
            answer = urllib.request.urlopen(request, timeout=30)
        except urllib.error.HTTPError as error:
            answer = error
        with answer:
            by, why = (
                answer.headers.get(f"crossfade-fallback{end}", "") for end in ("", "-reason")
            )
            return Answer(answer.status, by, why, json.loads(answer.read() or b"{}"))

    def fails(self, version: str, how: str) -> None:
        """Have the models of a version fail; "": be well."""
        for pod in self.rollout.pods(version):
            urllib.request.urlopen(address_of(pod, "/fails"), how.encode(), timeout=10).close()

    def counted(self, what: str = "asked") -> int:
        """Return what the one model of 1.0.0 has counted."""
        [pod] = self.rollout.pods("1.0.0")
        with urllib.request.urlopen(address_of(pod, "/state"), timeout=10) as answer:
            return int(json.load(answer)[what])

    def metrics(self, version: str = "1.0.0") -> dict[str, float]:
        """Return what the one sidecar of a version exports, by series."""
        [pod] = self.rollout.pods(version)
        with urllib.request.urlopen(address_of(pod, "/metrics", 8013), timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        parts = (line.rpartition(" ") for line in lines if not line.startswith("#"))
        return {series: float(value) for series, _, value in parts}


def address_of(pod: dict[str, Any], path: str, port: int = 8080) -> str:
    return f"http://{pod['status']['podIP']}:{port}{path}"


@pytest.fixture
def model(rollout: Rollout, gateway: str) -> Model:
    return Model(rollout, gateway)


@pytest.mark.parametrize(("how", "code"), [("serverError", "500"), ("timeout", "504")])
def test_a_circuit_opens_while_the_model_fails_and_closes_by_itself(
    model: Model, how: str, code: str
) -> None:
    breaker = {"minRequests": 4, "windowSeconds": 60, "openSeconds": 3}
    model.serve_first(fallback={"timeoutSeconds": 3, "targets": [NOBODY], "breaker": breaker})
    seen: Counter[str] = Counter()

    def ask() -> str:
        """Return why the model did not answer; "": it did."""
        status, by, why, body = model.ask()
        said = ("static", "nobody") if why else ("", "1.0.0")
        assert (status, by, body["version"]) == (200, *said)
        seen[why] += 1
        return why

    def ask_until(why: str) -> None:
        eventually(lambda: ask() == why or None, 60, lambda: f"{why!r} of {seen}")

    assert ask() == ""
    assert model.metrics()["crossfade_circuit_open"] == 0
    failing_since = time.monotonic()
    model.fails("1.0.0", how)
    ask_until("openCircuit")
    assert model.metrics()["crossfade_circuit_open"] == 1
    ask_until(how)  # the model is tried again, and still fails
    ask_until("openCircuit")
    for _ in range(50):
        ask()
    model.fails("1.0.0", "")
    ask_until("")
    assert model.metrics()["crossfade_circuit_open"] == 0
    assert [ask() for _ in range(10)] == [""] * 10
    # Three failures opened it, then one in openSeconds was a trial; all others were not asked.
    trials = (time.monotonic() - failing_since) / breaker["openSeconds"]
    assert seen[how] <= 3 + 1 + trials, seen
    assert seen["openCircuit"] > seen[how], seen
    assert model.counted() == seen[""] + seen[how]
    exported = model.metrics()
    by_code = {
        it: exported[f'crossfade_model_requests_total{{code="{it}"}}']
        for it in ("200", "503", code)
    }
    assert by_code == {"200": seen[""], "503": seen["openCircuit"], code: seen[how]}


LIMIT: Final = 4096


@pytest.mark.parametrize("held", [False, True], ids=["streamed", "held"])
def test_a_body_over_the_limit_is_refused_and_the_model_never_sees_it(
    model: Model, held: bool
) -> None:
    fallback = {"fallback": {"targets": [NOBODY]}} if held else {}
    model.serve_first(sidecar=GOLDEN | {"maxBodyBytes": LIMIT}, **fallback)
    said = {"error": f"send at most {LIMIT} bytes, or raise maxBodyBytes"}

    def fits() -> None:
        answer = model.ask(bytes(LIMIT))
        assert (answer.status, answer.body["bytes"]) == (200, LIMIT)
        answer = model.ask([bytes(1000)] * 4)
        assert (answer.status, answer.body["bytes"]) == (200, 4000)

    fits()
    for _ in range(10):
        assert model.ask(bytes(LIMIT + 1)) == (413, "", "", said)
    assert model.counted("asked") == 2
    for _ in range(10):  # it does not say how long it is
        assert model.ask([bytes(1000)] * 5) == (413, "", "", said)
    assert model.counted("whole") == 2
    if held:
        assert model.counted("asked") == 2
    fits()
    assert model.counted("whole") == 4


TRAILING: Final = """
import asyncio
import json

async def read_chunks(reader):
    while size := int(await reader.readline(), 16):
        yield await reader.readexactly(size)
        await reader.readexactly(2)

async def handle(reader, writer):
    while begun := await reader.readline():
        if begun.startswith(b"GET "):
            await reader.readuntil(b"\\r\\n\\r\\n")
            writer.write(b"HTTP/1.1 200 OK\\r\\nContent-Length: 0\\r\\n\\r\\n")
            continue
        head = (await reader.readuntil(b"\\r\\n\\r\\n")).decode()
        body = b"".join([piece async for piece in read_chunks(reader)]).decode()
        trailers = b""
        while (line := await reader.readline()) != b"\\r\\n":
            trailers += line
        said = json.dumps({"head": head, "body": body, "trailers": trailers.decode()}).encode()
        writer.write(
            b"HTTP/1.1 200 OK\\r\\nTrailer: X-Tokens\\r\\nTransfer-Encoding: chunked\\r\\n\\r\\n"
            b"%x\\r\\n%b\\r\\n0\\r\\nX-Tokens: 42\\r\\n\\r\\n" % (len(said), said)
        )

async def main():
    async with await asyncio.start_server(handle, "0.0.0.0", 8080) as server:
        await server.serve_forever()

asyncio.run(main())
"""

CHUNKED: Final = (
    b"POST /a HTTP/1.1\r\nHost: %b\r\nConnection: close\r\nTE: trailers\r\nTrailer: X-Sum\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: 3\r\n\r\n"
)


def exchange(address: tuple[str, int], request: bytes) -> bytes:
    """Send bytes, and return all that comes back until the connection ends."""

    def connect() -> socket.socket | None:
        try:
            return socket.create_connection(address, timeout=2)
        except OSError:  # a node learns of a Service a little later than of a route
            return None

    with eventually(connect, 60, lambda: f"a connection to {address}") as connection:
        connection.settimeout(30)
        connection.sendall(request)
        with connection.makefile("rb") as answer:
            return answer.read()


@pytest.mark.parametrize("held", [False, True], ids=["streamed", "held"])
def test_trailers_go_both_ways(rollout: Rollout, gateway: str, held: bool) -> None:
    parts = serving(TRAILING, "operator:dev") | {"sidecar": GOLDEN, "rollout": BY_HAND}
    if held:
        parts |= {"fallback": {"targets": [NOBODY]}}
    rollout.apply("1.0.0", **parts)
    rollout.wait("Healthy", stable="1.0.0")
    request = CHUNKED % rollout.host.encode()
    # Traefik announces a request's trailers to the model and then sends none, with a sidecar or
    # without: Go's reverse proxy clones the request before they are there. Those of answers pass.
    answered = exchange((gateway, 80), request)
    assert b"\r\nTrailer: X-Tokens\r\n" in answered
    assert answered.endswith(b"\r\n0\r\nX-Tokens: 42\r\n\r\n"), answered
    address = rollout.get("service", rollout.name)["spec"]["clusterIP"]
    answered = exchange((address, 8080), request)
    assert answered.endswith(b"\r\n0\r\nX-Tokens: 42\r\n\r\n"), answered
    seen = json.loads(answered.partition(b"{")[2].partition(b"}")[0].join((b"{", b"}")))
    assert "\r\nTrailer: X-Sum\r\n" in seen["head"]
    assert (seen["body"], seen["trailers"]) == ("abc", "X-Sum: 3\r\n")


METHODS: Final = ("POST", "GET", "PUT", "DELETE", "PATCH", "PROPFIND", "SEARCH", "REPORT")


async def be_odd(model: Model, kind: str, count: int) -> Counter[int]:
    """Send requests with other paths, labels and fields each, and some odd methods."""
    turns = asyncio.Semaphore(8)
    url = f"http://{model.gateway}"
    headers = {"Host": model.rollout.host}

    async def ask(client: aiohttp.ClientSession, number: int) -> int:
        name = f"{kind}{number}"
        method = METHODS[number % len(METHODS)] if number % 5 else f"BREW{number}"
        path = f"/{name}/{number % 7}?label={name}&{name}={number}"
        body = {"country": name, "size": number, name: {name: [name]}}
        async with (
            turns,
            client.request(method, path, json=body, headers={f"x-{name}": name}) as answer,
        ):
            return answer.status

    async with aiohttp.ClientSession(url, headers=headers) as client:
        return Counter(await asyncio.gather(*(ask(client, number) for number in range(count))))


async def test_odd_clients_leave_the_number_of_series_bounded(model: Model) -> None:
    properties = {"country": {"type": "string"}, "size": {"type": "integer", "maximum": 10}}
    schema = {"type": "object", "properties": properties, "additionalProperties": False}
    country = {"name": "country", "jsonPath": "$.country", "type": "label"}
    label = {"name": "label", "jsonPath": "$.label", "type": "label"}
    few = label | {"name": "few", "labels": ["odd1", "odd2"]}
    inputs = {"schema": schema, "onViolation": "log", "features": [country]}
    model.serve_first(inputs=inputs, predictions=[label, few])
    before = model.metrics().keys()
    answered = {200: 320, 400: 80}  # a fifth has methods that HTTP does not know
    assert await be_odd(model, "odd", 400) == answered
    exported = model.metrics()
    assert Counter(it.partition("{")[0] for it in exported.keys() - before) == {
        "crossfade_feature_labels_total": 50,
        "crossfade_prediction_labels_total": 50,
        "crossfade_input_violations_total": 2,
    }
    assert await be_odd(model, "strange", 400) == answered
    assert model.metrics().keys() == exported.keys(), "not one series more"
    exported = model.metrics()
    kinds = {
        'crossfade_feature_labels_total{label="other",name="country"}': 640 - 50,
        'crossfade_prediction_labels_total{label="other",name="label"}': 640 - 50,
        'crossfade_prediction_labels_total{label="other",name="few"}': 640 - 2,
        'crossfade_input_violations_total{field="(other)",rule="additionalProperties"}': 640,
        'crossfade_model_requests_total{code="200"}': 640,
    }
    assert {it: exported[it] for it in kinds} == kinds


def test_the_previous_version_answers_for_a_model_and_after_it_a_service(model: Model) -> None:
    rollout = model.rollout
    labels = {"app": "rules"}
    rules = container("operator:dev", MODEL) | {"env": [{"name": "VERSION", "value": "rules"}]}
    metadata = {"name": "rules", "namespace": rollout.namespace}
    for kind, spec in {
        "Pod": {"containers": [rules]},
        "Service": {"selector": labels, "ports": [{"port": 80, "targetPort": 8080}]},
    }.items():
        rollout.apply_manifest(
            {
                "apiVersion": "v1",
                "kind": kind,
                "metadata": metadata | {"labels": labels},
                "spec": spec,
            }
        )
    model.serve_first()
    service = {"service": {"name": "rules", "port": 80}}
    model.serve("2.0.0", fallback={"targets": [{"previous": {}}, service]})
    rollout.wait_weight(50)
    drilled = [(it["target"], it["ok"]) for it in rollout.status["fallback"]]
    assert drilled == [("previous", True), ("service", True)]
    rollout.order("promote")
    status = rollout.wait("Probation", stable="2.0.0")
    revision = status["stable"]["revision"]

    def answers() -> tuple[int, str, str, str, str | None]:
        status, by, why, body = model.ask()
        return status, by, why, body["version"], body["from"]

    assert answers() == (200, "", "", "2.0.0", None)
    model.fails("2.0.0", "serverError")
    assert answers() == (200, "previous", "serverError", "1.0.0", revision)
    model.fails("1.0.0", "serverError")
    assert answers() == (200, "service", "serverError", "rules", revision)
    model.fails("1.0.0", "")
    assert answers() == (200, "previous", "serverError", "1.0.0", revision)
    model.fails("2.0.0", "")
    assert answers() == (200, "", "", "2.0.0", None)
    exported = model.metrics("2.0.0")
    assert {k: n for k, n in exported.items() if k.startswith("crossfade_fallback") and n} == {
        'crossfade_fallbacks_total{reason="serverError",target="previous"}': 2,
        'crossfade_fallbacks_total{reason="serverError",target="service"}': 1,
        'crossfade_fallback_failures_total{reason="serverError",target="previous"}': 1,
        'crossfade_fallback_drill_ok{target="previous"}': 1,
        'crossfade_fallback_drill_ok{target="service"}': 1,
    }
