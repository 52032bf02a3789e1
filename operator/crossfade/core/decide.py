"""From what was seen to what is done: the whole behaviour of Crossfade, without a cluster."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Final

from crossfade.api.v1alpha1 import (
    Analysis,
    Condition,
    ModelDeploymentSpec,
    ModelDeploymentStatus,
    Phase,
)
from crossfade.core import commands, rollout, settled
from crossfade.core.actions import Announcement, RestoreRoute, SetFinalizer
from crossfade.core.compatibility import flag_narrowed_inputs
from crossfade.core.conditions import report
from crossfade.core.history import keep_history
from crossfade.core.housekeeping import keep_house
from crossfade.core.news import tell_news
from crossfade.core.notices import keep_notices
from crossfade.core.observation import Observation
from crossfade.core.phases import JUDGED
from crossfade.core.rollback import return_to_previous, take_back
from crossfade.core.turn import Decision, Turn
from crossfade.core.webhook_gates import keep_answers
from crossfade.evidence.verdicts import Verdict

Rule = Callable[[Turn], None]

RULES: Final[Mapping[Phase, Rule]] = {
    Phase.INITIALIZING: settled.initializing,
    Phase.HEALTHY: settled.healthy,
    Phase.PREPARING: rollout.preparing,
    Phase.PROGRESSING: rollout.weighted,
    Phase.PAUSED: rollout.weighted,
    Phase.PROMOTING: rollout.weighted,
    Phase.PROBATION: settled.probation,
    Phase.ROLLING_BACK: rollout.rolling_back,
    Phase.ROLLED_BACK: settled.healthy,
}
"""What each phase does when neither a person nor harm decides."""


def decide(seen: Observation, now: datetime) -> Decision:
    """Decide what to do.

    Raises:
        AssertionError: an illegal move between phases; a bug of ours, not the user's.
    """
    if seen.deleting:
        return _delete(seen)
    if seen.spec is None:
        return _hold_invalid(seen, now)
    turn = Turn(seen, seen.spec, now)
    if seen.joins and not seen.has_finalizer:
        turn.do(SetFinalizer(present=True))
    if not (commands.obey(turn) or _react_to_harm(turn)):
        RULES[turn.status.phase](turn)
    keep_house(turn)
    _schedule_look(turn)
    tell_news(turn)
    flag_narrowed_inputs(turn)
    keep_answers(turn)
    keep_notices(turn)
    report(turn)
    keep_history(turn)
    return turn.decision()


def _react_to_harm(turn: Turn) -> bool:
    """Harm decides in every phase in which somebody is judged."""
    phase = turn.status.phase
    harm = next((a for a in turn.seen.answers or () if a.verdict is Verdict.HARM), None)
    if harm is None or phase not in JUDGED:
        return False
    words = f"{harm.name}: {harm.message}"
    if phase is Phase.PROBATION:
        if turn.status.previous is None:
            return False
        return_to_previous(turn, "MetricHarm", words)
    else:
        take_back(turn, "MetricHarm", words)
    return True


def _schedule_look(turn: Turn) -> None:
    if turn.spec.analysis is not None and _is_judged(turn.status):
        turn.look_at(next_look_at(turn.spec.analysis, turn.now))


def next_look_at(analysis: Analysis, now: datetime) -> datetime:
    """Return the next instant of the grid of looks: the multiples of the interval since 1970.

    All rollouts look at the same instants, so that one query can serve them all.
    """
    interval = analysis.interval_seconds
    return now + timedelta(seconds=interval - now.timestamp() % interval)


def _is_judged(status: ModelDeploymentStatus) -> bool:
    if status.phase is Phase.PROBATION:
        return status.previous is not None
    return (
        status.phase in JUDGED
        and status.rollout is not None
        and status.rollout.weighted_at is not None
    )


def is_look_due(
    spec: ModelDeploymentSpec,
    status: ModelDeploymentStatus,
    last_look: datetime | None,
    now: datetime,
) -> bool:
    """Tell whether metrics should be asked for in this turn.

    They are, once in each interval, and when the dwell of a step has just ended.
    """
    if spec.analysis is None or not _is_judged(status):
        return False
    if last_look is None or now >= next_look_at(spec.analysis, last_look):
        return True
    rollout_ = status.rollout
    if rollout_ is None or rollout_.in_force_at is None:
        return False
    steps = spec.rollout.steps or ()
    if not 0 <= rollout_.step < len(steps):
        return False
    dwell_ends = rollout_.in_force_at + timedelta(seconds=steps[rollout_.step].min_seconds)
    return last_look < dwell_ends <= now


def _delete(seen: Observation) -> Decision:
    """Children are collected by their owner references; a route that is not ours is put back."""
    if not seen.has_finalizer:
        return Decision(seen.status)
    return Decision(seen.status, (RestoreRoute(), SetFinalizer(present=False)))


def _hold_invalid(seen: Observation, now: datetime) -> Decision:
    """Change nothing until the spec does: stable keeps serving, weights hold."""
    known = any(c.reason == "InvalidSpec" for c in seen.status.conditions)
    invalid = Condition(
        type="Ready",
        status="False",
        observed_generation=seen.generation,
        last_transition_time=now,
        reason="InvalidSpec",
        message=seen.spec_problem,
    )
    if known and seen.status.observed_generation == seen.generation:
        return Decision(seen.status)
    others = [c for c in seen.status.conditions if c.type != "Ready"]
    status = seen.status.model_copy(
        update={
            "observed_generation": seen.generation,
            "message": seen.spec_problem,
            "conditions": [invalid, *others],
        }
    )
    news = Announcement("Warning", "InvalidSpec", seen.spec_problem)
    return Decision(status, announcements=(news,))
