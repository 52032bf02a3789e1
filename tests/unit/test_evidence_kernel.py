from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from crossfade.evidence.eprocesses import HIGHEST_RATE, ODDS_OVER_STABLE
from crossfade.evidence.kernel import Bet, Tolerance, bet_on, log_e
from crossfade.evidence.verdicts import Counts

TOLERANCES = st.builds(
    Tolerance,
    st.one_of(st.just(1.0), st.floats(1, 20)),
    st.one_of(st.just(0.0), st.floats(0, 0.5)),
)
BETS = st.builds(Bet, st.floats(1e-6, 300), st.one_of(st.just(0.0), st.floats(1e-12, 0.999)))
REQUESTS = st.integers(1, 7)
SHARES = st.floats(0, 1)


def binomial(n: int, p: float) -> list[float]:
    return [math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(n + 1)]


def mean(tolerance: Tolerance, bet: Bet, n_c: int, n_s: int, p_c: float, p_s: float) -> float:
    """Return the exact mean of the e-value, over all outcomes."""
    return math.fsum(
        of_canary * of_stable * math.exp(log_e(tolerance, bet, Counts(n_c, c), Counts(n_s, s)))
        for c, of_canary in enumerate(binomial(n_c, p_c))
        for s, of_stable in enumerate(binomial(n_s, p_s))
    )


def best(function: Callable[[float], float], low: float, high: float) -> float:
    """Return where a function with a single peak is highest (ternary search)."""
    for _ in range(100):
        a, b = low + (high - low) / 3, high - (high - low) / 3
        low, high = (a, high) if function(a) < function(b) else (low, b)
    return (low + high) / 2


@settings(max_examples=150, deadline=None)
@given(TOLERANCES, BETS, REQUESTS, REQUESTS, SHARES, SHARES)
@example(Tolerance(2.0, 0.1), Bet(3.0, 0.5), 3, 3, 0.45, 1.0)
@example(Tolerance(1.0, 0.0), Bet(300.0, 0.999), 7, 1, 1.0, 1.0)
def test_the_mean_is_at_most_one_for_all_that_is_tolerated(
    tolerance: Tolerance, bet: Bet, n_c: int, n_s: int, stable: float, share: float
) -> None:
    """Whatever stable's rate is, also where the border is beyond certainty."""
    border = min(1.0, tolerance.border(stable))
    for canary in (border, share * border):
        assert mean(tolerance, bet, n_c, n_s, canary, stable) <= 1 + 1e-9


@settings(max_examples=60, deadline=None)
@given(TOLERANCES, BETS, REQUESTS, REQUESTS)
def test_the_mean_is_one_at_the_worst_of_stables_rates_and_more_beyond(
    tolerance: Tolerance, bet: Bet, n_c: int, n_s: int
) -> None:
    """So nothing is wasted: the bound above is reached for all bets."""

    def at_border(stable: float) -> float:
        return mean(tolerance, bet, n_c, n_s, min(1.0, tolerance.border(stable)), stable)

    worst = best(at_border, 0.0, min(1.0, (1 - tolerance.slack) / tolerance.ratio))
    assert at_border(worst) == pytest.approx(1.0, abs=1e-7)
    canary = tolerance.border(worst)
    if canary < 0.99:
        assert mean(tolerance, bet, n_c, n_s, canary + 0.01, worst) > 1 + 1e-3 * min(bet.a, 1)


SPANS = st.lists(
    st.tuples(st.integers(0, 50), st.integers(0, 50), st.integers(0, 50), st.integers(0, 50)).map(
        lambda t: (Counts(t[0] + t[1], t[0]), Counts(t[2] + t[3], t[2]))
    ),
    min_size=1,
    max_size=6,
).filter(lambda spans: all(c.requests and s.requests for c, s in spans))


@given(TOLERANCES, BETS, st.integers(1, 9), st.integers(1, 9), st.data())
def test_splitting_a_span_at_the_same_share_changes_nothing(
    tolerance: Tolerance, bet: Bet, n_c: int, n_s: int, data: st.DataObject
) -> None:
    """Wherever the bad answers fall: so lost scrapes and a finer grid cost nothing."""
    times = data.draw(st.lists(st.integers(1, 5), min_size=1, max_size=5))
    parts = [
        (
            Counts(k * n_c, data.draw(st.integers(0, k * n_c))),
            Counts(k * n_s, data.draw(st.integers(0, k * n_s))),
        )
        for k in times
    ]
    whole_c, whole_s = Counts(), Counts()
    for canary, stable in parts:
        whole_c, whole_s = whole_c + canary, whole_s + stable
    apart = math.fsum(log_e(tolerance, bet, canary, stable) for canary, stable in parts)
    assert apart == pytest.approx(log_e(tolerance, bet, whole_c, whole_s), rel=1e-9, abs=1e-9)


@given(TOLERANCES, BETS, SPANS)
def test_spans_of_other_shares_are_worth_less_apart_than_as_one(
    tolerance: Tolerance, bet: Bet, spans: list[tuple[Counts, Counts]]
) -> None:
    """Stable's rate may be another in every span, and that has its price."""
    whole_c, whole_s = Counts(), Counts()
    for canary, stable in spans:
        whole_c, whole_s = whole_c + canary, whole_s + stable
    apart = math.fsum(log_e(tolerance, bet, canary, stable) for canary, stable in spans)
    assert apart <= log_e(tolerance, bet, whole_c, whole_s) + 1e-9 * (1 + abs(apart))


@given(TOLERANCES, BETS, SPANS)
def test_the_canarys_failures_speak_against_it_and_stables_for_it(
    tolerance: Tolerance, bet: Bet, spans: list[tuple[Counts, Counts]]
) -> None:
    for canary, stable in spans:
        told = log_e(tolerance, bet, canary, stable)
        worse = Counts(canary.requests, canary.bad + 1)
        assert log_e(tolerance, bet, worse, stable) - told == pytest.approx(math.log1p(bet.a))
        other = Counts(stable.requests, stable.bad + 1)
        less = told - log_e(tolerance, bet, canary, other)
        assert less == pytest.approx(-math.log1p(-bet.b), abs=1e-9)


RATES = st.floats(1e-6, 0.98)
MANY = st.integers(1, 100_000)
Requests = tuple[int, int]
"""The canary's and stable's."""


@settings(max_examples=300)
@given(TOLERANCES, RATES, RATES, MANY, MANY)
@example(Tolerance(1.0, 0.0), 0.02, 0.02, 10, 90)
@example(Tolerance(1.0, 0.0), 0.02 + 1e-17, 0.02, 10, 90)
@example(Tolerance(1.0, 0.0), math.nextafter(0.02, 1), 0.02, 10, 90)
@example(Tolerance(1.1, 0.001), math.nextafter(0.023, 1), 0.02, 1, 1)
@example(Tolerance(1.0, 0.5), 0.98, 1e-6, 1, 100_000)
@example(Tolerance(20.0, 0.0), 0.98, 1e-6, 100_000, 1)
def test_bets_can_be_placed_or_there_are_none(
    tolerance: Tolerance, canary: float, stable: float, n_c: int, n_s: int
) -> None:
    bet = bet_on(tolerance, canary, stable, n_c, n_s)
    if bet is None:
        assert canary <= tolerance.border(stable) * (1 + 1e-9) + 1e-9
        return
    assert canary > tolerance.border(stable)
    assert bet.a > 0
    assert 0 <= bet.b < 1
    assert math.isfinite(log_e(tolerance, bet, Counts(n_c, n_c), Counts(n_s, n_s)))


def divergence(p: float, q: float) -> float:
    return p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))


def speeds(tolerance: Tolerance, canary: float, stable: float, n: Requests) -> tuple[float, float]:
    """Return how fast the bets grow when these are the rates, and how fast any could.

    The fastest grow by the least divergence from the border; here it is searched for.
    """
    bet = bet_on(tolerance, canary, stable, *n)
    assert bet is not None
    nothing = log_e(tolerance, bet, Counts(n[0], 0), Counts(n[1], 0))
    grows = nothing + n[0] * canary * math.log1p(bet.a) + n[1] * stable * math.log1p(-bet.b)

    def from_border(u: float) -> float:
        return n[0] * divergence(canary, tolerance.border(u)) + n[1] * divergence(stable, u)

    highest = (canary - tolerance.slack) / tolerance.ratio
    return grows, from_border(best(lambda u: -from_border(u), stable, highest))


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from([1.0, 1.1, 2.0, 10.0]),
    st.sampled_from([0.0, 0.001, 0.01]),
    st.floats(0.001, 0.5),
    st.one_of(st.sampled_from(ODDS_OVER_STABLE), st.floats(1.2, 30)),
    st.tuples(MANY, MANY),
)
@example(10.0, 0.0, 0.075, 14.0, (50, 160))
@example(2.0, 0.001, 0.4786, 2.0, (797, 1467))
@example(10.0, 0.0, 0.0968, 1.5, (4454, 713))
@example(1.0, 0.0, 0.5, 30.0, (10, 90))
@example(1.1, 0.0, 0.08, 1.5, (1, 100_000))
@example(2.0, 0.0, 0.03, 1.55, (1000, 100))
@example(10.0, 0.0, 0.0056, 1.5, (1000, 100))
def test_the_bets_grow_as_fast_as_any(
    ratio: float, slack: float, stable: float, times: float, n: Requests
) -> None:
    tolerance = Tolerance(ratio, slack)
    border = tolerance.border(stable)
    assume(border < HIGHEST_RATE)
    canary = min(times * border / (1 - border + times * border), HIGHEST_RATE)
    assume(canary > border * 1.001)
    grows, fastest = speeds(tolerance, canary, stable, n)
    assert 0.99 * fastest <= grows <= fastest * (1 + 1e-6)


def test_nothing_is_bet_on_what_is_tolerated() -> None:
    assert bet_on(Tolerance(2.0, 0.0), 0.02, 0.01, 10, 90) is None
    assert bet_on(Tolerance(1.0, 0.01), 0.02, 0.01, 10, 90) is None
    assert bet_on(Tolerance(1.9, 0.0), 0.02, 0.01, 10, 90) is not None


def test_without_a_bet_on_stable_it_is_the_test_against_the_border_of_its_highest_rate() -> None:
    """In closed form: (1 + a)^bad / (1 + d a)^requests with d = 1 x highest + slack."""
    told = log_e(Tolerance(1.0, 0.2), Bet(3.0, 0.0), Counts(10, 4), Counts(7, 3))
    assert told == pytest.approx(4 * math.log(4) - 10 * math.log(1 + 3))
