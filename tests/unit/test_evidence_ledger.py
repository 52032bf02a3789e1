from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crossfade.evidence.counters import Series, Side
from crossfade.evidence.ledger import Ledger, Limits
from crossfade.evidence.verdicts import Counts

BOTH = Limits(share=0.02, ratio=1.2)


class Pod:
    def __init__(self, side: Side, name: str, phase: int, interval: int) -> None:
        self.side, self.name, self.phase, self.interval = side, name, phase, interval
        self.samples: list[tuple[int, int, int]] = []

    def play(self, rng: random.Random, until: int, per_second: int, rate: float) -> Pod:
        total = errors = 0
        for at in range(self.phase - 60_000, until, self.interval):
            if self.side is Side.STABLE or at > 0:
                new = rng.randrange(per_second * self.interval // 1000 * 2 + 1)
                total, errors = total + new, errors + sum(rng.random() < rate for _ in range(new))
            if rng.random() < 0.02:
                total = errors = 0
            if rng.random() > 0.1:
                self.samples.append((at, total, errors))
        return self

    def series(self, start: int, end: int) -> list[Series]:
        mine = [s for s in self.samples if start < s[0] <= end]
        return [
            Series(self.side, self.name, "total", 1, 0, [(at, n) for at, n, _ in mine]),
            Series(self.side, self.name, "errors", 0, 1, [(at, e) for at, _, e in mine]),
        ]


def pods(seed: int, interval: int, until: int) -> list[Pod]:
    rng = random.Random(seed)
    sides = [Side.CANARY, Side.STABLE, Side.STABLE, Side.CANARY][: rng.randint(2, 4)]
    return [
        Pod(side, f"p{i}", rng.randrange(interval), interval).play(
            rng, until - rng.choice([0, 0, 40_000]), 4, 0.05
        )
        for i, side in enumerate(sides)
    ]


@settings(deadline=None, max_examples=25)
@given(
    st.integers(0, 1000),
    st.sampled_from([1000, 5000, 15_000, 30_000]),
    st.lists(st.integers(1000, 299_000), max_size=40),
    st.booleans(),
)
def test_any_looks_give_the_same_evidence_to_the_last_digit(
    seed: int, interval: int, looks: list[int], has_stable: bool
) -> None:
    stream = [p for p in pods(seed, interval, 300_000) if has_stable or p.side is Side.CANARY]
    whole = Ledger(BOTH, 0, has_stable=has_stable)
    whole.add([s for p in stream for s in p.series(-1_000_000, 300_000)])
    ledger = Ledger(BOTH, 0, has_stable=has_stable)
    start = -1_000_000
    for look in [*sorted(looks), 300_000]:
        ledger.add([s for p in stream for s in p.series(start, look)])
        ledger.standing()
        ledger.answered(60_000)
        start = look
    one, two = whole.standing(), ledger.standing()
    assert (one.canary, one.stable, one.newest) == (two.canary, two.stable, two.newest)
    assert whole.answered(60_000) == ledger.answered(60_000)
    assert one.limit is not None
    assert two.limit is not None
    assert one.limit.log_e() == two.limit.log_e()
    assert one.limit.window() == two.limit.window()
    assert (one.ratio is None) == (two.ratio is None) == (not has_stable)
    if one.ratio and two.ratio:
        assert one.ratio.log_e() == two.ratio.log_e()


def ledger_of(*series: Series, has_stable: bool = True, limits: Limits = BOTH) -> Ledger:
    ledger = Ledger(limits, 0, has_stable=has_stable)
    ledger.add(series)
    return ledger


def counts(side: Side, *samples: tuple[int, int]) -> Series:
    return Series(side, side.value, "total", 1, 0, [(s * 1000, n) for s, n in samples])


def test_the_canary_counts_only_as_far_as_stable_was_scraped() -> None:
    ledger = ledger_of(
        counts(Side.CANARY, (-5, 0), (3, 10), (8, 15)), counts(Side.STABLE, (-1, 0), (4, 90))
    )
    assert ledger.standing().canary == Counts(10)
    assert ledger.answered(0) == 10
    ledger.add([counts(Side.STABLE, (9, 200))])
    assert ledger.standing().canary == Counts(15)
    assert ledger.answered(0) == 15
    assert ledger.answered(3000) == 5


def test_the_canary_counts_alone_when_stable_was_never_scraped() -> None:
    standing = ledger_of(counts(Side.CANARY, (-5, 0), (3, 10))).standing()
    assert standing.canary == Counts(10)
    assert not standing.stable_is_scraped


def test_nothing_is_known_of_a_canary_without_series() -> None:
    assert ledger_of().standing().newest is None


def test_samples_of_an_earlier_life_are_no_series_of_the_canary() -> None:
    ledger = ledger_of(
        counts(Side.CANARY, (-9, 70), (0, 80)), counts(Side.STABLE, (-1, 0), (4, 90))
    )
    assert ledger.standing().newest is None
    ledger.add([counts(Side.CANARY, (5, 80))])
    assert ledger.standing().newest == 5000


def test_a_span_with_one_side_alone_for_a_minute_is_given_up() -> None:
    errors = Series(Side.CANARY, "canary", "errors", 0, 1, [(-5000, 0), (3000, 0), (90_000, 9)])
    ledger = ledger_of(
        counts(Side.CANARY, (-5, 0), (3, 0), (90, 10)),
        errors,
        counts(Side.STABLE, (-1, 0), (4, 100), (5, 100), (91, 100), (92, 100)),
        limits=Limits(ratio=1.0),
    )
    ratio = ledger.standing().ratio
    assert ratio is not None
    assert ratio.log_e() == pytest.approx(0.0)


def test_single_answers_are_forgotten_after_a_while() -> None:
    ledger = ledger_of(
        counts(Side.CANARY, (-5, 0), (3, 10), (2000, 15)), counts(Side.STABLE, (-1, 0), (2001, 1))
    )
    assert ledger.answered(0) == 15
    assert ledger.answered(1) == 5
