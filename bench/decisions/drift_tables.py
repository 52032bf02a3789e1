"""The tables on drift: analysis.md's second one, and the study's."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from bench.decisions.drift_rules import (
    Windowed,
    chi_squared,
    chi_squared_quantile,
    corrected_psi,
    jensen_shannon,
    psi,
)
from bench.decisions.drift_traffic import (
    BUCKETS,
    DriftBatch,
    DriftScene,
    Moved,
    normal_scores,
    skewed_labels,
)
from bench.decisions.drift_traffic import psi as index_of
from bench.decisions.judging import Floats, Rule
from bench.decisions.rows import Cell, Row, Show, Table
from bench.decisions.runner import Case
from bench.decisions.shipped import DriftPolicy, ShippedDrift

SHIFTS: Final = (0.0, 0.3, 0.5, 1.0)
INDICES: Final = (0.0, 0.05, 0.1, 0.25, 0.5, 1.0)

EVERY_LOOK: Final = (
    Windowed("PSI > 0.2, 1-min window, each 10 s", psi, 0.2, 60, 10),
    Windowed("PSI > 0.2, 5-min window, each 10 s", psi, 0.2, 300, 10),
)
"""As in analysis.md."""

CRITICAL: Final = chi_squared_quantile(0.01, BUCKETS - 1)

EVERY_MINUTE: Final = (
    Windowed("PSI > 0.2, 1 min", psi, 0.2, 60, 60),
    Windowed("PSI > 0.2, 1 min, 5 failed", psi, 0.2, 60, 60, failed=5),
    Windowed("PSI > 0.2, 5 min", psi, 0.2, 300, 60),
    Windowed("PSI > 0.2, 5 min, 5 failed", psi, 0.2, 300, 60, failed=5),
    Windowed("JS >= 0.1 (Evidently's default), 5 min", jensen_shannon, 0.1, 300, 60),
    Windowed("chi-squared p < 0.01, 5 min", chi_squared, CRITICAL, 300, 60),
    Windowed("PSI > 0.2, cumulative", psi, 0.2, math.inf, 60),
    Windowed("PSI corrected > 0.2, cumulative, from 200 on", corrected_psi, 0.2, math.inf, 60,
             min_requests=200),
)  # fmt: skip
"""As in the study: each minute, from the first full window on."""

SHIPPED: Final = (
    ShippedDrift("Crossfade, minEffect 0.1 (default)", DriftPolicy()),
    ShippedDrift("Crossfade, minEffect 0.2", DriftPolicy(min_effect=0.2)),
    ShippedDrift("Crossfade, minEffect 0.001 (any difference)", DriftPolicy(min_effect=0.001)),
)
"""Crossfade's rules on drift."""


def normal(shift: float) -> DriftScene:
    """Return a scene of analysis.md: the deciles of a score, by their borders."""
    scene = _scene(f"normal scores, shift {shift:g}", normal_scores(shift), 0.1)
    return replace(scene, ordered=True)


def unordered(shift: float) -> DriftScene:
    """Return the same shares, of classes that have names without an order."""
    return _scene(f"ten classes, shift {shift:g}", normal_scores(shift), 0.1)


def skewed(index: float, weight: float = 0.05) -> DriftScene:
    """Return a scene of the study."""
    name = f"skewed labels, PSI {index:g}, weight {100 * weight:g} %"
    return _scene(name, skewed_labels(index), weight)


def _scene(name: str, shares: tuple[Floats, Floats], weight: float) -> DriftScene:
    canary, stable = (tuple(map(float, one)) for one in shares)
    return DriftScene(name, canary, stable, weight)


def tables() -> Iterator[Table]:
    """Yield every table on drift."""
    yield _table(
        "analysis 2: drift, normal scores",
        "10 buckets, 20 requests/s, weight 10 %, a look each 10 s for 30 min.",
        (*SHIPPED, *EVERY_LOOK),
        [(_shift_name(shift), normal(shift)) for shift in SHIFTS],
    )
    yield _table(
        "drift, the same shares of ten classes",
        "As analysis 2, but names without an order.",
        SHIPPED,
        [(_shift_name(shift), unordered(shift)) for shift in SHIFTS],
    )
    for weight in (0.05, 0.25):
        yield _table(
            f"drift, skewed labels, weight {100 * weight:g} %",
            "10 labels, 20 requests/s, by the true PSI, 30 min.",
            (*SHIPPED[:2], *EVERY_MINUTE),
            [(f"PSI {index:g}", skewed(index, weight)) for index in INDICES],
        )

    yield _inputs()


def _inputs() -> Table:
    """Return inputs that move for both versions, and what a reference makes of it."""
    elsewhere, usual = (tuple(map(float, one)) for one in normal_scores(1.0))
    worse = tuple(map(float, normal_scores(0.5)[0]))
    same = DriftScene("inputs move by 1 for 5 min", usual, usual, moved=Moved(600, 300, elsewhere))
    scenes = [
        ("the same, scraped at once", same),
        ("scraped apart", replace(same, name=f"{same.name}, apart", aligned=False)),
        ("for good, scraped apart", DriftScene(
            "inputs move by 1 for good, apart", usual, usual, moved=Moved(600, 1200, elsewhere),
            aligned=False)),
        ("no move, canary shifted by 0.5, apart", DriftScene(
            "shift 0.5, apart", worse, usual, aligned=False)),
    ]  # fmt: skip
    referred = ShippedDrift(f"{SHIPPED[0].name}, reference", DriftPolicy(reference=usual))
    return _table(
        "drift of inputs",
        "Normal scores; the mean of both versions' scores moves by 1 at minute 10.",
        (SHIPPED[0], referred, *EVERY_LOOK),
        scenes,
    )


def _shift_name(shift: float) -> str:
    return f"shift {shift:g} (PSI {index_of(*normal_scores(shift)):.2g})"


def _table(
    name: str,
    about: str,
    rules: tuple[Rule[DriftBatch], ...],
    scenes: list[tuple[str, DriftScene]],
) -> Table:
    rows = []
    for rule in rules:
        cells = [
            Cell(Case(scene, rule), Show.FALSE if scene.healthy else Show.FOUND)
            for _, scene in scenes
        ]
        rows.append(Row(rule.name, tuple(cells)))
    return Table(name, about, tuple(said for said, _ in scenes), tuple(rows))
