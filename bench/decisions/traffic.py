"""Traffic of a rollout: requests, bad answers, and what Prometheus would have scraped of them.

Time is cut into ticks of 1 s, or of 0.5 s when scrapes or looks come each second. In a tick with
the mean of m requests to one pod, at a rate p of bad ones and a dispersion phi:

* good answers are Poisson with the mean m (1 - p);
* bad answers come in clusters, each in one pod and one tick (one client's burst). The number of
  clusters is Poisson with the mean m p / s, and the size of each is geometric, from 1, with the
  mean s = (1 + phi) / 2.

So a count of bad answers has the mean m p over any span, and phi times the variance of Poisson
(E[size^2] / E[size] = 2 s - 1 = phi). For phi = 1, given the requests, it is binomial. Requests are
split over versions and pods by chance, each on its own, as a gateway does; a cluster is not split.
Of the ways to get a dispersion of phi this is a hard one: without tempering, the study's test
calls 21 % of healthy canaries harmful at phi = 2 and 77 % at 5; with clusters of exactly phi it is
13 % and 73 %, with a beta-binomial rate of each scrape 19 % and 77 %; the study has 18 % and 75 %.

Every pod is scraped at its own phase, and a sample shows the counters at the end of the last whole
tick before. A lost scrape is missing for all counters of its pod. A restart sets a pod's counters
to 0; what came after its last scrape before is never seen, as in reality.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Final

import numpy as np

from bench.decisions.judging import CHUNK, Floats, Ints

HISTORY_S: Final = 300
"""What is scraped before the canary gets its first request: what the operator reads of it."""

FINE_TICK_UP_TO_S: Final = 2.0
"""Scrapes or looks at least this often get ticks of half a second."""


@dataclass(frozen=True, slots=True)
class Incident:
    """A failure of both versions alike, once."""

    start_s: float
    seconds: float
    factor: float
    """Times each version's own rate."""


@dataclass(frozen=True, slots=True)
class Burst:
    """A failure of both versions alike that comes again and again."""

    every_s: float
    seconds: float
    rate: float
    first_s: float | None = None
    """When one begins after the canary's first request; None: at another time in each run."""


@dataclass(frozen=True, slots=True)
class ColdStart:
    """A canary that is worse in its first seconds."""

    seconds: float
    rate: float


@dataclass(frozen=True, slots=True)
class Scene:
    """One rollout as it is simulated. The defaults are those of the analysis' first table."""

    name: str
    """Unique; the seed depends on it."""
    stable_rate: float = 0.01
    canary_rate: float = 0.01
    onset_s: float = 0.0
    """From when the canary has its own rate; before, it has that of stable."""
    weights: tuple[float, ...] = (0.1,)
    """The canary's share of requests, each minute the next one, over and over."""
    requests_per_second: float = 20.0
    phi: float = 1.0
    """The dispersion of bad answers."""
    incident: Incident | None = None
    burst: Burst | None = None
    cold: ColdStart | None = None
    minutes: float = 30.0
    pods: tuple[int, int] = (1, 1)
    """Of the canary, and of stable."""
    scrape_s: float = 10.0
    look_s: float = 10.0
    aligned: bool = False
    """All pods are scraped at the moment of the look, as in the analysis' simulation."""
    lost: float = 0.0
    """The share of scrapes that are lost."""
    restart_every_s: float = 0.0
    """The mean time between restarts of a pod; 0: none."""
    metrics: int = 1
    """Counters of bad answers. Only the first one is ever worse, or clustered."""

    @property
    def tick_s(self) -> float:
        """The grain of time."""
        return 0.5 if min(self.scrape_s, self.look_s) <= FINE_TICK_UP_TO_S else 1.0

    @property
    def healthy(self) -> bool:
        """The canary's rate is never above stable's, but for a cold start."""
        return self.canary_rate <= self.stable_rate

    def simulate(self, chunk: int) -> Batch:
        """Draw ``CHUNK`` runs of a scene, the same ones each time."""
        seed = (zlib.crc32(self.name.encode()), chunk)
        rng = np.random.default_rng(seed)
        tick = self.tick_s
        before = round(HISTORY_S / tick)
        ends = tick * np.arange(1 - before, round(self.minutes * 60 / tick) + 1, dtype=np.float64)
        weights = np.array(self.weights)[(((ends - tick) // 60) % len(self.weights)).astype(int)]
        weights[:before] = 0
        per_tick = self.requests_per_second * tick
        canary_rate, stable_rate = _rates(self, ends, rng)
        canary = _Arm(self, self.pods[0], per_tick * weights, canary_rate)
        stable = _Arm(self, self.pods[1], per_tick * (1 - weights), stable_rate)
        return Batch(self, before, *canary.draw(rng), *stable.draw(rng), (*seed, 1))

    def but(self, said: str = "", /, **changes: Any) -> Scene:
        """Return a scene that differs, named for how; itself when it does not differ."""
        if not changes:
            return self
        name = said or " ".join(f"{field}={value}" for field, value in changes.items())
        return replace(self, name=f"{self.name}; {name}", **changes)


@dataclass(frozen=True, slots=True)
class PodSamples:
    """What Prometheus has of one pod, oldest first."""

    canary: bool
    name: str
    at_ms: list[int]
    requests: list[int]
    bad: list[list[int]]
    """One list for each metric."""


@dataclass(frozen=True)
class Batch:
    """Some runs of a scene. The first axis of every array is the run."""

    scene: Scene
    before_ticks: int
    """Ticks before the canary's first request; the arrays below begin with them."""
    canary_requests: Ints = field(repr=False)
    """By run, pod and tick."""
    canary_bad: Ints = field(repr=False)
    """By run, metric, pod and tick."""
    stable_requests: Ints = field(repr=False)
    stable_bad: Ints = field(repr=False)
    scrape_seed: tuple[int, ...]
    """Of the phases of scrapes, losses and restarts."""

    @property
    def runs(self) -> int:
        """How many there are."""
        return len(self.canary_requests)

    @cached_property
    def canary_bad_by_tick(self) -> Ints:
        """The first metric's bad answers of the canary by run and tick, from its first request."""
        summed: Ints = self.canary_bad[:, 0, :, self.before_ticks :].sum(axis=1)
        return summed

    def marks(self, every_s: float) -> Counts:
        """Return cumulative counts at every multiple of some seconds, the first at 0."""
        step = round(every_s / self.scene.tick_s)
        return Counts(
            every_s,
            *(
                _cumulative(a[:, :, self.before_ticks :].sum(axis=1), step)
                for a in (
                    self.canary_requests,
                    self.canary_bad[:, 0],
                    self.stable_requests,
                    self.stable_bad[:, 0],
                )
            ),
        )

    def bad_until(self, at_s: Floats) -> Ints:
        """Return, for each run, the canary's bad answers from the onset to a time of its own."""
        first = round(self.scene.onset_s / self.scene.tick_s)
        total = np.cumsum(self.canary_bad_by_tick, axis=1)
        before = total[:, first - 1] if first else np.zeros(self.runs, dtype=np.int64)
        ticks = np.minimum(at_s / self.scene.tick_s, total.shape[1]).astype(np.int64)
        at = np.where(ticks > 0, total[np.arange(self.runs), np.maximum(ticks, 1) - 1], 0)
        return np.maximum(at - before, 0)

    def first_bad_s(self) -> Floats:
        """Return, for each run, when the tick of the first bad answer from the onset on ends."""
        first = round(self.scene.onset_s / self.scene.tick_s)
        seen = self.canary_bad_by_tick[:, first:] > 0
        when = (first + 1 + seen.argmax(axis=1)) * self.scene.tick_s
        return np.where(seen.any(axis=1), when, np.inf)

    def samples(self) -> Iterator[list[PodSamples]]:
        """Yield, run by run, what Prometheus has of every pod: the same each time."""
        scraper = _Scraper(self.scene, self.before_ticks, np.random.default_rng(self.scrape_seed))
        for run in range(self.runs):
            pods = [
                scraper.pod(
                    i, self.canary_requests[run, i], self.canary_bad[run, :, i], canary=True
                )
                for i in range(self.scene.pods[0])
            ]
            pods += [
                scraper.pod(
                    i, self.stable_requests[run, i], self.stable_bad[run, :, i], canary=False
                )
                for i in range(self.scene.pods[1])
            ]
            yield pods


@dataclass(frozen=True, slots=True)
class Counts:
    """Cumulative counts by run and mark; the mark k is at k times some seconds."""

    every_s: float
    canary_requests: Ints
    canary_bad: Ints
    stable_requests: Ints
    stable_bad: Ints


def _rates(scene: Scene, ends: Floats, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Return the rates of canary and stable in ticks that end at some times, by run or for all."""
    canary = np.where(ends > scene.onset_s, scene.canary_rate, scene.stable_rate)
    stable = np.full_like(ends, scene.stable_rate)
    if scene.cold:
        canary = np.where(ends <= scene.cold.seconds, scene.cold.rate, canary)
    if scene.incident:
        start = scene.incident.start_s
        hit = (ends > start) & (ends <= start + scene.incident.seconds)
        factor = np.where(hit, scene.incident.factor, 1.0)
        canary, stable = np.minimum(canary * factor, 1), np.minimum(stable * factor, 1)
    if scene.burst:
        first = scene.burst.first_s
        when = rng.random(CHUNK) * scene.burst.every_s if first is None else np.full(CHUNK, first)
        since = (ends - scene.tick_s - np.floor(when)[:, None]) % scene.burst.every_s
        shared = np.where(since < scene.burst.seconds, scene.burst.rate, 0.0)
        canary, stable = np.maximum(canary, shared), np.maximum(stable, shared)
    return np.atleast_2d(canary), np.atleast_2d(stable)


@dataclass(frozen=True, slots=True)
class _Arm:
    """One version's traffic."""

    scene: Scene
    pods: int
    mean: Floats
    """Requests by tick."""
    rate: Floats
    """By run, or one for all, and tick."""

    def draw(self, rng: np.random.Generator) -> tuple[Ints, Ints]:
        """Return requests by run, pod and tick, and bad answers by run, metric, pod and tick."""
        shape = (CHUNK, self.pods, len(self.mean))
        mean, rate = self.mean / self.pods, self.rate[:, None, :]
        first = _clustered(rng, self.scene.phi, mean * rate, shape)
        requests = first + rng.poisson(mean * (1 - rate), shape)
        others = [
            rng.binomial(requests, self.scene.stable_rate) for _ in range(self.scene.metrics - 1)
        ]
        return requests, np.stack([first, *others], axis=1)


def _clustered(rng: np.random.Generator, phi: float, mean: Floats, shape: tuple[int, ...]) -> Ints:
    """Draw counts with some means and phi times the variance of Poisson."""
    size = (1 + phi) / 2
    counts = rng.poisson(mean / size, shape)
    if phi > 1:
        some = counts > 0
        counts[some] += rng.negative_binomial(counts[some], 1 / size)
    return counts


class _Scraper:
    """Samples the counters of one pod after another."""

    def __init__(self, scene: Scene, before_ticks: int, rng: np.random.Generator) -> None:
        self._scene = scene
        self._before = before_ticks
        self._rng = rng

    def pod(self, number: int, requests: Ints, bad: Ints, *, canary: bool) -> PodSamples:
        """Return the samples of a pod from its counts by tick."""
        scene = self._scene
        phase = scene.scrape_s if scene.aligned else self._rng.random() * scene.scrape_s
        start = -self._before * scene.tick_s
        at = np.arange(start + phase, scene.minutes * 60 + 1e-9, scene.scrape_s)
        if scene.lost:
            at = at[self._rng.random(len(at)) >= scene.lost]
        ticks = np.floor((at - start) / scene.tick_s + 1e-9).astype(np.int64)
        counters = np.concatenate([requests[None, :], bad])
        values = _at(counters, ticks)
        if scene.restart_every_s:
            values -= _at(counters, self._restarts(len(requests))[ticks])
        return PodSamples(
            canary,
            f"{'canary' if canary else 'stable'}-{number}",
            np.rint(at * 1000).astype(np.int64).tolist(),
            values[0].tolist(),
            values[1:].tolist(),
        )

    def _restarts(self, ticks: int) -> Ints:
        """Return, for each number of ticks that have passed, that of the last restart."""
        chance = self._scene.tick_s / self._scene.restart_every_s
        restarted = self._rng.random(ticks + 1) < chance
        return np.maximum.accumulate(np.where(restarted, np.arange(ticks + 1), 0))


def _at(counters: Ints, ticks: Ints) -> Ints:
    """Return the counters' values after some numbers of ticks."""
    total = np.pad(np.cumsum(counters, axis=1), ((0, 0), (1, 0)))
    values: Ints = total[:, ticks]
    return values


def _cumulative(counts: Ints, step: int) -> Ints:
    total = np.pad(np.cumsum(counts, axis=1), ((0, 0), (1, 0)))
    values: Ints = total[:, ::step]
    return values
