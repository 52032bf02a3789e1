"""The adapter to what Crossfade ships: the evidence, driven by samples as the operator drives it.

The only module of the bench that knows the operator's code. It does what ``CountsFold`` of
``crossfade.metrics`` does between the answers of Prometheus and the verdict.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

import numpy as np

from bench.decisions.traffic import Batch, Decisions, PodSamples, Scene
from crossfade.evidence.counters import BAD, REQUESTS, Series, Side
from crossfade.evidence.kernel import Tolerance
from crossfade.evidence.ledger import Ledger
from crossfade.evidence.rates import Limits, RateTests
from crossfade.evidence.rules import Asked, evidence_of, judge
from crossfade.evidence.verdicts import Evidence, Verdict

SINCE_MS: Final = 1_700_000_000_000
"""The canary's first request; samples are from before and after."""

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


@dataclass(slots=True)
class _Look:
    """One look at one rollout."""

    at_s: float
    verdicts: list[Verdict]
    evidence: list[Evidence]


@dataclass(frozen=True, slots=True)
class Shipped:
    """Crossfade's rule under one policy, the same for every metric of the scene."""

    name: str
    policy: Policy
    slow: bool = True

    def decide(self, batch: Batch, runs: int) -> Decisions:
        """Judge run by run."""
        harm, held = np.full(runs, math.inf), np.zeros(runs)
        for run, pods in enumerate(islice(batch.samples(), runs)):
            for look in looks(batch.scene, self.policy, pods):
                if Verdict.HARM in look.verdicts:
                    harm[run] = look.at_s
                    break
                if Verdict.UNAVAILABLE in look.verdicts:
                    held[run] += batch.scene.look_s
        return Decisions(harm, held)


@dataclass(slots=True)
class _Reader:
    """Hands out the samples of one pod, each once."""

    side: Side
    name: str
    at_ms: list[int]
    requests: list[tuple[int, float]]
    bad: list[list[tuple[int, float]]]
    given: int = field(default=0)

    @classmethod
    def of(cls, pod: PodSamples) -> _Reader:
        """Begin with none handed out."""
        at = [SINCE_MS + ms for ms in pod.at_ms]
        return cls(
            Side.CANARY if pod.canary else Side.STABLE,
            pod.name,
            at,
            list(zip(at, map(float, pod.requests), strict=True)),
            [list(zip(at, map(float, one), strict=True)) for one in pod.bad],
        )

    def until(self, now_ms: int) -> list[list[Series]]:
        """Return what is new, for each metric."""
        start, self.given = self.given, bisect_right(self.at_ms, now_ms)
        new = slice(start, self.given)
        requests = Series(self.side, self.name, "requests", {REQUESTS: 1}, self.requests[new])
        return [
            [requests, Series(self.side, self.name, "bad", {BAD: 1}, one[new])] for one in self.bad
        ]


def looks(scene: Scene, policy: Policy, pods: list[PodSamples]) -> Iterator[_Look]:
    """Yield every look at a rollout, harm or not."""
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
    readers = [_Reader.of(pod) for pod in pods]
    needed = math.log(scene.metrics * limits.tests / policy.false_rollback_rate)
    for look in range(1, math.floor(scene.minutes * 60 / scene.look_s) + 1):
        now_ms = SINCE_MS + round(1000 * look * scene.look_s)
        verdicts, evidence = [], []
        for ledger, series in zip(
            ledgers, zip(*(r.until(now_ms) for r in readers), strict=True), strict=True
        ):
            ledger.add([one for of_pod in series for one in of_pod])
            tests, seen = ledger.standing(), ledger.seen()
            tests.close()
            asked = Asked(
                now_ms,
                in_force=True,
                answered=ledger.answered(SINCE_MS),
                min_requests=MIN_REQUESTS,
                log_needed=needed,
            )
            verdicts.append(judge(tests, seen, limits, asked)[0])
            evidence.append(evidence_of(tests, asked))
        yield _Look(look * scene.look_s, verdicts, evidence)


def trace(scene: Scene, policy: Policy, run: int) -> list[tuple[float, float, float]]:
    """Return (second, log e, log of the threshold) of each look at the first metric of a run."""
    pods = next(islice(scene.simulate(0).samples(), run, None))
    return [
        (look.at_s, look.evidence[0].log_e, look.evidence[0].log_needed)
        for look in looks(scene, policy, pods)
    ]


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
