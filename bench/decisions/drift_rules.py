"""Rules on the distance of two histograms, as drift tools and dashboards have them.

* PSI (Yurdakul 2018 has its distribution without drift) above 0.2, empty bins filled with 0.0001.
* Jensen-Shannon distance of at least 0.1 with natural logarithms: Evidently's default, whose
  ``scipy.spatial.distance.jensenshannon`` has base e.
* Pearson's chi-squared test of two samples at 1 %.

Windows slide: the first check is once the window is full, the next one ``every_s`` later.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from bench.decisions.drift_traffic import SCRAPE_S, DriftBatch
from bench.decisions.judging import Decisions, Flags, Floats, Ints
from bench.decisions.thresholds import windows

EMPTY: Final = 1e-4
"""What an empty bin is taken for."""

Distance = Callable[[Ints, Ints], Floats]
"""Of the canary's and stable's counts by run, bucket and check, to one number by run and check."""


@dataclass(frozen=True, slots=True)
class Windowed:
    """A distance at or above a limit, in so many checks in total."""

    name: str
    distance: Distance
    at_least: float
    window_s: float
    """Infinite: all counts so far."""
    every_s: float
    failed: int = 1
    min_requests: int = 1
    """Of the canary in the window."""
    slow: bool = False

    def decide(self, batch: DriftBatch, runs: int) -> Decisions:
        """Judge."""
        totals = batch.marks()
        marks = totals[0].shape[-1]
        every = round(self.every_s / SCRAPE_S)
        window = marks if math.isinf(self.window_s) else round(self.window_s / SCRAPE_S)
        canary, stable = (windows(total[:runs], every, window) for total in totals)
        ends = every * (1 + np.arange(canary.shape[-1]))
        full = (ends >= window) | math.isinf(self.window_s)
        failed = self._failed(canary, stable) & full
        called = np.cumsum(failed, axis=1) >= self.failed
        when = (1 + called.argmax(axis=1)) * self.every_s
        return Decisions(np.where(called.any(axis=1), when, math.inf), np.zeros(runs))

    def _failed(self, canary: Ints, stable: Ints) -> Flags:
        few = (canary.sum(axis=1) < self.min_requests) | (stable.sum(axis=1) == 0)
        failed: Flags = np.where(few, False, self.distance(canary, stable) >= self.at_least)  # noqa: FBT003
        return failed


def psi(canary: Ints, stable: Ints) -> Floats:
    """Return the population stability index."""
    p, q = (np.maximum(shares, EMPTY) for shares in (_shares(canary), _shares(stable)))
    total: Floats = ((p - q) * np.log(p / q)).sum(axis=1)
    return total


def corrected_psi(canary: Ints, stable: Ints) -> Floats:
    """Return the index less its mean without drift, (K-1)(1/n_c + 1/n_s)."""
    n_c, n_s = (np.maximum(counts.sum(axis=1), 1) for counts in (canary, stable))
    corrected: Floats = psi(canary, stable) - (canary.shape[1] - 1) * (1 / n_c + 1 / n_s)
    return corrected


def jensen_shannon(canary: Ints, stable: Ints) -> Floats:
    """Return the Jensen-Shannon distance, in natural units."""
    p, q = _shares(canary), _shares(stable)
    middle = (p + q) / 2

    def divergence(shares: Floats) -> Floats:
        with np.errstate(divide="ignore", invalid="ignore"):
            terms = np.where(shares > 0, shares * np.log(shares / middle), 0.0)
        total: Floats = terms.sum(axis=1)
        return total

    distance: Floats = np.sqrt(np.maximum(divergence(p) + divergence(q), 0) / 2)
    return distance


def chi_squared(canary: Ints, stable: Ints) -> Floats:
    """Return Pearson's statistic for two samples; what both lack adds nothing."""
    n_c, n_s = (counts.sum(axis=1, keepdims=True) for counts in (canary, stable))
    both = canary + stable
    with np.errstate(divide="ignore", invalid="ignore"):
        expected_c, expected_s = both * n_c / (n_c + n_s), both * n_s / (n_c + n_s)
        terms = (canary - expected_c) ** 2 / expected_c + (stable - expected_s) ** 2 / expected_s
    total: Floats = np.where(both > 0, terms, 0.0).sum(axis=1)
    return total


def chi_squared_tail(x: float, degrees: int) -> float:
    """Return the probability of more than x, for an odd number of degrees of freedom.

    The closed form: Abramowitz and Stegun, 26.4.4.
    """
    root = math.sqrt(x)
    term, total = root, 0.0
    for k in range(1, (degrees - 1) // 2 + 1):
        total += term
        term *= x / (2 * k + 1)
    return math.erfc(root / math.sqrt(2)) + math.sqrt(2 / math.pi) * math.exp(-x / 2) * total


def chi_squared_quantile(tail: float, degrees: int) -> float:
    """Return what is exceeded with a probability, for an odd number of degrees of freedom."""
    low, high = 0.0, 1000.0
    while high - low > 1e-9:  # noqa: PLR2004
        middle = (low + high) / 2
        low, high = (middle, high) if chi_squared_tail(middle, degrees) > tail else (low, middle)
    return high


def _shares(counts: Ints) -> Floats:
    shares: Floats = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    return shares
