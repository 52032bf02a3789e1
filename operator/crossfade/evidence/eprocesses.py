"""The two e-processes behind the first rule: against a limit, and against the stable version.

An e-process is a nonnegative process whose mean under the null hypothesis is at most 1 at every
stopping time, so by Ville's inequality (1939) it ever reaches 1/alpha with a probability of at
most alpha: it may be looked at after every scrape. Ramdas, Grünwald, Vovk and Shafer, "Game-
theoretic statistics and safe anytime-valid inference", Statistical Science 2023, has the theory;
Lindon and Malek, "Anytime-valid inference for multinomial count data", NeurIPS 2022, and Lindon,
Sanden and Shirikian, "Rapid regression detection in software deployments through sequential
testing", KDD 2022, apply it to counts of two versions. Everything is kept as logarithms.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from crossfade.evidence.verdicts import Counts

ALPHA: Final = 0.01
"""How likely a test may be to ever call a healthy version harmful (``falseRollbackRate`` to be)."""

LOG_THRESHOLD: Final = math.log(1 / ALPHA)
"""Ville's threshold for the logarithm of an e-value."""

ODDS_RATIOS: Final = (1.5, 2.0, 3.0, 5.0, 10.0, 30.0)
"""Alternatives to "at the limit": times its odds. As in the study's grid of bets (section 2.0)."""

GROSS_SHARES: Final = (0.5, 0.9)
"""Two more alternatives, for versions that are plainly broken. With a limit of 2 %, an error is
worth a factor of 25 against the first and a good answer one half: three errors suffice."""

FROM_THE_START: Final = 0.8
"""The share of the prior that the version was bad from the beginning (m_1 of section 2.0)."""

LATE_HALF_LIFE: Final = 120
"""Steps until half of the rest has begun: with m_t = H / ((t + H - 1)(t + H)), which sums to 1
over t = 1, 2, ..., a regression after ever so long is still found, at the price of log t."""

RATES_OVER_STABLE: Final = (1.25, 1.5, 2.0, 3.0, 5.0, 10.0, 20.0, 50.0, 200.0)
"""Alternatives to "as stable": times its rate. analysis.md, "Errors, canary against stable"."""


NOTHING: Final = Counts()


def log_sum(logs: Sequence[float]) -> float:
    """Return log(sum(exp(x))) without overflow."""
    top = max(logs)
    if top == -math.inf:
        return top
    return top + math.log(math.fsum(math.exp(x - top) for x in logs))


def minus(a: Counts, b: Counts) -> Counts:
    """Return what was counted in ``a`` and not yet in ``b``."""
    return Counts(a.requests - b.requests, a.bad - b.bad)


@dataclass(frozen=True, slots=True)
class Window:
    """The time in which an alternative began to hold, and what was counted in it."""

    begun_at: int | None
    """Milliseconds; None: from the beginning of the evidence."""
    canary: Counts
    stable: Counts
    """Its bad requests from one step more: stable's scrapes and the canary's are not at the same
    times, and what hits both may be booked for stable in the step before."""


@dataclass(frozen=True, slots=True)
class _Mark:
    """What had been counted when an alternative (re)started."""

    at: int | None = None
    canary: Counts = NOTHING
    stable: Counts = NOTHING
    stable_before: Counts = NOTHING


class LimitTest:
    """Is the share of bad requests above a limit? One sample, any start, any look.

    For a share p1 above the limit d, with a = odds(p1)/odds(d) - 1, each step multiplies by
    (1+a)^bad / (1+d*a)^requests (analysis-study.md, section 2.2), whose mean is at most 1 while
    the true share is at most d. They are mixed over p1 and over the step at which it began:
    R <- (R + m_t * w) * e_t, and what has not begun is kept as it is. Beside the sum, the most
    likely single start is tracked by the same recursion with a maximum (Page's CUSUM).
    """

    def __init__(self, limit: float) -> None:
        """Start with no evidence; ``limit`` is a share, above 0 and below 1."""
        odds = limit / (1 - limit)
        ratios = {*ODDS_RATIOS, *(g / (1 - g) / odds for g in GROSS_SHARES if g / (1 - g) > odds)}
        self._bets = tuple((math.log(r), math.log1p(limit * (r - 1))) for r in sorted(ratios))
        self._logs = [-math.inf] * len(self._bets)
        self._paths = [-math.inf] * len(self._bets)
        self._marks = [_Mark()] * len(self._bets)
        self._steps = 0
        self._canary = Counts()
        self._stable = Counts()
        self._stable_before = Counts()

    def copy(self) -> LimitTest:
        """Return a test that can go on alone."""
        other = object.__new__(LimitTest)
        other.__dict__.update(self.__dict__)
        other._logs = list(self._logs)
        other._paths = list(self._paths)
        other._marks = list(self._marks)
        return other

    def step(self, canary: Counts, stable: Counts, at: int) -> None:
        """Take in the counts of the next step, which begins at ``at`` milliseconds."""
        begin = math.log(_mass(self._steps) / len(self._bets))
        now = _Mark(at if self._steps else None, self._canary, self._stable, self._stable_before)
        for j, (per_bad, per_request) in enumerate(self._bets):
            gain = canary.bad * per_bad - canary.requests * per_request
            self._logs[j] = log_sum((self._logs[j], begin)) + gain
            if begin > self._paths[j]:
                self._paths[j], self._marks[j] = begin, now
            self._paths[j] += gain
        self._steps += 1
        self._stable_before = self._stable
        self._canary += canary
        self._stable += stable

    def log_e(self) -> float:
        """Return the logarithm of the e-value."""
        if self._steps == 0:
            return 0.0
        not_begun = (1 - FROM_THE_START) * LATE_HALF_LIFE / (self._steps - 1 + LATE_HALF_LIFE)
        return log_sum((*self._logs, math.log(not_begun)))

    def window(self) -> Window:
        """Return where the alternative with the most evidence began, and the counts since."""
        mark = self._marks[self._best()]
        stable = minus(self._stable, mark.stable)
        bad = minus(self._stable, mark.stable_before).bad
        return Window(
            begun_at=mark.at,
            canary=minus(self._canary, mark.canary),
            stable=tempered(replace(stable, bad=bad)),
        )

    def log_ratio(self, counts: Counts) -> float:
        """Return how much more likely counts are above the limit than at it, at most."""
        return max(counts.bad * b - counts.requests * n for b, n in self._bets)

    def _best(self) -> int:
        return max(range(len(self._paths)), key=self._paths.__getitem__)


def _mass(step: int) -> float:
    """Return the prior probability that a regression begins at a step, from 0."""
    if step == 0:
        return FROM_THE_START
    h = LATE_HALF_LIFE
    return (1 - FROM_THE_START) * h / ((step + h - 1) * (step + h))


class RatioTest:
    """Is the share of bad requests more than ``ratio`` times that of stable?

    In a span with the requests nc and ns, given the total of bad ones, those of the canary are
    Binomial with the probability m*nc / (m*nc + ns) at the border of the null hypothesis. The
    likelihood ratios against rates r times higher multiply up over spans and are averaged over r
    with equal weights (analysis.md, "Errors, canary against stable"). A failure that hits both
    versions alike is no evidence at all. There is no mixture over start times on purpose: a
    product from the beginning lets stable's share of a burst, scraped a moment earlier, weigh
    against the canary's.
    """

    def __init__(self, ratio: float) -> None:
        """Start with no evidence; ``ratio`` is the tolerated m, at least 1."""
        self._ratio = ratio
        self._logs = [0.0] * len(RATES_OVER_STABLE)

    def copy(self) -> RatioTest:
        """Return a test that can go on alone."""
        other = RatioTest(self._ratio)
        other._logs = list(self._logs)
        return other

    def step(self, canary: Counts, stable: Counts) -> None:
        """Take in the counts of one span. Without requests on both sides nothing is learnt."""
        if not canary.requests or not stable.requests or not canary.bad + stable.bad:
            return
        expected = self._ratio * canary.requests
        null = expected + stable.requests
        for j, r in enumerate(RATES_OVER_STABLE):
            shrunk = math.log(null / (r * expected + stable.requests))
            self._logs[j] += canary.bad * (math.log(r) + shrunk) + stable.bad * shrunk

    def log_e(self) -> float:
        """Return the logarithm of the e-value."""
        return log_sum(self._logs) - math.log(len(self._logs))


def log_e_against(canary: Counts, stable: Counts) -> float:
    """Return the logarithm of the e-value against "no worse than stable" of one span."""
    test = RatioTest(1.0)
    test.step(canary, stable)
    return test.log_e()


def tempered(counts: Counts) -> Counts:
    """Return counts whose bad ones are within 0 and the requests.

    Two queries are answered a moment apart, so one may know a scrape more than the other.
    """
    if 0 <= counts.bad <= counts.requests:
        return counts
    return replace(counts, bad=min(max(counts.bad, 0), max(counts.requests, 0)))
