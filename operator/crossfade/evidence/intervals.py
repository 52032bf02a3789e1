"""What a share may be, so that it may be looked at as often as one likes.

A confidence sequence: as long as the true share does not change, it is outside of *any* of the
intervals of a whole rollout with a probability of at most 1 - level, where fixed-size intervals
(Wilson, Clopper and Pearson) promise that of one look only, and are left sooner or later by every
share. For a share p, the likelihood of the counts mixed over a prior and divided by their
likelihood at p is a martingale that starts at 1
(Robbins, "Statistical methods related to the law of the iterated logarithm", Annals of
Mathematical Statistics 1970), so by Ville's inequality it ever reaches 1 / (1 - level) with a
probability of at most 1 - level; the interval is all p at which it has not. With a beta prior the
mixture has a closed form, as in Lindon and Malek, "Anytime-valid inference for multinomial count
data", NeurIPS 2022; Waudby-Smith and Ramdas, "Estimating means of bounded random variables by
betting", JRSS B 2024, compare it with others. The price: 37 of 1,204 is 1.7 to 5.0 %, by Wilson
2.2 to 4.2 %; with a prior that knew the answer it were 2.0 to 4.5 %.
"""

from __future__ import annotations

import math
from typing import Final

from crossfade.evidence.verdicts import Counts

PRIOR: Final = ((0.8, 0.5, 20.0), (0.2, 0.5, 0.5))
"""Shares and parameters of the two beta distributions that are mixed. Most of it is on what rates
of errors are, up to a few percent; Jeffreys' prior keeps other rates from being told late. With
that one alone, 37 of 1,204 is 1.6 to 5.3 %."""

_CONVERGED: Final = 1e-9
"""Steps of Newton's method smaller than this, in log odds, end it."""

_MAX_STEPS: Final = 30
"""Three to five suffice; a bound for where numbers are too large for their precision."""

_FAR: Final = 700.0
"""Below minus this a share is its odds; ``exp`` would overflow on the way."""


def interval(counts: Counts, dispersion: float = 1.0, level: float = 0.95) -> tuple[float, float]:
    """Return the ends of the anytime-valid interval of a share of bad requests.

    Args:
        counts: requests and the bad ones of them, 0 <= bad <= requests.
        dispersion: how many requests are worth one, at least 1: bad ones come in bursts. Both
            counts are divided by it.
        level: how likely the share is never outside, above 0 and below 1.

    Returns:
        The lower and the upper end: shares, exactly 0 when nothing was bad and exactly 1 when
        everything was. The share of bad requests is between them.
    """
    n = counts.requests / dispersion
    bad = counts.bad / dispersion
    good = n - bad
    if n <= 0:
        return 0.0, 1.0
    margin = -math.log1p(-level)
    mixture = _log_mixture(bad, good)
    if counts.bad == 0:
        return 0.0, -math.expm1((mixture - margin) / n)
    if counts.bad == counts.requests:
        return math.exp((mixture - margin) / n), 1.0
    best = bad * math.log(bad / n) + good * math.log(good / n)
    floor = min(mixture, best) - margin  # a mixture is never above its maximum; floats may be
    centre = math.log(bad / good)
    spread = math.sqrt(2 * (best - floor) * n / (bad * good))
    return _end(bad, n, floor, centre - spread), _end(bad, n, floor, centre + spread)


def _end(bad: float, n: float, floor: float, start: float) -> float:
    """Return the share beyond which the log likelihood is below ``floor``.

    As a function of the log odds the log likelihood is concave, and straight far out. So from a
    start outside of the interval Newton's method comes to its end without passing it, and from
    one inside its first step leads outside.
    """
    log_odds = start
    for _ in range(_MAX_STEPS):
        likelihood = bad * log_odds - n * _log1pexp(log_odds)
        step = (likelihood - floor) / (bad - n * _share(log_odds))
        log_odds -= step
        if abs(step) < _CONVERGED:
            break
    return _share(log_odds)


def _share(log_odds: float) -> float:
    return 1 / (1 + math.exp(-log_odds)) if log_odds > -_FAR else math.exp(log_odds)


def _log1pexp(x: float) -> float:
    """Return log(1 + exp(x)) without overflow."""
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


def _log_mixture(bad: float, good: float) -> float:
    """Return the logarithm of the likelihood mixed over the prior."""
    logs = [_log_beta(a + bad, b + good) + constant for constant, a, b in _PRIOR]
    top = max(logs)
    return top + math.log(sum(math.exp(one - top) for one in logs))


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)


_PRIOR: Final = tuple((math.log(share) - _log_beta(a, b), a, b) for share, a, b in PRIOR)
"""The prior, with what of its density does not depend on counts."""
