"""Exact binomial bounds and quantiles, and the summary of runs that every table is made of."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from bench.decisions.judging import Flags, Floats, Ints

CONFIDENCE: Final = 0.95
"""Of the two-sided Clopper-Pearson interval."""

BISECTIONS: Final = 60


def log_binomial(n: int, k: int, p: float) -> float:
    """Return the logarithm of the probability of exactly k of n, 0 < p < 1."""
    ways = math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
    return ways + k * math.log(p) + (n - k) * math.log1p(-p)


def at_most(n: int, k: int, p: float) -> float:
    """Return the probability of at most k of n."""
    if k >= n or p <= 0:
        return 1.0
    if p >= 1:
        return 0.0
    return min(1.0, math.fsum(math.exp(log_binomial(n, i, p)) for i in range(k + 1)))


def clopper_pearson(k: int, n: int) -> tuple[float, float]:
    """Return the exact 95 % interval of a share of which k of n were seen."""
    tail = (1 - CONFIDENCE) / 2
    upper = 1.0 if k == n else _bisect(lambda p: at_most(n, k, p) > tail)
    lower = 0.0 if k == 0 else _bisect(lambda p: 1 - at_most(n, k - 1, p) < tail)
    return lower, upper


def _bisect(is_below: Callable[[float], bool]) -> float:
    low, high = 0.0, 1.0
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if is_below(middle) else (low, middle)
    return high


@dataclass(frozen=True, slots=True)
class Runs:
    """What one rule did in the runs of one scene."""

    onset_s: float
    harm_s: Floats
    """Infinite: never."""
    bad: Ints
    """The canary's bad answers from the onset to harm, or to the end."""
    first_bad_s: Floats
    held_s: Floats

    @property
    def n(self) -> int:
        """How many runs."""
        return len(self.harm_s)

    @property
    def harmful(self) -> int:
        """How many were called harmful at any time."""
        return int(np.isfinite(self.harm_s).sum())

    @property
    def detected(self) -> Flags:
        """Which were called harmful after the onset."""
        return np.isfinite(self.harm_s) & (self.harm_s > self.onset_s)

    @property
    def delays_s(self) -> Floats:
        """From the onset to harm, infinite for those that were never called harmful.

        Those that were before the onset are left out: they are false rollbacks.
        """
        kept: Floats = self.harm_s[self.harm_s > self.onset_s] - self.onset_s
        return kept

    @property
    def reactions_s(self) -> Floats:
        """From the first bad answer to harm, of those that were found."""
        found = self.detected & np.isfinite(self.first_bad_s)
        kept: Floats = self.harm_s[found] - self.first_bad_s[found]
        return kept

    @property
    def bad_of_detected(self) -> Ints:
        """The bad answers up to harm, of those that were found."""
        kept: Ints = self.bad[self.detected]
        return kept


def quantile(values: Floats | Ints, q: float) -> float:
    """Return an empirical quantile: the least value with at least a share q at or below it."""
    if not len(values):
        return math.nan
    place = max(math.ceil(q * len(values)) - 1, 0)
    return float(np.sort(values)[place])
