"""What a distribution is now, and how far it is from another."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from crossfade.evidence.eprocesses import MEMORY_FADE

PSEUDO_COUNT: Final = 0.5
"""Added to each category, so that none is impossible (Jeffreys' prior)."""

COMMON_FROM: Final = 5
"""Categories of which fewer are expected are joined where an effect is measured: with less the
distribution of an index is not that of a chi-square variable (Cochran, "Some methods for
strengthening the common chi-squared tests", 1954). An f-divergence only shrinks by that."""

SURE: Final = 2.2
"""Standard errors that are taken off an effect: it is at least that large with 98 % certainty."""


@dataclass(frozen=True, slots=True)
class Effect:
    """How far two distributions are apart."""

    psi: float
    """The population stability index, less what chance alone adds; at least 0. Between two samples
    of one distribution it is (categories - 1)(1/n + 1/n') on average (Yurdakul, "Statistical
    properties of population stability index", 2018)."""
    at_least: float
    """The same less its error: (sqrt(psi) - SURE sqrt(1/n + 1/n'))^2. An index is 1/n + 1/n' times
    a noncentral chi-square variable, whose square root has a variance of about 1 (Patnaik, "The
    non-central chi-square and F-distributions and their applications", 1949)."""
    most: str
    """The category that contributes the most."""


class Histogram:
    """Counts of categories that fade: what the distribution is now."""

    __slots__ = ("counts", "total")

    def __init__(self) -> None:
        self.counts: dict[str, float] = {}
        self.total = 0.0

    def copy(self) -> Histogram:
        """Return one that can go on alone."""
        other = Histogram()
        other.counts, other.total = dict(self.counts), self.total
        return other

    def learn(self, span: Mapping[str, int]) -> None:
        """Take in a span; older ones fade."""
        self.counts = {k: n * MEMORY_FADE for k, n in self.counts.items()}
        for k, n in span.items():
            self.counts[k] = self.counts.get(k, 0.0) + n
        self.total = self.total * MEMORY_FADE + sum(span.values())

    def shares(self, categories: Iterable[str]) -> list[float]:
        """Return the shares of categories, none of them 0."""
        counts = [self.counts.get(k, 0.0) + PSEUDO_COUNT for k in categories]
        whole = sum(counts)
        return [n / whole for n in counts]


def effect_of(
    counted: Histogram, names: list[str], others: list[float], other_total: float | None
) -> Effect:
    """Return how far counts are from shares that were counted, too, or are known (None)."""
    own = counted.shares(names)
    groups = _groups(others, counted.total)
    parts = [
        (f - g) * math.log(f / g)
        for f, g in ((sum(own[k] for k in one), sum(others[k] for k in one)) for one in groups)
    ]
    chance = 1 / max(counted.total, 1.0)
    if other_total is not None:
        chance += 1 / max(other_total, 1.0)
    psi = max(math.fsum(parts) - max(len(groups) - 1, 0) * chance, 0.0)
    at_least = max(math.sqrt(psi) - SURE * math.sqrt(chance), 0.0) ** 2
    most = ""
    if groups:
        where = groups[parts.index(max(parts))]
        most = names[max(where, key=lambda k: abs(own[k] - others[k]))]
    return Effect(psi, at_least, most)


def _groups(others: list[float], total: float) -> list[list[int]]:
    """Return the categories by their places; rare ones are joined, neighbours first."""
    groups: list[list[int]] = []
    rare: list[int] = []
    expected = 0.0
    for k, share in enumerate(others):
        if share * total >= COMMON_FROM:
            groups.append([k])
            continue
        rare.append(k)
        expected += share * total
        if expected >= COMMON_FROM:
            groups.append(rare)
            rare, expected = [], 0.0
    if rare:
        groups.append(rare)
    return groups
