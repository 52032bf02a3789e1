"""Latency by native histograms: where it is judged, and what it says when it cannot be."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pytest

from crossfade.evidence.verdicts import Verdict
from crossfade.metrics.analyst import Subject
from tests.unit.test_metrics_analyst import CANARY, STABLE, START
from tests.unit.test_metrics_analyst import subject_of as a_subject
from tests.unit.test_metrics_distributions import World, exponential

Buckets = Mapping[tuple[float, float], int]

FAST: Mapping[float, int] = {0.05: 15, 0.29: 4, 0.7: 1}
SLOW: Mapping[float, int] = {0.05: 5, 0.29: 4, 0.7: 11}


def subject_of(milliseconds: float = 300, **source: Any) -> Subject:
    latency = {"maxMilliseconds": milliseconds, "maxSlowPercent": 10}
    metric = {"name": "slow", "latency": latency, "warmupSeconds": 0}
    return a_subject(metric, source={"latency": "seconds", **source})


def play(world: World, canary: Buckets, stable: Buckets, last: int = 60) -> None:
    for second in range(-60, last + 1):
        world.native(second, STABLE, {k: 9 * n for k, n in stable.items()}, "seconds")
        if second >= 0:
            world.native(second, CANARY, canary, "seconds")


def converted(borders: tuple[float, ...], counts: tuple[int, ...]) -> Buckets:
    lefts = (-math.inf, *borders)
    return dict(zip(zip(lefts, (*borders, math.inf), strict=True), counts, strict=True))


@pytest.mark.parametrize(("numbers", "verdict"), [(FAST, Verdict.HEALTHY), (SLOW, Verdict.HARM)])
async def test_an_exponential_histogram_is_judged_at_its_next_border(
    numbers: Mapping[float, int], verdict: Verdict
) -> None:
    world = World()
    play(world, exponential(3, numbers), exponential(3, FAST))
    answer = await world.look(60.2, subject_of())
    assert answer.verdict is verdict
    # Of schema 3: 2 ** (-13/8) = 0.3242.
    assert answer.message.startswith(
        "slower than 300 ms (judged at 324.2 ms, the next bucket border): canary"
    )


async def test_a_limit_that_is_a_border_is_judged_there() -> None:
    world = World()
    play(world, exponential(3, SLOW), exponential(3, FAST))
    answer = await world.look(60.2, subject_of(500))
    assert answer.verdict is Verdict.HARM
    assert answer.message.startswith("slower than 500 ms: canary 55.0 %")


async def test_of_two_schemas_the_coarser_says_where() -> None:
    world = World()
    subject = subject_of()
    play(world, exponential(5, FAST), exponential(1, FAST))
    answer = await world.look(60.2, subject)
    assert answer.verdict is Verdict.HEALTHY
    assert "(judged at 353.6 ms, " in answer.message
    assert answer == await world.look(60.2, subject, world.fresh())


async def test_counts_what_a_classic_histogram_would() -> None:
    borders = (0.1, 0.3, 1.0)
    world, classic = World(), World()
    play(world, converted(borders, (15, 3, 2, 0)), converted(borders, (18, 1, 1, 0)))
    for second in range(-60, 61):
        for pod, counts in ((STABLE, (162, 171, 180, 180)), (CANARY, (15, 18, 20, 20))):
            at = {"namespace": "ml", "pod": pod}
            if pod == STABLE or second >= 0:
                seconds = second + (61 if pod == STABLE else 1)
                for le, n in zip(("0.1", "0.3", "1.0", "+Inf"), counts, strict=True):
                    classic.prom.sample(second, n * seconds, "seconds_bucket", **at, le=le)
                classic.prom.sample(second, counts[-1] * seconds, "seconds_count", **at)
    answer = await world.look(60.2, subject_of())
    assert answer == await classic.look(60.2, subject_of())
    assert "canary 10.0 %" in answer.message


async def test_a_limit_that_is_no_border_of_custom_buckets_is_refused() -> None:
    world = World()
    buckets = converted((0.1, 0.25, 0.5), (15, 3, 2, 0))
    play(world, buckets, buckets)
    answer = await world.look(60.2, subject_of())
    assert answer.verdict is Verdict.UNAVAILABLE
    assert answer.message == (
        "maxMilliseconds 300 is no bucket border of the histogram; the nearest are 250 and 500"
    )


async def test_the_unit_of_a_native_histogram_counts() -> None:
    world = World()
    numbers = {1000 * k: n for k, n in SLOW.items()}
    play(world, exponential(3, numbers), exponential(3, {1000 * k: n for k, n in FAST.items()}))
    answer = await world.look(60.2, subject_of(latencyUnit="milliseconds"))
    assert answer.verdict is Verdict.HARM
    # In milliseconds the borders are others: 2 ** (66/8).
    assert "(judged at 304.4 ms, " in answer.message


async def test_classic_series_go_before_native_ones_where_there_are_both() -> None:
    world = World()
    play(world, exponential(3, FAST), exponential(3, FAST), last=10)
    for second in range(-60, 11):
        for pod in (CANARY, STABLE):
            at = {"namespace": "ml", "pod": pod}
            world.prom.sample(second, second + 60, "seconds_bucket", **at, le="0.25")
            world.prom.sample(second, second + 60, "seconds_count", **at)
    answer = await world.look(10.2, subject_of())
    assert answer.message == (
        "maxMilliseconds 300 is no bucket border of canary and stable; the nearest are 250"
    )
    world.prom.queries.clear()
    await world.look(10.4, subject_of(250))
    assert {query.partition("{")[0] for query in world.prom.queries} == {
        "seconds", "seconds_bucket", "seconds_count"
    }  # fmt: skip
    world.prom.queries.clear()
    await world.look(10.6, subject_of(250))
    assert {query.partition("{")[0] for query in world.prom.queries} == {
        "seconds_bucket", "seconds_count"
    }  # fmt: skip


async def test_a_restarted_pod_counts_on() -> None:
    world = World()
    play(world, exponential(3, FAST), exponential(3, FAST), last=20)
    before = await world.look(20.2, subject_of())
    assert " of 400," in before.message
    key = (("__name__", "seconds"), ("namespace", "ml"), ("pod", CANARY))
    ((left, right), *_) = exponential(3, FAST)
    started = {"count": "7", "sum": "1", "buckets": [[0, f"{left!r}", f"{right!r}", "7"]]}
    world.prom.natives[key].append((START + 21, started))
    world.native(21, STABLE, {}, "seconds")
    after = await world.look(21.2, subject_of())
    assert " of 407," in after.message
    assert after == await world.look(21.2, subject_of(), world.fresh())
