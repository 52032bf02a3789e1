"""Measure what looks cost: rollouts of three metrics, two pods a version, one Prometheus.

    python -m bench.metrics_load [rollouts] [looks]

A local HTTP server stands for Prometheus and answers with a prepared body, so the CPU time of this
process without the server's own (a child) is that of the client, the parsing and the evidence. All
rollouts look in the same second, each with an error rate, a latency and a drift of labels.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import resource
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.connection import Connection
from urllib.parse import parse_qs

from typing_extensions import override

from crossfade.api.v1alpha1 import Analysis
from crossfade.evidence.verdicts import Verdict
from crossfade.main import collect_seldom
from crossfade.metrics.analyst import Arm, Subject
from crossfade.metrics.prometheus import PrometheusClient
from crossfade.metrics.prometheus_analyst import PrometheusAnalyst
from crossfade.names import NamespacedName

SINCE = datetime(2026, 11, 24, 12, tzinfo=UTC)

METRICS = [
    {"name": "errors", "errorRate": {"maxPercent": 90, "worseThanStable": {}}},
    {"name": "slow", "latency": {"maxMilliseconds": 500, "worseThanStable": {}}},
    {"name": "labels", "drift": {"counter": "predictions_total", "label": "label"}},
]


class NoSecrets:
    """No Secrets."""

    async def read(self, namespace: str, name: str) -> Mapping[str, bytes] | None:
        """Know none."""
        del namespace, name
        return None


def series_of(query: str) -> Iterator[tuple[dict[str, str], int]]:
    """Yield the labels that tell the series of a pod apart, and what each counts in a second."""
    if query.startswith("requests_total"):
        if '"500"' not in query:
            yield {"code": "200"}, 10
        yield {"code": "500"}, 1
    elif query.startswith("seconds_bucket"):
        yield {"le": "0.5"}, 10
    elif query.startswith("seconds_count"):
        yield {}, 11
    elif query.startswith("predictions_total"):
        for i in range(5):
            yield {"label": f"class{i}"}, i + 1


def serve(rollouts: int, ready: Connection) -> None:
    """Answer queries of the last seconds with a sample a second of every pod."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            self._answer(parse_qs(body))

        def _answer(self, asked: dict[str, list[str]]) -> None:
            query, at = asked["query"][0], float(asked["time"][0])
            window = float(query.rpartition("[")[2].removesuffix("ms]")) / 1000
            times = [t for t in range(int(at - window) + 1, int(at) + 1) if t > at - window]
            result = [
                {
                    "metric": own | {
                        "__name__": "x", "namespace": "ml",
                        "pod": f"m{i}-{revision}-7d9f8b6c5d-x2x4{pod}", "job": "models",
                        "instance": f"10.0.{i}.{pod}:8080", "container": "model",
                    },
                    "values": [[t, str(int(t - SINCE.timestamp() + 1000) * more)] for t in times],
                }
                for own, more in series_of(query)
                for i in range(rollouts)
                for revision in (f"a{i:07}", f"b{i:07}")
                for pod in range(2)
            ]  # fmt: skip
            data = {"resultType": "matrix", "result": result}
            text = json.dumps({"status": "success", "data": data}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)
            queries.value += 1

        @override
        def log_message(self, *args: object) -> None:
            del args

    queries = _QUERIES
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    ready.send(server.server_address[1])
    server.serve_forever()


_QUERIES = multiprocessing.Value("i", 0, lock=False)


async def main(rollouts: int, looks: int) -> None:
    """Look every simulated second."""
    collect_seldom()
    here, there = multiprocessing.Pipe()
    child = multiprocessing.Process(target=serve, args=(rollouts, there), daemon=True)
    child.start()
    analysis = Analysis.model_validate(
        {
            "prometheus": {"address": f"http://127.0.0.1:{here.recv()}", "timeoutSeconds": 60},
            "intervalSeconds": 1,
            "source": {
                "requests": "requests_total",
                "errors": 'requests_total{code="500"}',
                "latency": "seconds",
            },
            "metrics": METRICS,
        }
    )
    one = Subject(
        NamespacedName("ml", "m"), "m", analysis, Arm("bbbbbbbb", "2"), Arm("aaaaaaaa", "1"),
        SINCE, SINCE, 50, (5, 25, 50),
    )  # fmt: skip
    subjects = [
        replace(
            one,
            key=NamespacedName("ml", f"m{i}"),
            canary=Arm(f"b{i:07}", "2"),
            stable=Arm(f"a{i:07}", "1"),
        )
        for i in range(rollouts)
    ]
    client = PrometheusClient()
    analyst = PrometheusAnalyst(client, NoSecrets(), time.monotonic)
    for k in range(60, 64):  # the first looks read what was before
        await asyncio.gather(*(analyst.look(s, SINCE + timedelta(seconds=k)) for s in subjects))
    cpu, wall, queries = time.process_time(), time.monotonic(), _QUERIES.value
    for k in range(looks):
        now = SINCE + timedelta(seconds=64 + k, milliseconds=5)
        answers = await asyncio.gather(*(analyst.look(s, now) for s in subjects))
        verdicts = {a.verdict for each in answers for a in each}
        assert verdicts == {Verdict.HEALTHY}, answers[0]  # noqa: S101
    cpu, wall = time.process_time() - cpu, time.monotonic() - wall
    queries = _QUERIES.value - queries
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"{rollouts} rollouts of {len(METRICS)} metrics, 2 pods a version: a look of all takes "
          f"{cpu / looks:.3f} s of CPU, {wall / looks:.3f} s by the clock, {queries / looks:g} "
          f"queries; peak RSS {peak // 1024} MiB")  # fmt: skip
    client.close()
    child.terminate()


if __name__ == "__main__":
    numbers = [int(n) for n in sys.argv[1:]]
    asyncio.run(main(*(numbers + [1000, 5][len(numbers) :])))
