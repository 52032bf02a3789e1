"""Going back to an earlier version while the spec, which Git may own, asks for the present one.

The version that the spec asks for counts as rejected, with ``instead`` naming the revision that is
rolled out in its place. The operator reads the spec as if that revision's part stood in it
(``reconcile/observe.py``), so all that follows is a rollout like any other.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from crossfade.api.v1alpha1 import ModelDeploymentStatus, Phase, RejectedRevision, RevisionStatus
from crossfade.core.history import REMOVED, REPLACED
from crossfade.core.records import Record
from crossfade.core.rollback import reject_version, return_to_previous
from crossfade.core.turn import Turn

_LEFT_IN_PEACE: Final = frozenset({"", REPLACED, REMOVED})
"""Why a version may have ended that nobody took back."""


def undone(status: ModelDeploymentStatus, asked: str) -> RejectedRevision | None:
    """Return the undo that is in force while the spec asks for a revision; None: none is."""
    return next((it for it in status.rejected if it.revision == asked and it.instead), None)


def effective_revision(status: ModelDeploymentStatus, asked: str) -> str:
    """Return the revision that is wanted while the spec asks for another, or for this one."""
    undo_ = undone(status, asked)
    return undo_.instead or asked if undo_ is not None else asked


def choose(
    status: ModelDeploymentStatus, asked: str, records: Collection[Record], number: int | None
) -> RevisionStatus | str:
    """Return the version to go back to, or say for people why there is none.

    Args:
        status: where it is.
        asked: the revision that the spec itself asks for.
        records: what is kept of revisions.
        number: that of one of them; None for the version that was stable before.
    """
    previous = status.previous if status.phase is Phase.PROBATION else None
    stable = status.stable.revision if status.stable is not None else ""
    if number is None:
        return previous or _before(stable, asked, status, records)
    found = next((it for it in records if it.number == number), None)
    if found is None:
        return f"there is no revision {number}{_numbers_of(records)}"
    if found.revision == stable:
        return f"revision {number} (version {found.version}) serves already"
    if previous is not None and found.revision == previous.revision:
        return previous
    if found.revision == asked:
        return (
            f"revision {number} (version {found.version}) is what the spec asks for: "
            "the order retry rolls it out again"
        )
    return _version_of(found)


def _before(
    stable: str, asked: str, status: ModelDeploymentStatus, records: Collection[Record]
) -> RevisionStatus | str:
    rejected = {it.revision for it in status.rejected}
    served = [
        it
        for it in records
        if it.promoted_at is not None
        and it.reason in _LEFT_IN_PEACE
        and it.revision not in {stable, asked, *rejected}
    ]
    if not served:
        return f"there is no earlier version that was stable{_numbers_of(records)}"
    return _version_of(max(served, key=lambda it: it.number))


def undo(turn: Turn, chosen: RevisionStatus) -> None:
    """Have a version rolled out in place of the one that the spec asks for."""
    previous = turn.status.previous
    returns = previous is not None and chosen.revision == previous.revision
    words = f"a person ordered undo: version {chosen.version} is rolled out instead"
    if returns:
        return_to_previous(turn, "Undone", f"a person ordered undo: {chosen.version} serves again")
        if turn.status.phase is not Phase.ROLLING_BACK:
            return
    # What a person asks for by name is no longer held against it.
    turn.set(rejected=[it for it in turn.status.rejected if it.revision != chosen.revision])
    asked = turn.asked
    if chosen.revision == asked.revision:
        return
    reject_version(
        turn,
        RejectedRevision(
            revision=asked.revision,
            version=asked.version,
            reason="Undone",
            message=words,
            at=turn.now,
            instead=chosen.revision,
        ),
    )
    if not returns:
        turn.announce("Normal", "Undone", f"version {asked.version} is undone: {words}")


def _version_of(record: Record) -> RevisionStatus:
    return RevisionStatus(revision=record.revision, version=record.version)


def _numbers_of(records: Collection[Record]) -> str:
    known = ", ".join(
        f"{it.number} (version {it.version})" for it in sorted(records, key=lambda it: it.number)
    )
    return f"; kept are {known}" if known else "; none is kept yet"
