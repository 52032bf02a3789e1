"""Counter samples become increments: what was added between two scrapes of one pod.

What a count adds is up to the series: requests, bad ones, those in a histogram's bucket (see
:class:`Series`).

The rule, for one series (``last`` is its newest sample so far)::

    sample at or before ``last``       nothing: it was seen already
    value >= last value                value - last value
    value <  last value                value: the counter was reset, and restarted from 0
    the first sample ever
      at or before ``since``           nothing: a baseline
      pod was scraped before           value: a label value that is new counts from 0
      pod seen for the first time
        of a version that is new       value: everything the pod ever did is of this rollout
        of any other version           nothing: a baseline, its past is unknown

``increase()`` of PromQL extrapolates and drops a series' first increment (prometheus#3746, #581),
so raw samples are folded here. The increments are a function of the samples alone, whatever looks
they came in by: a restarted operator that reads from some scrapes before ``since`` again finds
the same ones. Times are milliseconds since the epoch, as Prometheus stores them.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import islice
from operator import sub
from typing import Final

import msgspec

MIN_SILENCE_MS: Final = 15_000
"""A pod without a sample for this long, or for three scrapes, is not taken as scraped any more."""

SCRAPES_KEPT: Final = 9
"""Scrape times kept for each pod to tell the scrape interval: their median distance."""


REQUESTS: Final = "requests"
"""What is counted of errorRate and latency: all requests,"""

BAD: Final = "bad"
"""and of them those that failed or were slow."""


CATEGORY: Final = "="
"""What is counted of a distribution: each category, under its name with this before it, and all
observations as ``REQUESTS``."""


class Side(StrEnum):
    """Whose sample it is."""

    CANARY = "canary"
    STABLE = "stable"


class Series(msgspec.Struct, gc=False):
    """Raw samples of one counter of one pod, oldest first."""

    side: Side
    pod: str
    key: str
    """What it is: its name and labels, and what it is asked for. A series that is read twice, as
    one of all requests and as one of the bad ones, comes as two."""
    adds: Mapping[str, int]
    """What one count adds, by what is counted, such as ``{REQUESTS: 1, BAD: 1}``. A cumulative
    bucket adds to its own and takes from the next: ``{"0.5": 1, "1": -1}``."""
    samples: Sequence[tuple[int, float]]
    """Time in milliseconds, and value. What is not finite or negative is passed over."""


class Increment(msgspec.Struct, frozen=True, gc=False):
    """What one pod counted between two scrapes."""

    side: Side
    start: int
    """The pod's scrape before; for a pod's first scrape the same as ``end``."""
    end: int
    tally: dict[str, int]
    """What was added, by what is counted, of all series together."""
    partial: bool = False
    """Only a part of the time since the scrape before is in it: the evidence, or the pod, began
    within."""


class _Sample(msgspec.Struct, gc=False):
    """A series' newest sample."""

    at: int
    value: int


@dataclass(slots=True)
class _Pod:
    """When one pod was scraped, and what it had counted."""

    first: int
    counts_after: int
    """Up to when nothing of it counts."""
    last: int = -1
    """The newest scrape."""
    scrapes: deque[int] = field(default_factory=lambda: deque(maxlen=SCRAPES_KEPT))
    spacing: int = 0
    """The median distance of the latest scrapes; 0 before the second one."""
    newest: dict[str, _Sample] = field(default_factory=dict)
    """By series."""

    def scraped(self, times: list[int]) -> None:
        """Take in newer scrapes, oldest first."""
        self.last = times[-1]
        self.scrapes.extend(times)
        distances = sorted(map(sub, islice(self.scrapes, 1, None), self.scrapes))
        half = len(distances) // 2
        self.spacing = (distances[half] + distances[~half]) // 2 if distances else 0


class _Reach(msgspec.Struct, frozen=True, gc=False):
    """How far the samples go."""

    newest: dict[Side | None, int] = {}
    """The newest sample's time by side; None: of both."""
    covered: dict[Side, int] = {}
    """Up to when every pod of a side that is still scraped has been scraped."""
    spacing: int = 0


class CounterFold:
    """Folds samples into increments, each exactly once, in any portions that keep their order."""

    def __init__(self, since: int, *, canary_is_new: bool, warmup: int = 0) -> None:
        """Start empty.

        Args:
            since: of the canary nothing at or before this time counts, in milliseconds. What
                stable did before comes too: it tells what is usual.
            canary_is_new: the canary's pods had no traffic before ``since``. False in probation,
                where the judged version's pods are old.
            warmup: what a pod counts in so many milliseconds after its first sample, or a new
                canary's after ``since``, is left out.
        """
        self._since = since
        self._canary_is_new = canary_is_new
        self._warmup = warmup
        self._pods: dict[tuple[Side, str], _Pod] = {}
        self._reach = _Reach()

    def known(self, owner: tuple[Side, str], key: str) -> int:
        """Return the time of a series' newest sample that was taken in; -1: none was."""
        pod = self._pods.get(owner)
        newest = pod.newest.get(key) if pod is not None else None
        return newest.at if newest is not None else -1

    def add(self, series: Iterable[Series]) -> list[Increment]:
        """Take in samples and return what they add, in no particular order."""
        by_pod: dict[tuple[Side, str], list[Series]] = {}
        for one in series:
            by_pod.setdefault((one.side, one.pod), []).append(one)
        increments: list[Increment] = []
        for identity, of_pod in by_pod.items():
            self._add_pod(identity, of_pod, increments)
        self._reach = self._measure()
        return increments

    def _add_pod(
        self, identity: tuple[Side, str], of_pod: list[Series], out: list[Increment]
    ) -> None:
        times = sorted({at for one in of_pod for at, _ in one.samples})
        if not times:
            return
        pod = self._pods.get(identity)
        if pod is None:
            counts_after = self._counts_after(identity[0], times[0])
            pod = self._pods[identity] = _Pod(times[0], counts_after)
        new = [at for at in times if at > pod.last]
        tallies: dict[tuple[int, int, bool], dict[str, int]] = {}
        for one in of_pod:
            self._add_series(one, pod, new, tallies)
        for (start, end, partial), tally in tallies.items():
            out.append(Increment(identity[0], start, end, tally, partial))
        if new:
            pod.scraped(new)

    def _add_series(
        self,
        one: Series,
        pod: _Pod,
        new: list[int],
        tallies: dict[tuple[int, int, bool], dict[str, int]],
    ) -> None:
        """Add what a series counted to the tallies, by start, end and whether it is partial.

        ``new`` are the pod's scrapes after those that are known.
        """
        newest = pod.newest.get(one.key)
        counts_after = pod.counts_after
        for at, raw in one.samples:
            if not 0 <= raw < math.inf or (newest is not None and at <= newest.at):
                continue
            value = round(raw)
            if newest is None:
                timeline = [*pod.scrapes, *new]
                start = timeline[max(bisect_left(timeline, at) - 1, 0)]
                delta = value if self._counts_from_zero(one.side, at, pod.first) else 0
                newest = pod.newest[one.key] = _Sample(at, value)
            else:
                start = newest.at
                delta = value - newest.value if value >= newest.value else value
                newest.at, newest.value = at, value
            if delta and at > counts_after and (start >= counts_after or not self._warmup):
                partial = start < counts_after or start == at
                span = (start, at, partial)
                tally = tallies.get(span)
                if tally is None:
                    tally = tallies[span] = {}
                for what, each in one.adds.items():
                    tally[what] = tally.get(what, 0) + each * delta

    def _counts_from_zero(self, side: Side, at: int, pod_first: int) -> bool:
        return at > pod_first or (side is Side.CANARY and self._canary_is_new)

    def _counts_after(self, side: Side, pod_first: int) -> int:
        """Return up to when nothing of a pod counts: its warm-up, and of the canary ``since``.

        A canary's pods are ready, and scraped, before they get their first request.
        """
        if side is Side.STABLE:
            return pod_first + self._warmup
        if not self._warmup:
            return self._since  # a pod that is first scraped after it counts from its first sample
        begun = max(pod_first, self._since) if self._canary_is_new else pod_first
        return max(begun + self._warmup, self._since)

    def newest(self, side: Side | None = None) -> int | None:
        """Return the newest sample's time, of one side or of both."""
        return self._reach.newest.get(side)

    def spacing(self) -> int:
        """Return the longest scrape interval of the pods that are still scraped; 0: not known."""
        return self._reach.spacing

    def covered_by(self, side: Side) -> int | None:
        """Return up to when every pod of a side that is still scraped has been scraped."""
        return self._reach.covered.get(side)

    def resume_at(self) -> int | None:
        """Return the time from which samples must be asked for so that none is missed."""
        covered = min(self._reach.covered.values(), default=None)
        return None if covered is None else covered - 2 * max(self.spacing(), 1000)

    def _measure(self) -> _Reach:
        """Measure how far the samples go.

        A pod is still scraped when its silence is short against the newest sample, not against a
        clock: all samples alike may be old (Prometheus was away), and nothing is dropped for it.
        By its own interval, so that a pod which is gone does not come back when another misses
        scrapes. One with a single sample is taken to be scraped as seldom as the others.
        """
        if not self._pods:
            return _Reach()
        newest: dict[Side | None, int] = {}
        covered: dict[Side, int] = {}
        spacing = longest = 0
        for (side, _), pod in self._pods.items():
            newest[side] = max(newest.get(side, 0), pod.last)
            longest = max(longest, pod.spacing)
        latest = newest[None] = max(newest.values())
        for (side, _), pod in self._pods.items():
            if latest - pod.last <= silence_after(pod.spacing or longest):
                covered[side] = min(covered.get(side, pod.last), pod.last)
                spacing = max(spacing, pod.spacing)
        return _Reach(newest, covered, spacing)


def silence_after(spacing: int) -> int:
    """Return after how long without a sample a pod counts as not scraped, in milliseconds."""
    return max(3 * spacing, MIN_SILENCE_MS)
