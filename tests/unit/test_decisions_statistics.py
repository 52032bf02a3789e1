"""The shipped rules on seeded rollouts: enough runs that a rule that is not good enough fails.

Every run is seeded, so a test passes always or never. A row states the rate that a rule must keep;
how many runs may differ is the least count that a rule just at that rate stays within but for a
chance of one in a million. The simulation and its adapter are those of ``bench.decisions``.
"""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
import pytest

from bench.decisions.drift_traffic import DriftScene, normal_scores
from bench.decisions.judging import CHUNK, Drawable, Floats, Rule
from bench.decisions.numbers import at_most, clopper_pearson
from bench.decisions.shipped import STRICT, DriftPolicy, Shipped, ShippedDrift, both
from bench.decisions.thresholds import fastest, flagger
from bench.decisions.traffic import Incident, Scene

LUCK: Final = 1e-6
"""How likely a rule just at the rate that it must keep is to fail its row."""

BOTH: Final = Shipped("both", both(0.02))
DRIFT: Final = ShippedDrift("drift", DriftPolicy())
USUAL: Final = tuple(map(float, normal_scores(0.0)[0]))
SHIFTED: Final = tuple(map(float, normal_scores(1.0)[0]))

HEALTHY: Final = Scene("test: healthy", minutes=10, pods=(2, 2))


def most_of(runs: int, rate: float) -> int:
    """Return the least count that is exceeded with at most ``LUCK`` if each run is at a rate."""
    return next(k for k in range(runs + 1) if 1 - at_most(runs, k, rate) <= LUCK)


def harm_times(scene: Drawable[Any], rule: Rule[Any], runs: int) -> Floats:
    chunks = [rule.decide(scene.simulate(c), CHUNK).harm_s for c in range(runs // CHUNK)]
    return np.concatenate(chunks)


@pytest.mark.parametrize(
    ("scene", "rule", "runs"),
    [
        (HEALTHY, Shipped("strict", STRICT), 100),
        (HEALTHY, BOTH, 100),
        (HEALTHY.but(phi=5.0), BOTH, 100),
        (HEALTHY.but(incident=Incident(200, 120, 10)), BOTH, 100),
        (HEALTHY.but(lost=0.3, restart_every_s=300.0, weights=(0.1, 0.5)), BOTH, 100),
        (DriftScene("test: no drift", USUAL, USUAL, minutes=10), DRIFT, 50),
    ],
    ids=["strict", "default and limit", "clustered", "incident", "scrapes and restarts", "drift"],
)
def test_takes_back_few_healthy_canaries(scene: Drawable[Any], rule: Rule[Any], runs: int) -> None:
    harm = np.isfinite(harm_times(scene, rule, runs)).sum()

    assert harm <= most_of(runs, 0.01)


@pytest.mark.parametrize(
    ("scene", "rule", "within_s", "rate"),
    [
        (HEALTHY.but(canary_rate=0.05), BOTH, 600, 0.9),
        (HEALTHY.but(canary_rate=0.5), BOTH, 40, 0.9),
        (HEALTHY.but(canary_rate=0.5, phi=5.0), BOTH, 120, 0.9),
        (HEALTHY.but(canary_rate=0.5, onset_s=300.0), BOTH, 60, 0.9),
        (DriftScene("test: shift", SHIFTED, USUAL, minutes=5), DRIFT, 60, 0.9),
    ],
    ids=["five times", "gross", "gross, clustered", "gross, late", "drift"],
)
def test_finds_broken_canaries_in_time(
    scene: Drawable[Any], rule: Rule[Any], within_s: float, rate: float
) -> None:
    delays = harm_times(scene, rule, 100) - scene.onset_s

    missed = ((delays <= 0) | (delays > within_s)).sum()

    assert missed <= most_of(100, 1 - rate)


@pytest.mark.parametrize("rule", [fastest(0.02), flagger(0.02, 1)], ids=["fastest", "Flagger"])
def test_the_bound_fails_a_rule_that_is_not_good_enough(rule: Rule[Any]) -> None:
    harm = np.isfinite(harm_times(HEALTHY, rule, 100)).sum()

    assert harm > most_of(100, 0.01)


def test_the_rate_of_a_simple_rule_is_its_binomial_one() -> None:
    """Flagger's checks are independent: requests are Poisson, and so are bad answers."""
    fails = sum(
        math.exp(_log_poisson(1.2, bad) + _log_poisson(118.8, good))
        for bad in range(60)
        for good in range(300)
        if bad > 0.02 * (bad + good)
    )
    runs = 2000
    scene = Scene("test: checks", aligned=True)

    harm = np.isfinite(harm_times(scene, flagger(0.02, 5), runs)).sum()

    expected = 1 - at_most(30, 4, fails)
    low, high = clopper_pearson(int(harm), runs)
    assert low < expected < high


def _log_poisson(mean: float, count: int) -> float:
    return count * math.log(mean) - mean - math.lgamma(count + 1)


@pytest.mark.parametrize("phi", [1.0, 2.0, 5.0])
def test_bad_answers_have_the_dispersion_that_is_asked_for(phi: float) -> None:
    scene = HEALTHY.but("many", phi=phi, requests_per_second=200.0, weights=(0.5,))
    counts = np.diff(scene.simulate(0).marks(10).stable_bad, axis=1).ravel()

    # 3,000 counts with a mean of 10: the error of the ratio is at most phi x 4 %.
    assert counts.mean() == pytest.approx(10, rel=0.1)
    assert counts.var() / counts.mean() == pytest.approx(phi, rel=0.2)


def test_a_run_is_the_same_each_time() -> None:
    once, again = (HEALTHY.simulate(3) for _ in range(2))

    assert list(once.samples()) == list(again.samples())
    assert list(once.samples()) != list(HEALTHY.simulate(4).samples())


def test_a_bound_is_exact() -> None:
    """Against the closed forms for none and for all of n."""
    assert clopper_pearson(0, 100)[1] == pytest.approx(1 - 0.025 ** (1 / 100), abs=1e-9)
    assert clopper_pearson(100, 100)[0] == pytest.approx(0.025 ** (1 / 100), abs=1e-9)
    assert at_most(3, 1, 0.5) == pytest.approx(0.5)
