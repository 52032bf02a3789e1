from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crossfade.evidence import dispersion as dispersions
from crossfade.evidence import eprocesses
from crossfade.evidence.dispersion import (
    MOST_OF_A_STEP,
    MOST_OVER_LIMIT,
    MOST_WHEN_KNOWN,
    SEEN_TO_KNOW,
    Dispersion,
    RateDifferences,
)
from crossfade.evidence.eprocesses import (
    NOTHING,
    LimitTest,
    MarginTest,
    StableRate,
    bounded,
    log_e_apart,
    log_sum,
    minus,
)
from crossfade.evidence.kernel import Tolerance
from crossfade.evidence.verdicts import Counts

LOG_100 = math.log(100)
"""One test, a false rollback rate of 1 %."""


class Untempered(Dispersion[Counts]):
    """Takes answers as independent."""

    is_known = True
    phi = phi_of_stable = 1.0

    def __init__(self) -> None:
        super().__init__(RateDifferences)


def unknown() -> Dispersion[Counts]:
    """Of versions of which nothing was seen yet."""
    return Dispersion(RateDifferences)


@contextmanager
def uncapped() -> Iterator[None]:
    """Take everything at its face value: then means are 1, not only at most 1."""
    with pytest.MonkeyPatch.context() as patch:
        for module, most in (
            (dispersions, "MOST_OF_A_STEP"),
            (dispersions, "MOST_WHEN_KNOWN"),
            (eprocesses, "MOST_OVER_LIMIT"),
        ):
            patch.setattr(module, most, math.inf)
        yield


def binomial(n: int, k: int, p: float) -> float:
    return math.comb(n, k) * p**k * (1 - p) ** (n - k)


def known(cluster: int = 1) -> Dispersion[Counts]:
    """Of a stable version whose failures come alone, or in clusters."""
    dispersion = unknown()
    for i in range(2 * SEEN_TO_KNOW):
        dispersion.learn(NOTHING, Counts(1000, cluster * (i % 2)))
    return dispersion


def play_limit(limit: float, path: tuple[int, ...], known: Dispersion[Counts]) -> list[float]:
    """Return log e after each step of three requests."""
    test, logs = LimitTest(limit), []
    for i, bad in enumerate(path):
        test.step(Counts(3, bad), Counts(3, bad), NOTHING, i * 1000, known)
        known.learn(Counts(3, bad), NOTHING)
        logs.append(test.log_e())
    return logs


def stopped(logs: list[float], at: float = math.log(2)) -> float:
    """Return the evidence of who looks after each step and stops at the first that is enough."""
    return next((log for log in logs if log >= at), logs[-1])


def mean_of_limit(limit: float, rate: float, fresh: Callable[[], Dispersion[Counts]]) -> float:
    """Return the exact mean of the stopped e-value, over all paths of four steps."""
    return math.fsum(
        math.prod(binomial(3, bad, rate) for bad in path)
        * math.exp(stopped(play_limit(limit, path, fresh())))
        for path in product(range(4), repeat=4)
    )


@pytest.mark.parametrize("limit", [0.001, 0.02, 0.3, 0.95])
def test_the_limit_test_has_a_mean_of_one_at_the_limit(limit: float) -> None:
    """Starts that depend on bad answers before are no free lunch, nor is stopping early."""
    with uncapped():
        assert mean_of_limit(limit, limit, Untempered) == pytest.approx(1.0)
        assert mean_of_limit(limit, min(1.0, 1.1 * limit), Untempered) > 1.001


@pytest.mark.parametrize("limit", [0.001, 0.02, 0.3, 0.95])
def test_the_limit_test_has_a_mean_of_at_most_one_within_the_limit(limit: float) -> None:
    for rate in (0.0, limit / 2, limit):
        assert mean_of_limit(limit, rate, unknown) <= 1 + 1e-9
        assert mean_of_limit(limit, rate, lambda: known(5)) <= 1 + 1e-9


def mean_of_margin(
    tolerance: Tolerance,
    rates: list[tuple[float, float]],
    share: float,
    fresh: Dispersion[Counts],
    excess: float = 0.0,
) -> float:
    """Return the exact mean of the stopped e-value of the margin test, over all its paths.

    An adversary changes stable's rate, the split and the requests, knowing what has happened.

    Args:
        tolerance: of the test.
        rates: stable's in each step, after a step with a bad answer of the canary and without.
        share: how far the canary goes to what is tolerated.
        fresh: the dispersion at first.
        excess: how far beyond it.
    """

    def mean(
        test: MarginTest, known: Dispersion[Counts], usual: StableRate, step: int, was: int
    ) -> float:
        if step == len(rates) or test.log_e() >= math.log(2):
            return math.exp(test.log_e())
        mine, other = (1, 3) if was else (2, 1)
        p = rates[step][was]
        q = min(1.0, share * tolerance.border(p) + excess)
        total = 0.0
        for bad, others in product(range(mine + 1), range(other + 1)):
            weight = binomial(mine, bad, q) * binomial(other, others, p)
            if weight:
                canary, stable = Counts(mine, bad), Counts(other, others)
                after, learned, rate = test.copy(), known.copy(), usual.copy()
                after.step(canary, stable, rate.share, learned)
                learned.learn(canary, stable)
                rate.learn(stable)
                total += weight * mean(after, learned, rate, step + 1, min(bad, 1))
        return total

    return mean(MarginTest(tolerance), fresh, StableRate(), 0, 0)


PROBABILITIES = st.one_of(st.sampled_from([0.0, 0.01, 1.0]), st.floats(0, 1))
RATES = st.lists(st.tuples(PROBABILITIES, PROBABILITIES), min_size=3, max_size=3)
TOLERANCES = st.builds(Tolerance, st.floats(1, 3), st.sampled_from([0.0, 0.001, 0.2]))


@settings(max_examples=25, deadline=None)
@given(TOLERANCES, RATES, st.sampled_from([0.5, 1.0]), st.sampled_from([1, 4]), st.booleans())
def test_the_margin_test_has_a_mean_of_at_most_one_against_any_adversary(
    tolerance: Tolerance,
    rates: list[tuple[float, float]],
    share: float,
    cluster: int,
    tempered: bool,
) -> None:
    if tempered:
        assert mean_of_margin(tolerance, rates, share, known(cluster)) <= 1 + 1e-9
    else:
        with uncapped():
            assert mean_of_margin(tolerance, rates, share, Untempered()) <= 1 + 1e-9


def test_the_margin_test_has_a_mean_of_nearly_one_at_the_border_and_more_beyond() -> None:
    """So the bound above is no idle one. The rest is what a late start pays for the step before."""
    rates = [(0.01, 0.01)] * 3
    with uncapped():
        assert 0.98 < mean_of_margin(Tolerance(1.0, 0.0), rates, 1.0, Untempered()) <= 1
        beyond = mean_of_margin(Tolerance(1.0, 0.0), rates, 1.0, Untempered(), excess=0.1)
        assert beyond > 1.1


def test_long_runs_at_the_border_have_a_mean_of_at_most_one() -> None:
    """Seeded: 300 rollouts of 60 spans, changing splits and rates, stopped at an e-value of 20.

    The standard error of the mean is 0.1 to 0.15, as a stopped e-value is seldom far above 20.
    """
    rng = random.Random(4)
    tolerance = Tolerance(1.1, 0.001)
    for cluster in (1, 3):
        ends = []
        for _ in range(150):
            logs = list(border_run(rng, tolerance, cluster))
            ends.append(math.exp(stopped(logs, math.log(20))))
        mean = math.fsum(ends) / len(ends)
        variance = math.fsum((e - mean) ** 2 for e in ends) / (len(ends) - 1)
        assert mean <= 1 + 3 * math.sqrt(variance / len(ends))


def border_run(rng: random.Random, tolerance: Tolerance, cluster: int) -> Iterator[float]:
    """Yield log e after each span of a canary that is as bad as is tolerated, and not worse.

    In clusters each failure counts several times, which is no null hypothesis of the test without
    the dispersion that it learns.
    """
    test, known, usual = MarginTest(tolerance), unknown(), StableRate()
    for i in range(60):
        rate = 0.02 if i % 20 < 15 else 0.2
        requests = rng.choice(((3, 12), (10, 10), (12, 2)))
        shares = (tolerance.border(rate), rate)
        canary, stable = (
            Counts(cluster * n, cluster * sum(rng.random() < p for _ in range(n)))
            for n, p in zip(requests, shares, strict=True)
        )
        test.step(canary, stable, usual.share, known)
        known.learn(canary, stable)
        usual.learn(stable)
        yield test.log_e()


def first_step(known: Dispersion[Counts]) -> tuple[float, float]:
    """Return log e of both tests after a scrape in which every answer of the canary is bad."""
    limit, margin = LimitTest(0.02), MarginTest(Tolerance(1.0, 0.0))
    limit.step(Counts(1000, 1000), Counts(1000, 1000), Counts(9000, 0), 0, known)
    margin.step(Counts(1000, 1000), Counts(9000, 0), 0.001, known)
    return limit.log_e(), margin.log_e()


def test_no_single_scrape_takes_a_version_back_before_clusters_are_known() -> None:
    assert LOG_100 > MOST_OF_A_STEP
    for log_e in first_step(unknown()):
        assert 2 < log_e <= MOST_OF_A_STEP


def test_one_scrape_is_enough_once_they_are_known() -> None:
    limit, margin = first_step(known())
    assert LOG_100 < limit <= MOST_OVER_LIMIT
    assert LOG_100 < margin <= MOST_WHEN_KNOWN


def test_no_scrape_adds_more_than_the_cap_even_then() -> None:
    with uncapped():
        assert min(first_step(known())) > 100


def test_clusters_temper_what_a_step_says() -> None:
    """Of stable's, against the limit; of either version's, against stable."""

    def told(known: Dispersion[Counts]) -> tuple[float, float]:
        limit, margin = LimitTest(0.02), MarginTest(Tolerance(1.0, 0.0))
        limit.step(Counts(20, 5), Counts(20, 5), Counts(180, 0), 0, known)
        margin.step(Counts(20, 5), Counts(180, 0), 0.01, known)
        return limit.log_e(), margin.log_e()

    of_canary = unknown()
    for i in range(2 * SEEN_TO_KNOW):
        of_canary.learn(Counts(1000, 5 * (i % 2)), Counts(1000, 0))
    alone, clusters = told(known()), told(known(5))
    assert clusters[0] < alone[0] / 2
    assert clusters[1] < alone[1] / 2
    assert told(of_canary) == (alone[0], clusters[1])


def test_three_errors_in_six_requests_are_enough_against_two_percent() -> None:
    test = LimitTest(0.02)
    for i in range(3):
        test.step(Counts(2, 1), Counts(2, 1), Counts(18, 0), i * 1000, unknown())
    assert test.log_e() > LOG_100


def test_two_errors_are_not_enough_against_two_percent() -> None:
    test = LimitTest(0.02)
    for i in range(2):
        test.step(Counts(2, 1), Counts(2, 1), Counts(18, 0), i * 1000, unknown())
    assert test.log_e() < LOG_100


def test_finds_a_late_regression_and_says_when_it_began() -> None:
    test = LimitTest(0.02)
    for i in range(200):
        test.step(
            Counts(10, i % 10 == 0), Counts(10, i % 10 == 0), Counts(90, i % 2), i * 5000, known()
        )
    assert test.log_e() < LOG_100
    for i in range(2):
        test.step(Counts(12, 6), Counts(12, 6), Counts(90, 0), 1_000_000 + i * 5000, known())
    assert test.log_e() > LOG_100
    window = test.window()
    assert window.begun_at == 1_000_000
    assert window.canary == Counts(24, 12)
    assert window.stable == Counts(180, 1), "its bad ones from a fence before"


def test_a_break_after_an_hour_without_errors_is_found_as_fast_as_after_seconds() -> None:
    for healthy in (8, 3600):
        test = LimitTest(0.02)
        for i in range(healthy):
            test.step(Counts(2, 0), Counts(2, 0), Counts(18, 0), i * 1000, unknown())
        for i in range(healthy, healthy + 4):
            test.step(
                Counts(2, 1 + i % 2), Counts(2, 1 + i % 2), Counts(18, 0), i * 1000, unknown()
            )
        assert test.log_e() > LOG_100
        assert test.window().begun_at == healthy * 1000, "the step of the first bad answer"


def test_finds_a_late_regression_against_stable() -> None:
    test = MarginTest(Tolerance(1.1, 0.001))
    for _ in range(200):
        test.step(Counts(10, 0), Counts(90, 1), 0.01, known())
    assert test.log_e() < 0.5
    for _ in range(12):
        test.step(Counts(10, 2), Counts(90, 1), 0.01, known())
    assert test.log_e() > LOG_100


def test_what_stable_had_of_a_burst_before_weighs_against_the_canarys_part() -> None:
    """Scrapes are not at the same times: what hits both may be booked for stable a span before."""

    def evidence(*spans: tuple[Counts, Counts]) -> float:
        test = MarginTest(Tolerance(1.0, 0.0))
        for _ in range(100):
            test.step(Counts(50, 0), Counts(50, 1), 0.01, Untempered())
        for canary, stable in spans:
            test.step(canary, stable, 0.01, Untempered())
        return test.log_e()

    of_stable, of_canary = (Counts(50, 0), Counts(50, 25)), (Counts(50, 25), Counts(50, 0))
    quiet = (Counts(50, 0), Counts(50, 1))
    with uncapped():
        assert evidence(quiet, of_canary) > LOG_100
        assert evidence(of_stable, of_canary) < 0
        assert evidence(of_stable, quiet, of_canary) > LOG_100, "not of a burst long before"


def test_a_failure_of_both_versions_is_no_evidence_against_the_canary() -> None:
    assert log_e_apart(Counts(100, 50), Counts(900, 450), 0.01) < 0
    test = MarginTest(Tolerance(1.0, 0.0))
    for _ in range(10):
        test.step(Counts(100, 50), Counts(900, 450), 0.01, known())
    assert test.log_e() < 0


def test_what_is_tolerated_is_no_evidence_however_much_there_is_of_it() -> None:
    for tolerance, bad in ((Tolerance(2.0, 0.0), 20), (Tolerance(1.0, 0.01), 20)):
        test, strict = MarginTest(tolerance), MarginTest(Tolerance(1.0, 0.0))
        for _ in range(100):
            test.step(Counts(1000, bad), Counts(1000, 10), 0.01, known())
            strict.step(Counts(1000, bad), Counts(1000, 10), 0.01, known())
        assert test.log_e() < 0.5
        assert strict.log_e() > LOG_100


def test_a_stable_version_that_always_fails_is_nothing_to_compare_with() -> None:
    test = MarginTest(Tolerance(2.0, 0.1))
    test.step(Counts(10, 10), Counts(10, 10), 0.98, known())
    assert test.log_e() == pytest.approx(0.0)


def test_errors_that_all_fall_on_a_small_canary_are_evidence() -> None:
    assert log_e_apart(Counts(10, 3), Counts(90, 0), 0.01) > 3


def test_nothing_seen_is_no_evidence() -> None:
    assert LimitTest(0.02).log_e() == 0.0
    assert MarginTest(Tolerance(1.2, 0.0)).log_e() == 0.0
    assert log_e_apart(Counts(10, 5), NOTHING, 0.01) == 0.0
    assert log_e_apart(NOTHING, Counts(10, 5), 0.01) == 0.0
    assert log_sum([-math.inf, -math.inf]) == -math.inf


def test_a_copy_goes_on_alone() -> None:
    limit, margin = LimitTest(0.02), MarginTest(Tolerance(1.0, 0.0))
    limit_copy, margin_copy = limit.copy(), margin.copy()
    limit_copy.step(Counts(10, 5), Counts(10, 5), Counts(90, 0), 0, unknown())
    margin_copy.step(Counts(10, 5), Counts(90, 0), 0.01, unknown())
    assert min(limit_copy.log_e(), margin_copy.log_e()) > 1
    assert limit.log_e() == margin.log_e() == 0.0
    dispersion, usual = known(), StableRate()
    phi, share = dispersion.phi, usual.share
    dispersion.copy().learn(Counts(100, 0), Counts(100, 90))
    usual.copy().learn(Counts(1000, 900))
    assert (dispersion.phi, usual.share) == (phi, share)


def spans(rng: random.Random, rate: Callable[[int], float], *, cluster: int = 1) -> list[Counts]:
    """Return 600 spans of 200 requests whose failures come in clusters."""
    return [
        Counts(200, cluster * sum(rng.random() < rate(i) for _ in range(200 // cluster)))
        for i in range(600)
    ]


def dispersion_of(of_stable: list[Counts], of_canary: list[Counts] | None = None) -> float:
    dispersion = unknown()
    for i, stable in enumerate(of_stable):
        dispersion.learn(of_canary[i] if of_canary else NOTHING, stable)
    return dispersion.phi


@pytest.mark.parametrize("rate", [0.001, 0.01, 0.2])
def test_the_dispersion_of_independent_answers_is_about_one(rate: float) -> None:
    rng = random.Random(1)
    assert dispersion_of(spans(rng, lambda _: rate)) < 1.15
    assert dispersion_of(spans(rng, lambda i: rate * (1 + i / 600))) < 1.15, "it drifts"


@pytest.mark.parametrize("cluster", [2, 5, 10])
def test_the_dispersion_of_clusters_is_about_their_size(cluster: int) -> None:
    rng = random.Random(1)
    clustered = spans(rng, lambda _: 0.02, cluster=cluster)
    assert dispersion_of(clustered) == pytest.approx(cluster, rel=0.2)
    quiet = spans(rng, lambda _: 0.0)
    assert dispersion_of(quiet, clustered) == pytest.approx(cluster, rel=0.2), "of the canary only"
    of_canary = unknown()
    for one in clustered:
        of_canary.learn(one, NOTHING)
    assert of_canary.phi_of_stable == 1.0


def test_one_incident_does_not_blow_the_dispersion_up_for_good() -> None:
    """Two minutes at 10 % of a stable version at 1 %; 40 minutes later Pearson's is still 6."""
    rng = random.Random(1)
    counts = spans(rng, lambda i: 0.1 if 100 <= i < 124 else 0.01)
    rate = sum(one.bad for one in counts) / (200 * 600)
    pearson = sum((one.bad - 200 * rate) ** 2 for one in counts) / (200 * rate * (1 - rate)) / 599
    assert pearson > 5
    assert dispersion_of(counts) < 1.5


def test_it_is_known_whether_failures_come_in_clusters_after_some() -> None:
    dispersion = unknown()
    dispersion.learn(Counts(100, SEEN_TO_KNOW // 2), Counts(100, SEEN_TO_KNOW // 2 - 1))
    assert not dispersion.is_known
    dispersion.learn(Counts(100, 1), NOTHING)
    assert dispersion.is_known


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), max_size=20))
def test_the_dispersion_is_at_least_one(bad: list[tuple[int, int]]) -> None:
    dispersion = unknown()
    for canary, stable in bad:
        dispersion.learn(Counts(50, canary), Counts(50, stable))
    assert min(dispersion.phi, dispersion.phi_of_stable) >= 1


def test_the_dispersion_tells_nothing_without_requests_or_failures() -> None:
    assert dispersion_of([Counts(10, 0), Counts(10, 0)]) == 1.0
    alternating = [Counts(10, 0), Counts(10, 9)]
    assert dispersion_of([alternating[0], NOTHING, alternating[1]]) == dispersion_of(alternating)
    assert dispersion_of(alternating) > 5


def test_stables_rate_is_guessed_before_it_is_seen_and_followed_after() -> None:
    usual = StableRate()
    assert usual.share == pytest.approx(0.01)
    for _ in range(1200):
        usual.learn(Counts(100, 2))
    assert usual.share == pytest.approx(0.02, rel=0.01)
    for _ in range(120):
        usual.learn(Counts(100, 4))
    assert usual.share == pytest.approx(0.03, rel=0.01), "half of the memory is from before"


@pytest.mark.parametrize("bad", [0, 1_000_000])
def test_stables_rate_is_never_certain(bad: int) -> None:
    usual = StableRate()
    for _ in range(2000):
        usual.learn(Counts(1_000_000, bad))
    assert 0 < usual.share < 1


def test_bad_requests_stay_within_the_requests() -> None:
    assert bounded(Counts(3, 5)) == Counts(3, 3)
    assert bounded(Counts(3, -2)) == Counts(3, 0)
    assert bounded(Counts(3, 2)) == Counts(3, 2)
    assert minus(Counts(5, 3), Counts(2, 1)) == Counts(3, 2)
