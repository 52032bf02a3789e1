"""Increments become evidence: paired over matching spans, each taken in exactly once.

Prometheus scrapes every pod at its own moment. When a failure hits both versions, the canary's
part may be in while stable's is not, and naive pairing rolls healthy versions back (analysis.md,
"Spans must match"). So the canary counts only up to where stable has been scraped as well::

    canary   ──c1────────c2────────c3──▶      c3 waits: stable is known only up to s2
    stable   ─────s1─────────s2────────▶      horizon = s2, the least over stable's live pods

Time is cut into cells of a fixed grid. A canary's increment belongs to the cell of its end, a
stable one's to the cell of its *start*, so stable's part of a burst is never booked after the
canary's. All is a function of the samples alone: what is old enough that no increment can fall
into it any more is taken in for good (sealed), the rest is gone through anew at every look.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from crossfade.evidence.counters import CounterFold, Increment, Series, Side
from crossfade.evidence.eprocesses import NOTHING, LimitTest, RatioTest, tempered
from crossfade.evidence.verdicts import Counts

CELL_MS: Final = 1_000
"""The grid of the evidence: the finest step at which a regression may begin."""

SPAN_CELLS: Final = 5
"""The canary is compared with stable over whole blocks of so many cells."""

REACH_MS: Final = 30_000
"""A stable increment over a longer gap is booked this long before its end, not at its start."""

SEAL_AFTER_MS: Final = REACH_MS + 15_000
"""Older cells get nothing more: the reach, and a scrape that took its 10 s and some."""

LONE_BLOCKS: Final = 12
"""A span in which one side had no request for a minute is given up: it cannot be compared."""

ANSWERS_KEPT_MS: Final = 900_000
"""How long single increments are kept to count from a weight that is only now seen in force."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What harm is. At least one is given."""

    share: float | None = None
    """The highest tolerated share of bad requests, above 0 and below 1."""
    ratio: float | None = None
    """How many times the stable version's share is tolerated."""


@dataclass(frozen=True, slots=True)
class _Cell:
    """What was counted in one cell of the grid."""

    number: int
    canary: Counts
    canary_whole: Counts
    """Without partial increments, whose time is shorter than that of stable's."""
    stable: Counts


@dataclass(slots=True)
class _OpenCell:
    """What was counted so far in a cell that may get more: the canary's by the time of its end."""

    stable_requests: int = 0
    stable_bad: int = 0
    canary: dict[int, list[int]] = field(default_factory=dict)

    def add(self, one: Increment) -> None:
        """Take in an increment."""
        if one.side is Side.STABLE:
            self.stable_requests += one.requests
            self.stable_bad += one.bad
            return
        sums = self.canary.setdefault(one.end, [0, 0, 0, 0])
        for place in (0,) if one.partial else (0, 2):
            sums[place] += one.requests
            sums[place + 1] += one.bad

    def requests_after(self, at: int) -> int:
        """Return the canary's requests by samples after a time."""
        return sum(sums[0] for end, sums in self.canary.items() if end > at)

    def up_to(self, number: int, horizon: int | None) -> _Cell:
        """Return the cell with the canary's samples up to the horizon."""
        known = [s for end, s in self.canary.items() if horizon is None or end <= horizon]
        requests, bad, whole, whole_bad = map(sum, zip(*known, strict=True)) if known else (0,) * 4
        return _Cell(
            number,
            Counts(requests, bad),
            Counts(whole, whole_bad),
            Counts(self.stable_requests, self.stable_bad),
        )


@dataclass(slots=True)
class _Tests:
    """The state of the tests, and what was counted, up to some cell."""

    limit: LimitTest | None
    ratio: RatioTest | None
    canary: Counts = NOTHING
    stable: Counts = NOTHING
    waiting: Counts = NOTHING
    """Stable's counts in cells where the canary had no request yet."""
    span_canary: Counts = NOTHING
    span_stable: Counts = NOTHING
    span_begun: int = 0
    block: int = 0

    def copy(self) -> _Tests:
        return _Tests(
            self.limit.copy() if self.limit else None,
            self.ratio.copy() if self.ratio else None,
            self.canary,
            self.stable,
            self.waiting,
            self.span_canary,
            self.span_stable,
            self.span_begun,
            self.block,
        )

    def take(self, cell: _Cell) -> None:
        """Take in one cell, in the order of time."""
        self.canary += cell.canary
        self.stable += cell.stable
        self._take_limit(cell.number, cell.canary, cell.stable)
        self._take_ratio(cell.number, cell.canary_whole, cell.stable)

    def _take_limit(self, cell: int, canary: Counts, stable: Counts) -> None:
        self.waiting += stable
        if self.limit and canary.requests:
            self.limit.step(tempered(canary), tempered(self.waiting), cell * CELL_MS)
            self.waiting = Counts()

    def _take_ratio(self, cell: int, canary: Counts, stable: Counts) -> None:
        if self.ratio is None:
            return
        block = cell // SPAN_CELLS
        lone = not self.span_canary.requests or not self.span_stable.requests
        if block != self.block and (not lone or block - self.span_begun >= LONE_BLOCKS):
            if not lone:
                self.ratio.step(tempered(self.span_canary), tempered(self.span_stable))
            self.span_canary, self.span_stable, self.span_begun = Counts(), Counts(), block
        self.block = block
        self.span_canary += canary
        self.span_stable += stable


@dataclass(frozen=True, slots=True)
class Standing:
    """The evidence as of one look."""

    canary: Counts
    """Counted since the evidence began, as far as stable has been scraped too."""
    stable: Counts
    limit: LimitTest | None
    ratio: RatioTest | None
    newest: int | None
    """The canary's newest sample, in milliseconds; None: none since the evidence began."""
    spacing: int
    """The scrape interval in milliseconds; 0: not known."""
    stable_is_scraped: bool


class Ledger:
    """The evidence on one metric of one rollout."""

    def __init__(self, limits: Limits, since: int, *, has_stable: bool) -> None:
        """Start empty; nothing at or before ``since`` (milliseconds) will count."""
        self.fold = CounterFold(since, canary_is_new=has_stable)
        self._since = since
        self._has_stable = has_stable
        self._sealed = _Tests(
            LimitTest(limits.share) if limits.share is not None else None,
            RatioTest(limits.ratio) if limits.ratio is not None and has_stable else None,
        )
        self._open: dict[int, _OpenCell] = {}
        self._answers: deque[tuple[int, int]] = deque()
        self._answered_since: int | None = None
        self._answered = 0

    def add(self, series: Iterable[Series]) -> None:
        """Take in samples. In any portions: what follows from them is the same."""
        increments = self.fold.add(series)
        for one in increments:
            self._open.setdefault(_cell_of(one), _OpenCell()).add(one)
            if one.side is Side.CANARY and one.requests:
                self._answers.append((one.end, one.requests))
                if self._answered_since is not None and one.end > self._answered_since:
                    self._answered += one.requests
        self._seal()

    def standing(self) -> Standing:
        """Return what all samples so far say."""
        horizon = self._horizon()
        newest = self.fold.newest(Side.CANARY)
        tests = self._sealed.copy()
        for cell in _cells(self._open, horizon):
            tests.take(cell)
        if tests.ratio:
            tests.ratio.step(tempered(tests.span_canary), tempered(tests.span_stable))
        return Standing(
            canary=tempered(tests.canary),
            stable=tempered(tests.stable),
            limit=tests.limit,
            ratio=tests.ratio,
            newest=newest if newest is not None and newest > self._since else None,
            spacing=self.fold.spacing(),
            stable_is_scraped=self.fold.covered_by(Side.STABLE) is not None,
        )

    def answered(self, since: int) -> int:
        """Return the canary's requests by samples after a time, as far as they are judged.

        The first of them may tell of requests from up to one scrape interval before it.
        """
        if since != self._answered_since:
            self._answered_since = since
            self._answered = sum(n for end, n in self._answers if end > since)
        newest = self.fold.newest() or 0
        while self._answers and self._answers[0][0] < newest - ANSWERS_KEPT_MS:
            self._answers.popleft()
        horizon = self._horizon()
        if horizon is None:
            return self._answered
        known = max(horizon, since)
        return self._answered - sum(cell.requests_after(known) for cell in self._open.values())

    def _horizon(self) -> int | None:
        """Return up to when the canary counts; None: without bound."""
        return self.fold.covered_by(Side.STABLE) if self._has_stable else None

    def _seal(self) -> None:
        newest = self.fold.newest()
        if newest is None:
            return
        horizon = self._horizon()
        sealed = newest - SEAL_AFTER_MS
        first_open = (sealed if horizon is None else min(sealed, horizon)) // CELL_MS
        old = {k: self._open.pop(k) for k in list(self._open) if k < first_open}
        for cell in _cells(old, None):
            self._sealed.take(cell)


def _cell_of(one: Increment) -> int:
    """Return the cell of an increment: (t0, t1] by t1 for the canary, [t0, t1) by t0 for stable."""
    if one.side is Side.CANARY:
        return (one.end - 1) // CELL_MS
    return max(one.start, one.end - REACH_MS) // CELL_MS


def _cells(cells: dict[int, _OpenCell], horizon: int | None) -> list[_Cell]:
    """Sum up by cell, in the order of time; the canary only up to the horizon."""
    return [cells[k].up_to(k, horizon) for k in sorted(cells)]
