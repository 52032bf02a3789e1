"""The evidence on a share of bad answers: failed ones, or slow ones."""

from __future__ import annotations

from dataclasses import dataclass

from crossfade.evidence.counters import BAD, REQUESTS
from crossfade.evidence.dispersion import Dispersion, RateDifferences
from crossfade.evidence.eprocesses import (
    NOTHING,
    LimitTest,
    MarginTest,
    StableRate,
    bounded,
)
from crossfade.evidence.kernel import Tolerance
from crossfade.evidence.ledger import Cell, Pairing, Tally, alone
from crossfade.evidence.verdicts import Counts


@dataclass(frozen=True, slots=True)
class Limits:
    """What harm is. At least one is given."""

    share: float | None = None
    """The highest tolerated share of bad requests, above 0 and below 1."""
    tolerance: Tolerance | None = None
    """What is tolerated beside stable's share."""

    @property
    def tests(self) -> int:
        """How many tests there are, each with its part of the false rollback rate."""
        return (self.share is not None) + (self.tolerance is not None)


class RateTests:
    """The tests of one metric, and what was counted."""

    __slots__ = (
        "_before",
        "_cells",
        "_pairing",
        "_waiting",
        "canary",
        "compared",
        "dispersion",
        "history",
        "limit",
        "margin",
        "stable",
        "usual",
    )

    def __init__(self, limits: Limits, *, has_stable: bool) -> None:
        """Start with no evidence."""
        compared = limits.tolerance if has_stable else None
        self.limit = LimitTest(limits.share) if limits.share is not None else None
        self.margin = MarginTest(compared) if compared is not None else None
        self.dispersion = Dispersion(RateDifferences)
        self.usual = StableRate()
        self.canary = NOTHING
        """Counted since the evidence began, as far as stable has been scraped too."""
        self.stable = NOTHING
        self.history = NOTHING
        """Stable's before that."""
        self.compared = False
        """The canary answered requests that lie beside whole intervals of stable."""
        self._cells: tuple[int, int] | None = None
        """The first and the latest cell of the evidence."""
        self._waiting = NOTHING
        """Stable's counts in cells where the canary had no request yet."""
        self._pairing = Pairing()
        self._before = Pairing()

    def copy(self) -> RateTests:
        """See :class:`~crossfade.evidence.ledger.Tests`."""
        other = object.__new__(RateTests)
        other.limit = self.limit.copy() if self.limit else None
        other.margin = self.margin.copy() if self.margin else None
        other.dispersion = self.dispersion.copy()
        other.usual = self.usual.copy()
        other.canary, other.stable, other._waiting = self.canary, self.stable, self._waiting
        other.history, other._cells = self.history, self._cells
        other.compared = self.compared
        other._pairing, other._before = self._pairing.copy(), self._before.copy()
        return other

    def learn(self, cell: Cell) -> None:
        """See :class:`~crossfade.evidence.ledger.Tests`."""
        self.history += counts_of(cell.stable)
        ended = self._before.push(alone(cell.number, cell.stable))
        if ended is not None:
            self._learn(NOTHING, counts_of(ended[1]))

    def take(self, cell: Cell) -> None:
        """See :class:`~crossfade.evidence.ledger.Tests`."""
        canary, stable = counts_of(cell.canary), counts_of(cell.stable)
        whole = counts_of(cell.canary_whole)
        self.canary += canary
        self.stable += stable
        self.compared = self.compared or whole.requests > 0
        self._cells = (self._cells[0] if self._cells else cell.number, cell.number)
        self._waiting += stable
        if self.limit and canary.requests:
            self.limit.step(canary, whole, self._waiting, cell.number * 1000, self.dispersion)
            self._waiting = NOTHING
        ended = self._pairing.push(cell)
        if ended is not None:
            self._step(*ended)
            self._learn(counts_of(ended[0]), counts_of(ended[1]))

    def close(self) -> None:
        """Take in the span that is open, for what is known right now; nothing may follow."""
        if not self._pairing.lone:
            self._step(self._pairing.canary, self._pairing.stable)

    @property
    def per_second(self) -> float:
        """Requests of both versions in a second, since the evidence began; 0 before."""
        if self._cells is None:
            return 0.0
        first, latest = self._cells
        return (self.canary.requests + self.stable.requests) / (latest - first + 1)

    def _step(self, canary: Tally, stable: Tally) -> None:
        mine, other = counts_of(canary), counts_of(stable)
        if self.margin and mine.requests and other.requests:
            self.margin.step(mine, other, self.usual.share, self.dispersion)

    def _learn(self, canary: Counts, stable: Counts) -> None:
        self.dispersion.learn(canary, stable)
        self.usual.learn(stable)


def counts_of(tally: Tally) -> Counts:
    """Return requests and bad ones."""
    counts = Counts(tally.get(REQUESTS, 0), tally.get(BAD, 0))
    return counts if 0 <= counts.bad <= counts.requests else bounded(counts)
