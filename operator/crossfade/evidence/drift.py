"""The evidence that a distribution has moved: of predictions, labels or inputs.

Against the stable version over the same span, with counts c_k and s_k of the categories, and with
guesses of both distributions from before the span, f for the canary's and g for stable's::

    log e = sum of c_k log(f_k / u_k) + s_k log(g_k / u_k),  u = (n_c f + n_s g) / (n_c + n_s)

Its mean is at most 1 whatever distribution both have in common, and that may be another one in
every span: with one observation of each arm it is the e-variable of Turner, Ly and Grünwald,
"Generic E-variables for exact sequential k-sample tests", JSPI 2024, whose proof holds for any
number of categories: by the inequality of the arithmetic and geometric mean, the mean of
(sum p f/u)^n_c (sum p g/u)^n_s is at most (sum p u/u)^(n_c + n_s) = 1. Against a fixed reference r
it is the likelihood ratio sum of c_k log(f_k / r_k).

With enough traffic any two models differ. So a test alone is no harm: the difference must also be
large, as a population stability index (PSI), less what chance adds, and surely nearly as large.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Final

from typing_extensions import override

from crossfade.evidence.counters import CATEGORY, REQUESTS
from crossfade.evidence.dispersion import Differences, Dispersion
from crossfade.evidence.effects import Effect, Histogram, effect_of
from crossfade.evidence.eprocesses import Starts
from crossfade.evidence.intervals import interval
from crossfade.evidence.ledger import Cell, Pairing, Seen, Tally, add_to, alone
from crossfade.evidence.rules import NOTHING_BESIDE, Answer, Asked, figure, held, said_odds
from crossfade.evidence.verdicts import Counts, Evidence, Verdict

SHRINKAGE: Final = (20.0, 100.0)
"""Alternatives: the canary's distribution so far, with so many observations of stable's added."""

TILTS: Final = (-1.5, 1.5)
"""Alternatives: stable's distribution, tilted so that the last category weighs exp(1.5) times, and
the first exp(-1.5) times, as much as the middle one; for a shift that nothing was seen of yet."""

ALIKE: Final = (1 / (len(SHRINKAGE) + len(TILTS)),) * (len(SHRINKAGE) + len(TILTS))
"""The shares of the alternatives in the prior."""

UNSEEN: Final = "\0others"
"""All categories that nothing was seen of before the span: a guess must not depend on the span."""

REFERENCE_SLACK: Final = 1e-3
"""The share of a reference that is spread over all categories, for what it has never seen."""

NEARLY: Final = 0.7
"""The share of what counts as an effect that it must surely have. With all of it an effect a little
above what counts would be found late or never; with less of it, or less certainty, ever more of
those that are half as large would be found, too (``bench/decisions``)."""


class CategoryDifferences(Differences[Tally]):
    """Those of the shares of all categories."""

    __slots__ = ()

    @override
    def learn(self, span: Tally) -> None:
        """See :class:`~crossfade.evidence.eprocesses.Differences`."""
        if not span:
            return
        last, self._last = self._last, span
        n, m = sum(last.values()) if last else 0, sum(span.values())
        self.seen += m
        self._fade()
        if not last:
            return
        for k in sorted(last.keys() | span.keys()):
            self._compare(last.get(k, 0), n, span.get(k, 0), m)


class DriftTests:
    """The tests of one distribution, and what was counted."""

    __slots__ = (
        "_before",
        "_dispersion",
        "_other",
        "_pairing",
        "_recent",
        "_starts",
        "canary",
        "reference",
        "stable",
    )

    def __init__(self, reference: Mapping[str, float] | None, *, has_stable: bool) -> None:
        """Start with no evidence.

        Args:
            reference: shares or counts of categories that are expected; None: only stable's.
            has_stable: there is a version to compare with.
        """
        self.reference = ReferenceTests(reference) if reference else None
        self._starts = Starts(ALIKE) if has_stable else None
        self._recent = Histogram()
        self._other = Histogram()
        self._dispersion = Dispersion(CategoryDifferences)
        self.canary: Tally = {}
        """Counted since the evidence began, by category."""
        self.stable: Tally = {}
        self._pairing = Pairing()
        self._before = Pairing()

    def copy(self) -> DriftTests:
        """See :class:`~crossfade.evidence.ledger.Tests`."""
        other = object.__new__(DriftTests)
        other.reference = self.reference.copy() if self.reference else None
        other._starts = self._starts.copy() if self._starts else None
        other._recent, other._other = self._recent.copy(), self._other.copy()
        other._dispersion = self._dispersion.copy()
        other.canary, other.stable = dict(self.canary), dict(self.stable)
        other._pairing, other._before = self._pairing.copy(), self._before.copy()
        return other

    def learn(self, cell: Cell) -> None:
        """See :class:`~crossfade.evidence.ledger.Tests`."""
        ended = self._before.push(alone(cell.number, cell.stable))
        if ended is not None:
            self._learn({}, categories_of(ended[1]))

    def take(self, cell: Cell) -> None:
        """See :class:`~crossfade.evidence.ledger.Tests`."""
        add_to(self.canary, categories_of(cell.canary))
        add_to(self.stable, categories_of(cell.stable))
        if self._starts is None:
            cell = alone(cell.number, cell.canary)
        ended = self._pairing.push(cell)
        if ended is not None:
            canary, stable = categories_of(ended[0]), categories_of(ended[1])
            self._step(canary, stable)
            self._learn(canary, stable)

    def close(self) -> None:
        """Take in the span that is open, for what is known right now; nothing may follow."""
        if not self._pairing.lone:
            canary, stable = (
                categories_of(self._pairing.canary),
                categories_of(self._pairing.stable),
            )
            self._step(canary, stable)
            self._recent.learn(canary)
            self._other.learn(stable)

    def _step(self, canary: Tally, stable: Tally) -> None:
        if not canary or not stable:
            return
        if self.reference is not None:
            self.reference.step(canary, stable, self._recent, self._other, self._dispersion)
        if self._starts is None:
            return
        names = [*_ordered(self._recent.counts, self._other.counts), UNSEEN]
        usual = self._other.shares(names)
        mine, others = _over(names, canary), _over(names, stable)
        n_c, n_s = sum(mine), sum(others)
        won = []
        for guess in _guesses(self._recent, names, usual):
            gain = 0.0
            for c, s, f, g in zip(mine, others, guess, usual, strict=True):
                u = (n_c * f + n_s * g) / (n_c + n_s)
                gain += c * math.log(f / u) + s * math.log(g / u)
            won.append(gain)
        self._starts.step(self._dispersion.temper(won))

    def _learn(self, canary: Tally, stable: Tally) -> None:
        self._dispersion.learn(canary, stable)
        self._recent.learn(canary)
        self._other.learn(stable)

    def log_e(self) -> float:
        """Return the logarithm of the e-value against "distributed as stable's"."""
        return self._starts.log_e() if self._starts else 0.0

    def effect(self) -> Effect:
        """Return how far the canary is from stable, by what was seen lately."""
        names = _ordered(self._recent.counts, self._other.counts)
        shares = self._other.shares(names)
        return effect_of(self._recent, names, shares, self._other.total)

    def effects_on_reference(self, reference: ReferenceTests) -> tuple[Effect, Effect]:
        """Return how far the canary and stable are from the reference."""
        names, shares = reference.names_and_shares(self._recent, self._other)
        canary, stable = (
            effect_of(one, names, shares, None) for one in (self._recent, self._other)
        )
        return canary, stable


class ReferenceTests:
    """Has the canary, and has stable, moved away from a fixed distribution?"""

    __slots__ = ("_expected", "canary", "stable")

    def __init__(self, reference: Mapping[str, float]) -> None:
        whole = sum(reference.values())
        self._expected = {k: n / whole for k, n in reference.items()}
        self.canary = Starts(ALIKE)
        self.stable = Starts(ALIKE)

    def copy(self) -> ReferenceTests:
        """Return tests that can go on alone."""
        other = object.__new__(ReferenceTests)
        other._expected = self._expected
        other.canary, other.stable = self.canary.copy(), self.stable.copy()
        return other

    def names_and_shares(self, *counted: Histogram) -> tuple[list[str], list[float]]:
        """Return the categories of the reference and of counts, and the reference's shares."""
        names = [*_ordered(self._expected, *(one.counts for one in counted)), UNSEEN]
        spread = REFERENCE_SLACK / len(names)
        kept = 1 - REFERENCE_SLACK
        return names, [kept * self._expected.get(k, 0.0) + spread for k in names]

    def step(
        self,
        canary: Tally,
        stable: Tally,
        recent: Histogram,
        other: Histogram,
        known: Dispersion[Tally],
    ) -> None:
        """Take in one span, with what was counted of both versions before it."""
        names, expected = self.names_and_shares(recent, other)
        for starts, span, before in ((self.canary, canary, recent), (self.stable, stable, other)):
            counts = _over(names, span)
            won = []
            for guess in _guesses(before, names, expected):
                gain = 0.0
                for n, f, r in zip(counts, guess, expected, strict=True):
                    gain += n * math.log(f / r)
                won.append(gain)
            starts.step(known.temper(won))


def categories_of(tally: Tally) -> Tally:
    """Return the categories of a tally, by name, without what is not above 0.

    Two buckets of one histogram are two series, so one may know a scrape more than the other.
    """
    start = len(CATEGORY)
    return {k[start:]: n for k, n in tally.items() if n > 0 and k != REQUESTS}


def _ordered(*counted: Iterable[str]) -> list[str]:
    """Return all categories: numbers by size, then words."""
    return sorted({k for one in counted for k in one}, key=_place)


def _over(names: list[str], span: Tally) -> list[int]:
    """Return a span's counts of categories; the last takes all that are not named."""
    counts = [span.get(k, 0) for k in names[:-1]]
    return [*counts, sum(span.values()) - sum(counts)]


@lru_cache(maxsize=4096)
def _place(name: str) -> tuple[float, str]:
    try:
        return float(name), name
    except ValueError:
        return math.inf, name


def _guesses(before: Histogram, names: list[str], usual: list[float]) -> list[list[float]]:
    """Return what the distribution may be: what was seen of it, and tilts of what is usual."""
    guesses = []
    for added in SHRINKAGE:
        whole = before.total + added
        guesses.append(
            [
                (before.counts.get(k, 0.0) + added * g) / whole
                for k, g in zip(names, usual, strict=True)
            ]
        )
    middle = (len(names) - 1) / 2 or 1.0
    for tilt in TILTS:
        tilted = [g * math.exp(tilt * (i / middle - 1)) for i, g in enumerate(usual)]
        whole = sum(tilted)
        guesses.append([f / whole for f in tilted])
    return guesses


def judge_drift(
    tests: DriftTests, seen: Seen, asked: Asked, min_effect: float
) -> tuple[Verdict, str, str]:
    """Give the answer, in words, and an alert when the inputs moved ("" if they did not).

    Args:
        tests: the evidence, closed.
        seen: how far the samples go.
        asked: what the step asks for.
        min_effect: the smallest PSI that counts.
    """
    if seen.newest is None:
        return Verdict.NOT_ENOUGH_DATA, "the canary has no series yet", ""
    effect = tests.effect()
    moved = _is_apart(tests.log_e(), effect, asked, min_effect)
    said = _describe(tests, effect, min_effect, asked)
    no_harm = held(seen, asked, _incomparable(tests, asked)) or (Verdict.HEALTHY, said)
    if tests.reference is None:
        if moved:
            return Verdict.HARM, said, ""
        return *no_harm, ""
    effects = tests.effects_on_reference(tests.reference)
    logs = tests.reference.canary.log_e(), tests.reference.stable.log_e()
    canary_moved, stable_moved = (
        _is_apart(log_e, effect, asked, min_effect)
        for log_e, effect in zip(logs, effects, strict=True)
    )
    alert = _alert(effects, canary_moved, stable_moved, asked)
    if canary_moved and alert:
        return Verdict.UNAVAILABLE, f"{alert}; {said}", alert
    if canary_moved and moved:
        return Verdict.HARM, f"PSI {effects[0].psi:.2g} from the reference; {said}", ""
    if canary_moved:
        words = f"PSI {effects[0].psi:.2g} from the reference, not told from stable yet; {said}"
        return Verdict.NOT_ENOUGH_DATA, words, ""
    return *no_harm, alert


def drift_evidence(tests: DriftTests, asked: Asked) -> Evidence:
    """Return what speaks against the canary."""
    return Evidence(tests.log_e(), asked.log_needed)


def _is_apart(log_e: float, effect: Effect, asked: Asked, min_effect: float) -> bool:
    is_large = effect.psi >= min_effect and effect.at_least >= NEARLY * min_effect
    return log_e >= asked.log_needed and is_large


def _alert(
    effects: tuple[Effect, Effect], canary_moved: bool, stable_moved: bool, asked: Asked
) -> str:
    """Say that it is not the canary alone that moved away from the reference."""
    if asked.in_probation:
        words = f"PSI {effects[0].psi:.2g} from the reference since the promotion"
        return f"{words}: the inputs or the version moved" if canary_moved else ""
    if not stable_moved:
        return ""
    return (
        f"the inputs moved: stable is at PSI {effects[1].psi:.2g} from the reference, "
        f"the canary at {effects[0].psi:.2g}"
    )


def _incomparable(tests: DriftTests, asked: Asked) -> Answer | None:
    if asked.in_probation:
        return NOTHING_BESIDE if tests.reference is None else None
    if not tests.stable:
        return Verdict.NOT_ENOUGH_DATA, "stable has nothing to compare with"
    return None


def _describe(tests: DriftTests, effect: Effect, min_effect: float, asked: Asked) -> str:
    """Say how far the versions are apart, where the most, and the evidence."""
    mine, others = sum(tests.canary.values()), sum(tests.stable.values())
    if not mine or not others:
        return f"{mine:,} observations of the canary; minEffect {min_effect:g}"
    said = f"PSI {effect.psi:.2g} from stable"
    if effect.psi:
        said += f", at least {effect.at_least:.2g}"
        shares = (
            f"{_share(counted.get(effect.most, 0), whole)} of {whose} {whole:,}"
            for counted, whole, whose in (
                (tests.canary, mine, "the canary's"),
                (tests.stable, others, "stable's"),
            )
        )
        said += f"; most by {effect.most}: {', '.join(shares)}"
    else:
        said += f"; {mine:,} observations of the canary, {others:,} of stable"
    return f"{said}; minEffect {min_effect:g}; {said_odds(drift_evidence(tests, asked))}"


def _share(count: int, whole: int) -> str:
    low, high = interval(Counts(whole, count))
    share = figure(100 * count / whole)
    return f"{share} % [{figure(100 * low)}, {figure(100 * high)}]"
