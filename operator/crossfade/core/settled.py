"""Rules of the phases without a canary: the first version, the healthy state, probation."""

from __future__ import annotations

from datetime import timedelta

from crossfade.api.v1alpha1 import Phase
from crossfade.core import rollout
from crossfade.core.actions import DeleteRevision, EnsureWorkload, Role, Scale, Split
from crossfade.core.drain import is_drained, why_it_lingers
from crossfade.core.drills import is_first_drill_over
from crossfade.core.rollback import return_to_previous, standing_rejection, why_rejected
from crossfade.core.route import ensure_route
from crossfade.core.turn import Turn


def initializing(turn: Turn) -> None:
    """Bring the first version up, then route to it. Nothing serves yet, so nothing is judged."""
    target, full = turn.target, turn.seen.needed.get(100, 1)
    workload = turn.workload(target.revision)
    for other in turn.seen.workloads:
        if other != target.revision:
            turn.do(DeleteRevision(other))
    if workload is None:
        turn.do(EnsureWorkload(target.revision, Role.STABLE, full))
        turn.set(message=f"version {target.version} is being created")
        return
    if workload.replicas != full:
        turn.do(Scale(target.revision, full))
    if workload.ready == 0:
        trouble = f": {workload.trouble}" if workload.trouble else ""
        turn.set(message=f"0 of {full} pods of the first version are ready{trouble}")
        return
    if not is_first_drill_over(turn) or not ensure_route(turn, Split(target.revision)):
        return
    turn.move(Phase.HEALTHY)
    turn.set(stable=target, message="")
    turn.announce("Normal", "Serving", f"version {target.version} serves")


def healthy(turn: Turn) -> None:
    """Stable serves; roll out what the spec asks for if it is something else."""
    ensure_route(turn, Split(turn.stable.revision))
    rejected = standing_rejection(turn)
    wanted = turn.seen.revision
    if wanted != turn.stable.revision and all(r.revision != wanted for r in turn.status.rejected):
        if turn.route_settled:
            rollout.start(turn)
    elif rejected is not None:
        turn.move(Phase.ROLLED_BACK)
        turn.set(message=turn.seen.undo_problem or why_rejected(rejected))
    else:
        turn.move(Phase.HEALTHY)
        if turn.route_settled:
            turn.set(message="")


def probation(turn: Turn) -> None:
    """Keep the old version ready for a while, then remove it."""
    previous = turn.status.previous
    held = bool(turn.seen.undo_problem)
    if previous is not None and turn.seen.revision == previous.revision and not held:
        return_to_previous(
            turn, "Cancelled", "the spec asks for the previous version again", reject=False
        )
        return
    if not ensure_route(turn, Split(turn.stable.revision), cautious=True):
        return
    started = turn.status.promoted_at or turn.now
    ends = started + timedelta(seconds=turn.spec.rollout.probation_seconds)
    if turn.now < ends and (held or turn.seen.revision == turn.stable.revision):
        turn.look_at(ends)
        return
    if previous is not None:
        if not is_drained(turn):
            if lingers := why_it_lingers(turn, previous.version):
                turn.set(message=f"version {turn.stable.version} is promoted; {lingers}")
            return
        turn.do(DeleteRevision(previous.revision))
        turn.announce("Normal", "Removed", f"version {previous.version} is removed")
    turn.move(Phase.HEALTHY)
    turn.set(
        previous=None, promoted_at=None, drained_since=None, metrics=[], verdict="", message=""
    )
    turn.look_in(0)
