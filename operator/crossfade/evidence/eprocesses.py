"""The e-processes of rates: against a limit, and against the stable version.

An e-process is a nonnegative process whose mean under the null hypothesis is at most 1 at every
stopping time, so by Ville's inequality (1939) it ever reaches 1/alpha with a probability of at
most alpha: it may be looked at after every scrape. Ramdas, Grünwald, Vovk and Shafer, "Game-
theoretic statistics and safe anytime-valid inference", Statistical Science 2023, has the theory;
Lindon and Malek, "Anytime-valid inference for multinomial count data", NeurIPS 2022, and Lindon,
Sanden and Shirikian, "Rapid regression detection in software deployments through sequential
testing", KDD 2022, apply it to counts of two versions. Everything is kept as logarithms.

Both are mixtures over alternatives and over the step at which they began::

    R <- (R + m_t * w) * e_t        for each alternative of the weight w

where the prior m_t of a start is known before the answers of its step are, and sums to at most 1;
what has not begun is kept as it is. Two things make them robust where answers are not independent:
log e_t is divided by the dispersion of the rates so far (``dispersion.py``), and one step adds
only so much. It stays an e-value: a root of one has a mean of at most 1 by Jensen's inequality, and
a cap only lowers it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from crossfade.evidence.dispersion import MOST_OVER_LIMIT, Dispersion
from crossfade.evidence.kernel import Tolerance, bet_on, log_e
from crossfade.evidence.verdicts import Counts

ODDS_RATIOS: Final = (1.5, 2.5, 5.0, 15.0)
"""Alternatives to "at the limit": times its odds. One more is a gross failure, halfway between
the limit and everything. With a limit of 2 %, a bad answer is worth a factor of 25.5 against it
and a good one a half, so three bad answers of six suffice."""

FROM_THE_START: Final = 0.6
"""The share of the prior that the canary was bad from its first request on."""

AFTER_A_BAD_ANSWER: Final = 0.2
"""The share that it became bad at a step right after one with a bad answer, or at that one."""

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

ODDS_OVER_STABLE: Final = (1.5, 2.5, 5.0, 10.0, 30.0)
"""Alternatives to "at the border of what is tolerated": times its odds."""

SHARES_OVER_STABLE: Final = (0.12, 0.23, 0.35, 0.2, 0.1)
"""Their shares of the prior. What is gross is found in a look or two whatever its share, and what
is small takes long; in between the share decides by how many looks (``bench/decisions``)."""

SPANS_FROM_THE_START: Final = 0.85
"""The share of the prior that the canary was different from stable from its first request on."""

HALF_OF_SPANS: Final = 120
"""Spans until half of the rest has begun."""

HIGHEST_RATE: Final = 0.98
"""Alternatives end here, short of certainty."""

FIRST_GUESS: Final = Counts(50, 0)
"""What stable's rate is guessed from before it is known: no bad answer and a half, of fifty."""

MEMORY_FADE: Final = 0.5 ** (1 / 120)
"""What is left after a span of what was known of a version's rate or distribution: a half after
120."""

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


class StableRate:
    """What stable's share of bad answers is, by what was seen of it before."""

    __slots__ = ("_bad", "_requests")

    def __init__(self) -> None:
        self._requests = float(FIRST_GUESS.requests)
        self._bad = FIRST_GUESS.bad + 0.5

    def copy(self) -> StableRate:
        """Return one that can go on alone."""
        other = StableRate()
        other._requests, other._bad = self._requests, self._bad
        return other

    def learn(self, stable: Counts) -> None:
        """Take in a span; older ones fade."""
        self._requests = self._requests * MEMORY_FADE + stable.requests
        self._bad = self._bad * MEMORY_FADE + stable.bad

    @property
    def share(self) -> float:
        """The share, above 0 and below 1."""
        return min(max(self._bad / self._requests, 1e-6), HIGHEST_RATE)


class Starts:
    """Mixes alternatives over the spans at which they began.

    One that begins with a span pays for what it would have lost in the span before, so that
    stable's part of a burst, scraped a moment earlier, weighs against the canary's.
    """

    __slots__ = ("_before", "_log_e", "_log_shares", "_logs", "_steps")

    def __init__(self, shares: Sequence[float]) -> None:
        """Start with no evidence; ``shares`` are those of the alternatives, 1 together."""
        self._log_e: float | None = 0.0
        self._log_shares = tuple(map(math.log, shares))
        self._logs = [-math.inf] * len(shares)
        self._before = [0.0] * len(shares)
        self._steps = 0

    def copy(self) -> Starts:
        """Return a mixture that can go on alone."""
        other = object.__new__(Starts)
        other._log_shares = self._log_shares
        other._logs, other._before = list(self._logs), list(self._before)
        other._log_e, other._steps = self._log_e, self._steps
        return other

    def step(self, gains: Sequence[float]) -> None:
        """Take in what the span adds to log e of each alternative."""
        begun = math.log(self._prior())
        for j, gain in enumerate(gains):
            begin = begun + self._log_shares[j] + min(self._before[j], 0.0)
            self._logs[j] = _log_add(self._logs[j], begin) + gain
        self._before = list(gains)
        self._log_e = None
        self._steps += 1

    def _prior(self) -> float:
        if self._steps == 0:
            return SPANS_FROM_THE_START
        return (1 - SPANS_FROM_THE_START) * _nth(self._steps, HALF_OF_SPANS)

    def log_e(self) -> float:
        """Return the logarithm of the e-value; several ask for it in a look."""
        if self._log_e is None:
            not_begun = (1 - SPANS_FROM_THE_START) * _rest(self._steps - 1, HALF_OF_SPANS)
            self._log_e = log_sum((*self._logs, math.log(not_begun)))
        return self._log_e


class MarginTest:
    """Is the canary's share of bad answers above ``tolerance`` beside that of stable?

    The kernel (``kernel.py``) with bets on alternatives of several sizes, which are chosen by what
    stable's rate was before and by the requests of the span.
    """

    __slots__ = ("_starts", "tolerance")

    def __init__(self, tolerance: Tolerance) -> None:
        """Start with no evidence."""
        self.tolerance = tolerance
        self._starts = Starts(SHARES_OVER_STABLE)

    def copy(self) -> MarginTest:
        """Return a test that can go on alone."""
        other = object.__new__(MarginTest)
        other.tolerance, other._starts = self.tolerance, self._starts.copy()
        return other

    def step(self, canary: Counts, stable: Counts, rate: float, known: Dispersion[Counts]) -> None:
        """Take in one span.

        Args:
            canary: its counts; at least one request.
            stable: its counts; at least one request.
            rate: stable's share of bad answers, by what was known before the span.
            known: the dispersion, likewise.
        """
        self._starts.step(known.temper(_winnings(self.tolerance, canary, stable, rate)))

    def log_e(self) -> float:
        """Return the logarithm of the e-value."""
        return self._starts.log_e()


def log_e_apart(canary: Counts, stable: Counts, rate: float) -> float:
    """Return the logarithm of the e-value of one span against "no worse than stable"."""
    if not canary.requests or not stable.requests:
        return 0.0
    won = _winnings(Tolerance(1.0, 0.0), canary, stable, rate)
    return log_sum(won) - math.log(len(won))


def _winnings(
    tolerance: Tolerance, canary: Counts, stable: Counts, rate: float
) -> tuple[float, ...]:
    """Return log e of one span for each alternative."""
    border = min(tolerance.border(rate), HIGHEST_RATE)
    odds = border / (1 - border)
    won = []
    for ratio in ODDS_OVER_STABLE:
        worse = min(ratio * odds / (1 + ratio * odds), HIGHEST_RATE)
        bet = bet_on(tolerance, worse, rate, canary.requests, stable.requests)
        won.append(log_e(tolerance, bet, canary, stable) if bet else 0.0)
    return tuple(won)


@dataclass(frozen=True, slots=True)
class Window:
    """The time in which an alternative began to hold, and what was counted in it."""

    begun_at: int | None
    """Milliseconds; None: from the beginning of the evidence."""
    canary: Counts
    stable: Counts
    """Its bad requests from up to two fences before."""
    canary_whole: Counts
    """What can be compared with stable of the canary's (``ledger.Cell``)."""


class _Mark(msgspec.Struct, frozen=True, gc=False):
    """What had been counted when an alternative (re)started."""

    at: int | None = None
    canary: Counts = NOTHING
    whole: Counts = NOTHING
    stable: Counts = NOTHING
    stable_before: Counts = NOTHING
    """Up to a fence or two before."""


class LimitTest:
    """Is the share of bad requests above a limit? One sample, any start, any look.

    For a share p1 above the limit d, with a = odds(p1)/odds(d) - 1, each step multiplies by
    (1+a)^bad / (1+d*a)^requests (the kernel with ratio 0; analysis-study.md, section 2.2), whose
    mean is at most 1 while the true share is at most d. The prior of a start depends on the steps
    before it only, and sums to at most 1 on any path. Beside the sum, the most likely single start
    is tracked by the same recursion with a maximum (Page's CUSUM).
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
        self._whole = Counts()
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

    def step(
        self, canary: Counts, whole: Counts, stable: Counts, at: int, known: Dispersion[Counts]
    ) -> None:
        """Take in the counts of the next step.

        Args:
            canary: its counts; at least one request.
            whole: those of them that can be compared with stable.
            stable: its counts since the step before.
            at: when the step begins, in milliseconds.
            known: the dispersion of what was seen before.
        """
        now = self._mark(at)
        log_mass, log_shares = self._begin()
        phi, most = known.phi_of_stable, known.most(MOST_OVER_LIMIT)
        mark = self._bad_mark or now
        for j, (per_bad, per_request) in enumerate(self._bets):
            begin = log_mass + log_shares[j]
            gain = canary.bad * per_bad - canary.requests * per_request
            gain = min(gain / phi, most)
            self._logs[j] = _log_add(self._logs[j], begin) + gain
            if begin > self._paths[j]:
                self._paths[j], self._marks[j] = begin, mark
            self._paths[j] += gain
        self._steps += 1
        self._bad_mark = now if canary.bad else None
        self._canary += canary
        self._whole += whole
        self._stable += stable

    def _mark(self, at: int) -> _Mark:
        if self._steps == 0:
            self._fence = at // FENCE_MS
            return _Mark()
        if at // FENCE_MS != self._fence:
            self._fence = at // FENCE_MS
            self._fenced = (self._fenced[1], self._stable)
        return _Mark(at, self._canary, self._whole, self._stable, self._fenced[0])

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
            stable=bounded(Counts(stable.requests, bad)),
            canary_whole=minus(self._whole, mark.whole),
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


def bounded(counts: Counts) -> Counts:
    """Return counts whose bad ones are within 0 and the requests.

    Two queries are answered a moment apart, so one may know a scrape more than the other.
    """
    if 0 <= counts.bad <= counts.requests:
        return counts
    return Counts(counts.requests, min(max(counts.bad, 0), max(counts.requests, 0)))
