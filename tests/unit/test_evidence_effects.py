"""How large a difference of two distributions is, and how large it surely is."""

from __future__ import annotations

import math
import random

import pytest

from crossfade.evidence.effects import Effect, Histogram, effect_of

NAMES = [str(place) for place in range(10)]
USUAL = [0.1] * 10
MOVED = [0.05] * 5 + [0.15] * 5
PSI = sum((f - g) * math.log(f / g) for f, g in zip(MOVED, USUAL, strict=True))


def counted(counts: dict[str, int]) -> Histogram:
    histogram = Histogram()
    histogram.learn(counts)
    return histogram


def drawn(shares: list[float], size: int, seed: int) -> Histogram:
    counts = dict.fromkeys(NAMES, 0)
    for name in random.Random(seed).choices(NAMES, shares, k=size):
        counts[name] += 1
    return counted(counts)


@pytest.mark.parametrize("size", [60, 200, 2000])
def test_an_index_is_right_on_average_and_its_bound_is_seldom_too_high(size: int) -> None:
    effects = [effect_of(drawn(MOVED, size, seed), NAMES, USUAL, None) for seed in range(400)]
    mean = sum(effect.psi for effect in effects) / len(effects)
    assert mean == pytest.approx(PSI, rel=0.15)
    too_high = sum(effect.at_least > PSI for effect in effects)
    assert too_high <= 0.035 * len(effects), "98 % certainty, and what 400 draws scatter"
    assert all(effect.at_least <= effect.psi for effect in effects)


def test_of_one_distribution_next_to_nothing_is_sure() -> None:
    effects = [effect_of(drawn(USUAL, 100, seed), NAMES, USUAL, 900) for seed in range(400)]
    assert sum(effect.psi for effect in effects) / len(effects) < 0.04
    assert sum(effect.at_least > 0.02 for effect in effects) <= 14


def test_rare_categories_are_joined_with_their_neighbours() -> None:
    """What moves from one rare category to the next is not seen, what moves farther is."""
    usual = {"0": 500, "1": 10, "2": 10, "3": 10, "4": 470}
    names = list(usual)
    shares = [n / 1000 for n in usual.values()]
    next_to_it = effect_of(
        counted({"0": 100, "1": 0, "2": 4, "3": 2, "4": 94}), names, shares, None
    )
    assert next_to_it == Effect(0.0, 0.0, next_to_it.most)
    farther = effect_of(counted({"0": 100, "1": 40, "2": 0, "3": 2, "4": 58}), names, shares, None)
    assert farther.psi > 0.3
    assert farther.most == "1"


def test_a_category_that_was_never_seen_counts() -> None:
    effect = effect_of(counted({"0": 50, "new": 50}), ["0", "new"], [0.999, 0.001], None)
    assert effect.most == "new"
    assert effect.at_least > 1


def test_of_nothing_nothing_is_said() -> None:
    assert effect_of(Histogram(), [], [], None) == Effect(0.0, 0.0, "")
    assert effect_of(Histogram(), NAMES, USUAL, 100).at_least == 0
