"""The analyst against a real Prometheus that scrapes an exporter of ours every second."""

from __future__ import annotations

import asyncio
import gc
import itertools
import json
import re
import socket
import ssl
import struct
import subprocess
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from typing_extensions import override

from cluster.paths import Paths
from crossfade.api.v1alpha1 import Analysis
from crossfade.evidence.rates import RateTests
from crossfade.evidence.verdicts import MetricAnswer, Verdict
from crossfade.metrics.analyst import Arm, Subject
from crossfade.metrics.counts import CountsFold
from crossfade.metrics.prometheus import PrometheusClient
from crossfade.metrics.prometheus_analyst import PrometheusAnalyst
from crossfade.names import NamespacedName

PASSWORD_HASH = "$2b$04$X4FlRs0iYjrB8uTVh3R5PuIUKanBnCLBz8Py0.ZGga8EUp1JGUgS2"  # noqa: S105 - of a server that lives for one test
"""bcrypt of "s3cret"."""

CASES = (
    "healthy", "broken", "reset", "gone", "label", "slow", "query", "fold", "auth", "down", "drain",
    "exponential", "coarser",
)  # fmt: skip
CONVERTED = ("converted",)
"""Cases whose classic histograms Prometheus makes native ones of."""


PROTOBUF = (
    "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited"
)


def exponential(name: str, schema: int, buckets: Mapping[int, int], zeros: int = 0) -> bytes:
    """Encode a native histogram as client libraries do (io/prometheus/client/metrics.proto)."""
    first, last = min(buckets), max(buckets)
    counts = [buckets.get(index, 0) for index in range(first, last + 1)]
    deltas = b"".join(_zigzag(b - a) for a, b in itertools.pairwise([0, *counts]))
    histogram = (
        _field(1, sum(counts) + zeros)
        + _tag(2, 1) + struct.pack("<d", 1.0)
        + _field(5, schema * 2 if schema >= 0 else -schema * 2 - 1)
        + _tag(6, 1) + struct.pack("<d", 1e-128)
        + _field(7, zeros)
        + _nested(12, _tag(1, 0) + _zigzag(first) + _field(2, len(counts)))
        + _nested(13, deltas)
    )  # fmt: skip
    family = _nested(1, name.encode()) + _field(3, 4) + _nested(4, _nested(7, histogram))
    return _varint(len(family)) + family


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def _zigzag(number: int) -> bytes:
    return _varint(number * 2 if number >= 0 else -number * 2 - 1)


def _tag(field: int, wire: int) -> bytes:
    return _varint(field << 3 | wire)


def _field(field: int, number: int) -> bytes:
    return _tag(field, 0) + _varint(number)


def _nested(field: int, inner: bytes) -> bytes:
    return _tag(field, 2) + _varint(len(inner)) + inner


class Exporter:
    """Serves the counters of pods that do not exist, one path each."""

    def __init__(self) -> None:
        self.pods: dict[str, dict[str, float]] = {}
        self.natives: dict[str, bytes] = {}
        exporter = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                pod = self.path.lstrip("/")
                series = exporter.pods.get(pod)
                text = "# TYPE seconds histogram\n" * ("seconds_count" in (series or {}))
                text += "".join(f"{k} {v}\n" for k, v in (series or {}).copy().items())
                body = exporter.natives.get(pod, text.encode())
                known = series is not None or pod in exporter.natives
                self.send_response(200 if known else 404)
                kind = PROTOBUF if pod in exporter.natives else "text/plain; version=0.0.4"
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            @override
            def log_message(self, format: str, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def count(self, pod: str, good: int = 0, bad: int = 0) -> None:
        """Answer requests."""
        series = self.pods.setdefault(pod, {})
        for code, n in (("200", good), ("500", bad)):
            if n:
                key = f'requests_total{{code="{code}"}}'
                series[key] = series.get(key, 0) + n


@dataclass
class Server:
    """A Prometheus of this test."""

    binary: Path
    folder: Path
    exporter: Exporter
    secured: bool = False
    port: int = 0
    process: subprocess.Popen[bytes] | None = None
    ca: str = ""

    @property
    def address(self) -> str:
        return f"http{'s' * self.secured}://127.0.0.1:{self.port}"

    def start(self) -> None:
        self.folder.mkdir(exist_ok=True)
        self.port = self.port or _free_port()
        arguments = [
            str(self.binary),
            f"--config.file={self._configuration()}",
            f"--storage.tsdb.path={self.folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{self.port}",
            "--log.level=error",
        ]
        if self.secured:
            arguments.append(f"--web.config.file={self._web_configuration()}")
        self.process = subprocess.Popen(arguments, cwd=self.folder)
        deadline = time.monotonic() + 60
        while not self._ready():
            assert self.process.poll() is None, "Prometheus ended"
            assert time.monotonic() < deadline, "Prometheus is not ready"
            time.sleep(0.1)

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait(timeout=30)
            self.process = None

    def _ready(self) -> bool:
        try:
            context = ssl._create_unverified_context() if self.secured else None  # noqa: S323
            urllib.request.urlopen(f"{self.address}/-/ready", timeout=1, context=context).close()
        except urllib.error.HTTPError as e:
            e.close()
            return e.code == 401
        except OSError:
            return False
        return True

    def _configuration(self) -> Path:
        host, port = self.exporter.server.server_address[:2]

        def job(name: str, cases: tuple[str, ...], **options: bool) -> dict[str, object]:
            targets = [
                {
                    "targets": [f"{host!s}:{port}"],
                    "labels": {
                        "namespace": "ml",
                        "pod": pod,
                        "instance": pod,
                        "__metrics_path__": f"/{pod}",
                    },
                }
                for case in cases
                for pod in (_canary(case), _stable(case))
            ]
            return {"job_name": name, "scrape_interval": "1s", "scrape_timeout": "1s",
                    "static_configs": targets, **options}  # fmt: skip

        path = self.folder / "prometheus.yml"
        jobs = [
            job("models", CASES, scrape_native_histograms=True),
            job("converted", CONVERTED, convert_classic_histograms_to_nhcb=True),
        ]
        path.write_text(json.dumps({"scrape_configs": jobs}))
        return path

    def _web_configuration(self) -> Path:
        run = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
        subprocess.run(
            [*run, "-keyout", "ca.key", "-out", "ca.crt", "-subj", "/CN=Test CA",
             "-addext", "keyUsage=critical,keyCertSign"],
            cwd=self.folder, check=True, capture_output=True,
        )  # fmt: skip
        subprocess.run(
            [*run, "-keyout", "tls.key", "-out", "tls.crt", "-subj", "/CN=prometheus",
             "-CA", "ca.crt", "-CAkey", "ca.key", "-addext", "subjectAltName=IP:127.0.0.1",
             "-addext", "basicConstraints=critical,CA:FALSE"],
            cwd=self.folder, check=True, capture_output=True,
        )  # fmt: skip
        self.ca = (self.folder / "ca.crt").read_text()
        path = self.folder / "web.yml"
        path.write_text(
            json.dumps(
                {
                    "tls_server_config": {"cert_file": "tls.crt", "key_file": "tls.key"},
                    "basic_auth_users": {"crossfade": PASSWORD_HASH},
                }
            )
        )
        return path


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def _canary(case: str) -> str:
    return f"{case}-bbbbbbbb-7d9f-x2x4"


def _stable(case: str) -> str:
    return f"{case}-aaaaaaaa-5c6b-q8q9"


class Secrets:
    """Secrets by name."""

    def __init__(self, **secrets: Mapping[str, bytes]) -> None:
        self.secrets = dict(secrets)

    async def read(self, namespace: str, name: str) -> Mapping[str, bytes] | None:
        return self.secrets.get(name)


@pytest.fixture(scope="module")
def exporter() -> Iterator[Exporter]:
    exporter = Exporter()
    yield exporter
    exporter.server.shutdown()
    exporter.server.server_close()


@pytest.fixture(scope="module")
def binary() -> Path:
    return Paths.from_environment().bin / "prometheus"


@pytest.fixture(scope="module")
def prometheus(
    binary: Path, exporter: Exporter, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    server = Server(binary, tmp_path_factory.mktemp("prometheus"), exporter)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def client() -> Iterator[PrometheusClient]:
    client = PrometheusClient()
    yield client
    client.close()


@dataclass
class Rollout:
    """One rollout under test."""

    case: str
    server: Server
    client: PrometheusClient
    metrics: list[dict[str, Any]]
    prometheus: dict[str, Any] = field(default_factory=dict)
    secrets: Secrets = field(default_factory=Secrets)
    since: datetime = field(default_factory=lambda: datetime.now(UTC))

    def __post_init__(self) -> None:
        self.analyst = self.fresh()

    def fresh(self) -> PrometheusAnalyst:
        """Return an analyst that remembers nothing."""
        return PrometheusAnalyst(self.client, self.secrets, time.monotonic)

    @property
    def subject(self) -> Subject:
        analysis = Analysis.model_validate(
            {
                "prometheus": {"address": self.server.address, **self.prometheus},
                "intervalSeconds": 1,
                "source": {
                    "requests": "requests_total",
                    "errors": 'requests_total{code=~"5.."}',
                    "latency": "seconds",
                },
                "metrics": self.metrics,
            }
        )
        return Subject(
            key=NamespacedName("ml", self.case),
            model="m",
            analysis=analysis,
            canary=Arm("bbbbbbbb", "2"),
            stable=Arm("aaaaaaaa", "1"),
            since=self.since,
            in_force_at=self.since,
            min_requests=10,
        )

    async def begin(self) -> None:
        """Wait until every pod was scraped: stable's interval across ``since`` is not compared."""
        await asyncio.sleep(2.5)

    async def look(self, analyst: PrometheusAnalyst | None = None) -> MetricAnswer:
        return (await (analyst or self.analyst).look(self.subject, datetime.now(UTC)))[0]

    async def until(self, wanted: Verdict, play: Callable[[], None] | None = None) -> MetricAnswer:
        """Look every half second until a verdict, for 20 s at most."""
        answer = await self.look()
        for _ in range(40):
            if answer.verdict is wanted:
                return answer
            if play is not None:
                play()
            await asyncio.sleep(0.5)
            answer = await self.look()
        pytest.fail(f"never {wanted}: {answer}")


def shares(answer: MetricAnswer) -> str:
    """Return what was said, without the intervals."""
    return re.sub(r" \[[^]]*\]", "", answer.message)


SLOW = {"name": "slow", "warmupSeconds": 0}
ERRORS = [{"name": "errors", "errorRate": {"maxPercent": 2}}]


async def _scraped(exporter: Exporter, case: str, server: Server) -> None:
    """Give both pods a past, and wait until it was scraped."""
    exporter.count(_stable(case), good=1_000_000, bad=200_000)
    exporter.count(_canary(case), good=1)
    await _known(server, f'requests_total{{pod=~"{case}-.*"}}', series=3)


async def _known(server: Server, selector: str, series: int) -> None:
    """Wait until Prometheus has some series, for 20 s at most."""
    url = f"{server.address}/api/v1/query?{urllib.parse.urlencode({'query': selector})}"
    for _ in range(200):
        if len(await asyncio.to_thread(_result, url)) == series:
            return
        await asyncio.sleep(0.1)
    pytest.fail(f"Prometheus never had {series} series of {selector}")


def _result(url: str) -> list[object]:
    with urllib.request.urlopen(url, timeout=5) as response:
        result: list[object] = json.load(response)["data"]["result"]
        return result


async def test_promotes_a_healthy_canary_and_ignores_what_was_before(
    exporter: Exporter, prometheus: Server, client: PrometheusClient
) -> None:
    await _scraped(exporter, "healthy", prometheus)
    rollout = Rollout("healthy", prometheus, client, ERRORS)
    await rollout.begin()
    assert (await rollout.look()).verdict is Verdict.NOT_ENOUGH_DATA

    def play() -> None:
        exporter.count(_stable("healthy"), good=90)
        exporter.count(_canary("healthy"), good=10)

    answer = await rollout.until(Verdict.HEALTHY, play)
    assert re.match("canary 0.0 % of [0-9]+, stable 0.0 % of ", shares(answer))


async def test_finds_a_new_label_value_of_a_scraped_pod_from_its_first_count(
    exporter: Exporter, prometheus: Server, client: PrometheusClient
) -> None:
    await _scraped(exporter, "label", prometheus)
    rollout = Rollout("label", prometheus, client, ERRORS)
    await rollout.begin()
    for requests in (8, 16):
        exporter.count(_stable("label"), good=90)
        exporter.count(_canary("label"), good=4, bad=4)
        for _ in range(40):
            answer = await rollout.look()
            if f" {requests} " in answer.message or f" {requests}, " in answer.message:
                break
            await asyncio.sleep(0.5)
    assert answer.verdict is Verdict.HARM
    assert shares(answer).startswith("canary 50.0 % of 16, stable 0.0 % of 180; limit 2 %")


async def test_counts_on_after_a_reset_and_after_a_pod_went_away(
    exporter: Exporter, prometheus: Server, client: PrometheusClient
) -> None:
    await _scraped(exporter, "reset", prometheus)
    rollout = Rollout("reset", prometheus, client, ERRORS)
    await rollout.begin()
    exporter.count(_stable("reset"), good=90)
    exporter.count(_canary("reset"), good=20)
    first = await rollout.until(Verdict.HEALTHY)
    assert "of 20," in shares(first)
    exporter.pods[_canary("reset")] = {}
    exporter.count(_canary("reset"), good=7)
    await asyncio.sleep(2.5)
    exporter.pods.pop(_stable("reset"))
    await asyncio.sleep(2.5)
    answer = await rollout.look()
    assert "canary 0.0 % of 27," in shares(answer)
    assert answer == await rollout.look(rollout.fresh())


async def test_says_that_the_newest_sample_is_old_when_the_canary_is_gone(
    exporter: Exporter, prometheus: Server, client: PrometheusClient
) -> None:
    await _scraped(exporter, "gone", prometheus)
    rollout = Rollout("gone", prometheus, client, ERRORS)
    exporter.count(_canary("gone"), good=20)
    await rollout.until(Verdict.HEALTHY)
    exporter.pods.pop(_canary("gone"))
    answer = await rollout.until(Verdict.UNAVAILABLE)
    assert "newest sample is" in answer.message


async def test_judges_slowness_by_a_bucket_and_names_the_borders(
    exporter: Exporter, prometheus: Server, client: PrometheusClient
) -> None:
    for pod, slow in ((_canary("slow"), 0), (_stable("slow"), 0)):
        exporter.pods[pod] = _histogram(fast=0, slow=slow)
    await _known(prometheus, 'seconds_count{pod=~"slow-.*"}', series=2)
    latency = {"maxMilliseconds": 300, "maxSlowPercent": 5}
    rollout = Rollout("slow", prometheus, client, [{**SLOW, "latency": latency}])
    await rollout.begin()
    rounds = itertools.count(1)

    def play() -> None:
        n = next(rounds)
        exporter.pods[_canary("slow")] = _histogram(fast=5 * n, slow=5 * n)
        exporter.pods[_stable("slow")] = _histogram(fast=99 * n, slow=n)

    answer = await rollout.until(Verdict.HARM, play)
    assert re.match("slower than 300 ms: canary 50.0 % of [0-9]+, stable 1.0 % of ", shares(answer))
    other = [{**SLOW, "latency": {**latency, "maxMilliseconds": 400}}]
    borderless = await replace(rollout, metrics=other).look()
    assert borderless.verdict is Verdict.UNAVAILABLE
    assert "the nearest are 300 and 1000" in borderless.message


async def test_judges_exponential_histograms_of_two_schemas_at_a_border_of_both(
    exporter: Exporter, prometheus: Server, client: PrometheusClient
) -> None:
    def play(n: int) -> None:
        # Schema 3, 2 ** (1/8): -16 ends at 250 ms, -14 at 297 ms, -8 at 500 ms, 0 at 1 s.
        canary = {-16: 10 * n, -14: 2 * n, 0: 8 * n}
        # Schema 1, 2 ** (1/2): -4 ends at 250 ms, -3 at 354 ms, 0 at 1 s.
        stable = {-4: 150 * n, -3: 29 * n, 0: n}
        exporter.natives[_canary("coarser")] = exponential("seconds", 3, canary, zeros=n)
        exporter.natives[_stable("coarser")] = exponential("seconds", 1, stable)

    play(0)
    await _known(prometheus, 'seconds{pod=~"coarser-.*"}', series=2)
    latency = {"maxMilliseconds": 300, "maxSlowPercent": 5}
    rollout = Rollout("coarser", prometheus, client, [{**SLOW, "latency": latency}])
    await rollout.begin()
    rounds = itertools.count(1)
    answer = await rollout.until(Verdict.HARM, lambda: play(next(rounds)))
    assert answer.message.startswith(
        "slower than 300 ms (judged at 353.6 ms, the next bucket border): canary 38.1 % "
    )


@pytest.mark.parametrize("case", ["exponential", "converted"])
async def test_finds_that_a_native_histogram_moved_away_from_stables_now_and_before(
    exporter: Exporter, prometheus: Server, client: PrometheusClient, case: str
) -> None:
    rounds = itertools.count()

    def play(canary: int = 1) -> None:
        n = next(rounds)
        each = (_stable(case), 80 * n, 20 * n), (_canary(case), canary * 2 * n, canary * 8 * n)
        for pod, low, high in each:
            if case == "exponential":
                exporter.natives[pod] = exponential("seconds", 3, {0: low, 7: high})
            else:
                exporter.pods[pod] = _histogram(fast=low, slow=high)

    play()
    await _known(prometheus, f'seconds{{pod=~"{case}-.*"}}', series=2)
    for _ in range(6):
        play(canary=0)
        await asyncio.sleep(1)
    drift = {"histogram": "seconds", "reference": {"stableBeforeSeconds": 60}}
    rollout = Rollout(case, prometheus, client, [{"name": "drift", "drift": drift}])
    answer = await rollout.until(Verdict.HARM, play)
    assert re.match("PSI [0-9.]+ from the reference; PSI [0-9.]+ from stable", answer.message)
    borders = "1|1.834008" if case == "exponential" else "0.3|1"
    assert re.search(f"; most by ({borders})[0-9]*: ", answer.message), answer.message
    await asyncio.sleep(1.5)
    now = datetime.now(UTC)
    subject = rollout.subject
    again = rollout.fresh()
    assert await rollout.analyst.look(subject, now) == await again.look(subject, now)


def _histogram(fast: int, slow: int) -> dict[str, float]:
    return {
        'seconds_bucket{le="0.3"}': fast,
        'seconds_bucket{le="1.0"}': fast + slow,
        'seconds_bucket{le="+Inf"}': fast + slow,
        "seconds_count": fast + slow,
        "seconds_sum": 1,
    }


async def test_counts_the_failures_of_a_query_and_says_what_is_wrong_with_one(
    exporter: Exporter, prometheus: Server, client: PrometheusClient
) -> None:
    exporter.pods[_canary("query")] = {"revenue": 1.0, 'twice{x="1"}': 1, 'twice{x="2"}': 1}
    await _known(prometheus, "revenue", series=1)

    def asking(promql: str) -> Rollout:
        query = {"promql": promql, "min": 0.95, "failureLimit": 1}
        return Rollout("query", prometheus, client, [{"name": "q", "query": query}])

    rollout = asking('revenue{namespace="{{namespace}}",pod=~"{{pods}}"}')
    assert (await rollout.until(Verdict.HEALTHY)).message == "1 is at least 0.95"
    exporter.pods[_canary("query")]["revenue"] = 0.5
    harm = await rollout.until(Verdict.HARM)
    assert "0.5 is below the minimum 0.95" in harm.message
    assert (await rollout.look(rollout.fresh())).verdict is Verdict.HARM
    several = await asking('twice{pod=~"{{pods}}"}').until(Verdict.UNAVAILABLE)
    assert "2 series where one was expected" in several.message
    bad = await asking("revenue{").until(Verdict.UNAVAILABLE)
    assert "HTTP 400" in bad.message
    assert "parse error" in bad.message
    none = asking("nothing_at_all")
    await asyncio.sleep(1.1)
    assert (await none.look()).message == "the query gave no value"


async def test_folding_again_gives_the_same_to_the_last_digit(
    exporter: Exporter, prometheus: Server, client: PrometheusClient
) -> None:
    await _scraped(exporter, "fold", prometheus)
    metrics = [{"name": "errors", "errorRate": {"maxPercent": 30, "worseThanStable": {"ratio": 2}}}]
    rollout = Rollout("fold", prometheus, client, metrics)
    for i in range(16):
        exporter.count(_stable("fold"), good=9 * i, bad=i % 3)
        exporter.count(_canary("fold"), good=i, bad=i % 2)
        await rollout.look()
        await asyncio.sleep(0.4)
    again = rollout.fresh()
    now = datetime.now(UTC)
    subject = rollout.subject
    assert await rollout.analyst.look(subject, now) == await again.look(subject, now)
    one, two = (_rates(a, subject) for a in (rollout.analyst, again))
    assert one.margin is not None
    assert two.margin is not None
    assert one.limit is not None
    assert two.limit is not None
    assert (one.canary, one.stable) == (two.canary, two.stable)
    assert one.canary.bad > 0
    assert one.margin.log_e() == two.margin.log_e()
    assert one.limit.log_e() == two.limit.log_e()


def _rates(analyst: PrometheusAnalyst, subject: Subject) -> RateTests:
    fold = analyst._kept[subject.key].metrics["errors"][1]
    assert isinstance(fold, CountsFold)
    return fold._ledger.standing()


@pytest.mark.filterwarnings("ignore:unclosed <ssl.SSLSocket:ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_shows_credentials_over_tls_and_reads_them_again_when_they_are_refused(
    exporter: Exporter, binary: Path, client: PrometheusClient, tmp_path: Path
) -> None:
    server = Server(binary, tmp_path / "secured", exporter, secured=True)
    server.start()
    try:
        secrets = Secrets(login={"username": b"crossfade", "password": b"wrong"})
        spec = {
            "basicAuth": {"name": "login"},
            "tls": {"ca": {"name": "ca", "key": "ca.crt"}},
        }
        exporter.count(_canary("auth"), good=1)
        rollout = Rollout("auth", server, client, ERRORS, spec, secrets)
        missing = await rollout.look()
        assert missing.message == "there is no Secret ca in namespace ml"
        secrets.secrets["ca"] = {"ca.crt": server.ca.encode()}
        refused = await rollout.look()
        assert (refused.verdict, "HTTP 401" in refused.message) == (Verdict.UNAVAILABLE, True)
        secrets.secrets["login"] = {"username": b"crossfade", "password": b"s3cret"}
        await asyncio.sleep(2)
        assert (await rollout.look()).verdict is Verdict.NOT_ENOUGH_DATA
        untrusting = replace(rollout, prometheus={"basicAuth": {"name": "login"}})
        answer = await untrusting.look()
        assert "TLS" in answer.message
        assert "unable to get local issuer certificate" in answer.message
        gc.collect()  # urllib3 leaves the socket of a failed handshake to the collector
    finally:
        server.stop()


async def test_holds_while_prometheus_is_down_and_misses_nothing_afterwards(
    exporter: Exporter, binary: Path, client: PrometheusClient, tmp_path: Path
) -> None:
    server = Server(binary, tmp_path / "down", exporter)
    server.start()
    try:
        await _scraped(exporter, "down", server)
        rollout = Rollout("down", server, client, ERRORS)
        await rollout.begin()
        exporter.count(_canary("down"), good=20)
        exporter.count(_stable("down"), good=180)
        await rollout.until(Verdict.HEALTHY)
        server.stop()
        answer = await rollout.look()
        assert answer.verdict is Verdict.UNAVAILABLE
        assert "is not reached" in answer.message
        exporter.count(_canary("down"), good=5)
        server.start()
        for _ in range(40):
            back = await rollout.look()
            if "canary 0.0 % of 25" in shares(back):
                break
            await asyncio.sleep(0.5)
        assert "canary 0.0 % of 25, stable 0.0 % of 180" in shares(back)
    finally:
        server.stop()


async def test_tells_when_the_last_request_reached_a_version(
    exporter: Exporter, prometheus: Server, client: PrometheusClient
) -> None:
    await _scraped(exporter, "drain", prometheus)
    rollout = Rollout("drain", prometheus, client, ERRORS)
    subject = rollout.subject
    exporter.count(_canary("drain"), good=3)
    served_at = datetime.now(UTC)
    await asyncio.sleep(3)
    seen = await rollout.analyst.arrivals(
        subject.key, subject.analysis, subject.canary, rollout.since, datetime.now(UTC)
    )
    assert seen.newest_sample_at is not None
    assert seen.last_request_seen_at is not None
    assert served_at <= seen.last_request_seen_at < served_at + timedelta(seconds=1.5)
    assert seen.newest_sample_at > seen.last_request_seen_at
