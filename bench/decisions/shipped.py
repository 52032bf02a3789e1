"""The adapter to what Crossfade ships: the evidence, driven by samples as the operator drives it.

The only module of the bench that knows the operator's code. It does what ``CountsFold`` of
``crossfade.metrics`` does between the answers of Prometheus and the verdict.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Final, TypeVar

import numpy as np

from bench.decisions.drift_traffic import SCRAPE_S, DriftBatch, DriftScene, HistogramSamples
from bench.decisions.judging import Decisions
from bench.decisions.traffic import Batch, PodSamples, Scene
from crossfade.evidence.counters import BAD, CATEGORY, REQUESTS, Series, Side
from crossfade.evidence.drift import DriftTests, drift_evidence, judge_drift
from crossfade.evidence.kernel import Tolerance
from crossfade.evidence.ledger import Ledger, Tests
from crossfade.evidence.rates import Limits, RateTests
from crossfade.evidence.rules import Asked, evidence_of, judge
from crossfade.evidence.verdicts import Evidence, Verdict

T = TypeVar("T", bound=Tests)

SINCE_MS: Final = 1_700_000_000_000
"""The canary's first request; samples are from before and after."""

NAMES_STEP: Final = 7
"""Prime to the number of buckets."""

MIN_REQUESTS: Final = 50
"""What a step asks for. It decides between healthy and not enough data, never about harm."""


@dataclass(frozen=True, slots=True)
class Policy:
    """What a user would write about a metric."""

    ratio: float | None = None
    """worseThanStable.ratio; None: no comparison."""
    slack: float = 0.0
    """worseThanStable.minIncreasePercent, as a share."""
    share: float | None = None
    """maxPercent, as a share; None: no limit."""
    warmup_s: float = 0.0
    """warmupSeconds."""
    false_rollback_rate: float = 0.01
    """falseRollbackRate, of the whole rollout."""

    @property
    def limits(self) -> Limits:
        """As the evidence takes it."""
        tolerance = None if self.ratio is None else Tolerance(self.ratio, self.slack)
        return Limits(self.share, tolerance)


@dataclass(frozen=True, slots=True)
class DriftPolicy:
    """What a user would write about a distribution."""

    min_effect: float = 0.1
    """minEffect, a PSI."""
    reference: tuple[float, ...] | None = None
    """Shares of the buckets that are expected; None: only stable is compared with."""
    false_rollback_rate: float = 0.01
    """falseRollbackRate, of the whole rollout."""


@dataclass(frozen=True, slots=True)
class Look:
    """What one look at one metric said."""

    at_s: float
    verdict: Verdict
    evidence: Evidence


@dataclass(frozen=True, slots=True)
class Shipped:
    """Crossfade's rule under one policy, the same for every metric of the scene."""

    name: str
    policy: Policy
    slow: bool = True

    def decide(self, batch: Batch, runs: int) -> Decisions:
        """Judge run by run."""
        return _play(
            (looks(batch.scene, self.policy, pods) for pods in islice(batch.samples(), runs)),
            batch.scene.look_s,
            runs,
        )


@dataclass(frozen=True, slots=True)
class ShippedDrift:
    """Crossfade's rule on a distribution."""

    name: str
    policy: DriftPolicy
    slow: bool = True

    def decide(self, batch: DriftBatch, runs: int) -> Decisions:
        """Judge run by run."""
        return _play(
            (drift_looks(batch.scene, self.policy, v) for v in islice(batch.samples(), runs)),
            SCRAPE_S,
            runs,
        )


def _play(rollouts: Iterable[Iterator[list[Look]]], look_s: float, runs: int) -> Decisions:
    """Go through looks up to the first harm."""
    harm, held = np.full(runs, math.inf), np.zeros(runs)
    for run, rollout in enumerate(rollouts):
        for look in rollout:
            verdicts = {one.verdict for one in look}
            if Verdict.HARM in verdicts:
                harm[run] = look[0].at_s
                break
            if Verdict.UNAVAILABLE in verdicts:
                held[run] += look_s
    return Decisions(harm, held)


class _Reader:
    """Hands out the samples of one counter, each once."""

    def __init__(
        self,
        side: Side,
        pod: str,
        key: str,
        adds: dict[str, int],
        at_ms: list[int],
        values: list[int],
    ) -> None:
        self._parts = side, pod, key, adds
        self._at_ms = [SINCE_MS + ms for ms in at_ms]
        self._samples = list(zip(self._at_ms, map(float, values), strict=True))
        self._given = 0

    def until(self, now_ms: int) -> Series:
        """Return what is new."""
        start, self._given = self._given, bisect_right(self._at_ms, now_ms)
        return Series(*self._parts, self._samples[start : self._given])


def looks(scene: Scene, policy: Policy, pods: list[PodSamples]) -> Iterator[list[Look]]:
    """Yield every look at every metric of a rollout, harm or not."""
    limits = policy.limits
    ledgers = [
        Ledger(
            RateTests(limits, has_stable=True),
            SINCE_MS,
            has_stable=True,
            warmup=round(1000 * policy.warmup_s),
        )
        for _ in range(scene.metrics)
    ]
    readers = [
        [reader for pod in pods for reader in _of_pod(pod, metric)]
        for metric in range(scene.metrics)
    ]
    needed = math.log(scene.metrics * limits.tests / policy.false_rollback_rate)
    for at_s, now_ms in _times(scene.minutes, scene.look_s):
        found = []
        for ledger, of_metric in zip(ledgers, readers, strict=True):
            ledger.add([reader.until(now_ms) for reader in of_metric])
            tests = ledger.standing()
            tests.close()
            asked = _asked(ledger, now_ms, needed)
            verdict, _ = judge(tests, ledger.seen(), limits, asked)
            found.append(Look(at_s, verdict, evidence_of(tests, asked)))
        yield found


def drift_looks(
    scene: DriftScene, policy: DriftPolicy, versions: tuple[HistogramSamples, HistogramSamples]
) -> Iterator[list[Look]]:
    """Yield every look at the distribution of a rollout, harm or not."""
    names = _names(len(scene.stable), ordered=scene.ordered)
    reference = None
    if policy.reference is not None:
        reference = dict(zip(names, policy.reference, strict=True))
    ledger = Ledger(DriftTests(reference, has_stable=True), SINCE_MS, has_stable=True)
    readers = [
        _Reader(_side(one.canary), _side(one.canary).value, name, adds, one.at_ms, counts)
        for one in versions
        for name, counts in zip(names, one.counts, strict=True)
        for adds in [{REQUESTS: 1, CATEGORY + name: 1}]
    ]
    needed = math.log(1 / policy.false_rollback_rate)
    for at_s, now_ms in _times(scene.minutes, SCRAPE_S):
        ledger.add([reader.until(now_ms) for reader in readers])
        tests = ledger.standing()
        tests.close()
        asked = _asked(ledger, now_ms, needed)
        verdict, _, _ = judge_drift(tests, ledger.seen(), asked, policy.min_effect)
        yield [Look(at_s, verdict, drift_evidence(tests, asked))]


def trace(scene: Scene, policy: Policy, run: int) -> list[Look]:
    """Return every look at the first metric of a run."""
    pods = next(islice(scene.simulate(0).samples(), run, None))
    return [look[0] for look in looks(scene, policy, pods)]


def _of_pod(pod: PodSamples, metric: int) -> list[_Reader]:
    side = _side(pod.canary)
    return [
        _Reader(side, pod.name, "requests", {REQUESTS: 1}, pod.at_ms, pod.requests),
        _Reader(side, pod.name, "bad", {BAD: 1}, pod.at_ms, pod.bad[metric]),
    ]


def _side(canary: bool) -> Side:
    return Side.CANARY if canary else Side.STABLE


def _names(buckets: int, *, ordered: bool) -> list[str]:
    """Return names of the buckets: numbers, or letters whose order is not that of the buckets.

    With the order a drift from the first to the last is just what the shipped rule expects of
    numbers.
    """
    if ordered:
        return [str(place) for place in range(buckets)]
    return [chr(ord("a") + place * NAMES_STEP % buckets) for place in range(buckets)]


def _times(minutes: float, look_s: float) -> Iterator[tuple[float, int]]:
    for look in range(1, math.floor(minutes * 60 / look_s) + 1):
        yield look * look_s, SINCE_MS + round(1000 * look * look_s)


def _asked(ledger: Ledger[T], now_ms: int, needed: float) -> Asked:
    return Asked(
        now_ms,
        in_force=True,
        answered=ledger.answered(SINCE_MS),
        min_requests=MIN_REQUESTS,
        log_needed=needed,
    )


STABLE_DEFAULT: Final = Policy(ratio=1.1, slack=0.001)
"""worseThanStable as it is when nothing else is written."""

STRICT: Final = Policy(ratio=1.0)
"""Any increase is harm."""


def limit(share: float) -> Policy:
    """Return a limit on the share alone."""
    return Policy(share=share)


def both(share: float) -> Policy:
    """Return a limit and the default comparison."""
    return Policy(ratio=1.1, slack=0.001, share=share)
