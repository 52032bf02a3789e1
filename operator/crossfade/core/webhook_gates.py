"""Rules about gates: who outside must say yes before a weight.

The core asks by an action and goes on; the answer is in a later look. How often somebody is asked,
and for how long an answer counts, is the shell's (``reconcile/gates.py``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from crossfade.api.v1alpha1 import GateStatus, ModelDeploymentSpec, Phase
from crossfade.api.webhooks import Gate
from crossfade.core.actions import AskGates
from crossfade.core.turn import Turn

RECHECK_SECONDS: Final = 1.0
"""How soon to look again whether there is an answer."""


def closed_webhook(turn: Turn, weight: int) -> str | None:
    """Ask before the canary gets a weight; say what holds it, None when everybody says yes."""
    gates = gates_before(turn.spec, weight)
    if not gates:
        return None
    turn.do(AskGates(weight))
    turn.look_in(RECHECK_SECONDS)
    said = _said(turn, weight)
    _note(turn, gates, said)
    for gate in gates:
        if gate.name in said and not _is_open(gate, said[gate.name]):
            return _words(said[gate.name])
    silent = next((gate.name for gate in gates if gate.name not in said), None)
    return f"waits for the answer of gate {silent}" if silent is not None else None


def gates_before(spec: ModelDeploymentSpec, weight: int) -> tuple[Gate, ...]:
    """Return who must say yes before a weight."""
    return tuple(g for g in spec.rollout.gates or () if g.from_weight_percent <= weight)


def is_asked(turn: Turn, weight: int) -> bool:
    """Tell whether gates were asked for this weight: when they were, nothing else held it."""
    answers = turn.seen.gate_answers
    wanted = turn.canary.revision, weight
    return answers is not None and (answers.revision, answers.weight) == wanted


def keep_answers(turn: Turn) -> None:
    """What was said is about one weight of one rollout, by gates that the spec names."""
    if not turn.status.gates:
        return
    before, after = turn.seen.status.rollout, turn.status.rollout
    is_over = (
        before is None
        or after is None
        or before.target_weight != after.target_weight
        or turn.status.phase is Phase.ROLLING_BACK
    )
    named = {gate.name for gate in turn.spec.rollout.gates or ()}
    turn.set(gates=[] if is_over else [it for it in turn.status.gates if it.name in named])


def _said(turn: Turn, weight: int) -> Mapping[str, GateStatus]:
    answers = turn.seen.gate_answers
    if answers is None or not is_asked(turn, weight):
        return {}
    return {said.name: said for said in answers.said}


def _is_open(gate: Gate, said: GateStatus) -> bool:
    return said.answer == "allowed" or (said.answer == "failed" and gate.on_failure == "pass")


def _words(said: GateStatus) -> str:
    if said.answer == "failed":
        return f"gate {said.name} gives no answer: {said.message}"
    word = "yes" if said.answer == "allowed" else "no"
    return f"gate {said.name} says {word}" + (f": {said.message}" if said.message else "")


def _note(turn: Turn, gates: Sequence[Gate], said: Mapping[str, GateStatus]) -> None:
    """Keep what was said, and tell people once when a gate closes, opens or is passed over."""
    before = {known.name: known for known in turn.status.gates}
    for gate in gates:
        if gate.name in said:
            _tell(turn, gate, before.get(gate.name), said[gate.name])
    known = {**before, **said}
    turn.set(gates=[known[gate.name] for gate in gates if gate.name in known])


def _tell(turn: Turn, gate: Gate, before: GateStatus | None, now: GateStatus) -> None:
    was_closed = before is not None and not _is_open(gate, before)
    if not _is_open(gate, now):
        if not was_closed:
            turn.announce("Warning", "GateClosed", _words(now))
    elif now.answer == "failed":
        if before is None or before.answer != "failed":
            turn.announce(
                "Warning", "GateSkipped", f"{_words(now)}; it does not hold (onFailure: pass)"
            )
    elif was_closed:
        turn.announce("Normal", "GateOpened", _words(now))
