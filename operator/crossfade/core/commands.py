"""What people order by annotation. Every order works in every phase, or says why not.

An order is carried out exactly once, also when the operator is killed in between: its effect and
its name are written to the status together, then the annotation is removed, then the name.
"""

from __future__ import annotations

from crossfade.api.v1alpha1 import Phase
from crossfade.core.actions import RemoveCommand
from crossfade.core.phases import WEIGHTED, WITH_CANARY
from crossfade.core.rollback import return_to_previous, take_back
from crossfade.core.turn import Turn


def obey(turn: Turn) -> bool:
    """Carry out the order, if there is one; tell whether it decided this turn."""
    order, consumed = turn.seen.command, turn.status.consumed_command
    if not order:
        if consumed:
            turn.set(consumed_command="")
        return False
    if consumed == order:
        turn.do(RemoveCommand())
        return False
    phase_before = turn.status.phase
    match order:
        case "promote":
            _promote(turn)
        case "abort":
            _abort(turn)
        case "retry":
            _retry(turn)
        case _:
            _ignore(turn, "it is none of promote, abort and retry")
    turn.set(consumed_command=order)
    turn.look_in(0)
    return turn.status.phase != phase_before


def _promote(turn: Turn) -> None:
    phase = turn.status.phase
    if phase not in WEIGHTED or phase is Phase.PROMOTING:
        _ignore(turn, f"there is no step to pass in phase {phase}")
    elif turn.spec.rollout.paused:
        _ignore(turn, "spec.rollout.paused is true; set it to false")
    else:
        turn.set_rollout(promoted_step=turn.rollout.step)
        turn.announce("Normal", "StepPassed", f"a person passed step {turn.status.step}")


def _abort(turn: Turn) -> None:
    phase, words = turn.status.phase, "a person ordered it"
    if phase in WITH_CANARY:
        take_back(turn, "Aborted", words)
    elif phase is Phase.PROBATION:
        return_to_previous(turn, "Aborted", words)
    else:
        _ignore(turn, f"there is nothing to take back in phase {phase}")


def _retry(turn: Turn) -> None:
    rejected = turn.status.rejected
    kept = [r for r in rejected if r.revision != turn.seen.revision]
    if len(kept) == len(rejected):
        _ignore(turn, "the version in the spec was not rejected")
        return
    turn.set(rejected=kept)
    turn.announce("Normal", "Retried", f"version {turn.spec.model.version} may be rolled out again")


def _ignore(turn: Turn, why: str) -> None:
    turn.announce("Warning", "CommandIgnored", f'the order "{turn.seen.command}": {why}')
