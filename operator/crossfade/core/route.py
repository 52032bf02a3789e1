"""Rules about the route: what it should carry, and whether it does."""

from __future__ import annotations

from typing import Final

from crossfade.core.actions import SetWeights, Split
from crossfade.core.turn import Turn

ROUTE_RECHECK_SECONDS: Final = 1.0
"""How soon to look again at a route that is not in force yet."""

SETTLING_RECHECK_SECONDS: Final = 0.2
"""How soon to look again at one that is only settling."""


def ensure_route(turn: Turn, split: Split, *, cautious: bool = False) -> bool:
    """Make the route carry a split; tell whether it was seen to be in force.

    Args:
        turn: the turn.
        split: what the route should carry.
        cautious: do not write while blind. For writes that would give the version under
            judgement more than it has: the route may have been taken back right before a restart.
    """
    route = turn.seen.route
    if not route.writable:
        turn.set(message=f"the weights hold: {route.problem}")
        turn.look_in(ROUTE_RECHECK_SECONDS)
        return False
    if route.found and route.current and route.carried == split.weights:
        return _in_force(turn)
    if _must_remember_backend(turn):
        return False
    if cautious and turn.blind:
        turn.set(message="the weights hold until the metrics can be seen")
        turn.look_in(1)
        return False
    _announce_restoration(turn, split)
    turn.do(SetWeights(split))
    turn.look_in(ROUTE_RECHECK_SECONDS)
    return False


def give_all_to(turn: Turn, revision: str) -> None:
    """Write the route at once so that one version gets everything; no condition holds it."""
    split = Split(revision)
    if turn.seen.route.writable and turn.seen.route.carried != split.weights:
        turn.do(SetWeights(split))


def _in_force(turn: Turn) -> bool:
    turn.route_settled = turn.seen.route.in_force
    if not turn.route_settled:
        if turn.seen.route.problem:
            turn.set(message=f"the route is not in force: {turn.seen.route.problem}")
        settling = turn.seen.route.settling
        turn.look_in(SETTLING_RECHECK_SECONDS if settling else ROUTE_RECHECK_SECONDS)
    return turn.route_settled


def _must_remember_backend(turn: Turn) -> bool:
    """Write down what a joined route was like before it is touched."""
    seen = turn.seen
    if not seen.joins or seen.original_backend in (None, turn.status.joined_backend):
        return False
    turn.set(joined_backend=seen.original_backend)
    turn.write_status_first()
    return True


def _announce_restoration(turn: Turn, split: Split) -> None:
    """Say so when a route that was in force is found changed by somebody else."""
    was_settled = any(
        c.type == "RouteAccepted" and c.status == "True" for c in turn.seen.status.conditions
    )
    same_phase = turn.status.phase == turn.seen.status.phase
    if not was_settled or not same_phase:
        return
    if not turn.seen.route.found:
        turn.announce(
            "Warning",
            "RouteRestored",
            "the route was deleted by somebody else; it is created again",
        )
    elif turn.seen.route.current or turn.seen.joins:
        found = ", ".join(f"{r} {w} %" for r, w in sorted(turn.seen.route.weights.items()))
        wanted = ", ".join(f"{r} {w} %" for r, w in sorted(split.weights.items()))
        turn.announce(
            "Warning",
            "WeightRestored",
            f"somebody else changed the weights to {found or 'none'}; put back to {wanted}",
        )
