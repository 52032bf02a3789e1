"""Plays rules over scenes on several processes; the results do not depend on how many."""

from __future__ import annotations

import math
import multiprocessing
import sys
import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from bench.decisions.judging import CHUNK, Drawable, Drawn, Floats, Ints, Rule
from bench.decisions.numbers import Runs

SAY_EVERY_S: Final = 20.0
"""How often progress is said."""

AnyScene = Drawable[Any]
AnyRule = Rule[Any]
"""Of errors or of drift; in a :class:`Case` both are of the same kind."""


@dataclass(frozen=True, slots=True)
class Case:
    """One rule in one scene of its kind."""

    scene: AnyScene
    rule: AnyRule

    @property
    def key(self) -> tuple[str, str]:
        """What tells cases apart."""
        return self.scene.name, self.rule.name


@dataclass(frozen=True, slots=True)
class Sizes:
    """How many runs a case gets."""

    shipped: int
    thresholds: int

    def of(self, rule: AnyRule) -> int:
        """Return the number for a rule."""
        return self.shipped if rule.slow else self.thresholds


@dataclass(frozen=True, slots=True)
class _Task:
    """Some runs of one scene, for several rules."""

    scene: AnyScene
    chunk: int
    rules: tuple[tuple[AnyRule, int], ...]
    """With the number of runs of this chunk that each one judges."""


@dataclass(frozen=True, slots=True)
class _Piece:
    """What one rule did in some runs."""

    chunk: int
    harm_s: Floats
    bad: Ints
    first_bad_s: Floats
    held_s: Floats


def play(cases: Iterable[Case], sizes: Sizes, jobs: int) -> dict[tuple[str, str], Runs]:
    """Play every case once, however often it is named.

    Raises:
        ValueError: two scenes, or two rules, of one name differ.
    """
    scenes: dict[str, AnyScene] = {}
    rules: dict[str, dict[str, AnyRule]] = defaultdict(dict)
    for case in cases:
        if scenes.setdefault(case.scene.name, case.scene) != case.scene:
            raise ValueError(f"two scenes are called {case.scene.name}")
        if rules[case.scene.name].setdefault(case.rule.name, case.rule) != case.rule:
            raise ValueError(f"two rules are called {case.rule.name}")
    tasks = [
        task
        for name, scene in scenes.items()
        for task in _tasks(scene, rules[name].values(), sizes)
    ]
    pieces: dict[tuple[str, str], list[_Piece]] = defaultdict(list)
    progress = _Progress(len(tasks))
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        for scene_name, done in pool.imap_unordered(_work, tasks):
            for rule_name, piece in done:
                pieces[scene_name, rule_name].append(piece)
            progress.one_more(scene_name)
    return {key: _joined(scenes[key[0]], found) for key, found in pieces.items()}


def _tasks(scene: AnyScene, rules: Iterable[AnyRule], sizes: Sizes) -> list[_Task]:
    chosen = list(rules)
    chunks = math.ceil(max(sizes.of(rule) for rule in chosen) / CHUNK)
    return [
        _Task(
            scene,
            chunk,
            tuple(
                (rule, min(CHUNK, sizes.of(rule) - chunk * CHUNK))
                for rule in chosen
                if sizes.of(rule) > chunk * CHUNK
            ),
        )
        for chunk in range(chunks)
    ]


def _work(task: _Task) -> tuple[str, list[tuple[str, _Piece]]]:
    """Draw the runs and let every rule judge them: the same traffic for all of them."""
    batch = task.scene.simulate(task.chunk)
    return task.scene.name, [
        (rule.name, _piece(batch, rule, task.chunk, runs)) for rule, runs in task.rules
    ]


def _piece(batch: Drawn, rule: AnyRule, chunk: int, runs: int) -> _Piece:
    decisions = rule.decide(batch, runs)
    until = np.concatenate([decisions.harm_s, np.full(batch.runs - runs, math.inf)])
    return _Piece(
        chunk,
        decisions.harm_s,
        batch.bad_until(until)[:runs],
        batch.first_bad_s()[:runs],
        decisions.held_s,
    )


def _joined(scene: AnyScene, pieces: list[_Piece]) -> Runs:
    """Join pieces in the order of their chunks, whichever was ready first."""
    ordered = sorted(pieces, key=lambda p: p.chunk)
    return Runs(
        scene.onset_s,
        np.concatenate([p.harm_s for p in ordered]),
        np.concatenate([p.bad for p in ordered]),
        np.concatenate([p.first_bad_s for p in ordered]),
        np.concatenate([p.held_s for p in ordered]),
    )


class _Progress:
    """Says on stderr how far it is, every few seconds."""

    def __init__(self, total: int) -> None:
        self._total, self._done = total, 0
        self._start = self._said = time.monotonic()

    def one_more(self, name: str) -> None:
        """Count one task."""
        self._done += 1
        now = time.monotonic()
        if now - self._said < SAY_EVERY_S and self._done < self._total:
            return
        self._said = now
        passed = now - self._start
        left = passed / self._done * (self._total - self._done)
        print(
            f"{self._done}/{self._total} after {passed:.0f} s, about {left:.0f} s left: {name}",
            file=sys.stderr,
            flush=True,
        )
