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

ODDS_RATIOS: Final = (1.5, 2.5, 5.0, 15.0)
"""Alternatives to "at the limit": times its odds. One more is a gross failure, halfway between
the limit and everything. With a limit of 2 %, a bad answer is worth a factor of 25.5 against it
and a good one a half, so three bad answers of six suffice."""

FROM_THE_START: Final = 0.6
"""The share of the prior that the version was bad from the beginning (m_1 of section 2.0)."""

AFTER_A_BAD_ANSWER: Final = 0.2
"""The share of the prior that it became bad with a bad answer: a start after each step with one.
It costs that step's evidence and saves the price of all steps without one, so a version that did
well for an hour is taken back as fast as one that did well for seconds."""

AT_ANY_STEP: Final = 1 - FROM_THE_START - AFTER_A_BAD_ANSWER
"""The share of the prior that it became bad at some later step, whatever was seen before it."""

HALF_OF_BAD_STEPS: Final = 2
"""Steps with a bad answer until half of their share has begun."""

HALF_OF_STEPS: Final = 15
"""Steps until half of their share has begun."""

GROSS_FROM_THE_START: Final = 0.25
"""The share of the gross failure in what begins at once; the other alternatives share the rest."""

GROSS_LATER: Final = 0.8
"""Its share in what begins later, where the price of a start is the wait that people notice."""

FENCE_MS: Final = 2_000
"""Stable's bad answers count from this much more, at least and up to twice, than the canary's:
their scrapes are not at the same times, and what hits both may be booked for stable before."""

RATES_OVER_STABLE: Final = (1.25, 1.5, 2.0, 3.0, 5.0, 10.0, 20.0, 50.0, 200.0)
"""Alternatives to "as stable": times its rate. analysis.md, "Errors, canary against stable"."""


NOTHING: Final = Counts()


def _log_shares(gross: float) -> tuple[float, ...]:
    """Return the logarithms of the alternatives' shares, the gross failure's last."""
    others = math.log((1 - gross) / len(ODDS_RATIOS))
    return (*(others for _ in ODDS_RATIOS), math.log(gross))


_LOG_SHARES_FROM_THE_START: Final = _log_shares(GROSS_FROM_THE_START)
_LOG_SHARES_LATER: Final = _log_shares(GROSS_LATER)


def log_sum(logs: Sequence[float]) -> float:
    """Return log(sum(exp(x))) without overflow."""
    top = max(logs)
    if top == -math.inf:
        return top
    return top + math.log(math.fsum(math.exp(x - top) for x in logs))


def _log_add(a: float, b: float) -> float:
    """Return log(exp(a) + exp(b)), b finite: the sum of two, for the innermost loop."""
    return a + math.log1p(math.exp(b - a)) if a > b else b + math.log1p(math.exp(a - b))


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
    """Its bad requests from up to two fences before."""


@dataclass(frozen=True, slots=True)
class _Mark:
    """What had been counted when an alternative (re)started."""

    at: int | None = None
    canary: Counts = NOTHING
    stable: Counts = NOTHING
    stable_before: Counts = NOTHING
    """Up to a fence or two before."""


class LimitTest:
    """Is the share of bad requests above a limit? One sample, any start, any look.

    For a share p1 above the limit d, with a = odds(p1)/odds(d) - 1, each step multiplies by
    (1+a)^bad / (1+d*a)^requests (analysis-study.md, section 2.2), whose mean is at most 1 while
    the true share is at most d. They are mixed over p1 and over the step at which it began:
    R <- (R + m_t * w) * e_t, and what has not begun is kept as it is. m_t is known before the
    step's answers are: it depends on the steps before only, and sums to at most 1 on any path.
    Beside the sum, the most likely single start is tracked by the same recursion with a maximum
    (Page's CUSUM).
    """

    def __init__(self, limit: float) -> None:
        """Start with no evidence; ``limit`` is a share, above 0 and below 1."""
        ratios = (*ODDS_RATIOS, 1 + 1 / limit)
        self._bets = tuple((math.log(r), math.log1p(limit * (r - 1))) for r in ratios)
        self._logs = [-math.inf] * len(self._bets)
        self._paths = [-math.inf] * len(self._bets)
        self._marks = [_Mark()] * len(self._bets)
        self._steps = 0
        self._bad_steps = 0
        self._bad_mark: _Mark | None = None
        """Where the step before began, if it had a bad answer."""
        self._canary = Counts()
        self._stable = Counts()
        self._fence = 0
        self._fenced = (NOTHING, NOTHING)
        """Stable's counts at the beginning of the fence before this one, and of this one."""

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
        now = self._mark(at)
        log_mass, log_shares = self._begin()
        mark = self._bad_mark or now
        for j, (per_bad, per_request) in enumerate(self._bets):
            begin = log_mass + log_shares[j]
            gain = canary.bad * per_bad - canary.requests * per_request
            self._logs[j] = _log_add(self._logs[j], begin) + gain
            if begin > self._paths[j]:
                self._paths[j], self._marks[j] = begin, mark
            self._paths[j] += gain
        self._steps += 1
        self._bad_mark = now if canary.bad else None
        self._canary += canary
        self._stable += stable

    def _mark(self, at: int) -> _Mark:
        if self._steps == 0:
            self._fence = at // FENCE_MS
            return _Mark()
        if at // FENCE_MS != self._fence:
            self._fence = at // FENCE_MS
            self._fenced = (self._fenced[1], self._stable)
        return _Mark(at, self._canary, self._stable, self._fenced[0])

    def _begin(self) -> tuple[float, tuple[float, ...]]:
        """Return the logarithms of the prior that begins with this step, and of its shares."""
        if self._steps == 0:
            return math.log(FROM_THE_START), _LOG_SHARES_FROM_THE_START
        mass = AT_ANY_STEP * _nth(self._steps, HALF_OF_STEPS)
        if self._bad_mark:
            self._bad_steps += 1
            mass += AFTER_A_BAD_ANSWER * _nth(self._bad_steps, HALF_OF_BAD_STEPS)
        return math.log(mass), _LOG_SHARES_LATER

    def log_e(self) -> float:
        """Return the logarithm of the e-value."""
        if self._steps == 0:
            return 0.0
        not_begun = AT_ANY_STEP * _rest(self._steps - 1, HALF_OF_STEPS)
        not_begun += AFTER_A_BAD_ANSWER * _rest(self._bad_steps, HALF_OF_BAD_STEPS)
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


def _rest(begun: int, half: int) -> float:
    """Return what of a share has not begun after so many of its starts."""
    return half / (begun + half)


def _nth(start: int, half: int) -> float:
    """Return what of a share begins with the n-th of its starts, from 1: it falls as 1/n^2."""
    return half / ((start + half - 1) * (start + half))


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
