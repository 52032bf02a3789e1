from __future__ import annotations

import asyncio
import itertools
import math
import random
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from crossfade.api.v1alpha1 import Analysis
from crossfade.core.observation import UNSEEN
from crossfade.errors import MetricSourceError
from crossfade.evidence.rules import odds
from crossfade.evidence.verdicts import Evidence, MetricAnswer, Verdict
from crossfade.metrics.analyst import Analyst, Arm, Subject
from crossfade.metrics.batching import MOST_SAMPLES, Room
from crossfade.metrics.endpoints import Endpoint
from crossfade.metrics.folds import (
    FIRST_PORTION_SECONDS,
    LOOK_BACK_SECONDS,
    PORTION_SAMPLES,
    SAMPLES_PER_SECOND,
)
from crossfade.metrics.prometheus import RawSeries, RefusedError
from crossfade.metrics.prometheus_analyst import PrometheusAnalyst, log_needed
from crossfade.metrics.selectors import parse_selector
from crossfade.names import NamespacedName

SINCE = datetime(2026, 11, 24, 12, tzinfo=UTC)
START = SINCE.timestamp()


@dataclass
class FakeProm:
    """A Prometheus of our own protocol: raw samples by labels, and answers to other PromQL."""

    series: dict[tuple[tuple[str, str], ...], list[tuple[float, float]]] = field(
        default_factory=dict
    )
    points: dict[str, list[RawSeries]] = field(default_factory=dict)
    queries: list[str] = field(default_factory=list)
    refuse: set[str] = field(default_factory=set)
    down: bool = False

    def sample(self, second: float, value: float, name: str, **labels: str) -> None:
        key = tuple(sorted({"__name__": name, **labels}.items()))
        self.series.setdefault(key, []).append((START + second, value))

    async def instant(self, endpoint: Endpoint, promql: str, at: float) -> list[RawSeries]:
        self.queries.append(promql)
        self._check(endpoint)
        text, _, window = promql.rpartition("[")
        start = at - int(window.removesuffix("ms]")) / 1000
        selector = parse_selector(text)
        out = []
        for key, samples in self.series.items():
            labels = dict(key)
            if labels["__name__"] == selector.name and all(
                bool(re.fullmatch(m.value if "~" in m.op else re.escape(m.value),
                                  labels.get(m.label, ""))) == (m.op[0] == "=")
                for m in selector.matchers
            ):  # fmt: skip
                inside = [(t, str(v)) for t, v in samples if start < t <= at]
                if inside:
                    out.append(RawSeries(labels, inside))
        return out

    async def steps(
        self, endpoint: Endpoint, promql: str, start: int, end: int, step: int
    ) -> list[RawSeries]:
        self.queries.append(promql)
        self._check(endpoint)
        return [
            RawSeries(s.labels, [(t, v) for t, v in s.values if start <= t <= end], s.histograms)
            for s in self.points.get(promql, [])
        ]

    def _check(self, endpoint: Endpoint) -> None:
        if self.down:
            raise MetricSourceError("Prometheus is not reached")
        if endpoint.credentials.bearer_token in self.refuse:
            raise RefusedError("Prometheus refused the credentials (HTTP 401)")


@dataclass
class Secrets:
    secrets: dict[str, Mapping[str, bytes]] = field(default_factory=dict)
    reads: int = 0

    async def read(self, namespace: str, name: str) -> Mapping[str, bytes] | None:
        self.reads += 1
        return self.secrets.get(name)


ERRORS: dict[str, Any] = {"name": "errors", "errorRate": {"maxPercent": 2}}
BOTH_ERRORS: dict[str, Any] = {
    "name": "both",
    "errorRate": {"maxPercent": 2, "worseThanStable": {"ratio": 1.2}},
}
SLOW = {"name": "slow", "latency": {"maxMilliseconds": 300, "maxSlowPercent": 5}}
QUERY = {"name": "revenue", "query": {"promql": 'v{pod=~"{{pods}}"}', "min": 0.9,
                                      "failureLimit": 1}}  # fmt: skip
FILLED = 'v{pod=~"fraud-bbb-.*"}'
SOURCE = {"requests": "total", "errors": 'total{code="500"}', "latency": "seconds"}


@dataclass
class World:
    prom: FakeProm = field(default_factory=FakeProm)
    secrets: Secrets = field(default_factory=Secrets)
    clock: float = 0.0

    def __post_init__(self) -> None:
        self.analyst: Analyst = self.fresh()

    def fresh(self) -> PrometheusAnalyst:
        return PrometheusAnalyst(self.prom, self.secrets, lambda: self.clock)

    async def look(
        self, second: float, subject: Subject | None = None, analyst: Analyst | None = None
    ) -> MetricAnswer:
        now = SINCE + timedelta(seconds=second)
        return (await (analyst or self.analyst).look(subject or subject_of(), now))[0]

    def scrape(self, second: float, pod: str, good: int, bad: int = 0, **labels: str) -> None:
        at = {"namespace": "ml", "pod": pod, **labels}
        self.prom.sample(second, good, "total", code="200", **at)
        if bad:
            self.prom.sample(second, bad, "total", code="500", **at)


def subject_of(
    *metrics: dict[str, Any], name: str = "fraud", source: dict[str, Any] | None = None,
    prometheus: dict[str, Any] | None = None, **changes: Any
) -> Subject:  # fmt: skip
    analysis = Analysis.model_validate(
        {
            "prometheus": {"address": "http://p:9090", **(prometheus or {})},
            "intervalSeconds": 5,
            "source": SOURCE if source is None else source,
            "metrics": list(metrics) or [ERRORS],
        }
    )
    subject = Subject(
        key=NamespacedName("ml", name), model="fraud", analysis=analysis, canary=Arm("bbb", "2"),
        stable=Arm("aaa", "1"), since=SINCE, in_force_at=SINCE, min_requests=10,
    )  # fmt: skip
    return replace(subject, **changes)


def counted(answer: MetricAnswer) -> tuple[str, str]:
    """Return the requests of the canary and of stable that the message tells."""
    canary, stable = re.findall(r" of (\d[\d,]*)\b", answer.message)
    return canary, stable


CANARY, STABLE = "fraud-bbb-7d9f-x2x4", "fraud-aaa-5c6b-q8q9"


@pytest.fixture
def world() -> World:
    """A healthy rollout, 10 s old: 20 and 180 requests."""
    world = World()
    for second in range(-10, 11, 5):
        world.scrape(second, STABLE, 1000 + max(second, 0) * 18, 500)
        world.scrape(second, CANARY, max(second, 0) * 2)
    return world


def break_at_10_s(world: World) -> None:
    """Of ten requests a scrape five fail, of the canary's, and none of stable's 90."""
    for second in (15, 20, 25):
        world.scrape(second, CANARY, second + 10, second - 10)
        world.scrape(second, STABLE, 1000 + 18 * second, 500)


async def test_is_healthy_when_the_counters_are(world: World) -> None:
    answer = await world.look(10.2)
    assert answer.verdict is Verdict.HEALTHY
    assert answer.evidence is not None
    assert answer.evidence.log_e < 0
    assert answer.evidence.log_needed == math.log(100)
    assert answer.message == (
        "canary 0.0 % [0.0, 16.2] of 20, stable 0.0 % [0.0, 2.4] of 180; limit 2 %; "
        f"evidence {odds(answer.evidence.log_e)}, needs 100 : 1"
    )


async def test_finds_harm_in_a_label_value_that_is_new(world: World) -> None:
    assert (await world.look(10.2)).verdict is Verdict.HEALTHY
    break_at_10_s(world)
    assert (await world.look(15.2)).verdict is not Verdict.HARM, "no single scrape does"
    answer = await world.look(25.2)
    assert answer.verdict is Verdict.HARM
    assert answer == await world.look(25.2, analyst=world.fresh())


BESIDE: dict[str, Any] = {"name": "errors", "errorRate": {"worseThanStable": {}}}


async def test_a_forecast_gets_its_time_as_soon_as_traffic_was_counted_for_ten_seconds() -> None:
    world = World()
    subject = subject_of(BESIDE, ladder=(10, 50))
    for second in range(-20, 6, 5):
        world.scrape(second, STABLE, 2000 + 90 * min(second, 0), 500 + 5 * min(second, 0))
        world.scrape(second, CANARY, 0)
    before = (await world.look(5.2, subject)).forecast
    assert [(f.weight_percent, f.seconds) for f in before] == [(10, None), (50, None)]
    world.scrape(9.5, STABLE, 2090, 505)
    world.scrape(9.5, CANARY, 5)
    before = (await world.look(9.9, subject)).forecast
    assert [(f.weight_percent, f.seconds) for f in before] == [(10, None), (50, None)]
    ten, fifty = (await world.look(10.2, subject)).forecast
    assert ten.seconds == pytest.approx(ten.requests / 2, rel=0.01)
    assert fifty.seconds == pytest.approx(fifty.requests / 10, rel=0.01)


async def test_where_nothing_can_be_forecast_it_is_said_why(world: World) -> None:
    tolerant = {"name": "errors", "errorRate": {"worseThanStable": {"ratio": 2}}}
    answer = await world.look(10.2, subject_of(tolerant, ladder=(10, 50)))
    assert answer.forecast == ()
    assert answer.no_forecast == "twice stable's rate (1.1 %) is tolerated"
    nobody_asked = await world.look(10.2, subject_of(tolerant))
    assert (nobody_asked.forecast, nobody_asked.no_forecast) == ((), "")


async def test_reads_only_what_is_new(world: World) -> None:
    await world.look(10.2)
    world.prom.queries.clear()
    await world.look(10.4)
    windows = [int(q.rpartition("[")[2].removesuffix("ms]")) for q in world.prom.queries]
    assert len(windows) == 2
    assert max(windows) < 11_000


async def test_reads_a_long_rollout_again_in_portions(world: World) -> None:
    """They get longer while there are few samples."""
    for hour in range(1, 4):
        world.scrape(hour * 3600, CANARY, 20 + hour)
        world.scrape(hour * 3600, STABLE, 1180 + hour, 500)
    answer = await world.look(3 * 3600 + 1)
    assert counted(answer) == ("23", "183")
    seconds = [seconds_asked(query) for query in world.prom.queries]
    assert seconds[::2] == seconds[1::2] == [60, 240, 960, 3600, 3600, 2641]


async def test_reads_many_samples_in_short_portions_and_finds_the_same_again() -> None:
    """So a restart needs no more memory the older a rollout is, and judges to the last digit."""
    world, rng = World(), random.Random(1)
    counts = dict.fromkeys(((pod, i) for pod in (STABLE, CANARY) for i in range(40)), 0)
    subject = subject_of({"name": "errors", "errorRate": {"worseThanStable": {}}})
    for second in range(-300, 601):
        for pod, i in counts:
            if pod == STABLE or second > 0:
                counts[pod, i] += rng.randrange(3)
            at = {"namespace": "ml", "pod": pod, "path": str(i)}
            world.prom.sample(second, counts[pod, i], "total", code="500" if i < 4 else "200", **at)
        if second > 0 and second % 5 == 0:
            answer = await world.look(second + 0.2, subject)
    world.prom.queries.clear()
    assert await world.look(600.2, subject, world.fresh()) == answer
    assert answer.verdict is Verdict.HEALTHY
    seconds = [seconds_asked(query) for query in world.prom.queries]
    assert sum(seconds[::2]) == pytest.approx(600.2 + LOOK_BACK_SECONDS)
    assert max(seconds) * len(counts) <= 1.2 * PORTION_SAMPLES


def seconds_asked(query: str) -> float:
    return int(query.rpartition("[")[2].removesuffix("ms]")) / 1000


async def test_says_when_no_series_is_there() -> None:
    answer = await World().look(10)
    assert answer.verdict is Verdict.NOT_ENOUGH_DATA
    assert answer.message == "no series of total for pods fraud-bbb-*: is it scraped?"


async def test_a_source_in_trouble_is_unavailable_and_nothing_is_lost(world: World) -> None:
    await world.look(5)
    world.prom.down = True
    answer = await world.look(8)
    assert answer == MetricAnswer("errors", Verdict.UNAVAILABLE, "Prometheus is not reached")
    world.prom.down = False
    assert counted(await world.look(10.2)) == ("20", "180")


async def test_starts_again_when_the_metric_or_the_rollout_changes(world: World) -> None:
    await world.look(10.2)
    stricter = subject_of({"name": "errors", "errorRate": {"maxPercent": 1}})
    assert "; limit 1 %;" in (await world.look(10.2, stricter)).message
    later = replace(stricter, since=SINCE + timedelta(seconds=5))
    assert counted(await world.look(10.2, later)) == ("10", "90")


@pytest.mark.parametrize(
    ("metrics", "tests"),
    [
        ([ERRORS], 1),
        ([QUERY], 1),
        ([ERRORS, QUERY], 1),
        ([ERRORS, SLOW, QUERY], 2),
        ([BOTH_ERRORS], 2),
        ([BOTH_ERRORS, SLOW], 3),
    ],
)
def test_the_false_rollback_rate_is_split_over_the_tests(
    metrics: list[dict[str, Any]], tests: int
) -> None:
    """A query has no probability of its own, so it takes no part of it."""
    analysis = subject_of(*metrics).analysis
    assert log_needed(analysis) == pytest.approx(math.log(100 * tests))
    strict = analysis.model_copy(update={"false_rollback_rate": 0.001})
    assert log_needed(strict) == pytest.approx(math.log(1000 * tests))


async def test_harm_needs_more_evidence_with_more_metrics(world: World) -> None:
    break_at_10_s(world)
    seen = (await world.look(25.2)).evidence
    assert seen is not None
    rate = 1.1 * math.exp(-seen.log_e)

    async def look(*metrics: dict[str, Any]) -> MetricAnswer:
        subject = subject_of(*metrics)
        strict = subject.analysis.model_copy(update={"false_rollback_rate": rate})
        return await world.look(25.2, replace(subject, analysis=strict))

    alone, beside = await look(ERRORS), await look(ERRORS, {**ERRORS, "name": "others"})
    assert (alone.verdict, beside.verdict) == (Verdict.HARM, Verdict.HEALTHY)
    assert alone.evidence == Evidence(seen.log_e, math.log(1 / rate))
    assert beside.evidence == Evidence(seen.log_e, math.log(2 / rate))
    assert beside.message.endswith(f"needs {odds(math.log(2 / rate))}")


async def test_forgets(world: World) -> None:
    await world.look(10.2)
    world.analyst.forget(subject_of().key)
    world.prom.queries.clear()
    world.analyst.forget(subject_of().key)
    assert counted(await world.look(10.2)) == ("20", "180")
    seconds = [seconds_asked(query) for query in world.prom.queries]
    assert sum(seconds[::2]) == pytest.approx(10.2 + LOOK_BACK_SECONDS), "all is read again"


async def test_judges_alone_in_probation(world: World) -> None:
    answer = await world.look(10.2, subject_of(stable=None))
    assert answer.verdict is Verdict.HEALTHY
    assert answer.message.startswith("canary 0.0 % [0.0, 16.2] of 20; limit 2 %; evidence ")


async def test_asks_one_query_for_fifty_rollouts() -> None:
    world = World()
    subjects = [subject_of(name=f"m{i}") for i in range(50)]
    for i in range(50):
        for second in range(-10, 11, 5):
            world.scrape(second, f"m{i}-aaa-5c6b-q8q9", 1000 + second)
            world.scrape(second, f"m{i}-bbb-5c6b-q8q9", max(second, 0) * (i + 1))
    now = SINCE + timedelta(seconds=10.2)
    answers = await asyncio.gather(*(world.analyst.look(s, now) for s in subjects))
    assert len(world.prom.queries) == 2 * 3, "for each portion"
    assert [counted(a[0])[0] for a in answers] == [str((i + 1) * 10) for i in range(50)]


async def test_a_thousand_rollouts_are_one_query_a_selector_once_they_read_on() -> None:
    """A first look reads minutes, so it asks for fewer in one query, and still for all, once."""
    world, rollouts = World(), 1000
    subjects = [subject_of(name=f"m{i}") for i in range(rollouts)]
    for i in range(rollouts):
        for second in range(-10, 16, 5):
            world.scrape(second, f"m{i}-aaa-5c6b-q8q9", 1000 + second)
            world.scrape(second, f"m{i}-bbb-5c6b-q8q9", max(second, 0) * (i + 1))

    async def look(second: float) -> dict[float, int]:
        """Return how many queries there are of each number of seconds."""
        world.prom.queries.clear()
        now = SINCE + timedelta(seconds=second)
        answers = await asyncio.gather(*(world.analyst.look(s, now) for s in subjects))
        judged = int(second / 5) * 5
        assert [counted(a[0])[0].replace(",", "") for a in answers] == [
            str((i + 1) * judged) for i in range(rollouts)
        ]
        queries: dict[float, list[str]] = {}
        for query in world.prom.queries:
            queries.setdefault(seconds_asked(query), []).append(query)
        for selector, (seconds, some) in itertools.product(
            ("total{namespace", 'total{code="500"'), queries.items()
        ):
            asked = [m for q in some if q.startswith(selector)
                     for m in re.findall(r"\bm\d+-bbb-", q)]  # fmt: skip
            assert len(asked) == len(set(asked)) == rollouts, seconds
        return {seconds: len(some) for seconds, some in queries.items()}

    first = await look(10.2)
    together = int(MOST_SAMPLES / (FIRST_PORTION_SECONDS * SAMPLES_PER_SECOND))
    assert list(first) == [60, 240, 10.2]
    assert first[60] == 2 * math.ceil(rollouts / together)
    assert await look(15.2) == {15.2: 2}


async def test_a_failed_common_query_fails_all_who_asked(world: World) -> None:
    world.prom.down = True
    now = SINCE + timedelta(seconds=10)
    subjects = [subject_of(name=f"m{i}") for i in range(3)]
    answers = await asyncio.gather(*(world.analyst.look(s, now) for s in subjects))
    assert {a[0].verdict for a in answers} == {Verdict.UNAVAILABLE}
    assert len(world.prom.queries) == 1


async def test_joins_by_a_version_label() -> None:
    world = World()
    for second in range(-10, 11, 5):
        for version, rate in (("1", 18), ("2", 2)):
            world.prom.sample(second, max(second, 0) * rate, "wrong_total", version=version,
                              instance="feedback")  # fmt: skip
    source = {"requests": "wrong_total", "errors": "wrong_bad", "versionLabel": "version"}
    subject = subject_of(source=source)
    assert counted(await world.look(10.2, subject)) == ("20", "180")
    assert world.prom.queries[0].startswith('wrong_bad{version=~"1|2"}[')
    nothing = await World().look(10, subject)
    assert nothing.message.endswith('with version="2": is it scraped?')


async def test_refuses_to_tell_equal_versions_apart(world: World) -> None:
    source = {**SOURCE, "versionLabel": "version"}
    answer = await world.look(10, subject_of(source=source, stable=Arm("aaa", "2")))
    assert answer.verdict is Verdict.UNAVAILABLE
    assert answer.message.startswith("both versions are called 2")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"requests": "total"}, "write analysis.source.errors, or a preset"),
        ({"requests": "rate(x[1m])", "errors": "e"}, "'rate(x[1m])' is not a series selector"),
    ],
)
async def test_tells_what_to_write_for_a_source(
    world: World, source: dict[str, Any], message: str
) -> None:
    answer = await world.look(10, subject_of(source=source))
    assert answer.verdict is Verdict.UNAVAILABLE
    assert answer.message.startswith(message)


async def test_needs_a_source(world: World) -> None:
    subject = subject_of()
    bare = subject.analysis.model_copy(update={"source": None})
    answer = await world.look(10, replace(subject, analysis=bare))
    assert answer.message.startswith("write analysis.source")


async def test_the_mlserver_preset_counts_inference_only() -> None:
    world = World()
    subject = subject_of(source={"preset": "mlserver"})
    for second in (-5, 0, 5, 10):
        for path, rate in (("/v2/models/{model_name}/infer", 3), ("/v2/models/m/ready", 100)):
            for pod in (CANARY, STABLE):
                world.prom.sample(second, max(second, 0) * rate, "rest_server_requests_total",
                                  method="POST", path=path, status_code="200", namespace="ml",
                                  pod=pod)  # fmt: skip
    assert counted(await world.look(10.2, subject)) == ("30", "30")


def slow_world(border: str = "0.3", slow_until: int = 60) -> World:
    """Half of the canary's requests are slow, of stable's none; 10 a scrape of each."""
    world = World()
    for second in range(-10, 61, 5):
        for pod, slow in ((CANARY, min(max(second, 0), slow_until)), (STABLE, 0)):
            at = {"namespace": "ml", "pod": pod}
            n = 2 * max(second, 0)
            world.prom.sample(second, n, "seconds_count", **at)
            world.prom.sample(second, n - slow, "seconds_bucket", le=border, **at)
            world.prom.sample(second, n, "seconds_bucket", le="+Inf", **at)
    return world


async def test_counts_slow_requests_by_a_bucket() -> None:
    answer = await slow_world().look(60.2, subject_of(SLOW))
    assert answer.verdict is Verdict.HARM
    assert answer.message == (
        "slower than 300 ms: canary 50.0 % of 60, stable 0.0 % of 60; limit 5 %; "
        "evidence over 1,000,000,000 : 1, needs 100 : 1"
    )


async def test_slow_requests_of_the_first_half_minute_do_not_count() -> None:
    answer = await slow_world(slow_until=30).look(60.2, subject_of(SLOW))
    assert answer.verdict is Verdict.HEALTHY
    assert "canary 0.0 % [" in answer.message
    assert counted(answer) == ("60", "60")
    eager = {**SLOW, "warmupSeconds": 0}
    answer = await slow_world(slow_until=30).look(60.2, subject_of(eager))
    assert answer.verdict is Verdict.HARM
    assert counted(answer) == ("120", "120")


@pytest.mark.parametrize(
    ("border", "nearest"), [("0.25", "the nearest are 250"), ("x", "it has no buckets")]
)
async def test_names_the_nearest_borders(border: str, nearest: str) -> None:
    answer = await slow_world(border).look(10.2, subject_of(SLOW))
    assert answer.verdict is Verdict.UNAVAILABLE
    assert answer.message == (
        f"maxMilliseconds 300 is no bucket border of canary and stable; {nearest}"
    )


async def test_a_value_that_is_no_number_is_unavailable(world: World) -> None:
    key = next(iter(world.prom.series))
    world.prom.series[key].append((START + 10, "many"))  # type: ignore[arg-type]
    answer = await world.look(10.2)
    assert answer.message == "Prometheus gave a value that is no number"


async def test_reads_credentials_again_when_they_are_refused(world: World) -> None:
    token = {"bearerToken": {"name": "prom", "key": "token"}}
    subject = subject_of(prometheus=token)
    world.secrets.secrets["prom"] = {"token": b"old\n"}
    assert (await world.look(10.2, subject)).verdict is Verdict.HEALTHY
    world.prom.refuse = {"old"}
    world.secrets.secrets["prom"] = {"token": b"new"}
    assert (await world.look(10.2, subject)).verdict is Verdict.HEALTHY
    world.prom.refuse = {"new"}
    assert "HTTP 401" in (await world.look(10.2, subject)).message


async def test_reads_credentials_again_after_a_minute(world: World) -> None:
    subject = subject_of(prometheus={"bearerToken": {"name": "prom", "key": "token"}})
    world.secrets.secrets["prom"] = {"token": b"t"}
    await world.look(10.2, subject)
    world.clock = 59
    await world.look(10.2, subject)
    assert world.secrets.reads == 1
    world.clock = 61
    await world.look(10.2, subject)
    assert world.secrets.reads == 2


@pytest.mark.parametrize(
    ("secret", "message"),
    [
        (None, "there is no Secret prom in namespace ml"),
        ({}, "Secret ml/prom has no key token"),
        ({"token": b"\xff"}, "key token of Secret ml/prom is no text"),
    ],
)
async def test_names_the_secret_that_is_missing(
    world: World, secret: dict[str, bytes] | None, message: str
) -> None:
    if secret is not None:
        world.secrets.secrets["prom"] = secret
    subject = subject_of(prometheus={"bearerToken": {"name": "prom", "key": "token"}})
    assert await world.look(10, subject) == MetricAnswer("errors", Verdict.UNAVAILABLE, message)


async def test_tells_what_still_reaches_a_version(world: World) -> None:
    world.scrape(15, CANARY, 20)
    world.scrape(20, CANARY, 20)
    subject = subject_of()
    now = SINCE + timedelta(seconds=21)
    seen = await world.analyst.arrivals(subject.key, subject.analysis, subject.canary, SINCE, now)
    assert seen is not None
    assert seen.last_request_seen_at == SINCE + timedelta(seconds=10)
    assert seen.newest_sample_at == SINCE + timedelta(seconds=20)


async def test_knows_no_arrivals_without_counters_series_or_prometheus(world: World) -> None:
    subject = subject_of()
    now = SINCE + timedelta(seconds=21)

    async def arrivals(analysis: Analysis, arm: Arm) -> object:
        return await world.analyst.arrivals(subject.key, analysis, arm, SINCE, now)

    bare = subject.analysis.model_copy(update={"source": None})
    assert await arrivals(bare, subject.canary) == UNSEEN
    assert await arrivals(subject.analysis, Arm("ccc", "3")) == UNSEEN
    world.prom.down = True
    assert await arrivals(subject.analysis, subject.canary) == UNSEEN


def asked(*values: tuple[int, str], labels: str = "") -> RawSeries:
    return RawSeries({"x": labels} if labels else {}, [(START + s, v) for s, v in values])


async def test_a_query_is_healthy_within_its_limits(world: World) -> None:
    world.prom.points[FILLED] = [asked((4, "1"), (9, "0.95"))]
    assert await world.look(10.1, subject_of(QUERY)) == MetricAnswer(
        "revenue", Verdict.HEALTHY, "0.95 is at least 0.9"
    )


async def test_failures_of_a_query_add_up_over_looks_and_restarts(world: World) -> None:
    world.prom.points[FILLED] = [asked((4, "0.5"), (9, "NaN"), (14, "0.6"), (19, "1"))]
    subject = subject_of(QUERY)
    first = await world.look(5.1, subject)
    assert first.message == "0.5 is below the minimum 0.9; failure 1 of 1 tolerated"
    assert (await world.look(10.1, subject)).message == "the query gave no value"
    harm = await world.look(15.1, subject)
    assert harm == MetricAnswer(
        "revenue", Verdict.HARM, "0.6 is below the minimum 0.9; failures: 2, tolerated: 1"
    )
    assert harm == await world.look(15.1, subject, world.fresh())
    assert (await world.look(20.1, subject)).verdict is Verdict.HARM


async def test_a_query_must_give_one_series(world: World) -> None:
    world.prom.points[FILLED] = [asked((4, "1")), asked((4, "1"), labels="b")]
    answer = await world.look(5.1, subject_of(QUERY))
    assert answer.verdict is Verdict.UNAVAILABLE
    assert answer.message.startswith("the query gave 2 series where one was expected")


async def test_a_query_is_not_healthy_before_the_weight_is_in_force(world: World) -> None:
    world.prom.points[FILLED] = [asked((4, "1"))]
    for in_force_at in (None, SINCE + timedelta(seconds=4.5)):
        answer = await world.look(5.1, subject_of(QUERY, in_force_at=in_force_at))
        assert answer.verdict is Verdict.NOT_ENOUGH_DATA
        assert answer.message == "no value yet from when the weight was in force"


async def test_a_query_has_an_upper_limit(world: World) -> None:
    both = {"name": "q", "query": {"promql": "v", "min": 1, "max": 2}}
    world.prom.points["v"] = [asked((4, "1.5"))]
    assert (await world.look(5.1, subject_of(both))).message == "1.5 is within 1 and 2"
    most = {"name": "q", "query": {"promql": "v", "max": 1}}
    answer = await world.look(5.1, subject_of(most))
    assert answer.message == "1.5 is above the maximum 1; failures: 1, tolerated: 0"


@pytest.mark.parametrize(
    ("promql", "changes", "message"),
    [
        ("{{pod}}", {}, "{{pod}} is not known; write one of {{namespace}}"),
        ("{{stablePods}}", {"stable": None}, "{{stablePods}} is not there"),
        ("{{version}}", {"canary": Arm("bbb", '2"')}, "{{version}} has a quote"),
    ],
)
async def test_refuses_a_placeholder_that_cannot_be_filled(
    world: World, promql: str, changes: dict[str, Any], message: str
) -> None:
    metric = {"name": "q", "query": {"promql": promql, "max": 1}}
    answer = await world.look(5.1, subject_of(metric, **changes))
    assert answer.verdict is Verdict.UNAVAILABLE
    assert answer.message.startswith(message)


async def test_a_metric_of_no_kind_is_unavailable(world: World) -> None:
    for metric in ({"name": "none"}, {"name": "open", "errorRate": {}}):
        assert (await world.look(5, subject_of(metric))).verdict is Verdict.UNAVAILABLE


async def test_a_room_lets_in_only_what_fits_and_in_the_order_of_coming() -> None:
    room, inside = Room(10), []
    leave = {name: asyncio.Event() for name in "abcd"}

    async def visit(name: str, size: int) -> None:
        async with room.taken(size):
            inside.append(name)
            await leave[name].wait()
        inside.remove(name)

    visits = [asyncio.create_task(visit(*one)) for one in (("a", 4), ("b", 6), ("c", 99), ("d", 1))]
    await settled()
    assert inside == ["a", "b"]
    leave["a"].set()
    await settled()
    assert inside == ["b"], "c takes all of it, and d came later"
    leave["b"].set()
    await settled()
    assert inside == ["c"]
    leave["c"].set()
    leave["d"].set()
    await asyncio.gather(*visits)


async def test_who_gives_up_takes_no_room() -> None:
    room, inside = Room(10), []

    async def visit(name: str, size: int, leave: asyncio.Event) -> None:
        async with room.taken(size):
            inside.append(name)
            await leave.wait()

    never, now = asyncio.Event(), asyncio.Event()
    now.set()
    first = asyncio.create_task(visit("first", 10, never))
    waiting = asyncio.create_task(visit("waiting", 10, never))
    last = asyncio.create_task(visit("last", 10, now))
    await settled()
    waiting.cancel()
    await settled()
    first.cancel()
    await last
    assert inside == ["first", "last"]


async def settled() -> None:
    """Let every task go on as far as it can."""
    for _ in range(5):
        await asyncio.sleep(0)
