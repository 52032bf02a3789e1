"""The evidence of a drift is the same in every process."""

from __future__ import annotations

import os
import random
import subprocess
import sys

from crossfade.evidence.counters import CATEGORY
from crossfade.evidence.drift import DriftTests
from crossfade.evidence.ledger import SPAN_CELLS, Cell

SPANS = 40


def log_e() -> float:
    """Return the evidence on words of which the canary says other ones more often, in bursts."""
    drawn = random.Random(1)
    words = [f"{CATEGORY}word{i}" for i in range(20)]
    tests = DriftTests(None, has_stable=True)
    for number in range(SPANS):
        stable = {word: drawn.randint(1, 90) for word in words}
        canary = {word: drawn.randint(1, 90 * (1 + i // 7)) for i, word in enumerate(words)}
        tests.take(Cell(number * SPAN_CELLS, canary, canary, stable))
    tests.close()
    return tests.log_e()


def _elsewhere(seed: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", f"import {__name__} as m; print(repr(m.log_e()))"],
        env=os.environ | {"PYTHONPATH": ":".join(sys.path), "PYTHONHASHSEED": seed},
        capture_output=True, text=True, check=True, timeout=30,
    )  # fmt: skip
    return done.stdout.strip()


def test_the_order_of_sets_is_not_in_the_evidence() -> None:
    """It is another one in each process, and sums of floats depend on it in their last digits."""
    assert log_e() > 1
    assert {_elsewhere(seed) for seed in "12"} == {repr(log_e())}
