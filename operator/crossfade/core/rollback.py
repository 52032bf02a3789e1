"""Taking a version back: the route first, at once, from every phase."""

from __future__ import annotations

from typing import Final

from crossfade.api.v1alpha1 import Phase, RejectedRevision, RevisionStatus, RolloutStatus
from crossfade.core.route import give_all_to
from crossfade.core.turn import Turn

REMEMBERED_REJECTIONS: Final = 10
"""How many rejected revisions the status keeps; the oldest are forgotten."""


def take_back(turn: Turn, reason: str, message: str, *, reject: bool = True) -> None:
    """Roll the canary back to stable. Needs neither metrics nor a healthy canary."""
    give_all_to(turn, turn.stable.revision)
    turn.set_rollout(target_weight=0, in_force_at=None)
    _leave(turn, turn.canary, reason, message, reject=reject)


def return_to_previous(turn: Turn, reason: str, message: str, *, reject: bool = True) -> None:
    """Give everything back to the version before, which probation kept ready."""
    previous, failed = turn.status.previous, turn.stable
    if previous is None or turn.ready(previous.revision) == 0:
        turn.set(message=f"{message}; the previous version is not ready, so nothing moves")
        turn.look_in(1)
        return
    give_all_to(turn, previous.revision)
    turn.set(
        stable=previous,
        canary=failed,
        previous=None,
        promoted_at=None,
        rollout=RolloutStatus(started_at=turn.now, weighted_at=turn.now),
    )
    _leave(turn, failed, reason, message, reject=reject)


def standing_rejection(turn: Turn) -> RejectedRevision | None:
    """Return why what the spec asks for is not rolled out: it was taken back, or undone.

    While an undo is in force and its version was taken back, that one's rejection is the answer.
    """
    known = {it.revision: it for it in turn.status.rejected}
    return known.get(turn.seen.revision) or known.get(turn.asked.revision)


def why_rejected(rejected: RejectedRevision) -> str:
    """Say why a version is not rolled out, and what to do about it."""
    return (
        f"version {rejected.version} was taken back ({rejected.reason}): {rejected.message}; "
        "change the spec, or set the annotation crossfade.dev/command=retry"
    )


def _leave(turn: Turn, leaving: RevisionStatus, reason: str, message: str, *, reject: bool) -> None:
    turn.move(Phase.ROLLING_BACK)
    turn.set(message=message, verdict="", drained_since=None)
    turn.look_in(0)
    if reject:
        reject_version(
            turn,
            RejectedRevision(
                revision=leaving.revision,
                version=leaving.version,
                reason=reason,
                message=message,
                at=turn.now,
            ),
        )
    kind = "Warning" if reject else "Normal"
    stays = turn.stable.version
    turn.announce(
        kind,  # type: ignore[arg-type]  # a conditional of two literals
        "RollingBack",
        f"version {leaving.version} is taken back, {stays} serves ({reason}): {message}",
    )


def reject_version(turn: Turn, entry: RejectedRevision) -> None:
    """Remember a rejection. That of what the spec asks for now is never forgotten."""
    entries = [entry, *(it for it in turn.status.rejected if it.revision != entry.revision)]
    asked = turn.asked.revision
    kept = [it for i, it in enumerate(entries) if i < REMEMBERED_REJECTIONS or it.revision == asked]
    turn.set(rejected=kept)
