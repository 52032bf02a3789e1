"""Traffic with a distribution: predictions in buckets or with labels, of canary and stable."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import Final

import numpy as np

from bench.decisions.judging import CHUNK, Floats, Ints
from bench.decisions.traffic import HISTORY_S

BUCKETS: Final = 10

SCRAPE_S: Final = 10.0
"""The distance of scrapes and of looks."""

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
    canary, stable = (
        np.diff(np.array([0.0, *(normal.cdf(b - mean) for b in borders), 1.0]))
        for mean in (shift, 0.0)
    )
    return canary, stable


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
class Moved:
    """The inputs of both versions are others for a time."""

    start_s: float
    seconds: float
    shares: tuple[float, ...]


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
    moved: Moved | None = None
    aligned: bool = True
    """Scraped each 10 s, at the moment of the look; else each version at its own phase."""
    onset_s: float = 0.0
    ordered: bool = False
    """The categories are numbers, in the order of their size; else names without an order."""

    @property
    def healthy(self) -> bool:
        """Both versions are the same."""
        return self.canary == self.stable

    @property
    def tick_s(self) -> float:
        """The grain of time."""
        return SCRAPE_S if self.aligned else 1.0

    def simulate(self, chunk: int) -> DriftBatch:
        """Draw ``CHUNK`` runs, the same ones each time."""
        seed = (zlib.crc32(self.name.encode()), chunk)
        rng = np.random.default_rng(seed)
        canary = self._draw(rng, self.canary, self.weight, 0.0)
        history = self._draw(rng, self.stable, 1.0, -HISTORY_S)[..., : self._ticks(HISTORY_S)]
        stable = self._draw(rng, self.stable, 1 - self.weight, 0.0)
        return DriftBatch(self, history, canary, stable, (*seed, 1))

    def _ticks(self, seconds: float) -> int:
        return round(seconds / self.tick_s)

    def _draw(
        self, rng: np.random.Generator, shares: tuple[float, ...], weight: float, start_s: float
    ) -> Ints:
        """Return counts by run, bucket and tick from a time on."""
        ends = start_s + self.tick_s * (1 + np.arange(self._ticks(60 * self.minutes - start_s)))
        now = np.repeat(np.array(shares)[:, None], len(ends), axis=1)
        if self.moved:
            start, end = self.moved.start_s, self.moved.start_s + self.moved.seconds
            now[:, (ends > start) & (ends <= end)] = np.array(self.moved.shares)[:, None]
        mean = self.requests_per_second * self.tick_s * weight * now
        counts: Ints = rng.poisson(mean, (CHUNK, *now.shape))
        return counts


@dataclass(frozen=True, slots=True)
class HistogramSamples:
    """What Prometheus has of one version's counters, oldest first."""

    canary: bool
    at_ms: list[int]
    counts: list[list[int]]
    """By bucket."""


@dataclass(frozen=True)
class DriftBatch:
    """Some runs: counts by run, bucket and tick."""

    scene: DriftScene
    history: Ints = field(repr=False)
    """Stable's before the canary's first request."""
    canary: Ints = field(repr=False)
    stable: Ints = field(repr=False)
    scrape_seed: tuple[int, ...]

    @property
    def runs(self) -> int:
        """How many there are."""
        return len(self.canary)

    def marks(self) -> tuple[Ints, Ints]:
        """Return cumulative counts, of canary and stable, at every scrape of 10 s from 0 on."""
        step = round(SCRAPE_S / self.scene.tick_s)
        canary, stable = (_total(counts)[..., ::step] for counts in (self.canary, self.stable))
        return canary, stable

    def bad_until(self, at_s: Floats) -> Ints:
        """Return 0: no answer of a model that drifts is bad by itself."""
        return np.zeros(len(at_s), dtype=np.int64)

    def first_bad_s(self) -> Floats:
        """Return infinity for each run."""
        return np.full(self.runs, math.inf)

    def samples(self) -> Iterator[tuple[HistogramSamples, HistogramSamples]]:
        """Yield, run by run, what Prometheus has of canary and stable: the same each time."""
        rng = np.random.default_rng(self.scrape_seed)
        for run in range(self.runs):
            quiet = np.zeros_like(self.history[run])
            canary = np.concatenate([quiet, self.canary[run]], axis=1)
            stable = np.concatenate([self.history[run], self.stable[run]], axis=1)
            yield self._scrape(canary, rng, canary=True), self._scrape(stable, rng, canary=False)

    def _scrape(self, counts: Ints, rng: np.random.Generator, *, canary: bool) -> HistogramSamples:
        phase = SCRAPE_S if self.scene.aligned else rng.random() * SCRAPE_S
        at = np.arange(phase - HISTORY_S, self.scene.minutes * 60 + 1e-9, SCRAPE_S)
        ticks = np.floor((at + HISTORY_S) / self.scene.tick_s + 1e-9).astype(np.int64)
        at_ms = np.rint(1000 * at).astype(np.int64)
        return HistogramSamples(canary, at_ms.tolist(), _total(counts)[:, ticks].tolist())


def _total(counts: Ints) -> Ints:
    """Return cumulative counts over the last axis, from 0."""
    before = [(0, 0)] * (counts.ndim - 1)
    return np.pad(np.cumsum(counts, axis=-1), (*before, (1, 0)))
