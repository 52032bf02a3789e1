"""One closed-form e-value for "the canary's rate is at most ``ratio`` x stable's + ``slack``".

In one span of time the canary fails x_c of n_c requests and stable x_s of n_s. For bets a > 0 and
0 <= b < 1 that do not depend on x_c and x_s::

    log e = x_c log(1+a) + x_s log(1-b) - max over p of [n_c log(1+(ratio p + slack) a)
                                                        + n_s log(1-pb)]

Its mean is at most 1 whatever stable's rate p is, and p may be another one in every span: the
product over spans is an e-process (analysis-study.md, section 2.0; for ratio 1 and slack 0 it is
the two-sample e-variable of Turner, Ly and Grünwald, "Generic E-variables for exact sequential
k-sample tests", JSPI 2024). The sum in brackets is concave in p, so its maximum is where its slope
is 0, at p = (n_c ratio a - n_s b (1 + slack a)) / (ratio a b (n_c + n_s)), or at an end. Without
stable (ratio 0, b 0) it is the test against a limit, which ``LimitTest`` writes out. Given the
bets, the order of spans does not matter, and splitting a span at the same share of requests changes
nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import msgspec

from crossfade.evidence.verdicts import Counts

NEWTON_STEPS: Final = 8
"""Steps of the projection at most; two or three are the rule."""

CLOSE: Final = 0.1
"""A step of this size, relative to the distance to the nearer end, is the last: the error that is
left is about its square."""


@dataclass(frozen=True, slots=True)
class Tolerance:
    """What is no harm: a canary's rate of at most ``ratio`` x stable's + ``slack``."""

    ratio: float
    """At least 1."""
    slack: float
    """A share, at least 0 and below 1."""

    def border(self, stable: float) -> float:
        """Return the highest tolerated rate beside a rate of stable."""
        return self.ratio * stable + self.slack


class Bet(msgspec.Struct, frozen=True, gc=False):
    """How much is staked on the canary failing (a) and on stable not failing (b)."""

    a: float
    b: float


def log_e(tolerance: Tolerance, bet: Bet, canary: Counts, stable: Counts) -> float:
    """Return the logarithm of a span's e-value."""
    won = canary.bad * math.log1p(bet.a) + stable.bad * math.log1p(-bet.b)
    return won - _worst(tolerance, bet, canary.requests, stable.requests)


def _worst(tolerance: Tolerance, bet: Bet, n_c: int, n_s: int) -> float:
    """Return the maximum over stable's rate of the logarithm of the mean winnings."""
    a, b, ratio, slack = bet.a, bet.b, tolerance.ratio, tolerance.slack
    highest = min(1.0, (1 - slack) / ratio)
    p = highest
    if b > 0:
        slope_zero = (n_c * ratio * a - n_s * b * (1 + slack * a)) / (ratio * a * b * (n_c + n_s))
        p = min(max(slope_zero, 0.0), highest)
    return n_c * math.log1p((ratio * p + slack) * a) + n_s * math.log1p(-p * b)


def bet_on(tolerance: Tolerance, canary: float, stable: float, n_c: int, n_s: int) -> Bet | None:
    """Return the bets that grow fastest if these are the rates; None when they are tolerated.

    The rates are projected on the border of what is tolerated, (ratio u + slack, u), so that with
    n_c and n_s requests they are told from it as hardly as possible; the bets are the odds ratios
    between them and their projection (reverse information projection; Grünwald, de Heide and
    Koolen, "Safe testing", JRSS B 2024). Were the counts Poisson, the
    projection would solve a quadratic equation; Newton's method goes on from there. Bets decide
    only how fast evidence grows, not whether it is valid.

    Args:
        tolerance: the border.
        canary: its rate if it is worse, below 1.
        stable: its rate, above 0.
        n_c: the canary's requests in the span.
        n_s: stable's.
    """
    ratio, slack = tolerance.ratio, tolerance.slack
    if canary <= tolerance.border(stable):
        return None
    square = n_c * ratio * ratio + n_s * ratio
    linear = n_c * ratio * (slack - canary) + n_s * (slack - stable * ratio)
    constant = -n_s * stable * slack
    u = (math.sqrt(linear * linear - 4 * square * constant) - linear) / (2 * square)
    u = _project(tolerance, canary, stable, n_c, n_s, u)
    v = tolerance.border(u)
    if not stable < u < 1 or not v < canary:
        return None
    a = canary * (1 - v) / ((1 - canary) * v) - 1
    b = 1 - stable * (1 - u) / ((1 - stable) * u)
    return Bet(a, b)


def _project(
    tolerance: Tolerance, canary: float, stable: float, n_c: int, n_s: int, start: float
) -> float:
    """Return the u with the least n_c KL(canary, border(u)) + n_s KL(stable, u): it is convex."""
    ratio = tolerance.ratio
    highest = min((canary - tolerance.slack) / ratio, 1.0)
    low, high = stable, highest
    u = start
    for _ in range(NEWTON_STEPS):
        v = tolerance.border(u)
        slope = n_c * ratio * (v - canary) / (v * (1 - v)) + n_s * (u - stable) / (u * (1 - u))
        if slope > 0:
            high = u
        else:
            low = u
        bend = n_c * ratio * ratio * (canary / (v * v) + (1 - canary) / (1 - v) ** 2)
        bend += n_s * (stable / (u * u) + (1 - stable) / (1 - u) ** 2)
        step = slope / bend
        u -= step
        if not low <= u <= high:
            u = (low + high) / 2
        elif abs(step) < CLOSE * min(u - stable, highest - u):
            break
    return u
