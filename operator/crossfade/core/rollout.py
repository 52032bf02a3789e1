"""Rules of the phases that have a canary: preparing, giving weight, promoting, taking back."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from crossfade.api.v1alpha1 import Phase, RolloutStatus
from crossfade.core import gates
from crossfade.core.actions import DeleteRevision, EnsureWorkload, Role, Scale, Split
from crossfade.core.drain import is_drained, why_it_lingers
from crossfade.core.drills import is_drilled
from crossfade.core.rollback import standing_rejection, take_back, why_rejected
from crossfade.core.route import ensure_route, give_all_to
from crossfade.core.turn import Turn, split_of
from crossfade.core.webhook_gates import closed_webhook

LOSSES_TOLERATED: Final = 2
"""How often a canary may lose all its ready pods while it has weight. One more is no accident."""


def start(turn: Turn) -> None:
    """Begin the rollout of what the spec asks for."""
    canary = turn.target
    turn.move(Phase.PREPARING)
    turn.set(
        canary=canary,
        rollout=RolloutStatus(started_at=turn.now, not_ready_since=turn.now),
        weight=0,
        drained_since=None,
        metrics=[],
        fallback=[],
        verdict="",
        message=f"version {canary.version} is getting ready",
    )
    turn.announce(
        "Normal",
        "RolloutStarted",
        f"version {canary.version} is rolled out beside {turn.stable.version}",
    )
    turn.write_status_first()


def preparing(turn: Turn) -> None:
    """Bring the canary's pods up; nothing is routed to them."""
    if _is_superseded(turn):
        return
    needed = turn.seen.needed.get(turn.steps[0].weight_percent, 1)
    workload = turn.workload(turn.canary.revision)
    in_force = ensure_route(turn, Split(turn.stable.revision))
    if workload is not None and workload.ready >= needed:
        if is_drilled(turn) and in_force:
            _first_weight(turn)
        return
    if _has_missed_readiness(turn, needed):
        return
    if workload is None:
        turn.do(EnsureWorkload(turn.canary.revision, Role.CANARY, needed))
    elif workload.replicas < needed:
        turn.do(Scale(turn.canary.revision, needed))


def _first_weight(turn: Turn) -> None:
    if turn.spec.rollout.paused:
        turn.set(message="ready; holds because spec.rollout.paused is true")
        return
    waits_for = closed_webhook(turn, turn.steps[0].weight_percent)
    if waits_for is not None:
        turn.set(message=f"ready; {waits_for}")
        _is_past_deadline(turn)
        return
    rollout = turn.rollout
    turn.set_rollout(
        not_ready_since=None,
        ready_at=rollout.ready_at or turn.now,
        weighted_at=rollout.weighted_at or turn.now,
    )
    _give(turn, step=0)


def _has_missed_readiness(turn: Turn, needed: int) -> bool:
    """Say what the canary's pods wait for; give up after the deadline."""
    workload = turn.workload(turn.canary.revision)
    ready, trouble = (workload.ready, workload.trouble) if workload is not None else (0, "")
    since = turn.rollout.not_ready_since or turn.now
    deadline = since + timedelta(seconds=turn.spec.rollout.ready_deadline_seconds)
    words = f"{ready} of {needed} canary pods are ready" + (f": {trouble}" if trouble else "")
    if turn.now >= deadline:
        take_back(
            turn,
            "NotReady",
            f"{words}, after {turn.spec.rollout.ready_deadline_seconds} s",
        )
        return True
    if turn.rollout.not_ready_since is None:
        turn.set_rollout(not_ready_since=turn.now)
    turn.set(message=words)
    turn.look_at(deadline)
    return False


def _give(turn: Turn, step: int) -> None:
    """Write down the weight of a step; the route follows in the next turn."""
    turn.move(Phase.PROGRESSING)
    turn.set_rollout(
        step=step,
        target_weight=turn.steps[step].weight_percent,
        in_force_at=None,
        promoted_step=None,
        overruled=gates.is_waved_through(turn),
    )
    turn.set(step=f"{step + 1}/{len(turn.steps)}", message="the weight is being set")
    turn.route_settled = False
    turn.write_status_first()


def weighted(turn: Turn) -> None:
    """Progressing, Paused and Promoting: the canary has weight, or is about to."""
    if _is_superseded(turn) or _has_lost_its_pods(turn) or _is_past_deadline(turn):
        return
    on_ladder = _is_on_ladder(turn)
    rollout = turn.rollout
    split = split_of(turn.stable.revision, turn.canary.revision, rollout.target_weight)
    if not ensure_route(turn, split, cautious=not rollout.overruled):
        return
    if rollout.in_force_at is None:
        _in_force(turn)
    if turn.status.phase is Phase.PROMOTING:
        _promoted(turn)
        return
    if on_ladder:
        _pass_or_hold(turn)


def _in_force(turn: Turn) -> None:
    weight = turn.rollout.target_weight
    version = turn.canary.version
    turn.set(weight=weight, message=f"version {version} gets {weight} % of the traffic")
    turn.set_rollout(in_force_at=turn.now)
    if turn.status.phase is not Phase.PROMOTING:
        turn.announce(
            "Normal",
            "WeightInForce",
            f"version {version} gets {weight} % of the traffic",
        )


def _pass_or_hold(turn: Turn) -> None:
    closed = gates.closed_gate(turn)
    if closed is None:
        _resume_clock(turn)
        _advance(turn)
        return
    gate, waits_for = closed
    if gate is gates.evidence and turn.seen.answers is None:
        gates.dwell(turn)  # asks for a look right when the step may be passed
        return
    waits_for_person = gate in (gates.spec_paused, gates.human_pause)
    pauses = waits_for_person or gate is gates.timed_pause
    if waits_for_person and turn.rollout.paused_since is None:
        turn.set_rollout(paused_since=turn.now)
        turn.announce("Normal", "Paused", waits_for)
    elif not waits_for_person:
        _resume_clock(turn)
    turn.move(Phase.PAUSED if pauses else Phase.PROGRESSING)
    turn.set(message=waits_for)


def _resume_clock(turn: Turn) -> None:
    paused_since = turn.rollout.paused_since
    if paused_since is not None:
        waited = int((turn.now - paused_since).total_seconds())
        turn.set_rollout(paused_since=None, paused_seconds=turn.rollout.paused_seconds + waited)


def _advance(turn: Turn) -> None:
    following = gates.next_step(turn)
    if following < len(turn.steps):
        _give(turn, following)
        return
    turn.move(Phase.PROMOTING)
    turn.set_rollout(target_weight=100, in_force_at=None, overruled=gates.is_waved_through(turn))
    turn.set(message="all steps are passed; the canary is getting everything")
    turn.route_settled = False
    turn.write_status_first()


def _promoted(turn: Turn) -> None:
    """Rename the roles. No pod restarts and no model is loaded again."""
    old, new = turn.stable, turn.canary
    turn.move(Phase.PROBATION)
    turn.set(
        stable=new,
        previous=old,
        canary=None,
        rollout=None,
        weight=0,
        step="",
        promoted_at=turn.now,
        drained_since=turn.now,
        message=f"version {new.version} is promoted; {old.version} is kept ready",
    )
    turn.announce(
        "Normal", "Promoted", f"version {new.version} is stable; {old.version} is kept ready"
    )


def _is_superseded(turn: Turn) -> bool:
    """React to a spec that asks for something else than the canary."""
    if turn.seen.revision == turn.canary.revision:
        return False
    asked = turn.target
    if asked.revision == turn.stable.revision:
        words = turn.seen.undo_problem or "the spec asks for the stable version again"
        take_back(turn, "Cancelled", words, reject=False)
    else:
        words = f"the spec asks for version {asked.version} (revision {asked.revision}) instead"
        take_back(turn, "Superseded", turn.seen.undo_problem or words, reject=False)
    return True


def _has_lost_its_pods(turn: Turn) -> bool:
    """No weight without a ready pod: users would get errors until the evidence is in."""
    if turn.ready(turn.canary.revision) > 0:
        return False
    workload = turn.workload(turn.canary.revision)
    trouble = workload.trouble if workload is not None else "its Deployment is gone"
    words = "no canary pod is ready any more" + (f": {trouble}" if trouble else "")
    if turn.rollout.lost_capacity >= LOSSES_TOLERATED:
        take_back(turn, "Unstable", f"{words}; this happened {LOSSES_TOLERATED} times before")
        return True
    give_all_to(turn, turn.stable.revision)
    turn.move(Phase.PREPARING)
    turn.set_rollout(
        step=-1,
        target_weight=0,
        in_force_at=None,
        promoted_step=None,
        not_ready_since=turn.now,
        lost_capacity=turn.rollout.lost_capacity + 1,
    )
    turn.set(weight=0, step="", message=words)
    turn.announce("Warning", "CanaryNotReady", f"{words}; its weight is 0 until it is ready")
    turn.look_in(0)
    return True


def _is_past_deadline(turn: Turn) -> bool:
    """Hold or take back after the deadline; both of its fields may be edited at any time."""
    rollout, rules = turn.rollout, turn.spec.rollout
    if rollout.paused_since or turn.status.phase is Phase.PROMOTING:
        return False
    ends = deadline_of(turn)
    if turn.now < ends:
        turn.set_rollout(deadline_passed=False)
        turn.look_at(ends)
        return False
    words, waited_for = f"not promoted after {rules.deadline_seconds} s", turn.status.message
    if rules.on_deadline == "rollBack":
        take_back(turn, "DeadlineExceeded", f"{words}: {waited_for}")
        return True
    if not rollout.deadline_passed:
        turn.set_rollout(deadline_passed=True)
        turn.announce("Warning", "DeadlineExceeded", f"{words}, the weight holds: {waited_for}")
    return False


def deadline_of(turn: Turn) -> datetime:
    """Return when deadlineSeconds is over; waiting for a person does not count."""
    allowed = turn.spec.rollout.deadline_seconds + turn.rollout.paused_seconds
    return turn.rollout.started_at + timedelta(seconds=allowed)


def _is_on_ladder(turn: Turn) -> bool:
    """Find the step again after the ladder was edited; the weight itself stays as it is.

    The canary stands on the last step that is not above its weight; below all of them it is on
    the first, whose weight it then gets, once the gates before it say yes.
    """
    rollout = turn.rollout
    if turn.status.phase is Phase.PROMOTING or turn.spec.rollout.paused:
        return True
    weights = [step.weight_percent for step in turn.steps]
    passed = sum(1 for weight in weights if weight <= rollout.target_weight)
    if passed == 0:
        waits_for = closed_webhook(turn, weights[0])
        if waits_for is None:
            _give(turn, step=0)
        else:
            turn.set(message=waits_for)
        return waits_for is None
    label = f"{passed}/{len(weights)}"
    if rollout.step != passed - 1 or turn.status.step != label:
        turn.set_rollout(step=passed - 1)
        turn.set(step=label)
    return True


def rolling_back(turn: Turn) -> None:
    """Keep the canary at zero, wait until it receives nothing, then remove it."""
    in_force = ensure_route(turn, Split(turn.stable.revision))
    unreachable = not turn.seen.route.writable
    if not in_force and not unreachable:
        return
    if turn.status.weight:
        turn.set(weight=0)
    leaving = turn.canary
    if turn.rollout.weighted_at is not None and not is_drained(turn):
        if lingers := why_it_lingers(turn, leaving.version):
            turn.set(message=lingers)
        return
    turn.do(DeleteRevision(leaving.revision))
    rejected = standing_rejection(turn)
    turn.move(Phase.ROLLED_BACK if rejected else Phase.HEALTHY)
    turn.set(
        canary=None,
        rollout=None,
        fallback=[],
        drained_since=None,
        step="",
        message=(turn.seen.undo_problem or why_rejected(rejected)) if rejected else "",
    )
    turn.announce(
        "Normal", "Removed", f"version {leaving.version} received nothing more and is removed"
    )
    turn.look_in(0)
