"""From the evidence on a share of bad answers to one of the four answers, in words."""

from __future__ import annotations

import math
from typing import Final

import msgspec

from crossfade.evidence.counters import silence_after
from crossfade.evidence.eprocesses import LimitTest, Window, log_e_apart
from crossfade.evidence.intervals import interval
from crossfade.evidence.ledger import Seen
from crossfade.evidence.rates import Limits, RateTests
from crossfade.evidence.verdicts import Counts, Evidence, Verdict

STABLE_BREAKS: Final = math.log(10)
"""Stable breaks the limit when its counts are ten times likelier above it than at it."""

TOLD_APART: Final = math.log(20)
"""The canary breaks the limit alone when it is this much likelier to be worse than stable than
not, in the very time of its breach. It comes on top of the threshold of the limit's own test."""

ONE_DECIMAL_FROM: Final = 0.95
"""Shares in percent below this are said with two digits instead."""

WHOLE_ODDS_FROM: Final = 9.95
"""Odds below this are said with two digits."""

NEGLIGIBLE: Final = 50
"""Stable is not waited for when it answers less than one in this many of the canary's requests."""


class Asked(msgspec.Struct, frozen=True, gc=False):
    """What the step asks for, and when it is."""

    now: int
    """Milliseconds since the epoch."""
    in_force: bool
    """The present weight was seen in force."""
    answered: int
    """The canary's requests since then."""
    min_requests: int
    log_needed: float
    """The threshold of every test, as a logarithm."""
    in_probation: bool = False
    """The judged version gets everything: there is no stable version beside it."""
    ladder: tuple[int, ...] = ()
    """The weights of the steps in percent, for the forecast; empty: none is wanted."""


Answer = tuple[Verdict, str]

NOTHING_BESIDE: Final[Answer] = (
    Verdict.NOT_ENOUGH_DATA,
    "nothing to compare with: no other version has traffic",
)
"""In probation, of what is judged only beside another version."""


def judge(tests: RateTests, seen: Seen, limits: Limits, asked: Asked) -> Answer:
    """Give the answer. Harm goes first: evidence does not lapse when the source falls silent.

    Silence counts only in force: without traffic a version may have no series, or those of an
    earlier life, and to be blind for it would keep it from ever getting its first request.
    """
    if seen.newest is None:
        return Verdict.NOT_ENOUGH_DATA, "the canary has no series yet"
    for finding in (
        _worse_than_stable(tests, limits, asked),
        _over_limit(tests, seen, limits, asked),
    ):
        if finding is not None:
            return finding
    hold = held(seen, asked, _incomparable(tests, limits, asked))
    return hold or (Verdict.HEALTHY, describe(tests, limits, asked))


def evidence_of(tests: RateTests, asked: Asked) -> Evidence:
    """Return what speaks against the canary: the most of the tests."""
    logs = [test.log_e() for test in (tests.margin, tests.limit) if test is not None]
    return Evidence(max(logs, default=0.0), asked.log_needed)


def _worse_than_stable(tests: RateTests, limits: Limits, asked: Asked) -> Answer | None:
    if tests.margin is None or tests.margin.log_e() < asked.log_needed:
        return None
    return Verdict.HARM, describe(tests, limits, asked)


def _over_limit(tests: RateTests, seen: Seen, limits: Limits, asked: Asked) -> Answer | None:
    """Return harm by the limit, or the hold that stable imposes on it."""
    test = tests.limit
    if test is None or test.log_e() < asked.log_needed:
        return None
    window = test.window()
    said = _shares(window.canary, window.stable, limits)
    if window.begun_at is not None and seen.newest is not None:
        said += f", in the last {max((seen.newest - window.begun_at) // 1000, 1)} s"
    hold = _held_by_stable(tests, test, window) if seen.stable_is_scraped else None
    if hold is not None:
        return hold[0], f"{hold[1]}; {said}"
    return Verdict.HARM, f"{said}; {said_odds(evidence_of(tests, asked))}"


def _held_by_stable(tests: RateTests, test: LimitTest, window: Window) -> Answer | None:
    """Return why the canary's breach of the limit is not held against it; None: it is.

    A limit alone takes a healthy version back in most failures that hit both versions. So in the
    very time of the canary's breach stable must keep the limit, and must be told
    apart from it: by the canary's whole intervals only, since one that is cut short at the
    beginning may hold nothing but a burst, and stable's beside it much else.
    """
    stable = window.stable
    if test.log_ratio(stable) >= STABLE_BREAKS:
        return Verdict.UNAVAILABLE, (
            f"stable breaks the limit too ({percent(stable)} of {stable.requests:,}): "
            "inputs or a shared dependency, not this version"
        )
    if tests.compared and (stable.requests + 1) * NEGLIGIBLE < window.canary.requests:
        return None
    apart = log_e_apart(window.canary_whole, stable, tests.usual.share)
    if apart / tests.dispersion.phi_of_stable >= TOLD_APART:
        return None
    return Verdict.NOT_ENOUGH_DATA, "the versions cannot be told apart yet"


def held(seen: Seen, asked: Asked, incomparable: Answer | None) -> Answer | None:
    """Return what keeps a version that does no harm from being healthy; None: nothing does."""
    if not asked.in_force:
        return Verdict.NOT_ENOUGH_DATA, "the weight is not yet seen in force"
    return _stale(seen, asked) or incomparable or _too_few(asked)


def _stale(seen: Seen, asked: Asked) -> Answer | None:
    """Return a hold when the samples are old."""
    age = asked.now - (seen.newest or 0)
    if age <= silence_after(seen.spacing):
        return None
    return Verdict.UNAVAILABLE, f"the canary's newest sample is {age // 1000} s old"


def _too_few(asked: Asked) -> Answer | None:
    """Return a hold while the canary has not answered what the step asks for."""
    if asked.answered >= asked.min_requests:
        return None
    return Verdict.NOT_ENOUGH_DATA, (
        f"canary answered {asked.answered:,} of the {asked.min_requests:,} requests "
        "that this step asks for"
    )


def _incomparable(tests: RateTests, limits: Limits, asked: Asked) -> Answer | None:
    if limits.tolerance is None:
        return None
    if asked.in_probation:
        if limits.share is not None:
            return None
        return NOTHING_BESIDE
    if tests.stable.requests:
        return None
    return Verdict.NOT_ENOUGH_DATA, "no answer of stable is counted yet to compare with"


def describe(tests: RateTests, limits: Limits, asked: Asked) -> str:
    """Say the shares, the limits and the evidence, for people."""
    said = _shares(tests.canary, tests.stable, limits, tests.dispersion.phi_of_stable)
    return f"{said}; {said_odds(evidence_of(tests, asked))}"


def _shares(canary: Counts, stable: Counts, limits: Limits, phi: float | None = None) -> str:
    said = "canary answered nothing yet"
    if canary.requests:
        said = f"canary {percent(canary)}{_between(canary, phi)} of {canary.requests:,}"
    if stable.requests:
        said += f", stable {percent(stable)}{_between(stable, phi)} of {stable.requests:,}"
    if limits.share is not None:
        said += f"; limit {100 * limits.share:.4g} %"
    if limits.tolerance is not None:
        said += f"; tolerated {limits.tolerance.ratio:g} times stable"
        if limits.tolerance.slack:
            said += f" + {100 * limits.tolerance.slack:.4g} %"
    return said


def _between(counts: Counts, phi: float | None) -> str:
    """Say the interval that holds the true share; nothing without a dispersion."""
    if phi is None:
        return ""
    low, high = interval(counts, phi)
    return f" [{figure(100 * low)}, {figure(100 * high)}]"


def said_odds(evidence: Evidence) -> str:
    """Say how much speaks against the canary, as odds."""
    return f"evidence {odds(evidence.log_e)}, needs {odds(evidence.log_needed)}"


def odds(log_e: float) -> str:
    """Say an e-value as odds, such as "340 : 1"."""
    value = math.exp(min(max(log_e, math.log(0.01)), math.log(1e9)))
    if log_e >= math.log(1e9):
        return "over 1,000,000,000 : 1"
    return f"{value:.2g} : 1" if value < WHOLE_ODDS_FROM else f"{value:,.0f} : 1"


def percent(counts: Counts) -> str:
    """Return the share of bad requests with one decimal, or two digits when it is small."""
    return f"{figure(counts.percent)} %"


def figure(share: float) -> str:
    """Return percents with one decimal, or two digits when they are small."""
    return f"{share:.1f}" if share >= ONE_DECIMAL_FROM or share == 0 else f"{share:.2g}"
