"""What keeps a step from being passed, as an ordered list of gates.

A gate answers None when it is open, or says for people what is waited for. The list reads as the
specification; the first gate that is closed is the one that is shown.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Final

from crossfade.core.actions import Scale
from crossfade.core.turn import Turn
from crossfade.core.webhook_gates import closed_webhook, is_asked
from crossfade.evidence.verdicts import Verdict

Gate = Callable[[Turn], str | None]

EVERY_STEP: Final = 50
"""``status.rollout.promotedStep`` when a person passed all steps at once: no step has this index,
since the API allows 50 steps."""

HUMAN_PAUSE: Final = "waits for a person: set the annotation crossfade.dev/command=promote"


def closed_gate(turn: Turn) -> tuple[Gate, str] | None:
    """Return the first closed gate and what it waits for; None when the step is passed."""
    for gate in GATES:
        waits_for = gate(turn)
        if waits_for is not None:
            return gate, waits_for
    return None


def spec_paused(turn: Turn) -> str | None:
    """spec.rollout.paused holds everything."""
    return "spec.rollout.paused is true" if turn.spec.rollout.paused else None


def deadline(turn: Turn) -> str | None:
    """After a deadline with ``hold`` only a person goes on."""
    if not turn.rollout.deadline_passed or is_waved_through(turn):
        return None
    return f"deadlineSeconds is over; {HUMAN_PAUSE}, or =abort"


def capacity(turn: Turn) -> str | None:
    """The canary's pods must be able to carry the weight that they have."""
    return _pods_for(turn, turn.rollout.target_weight, "canary pods are ready")


def evidence(turn: Turn) -> str | None:
    """Every metric must be healthy; a person may overrule what is missing, never harm."""
    if turn.spec.analysis is None or is_waved_through(turn):
        return None
    answers = turn.seen.answers
    if answers is None and is_asked(turn, next_weight(turn)):
        answers = turn.seen.current_answers  # looks are seldom; this turn may be about an answer
    if answers is None:
        return "waits for the next look at the metrics"
    for verdict in (Verdict.UNAVAILABLE, Verdict.NOT_ENOUGH_DATA):
        for answer in answers:
            if answer.verdict is verdict:
                return f"{answer.name}: {answer.message}"
    return None


def dwell(turn: Turn) -> str | None:
    """The shortest time at the weight."""
    seconds = 0 if is_waved_through(turn) else turn.steps[turn.rollout.step].min_seconds
    return _until(turn, seconds, "at this weight for {left} s more")


def timed_pause(turn: Turn) -> str | None:
    """A pause that ends by itself."""
    pause = turn.steps[turn.rollout.step].pause
    if pause is None or pause.seconds is None or is_waved_through(turn):
        return None
    return _until(turn, pause.seconds, "pauses for {left} s more")


def human_pause(turn: Turn) -> str | None:
    """A pause that a person ends."""
    pause = turn.steps[turn.rollout.step].pause
    if pause is None or pause.seconds is not None or is_waved_through(turn):
        return None
    return HUMAN_PAUSE


def next_capacity(turn: Turn) -> str | None:
    """Capacity before route: the pods for the next weight must be ready before it is written."""
    return _pods_for(turn, next_weight(turn), "canary pods for the next weight are ready")


def webhooks(turn: Turn) -> str | None:
    """Who must say yes is asked when nothing else holds, so that a yes is not stale."""
    return None if is_waved_through(turn) else closed_webhook(turn, next_weight(turn))


def _pods_for(turn: Turn, weight: int, words: str) -> str | None:
    """Ask for the pods that a weight needs, and wait for them."""
    needed = turn.seen.needed.get(weight, 1)
    workload = turn.workload(turn.canary.revision)
    if workload is None:
        return "the canary's Deployment is gone"
    if workload.replicas < needed:
        turn.do(Scale(turn.canary.revision, needed))
    return f"{workload.ready} of {needed} {words}" if workload.ready < needed else None


GATES: Final[tuple[Gate, ...]] = (
    spec_paused,
    deadline,
    capacity,
    evidence,
    dwell,
    timed_pause,
    human_pause,
    next_capacity,
    webhooks,
)


def next_step(turn: Turn) -> int:
    """Return the index of the step after this one; the number of steps after the last."""
    if turn.rollout.promoted_step == EVERY_STEP:
        return len(turn.steps)
    return turn.rollout.step + 1


def next_weight(turn: Turn) -> int:
    """Return the weight after this step, in percent; 100 after the last."""
    following = next_step(turn)
    return turn.steps[following].weight_percent if following < len(turn.steps) else 100


def is_waved_through(turn: Turn) -> bool:
    """A person ended this step: what is missing does not hold it, only harm counts."""
    return turn.rollout.promoted_step in (turn.rollout.step, EVERY_STEP)


def _until(turn: Turn, seconds: int, words: str) -> str | None:
    since = turn.rollout.in_force_at or turn.now
    ends = since + timedelta(seconds=seconds)
    if turn.now >= ends:
        return None
    turn.look_at(ends)
    return words.format(left=int((ends - turn.now).total_seconds()) + 1)
