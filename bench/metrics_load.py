"""Measure what looks cost: rollouts of three metrics, two pods a version, one Prometheus.

    python -m bench.metrics_load [rollouts] [looks] [rollouts at a restart]

A local HTTP server stands for Prometheus, so the CPU time of this process without the server's own
(a child) is that of the client, the parsing and the evidence. All rollouts look in the same second,
each with an error rate, a latency and a drift of labels: 40 series. Each figure is of a process of
its own:

- looks each second at scrapes each second;
- looks every 10 s at scrapes every 15 s, the defaults of both;
- the first look of a restarted operator, at rollouts ten minutes old and scraped each second.
"""

from __future__ import annotations

import asyncio
import gzip
import itertools
import json
import multiprocessing
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.connection import Connection
from multiprocessing.sharedctypes import Synchronized
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

WARM_UP = 6
"""Looks that are not counted: the first ones read what was before."""


@dataclass(frozen=True)
class Case:
    """What is measured. Times in seconds."""

    scrape: int
    interval: int
    age: int
    """Of the rollouts, at the first look."""
    past: int
    """How long before the rollouts the first samples are."""


STEADY = (Case(1, 1, 60, 30), Case(15, 10, 300, 60))
RESTART = Case(1, 1, 600, 300)


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


class Past:
    """What the server has of every pod."""

    def __init__(self, rollouts: int, case: Case) -> None:
        self._rollouts = rollouts
        self._scrape = case.scrape
        self._first = SINCE.timestamp() - case.past
        self._values = lru_cache(maxsize=1000)(self._written)

    def _written(self, start: float, end: float, offset: float, more: int) -> str:
        first = self._first + offset
        scrapes = range(int((end - first) // self._scrape) + 1)
        return ",".join(
            f'[{t:.3f},"{int(t - first + 1000) * more}"]'
            for t in (first + n * self._scrape for n in scrapes)
            if start < t <= end
        )

    def series(self, query: str, start: float, end: float) -> Iterator[str]:
        """Yield the series of a query. Each pod is scraped at a moment of its own."""
        kinds = list(series_of(query))
        asked = [i for i in range(self._rollouts) if f"m{i}-a" in query]
        for i, number in itertools.product(asked, range(4)):
            revision = f"{'ab'[number % 2]}{i:07}"
            offset = round(((4 * i + number) * 0.37 % 1) * self._scrape, 1)
            labels = {
                "__name__": query.partition("{")[0], "namespace": "ml", "job": "models",
                "pod": f"m{i}-{revision}-7d9f8b6c5d-x2x4{number}", "container": "model",
                "instance": f"10.0.{i}.{number}:8080",
            }  # fmt: skip
            for own, more in kinds:
                values = self._values(start, end, offset, more)
                if values:
                    yield f'{{"metric":{json.dumps(labels | own)},"values":[{values}]}}'


def serve(rollouts: int, case: Case, ready: Connection, queries: Synchronized[int]) -> None:
    """Answer queries as a Prometheus."""
    past = Past(rollouts, case)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            self._answer(parse_qs(body))

        def _answer(self, asked: dict[str, list[str]]) -> None:
            query, end = asked["query"][0], float(asked["time"][0])
            window = float(query.rpartition("[")[2].removesuffix("ms]")) / 1000
            result = ",".join(past.series(query, end - window, end))
            data = f'{{"resultType":"matrix","result":[{result}]}}'
            text = f'{{"status":"success","data":{data}}}'.encode()
            self.send_response(200)
            if "gzip" in self.headers.get("Accept-Encoding", ""):
                self.send_header("Content-Encoding", "gzip")
                text = gzip.compress(text, 1)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)
            with queries.get_lock():
                queries.value += 1

        @override
        def log_message(self, *args: object) -> None:
            del args

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    ready.send(server.server_address[1])
    server.serve_forever()


def subjects_of(rollouts: int, case: Case, port: int) -> list[Subject]:
    """Return the rollouts."""
    analysis = Analysis.model_validate(
        {
            "prometheus": {"address": f"http://127.0.0.1:{port}", "timeoutSeconds": 60},
            "intervalSeconds": case.interval,
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
    return [
        replace(
            one,
            key=NamespacedName("ml", f"m{i}"),
            canary=Arm(f"b{i:07}", "2"),
            stable=Arm(f"a{i:07}", "1"),
        )
        for i in range(rollouts)
    ]


@dataclass(frozen=True)
class Cost:
    """What one look of all took."""

    cpu: float
    clock: float
    queries: int


async def look_on(rollouts: int, looks: int, case: Case) -> list[Cost]:
    """Look at all rollouts so many times."""
    collect_seldom()
    here, there = multiprocessing.Pipe()
    asked = multiprocessing.Value("i", 0)
    child = multiprocessing.Process(target=serve, args=(rollouts, case, there, asked), daemon=True)
    child.start()
    subjects = subjects_of(rollouts, case, here.recv())
    client = PrometheusClient()
    analyst = PrometheusAnalyst(client, NoSecrets(), time.monotonic)
    costs = []
    for k in range(looks):
        cpu, clock, queries = time.process_time(), time.monotonic(), asked.value
        now = SINCE + timedelta(seconds=case.age + k * case.interval, milliseconds=5)
        answers = await asyncio.gather(*(analyst.look(s, now) for s in subjects))
        verdicts = {a.verdict for each in answers for a in each}
        assert verdicts == {Verdict.HEALTHY}, answers[0]  # noqa: S101
        cpu, clock = time.process_time() - cpu, time.monotonic() - clock
        costs.append(Cost(cpu, clock, asked.value - queries))
    client.close()
    child.terminate()
    return costs


def rss() -> int:
    """Return the most memory that this process ever had, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def steady(rollouts: int, looks: int, case: Case) -> None:
    """Print what a look costs."""
    costs = asyncio.run(look_on(rollouts, looks + WARM_UP, case))[WARM_UP:]
    cpu, clock, queries = (
        statistics.median(getattr(cost, name) for cost in costs)
        for name in ("cpu", "clock", "queries")
    )
    print(f"{rollouts} rollouts, scraped every {case.scrape} s, looked at every {case.interval} s: "
          f"a look of all takes {cpu:.3f} s of CPU (p50; {max(c.cpu for c in costs):.3f} at most), "
          f"{clock:.3f} s by the clock, {queries:g} queries; peak RSS {rss()} MiB")  # fmt: skip


def restart(rollouts: int, case: Case) -> None:
    """Print what the first look costs."""
    (cost,) = asyncio.run(look_on(rollouts, 1, case))
    print(f"{rollouts} rollouts, scraped every {case.scrape} s for {case.age + case.past} s: the "
          f"first look takes {cost.cpu:.1f} s of CPU, {cost.clock:.1f} s by the clock, "
          f"{cost.queries} queries; peak RSS {rss()} MiB")  # fmt: skip


def main(rollouts: int = 1000, looks: int = 20, restarted: int = 300) -> None:
    """Measure each case in a process of its own."""
    processes = multiprocessing.get_context("spawn")
    cases: list[tuple[Callable[..., None], tuple[object, ...]]] = [
        *((steady, (rollouts, looks, case)) for case in STEADY),
        (restart, (restarted, RESTART)),
    ]
    for target, args in cases:
        process = processes.Process(target=target, args=args)
        process.start()
        process.join()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
