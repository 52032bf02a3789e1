"""What is remembered of each revision, beside ``status``: its ControllerRevision."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Record:
    """One revision and what became of it when it ran last."""

    number: int
    """Counts what ran; a revision that runs again gets the next one."""
    revision: str
    version: str
    started_at: datetime | None = None
    """When its rollout began; None: it is not known, as of the first version."""
    promoted_at: datetime | None = None
    """When it became stable; None: it did not."""
    ended_at: datetime | None = None
    """When it was replaced or taken back; None: it runs."""
    reason: str = ""
    """Why it ended, as one CamelCase word."""
    message: str = ""
    """Why it ended, as a sentence."""


@dataclass(frozen=True, slots=True)
class KeepRecord:
    """Write a record."""

    record: Record
    is_new: bool
    """There is none of this revision: what is served is written with it, and never again."""


@dataclass(frozen=True, slots=True)
class ForgetRecord:
    """Remove the record of a revision."""

    revision: str


RecordWrite = KeepRecord | ForgetRecord
