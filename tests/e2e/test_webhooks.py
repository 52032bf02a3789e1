"""Receivers and gates of a real rollout: the operator's pod posts to a server of the test's own."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

import pytest
from typing_extensions import override

from examples.demo.kubectl import Kubectl
from tests.e2e.rollouts import Rollout, eventually

SECRET: Final = "crossfade-webhooks"  # noqa: S105 - a name
SIGNING_KEY: Final = "whsec_" + base64.b64encode(bytes(range(32))).decode()


@dataclass(frozen=True)
class Got:
    """One request, and how it was answered."""

    path: str
    headers: Mapping[str, str]
    body: bytes
    status: int

    @property
    def event(self) -> dict[str, Any]:
        return dict(json.loads(self.body))


@dataclass
class Receiver:
    """Takes requests from pods: the node's own address is reached from everywhere."""

    host: str
    busy: int = 0
    """So many requests of notifications are still to be answered with 503."""
    allowed: bool = True
    """What the gate says."""
    got: list[Got] = field(default_factory=list)
    port: int = 0

    @property
    def address(self) -> str:
        return f"http://{self.host}:{self.port}"

    def answer(self, path: str) -> tuple[int, dict[str, Any]]:
        if path == "/gate":
            return 200, {"allowed": self.allowed, "message": "nothing moves before Monday"}
        if self.busy:
            self.busy -= 1
            return 503, {}
        return 200, {}

    def at(self, path: str, status: int = 200) -> list[Got]:
        return [it for it in self.got if (it.path, it.status) == (path, status)]

    def types(self) -> list[str]:
        """Return the types of the events that were taken."""
        prefix = "dev.crossfade.rollout."
        return [str(it.event["type"]).removeprefix(prefix) for it in self.at("/events")]


@pytest.fixture
def receiver(cluster: Kubectl) -> Iterator[Receiver]:
    host = cluster.run(
        "get", "nodes", "-o",
        'jsonpath={.items[0].status.addresses[?(@.type=="InternalIP")].address}',
    )  # fmt: skip
    receiver, lock = Receiver(host), threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            with lock:
                status, said = receiver.answer(self.path)
                receiver.got.append(Got(self.path, headers, body, status))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(said).encode())

        @override
        def log_message(self, format: str, *args: Any) -> None:
            """Keep still."""

    with ThreadingHTTPServer((host, 0), Handler) as server:
        receiver.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield receiver
        finally:
            server.shutdown()
            thread.join()


def is_signed(got: Got) -> bool:
    """Verify as docs/notifications.md shows."""
    headers = got.headers
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + got.body
    key = base64.b64decode(SIGNING_KEY.removeprefix("whsec_"))
    wanted = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    return hmac.compare_digest(headers["webhook-signature"], f"v1,{wanted}")


def told(rollout: Rollout, receiver: Receiver) -> dict[str, Any]:
    """Write the Secret; return the part of a spec that names the receivers."""
    rollout.apply_manifest(
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": SECRET, "namespace": rollout.namespace},
            "stringData": {"signing": SIGNING_KEY, "slack": f"{receiver.address}/slack/verysecret"},
        }
    )
    signing, slack = ({"name": SECRET, "key": key} for key in ("signing", "slack"))
    webhook = {"address": f"{receiver.address}/events", "signingKey": signing}
    return {
        "notifications": [
            {"name": "events", "webhook": webhook},
            {"name": "team", "slack": {"address": slack}},
        ]
    }


def test_a_gated_rollout_waits_for_its_yes_and_is_told_of_signed_and_once_each(
    rollout: Rollout, receiver: Receiver, gateway: str
) -> None:
    spec = told(rollout, receiver)
    rollout.apply("1.0.0", **spec)
    rollout.wait("Healthy", stable="1.0.0")
    assert receiver.got == []
    receiver.busy, receiver.allowed = 2, False
    signing = {"name": SECRET, "key": "signing"}
    webhook = {"address": f"{receiver.address}/gate", "signingKey": signing}
    manifest = rollout.manifest("2.0.0", **spec)
    manifest["spec"]["rollout"]["gates"] = [
        {"name": "freeze", "webhook": webhook, "fromWeightPercent": 50}
    ]
    with rollout.load(20, gateway) as stats:
        rollout.apply_manifest(manifest)
        rollout.wait_weight(10)
        words = "gate freeze says no: nothing moves before Monday"
        eventually(lambda: rollout.status["message"] == words or None, 60, rollout.explain)
        assert rollout.status["gates"] == [
            {"name": "freeze", "answer": "refused", "message": "nothing moves before Monday"}
        ]
        receiver.allowed = True
        rollout.wait("Healthy", stable="2.0.0")
    assert not stats.lost(), stats.lost()

    eventually(lambda: not rollout.status["notices"] or None, 60, rollout.explain)
    assert receiver.types() == ["started", "held", "promoted"]
    assert len({it.event["id"] for it in receiver.at("/events")}) == 3
    refused = receiver.at("/events", 503) + receiver.at("/slack/verysecret", 503)
    assert len(refused) == 2
    events = [*receiver.at("/events"), *receiver.at("/events", 503), *receiver.at("/gate")]
    assert all(is_signed(it) for it in events)
    assert {it.event["data"]["nextWeightPercent"] for it in receiver.at("/gate")} == {50, 100}
    name = f"*{rollout.namespace}/{rollout.name}*"
    assert [it.event["text"] for it in receiver.at("/slack/verysecret")] == [
        f"{name} rollout started: version 2.0.0 is rolled out beside 1.0.0",
        f"{name} held: {words}",
        f"{name} promoted: version 2.0.0 is stable; 1.0.0 is kept ready",
    ]
    reasons = [reason for reason, _ in rollout.events()]
    assert (reasons.count("GateClosed"), reasons.count("GateOpened")) == (1, 1)


def test_a_version_that_is_taken_back_is_told_of_and_a_receiver_that_is_away_holds_nothing(
    cluster: Kubectl, rollout: Rollout, receiver: Receiver, gateway: str
) -> None:
    spec = told(rollout, receiver)
    gone = f"{receiver.address.replace('http:', 'https:')}/elsewhere"
    lost = {"name": "lost", "events": ["started"], "webhook": {"address": gone}}
    spec["notifications"].append(lost)
    rollout.apply("1.0.0", **spec)
    rollout.wait("Healthy", stable="1.0.0")
    with rollout.load(20, gateway) as stats:
        rollout.apply("2.0.0", {"ERROR_PERCENT": 50}, **spec)
        rollout.wait("RolledBack", stable="1.0.0")
    assert not stats.lost(), stats.lost()

    def only_lost() -> bool | None:
        waiting = {name for notice in rollout.status["notices"] for name in notice["receivers"]}
        return waiting == {"lost"} or None

    eventually(only_lost, 60, rollout.explain)
    assert receiver.types() == ["started", "rolledBack"]
    (back,) = (it for it in receiver.at("/events") if it.event["data"]["reason"] == "RollingBack")
    assert is_signed(back)
    assert back.event["subject"] == "2.0.0"
    assert back.event["data"]["stable"]["version"] == "1.0.0"
    assert "(MetricHarm): errors:" in back.event["data"]["message"]
    log = cluster.run("-n", "crossfade-system", "logs", "deployment/crossfade-operator")
    shown = f"{log}{rollout.status}{rollout.events()}"
    assert "verysecret" not in shown
    assert SIGNING_KEY not in shown
    # A receiver that is never reached keeps nobody from deleting it.
    cluster.run(
        "-n", rollout.namespace, "delete", "modeldeployments.crossfade.dev", rollout.name,
        "--wait", "--timeout=30s",
    )  # fmt: skip
