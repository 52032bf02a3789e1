"""Run the bench: ``python -m bench.decisions [--runs N] [--only TEXT] [--jobs 2] ...``."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "operator"))

from bench.decisions import drift_tables, plots, published, tables
from bench.decisions.rows import Table, render, summary
from bench.decisions.runner import Sizes, play

DOCUMENTS = "documents"


def main() -> None:
    """Print the tables as Markdown on stdout; progress goes to stderr."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.decisions", description="Decisions on simulated rollouts."
    )
    parser.add_argument("--runs", type=int, default=1000, help="of Crossfade, in each cell")
    parser.add_argument("--threshold-runs", type=int, default=10_000, help="of the other rules")
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="TEXT",
        help="tables or rows with this in their name; may be given several times; "
        f'"{DOCUMENTS}": the rules of others beside what the documents say',
    )
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers there, too")
    parser.add_argument("--plots", type=Path, metavar="DIR", help="draw the pictures there, too")
    parser.add_argument("--list", action="store_true", help="list tables and rows, and stop")
    asked = parser.parse_args()
    chosen = select(asked.only)
    if asked.list:
        for table in chosen:
            print(table.name, *(f"  {row.name}" for row in table.rows), sep="\n")
        return
    compared = not asked.only or any(text in DOCUMENTS for text in asked.only)
    cases = [case for table in chosen for case in table.cases()]
    cases += [figure.case for figure in published.figures()] if compared else []
    cases += plots.cases() if asked.plots else []
    results = play(cases, Sizes(asked.runs, asked.threshold_runs), asked.jobs)
    for table in chosen:
        print(render(table, results))
    if compared:
        print(published.compare(results))
    if asked.plots:
        plots.draw(results, asked.plots)
    if asked.json:
        known = {case.key: case for case in cases}
        numbers = [summary(known[key], results[key]) for key in sorted(results)]
        asked.json.write_text(json.dumps(numbers, indent=1) + "\n")


def select(only: list[str]) -> list[Table]:
    """Return the tables with the rows that are asked for."""
    every = [*tables.tables(), *drift_tables.tables()]
    if not only:
        return every
    wanted = [table.only(text) for table in every for text in only]
    return [table for table in wanted if table.rows]


if __name__ == "__main__":
    main()
