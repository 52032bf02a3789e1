"""Whether what is counted comes in clusters, and what one span may then add to the evidence.

Evidence takes answers for independent. Where failures come in clusters (one client's burst of bad
requests, all on one side) it would take healthy versions back, so log e of a span is divided by the
dispersion of the spans so far, and one span adds only so much (analysis-study.md, section 2.0).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, Generic, Self, TypeVar

from typing_extensions import override

from crossfade.evidence.verdicts import Counts

MOST_OF_A_STEP: Final = 3.5
"""What one step may add to log e while it is not known whether failures come in clusters: no
single scrape takes a version back, however bad (analysis-study.md, section 2.0, "Hardening")."""

MOST_WHEN_KNOWN: Final = 6.5
"""What it may add then: enough for a version that is gross from its first scrape on."""

MOST_OVER_LIMIT: Final = 12.0
"""What it may add against a limit, where stable has its say as well (``rules.py``)."""

SEEN_TO_KNOW: Final = 20
"""After so many bad answers (or observations of a distribution) it is known whether they come in
clusters."""

DISPERSION_FADE: Final = 0.5 ** (1 / 240)
"""What is left after a span of what was known of the dispersion: a half after 240. A gross incident
raises it for long, and where failures are rare it takes long to know."""

WARINESS: Final = 1.3
"""How much of the dispersion beyond 1 is believed: more than is seen, since an estimate from few
bad answers is as often too low as too high, and too low is what takes healthy versions back. At
1.0, 13 of 600 healthy rollouts were rolled back in the worst cell of the bench, and 5 at 1.3; with
independent failures a regression is found as soon."""


T = TypeVar("T")


class Differences(Generic[T]):
    """The successive differences of one version's shares, from span to span."""

    __slots__ = ("_last", "seen", "squares", "variances")

    def __init__(self) -> None:
        self.squares = self.variances = 0.0
        self.seen = 0
        """What was counted of that whose clusters are asked for."""
        self._last: T | None = None

    def copy(self) -> Self:
        """Return differences that can go on alone."""
        other = object.__new__(type(self))
        other.squares, other.variances = self.squares, self.variances
        other.seen, other._last = self.seen, self._last
        return other

    def learn(self, span: T) -> None:
        """Take in a span; one without requests tells nothing."""
        raise NotImplementedError

    def _fade(self) -> None:
        self.squares *= DISPERSION_FADE
        self.variances *= DISPERSION_FADE

    def _compare(self, a: int, n: int, b: int, m: int) -> None:
        """Take in a share that was a of n in one span, and b of m in the next."""
        share = (a + b) / (n + m)
        difference = a / n - b / m
        self.squares += difference * difference / (1 / n + 1 / m)
        self.variances += share * (1 - share) * (n + m) / (n + m - 1)


class RateDifferences(Differences[Counts]):
    """Those of the share of bad answers."""

    __slots__ = ()

    @override
    def learn(self, span: Counts) -> None:
        """See :class:`Differences`."""
        if not span.requests:
            return
        last, self._last = self._last, span
        self.seen += span.bad
        self._fade()
        if last is not None and last.bad + span.bad:
            self._compare(last.bad, last.requests, span.bad, span.requests)


class Dispersion(Generic[T]):
    """How much more the shares of spans differ than those of independent answers would.

    From the successive differences d of the spans' shares::

        phi = sum of d^2 / (1/n + 1/n') / sum of p (1-p) (n+n') / (n+n'-1), at least 1

    with n, n' the requests of two spans and p their common share; over several categories both
    sums go over all of them. It is 1 on average for independent answers at any share that changes
    slowly, and about the size of the clusters when failures come in clusters. Differences, unlike
    Pearson's dispersion, forget an incident when it is over (analysis-study.md, section 2.0; von
    Neumann, "Distribution of the ratio of the mean square successive difference to the variance",
    1941). Only spans before a step are asked, so e-values stay e-values.
    """

    __slots__ = ("_canary", "_stable")

    def __init__(self, differences: Callable[[], Differences[T]]) -> None:
        """Start with nothing known; ``differences`` makes those of a version."""
        self._canary = differences()
        self._stable = differences()

    def copy(self) -> Self:
        """Return one that can go on alone."""
        other = object.__new__(type(self))
        other._canary, other._stable = self._canary.copy(), self._stable.copy()
        return other

    def learn(self, canary: T, stable: T) -> None:
        """Take in a span."""
        self._canary.learn(canary)
        self._stable.learn(stable)

    @property
    def phi(self) -> float:
        """That of both versions: it tells of clusters that only the canary has, too."""
        variances = self._canary.variances + self._stable.variances
        return (
            max(1.0, (self._canary.squares + self._stable.squares) / variances)
            if variances
            else 1.0
        )

    @property
    def phi_of_stable(self) -> float:
        """Stable's alone: a canary that breaks does not look as if its failures were clusters."""
        known = self._stable
        return max(1.0, known.squares / known.variances) if known.variances else 1.0

    @property
    def is_known(self) -> bool:
        """Enough was seen to tell whether it comes in clusters."""
        return self._canary.seen + self._stable.seen >= SEEN_TO_KNOW

    def most(self, when_known: float) -> float:
        """Return what one step may add now."""
        return when_known if self.is_known else MOST_OF_A_STEP

    def temper(self, gains: Iterable[float]) -> list[float]:
        """Return what a span adds to log e of each alternative to "as stable"."""
        phi, most = 1 + WARINESS * (self.phi - 1), self.most(MOST_WHEN_KNOWN)
        return [min(gain / phi, most) for gain in gains]
