"""What people are told once about the metrics, though no version is taken back for it.

The status remembers what was told: an alert and a verdict stay in ``status.metrics`` while they
last, and ``status.rollout.warnedSlow`` for the rollout.
"""

from __future__ import annotations

from typing import Final

from crossfade.core.phases import WITH_CANARY
from crossfade.core.turn import Turn
from crossfade.evidence.verdicts import Forecast, Verdict

MINUTE: Final = 60
HOUR: Final = 3600

SINGLE_FROM: Final = 2
"""From so many minutes or hours on, these are the unit; a time of "1 h" would be too coarse."""


def tell_news(turn: Turn) -> None:
    """Announce what the answers of this look bring that was not told yet."""
    _tell_of_blindness(turn)
    _tell_of_alerts(turn)
    _tell_of_slowness(turn)


def _tell_of_blindness(turn: Turn) -> None:
    """Say once that the metrics cannot be seen, however long that lasts."""
    was_blind = any(m.verdict == Verdict.UNAVAILABLE for m in turn.seen.status.metrics)
    for answer in turn.seen.answers or ():
        if answer.verdict is Verdict.UNAVAILABLE and not was_blind:
            turn.announce(
                "Warning",
                "MetricsUnavailable",
                f"{answer.name}: {answer.message}; the weight holds",
            )
            return


def _tell_of_alerts(turn: Turn) -> None:
    """Say of each metric when an alert appears, and not while it stays."""
    alerted = {m.name for m in turn.seen.status.metrics if m.alert}
    for answer in turn.seen.answers or ():
        if answer.alert and answer.name not in alerted:
            turn.announce("Warning", "InputsMoved", f"{answer.name}: {answer.alert}")


def _tell_of_slowness(turn: Turn) -> None:
    """Say once in a rollout that a doubling of a rate would be seen too late.

    Too late is after more than the whole of ``deadlineSeconds``, at the weight of the ladder where
    it takes the shortest time. What is left of the deadline is not asked: it shrinks for other
    reasons than the traffic, and the evidence so far counts. Of several metrics the slowest is
    named.
    """
    if turn.status.phase not in WITH_CANARY or turn.rollout.in_force_at is None:
        return
    if turn.rollout.warned_slow:
        return
    allowed = turn.spec.rollout.deadline_seconds
    late = [
        (seconds, answer.name, forecast)
        for answer in turn.seen.answers or ()
        for seconds, forecast in _fastest(answer.forecast)
        if seconds > allowed
    ]
    if not late:
        return
    seconds, name, forecast = max(late, key=lambda it: it[0])
    turn.set_rollout(warned_slow=True)
    turn.announce(
        "Warning",
        "SlowDetection",
        f"{name}: a doubling of the rate would be seen only after {lasting(seconds)} at a weight of"
        f" {forecast.weight_percent} % ({forecast.requests:,} canary requests); deadlineSeconds is"
        f" {lasting(allowed)}: raise weights, deadlineSeconds or falseRollbackRate",
    )


def _fastest(forecasts: tuple[Forecast, ...]) -> list[tuple[int, Forecast]]:
    """Return the forecast of the shortest time, with it; nothing where there is no traffic."""
    timed = [(f.seconds, f) for f in forecasts if f.seconds is not None]
    return [min(timed, key=lambda it: it[0])] if timed else []


def lasting(seconds: int) -> str:
    """Say a time in whole seconds, minutes or hours, rounded up."""
    if seconds >= SINGLE_FROM * HOUR:
        return f"{-(-seconds // HOUR):,} h"
    if seconds >= SINGLE_FROM * MINUTE:
        return f"{-(-seconds // MINUTE)} min"
    return f"{seconds} s"
