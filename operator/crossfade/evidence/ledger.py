"""Increments become evidence: laid over the same time, each taken in exactly once.

Prometheus scrapes every pod at its own moment. When a failure hits both versions, the canary's
part may be in while stable's is not, and naive pairing rolls healthy versions back (analysis.md,
"Spans must match"). So the canary counts only up to where stable has been scraped as well::

    canary   ──c1────────c2────────c3──▶      c3 waits: stable is known only up to s2
    stable   ─────s1─────────s2────────▶      horizon = s2, the least over stable's live pods

Time is cut into cells of a fixed grid. A canary's increment belongs to the cell of its end, a
stable one's to the cell of its *start*, so stable's part of a burst is never booked after the
canary's. All is a function of the samples alone, whatever looks they came in by: a cell that may
still get something is gone through again, from a checkpoint before it.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping
from typing import Final, Generic, Protocol, Self, TypeVar

import msgspec

from crossfade.evidence.counters import REQUESTS, CounterFold, Increment, Series, Side

CELL_MS: Final = 1_000
"""The grid of the evidence: the finest step at which a regression may begin."""

SPAN_CELLS: Final = 5
"""The versions are compared over whole blocks of so many cells."""

REACH_MS: Final = 30_000
"""A stable increment over a longer gap is booked this long before its end, not at its start."""

SEAL_AFTER_MS: Final = REACH_MS + 15_000
"""Older cells get nothing more: the reach, and a scrape that took its 10 s and some."""

CHECKPOINT_CELLS: Final = 15
"""A checkpoint is kept every so many cells, so that few are in memory and little is repeated."""

LONE_BLOCKS: Final = 12
"""A span in which one side counted nothing for a minute is given up: it cannot be compared."""

ANSWERS_KEPT_MS: Final = 900_000
"""How long single increments are kept to count from a weight that is only now seen in force."""

Tally = dict[str, int]
"""What was counted, by what it is."""


def add_to(tally: Tally, more: Mapping[str, int]) -> None:
    """Add ``more`` to a tally, in place."""
    if not tally:
        tally.update(more)
        return
    for what, amount in more.items():
        tally[what] = tally.get(what, 0) + amount


class Cell(msgspec.Struct, frozen=True, gc=False):
    """What was counted in one cell of the grid."""

    number: int
    canary: Tally
    canary_whole: Tally
    """What is compared with stable: without partial increments, whose time is shorter, and without
    those that began before stable's first one did."""
    stable: Tally


def alone(number: int, tally: Tally) -> Cell:
    """Return a cell that pairs a version with itself, so that its own spans come to an end."""
    return Cell(number, tally, tally, tally)


class Tests(Protocol):
    """What is made of the cells. A value: a copy goes on alone."""

    def learn(self, cell: Cell) -> None:
        """Take in a cell from before the evidence began: what stable usually does."""
        ...

    def take(self, cell: Cell) -> None:
        """Take in a cell; the cells come in the order of time, and none twice."""
        ...

    def copy(self) -> Self:
        """Return tests that can go on alone."""
        ...


class Pairing:
    """Lays both versions' counts over blocks of time in which both have some."""

    __slots__ = ("_begun", "_block", "canary", "stable")

    def __init__(self) -> None:
        self.canary: Tally = {}
        self.stable: Tally = {}
        self._begun = 0
        self._block = 0

    def copy(self) -> Pairing:
        """Return a pairing that can go on alone."""
        other = Pairing()
        other.canary, other.stable = dict(self.canary), dict(self.stable)
        other._begun, other._block = self._begun, self._block
        return other

    @property
    def lone(self) -> bool:
        """One side counted nothing in the span that is open."""
        return not self.canary or not self.stable

    def push(self, cell: Cell) -> tuple[Tally, Tally] | None:
        """Take in a cell; return the span, canary's and stable's, that it brings to an end."""
        block = cell.number // SPAN_CELLS
        ended = None
        if block != self._block:
            if not self.lone:
                ended = self.canary, self.stable
            if ended is not None or block - self._begun >= LONE_BLOCKS:
                self.canary, self.stable, self._begun = {}, {}, block
            self._block = block
        add_to(self.canary, cell.canary_whole)
        add_to(self.stable, cell.stable)
        return ended


class _OpenCell(msgspec.Struct, gc=False):
    """What was counted so far in a cell that may get more."""

    stable: Tally = msgspec.field(default_factory=dict)
    canary: list[Increment] = msgspec.field(default_factory=list)
    """One by one: how many of them count is up to how far stable is known."""

    def add(self, one: Increment) -> None:
        """Take in an increment."""
        if one.side is Side.STABLE:
            add_to(self.stable, one.tally)
        else:
            self.canary.append(one)

    def requests_after(self, at: int) -> int:
        """Return the canary's requests by samples after a time."""
        return sum(one.tally.get(REQUESTS, 0) for one in self.canary if one.end > at)

    def up_to(self, number: int, horizon: int | None, compared_from: int) -> Cell:
        """Return the cell with the canary's samples up to the horizon."""
        canary: Tally = {}
        canary_whole: Tally = {}
        for one in self.canary:
            if horizon is None or one.end <= horizon:
                add_to(canary, one.tally)
                if one.start >= compared_from and not one.partial:
                    add_to(canary_whole, one.tally)
        return Cell(number, canary, canary_whole, self.stable)


T = TypeVar("T", bound=Tests)


class _Checkpoint(msgspec.Struct, Generic[T], gc=False):
    """The tests with all cells before a number taken in."""

    before: int
    tests: T


class Seen(msgspec.Struct, frozen=True, gc=False):
    """How far the samples go."""

    newest: int | None
    """The canary's newest sample, in milliseconds; None: none since the evidence began."""
    spacing: int
    """The scrape interval in milliseconds; 0: not known."""
    stable_is_scraped: bool


class Ledger(Generic[T]):
    """The evidence on one metric of one rollout."""

    def __init__(self, tests: T, since: int, *, has_stable: bool, warmup: int = 0) -> None:
        """Start empty.

        Args:
            tests: what is made of the cells; fresh.
            since: nothing at or before this time speaks against the canary, in milliseconds.
            has_stable: there is a version to compare with, and the canary's pods are new.
            warmup: what a pod counts in its first so many milliseconds is left out.
        """
        self.fold = CounterFold(since, canary_is_new=has_stable, warmup=warmup)
        self._since = since
        self._first = (since + (warmup if has_stable else 0)) // CELL_MS
        self._compared_from = 0
        self._has_stable = has_stable
        self._checkpoints = [_Checkpoint(0, tests)]
        self._open: dict[int, _OpenCell] = {}
        self._answers, self._answered_at = array("q"), array("q")
        self._answered_since: int | None = None
        self._answered = 0

    def add(self, series: Iterable[Series]) -> None:
        """Take in samples. In any portions: what follows from them is the same."""
        sealed = self._checkpoints[0].before
        for one in self.fold.add(series):
            number = max(_cell_of(one), sealed)
            self._distrust(number)
            cell = self._open.get(number)
            if cell is None:
                cell = self._open[number] = _OpenCell()
            cell.add(one)
            if one.side is Side.STABLE and one.start < self._first * CELL_MS < one.end:
                self._compare_from(one.end)
            requests = one.tally.get(REQUESTS, 0)
            if one.side is Side.CANARY and requests:
                self._answered_at.append(one.end)
                self._answers.append(requests)
                if self._answered_since is not None and one.end > self._answered_since:
                    self._answered += requests
        self._advance(self._horizon())

    def standing(self) -> T:
        """Return the tests with all that the samples so far say."""
        latest = self._checkpoints[-1]
        tests = latest.tests.copy()
        self._take(tests, latest.before, None, self._horizon())
        return tests

    def seen(self) -> Seen:
        """Return how far the samples go."""
        newest = self.fold.newest(Side.CANARY)
        return Seen(
            newest=newest if newest is not None and newest > self._since else None,
            spacing=self.fold.spacing(),
            stable_is_scraped=self.fold.covered_by(Side.STABLE) is not None,
        )

    def count_from(self, since: int) -> None:
        """Count the canary's requests from a time on; of older answers only some are kept."""
        if since != self._answered_since:
            every = zip(self._answered_at, self._answers, strict=True)
            self._answered_since = since
            self._answered = sum(n for end, n in every if end > since)
        oldest = (self.fold.newest() or 0) - ANSWERS_KEPT_MS
        old = 0
        while old < len(self._answers) and self._answered_at[old] < oldest:
            old += 1
        if old:
            del self._answers[:old], self._answered_at[:old]

    def answered(self, since: int) -> int:
        """Return the canary's requests by samples after a time, as far as they are judged.

        The first of them may tell of requests from up to one scrape interval before it.
        """
        self.count_from(since)
        horizon = self._horizon()
        if horizon is None:
            return self._answered
        known = max(horizon, since)
        newest = self.fold.newest() or 0
        unknown = 0
        for number in range(known // CELL_MS, newest // CELL_MS + 1):
            if number in self._open:
                unknown += self._open[number].requests_after(known)
        return self._answered - unknown

    def _horizon(self) -> int | None:
        """Return up to when the canary counts; None: without bound."""
        return self.fold.covered_by(Side.STABLE) if self._has_stable else None

    def _compare_from(self, at: int) -> None:
        """Compare the canary with stable only from when stable's last old interval is over.

        That one holds stable's part of what hits both at the beginning, among much from before.
        """
        if at > self._compared_from:
            self._compared_from = at
            self._distrust(self._first)

    def _distrust(self, number: int) -> None:
        """Drop the checkpoints that a late increment comes before."""
        while len(self._checkpoints) > 1 and self._checkpoints[-1].before > number:
            self._checkpoints.pop()

    def _advance(self, horizon: int | None) -> None:
        """Set a checkpoint where, but for late scrapes, all is known, and seal what is old."""
        newest, covered = self.fold.newest(), self.fold.covered_by(Side.CANARY)
        if newest is None:
            return
        known = min(t for t in (covered, horizon, newest) if t is not None) // CELL_MS
        sealed = (newest - SEAL_AFTER_MS) // CELL_MS
        self._check(min(sealed, known), horizon)
        self._check(known, horizon)
        sealed_before = self._checkpoints[0].before
        while len(self._checkpoints) > 1 and self._checkpoints[1].before <= sealed:
            self._checkpoints.pop(0)
        before = self._checkpoints[0].before
        if before != sealed_before:
            for number in [k for k in self._open if k < before]:
                del self._open[number]

    def _check(self, number: int, horizon: int | None) -> None:
        """Set a checkpoint before a cell, if there is none as late."""
        latest = self._checkpoints[-1]
        if number <= latest.before:
            return
        kept = self._checkpoints[-2].before if len(self._checkpoints) > 1 else None
        if kept is not None and latest.before - kept < CHECKPOINT_CELLS:
            self._checkpoints.pop()
            tests = latest.tests
        else:
            tests = latest.tests.copy()
        self._take(tests, latest.before, number, horizon)
        self._checkpoints.append(_Checkpoint(number, tests))

    def _take(self, tests: T, start: int, end: int | None, horizon: int | None) -> None:
        latest = (self.fold.newest() or 0) // CELL_MS + 1 if end is None else end
        for number in sorted(self._open) if start == 0 else range(start, latest):
            if number not in self._open or number >= latest:
                continue
            cell = self._open[number].up_to(number, horizon, self._compared_from)
            if number < self._first and not cell.canary:
                tests.learn(cell)
            else:
                tests.take(cell)


def _cell_of(one: Increment) -> int:
    """Return the cell of an increment: (t0, t1] by t1 for the canary, [t0, t1) by t0 for stable."""
    if one.side is Side.CANARY:
        return (one.end - 1) // CELL_MS
    return max(one.start, one.end - REACH_MS) // CELL_MS
