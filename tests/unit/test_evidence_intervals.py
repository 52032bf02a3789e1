"""Intervals hold what they promise at every look, and are no wider than that asks for."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossfade.evidence.intervals import interval
from crossfade.evidence.verdicts import Counts

Interval = Callable[[Counts], tuple[float, float]]

PATHS = 2000
STEPS = 1000
BINOMIAL_ERROR = 3 * math.sqrt(0.05 * 0.95 / PATHS)


@st.composite
def counts(draw: st.DrawFn, most: int = 10**9) -> Counts:
    requests = draw(st.integers(1, most))
    return Counts(requests, draw(st.integers(0, requests)))


@st.composite
def mixed(draw: st.DrawFn, most: int) -> Counts:
    """Neither all good nor all bad."""
    requests = draw(st.integers(2, most))
    return Counts(requests, draw(st.integers(1, requests - 1)))


dispersions = st.floats(1, 1000)


def wilson(counted: Counts) -> tuple[float, float]:
    """The fixed-size interval that most people know."""
    n, p, z2 = counted.requests, counted.bad / counted.requests, 1.96**2
    centre = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = math.sqrt(z2 * (p * (1 - p) / n + z2 / (4 * n * n))) / (1 + z2 / n)
    return centre - half, centre + half


def share_of_paths_that_leave(of: Interval, rate: float) -> float:
    """Return how many of many long runs exclude the true rate at any of their steps."""
    rng = random.Random(20261124)
    known: dict[tuple[int, int], bool] = {}
    left = 0
    for _ in range(PATHS):
        bad = 0
        for n in range(1, STEPS + 1):
            bad += rng.random() < rate
            inside = known.get((n, bad))
            if inside is None:
                low, high = of(Counts(n, bad))
                inside = known[n, bad] = low <= rate <= high
            if not inside:
                left += 1
                break
    return left / PATHS


@pytest.mark.parametrize("rate", [0.01, 0.05, 0.4])
def test_true_rate_is_ever_excluded_in_at_most_five_percent_of_long_runs(rate: float) -> None:
    assert share_of_paths_that_leave(interval, rate) <= 0.05 + BINOMIAL_ERROR


def test_the_same_scan_finds_an_interval_that_is_made_for_one_look() -> None:
    assert share_of_paths_that_leave(wilson, 0.05) > 0.2


def test_says_what_the_documentation_says() -> None:
    low, high = interval(Counts(1204, 37))
    assert (round(100 * low, 1), round(100 * high, 1)) == (1.7, 5.0)
    low, high = wilson(Counts(1204, 37))
    assert (round(100 * low, 1), round(100 * high, 1)) == (2.2, 4.2)


def test_without_requests_everything_is_possible() -> None:
    assert interval(Counts()) == (0, 1)


@given(counts(), dispersions)
def test_contains_the_estimate_and_is_within_zero_and_one(
    counted: Counts, dispersion: float
) -> None:
    low, high = interval(counted, dispersion)
    assert 0 <= low <= counted.bad / counted.requests <= high <= 1
    assert low < high


@given(st.integers(1, 10**9), dispersions)
def test_ends_are_exact_where_nothing_or_everything_was_bad(n: int, dispersion: float) -> None:
    assert interval(Counts(n, 0), dispersion)[0] == 0
    assert interval(Counts(n, n), dispersion)[1] == 1


@given(counts(), dispersions, st.tuples(st.floats(0.01, 0.9999), st.floats(0.01, 0.9999)))
def test_higher_level_is_wider(
    counted: Counts, dispersion: float, levels: tuple[float, float]
) -> None:
    narrow = interval(counted, dispersion, min(levels))
    wide = interval(counted, dispersion, max(levels))
    slack = 1e-9
    assert wide[0] <= narrow[0] * (1 + slack)
    assert wide[1] >= narrow[1] * (1 - slack)


@given(counts(10_000), st.integers(2, 1000))
def test_shrinks_with_the_number_of_requests(counted: Counts, times: int) -> None:
    few = interval(counted)
    many = interval(Counts(counted.requests * times, counted.bad * times))
    assert many[1] - many[0] < few[1] - few[0]


@given(mixed(10_000))
def test_dispersion_is_worth_as_many_requests_fewer(counted: Counts) -> None:
    whole = Counts(4 * counted.requests, 4 * counted.bad)
    assert interval(whole, 4.0) == pytest.approx(interval(counted), rel=1e-9)
    assert interval(whole)[1] < interval(whole, 4.0)[1]


@given(mixed(10**6), st.floats(0.5, 0.999))
def test_at_its_ends_the_evidence_against_the_share_is_that_of_the_level(
    counted: Counts, level: float
) -> None:
    """Against an independent computation of the martingale: bisection instead of Newton."""
    low, high = interval(counted, level=level)
    assert low == pytest.approx(bisected(counted, level, 0.0), rel=1e-6)
    assert high == pytest.approx(bisected(counted, level, 1.0), rel=1e-6)


def bisected(counted: Counts, level: float, outside: float) -> float:
    inside = counted.bad / counted.requests
    for _ in range(200):
        middle = (inside + outside) / 2
        if middle <= 0 or middle >= 1 or log_martingale(counted, middle) >= -math.log(1 - level):
            outside = middle
        else:
            inside = middle
    return inside


def log_martingale(counted: Counts, p: float) -> float:
    bad, good = counted.bad, counted.requests - counted.bad

    def log_ratio(a: float, b: float) -> float:
        log_beta = [
            math.lgamma(a + x) + math.lgamma(b + y) - math.lgamma(a + b + x + y)
            for x, y in ((bad, good), (0, 0))
        ]
        return log_beta[0] - log_beta[1] - bad * math.log(p) - good * math.log1p(-p)

    parts = math.log(0.8) + log_ratio(0.5, 20), math.log(0.2) + log_ratio(0.5, 0.5)
    return max(parts) + math.log1p(math.exp(min(parts) - max(parts)))
