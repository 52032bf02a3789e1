"""How long a doubling of the rate of bad answers goes unnoticed, said before it happens.

The tests of ``eprocesses.py`` mix alternatives. The log of one alternative's e-value is a random
walk: with each answer of the canary, and what stable answers beside it, it moves on by a mean and
spreads by a variance that follow from its bets. Harm is found when it has made up for the
alternative's share of the prior and for the threshold. Taken as a Brownian motion with that drift,
it has done so within n answers with the probability of an inverse Gaussian distribution (Folks and
Chhikara, "The inverse Gaussian distribution and its statistical application", JRSS B 1978)::

    P(n) = F((drift n - way) / (spread sqrt n))
           + exp(2 drift way / spread^2) F(-(drift n + way) / (spread sqrt n))

with F the normal distribution. The fastest alternative decides. That its neighbours help, and that
stable's rate is not known but estimated, about cancel out and are left out: the unit tests simulate
the tests themselves, and find 73 to 88 % where 80 % are forecast.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from crossfade.evidence.eprocesses import (
    FROM_THE_START,
    GROSS_FROM_THE_START,
    HIGHEST_RATE,
    ODDS_OVER_STABLE,
    ODDS_RATIOS,
    SHARES_OVER_STABLE,
    SPANS_FROM_THE_START,
)
from crossfade.evidence.kernel import Tolerance, bet_on, log_e
from crossfade.evidence.rates import Limits
from crossfade.evidence.verdicts import Counts, Forecast

LIKELY: Final = 0.8
"""How likely a doubling is seen after what is forecast."""

LIKELY_DEVIATION: Final = 0.8416
"""The normal distribution's deviation of that probability."""

MOST_ANSWERS: Final = 1_000_000_000
"""What takes more answers is not seen: so much is more than ``minRequests`` may ask for."""

IDLE: Final = 1 / 86_400
"""Fewer answers of the canary in a second, one a day, are no traffic."""

ALL: Final = 100
"""Percent. A canary that gets everything has no stable version beside it."""


@dataclass(frozen=True, slots=True)
class _Walk:
    """What one alternative's log e-value does with each answer of the canary."""

    drift: float
    variance: float
    way: float
    """Where it must come."""

    def surely_within(self) -> float:
        """Return the answers after which it stands there with 80 %: it was there before that."""
        spread = LIKELY_DEVIATION * math.sqrt(self.variance)
        root = spread + math.sqrt(spread * spread + 4 * self.drift * self.way)
        return (root / (2 * self.drift)) ** 2

    def has_arrived(self, answers: float) -> float:
        """Return the probability that it has been there within so many answers."""
        spread = math.sqrt(self.variance * answers)
        gone = self.drift * answers
        standing = _normal((gone - self.way) / spread)
        reflected = 2 * self.drift * self.way / self.variance
        if reflected > _TOO_MUCH:
            return standing
        return standing + math.exp(reflected) * _normal(-(gone + self.way) / spread)


_TOO_MUCH: Final = 600.0
"""Beyond this ``exp`` overflows soon, and what it is for is far below a percent."""


def _normal(x: float) -> float:
    return 0.5 * math.erfc(-x / math.sqrt(2))


def present_rate(stable: Counts) -> float:
    """Return stable's share of bad answers; without a bad one (0 + 1) / (requests + 1).

    That is an upper guess: a rate below it shows a first bad answer only later. With it a
    doubling is forecast too early rather than never; the forecast moves as answers come in.
    """
    return max(stable.bad, 1) / (stable.requests + (stable.bad == 0))


def requests_needed(
    stable: float,
    harm: Tolerance | float,
    weight_percent: int,
    log_needed: float,
    dispersion: float = 1.0,
) -> int | None:
    """Return after how many answers of the canary twice stable's rate is seen with 80 %.

    Args:
        stable: its share of bad answers, above 0.
        harm: what is tolerated beside stable, or the limit as a share. That a limit is held
            against the canary only while stable keeps it, and is told apart, is left out.
        weight_percent: the canary's part of the traffic.
        log_needed: the threshold of the test as a logarithm.
        dispersion: how many answers are worth one, at least 1.

    Returns:
        None when it is not seen: a doubling is tolerated, or too close to what is tolerated for
        the alternatives of the test, or there is nothing to compare with. ``why_none`` says which.
    """
    doubled = min(2 * stable, HIGHEST_RATE)
    if doubled <= _border(harm, stable):
        return None
    if isinstance(harm, Tolerance):
        walks = list(_walks_beside_stable(stable, doubled, harm, weight_percent, log_needed))
    else:
        walks = list(_walks_against_limit(doubled, harm, log_needed))
    fastest = min((w for w in walks if w.drift > 0), key=_Walk.surely_within, default=None)
    answers = _quantile(fastest) * dispersion if fastest else math.inf
    return math.ceil(answers) if answers <= MOST_ANSWERS else None


def forecast(
    limits: Limits,
    stable: Counts,
    ladder: Iterable[int],
    per_second: float,
    log_needed: float,
    dispersion: float = 1.0,
) -> tuple[Forecast, ...]:
    """Say for each weight what it takes to see a doubling of stable's present rate.

    Args:
        limits: what harm is; of two the one that is seen first counts.
        stable: what was counted of it.
        ladder: weights in percent.
        per_second: requests of both versions together; 0 when there is no traffic.
        log_needed: the threshold of each test as a logarithm.
        dispersion: how many answers are worth one, at least 1.

    Returns:
        Without the weights at which a doubling is not seen; empty when it is seen at none
        (``why_none`` says why).
    """
    if not stable.requests:
        return ()
    rate = present_rate(stable)
    said = []
    for weight in ladder:
        needed = [
            n
            for harm in _harms(limits)
            if (n := requests_needed(rate, harm, weight, log_needed, dispersion)) is not None
        ]
        if needed:
            per_canary = per_second * weight / ALL
            seconds = math.ceil(min(needed) / per_canary) if per_canary >= IDLE else None
            said.append(Forecast(weight, min(needed), seconds))
    return tuple(said)


def why_none(limits: Limits, stable: Counts) -> str:
    """Say why there is no forecast, for people: one clause without a period."""
    if not stable.requests:
        return "no answer of stable is counted yet, so its rate is not known"
    rate = present_rate(stable)
    doubled = min(2 * rate, HIGHEST_RATE)
    said = f"twice stable's rate ({100 * doubled:.2g} %)"
    if all(doubled <= _border(harm, rate) for harm in _harms(limits)):
        return f"{said} is tolerated"
    return f"{said} is too close to what is tolerated to be told from it"


def _harms(limits: Limits) -> list[Tolerance | float]:
    return [harm for harm in (limits.tolerance, limits.share) if harm is not None]


def _border(harm: Tolerance | float, stable: float) -> float:
    return harm.border(stable) if isinstance(harm, Tolerance) else harm


def _walks_beside_stable(
    stable: float, canary: float, tolerance: Tolerance, weight: int, log_needed: float
) -> Iterator[_Walk]:
    """Yield what the alternatives of ``MarginTest`` do."""
    beside = ALL - weight
    if not beside:
        return
    border = min(tolerance.border(stable), HIGHEST_RATE)
    for ratio, share in zip(ODDS_OVER_STABLE, SHARES_OVER_STABLE, strict=True):
        price = -math.log(share * SPANS_FROM_THE_START)
        bet = bet_on(tolerance, _times_odds(border, ratio), stable, weight, beside)
        if bet is None:
            continue
        won, lost = math.log1p(bet.a), math.log1p(-bet.b)
        mean = weight * canary * won + beside * stable * lost
        mean += log_e(tolerance, bet, Counts(weight), Counts(beside))
        variance = weight * canary * (1 - canary) * won * won
        variance += beside * stable * (1 - stable) * lost * lost
        yield _Walk(mean / weight, variance / weight, log_needed + price)


def _walks_against_limit(canary: float, limit: float, log_needed: float) -> Iterator[_Walk]:
    """Yield what the alternatives of ``LimitTest`` do."""
    others = (1 - GROSS_FROM_THE_START) / len(ODDS_RATIOS)
    alternatives = [(ratio, others) for ratio in ODDS_RATIOS]
    alternatives.append((1 + 1 / limit, GROSS_FROM_THE_START))
    for ratio, share in alternatives:
        won = math.log(ratio)
        drift = canary * won - math.log1p(limit * (ratio - 1))
        way = log_needed - math.log(FROM_THE_START * share)
        yield _Walk(drift, canary * (1 - canary) * won * won, way)


def _times_odds(share: float, ratio: float) -> float:
    odds = ratio * share / (1 - share)
    return min(odds / (1 + odds), HIGHEST_RATE)


def _quantile(walk: _Walk) -> float:
    """Return the answers within which a walk has arrived with the probability ``LIKELY``."""
    low, high = 0.0, walk.surely_within()
    while high - low > high / _PRECISION:
        middle = (low + high) / 2
        if walk.has_arrived(middle) < LIKELY:
            low = middle
        else:
            high = middle
    return high


_PRECISION: Final = 1000
"""The forecast is exact to so many parts; what it rests on is not."""
