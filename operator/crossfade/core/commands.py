"""What people order by annotation. Every order works in every phase, or says why not.

An order is carried out exactly once, also when the operator is killed in between: its effect and
its name are written to the status together, then the annotation is removed, then the name.

``why_not`` is the one table of orders and phases: the operator obeys by it, and whoever gives an
order can ask it before.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from crossfade.api.v1alpha1 import ModelDeploymentSpec, ModelDeploymentStatus, Phase
from crossfade.core.actions import RemoveCommand
from crossfade.core.gates import EVERY_STEP, is_waved_through
from crossfade.core.phases import WEIGHTED, WITH_CANARY
from crossfade.core.rollback import return_to_previous, take_back
from crossfade.core.turn import Turn


class Order(StrEnum):
    """The values of the annotation."""

    PROMOTE = "promote"
    """Pass this step."""
    PROMOTE_FULL = "promoteFull"
    """Pass all steps at once: the next weight is everything."""
    ABORT = "abort"
    """Take the new version back."""
    RETRY = "retry"
    """Forget that the version in the spec was rejected."""


_ON_A_STEP: Final = WEIGHTED - {Phase.PROMOTING}

PHASES: Final[Mapping[Order, frozenset[Phase]]] = {
    Order.PROMOTE: _ON_A_STEP,
    Order.PROMOTE_FULL: _ON_A_STEP,
    Order.ABORT: WITH_CANARY | {Phase.PROBATION},
    Order.RETRY: frozenset(Phase),
}
"""The phases in which each order has something to act on."""

_NOTHING_TO: Final[Mapping[Order, str]] = {
    Order.PROMOTE: "no step to pass",
    Order.PROMOTE_FULL: "no step to pass",
    Order.ABORT: "nothing to take back",
    Order.RETRY: "nothing to try again",
}

HELD_BY_PAUSE: Final = WITH_CANARY - {Phase.PROMOTING}
"""The phases in which ``spec.rollout.paused`` keeps the present rollout from going on; in all
others it holds only the next one, before its first weight."""


def why_not(
    order: Order, spec: ModelDeploymentSpec, status: ModelDeploymentStatus, revision: str
) -> str | None:
    """Say why an order cannot be carried out, for people; None when it can.

    Args:
        order: what is ordered.
        spec: what is asked for.
        status: where it is.
        revision: the hash of what the spec asks to be served.
    """
    if status.phase not in PHASES[order]:
        return f"there is {_NOTHING_TO[order]} in phase {status.phase}"
    match order:
        case Order.PROMOTE | Order.PROMOTE_FULL:
            if spec.rollout.paused:
                return "spec.rollout.paused is true; set it to false"
        case Order.RETRY:
            if all(rejected.revision != revision for rejected in status.rejected):
                return "the version in the spec was not rejected"
        case Order.ABORT:
            pass
    return None


def obey(turn: Turn) -> bool:
    """Carry out the order, if there is one; tell whether it decided this turn."""
    words, consumed = turn.seen.command, turn.status.consumed_command
    if not words:
        if consumed:
            turn.set(consumed_command="")
        return False
    if consumed == words:
        turn.do(RemoveCommand())
        return False
    phase_before = turn.status.phase
    if words in list(Order):
        _carry_out(turn, Order(words))
    else:
        *most, last = Order
        _ignore(turn, f"it is none of {', '.join(most)} and {last}")
    turn.set(consumed_command=words)
    turn.look_in(0)
    return turn.status.phase != phase_before


def _carry_out(turn: Turn, order: Order) -> None:
    refusal = why_not(order, turn.spec, turn.status, turn.seen.revision)
    if refusal is not None:
        _ignore(turn, refusal)
        return
    match order:
        case Order.PROMOTE:
            _promote(turn)
        case Order.PROMOTE_FULL:
            turn.set_rollout(promoted_step=EVERY_STEP)
            turn.announce("Normal", "StepPassed", "a person passed all steps")
        case Order.ABORT:
            _abort(turn)
        case Order.RETRY:
            _retry(turn)


def _promote(turn: Turn) -> None:
    if not is_waved_through(turn):
        turn.set_rollout(promoted_step=turn.rollout.step)
    turn.announce("Normal", "StepPassed", f"a person passed step {turn.status.step}")


def _abort(turn: Turn) -> None:
    words = "a person ordered it"
    if turn.status.phase is Phase.PROBATION:
        return_to_previous(turn, "Aborted", words)
    else:
        take_back(turn, "Aborted", words)


def _retry(turn: Turn) -> None:
    turn.set(rejected=[r for r in turn.status.rejected if r.revision != turn.seen.revision])
    turn.announce("Normal", "Retried", f"version {turn.spec.model.version} may be rolled out again")


def _ignore(turn: Turn, why: str) -> None:
    turn.announce("Warning", "CommandIgnored", f'the order "{turn.seen.command}": {why}')
