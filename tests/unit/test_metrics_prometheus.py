from __future__ import annotations

import asyncio
import gc
import io
import json
import threading
import weakref
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs

import pytest
from typing_extensions import override

from crossfade.access.addresses import is_below
from crossfade.errors import MetricSourceError
from crossfade.metrics.endpoints import Credentials, Endpoint
from crossfade.metrics.prometheus import (
    CLIENTS_KEPT,
    Answer,
    Labels,
    PrometheusClient,
    RefusedError,
)


@dataclass
class Answers:
    """What the HTTP server says, and what it was asked."""

    status: int = 200
    body: bytes = b""
    location: str = ""
    wait: threading.Event | None = None
    asked: list[tuple[str, dict[str, list[str]], str | None]] = field(default_factory=list)
    """The address from the path on, with its query if it has one; the body's form; who asks."""
    port: int = 0

    def result(self, *series: object, **more: object) -> None:
        data = {"resultType": "matrix", "result": series}
        self.body = json.dumps({"status": "success", "data": data, **more}).encode()

    def endpoint(self, **changes: object) -> Endpoint:
        return Endpoint(f"http://127.0.0.1:{self.port}", **changes)  # type: ignore[arg-type]


@pytest.fixture
def server() -> Iterator[Answers]:
    answers = Answers()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            """As Prometheus: a form in the body is read if it says that it is one."""
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            is_form = self.headers["Content-Type"] == "application/x-www-form-urlencoded"
            form = parse_qs(body, strict_parsing=True) if is_form else {}
            answers.asked.append((self.path, form, self.headers["Authorization"]))
            if answers.wait:
                answers.wait.wait(2)
            self.send_response(answers.status)
            self.send_header("Content-Length", str(len(answers.body)))
            if answers.location:
                self.send_header("Location", answers.location)
            self.end_headers()
            self.wfile.write(answers.body)

        @override
        def log_message(self, format: str, *args: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        @override
        def handle_error(self, request: object, client_address: object) -> None:
            """A client that did not wait is no error of the server."""

    http = Server(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    answers.port = http.server_address[1]
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield answers
    http.shutdown()
    http.server_close()
    thread.join()


@pytest.fixture
def client() -> Iterator[PrometheusClient]:
    client = PrometheusClient()
    yield client
    client.close()
    gc.collect()


async def test_gives_raw_samples(server: Answers, client: PrometheusClient) -> None:
    server.result({"metric": {"pod": "a"}, "values": [[1.5, "2"], [2.5, "NaN"]]}, {"metric": {}})
    found = await client.instant(server.endpoint(), "r[5s]", 12.3456)
    assert [(one.labels, one.values) for one in found] == [
        ({"pod": "a"}, [(1.5, "2"), (2.5, "NaN")]),
        ({}, []),
    ]
    assert server.asked == [
        ("/api/v1/query", {"query": ["r[5s]"], "time": ["12.346"], "timeout": ["5s"]}, None)
    ]


async def test_a_query_may_be_longer_than_an_address(
    server: Answers, client: PrometheusClient
) -> None:
    """It is sent in the body and not in the address, also what has to be escaped."""
    server.result()
    pods = "|".join(f"fraud-{i:05}-" for i in range(8000))
    query = f'r{{pod=~"({pods}).*",of="ä&=+%; #"}}[5s]'
    assert len(query) > 100_000
    await client.instant(server.endpoint(), query, 1)
    await client.steps(server.endpoint(), query, 100, 200, 10)
    asked = [(address, form["query"]) for address, form, _ in server.asked]
    assert asked == [("/api/v1/query", [query]), ("/api/v1/query_range", [query])]


async def test_gives_native_histograms(server: Answers, client: PrometheusClient) -> None:
    histogram = {"count": "3", "sum": "1", "buckets": [[0, "0.5", "1", "3"]]}
    server.result({"metric": {"pod": "a"}, "histograms": [[1.5, histogram]]})
    (found,) = await client.instant(server.endpoint(), "r[5s]", 12)
    assert (found.labels, found.values) == ({"pod": "a"}, [])
    assert found.histograms == [(1.5, histogram)]


def test_labels_are_the_same_while_somebody_keeps_them() -> None:
    """They are read once for all the looks of a rollout, and forgotten with it."""
    body = b'{"data":{"result":[{"metric":{"pod":"kept"},"values":[[1.5,"2"]]}]}}'
    (first,), (second,) = (Answer(200, body).json()["data"]["result"] for _ in range(2))
    assert first.labels == {"pod": "kept"}
    assert isinstance(first.labels, Labels)
    kept = weakref.ref(first.labels)
    assert second.labels is kept()
    del first, second
    gc.collect()
    assert kept() is None


async def test_asks_for_steps(server: Answers, client: PrometheusClient) -> None:
    server.result()
    assert await client.steps(server.endpoint(), "v", 100, 200, 10) == []
    asked = {"query": "v", "start": "100", "end": "200", "step": "10s", "timeout": "5s"}
    form = {name: [value] for name, value in asked.items()}
    assert server.asked == [("/api/v1/query_range", form, None)]


async def test_shows_a_bearer_token_or_a_password(
    server: Answers, client: PrometheusClient
) -> None:
    server.result()
    for shown in (Credentials(bearer_token="t"), Credentials(username="u", password="p")):  # noqa: S106
        await client.instant(server.endpoint(credentials=shown), "r[5s]", 1)
    assert [who for _, _, who in server.asked] == ["Bearer t", "Basic dTpw"]
    assert "t" not in repr(Credentials(bearer_token="ttt"))[len("Credentials(") :]  # noqa: S106


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (400, b'{"status":"error","error":"parse error:\\n no"}', "HTTP 400: parse error: no"),
        (503, b"<html>secret</html>", "HTTP 503: not in Prometheus' words$"),
        (502, b"", "HTTP 502: not in Prometheus' words$"),
        (200, b"<html>hello</html>", "does not answer as Prometheus does"),
        (200, b'{"status":"success"}', "does not answer as Prometheus does"),
        (200, b'{"data":{"result":[1]}}', "does not answer as Prometheus does"),
        (200, b'{"data":{"result":[{"metric":[]}]}}', "does not answer as Prometheus does"),
        (200, b'{"data":{"result":[{"metric":{},"values":[}]}}', "as Prometheus does"),
        (
            200,
            b'{"data":{"result":[]},"warnings":["store gone"]}',
            "a partial answer: store gone",
        ),
    ],
)
async def test_an_answer_that_cannot_be_used_is_an_error(
    server: Answers, client: PrometheusClient, status: int, body: bytes, message: str
) -> None:
    server.status, server.body = status, body
    with pytest.raises(MetricSourceError, match=message):
        await client.instant(server.endpoint(), "r[5s]", 1)
    assert len(server.asked) == 1


async def test_samples_that_are_none_are_an_error_of_their_series(
    server: Answers, client: PrometheusClient
) -> None:
    server.result({"metric": {}, "values": [1]}, {"metric": {}, "values": [[1, "2"]]})
    wrong, right = await client.instant(server.endpoint(), "r[5s]", 1)
    with pytest.raises(MetricSourceError, match="samples that are not understood"):
        _ = wrong.values
    assert right.values == [(1.0, "2")]


async def test_a_redirect_is_not_followed(server: Answers, client: PrometheusClient) -> None:
    """Who may name an address must not choose by it what else in the network is asked."""
    server.status, server.location = 307, f"http://127.0.0.1:{server.port}/elsewhere"
    with pytest.raises(MetricSourceError, match="HTTP 307"):
        await client.instant(server.endpoint(), "r[5s]", 1)
    assert [path for path, _, _ in server.asked] == ["/api/v1/query"]


BASE = "http://prometheus.monitoring:9090"


@pytest.mark.parametrize("path", ["", "/", "/tenant-a", "/a/b.c/"])
def test_what_is_below_an_allowed_address_may_be_asked(path: str) -> None:
    assert is_below(BASE + path, ["https://other", BASE])


@pytest.mark.parametrize(
    "address",
    [
        "http://169.254.169.254",
        "https://prometheus.monitoring:9090",
        BASE + "0",
        BASE + "@elsewhere",
        BASE + ".elsewhere",
        BASE + "\\@elsewhere",
        BASE + "/../admin",
        BASE + "/a/..",
        BASE + "/%2e%2e/admin",
        BASE + "//elsewhere",
        BASE + "/?x=",
        BASE + "/#",
        BASE + "/a\n",
    ],
)
def test_nothing_else_may_be_asked(address: str) -> None:
    assert not is_below(address, ["https://other", BASE])


async def test_an_address_that_is_not_allowed_is_never_asked(server: Answers) -> None:
    client = PrometheusClient([BASE])
    with pytest.raises(MetricSourceError, match=r"may not ask .*; it may ask http://prometheus"):
        await client.instant(server.endpoint(), "r[5s]", 1)
    assert server.asked == []
    client.close()


async def test_infos_are_no_warnings(server: Answers, client: PrometheusClient) -> None:
    server.result(infos=["metric might not be a counter"], warnings=[])
    assert await client.instant(server.endpoint(), "r[5s]", 1) == []


@pytest.mark.parametrize("status", [401, 403])
async def test_refused_credentials_are_an_error_of_their_own(
    server: Answers, client: PrometheusClient, status: int
) -> None:
    server.status = status
    with pytest.raises(RefusedError, match=f"HTTP {status}"):
        await client.instant(server.endpoint(), "r[5s]", 1)


async def test_nobody_there_is_an_error(server: Answers, client: PrometheusClient) -> None:
    with pytest.raises(MetricSourceError, match=r"is not reached: .*refused"):
        await client.instant(Endpoint("http://127.0.0.1:1"), "r[5s]", 1)


async def test_an_answer_that_is_late_is_an_error(
    server: Answers, client: PrometheusClient
) -> None:
    server.wait = threading.Event()
    with pytest.raises(MetricSourceError, match=r"did not answer within 0\.1 s"):
        await client.instant(server.endpoint(timeout_seconds=0.1), "r[5s]", 1)
    server.wait.set()


async def test_a_question_that_waits_for_too_long_is_late(
    server: Answers, client: PrometheusClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.wait = threading.Event()
    endpoint = server.endpoint(timeout_seconds=-0.95)
    monkeypatch.setattr("crossfade.metrics.prometheus._connect", lambda _: io.BytesIO())
    _, gate = client._client(endpoint)
    for _ in range(4):
        await gate.acquire()
    with pytest.raises(MetricSourceError, match="did not answer"):
        await client.instant(endpoint, "r[5s]", 1)


async def test_certificates_that_cannot_be_read_are_an_error(client: PrometheusClient) -> None:
    for shown in (Credentials(ca="nonsense"), Credentials(certificate="no", key="no")):
        endpoint = Endpoint("https://127.0.0.1:1", shown, insecure_skip_verify=True)
        with pytest.raises(MetricSourceError, match="cannot be read"):
            await client.instant(endpoint, "r[5s]", 1)


async def test_may_skip_the_check_of_a_certificate(client: PrometheusClient) -> None:
    endpoint = Endpoint("https://127.0.0.1:1", insecure_skip_verify=True)
    with pytest.raises(MetricSourceError, match="is not reached"):
        await client.instant(endpoint, "r[5s]", 1)


async def test_keeps_a_bounded_number_of_sessions(
    server: Answers, client: PrometheusClient
) -> None:
    server.result()
    for i in range(CLIENTS_KEPT + 2):
        client._client(Endpoint(f"http://127.0.0.1:{i + 1}"))
    assert len(client._clients) == CLIENTS_KEPT


async def test_asks_in_several_threads(server: Answers, client: PrometheusClient) -> None:
    server.result()
    endpoint = server.endpoint()
    await asyncio.gather(*(client.instant(endpoint, "r[5s]", i) for i in range(8)))
    assert len(server.asked) == 8
