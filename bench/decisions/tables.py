"""The tables on errors: those of the analysis and of its study, and what is beyond them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any, Final

from bench.decisions.judging import Rule
from bench.decisions.rows import Cell, Row, Show, Table
from bench.decisions.runner import Case
from bench.decisions.shipped import STABLE_DEFAULT, STRICT, Policy, Shipped, both, limit
from bench.decisions.thresholds import (
    ARGO_DOCS,
    Kayenta,
    argo,
    fastest,
    flagger,
    sensible_limit,
)
from bench.decisions.traffic import Batch, Burst, ColdStart, Incident, Scene

SPLITS: Final = (0.05, 0.1, 0.25, 0.5)
BASES: Final = (0.001, 0.01, 0.05)
DISPERSIONS: Final = (1.0, 2.0, 5.0)

Changes = dict[str, Any]
"""Of a scene's fields."""

DEFAULT: Final = Shipped("Crossfade, default (1.1 x stable + 0.1 pp)", STABLE_DEFAULT)
STRICTEST: Final = Shipped("Crossfade, strict (1 x stable)", STRICT)


def only_limit(share: float) -> Shipped:
    """Return Crossfade's rule with a limit alone."""
    return Shipped(f"Crossfade, limit {pc(share)}", limit(share))


def with_limit(share: float) -> Shipped:
    """Return Crossfade's rule with a limit and the default comparison."""
    return Shipped(f"Crossfade, default and limit {pc(share)}", both(share))


def thresholds(share: float) -> tuple[Rule[Batch], ...]:
    """Return the rules of others for a limit."""
    return (
        flagger(share, 1),
        flagger(share, 5),
        argo(share, 0),
        argo(share, 3),
        fastest(share),
        ARGO_DOCS,
        Kayenta(),
    )


def pc(share: float) -> str:
    """Return a share in percent."""
    return f"{100 * share:g} %"


def aligned(stable: float, canary: float, split: float, phi: float = 1.0) -> Scene:
    """Return a scene of the study: scrapes each 10 s, all at the moment of the look."""
    return Scene(
        f"{pc(stable)} -> {pc(canary)}, weight {pc(split)}, phi {phi:g}",
        stable_rate=stable,
        canary_rate=canary,
        weights=(split,),
        phi=phi,
        aligned=True,
    )


def as_scraped(scene: Scene) -> Scene:
    """Return the scene with several pods, each scraped at its own phase."""
    return scene.but("scraped apart", aligned=False, pods=(2, 3))


def false_and_found(rule: Rule[Batch], null: Scene, *worse: Scene) -> tuple[Cell, ...]:
    """Return the cells of a row: a healthy canary, and worse ones."""
    return (
        Cell(Case(null, rule), Show.FALSE),
        *(Cell(Case(scene, rule), Show.FOUND) for scene in worse),
    )


# Of analysis.md, table 1.


def first_tables() -> Iterator[Table]:
    """Yield table 1 of analysis.md for each split and base rate that it speaks of."""
    for base, split in ((0.01, 0.1), (0.01, 0.05), (0.001, 0.1), (0.05, 0.1)):
        worse = 5 * base
        scenes = [aligned(base, rate, split) for rate in (base, worse, 0.5)]
        share = sensible_limit(base)
        rules: list[Rule[Batch]] = [*thresholds(share), DEFAULT, STRICTEST, only_limit(share)]
        rows = [Row(rule.name, false_and_found(rule, *scenes)) for rule in rules]
        rows += [
            Row(f"{rule.name}, pods scraped apart", false_and_found(rule, *map(as_scraped, scenes)))
            for rule in (DEFAULT, with_limit(share))
        ]
        yield Table(
            f"analysis 1: base {pc(base)}, weight {pc(split)}",
            f"Threshold {pc(share)}, 20 requests/s, a look each 10 s for 30 min. "
            "Found: share: median, 95 % quantile; mean of bad answers up to there.",
            ("false rollbacks", f"{pc(base)} → {pc(worse)}", f"{pc(base)} → 50 %"),
            tuple(rows),
        )


# Of the study.


def false_grid() -> Iterator[Table]:
    """Yield the false rollbacks of the study's 36 cells."""
    for phi, base in product(DISPERSIONS, BASES):
        share = sensible_limit(base)
        rules: list[Rule[Batch]] = [DEFAULT, STRICTEST, with_limit(share), *thresholds(share)]
        yield Table(
            f"false rollbacks: base {pc(base)}, phi {phi:g}",
            f"Threshold {pc(share)}, as in the study.",
            tuple(f"weight {pc(split)}" for split in SPLITS),
            tuple(
                Row(
                    rule.name,
                    tuple(
                        Cell(Case(aligned(base, base, split, phi), rule), Show.FALSE)
                        for split in SPLITS
                    ),
                )
                for rule in rules
            ),
        )


def detection() -> Iterator[Table]:
    """Yield the study's detection tables; each cell's false rollbacks are in the line below."""
    for base, worse in ((0.01, 0.05), (0.01, 0.2), (0.001, 0.01), (0.01, 0.02)):
        share = sensible_limit(base)
        rules: list[Rule[Batch]] = [DEFAULT, STRICTEST, *thresholds(share)]
        rows = []
        for rule in rules:
            for show, rate, said in (
                (Show.FOUND, worse, rule.name),
                (Show.FALSE, base, f"{rule.name}: false rollbacks"),
            ):
                cells = (Cell(Case(aligned(base, rate, s), rule), show) for s in SPLITS)
                rows.append(Row(said, tuple(cells)))
        yield Table(
            f"detection: {pc(base)} -> {pc(worse)}",
            f"Threshold {pc(share)}. Found: share: median, 95 % quantile; mean of bad answers.",
            tuple(f"weight {pc(split)}" for split in SPLITS),
            tuple(rows),
        )


# Beyond.

BURST: Final = Burst(every_s=60, seconds=3, rate=0.5)
FIRST_BURST: Final = Burst(every_s=60, seconds=3, rate=0.5, first_s=1)
"""Also where what stable counted of it begins before the canary's first request."""

ONE_BURST: Final = Incident(start_s=1, seconds=3, factor=50)
"""The same, and nothing like it was ever seen before."""

INCIDENT: Final = Incident(start_s=600, seconds=120, factor=10)

APART: Final = Scene("1 %, scraped apart", pods=(2, 3))


def shared_failures() -> Table:
    """Return failures that hit both versions, scraped at different moments."""
    rules: list[Rule[Batch]] = [
        DEFAULT,
        with_limit(0.02),
        flagger(0.02, 5),
        argo(0.02, 3),
        Kayenta(),
    ]
    rows = []
    failures: list[tuple[str, Changes]] = [
        ("bursts, 50 % for 3 s each minute", {"burst": BURST}),
        ("bursts from second 1 on", {"burst": FIRST_BURST}),
        ("one burst in second 1", {"incident": ONE_BURST}),
        ("incident, 10 x for 2 min", {"incident": INCIDENT}),
    ]
    for what, changes in failures:
        for rate, scrape, split in product((20.0, 200.0), (5.0, 15.0, 30.0), (0.1, 0.5, 0.9)):
            scene = APART.but(
                f"{what}, {scrape:g}-s scrape, weight {pc(split)}, {rate:g} requests/s",
                requests_per_second=rate,
                scrape_s=scrape,
                look_s=min(scrape, 10.0),
                weights=(split,),
                **changes,
            )
            cells = [Cell(Case(scene, rule), Show.FALSE) for rule in rules]
            cells.insert(2, Cell(Case(scene, rules[1]), Show.HELD))
            rows.append(Row(scene.name.partition("; ")[2], tuple(cells)))
    columns = [rule.name for rule in rules]
    columns.insert(2, "the same: without an answer, in a run")
    return Table(
        "shared failures",
        "Healthy canaries: false rollbacks. 2 pods of the canary, 3 of stable.",
        tuple(columns),
        tuple(rows),
    )


@dataclass(frozen=True, slots=True)
class _Pair:
    """A healthy and a worse canary under the same circumstances."""

    name: str
    null: Scene
    worse: Scene


def _pairs() -> list[_Pair]:
    five: Changes = {"canary_rate": 0.05}
    reset: Changes = {"restart_every_s": 300.0}
    changing: Changes = {"weights": (0.05, 0.1, 0.25, 0.5, 0.25, 0.1)}
    sparse: Changes = {"requests_per_second": 1.0, "minutes": 120.0}
    late: Changes = {"onset_s": 900.0}
    pairs: list[tuple[str, Changes, Changes]] = [
        ("scraped each 1 s", {"scrape_s": 1.0}, five),
        ("scraped each 5 s", {"scrape_s": 5.0}, five),
        ("scraped each 15 s", {"scrape_s": 15.0}, five),
        ("scraped each 30 s", {"scrape_s": 30.0}, five),
        ("30 % of scrapes lost", {"lost": 0.3}, five),
        ("each pod restarts each 5 min", reset, five),
        ("weight changes each minute", changing, five),
        ("five metrics, one worse", {"metrics": 5}, five),
        ("worse from minute 15 on", {}, {**five, **late}),
        ("50 % from minute 15 on", {}, {"canary_rate": 0.5, **late}),
        ("0.1 requests/s on the canary, 2 h, 20 %", sparse, {"canary_rate": 0.2}),
        ("0.1 requests/s on the canary, 2 h, 50 %", sparse, {"canary_rate": 0.5}),
    ]
    found = []
    for name, changes, worse in pairs:
        null = APART.but(**changes)
        found.append(_Pair(name, null, null.but(**worse)))
    return found


def circumstances() -> Table:
    """Return what may go wrong with scrapes, pods, traffic and time."""
    rules: list[Rule[Batch]] = [DEFAULT, with_limit(0.02), flagger(0.02, 5), argo(0.02, 3)]
    rows = [
        Row(
            pair.name,
            tuple(cell for rule in rules for cell in false_and_found(rule, pair.null, pair.worse)),
        )
        for pair in _pairs()
    ]
    return Table(
        "circumstances",
        "1 % → 5 % where nothing else is said; 20 requests/s, weight 10 %, a look each 10 s.",
        tuple(c for rule in rules for c in (f"{rule.name}: false", "found")),
        tuple(rows),
    )


def cold_start() -> Table:
    """Return a canary that is bad in its first 30 s, and what warm-up makes of it."""
    scene = APART.but("cold start, 30 % for 30 s", cold=ColdStart(30, 0.3))
    worse = scene.but("then 5 %", canary_rate=0.05)
    warm = Shipped(f"{DEFAULT.name}, warm-up 30 s", Policy(ratio=1.1, slack=0.001, warmup_s=30))
    rules: list[Rule[Batch]] = [warm, DEFAULT, flagger(0.02, 1), flagger(0.02, 5), argo(0.02, 3)]
    return Table(
        "cold start",
        "A healthy canary that fails 30 % in its first 30 s; the same, then 5 %. "
        "Without a warm-up, and for the others, those 30 s are what it is.",
        ("taken back", "then 5 %"),
        tuple(Row(rule.name, false_and_found(rule, scene, worse)) for rule in rules),
    )


# Reactions, the rows of the first rule.

LIMIT: Final = only_limit(0.02)
BOTH: Final = with_limit(0.02)


def reactions() -> Table:
    """Return the times from the first bad answer to harm, with fast scrapes."""
    base = Scene("reaction, 1-s scrape", scrape_s=1, look_s=1, minutes=5)
    slow = Scene("reaction, 5-s scrape", scrape_s=5, look_s=5, minutes=5)
    gross: Changes = {"canary_rate": 0.5}
    spotless: Changes = {"minutes": 15.0, "stable_rate": 0.0, "canary_rate": 0.0}
    lines: list[tuple[str, Scene, Changes, Changes, Shipped]] = [
        ("50 %", base, {}, gross, LIMIT),
        ("50 %, 5-s scrape", slow, {}, gross, LIMIT),
        ("50 % from second 8 on", base, {}, {**gross, "onset_s": 8.0}, LIMIT),
        ("50 % from second 60 on", base, {}, {**gross, "onset_s": 60.0}, LIMIT),
        ("50 % from minute 10 on", base, {"minutes": 15.0}, {**gross, "onset_s": 600.0}, LIMIT),
        ("the same, no error before", base, spotless, {**gross, "onset_s": 600.0}, LIMIT),
        ("50 % from second 8 on, 5-s scrape", slow, {}, {**gross, "onset_s": 8.0}, LIMIT),
        ("50 % from second 60 on, 5-s scrape", slow, {}, {**gross, "onset_s": 60.0}, LIMIT),
        ("50 % from minute 10 on, 5-s scrape", slow, {"minutes": 15.0},
         {**gross, "onset_s": 600.0}, LIMIT),
        ("50 %, beside stable", base, {}, gross, DEFAULT),
        ("50 %, both", base, {}, gross, BOTH),
        ("20 %", base, {"minutes": 15.0}, {"canary_rate": 0.2}, LIMIT),
        ("20 %, beside stable", base, {"minutes": 15.0}, {"canary_rate": 0.2}, DEFAULT),
        ("5 %, 5-s scrape", slow, {"minutes": 30.0}, {"canary_rate": 0.05}, LIMIT),
        ("5 % from minute 10 on, 5-s scrape", slow, {"minutes": 40.0},
         {"canary_rate": 0.05, "onset_s": 600.0}, LIMIT),
        ("5 %, beside stable, 5-s scrape", slow, {"minutes": 30.0}, {"canary_rate": 0.05}, DEFAULT),
        ("5 %, both, 5-s scrape", slow, {"minutes": 30.0}, {"canary_rate": 0.05}, BOTH),
    ]  # fmt: skip
    rows = []
    for name, scene, changes, worse, rule in lines:
        null = scene.but(**changes)
        bad = null.but(**worse)
        cells = (Cell(Case(bad, rule), Show.REACTION), Cell(Case(null, rule), Show.FALSE))
        rows.append(Row(f"{name} ({rule.name})", cells))
    return Table(
        "reactions",
        "1 % errors before, 20 requests/s, weight 10 %, a look at each scrape. Found: share: from "
        "the first bad answer to harm, median and 95 % quantile; bad answers, the same.",
        ("found", "false rollbacks of a healthy canary in the same time"),
        tuple(rows),
    )


def healthy_fast() -> Table:
    """Return healthy canaries under fast scrapes, the rows of the first rule."""
    rules: list[Rule[Batch]] = [LIMIT, DEFAULT, BOTH]
    rows = []
    for scrape in (1.0, 5.0):
        base = Scene(f"healthy, {scrape:g}-s scrape", scrape_s=scrape, look_s=scrape)
        lines: list[tuple[str, Changes]] = [
            ("1 %", {}),
            ("2 %, the limit itself", {"canary_rate": 0.02, "stable_rate": 0.02}),
            ("both at 10 % for 2 min", {"incident": INCIDENT}),
            ("both at 50 % for 3 s each minute", {"burst": BURST}),
            ("the same from second 1 on", {"burst": FIRST_BURST}),
            ("one such burst in second 1", {"incident": ONE_BURST}),
        ]
        for name, changes in lines:
            scene = base.but(name, **changes)
            cells = [Cell(Case(scene, rule), Show.FALSE) for rule in rules]
            rows.append(Row(f"{name}, {scrape:g}-s scrape", tuple(cells)))
    return Table(
        "healthy, scraped fast",
        "False rollbacks in 30 min; 20 requests/s, weight 10 %, a look at each scrape.",
        tuple(rule.name for rule in rules),
        tuple(rows),
    )


def tables() -> Iterator[Table]:
    """Yield every table on errors."""
    yield from first_tables()
    yield from false_grid()
    yield from detection()
    yield shared_failures()
    yield circumstances()
    yield cold_start()
    yield reactions()
    yield healthy_fast()
