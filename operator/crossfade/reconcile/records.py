"""Writes the history, after everything else, and never in its way.

A right that is missing, as after an upgrade without the new Role, is told once; then it is tried
again now and then.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterator
from datetime import datetime, timedelta
from typing import Final

from crossfade.core.actions import Announcement, Apply, Delete, Write
from crossfade.core.records import ForgetRecord, KeepRecord, RecordWrite
from crossfade.core.turn import Decision
from crossfade.errors import CrossfadeError
from crossfade.kube.resources import CONTROLLER_REVISION, child_ref
from crossfade.logs import about
from crossfade.names import NamespacedName
from crossfade.reconcile.observe import View
from crossfade.workload.record import patch_record, render_record

PAUSE: Final = timedelta(minutes=5)
"""Between two tries of what was refused."""

_log = logging.getLogger(__name__)


class Records:
    """Keeps the ControllerRevisions of ModelDeployments."""

    def __init__(
        self, write: Callable[[Write], Awaitable[None]], clock: Callable[[], datetime]
    ) -> None:
        self._write = write
        self._clock = clock
        self._again_at: dict[NamespacedName, datetime] = {}
        self._told: set[NamespacedName] = set()

    async def keep(
        self, key: NamespacedName, view: View, decision: Decision
    ) -> tuple[datetime | None, Announcement | None]:
        """Write what is to be written; return when to try again, and what people are to know."""
        now = self._clock()
        again_at = self._again_at.get(key, now)
        if not decision.records:
            self._again_at.pop(key, None)
            return None, None
        if now < again_at:
            return again_at, None
        try:
            for record in decision.records:
                for write in _writes_of(record, view):
                    await self._write(write)
        except CrossfadeError as error:
            return self._refused(key, error, now)
        self._again_at.pop(key, None)
        self._told.discard(key)
        return None, None

    def forget(self, key: NamespacedName) -> None:
        """Drop a ModelDeployment that is gone."""
        self._again_at.pop(key, None)
        self._told.discard(key)

    def _refused(
        self, key: NamespacedName, error: CrossfadeError, now: datetime
    ) -> tuple[datetime, Announcement | None]:
        again_at = self._again_at[key] = now + PAUSE
        _log.warning("the history is not written", extra=about(key, error=error))
        if key in self._told:
            return again_at, None
        self._told.add(key)
        words = (
            f"the history of revisions is not written, so undo may not find this version: {error}"
        )
        return again_at, Announcement("Warning", "HistoryNotWritten", words)


def _writes_of(record: RecordWrite, view: View) -> Iterator[Write]:
    owner, spec = view.owner, view.seen.spec
    match record:
        case KeepRecord(kept, is_new):
            if not is_new:
                yield patch_record(owner, kept)
            elif spec is not None:
                yield Apply(render_record(owner, kept, spec))
        case ForgetRecord(revision):
            yield Delete(child_ref(CONTROLLER_REVISION, owner.namespace, owner.name, revision))
