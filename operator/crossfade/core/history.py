"""Which records of revisions must be written: derived from the status and from those there are.

Nothing of a rollout depends on them, so they are no actions: the shell writes them when everything
else is done, and one that is refused holds nothing. What is recorded already is not written again.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from datetime import datetime
from typing import Final

from crossfade.api.v1alpha1 import RejectedRevision, RevisionStatus
from crossfade.core.housekeeping import roles_of
from crossfade.core.phases import WITH_CANARY
from crossfade.core.records import ForgetRecord, KeepRecord, Record
from crossfade.core.turn import Turn

KEPT_REVISIONS: Final = 10
"""How many are kept: the newest, and whatever is in use."""

REPLACED: Final = "Replaced"
REMOVED: Final = "Removed"
CANCELLED: Final = "Cancelled"
SUPERSEDED: Final = "Superseded"
"""Why a version ended that nobody rejected."""


def keep_history(turn: Turn) -> None:
    """Ask for the records that are missing, not up to date, or too many."""
    wanted = dict(turn.seen.history)
    status = turn.status
    if status.previous is not None:
        _ended_as_previous(turn, wanted, status.previous)
    if status.canary is not None and status.rollout is not None:
        started = status.rollout.started_at
        if status.phase in WITH_CANARY:
            _runs(turn, wanted, status.canary, started)
        else:
            _taken_back(turn, wanted, status.canary)
    if status.stable is not None:
        _serves(turn, wanted, status.stable)
    _close_what_nobody_names(turn, wanted)
    gone = _too_many(turn, wanted.values())
    for revision, record in sorted(wanted.items(), key=lambda it: it[1].number):
        known = turn.seen.history.get(revision)
        if revision in gone:
            if known is not None:
                turn.remember(ForgetRecord(revision))
        elif record != known:
            turn.remember(KeepRecord(record, is_new=known is None))


Records = dict[str, Record]


def _runs(
    turn: Turn, wanted: Records, it: RevisionStatus, started_at: datetime | None
) -> Record | None:
    """Return the open record of a version that runs, a new one where the last one has ended.

    None: there is none, and what was served is not known any more, as of a version that an older
    operator rolled out and that the spec does not ask for now.
    """
    known = wanted.get(it.revision)
    if known is not None and known.ended_at is None:
        return known
    if known is None and it.revision != turn.seen.revision:
        return None
    number = max((record.number for record in wanted.values()), default=0) + 1
    record = Record(number, it.revision, it.version, started_at=started_at)
    wanted[it.revision] = record
    return record


def _serves(turn: Turn, wanted: Records, stable: RevisionStatus) -> None:
    known = wanted.get(stable.revision)
    returned = known is not None and known.ended_at is not None
    before = turn.seen.status
    was_canary = before.canary is not None and before.canary.revision == stable.revision
    began = before.rollout.started_at if was_canary and before.rollout is not None else None
    record = _runs(turn, wanted, stable, turn.now if returned else began)
    if record is not None and record.promoted_at is None:
        promoted = turn.status.promoted_at or turn.now
        wanted[stable.revision] = replace(record, promoted_at=promoted)


def _ended_as_previous(turn: Turn, wanted: Records, previous: RevisionStatus) -> None:
    rejected = _rejection_of(turn, previous.revision)
    at = turn.status.promoted_at or turn.now
    stable = turn.stable.version
    words = rejected.message if rejected else f"version {stable} was promoted"
    _end(wanted, previous.revision, at, rejected.reason if rejected else REPLACED, words)


def _taken_back(turn: Turn, wanted: Records, canary: RevisionStatus) -> None:
    rejected = _rejection_of(turn, canary.revision)
    if rejected is not None:
        _end(wanted, canary.revision, rejected.at, rejected.reason, rejected.message)
    elif turn.seen.revision == turn.stable.revision:
        words = f"the spec asks for version {turn.stable.version} again"
        _end(wanted, canary.revision, turn.now, CANCELLED, words)
    else:
        words = f"the spec asks for version {turn.target.version} instead"
        _end(wanted, canary.revision, turn.now, SUPERSEDED, words)


def _close_what_nobody_names(turn: Turn, wanted: Records) -> None:
    """End what ran while nobody could write of it."""
    named = roles_of(turn.status)
    for revision in wanted.keys() - named.keys():
        rejected = _rejection_of(turn, revision)
        if rejected is not None:
            _end(wanted, revision, rejected.at, rejected.reason, rejected.message)
        else:
            _end(wanted, revision, turn.now, REMOVED, "it was found not to run any more")


def _end(wanted: Records, revision: str, at: datetime, reason: str, message: str) -> None:
    record = wanted.get(revision)
    if record is not None and record.ended_at is None:
        wanted[revision] = replace(record, ended_at=at, reason=reason, message=message)


def _rejection_of(turn: Turn, revision: str) -> RejectedRevision | None:
    return next((it for it in turn.status.rejected if it.revision == revision), None)


def _too_many(turn: Turn, records: Collection[Record]) -> set[str]:
    """Return the oldest of more than are kept, but for those that are in use."""
    used = {*roles_of(turn.status), *(it.instead for it in turn.status.rejected)}
    oldest = sorted(records, key=lambda it: it.number)[: max(len(records) - KEPT_REVISIONS, 0)]
    return {record.revision for record in oldest if record.revision not in used}
