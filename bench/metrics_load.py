"""Measure what looks cost: rollouts with two pods a version, one answer's JSON as Prometheus sends.

    python bench/metrics_load.py [rollouts] [looks]

A local HTTP server stands for Prometheus and answers with a prepared body, so the CPU time of this
process without the server's own (a child) is that of the client, the parsing and the evidence.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import resource
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.connection import Connection
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from typing_extensions import override

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "operator"))

from crossfade.api.v1alpha1 import Analysis
from crossfade.evidence.verdicts import Verdict
from crossfade.metrics.analyst import Arm, Subject
from crossfade.metrics.prometheus import PrometheusClient
from crossfade.metrics.prometheus_analyst import PrometheusAnalyst
from crossfade.names import NamespacedName

SINCE = datetime(2026, 11, 24, 12, tzinfo=UTC)


class Secrets:
    """No Secrets."""

    async def read(self, namespace: str, name: str) -> Mapping[str, bytes] | None:
        """Know none."""
        del namespace, name
        return None


def serve(rollouts: int, ready: Connection) -> None:
    """Answer queries of the last seconds with a sample a second of every pod."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            asked = parse_qs(urlsplit(self.path).query)
            query, at = asked["query"][0], float(asked["time"][0])
            window = float(query.rpartition("[")[2].removesuffix("ms]")) / 1000
            times = [t for t in range(int(at - window) + 1, int(at) + 1) if t > at - window]
            codes = ("500",) if "500" in query else ("200", "500")
            result = [
                {
                    "metric": {
                        "__name__": "requests_total", "code": code, "namespace": "ml",
                        "pod": f"m{i}-{revision}-7d9f8b6c5d-x2x4{pod}", "job": "models",
                        "instance": f"10.0.{i}.{pod}:8080", "container": "model",
                    },
                    "values": [[t, str(int(t - SINCE.timestamp() + 1000) * 10)] for t in times],
                }
                for i in range(rollouts)
                for revision in ("aaaaaaaa", "bbbbbbbb")
                for pod in range(2)
                for code in codes
            ]  # fmt: skip
            data = {"resultType": "matrix", "result": result}
            body = json.dumps({"status": "success", "data": data}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        @override
        def log_message(self, *args: object) -> None:
            del args

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    ready.send(server.server_address[1])
    server.serve_forever()


async def main(rollouts: int, looks: int) -> None:
    """Look every simulated second."""
    here, there = multiprocessing.Pipe()
    child = multiprocessing.Process(target=serve, args=(rollouts, there), daemon=True)
    child.start()
    analysis = Analysis.model_validate(
        {
            "prometheus": {"address": f"http://127.0.0.1:{here.recv()}"},
            "intervalSeconds": 1,
            "source": {"requests": "requests_total", "errors": 'requests_total{code="500"}'},
            "metrics": [{"name": "errors", "errorRate": {"maxPercent": 90, "worseThanStable": {}}}],
        }
    )
    one = Subject(
        NamespacedName("ml", "m"), "m", analysis, Arm("bbbbbbbb", "2"), Arm("aaaaaaaa", "1"),
        SINCE, SINCE, 50,
    )  # fmt: skip
    subjects = [replace(one, key=NamespacedName("ml", f"m{i}")) for i in range(rollouts)]
    client = PrometheusClient()
    analyst = PrometheusAnalyst(client, Secrets(), time.monotonic)
    await asyncio.gather(*(analyst.look(s, SINCE + timedelta(seconds=60)) for s in subjects))
    cpu, wall = time.process_time(), time.monotonic()
    for k in range(looks):
        now = SINCE + timedelta(seconds=61 + k, milliseconds=5)
        answers = await asyncio.gather(*(analyst.look(s, now) for s in subjects))
        assert {a[0].verdict for a in answers} == {Verdict.HEALTHY}, answers[0]  # noqa: S101
    cpu, wall = time.process_time() - cpu, time.monotonic() - wall
    print(f"{rollouts} rollouts, 2 pods a version: CPU {1000 * cpu / looks:.1f} ms and "
          f"{1000 * wall / looks:.1f} ms of waiting for one look of all; "
          f"peak RSS {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024} MiB")  # fmt: skip
    client.close()
    child.terminate()


if __name__ == "__main__":
    numbers = [int(n) for n in sys.argv[1:]]
    asyncio.run(main(*(numbers + [50, 100][len(numbers) :])))
