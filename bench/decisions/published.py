"""What analysis.md and its study say of the threshold rules, to check the ports against.

These are figures of documents, not of this bench: 3,000 rollouts a row in analysis.md (400 to 500
of drift), 10,000 for false rollbacks and 4,000 for detection in the study (Kayenta's false
rollbacks 1,000; drift 10,000 up to a PSI of 0.1, else 3,000).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from bench.decisions.drift_tables import EVERY_LOOK, EVERY_MINUTE, INDICES, SHIFTS, normal, skewed
from bench.decisions.judging import Rule
from bench.decisions.numbers import Runs, quantile
from bench.decisions.rows import Results, percent, seconds
from bench.decisions.runner import Case
from bench.decisions.tables import BASES, SPLITS, aligned
from bench.decisions.thresholds import (
    ARGO_DOCS,
    ConditionalBinomial,
    Kayenta,
    RateLimit,
    argo,
    fastest,
    flagger,
    sensible_limit,
)
from bench.decisions.traffic import Batch

ERRORS_OF_CHANCE: Final = 3.5
"""Standard errors of a difference that chance is held for, over the 300 or so figures."""

ABOUT: Final = f"""\
What the documents say of the rules / what came out here. Marked where a share differs by more than
{ERRORS_OF_CHANCE} standard errors of both and the rounding, a delay by more than one check, or bad
answers by more than 5 %. What remains marked is drift between labels of a PSI of 0.05 and 0.1, and
of none for the rules that rare labels matter to: the study says "skewed labels" and no more, and
how far such an index strays depends on how rare the rarest labels are and which of them move. The
shares of labels here fall as 1/k; steeper ones bring the figures up to and beyond the study's."""

AT_ONCE: Final = RateLimit("1-min rate each 60 s, 5 failed, acts at once", 0.02, 5)
"""analysis.md's rule for Flagger. The study's acts one run later, as Flagger does."""


@dataclass(frozen=True, slots=True)
class Figure:
    """What a document says of a case. None: nothing."""

    source: str
    case: Case
    runs: int
    share: float | None
    """Called harmful, or found."""
    median_s: float | None = None
    p95_s: float | None = None
    bad: float | None = None
    """The mean of bad answers."""
    digits: int = 2
    """Of the share in percent."""


def figures() -> Iterator[Figure]:
    """Yield all of them."""
    yield from _first_table()
    yield from _false_grid()
    yield from _detection()
    yield from _drift()


def _first_table() -> Iterator[Figure]:
    null, five, fifty = (aligned(0.01, rate, 0.1) for rate in (0.01, 0.05, 0.5))
    lines: list[tuple[Rule[Batch], float, float, float, float, float]] = [
        (AT_ONCE, 31, 300, 32, 300, 300),
        (argo(0.02, 3), 51, 240, 26, 240, 240),
        (fastest(0.02), 99.7, 20, 3, 20, 20),
        (ConditionalBinomial(), 0.3, 90, 10, 10, 10),
    ]
    for rule, false, five_s, five_bad, fifty_s, fifty_bad in lines:
        digits = 0 if false == int(false) else 1
        yield Figure("analysis 1", Case(null, rule), 3000, false / 100, digits=digits)
        yield Figure("analysis 1", Case(five, rule), 3000, 1.0, five_s, bad=five_bad)
        yield Figure("analysis 1", Case(fifty, rule), 3000, 1.0, fifty_s, bad=fifty_bad)


FALSE_GRID: Final = {
    "flagger 1": (83.1, 24.9, 4.9, 0.04, 99.1, 97.9, 81.3, 33.2, 78.3, 28.7, 0.68, 0.00),
    "flagger 5": (3.16, 0.00, 0.00, 0.00, 45.5, 32.1, 2.33, 0.00, 1.56, 0.01, 0.00, 0.00),
    "argo 0": (83.1, 24.9, 4.9, 0.04, 99.1, 97.9, 81.3, 33.2, 78.3, 28.7, 0.68, 0.00),
    "argo 3": (9.60, 0.00, 0.00, 0.00, 66.2, 53.4, 7.45, 0.06, 6.09, 0.04, 0.00, 0.00),
    "argo docs": (0.00, 0.00, 0.00, 0.00, 0.12, 0.07, 0.00, 0.00, 17, 24, 26, 28),
    "kayenta": (0.0, 0.0, 0.1, 0.7, 1.7, 0.3, 0.1, 0.1, 0.6, 0.9, 0.3, 0.7),
}
"""Percent, by base rate and, within, by split."""


def _rule(name: str, limit: float) -> Rule[Batch]:
    kind, _, number = name.partition(" ")
    match kind:
        case "flagger":
            return flagger(limit, int(number))
        case "argo" if number != "docs":
            return argo(limit, int(number))
        case "kayenta":
            return Kayenta()
        case _:
            return ARGO_DOCS


def _digits(share: float) -> int:
    """Return the digits of percents with three significant ones in the study's grid."""
    return 2 if share < 9.995 and share != int(share) else 1 if share != int(share) else 0  # noqa: PLR2004


def _false_grid() -> Iterator[Figure]:
    for name, shares in FALSE_GRID.items():
        for place, share in enumerate(shares):
            base, split = BASES[place // len(SPLITS)], SPLITS[place % len(SPLITS)]
            case = Case(aligned(base, base, split), _rule(name, sensible_limit(base)))
            if name == "kayenta":
                yield Figure("study, false", case, 1000, share / 100, digits=1)
            else:
                yield Figure("study, false", case, 10_000, share / 100, digits=_digits(share))


Line = tuple[float | None, float | None, float | None, float | None]
"""Found in percent, median, 95 % quantile, mean of bad answers."""

DETECTION: Final[dict[tuple[float, float, str], tuple[Line, Line, Line, Line]]] = {
    (0.01, 0.05, "flagger 5"): ((100, 420, 540, 21.2), (100, 360, 420, 38.0),
                                (100, 360, 360, 89.9), (100, 360, 360, 180)),
    (0.01, 0.05, "argo 3"): ((100, 300, 420, 14.5), (100, 240, 300, 25.6),
                             (100, 240, 240, 60.0), (100, 240, 240, 120)),
    (0.01, 0.05, "flagger 1"): ((100, 120, None, 6.6), (100, 120, None, 12.4),
                                (100, 120, None, 29.9), (100, 120, None, 60)),
    (0.01, 0.05, "argo 0"): ((100, 60, None, 3.6), (100, 60, None, 6.4),
                             (100, 60, None, 15.0), (100, 60, None, 30)),
    (0.01, 0.05, "argo docs"): ((16, None, None, 89), (23, None, None, 175),
                                (26, None, None, 436), (29, None, None, 869)),
    (0.01, 0.05, "kayenta"): ((100, 600, 1200, 29), (100, 300, 600, 41),
                              (100, 300, 600, 80), (100, 300, 300, 152)),
    (0.01, 0.2, "flagger 5"): ((None, 360, None, 72), (None, 360, None, 144),
                               (None, 360, None, 360), (None, 360, None, 719)),
    (0.01, 0.2, "argo 3"): ((None, 240, None, 48), (None, 240, None, 96),
                            (None, 240, None, 240), (None, 240, None, 480)),
    (0.01, 0.2, "argo 0"): ((None, 60, None, 12), (None, 60, None, 24),
                            (None, 60, None, 60), (None, 60, None, 120)),
    (0.01, 0.2, "argo docs"): ((None, 1200, None, 275), (None, 1200, None, 498),
                               (None, 1200, None, 1202), (None, 1200, None, 2400)),
    (0.01, 0.2, "kayenta"): ((None, 300, None, 61), (None, 300, None, 120),
                             (None, 300, None, 300), (None, 300, None, 599)),
    (0.001, 0.01, "flagger 5"): ((100, 660, 1140, 7.3), (99, 900, 1560, 18.5),
                                 (100, 660, 1080, 35.4), (100, 660, 1080, 69.6)),
    (0.001, 0.01, "argo 3"): ((100, 480, 900, 5.3), (100, 660, 1260, 13.8),
                              (100, 480, 840, 25.9), (100, 480, 840, 50.8)),
    (0.001, 0.01, "kayenta"): ((3, None, None, 17.8), (69, 1500, None, 24.7),
                               (100, 600, 900, 25.7), (100, 300, 600, 40.4)),
    (0.01, 0.02, "flagger 5"): ((100, 840, 1440, 17), (100, 720, 1200, 30),
                                (100, 660, 1080, 70), (100, 660, 1080, 137)),
}  # fmt: skip
"""By base rate, worse rate and rule; within, by split. None: the study does not say."""


def _detection() -> Iterator[Figure]:
    for (base, worse, name), lines in DETECTION.items():
        for split, (share, median, p95, bad) in zip(SPLITS, lines, strict=True):
            case = Case(aligned(base, worse, split), _rule(name, sensible_limit(base)))
            part = None if share is None else share / 100
            yield Figure("study, found", case, 4000, part, median, p95, bad, digits=0)


DRIFT: Final[tuple[tuple[tuple[float, float | None], ...], ...]] = (
    ((100, None), (100, None), (100, None), (100, 60), (100, 60), (100, 60)),
    ((100, 540), (100, None), (100, None), (100, 300), (100, 300), (100, 300)),
    ((0.06, None), (17.4, None), (82.2, None), (100, 300), (100, 300), (100, 300)),
    ((0.00, None), (0.2, None), (29.5, None), (100, 540), (100, 540), (100, 540)),
    ((20.5, None), (99.9, None), (100, None), (100, 300), (100, 300), (100, 300)),
    ((17.9, None), (100, None), (100, None), (100, 300), (100, 300), (100, 300)),
    ((51.8, None), (72.1, None), (86.7, None), (100, 60), (100, 60), (100, 60)),
    ((0.00, None), (0.03, None), (2.5, None), (99.7, 240), (100, 240), (100, 240)),
)
"""Of the study: percent and median, by rule as in ``EVERY_MINUTE`` and by true PSI."""

FIRST_DRIFT: Final[tuple[tuple[tuple[float, float | None], ...], ...]] = (
    ((90, None), (100, 80), (100, 60), (100, 60)),
    ((0, None), (4, 960), (100, 300), (100, 300)),
)
"""Of analysis.md, by rule as in ``EVERY_LOOK`` and by shift. The 960 s are of the 4 % found."""


def _drift() -> Iterator[Figure]:
    for rule, line in zip(EVERY_LOOK, FIRST_DRIFT, strict=True):
        for shift, (share, median) in zip(SHIFTS, line, strict=True):
            yield Figure(
                "analysis 2", Case(normal(shift), rule), 400, share / 100, median, digits=0
            )
    for rule, line in zip(EVERY_MINUTE, DRIFT, strict=True):
        for index, (share, median) in zip(INDICES, line, strict=True):
            runs = 10_000 if index <= 0.1 else 3000  # noqa: PLR2004
            case = Case(skewed(index), rule)
            yield Figure("study, drift", case, runs, share / 100, median, digits=_digits(share))


def compare(results: Results) -> str:
    """Return every figure beside ours, and which differ by more than chance."""
    lines = [
        "### documents",
        "",
        ABOUT,
        "",
        "| source | scene | rule | harm or found | median | 95 % quantile | bad | |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for one in figures():
        runs = results.get(one.case.key)
        if runs is not None:
            lines.append(_line(one, runs))
    return "\n".join(lines) + "\n"


def _line(one: Figure, runs: Runs) -> str:
    share = float(np.mean(np.isfinite(runs.harm_s)))
    delays = runs.harm_s[np.isfinite(runs.harm_s)] if share < 0.5 else runs.harm_s  # noqa: PLR2004
    median, p95 = quantile(delays, 0.5), quantile(runs.harm_s, 0.95)
    bad = float(np.mean(runs.bad))
    differs = [
        what
        for what, apart in (
            ("share", not _same_share(one, share, runs.n)),
            ("median", not _near(one.median_s, median)),
            ("95 %", not _near(one.p95_s, p95)),
            ("bad", one.bad is not None and abs(bad - one.bad) > max(0.05 * one.bad, 0.6)),
        )
        if apart
    ]
    return (
        f"| {one.source} | {one.case.scene.name} | {one.case.rule.name} "
        f"| {_pair(one.share, share, percent)} "
        f"| {_pair(one.median_s, median, seconds)} | {_pair(one.p95_s, p95, seconds)} "
        f"| {_pair(one.bad, bad, '{:.1f}'.format)} | {', '.join(differs)} |"
    )


def _pair(theirs: float | None, ours: float, said: Callable[[float], str]) -> str:
    return "" if theirs is None else f"{said(theirs)} / {said(ours)}"


def _same_share(one: Figure, share: float, runs: int) -> bool:
    """Return whether chance and rounding explain a difference. Shares near 0 or 1 get a bit."""
    if one.share is None:
        return True
    pooled = (one.share * one.runs + share * runs + 1) / (one.runs + runs + 2)
    error = math.sqrt(pooled * (1 - pooled) * (1 / one.runs + 1 / runs))
    return bool(abs(one.share - share) <= ERRORS_OF_CHANCE * error + 0.5 * 10 ** -(one.digits + 2))


def _near(theirs: float | None, ours: float) -> bool:
    """Return whether two delays differ by a check at most, which may be a minute or a look."""
    return theirs is None or abs(theirs - ours) <= (60 if theirs >= 100 else 10)  # noqa: PLR2004
