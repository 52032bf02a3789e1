"""Traffic with a distribution: predictions in buckets or with labels, of canary and stable."""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import Final

import numpy as np

from bench.decisions.traffic import CHUNK, Floats, Ints

BUCKETS: Final = 10

BISECTIONS: Final = 60

STEEPEST: Final = 5.0
"""The tilt up to which a distribution with a given index is looked for."""


def psi(p: Floats, q: Floats) -> float:
    """Return the population stability index of two distributions without empty bins."""
    return float(((p - q) * np.log(p / q)).sum())


def normal_scores(shift: float) -> tuple[Floats, Floats]:
    """Return (canary, stable): stable's deciles of a normal score, canary's mean shifted."""
    normal = NormalDist()
    borders = [normal.inv_cdf(k / BUCKETS) for k in range(1, BUCKETS)]
    below = np.array([0.0, *(normal.cdf(b - shift) for b in borders), 1.0])
    return np.diff(below), np.full(BUCKETS, 1 / BUCKETS)


def skewed_labels(index: float) -> tuple[Floats, Floats]:
    """Return (canary, stable): shares that fall as 1/k, tilted towards rare labels to an index.

    The canary's share of the label k is that of stable times exp(tilt k), with the tilt for which
    the index is the given one. The study says "skewed labels" and no more.
    """
    places = np.arange(1, BUCKETS + 1)
    stable: Floats = 1 / places
    stable /= stable.sum()

    def tilted(tilt: float) -> Floats:
        shares: Floats = stable * np.exp(tilt * places)
        shares /= shares.sum()
        return shares

    low, high = 0.0, STEEPEST
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if psi(tilted(middle), stable) < index else (low, middle)
    return tilted(low), stable


@dataclass(frozen=True, slots=True)
class DriftScene:
    """One rollout whose predictions are looked at."""

    name: str
    """Unique; the seed depends on it."""
    canary: tuple[float, ...]
    stable: tuple[float, ...]
    weight: float = 0.1
    requests_per_second: float = 20.0
    minutes: float = 30.0
    tick_s: float = 10.0
    """Also the distance of scrapes and looks."""
    onset_s: float = 0.0

    def simulate(self, chunk: int) -> DriftBatch:
        """Draw ``CHUNK`` runs, the same ones each time."""
        rng = np.random.default_rng([zlib.crc32(self.name.encode()), chunk])
        ticks = math.floor(self.minutes * 60 / self.tick_s)
        per_tick = self.requests_per_second * self.tick_s

        def draw(shares: tuple[float, ...], weight: float) -> Ints:
            mean = per_tick * weight * np.array(shares)[:, None]
            counts = rng.poisson(mean, (CHUNK, len(shares), ticks))
            return np.pad(np.cumsum(counts, axis=2), ((0, 0), (0, 0), (1, 0)))

        return DriftBatch(self, draw(self.canary, self.weight), draw(self.stable, 1 - self.weight))


@dataclass(frozen=True)
class DriftBatch:
    """Some runs: cumulative counts by run, bucket and tick, the first tick at 0."""

    scene: DriftScene
    canary: Ints = field(repr=False)
    stable: Ints = field(repr=False)

    @property
    def runs(self) -> int:
        """How many there are."""
        return len(self.canary)

    def bad_until(self, at_s: Floats) -> Ints:
        """Return 0: no answer of a model that drifts is bad by itself."""
        return np.zeros(len(at_s), dtype=np.int64)

    def first_bad_s(self) -> Floats:
        """Return infinity for each run."""
        return np.full(self.runs, math.inf)
