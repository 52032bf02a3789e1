from __future__ import annotations

import math
from itertools import product

import pytest

from crossfade.evidence.eprocesses import (
    LOG_THRESHOLD,
    LimitTest,
    RatioTest,
    log_e_against,
    log_sum,
    tempered,
)
from crossfade.evidence.verdicts import Counts


def binomial(n: int, k: int, p: float) -> float:
    return math.comb(n, k) * p**k * (1 - p) ** (n - k)


@pytest.mark.parametrize("limit", [0.001, 0.02, 0.3, 0.95])
def test_the_limit_test_has_a_mean_of_one_at_the_limit(limit: float) -> None:
    """Over all paths of four steps: starts that depend on bad answers before are no free lunch."""
    mean = 0.0
    for path in product(range(4), repeat=4):
        test = LimitTest(limit)
        for i, bad in enumerate(path):
            test.step(Counts(3, bad), Counts(), i * 1000)
        mean += math.prod(binomial(3, bad, limit) for bad in path) * math.exp(test.log_e())
    assert mean == pytest.approx(1.0)


@pytest.mark.parametrize(("canary", "stable", "ratio"), [(3, 20, 1.0), (10, 10, 1.2), (20, 3, 2)])
def test_the_ratio_test_has_a_mean_of_one_given_the_total(
    canary: int, stable: int, ratio: float
) -> None:
    share = ratio * canary / (ratio * canary + stable)
    mean = 0.0
    for bad in range(4):
        test = RatioTest(ratio)
        test.step(Counts(canary, bad), Counts(stable, 3 - bad))
        mean += binomial(3, bad, share) * math.exp(test.log_e())
    assert mean == pytest.approx(1.0)


def test_three_errors_in_six_requests_are_enough_against_two_percent() -> None:
    test = LimitTest(0.02)
    test.step(Counts(6, 3), Counts(54, 0), 0)
    assert test.log_e() > LOG_THRESHOLD


def test_two_errors_are_not_enough_against_two_percent() -> None:
    test = LimitTest(0.02)
    test.step(Counts(4, 2), Counts(36, 0), 0)
    assert test.log_e() < LOG_THRESHOLD


def test_finds_a_late_regression_and_says_when_it_began() -> None:
    test = LimitTest(0.02)
    for i in range(200):
        test.step(Counts(10, i % 10 == 0), Counts(90, i % 2), i * 5000)
    assert test.log_e() < LOG_THRESHOLD
    test.step(Counts(12, 6), Counts(90, 1), 1_000_000)
    assert test.log_e() > LOG_THRESHOLD
    window = test.window()
    assert window.begun_at == 1_000_000
    assert window.canary == Counts(12, 6)
    assert window.stable == Counts(90, 2), "its bad ones from a fence before"


def test_a_break_after_an_hour_without_errors_is_found_as_fast_as_after_seconds() -> None:
    for healthy in (8, 3600):
        test = LimitTest(0.02)
        for i in range(healthy):
            test.step(Counts(2, 0), Counts(18, 0), i * 1000)
        for i in range(healthy, healthy + 3):
            test.step(Counts(2, 1 + i % 2), Counts(18, 0), i * 1000)
        assert test.log_e() > LOG_THRESHOLD
        assert test.window().begun_at == healthy * 1000, "the step of the first bad answer"


def test_nothing_seen_is_no_evidence() -> None:
    assert LimitTest(0.02).log_e() == 0.0
    assert RatioTest(1.2).log_e() == pytest.approx(0.0)
    assert log_e_against(Counts(10, 5), Counts()) == pytest.approx(0.0)
    assert log_sum([-math.inf, -math.inf]) == -math.inf


def test_a_failure_of_both_versions_is_no_evidence_against_the_canary() -> None:
    assert log_e_against(Counts(100, 50), Counts(900, 450)) < 0


def test_errors_that_all_fall_on_a_small_canary_are_evidence() -> None:
    assert log_e_against(Counts(10, 3), Counts(90, 0)) > LOG_THRESHOLD


def test_a_copy_goes_on_alone() -> None:
    for test in (LimitTest(0.02), RatioTest(1.0)):
        copy = test.copy()
        if isinstance(copy, LimitTest):
            copy.step(Counts(10, 5), Counts(90, 0), 0)
        else:
            copy.step(Counts(10, 5), Counts(90, 0))
        assert copy.log_e() > 1
        assert test.log_e() == pytest.approx(0.0)


def test_bad_requests_stay_within_the_requests() -> None:
    assert tempered(Counts(3, 5)) == Counts(3, 3)
    assert tempered(Counts(3, -2)) == Counts(3, 0)
