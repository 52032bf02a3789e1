"""Totals by version over a growing record of requests, for the application's /metrics and /stats.

Standard library only, as load.py. Knows no sockets and no clock.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Final, TypedDict

from examples.demo.stats import Fate, Judgement, Record, Stats

RECENT_SECONDS: Final = 5.0
"""What `/stats` calls recent."""


class VersionReport(TypedDict):
    """What users got from one version. Times are seconds since the epoch; None: did not happen."""

    answers: int
    wrong: int
    recentAnswers: int
    recentWrong: int
    firstAnswerAt: float
    lastAnswerAt: float
    firstWrongAt: float | None
    medianMilliseconds: float
    p99Milliseconds: float


class Report(TypedDict):
    """What `/stats` says."""

    now: float
    sent: int
    underWay: int
    ended: bool
    """Whether all requests that were planned are sent."""
    lost: dict[str, int]
    """Requests without an answer of status 200, by kind."""
    firstLostAt: float | None
    versions: dict[str, VersionReport]


@dataclass(slots=True)
class _Version:
    right: int = 0
    wrong: int = 0
    first_answer_at: float = 0.0
    last_answer_at: float = 0.0
    first_wrong_at: float | None = None
    recent: deque[tuple[float, bool]] = field(default_factory=deque)


class Tally:
    """Follows a `Stats` that grows."""

    def __init__(self, stats: Stats) -> None:
        self._stats = stats
        self._seen = 0
        self._versions: dict[str, _Version] = {}
        self._lost: dict[str, int] = {}
        self._first_lost_at: float | None = None

    def metrics(self, model: str) -> str:
        """Render the counters in the Prometheus text format."""
        self._catch_up()
        lines = [
            "# HELP answers_total Answers by model version, as the application's users found them.",
            "# TYPE answers_total counter",
        ]
        for name, version in self._versions.items():
            # Both outcomes from a version's first answer on: a counter that appears later
            # appears with its first increase already in it.
            for outcome, count in (("right", version.right), ("wrong", version.wrong)):
                labels = f'model="{model}",version="{name}",outcome="{outcome}"'
                lines.append(f"answers_total{{{labels}}} {count}")
        lines += [
            "# HELP requests_lost_total Requests without an answer of status 200, by kind.",
            "# TYPE requests_lost_total counter",
        ]
        lines += [f'requests_lost_total{{kind="{it}"}} {self._lost[it]}' for it in self._lost]
        return "\n".join(lines) + "\n"

    def report(self, now: float, *, ended: bool) -> Report:
        """Report the totals, and what was recent at `now`, seconds since the epoch."""
        self._catch_up()
        return Report(
            now=now,
            sent=self._stats.scheduled,
            underWay=self._stats.scheduled - len(self._stats),
            ended=ended,
            lost=dict(self._lost),
            firstLostAt=self._first_lost_at,
            versions={name: self._report_version(name, now) for name in self._versions},
        )

    def _report_version(self, name: str, now: float) -> VersionReport:
        version = self._versions[name]
        while version.recent and version.recent[0][0] < now - RECENT_SECONDS:
            version.recent.popleft()
        median, p99 = self._stats.latency_seconds((0.5, 0.99), name)
        return VersionReport(
            answers=version.right + version.wrong,
            wrong=version.wrong,
            recentAnswers=len(version.recent),
            recentWrong=sum(is_wrong for _, is_wrong in version.recent),
            firstAnswerAt=version.first_answer_at,
            lastAnswerAt=version.last_answer_at,
            firstWrongAt=version.first_wrong_at,
            medianMilliseconds=1000 * median,
            p99Milliseconds=1000 * p99,
        )

    def _catch_up(self) -> None:
        for record in self._stats.tail(self._seen):
            self._add(record)
        self._seen = len(self._stats)

    def _add(self, record: Record) -> None:
        if record.fate is not Fate.ANSWERED or record.judgement is Judgement.UNKNOWN:
            # Of the statuses, only 200 is judged: a model's 500 is no answer to a user.
            answered = record.fate is Fate.ANSWERED
            kind = f"status_{record.status}" if answered else record.fate.name.lower()
            self._lost[kind] = self._lost.get(kind, 0) + 1
            self._first_lost_at = self._first_lost_at or record.ended_at
            return
        version = self._versions.setdefault(record.version, _Version())
        is_wrong = record.judgement is Judgement.WRONG
        version.first_answer_at = version.first_answer_at or record.ended_at
        version.last_answer_at = record.ended_at
        version.recent.append((record.ended_at, is_wrong))
        if is_wrong:
            version.wrong += 1
            version.first_wrong_at = version.first_wrong_at or record.ended_at
        else:
            version.right += 1
