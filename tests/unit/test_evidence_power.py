"""What is forecast of a doubling is what the tests themselves then need, in simulation."""

from __future__ import annotations

import math
import random
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossfade.evidence.dispersion import Dispersion, RateDifferences
from crossfade.evidence.eprocesses import (
    NOTHING,
    LimitTest,
    MarginTest,
    StableRate,
)
from crossfade.evidence.kernel import Tolerance
from crossfade.evidence.power import forecast, present_rate, requests_needed, why_none
from crossfade.evidence.rates import Limits
from crossfade.evidence.verdicts import Counts, Forecast

DEFAULT = Tolerance(1.1, 0.001)
STRICT = Tolerance(1.0, 0.0)
NEEDED = math.log(2 / 0.01)
"""Two tests share one percent."""

RUNS = 120
LEAST, MOST = 0.7, 0.9
BINOMIAL_ERROR = math.sqrt(0.8 * 0.2 / RUNS)
HISTORY = 120
"""Spans in which stable was alone before: ten minutes of five seconds."""


class Scene(NamedTuple):
    """A base rate, the canary's weight, what is tolerated, and requests of both in a span."""

    rate: float
    weight: int
    harm: Tolerance | float
    requests: int


SCENES = (
    Scene(0.001, 5, STRICT, 4000),
    Scene(0.001, 50, STRICT, 1000),
    Scene(0.005, 5, DEFAULT, 1000),
    Scene(0.005, 50, DEFAULT, 200),
    Scene(0.01, 5, DEFAULT, 400),
    Scene(0.01, 25, DEFAULT, 100),
    Scene(0.01, 50, DEFAULT, 100),
    Scene(0.02, 10, Tolerance(1.5, 0.0), 400),
    Scene(0.05, 5, DEFAULT, 100),
    Scene(0.05, 50, DEFAULT, 100),
    Scene(0.014, 10, 0.02, 200),
    Scene(0.04, 10, 0.05, 100),
    Scene(0.0008, 50, 0.001, 1000),
)


def failures(rng: random.Random, requests: int, rate: float) -> int:
    """Draw from the binomial distribution, by the gaps between failures."""
    count, at, per_gap = 0, 0, math.log1p(-rate)
    while True:
        at += int(math.log(1 - rng.random()) / per_gap) + 1
        if at > requests:
            return count
        count += 1


def is_seen(scene: Scene, rng: random.Random) -> bool:
    """Run a test on a canary that fails twice as often, for as many answers as are forecast."""
    margin = MarginTest(scene.harm) if isinstance(scene.harm, Tolerance) else None
    limit = LimitTest(scene.harm) if not isinstance(scene.harm, Tolerance) else None
    usual, known = StableRate(), Dispersion(RateDifferences)
    for _ in range(HISTORY):
        alone = Counts(scene.requests, failures(rng, scene.requests, scene.rate))
        usual.learn(alone)
        known.learn(NOTHING, alone)
    answers = requests_needed(scene.rate, scene.harm, scene.weight, NEEDED, known.phi)
    assert answers is not None
    n_c = scene.requests * scene.weight // 100
    for span in range(answers // n_c):
        canary = Counts(n_c, failures(rng, n_c, 2 * scene.rate))
        beside = scene.requests - n_c
        stable = Counts(beside, failures(rng, beside, scene.rate))
        if margin:
            margin.step(canary, stable, usual.share, known)
        if limit:
            limit.step(canary, canary, stable, span * 5000, known)
        if (margin or limit).log_e() >= NEEDED:  # type: ignore[union-attr]  # one of them is
            return True
        usual.learn(stable)
        known.learn(canary, stable)
    return False


@pytest.mark.parametrize("scene", SCENES, ids=str)
def test_doubling_is_seen_with_eighty_percent_after_what_is_forecast(scene: Scene) -> None:
    rng = random.Random(20261124)
    seen = sum(is_seen(scene, rng) for _ in range(RUNS)) / RUNS
    assert LEAST - BINOMIAL_ERROR <= seen <= MOST + BINOMIAL_ERROR


def needed(
    rate: float, harm: Tolerance | float = DEFAULT, weight: int = 10, log_needed: float = NEEDED
) -> int:
    answers = requests_needed(rate, harm, weight, log_needed)
    assert answers is not None
    return answers


@given(st.floats(0.004, 0.1), st.integers(1, 98), st.floats(1, 20), st.floats(1, 50))
def test_a_sharper_test_or_clusters_take_more_answers(
    rate: float, weight: int, log_needed: float, dispersion: float
) -> None:
    answers = needed(rate, weight=weight, log_needed=log_needed)
    assert answers < needed(rate, weight=weight, log_needed=log_needed + 1)
    in_clusters = requests_needed(rate, DEFAULT, weight, log_needed, dispersion)
    assert in_clusters == pytest.approx(dispersion * answers, abs=dispersion + 1)


@given(st.floats(0.004, 0.3), st.integers(1, 97))
def test_less_of_stable_to_compare_with_takes_more_answers_of_the_canary(
    rate: float, weight: int
) -> None:
    assert needed(rate, weight=weight) <= needed(rate, weight=weight + 1)


@given(st.floats(0.0001, 0.3))
def test_a_tolerance_takes_more_answers_than_none(rate: float) -> None:
    assert needed(rate, STRICT) < needed(rate, Tolerance(1.2, 0.0))


def test_a_doubling_that_is_tolerated_is_not_forecast_and_it_is_said_why() -> None:
    limits, stable = Limits(share=0.02, tolerance=Tolerance(2.0, 0.0)), Counts(10_000, 90)
    assert requests_needed(0.009, Tolerance(2.0, 0.0), 10, NEEDED) is None
    assert requests_needed(0.009, 0.02, 10, NEEDED) is None
    assert forecast(limits, stable, (5, 50), 20.0, NEEDED) == ()
    assert why_none(limits, stable) == "twice stable's rate (1.8 %) is tolerated"


def test_a_doubling_that_is_nearly_tolerated_is_not_forecast_and_it_is_said_why() -> None:
    limits, stable = Limits(tolerance=DEFAULT), Counts(10_000, 14)
    assert forecast(limits, stable, (5, 50), 20.0, NEEDED) == ()
    assert why_none(limits, stable) == (
        "twice stable's rate (0.28 %) is too close to what is tolerated to be told from it"
    )


def test_nothing_is_forecast_before_stable_answered() -> None:
    limits = Limits(tolerance=DEFAULT)
    assert forecast(limits, NOTHING, (5, 50), 20.0, NEEDED) == ()
    assert why_none(limits, NOTHING).startswith("no answer of stable is counted yet")


def test_forecasts_answers_and_time_for_each_weight() -> None:
    limits, stable = Limits(tolerance=DEFAULT), Counts(10_000, 100)
    at_20_a_second = forecast(limits, stable, (5, 50), 20.0, NEEDED)
    few, many = needed(0.01, weight=5), needed(0.01, weight=50)
    assert at_20_a_second == (
        Forecast(5, few, few),
        Forecast(50, many, math.ceil(many / 10)),
    )
    without_traffic = forecast(limits, stable, (5, 50), 0.0, NEEDED)
    assert without_traffic == (Forecast(5, few, None), Forecast(50, many, None))
    one_a_day = forecast(limits, stable, (5, 50), 2.01 / 86_400, NEEDED)
    assert [one.seconds is None for one in one_a_day] == [True, False]


def test_of_two_limits_the_one_that_is_seen_first_is_forecast() -> None:
    stable = Counts(10_000, 190)
    beside, over = needed(0.019), needed(0.019, 0.02)
    assert over < beside
    (both,) = forecast(Limits(share=0.02, tolerance=DEFAULT), stable, (10,), 20.0, NEEDED)
    assert both.requests == over
    (one,) = forecast(Limits(tolerance=DEFAULT), stable, (10,), 20.0, NEEDED)
    assert one.requests == beside


def test_a_canary_that_gets_everything_is_forecast_by_the_limit_only() -> None:
    stable = Counts(10_000, 190)
    ladder = (50, 100)
    both = forecast(Limits(share=0.02, tolerance=DEFAULT), stable, ladder, 20.0, NEEDED)
    assert [one.weight_percent for one in both] == [50, 100]
    compared = forecast(Limits(tolerance=DEFAULT), stable, ladder, 20.0, NEEDED)
    assert [one.weight_percent for one in compared] == [50]


def test_without_a_bad_answer_the_rate_is_guessed_from_above() -> None:
    assert present_rate(Counts(1000, 0)) == 1 / 1001
    assert present_rate(Counts(1000, 1)) == 1 / 1000
    assert present_rate(Counts(1000, 30)) == 0.03


@given(
    st.integers(1, 10**9).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n))),
    st.integers(1, 100),
    st.floats(0, 1e6),
)
def test_whatever_stable_did_a_forecast_is_positive(
    counted: tuple[int, int], weight: int, per_second: float
) -> None:
    limits = Limits(share=0.02, tolerance=DEFAULT)
    for one in forecast(limits, Counts(*counted), (weight,), per_second, NEEDED):
        assert 0 < one.requests <= 10**9
        assert one.seconds is None or 0 < one.seconds < 2**63


def test_more_answers_than_anybody_gives_are_not_forecast() -> None:
    assert requests_needed(1e-6, STRICT, 10, NEEDED) is not None
    assert requests_needed(1e-9, STRICT, 10, NEEDED) is None
