"""The admin port answers what it should, and nothing that changes what happens to requests."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest
import yaml

from crossfade.sidecar.admin import Admin
from crossfade.sidecar.config import Config, Fallback, Golden, Inputs, Recording, Target
from crossfade.sidecar.contract import Contract
from crossfade.sidecar.fallback import Chain, Drills
from crossfade.sidecar.looker import HERE_BYTES, Looker
from crossfade.sidecar.messages import Answer, Request, Violation
from crossfade.sidecar.metrics import Metrics
from crossfade.sidecar.readiness import Readiness, probe_request
from crossfade.sidecar.recording import Recorder
from crossfade.sidecar.room import Room
from crossfade.sidecar.upstream_connection import UpstreamAnswer
from tests.unit.wires import arrived

CONFIG = Config(
    namespace="ml",
    name="iris",
    model="iris",
    version="1",
    revision="rev1",
    protocol="http",
    port=8012,
    admin_port=8013,
    model_port=8080,
    golden=Golden(path="/predict", body='{"age": 3}'),
    inputs=Inputs(
        schema={"type": "object", "properties": {"age": {"type": "number", "minimum": 0}}},
        paths=("/predict",),
    ),
    fallback=Fallback(
        targets=(Target(name="stable", host="iris.ml.svc", port=80), Target(name="static"))
    ),
    recording=Recording(percent=100),
)


@dataclass
class Network:
    """Answers by port: the model, and the fallback."""

    model: int = 200
    stable: int = 200
    asked: list[int] = field(default_factory=list)

    async def send(
        self,
        host: str,
        port: int,
        request: Request,
        timeout: float,  # noqa: ASYNC109 - the interface's
    ) -> Answer:
        self.asked.append(port)
        return Answer(self.model if port == CONFIG.model_port else self.stable, (), b"")

    async def open(self, host: str, port: int, request: Request) -> UpstreamAnswer:
        return arrived(await self.send(host, port, request, 0))


@dataclass
class World:
    network: Network
    readiness: Readiness
    recorder: Recorder
    admin: Admin

    async def ask(self, method: str, target: str, body: bytes = b"") -> tuple[int, str]:
        """Return the status and the words of an answer."""
        headers = ((b"content-type", b"application/json"),)
        answer = await self.admin.answer(Request(method, target, headers, body))
        return answer.status, answer.body.decode()


def clock() -> float:
    return 100.0


def world() -> World:
    network, metrics = Network(), Metrics(CONFIG)
    readiness = Readiness(CONFIG, network, clock)
    assert CONFIG.fallback is not None
    chain = Chain(CONFIG.fallback.targets, network, metrics, CONFIG.revision, clock, Room(1000))
    golden = probe_request(CONFIG)
    assert golden is not None
    recorder = Recorder(CONFIG, metrics, lambda: 0.0, lambda: datetime(2026, 1, 1, tzinfo=UTC))
    drills = Drills(chain, golden)
    admin = Admin(metrics, readiness, drills, recorder, Contract(CONFIG), Looker())
    return World(network, readiness, recorder, admin)


async def test_readiness_says_why_not() -> None:
    it = world()
    it.network.model = 503
    assert await it.ask("GET", "/ready") == (503, "the golden request got 503\n")
    it.network.model = 200
    assert await it.ask("GET", "/ready?verbose") == (200, "ready\n")
    it.readiness.drain()
    assert await it.ask("GET", "/ready") == (503, "the pod is ending\n")
    assert await it.ask("GET", "/live") == (200, "live\n")


async def test_metrics_are_in_prometheus_text_format() -> None:
    answer = await world().admin.answer(Request("GET", "/metrics", (), b""))
    assert answer.headers == ((b"content-type", b"text/plain; version=0.0.4; charset=utf-8"),)
    assert b"\ncrossfade_circuit_open 0.0\n" in answer.body


async def test_the_last_drill_is_told_and_another_made_on_demand() -> None:
    it = world()
    status, words = await it.ask("GET", "/drill")
    assert (status, json.loads(words)) == (200, {"ok": False, "targets": []})
    it.network.stable = 404
    status, words = await it.ask("POST", "/drill")
    failed = {
        "ok": False,
        "targets": [
            {
                "name": "stable",
                "ok": False,
                "status": 404,
                "milliseconds": 0,
                "why": "the golden request got 404",
            },
            {"name": "static", "ok": True, "status": 200, "milliseconds": 0, "why": ""},
        ],
    }
    assert (status, json.loads(words)) == (200, failed)
    it.network.stable = 200
    assert json.loads((await it.ask("GET", "/drill"))[1]) == failed
    assert it.network.asked == [80]
    assert json.loads((await it.ask("POST", "/drill"))[1])["ok"] is True
    assert json.loads((await it.ask("GET", "/drill"))[1])["ok"] is True


async def test_a_body_is_checked_against_the_contract() -> None:
    it = world()
    status, words = await it.ask("POST", "/check?path=/predict", b'{"age": -1}')
    assert status == 200
    (violation,) = json.loads(words)["violations"]
    assert set(violation) == {"field", "rule", "message"}
    assert (violation["field"], violation["rule"]) == ("age", "minimum")
    good = await it.ask("POST", "/check?path=%2Fpredict", b'{"age": 1}')
    assert good == (200, '{"violations":[]}')
    elsewhere = await it.ask("POST", "/check?path=/other", b'{"age": -1}')
    assert elsewhere == (200, '{"violations":[]}')
    status, words = await it.ask("POST", "/check", b'{"age": -1}')
    assert (status, words) == (400, "say for which path: POST /check?path=/predict\n")
    assert it.network.asked == []


async def test_a_large_body_is_checked_beside_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    threads = []

    def check(*_: object) -> tuple[tuple[Violation, ...], None]:
        threads.append(threading.current_thread())
        return (), None

    monkeypatch.setattr(Contract, "check", check)
    for body in (b"1", b" " * HERE_BYTES + b"1"):
        assert await world().ask("POST", "/check?path=/predict", body) == (200, '{"violations":[]}')
    small, large = threads
    assert small is threading.main_thread()
    assert large is not small


async def test_recordings_are_yaml() -> None:
    it = world()
    it.recorder.record(Request("POST", "/predict", (), b'{"age": 1}'), Answer(200, (), b"{}"), 0.01)
    answer = await it.admin.answer(Request("GET", "/recordings", (), b""))
    assert answer.headers == ((b"content-type", b"application/yaml"),)
    (case,) = yaml.safe_load_all(answer.body)
    assert case["kind"] == "Http"


async def test_what_is_not_configured_is_not_drilled() -> None:
    it = world()
    admin = Admin(Metrics(CONFIG), it.readiness, None, it.recorder, Contract(CONFIG), Looker())
    answer = await admin.answer(Request("GET", "/drill", (), b""))
    assert (answer.status, answer.body) == (404, b"no fallback is configured, so none is drilled\n")
    assert await admin.answer(Request("POST", "/drill", (), b"")) == answer


@pytest.mark.parametrize(
    ("method", "target", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/metrics/", 404),
        ("GET", "//metrics", 404),
        ("POST", "/metrics", 405),
        ("DELETE", "/recordings", 405),
        ("PUT", "/check?path=/predict", 405),
    ],
)
async def test_all_else_is_refused_and_told_what_there_is(
    method: str, target: str, status: int
) -> None:
    got, words = await world().ask(method, target)
    assert got == status
    assert words == (
        "there are: GET /metrics, GET /ready, GET /live, GET /drill, POST /drill, GET /recordings,"
        " POST /check\n"
    )
