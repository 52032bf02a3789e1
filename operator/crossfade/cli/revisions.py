"""The revisions of a ModelDeployment as commands read and show them: its ControllerRevisions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from crossfade.api.v1alpha1 import ModelDeploymentStatus
from crossfade.cli.kubectl import Body
from crossfade.cli.style import clean
from crossfade.core.actions import Role
from crossfade.core.housekeeping import roles_of
from crossfade.core.records import Record
from crossfade.workload.record import read_record

NONE = "-"
"""What is shown for what is not there."""


def read_revisions(bodies: Iterable[Body]) -> tuple[Record, ...]:
    """Read ControllerRevisions, the oldest first; what is none of the operator's is left out."""
    found = (read_record(dict(body)) for body in bodies)
    return tuple(sorted((it for it in found if it is not None), key=lambda it: it.number))


def as_json(record: Record) -> dict[str, Any]:
    """Return one as ``-o json`` shows it; what is not known is left out."""
    told = {
        "number": record.number,
        "version": record.version,
        "revision": record.revision,
        "startedAt": _stamp(record.started_at),
        "promotedAt": _stamp(record.promoted_at),
        "endedAt": _stamp(record.ended_at),
        "reason": record.reason or None,
        "message": record.message or None,
    }
    return {key: value for key, value in told.items() if value is not None}


def rows_of(records: Sequence[Record], status: ModelDeploymentStatus) -> list[tuple[str, ...]]:
    """Return the table, with its heading."""
    roles = roles_of(status)
    return [
        ("REVISION", "VERSION", "HASH", "STARTED", "PROMOTED", "ENDED", "WHY"),
        *(
            (
                str(it.number),
                clean(it.version),
                it.revision,
                _time(it.started_at),
                _time(it.promoted_at),
                _time(it.ended_at),
                _why(it, roles.get(it.revision)),
            )
            for it in records
        ),
    ]


def _why(record: Record, role: Role | None) -> str:
    if record.ended_at is not None:
        return clean(f"{record.reason}: {record.message}")
    return {Role.STABLE: "serves", Role.CANARY: "is rolled out"}.get(role, NONE) if role else NONE


def _time(at: datetime | None) -> str:
    return f"{at.astimezone():%Y-%m-%d %H:%M:%S}" if at is not None else NONE


def _stamp(at: datetime | None) -> str | None:
    return at.isoformat().replace("+00:00", "Z") if at is not None else None
