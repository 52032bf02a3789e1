"""Limits on any PromQL: evaluated on a grid of times, so that every look counts exactly once.

The points are one second before the boundaries of the interval: what a scrape that is under way
will add to the last second is then known, and a restarted operator that evaluates all points
since the rollout began gets the same values, and so the same number of failures.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Final

from crossfade.api.v1alpha1 import Query
from crossfade.errors import InvalidSpecError
from crossfade.evidence.rules import Answer
from crossfade.evidence.verdicts import Verdict
from crossfade.metrics.analyst import Subject
from crossfade.metrics.prometheus import RawSeries
from crossfade.metrics.selectors import escape_regex
from crossfade.names import pod_prefix

SETTLE_SECONDS: Final = 1
"""How long before a boundary of the interval the query is evaluated."""

MAX_POINTS: Final = 10_000
"""Points of one query; Prometheus refuses more than 11,000 (web/api/v1/api.go)."""

_PLACEHOLDER: Final = re.compile(r"\{\{\s*([^{}]*?)\s*\}\}")
_UNSAFE: Final = re.compile(r"[\"'`\\\n\r]")


def fill(promql: str, subject: Subject) -> str:
    """Fill in the placeholders.

    Raises:
        InvalidSpecError: a placeholder is not known, names a stable version that there is none
            of, or stands for a text that could end the string it stands in.
    """
    key, stable = subject.key, subject.stable
    values: dict[str, str | None] = {
        "namespace": key.namespace,
        "name": key.name,
        "model": subject.model,
        "version": subject.canary.version,
        "stableVersion": stable.version if stable else None,
        "pods": _pods(key.name, subject.canary.revision),
        "stablePods": _pods(key.name, stable.revision) if stable else None,
    }

    def value(found: re.Match[str]) -> str:
        name = found[1]
        if name not in values:
            known = ", ".join(f"{{{{{one}}}}}" for one in values)
            raise InvalidSpecError(f"{{{{{name}}}}} is not known; write one of {known}")
        text = values[name]
        if text is None:
            raise InvalidSpecError(f"{{{{{name}}}}} is not there: stable has no traffic")
        if _UNSAFE.search(text):
            raise InvalidSpecError(f"{{{{{name}}}}} has a quote or a backslash in it")
        return text

    return _PLACEHOLDER.sub(value, promql)


def _pods(name: str, revision: str) -> str:
    return f"{escape_regex(pod_prefix(name, revision))}.*"


@dataclass(frozen=True, slots=True)
class Grid:
    """The times at which a query is evaluated, in whole seconds."""

    interval: int

    def first(self, since: float) -> int:
        """Return the first point at or after a time."""
        return math.ceil((since + SETTLE_SECONDS) / self.interval) * self.interval - SETTLE_SECONDS

    def last(self, now: float) -> int:
        """Return the last point of which everything is known."""
        return math.floor(now / self.interval) * self.interval - SETTLE_SECONDS


class QueryFold:
    """What a query said at every point so far."""

    def __init__(self, query: Query, interval: int, since: float) -> None:
        """Start before the first point at or after ``since`` (seconds)."""
        self._query = query
        self._grid = Grid(interval)
        self._first = self._next = self._grid.first(since)
        self._failures = 0
        self._newest: list[float] = []

    def due(self, now: float) -> tuple[int, int] | None:
        """Return the first and the last point of the next portion; None: all is known."""
        last = min(self._grid.last(now), self._next + (MAX_POINTS - 1) * self._grid.interval)
        return (self._next, last) if last >= self._next else None

    def add(self, last: int, answer: list[RawSeries]) -> None:
        """Take in the answer for the points up to ``last``."""
        if last < self._next:
            return
        at: dict[int, list[float]] = {}
        for series in answer:
            for time, text in series.values:
                value = float(text)
                if math.isfinite(value) and self._next <= time <= last:
                    at.setdefault(round(time), []).append(value)
        self._failures += sum(len(v) == 1 and self._breaks(v[0]) is not None for v in at.values())
        self._newest = at.get(last, [])
        self._next = last + self._grid.interval

    def judge(self, in_force_at: float | None) -> Answer:
        """Give the answer. Points without one value count neither way."""
        limit = self._query.failure_limit
        newest = self._newest[0] if len(self._newest) == 1 else None
        broken = self._breaks(newest) if newest is not None else None
        if self._failures > limit:
            said = broken or f"it was {self._range()} not every time"
            return Verdict.HARM, f"{said}; failures: {self._failures}, tolerated: {limit}"
        if len(self._newest) > 1:
            return Verdict.UNAVAILABLE, (
                f"the query gave {len(self._newest)} series where one was expected; "
                "aggregate it, for example with sum()"
            )
        if newest is None:
            return Verdict.NOT_ENOUGH_DATA, "the query gave no value"
        if broken is not None:
            return (
                Verdict.NOT_ENOUGH_DATA,
                f"{broken}; failure {self._failures} of {limit} tolerated",
            )
        if in_force_at is None or self._next - self._grid.interval < in_force_at:
            return Verdict.NOT_ENOUGH_DATA, "no value yet from when the weight was in force"
        return Verdict.HEALTHY, f"{newest:.6g} is {self._range()}"

    def _breaks(self, value: float) -> str | None:
        low, high = self._query.min, self._query.max
        if low is not None and value < low:
            return f"{value:.6g} is below the minimum {low:g}"
        if high is not None and value > high:
            return f"{value:.6g} is above the maximum {high:g}"
        return None

    def _range(self) -> str:
        low, high = self._query.min, self._query.max
        if low is not None and high is not None:
            return f"within {low:g} and {high:g}"
        return f"at least {low:g}" if low is not None else f"at most {high:g}"
