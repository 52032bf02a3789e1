"""The first rule: from the evidence on one metric to one of the four answers, in words."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from crossfade.evidence.counters import silence_after
from crossfade.evidence.eprocesses import LOG_THRESHOLD, LimitTest, Window, log_e_against
from crossfade.evidence.ledger import Limits, Standing
from crossfade.evidence.verdicts import Counts, Verdict

STABLE_BREAKS: Final = math.log(10)
"""Stable breaks the limit when its counts are ten times likelier above it than at it."""

TOLD_APART: Final = math.log(20)
"""The canary breaks the limit alone when it is this much likelier to be worse than stable than
not, in the very time of its breach. It comes on top of the threshold of the limit's own test."""

ONE_DECIMAL_FROM: Final = 0.95
"""Shares in percent below this are said with two digits instead."""

NEGLIGIBLE: Final = 50
"""Stable is not waited for when it answers less than one in this many of the canary's requests."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What the step asks for, and when it is."""

    now: int
    """Milliseconds since the epoch."""
    in_force: bool
    """The present weight was seen in force."""
    answered: int
    """The canary's requests since then."""
    min_requests: int
    in_probation: bool = False
    """The judged version gets everything: there is no stable version beside it."""


Answer = tuple[Verdict, str]


def judge(standing: Standing, limits: Limits, asked: Asked) -> Answer:
    """Give the answer. Harm goes first: evidence does not lapse when the source falls silent.

    Silence counts only in force: without traffic a version may have no series, or those of an
    earlier life, and to be blind for it would keep it from ever getting its first request.
    """
    if standing.newest is None:
        return Verdict.NOT_ENOUGH_DATA, "the canary has no series yet"
    for finding in (_worse_than_stable(standing, limits), _over_limit(standing, limits)):
        if finding is not None:
            return finding
    if not asked.in_force:
        return Verdict.NOT_ENOUGH_DATA, "the weight is not yet seen in force"
    for hold in (_stale(standing, asked), _incomparable(standing, limits, asked)):
        if hold is not None:
            return hold
    return _enough(standing, limits, asked)


def _worse_than_stable(standing: Standing, limits: Limits) -> Answer | None:
    if standing.ratio is None or standing.ratio.log_e() < LOG_THRESHOLD:
        return None
    return Verdict.HARM, describe(standing.canary, standing.stable, limits)


def _over_limit(standing: Standing, limits: Limits) -> Answer | None:
    """Return harm by the limit, or the hold that stable imposes on it."""
    test = standing.limit
    if test is None or test.log_e() < LOG_THRESHOLD:
        return None
    window = test.window()
    said = describe(window.canary, window.stable, limits)
    if window.begun_at is not None and standing.newest is not None:
        said += f", in the last {max((standing.newest - window.begun_at) // 1000, 1)} s"
    hold = _held_by_stable(test, window) if standing.stable_is_scraped else None
    return (hold[0], f"{hold[1]}; {said}") if hold else (Verdict.HARM, said)


def _held_by_stable(test: LimitTest, window: Window) -> Answer | None:
    """Return why the canary's breach of the limit is not held against it; None: it is.

    A limit alone takes a healthy version back in most failures that hit both versions. So in the
    very time of the canary's breach stable must keep the limit, and must be told
    apart from it.
    """
    stable = window.stable
    if test.log_ratio(stable) >= STABLE_BREAKS:
        return Verdict.UNAVAILABLE, (
            f"stable breaks the limit too ({percent(stable)} of {stable.requests:,}): "
            "inputs or a shared dependency, not this version"
        )
    if (stable.requests + 1) * NEGLIGIBLE < window.canary.requests:
        return None
    if log_e_against(window.canary, stable) >= TOLD_APART:
        return None
    return Verdict.NOT_ENOUGH_DATA, "the versions cannot be told apart yet"


def _stale(standing: Standing, asked: Asked) -> Answer | None:
    age = asked.now - (standing.newest or 0)
    if age <= silence_after(standing.spacing):
        return None
    return Verdict.UNAVAILABLE, f"the canary's newest sample is {age // 1000} s old"


def _incomparable(standing: Standing, limits: Limits, asked: Asked) -> Answer | None:
    if limits.ratio is None:
        return None
    if asked.in_probation:
        if limits.share is not None:
            return None
        return Verdict.NOT_ENOUGH_DATA, "nothing to compare with: no other version has traffic"
    if standing.stable.requests:
        return None
    return Verdict.NOT_ENOUGH_DATA, "stable answered no request to compare with"


def _enough(standing: Standing, limits: Limits, asked: Asked) -> Answer:
    if asked.answered < asked.min_requests:
        return Verdict.NOT_ENOUGH_DATA, (
            f"canary answered {asked.answered:,} of the {asked.min_requests:,} requests "
            "that this step asks for"
        )
    return Verdict.HEALTHY, describe(standing.canary, standing.stable, limits)


def describe(canary: Counts, stable: Counts, limits: Limits) -> str:
    """Say the shares and the limits, for people."""
    said = f"canary {percent(canary)} of {canary.requests:,}"
    if stable.requests:
        said += f", stable {percent(stable)} of {stable.requests:,}"
    if limits.share is not None:
        said += f"; limit {100 * limits.share:.4g} %"
    if limits.ratio is not None:
        said += f"; tolerated {limits.ratio:g} times stable"
    return said


def percent(counts: Counts) -> str:
    """Return the share of bad requests with one decimal, or two digits when it is small."""
    share = counts.percent
    return f"{share:.1f} %" if share >= ONE_DECIMAL_FROM or share == 0 else f"{share:.2g} %"
