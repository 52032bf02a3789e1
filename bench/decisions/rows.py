"""What a table is: rows of cells, each cell one rule in one scene, seen in one way."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

import numpy as np

from bench.decisions.numbers import Runs, clopper_pearson, quantile
from bench.decisions.runner import Case

Results = dict[tuple[str, str], Runs]


class Show(Enum):
    """What is said of a case."""

    FALSE = "false"
    """How many were called harmful, with the upper end of the exact 95 % interval."""
    FOUND = "found"
    """How many were found, the median and the 95 % quantile of the delay, and bad answers."""
    REACTION = "reaction"
    """The same, from the first bad answer on, of those that were found."""
    HELD = "held"
    """How many seconds of a run there was no answer."""


@dataclass(frozen=True, slots=True)
class Cell:
    """A case, and how it is shown."""

    case: Case
    show: Show


@dataclass(frozen=True, slots=True)
class Row:
    """One line."""

    name: str
    cells: tuple[Cell | None, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """Some lines under one heading. ``name`` and the rows' names are what --only looks at."""

    name: str
    about: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]

    def only(self, text: str) -> Table:
        """Return the table with the rows that have a text in their or the table's name."""
        if text in self.name:
            return self
        rows = tuple(row for row in self.rows if text in row.name)
        return Table(self.name, self.about, self.columns, rows)

    def cases(self) -> Iterator[Case]:
        """Yield what must be played for it."""
        for row in self.rows:
            for cell in row.cells:
                if cell is not None:
                    yield cell.case


def render(table: Table, results: Results) -> str:
    """Return a table as Markdown."""
    lines = [
        f"### {table.name}",
        "",
        table.about,
        "",
        "| " + " | ".join(("", *table.columns)) + " |",
        "|" + "---|" * (len(table.columns) + 1),
    ]
    for row in table.rows:
        shown = [
            "" if cell is None else shown_as(cell.show, results[cell.case.key])
            for cell in row.cells
        ]
        lines.append("| " + " | ".join((row.name, *shown)) + " |")
    return "\n".join(lines) + "\n"


def shown_as(show: Show, runs: Runs) -> str:
    """Return what a cell says."""
    match show:
        case Show.FALSE:
            upper = clopper_pearson(runs.harmful, runs.n)[1]
            share = percent(runs.harmful / runs.n)
            return f"{share} ({runs.harmful:,} of {runs.n:,}, ≤ {percent(upper)})"
        case Show.FOUND:
            return found(runs)
        case Show.REACTION:
            return reaction(runs)
        case Show.HELD:
            return f"{np.mean(runs.held_s):.1f} s"


def found(runs: Runs) -> str:
    """Return "100 %: 120 s, 260 s; 12.8": median, 95 % quantile, mean of bad answers.

    Bad answers are those up to harm or, where there was none, to the end.
    """
    delays = runs.delays_s
    if not len(delays):
        return "all before"
    times = ", ".join(seconds(quantile(delays, q)) for q in (0.5, 0.95))
    said = f"{percent(np.mean(np.isfinite(delays)))}: {times}"
    if runs.bad.any():
        said += f"; {np.mean(runs.bad[runs.harm_s > runs.onset_s]):.1f}"
    early = int((runs.harm_s <= runs.onset_s).sum())
    return said + (f" (and {percent(early / runs.n)} before)" if early else "")


def reaction(runs: Runs) -> str:
    """Return "99 %: 3.5 s, 7.5 s; 5, 8": median and 95 % quantile, the same of bad answers."""
    times = ", ".join(seconds(quantile(runs.reactions_s, q)) for q in (0.5, 0.95))
    bad = ", ".join(f"{quantile(runs.bad_of_detected, q):.0f}" for q in (0.5, 0.95))
    return f"{percent(np.mean(runs.detected))}: {times}; {bad}"


def seconds(value: float) -> str:
    """Return seconds, or that it is never."""
    return f"{value:g} s" if math.isfinite(value) else "never"


def percent(share: float | np.floating) -> str:
    """Return a share in percent with about two digits."""
    value = 100 * float(share)
    if value >= 9.95:  # noqa: PLR2004
        return f"{value:.0f} %" if value >= 99.95 or value == round(value) else f"{value:.1f} %"  # noqa: PLR2004
    return f"{value:.2f} %"


def summary(case: Case, runs: Runs) -> dict[str, object]:
    """Return a case's numbers for JSON."""
    low, high = clopper_pearson(runs.harmful, runs.n)
    delays = runs.delays_s

    def number(value: float) -> float | None:
        return value if math.isfinite(value) else None

    return {
        "scene": case.scene.name,
        "rule": case.rule.name,
        "runs": runs.n,
        "harm": runs.harmful,
        "harm_share_95": [low, high],
        "found_after_onset": int(np.isfinite(delays).sum()),
        "delay_median_s": number(quantile(delays, 0.5)),
        "delay_p95_s": number(quantile(delays, 0.95)),
        "from_first_bad_median_s": number(quantile(runs.reactions_s, 0.5)),
        "from_first_bad_p95_s": number(quantile(runs.reactions_s, 0.95)),
        "bad_mean": float(np.mean(runs.bad)),
        "bad_of_found_median": number(quantile(runs.bad_of_detected, 0.5)),
        "bad_of_found_p95": number(quantile(runs.bad_of_detected, 0.95)),
        "held_mean_s": float(np.mean(runs.held_s)),
    }
