"""What people order by annotation. Every order works in every phase, or says why not.

An order is carried out exactly once, also when the operator is killed in between: its effect and
its name are written to the status together, then the annotation is removed, then the name.

``why_not`` is the one table of orders and phases: the operator obeys by it, and whoever gives an
order can ask it before.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from enum import StrEnum
from typing import Final

from crossfade.api.v1alpha1 import (
    ModelDeploymentSpec,
    ModelDeploymentStatus,
    Phase,
    RejectedRevision,
)
from crossfade.core.actions import RemoveCommand
from crossfade.core.gates import EVERY_STEP, is_waved_through
from crossfade.core.phases import WEIGHTED, WITH_CANARY
from crossfade.core.records import Record
from crossfade.core.rollback import return_to_previous, take_back
from crossfade.core.turn import Turn
from crossfade.core.undo import choose, effective_revision, undo, undone


class Order(StrEnum):
    """The values of the annotation."""

    PROMOTE = "promote"
    """Pass this step."""
    PROMOTE_FULL = "promoteFull"
    """Pass all steps at once: the next weight is everything."""
    ABORT = "abort"
    """Take the new version back."""
    RETRY = "retry"
    """Forget that the version in the spec was rejected, or undone."""
    UNDO = "undo"
    """Go back to an earlier version; ``undo=7`` to that of revision 7."""


_ON_A_STEP: Final = WEIGHTED - {Phase.PROMOTING}

PHASES: Final[Mapping[Order, frozenset[Phase]]] = {
    Order.PROMOTE: _ON_A_STEP,
    Order.PROMOTE_FULL: _ON_A_STEP,
    Order.ABORT: WITH_CANARY | {Phase.PROBATION},
    Order.RETRY: frozenset(Phase),
    Order.UNDO: frozenset({Phase.HEALTHY, Phase.ROLLED_BACK, Phase.PROBATION}),
}
"""The phases in which each order has something to act on."""

_NOTHING_TO: Final[Mapping[Order, str]] = {
    Order.PROMOTE: "no step to pass",
    Order.PROMOTE_FULL: "no step to pass",
    Order.ABORT: "nothing to take back",
    Order.RETRY: "nothing to try again",
    Order.UNDO: "nothing to undo",
}

HELD_BY_PAUSE: Final = WITH_CANARY - {Phase.PROMOTING}
"""The phases in which ``spec.rollout.paused`` keeps the present rollout from going on; in all
others it holds only the next one, before its first weight."""


_NUMBERED: Final = re.compile(f"{Order.UNDO}=([1-9][0-9]{{0,8}})")


def read_order(words: str) -> tuple[Order, int | None] | None:
    """Read the annotation: an order, and which revision it is about; None: it is no order."""
    numbered = _NUMBERED.fullmatch(words)
    if numbered is not None:
        return Order.UNDO, int(numbered[1])
    return (Order(words), None) if words in list(Order) else None


def why_not(
    order: Order,
    spec: ModelDeploymentSpec,
    status: ModelDeploymentStatus,
    revision: str,
    records: Collection[Record] = (),
    number: int | None = None,
) -> str | None:
    """Say why an order cannot be carried out, for people; None when it can.

    Args:
        order: what is ordered.
        spec: what is asked for.
        status: where it is.
        revision: the hash of what the spec itself asks to be served.
        records: what is kept of revisions; only undo asks for it.
        number: which of them undo goes back to; None for the one before.
    """
    if status.phase not in PHASES[order]:
        abort = order is Order.UNDO and status.phase in PHASES[Order.ABORT]
        hint = "; to take the new version back, order abort" if abort else ""
        return f"there is {_NOTHING_TO[order]} in phase {status.phase}{hint}"
    match order:
        case Order.PROMOTE | Order.PROMOTE_FULL:
            if spec.rollout.paused:
                return "spec.rollout.paused is true; set it to false"
        case Order.RETRY:
            if _forgivable(status, revision) is None:
                return "the version in the spec was not rejected"
        case Order.UNDO:
            chosen = choose(status, revision, records, number)
            return chosen if isinstance(chosen, str) else None
        case Order.ABORT:
            pass
    return None


def _forgivable(status: ModelDeploymentStatus, asked: str) -> RejectedRevision | None:
    """Return what retry forgets: that what is wanted was rejected, or else that it was undone."""
    known = {it.revision: it for it in status.rejected}
    return known.get(effective_revision(status, asked)) or known.get(asked)


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
    order = read_order(words)
    if order is not None:
        _carry_out(turn, *order)
    else:
        _ignore(turn, f"it is none of {', '.join(Order)} and {Order.UNDO}=NUMBER")
    turn.set(consumed_command=words)
    turn.look_in(0)
    return turn.status.phase != phase_before or _reads_otherwise(turn)


def _reads_otherwise(turn: Turn) -> bool:
    """Tell whether the next turn sees another spec: an undo begins, or ends."""
    asked = turn.asked.revision
    return undone(turn.status, asked) != undone(turn.seen.status, asked)


def _carry_out(turn: Turn, order: Order, number: int | None) -> None:
    asked, records = turn.asked.revision, turn.seen.history.values()
    refusal = why_not(order, turn.spec, turn.status, asked, records, number)
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
        case Order.UNDO:
            chosen = choose(turn.status, asked, records, number)
            if not isinstance(chosen, str):
                undo(turn, chosen)


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
    forgiven = _forgivable(turn.status, turn.asked.revision)
    if forgiven is not None:
        turn.set(rejected=[it for it in turn.status.rejected if it != forgiven])
        turn.announce("Normal", "Retried", f"version {forgiven.version} may be rolled out again")


def _ignore(turn: Turn, why: str) -> None:
    turn.announce("Warning", "CommandIgnored", f'the order "{turn.seen.command}": {why}')
