from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crossfade.evidence.counters import BAD, REQUESTS, CounterFold, Series, Side
from crossfade.evidence.dispersion import Dispersion, RateDifferences
from crossfade.evidence.eprocesses import (
    LimitTest,
    MarginTest,
    StableRate,
)
from crossfade.evidence.kernel import Tolerance
from crossfade.evidence.ledger import Cell, Ledger, Pairing, Tally, add_to
from crossfade.evidence.rates import Limits, RateTests
from crossfade.evidence.verdicts import Counts

SINCE_S = 1_000_000
SINCE = SINCE_S * 1000
STRICT = Tolerance(1.0, 0.0)
BOTH = Limits(share=0.02, tolerance=Tolerance(1.2, 0.001))


@dataclass
class Recorder:
    """Keeps the cells."""

    learned: list[Cell] = field(default_factory=list)
    taken: list[Cell] = field(default_factory=list)

    def learn(self, cell: Cell) -> None:
        self.learned.append(cell)

    def take(self, cell: Cell) -> None:
        self.taken.append(cell)

    def copy(self) -> Self:
        return type(self)(list(self.learned), list(self.taken))

    @property
    def canary(self) -> Tally:
        return total(cell.canary for cell in self.taken)

    @property
    def stable(self) -> Tally:
        return total(cell.stable for cell in self.taken)


def total(tallies: Iterable[Tally]) -> Tally:
    every: Tally = {}
    for tally in tallies:
        add_to(every, tally)
    return every


class Pod:
    """A pod that lives for a while, is scraped more or less regularly, and restarts at times."""

    def __init__(self, rng: random.Random, side: Side, name: str, interval: int) -> None:
        self.side, self.name = side, name
        self.late = rng.choice((0, 0, 2000, 9000))
        """How long after a scrape its samples can be read."""
        begins, ends = rng.choice(
            ((-60_000, 300_000),) * 3 + ((40_000, 300_000), (-60_000, 150_000))
        )
        self.samples: list[tuple[int, int, int]] = []
        lossy, loses_from = rng.choice((0.1, 0.1, 0.6)), rng.randrange(300_000)
        dark_from, dark_for = rng.randrange(300_000), rng.choice((0, 17_000, 25_000, 40_000))
        requests = errors = 0
        for at in range(begins + rng.randrange(interval), ends, interval):
            if side is Side.STABLE or at > 0:
                new = rng.randrange(interval // 125 + 2)
                requests, errors = (
                    requests + new,
                    errors + sum(rng.random() < 0.05 for _ in range(new)),
                )
            if rng.random() < 0.02:
                requests = errors = 0
            lost = rng.random() < (lossy if at > loses_from else 0.1)
            if not lost and not 0 <= at - dark_from < dark_for:
                self.samples.append((SINCE + at, requests, errors))

    def between(self, start: int, end: int) -> list[Series]:
        """Return what can be read at ``end`` and could not be at ``start``."""
        mine = [s for s in self.samples if start < s[0] + self.late <= end]
        return [
            Series(self.side, self.name, "total", {REQUESTS: 1}, [(at, n) for at, n, _ in mine]),
            Series(self.side, self.name, "errors", {BAD: 1}, [(at, e) for at, _, e in mine]),
        ]


def pods_of(seed: int, interval: int, *, has_stable: bool) -> list[Pod]:
    rng = random.Random(seed)
    sides = [Side.CANARY, Side.STABLE, Side.STABLE, Side.CANARY][: rng.randint(2, 4)]
    pods = [Pod(rng, side, f"p{i}", interval) for i, side in enumerate(sides)]
    return [pod for pod in pods if has_stable or pod.side is Side.CANARY]


BEGINNING, END = SINCE - 1_000_000, SINCE + 320_000
LOOKS = st.one_of(
    st.lists(st.integers(SINCE - 60_000, END), max_size=30),
    st.integers(2000, 9000).map(lambda every: list(range(SINCE - 60_000, END, every))),
)


def played(ledger: Ledger[Any], pods: list[Pod], looks: Sequence[int], standing: str) -> None:
    """Read everything up to each look, and then the rest."""
    start = BEGINNING
    for look in [*sorted(looks), END]:
        ledger.add([series for pod in pods for series in pod.between(start, look)])
        if "s" in standing:
            ledger.standing()
        if "a" in standing:
            ledger.answered(SINCE + 60_000)
        start = look


def state(value: object) -> object:
    """Return everything that is in an object, to the last digit."""
    names = [n for c in type(value).__mro__ for n in getattr(c, "__slots__", ())]
    names += list(getattr(value, "__dict__", ()))
    if names:
        return {name: state(getattr(value, name)) for name in names}
    return [state(v) for v in value] if isinstance(value, (list, tuple)) else value


@settings(deadline=None, max_examples=40)
@given(
    st.integers(0, 1000),
    st.sampled_from([1000, 5000, 15_000, 30_000]),
    LOOKS,
    st.booleans(),
    st.sampled_from([0, 30_000]),
    st.sampled_from(["s", "sa", "a", ""]),
)
def test_any_looks_give_the_same_evidence_to_the_last_digit(
    seed: int, interval: int, looks: list[int], has_stable: bool, warmup: int, asks: str
) -> None:
    pods = pods_of(seed, interval, has_stable=has_stable)

    def fresh() -> Ledger[RateTests]:
        tests = RateTests(BOTH, has_stable=has_stable)
        return Ledger(tests, SINCE, has_stable=has_stable, warmup=warmup)

    whole, ledger = fresh(), fresh()
    played(whole, pods, [], "")
    played(ledger, pods, looks, asks)
    assert state(ledger.standing()) == state(whole.standing())
    assert ledger.seen() == whole.seen()
    assert ledger.answered(SINCE + 60_000) == whole.answered(SINCE + 60_000)


@settings(deadline=None, max_examples=40)
@given(
    st.integers(0, 1000),
    st.sampled_from([1000, 5000, 15_000, 30_000]),
    LOOKS,
    st.booleans(),
    st.sampled_from([0, 30_000]),
)
def test_every_increment_is_in_one_cell_and_the_cells_are_in_order(
    seed: int, interval: int, looks: list[int], has_stable: bool, warmup: int
) -> None:
    pods = pods_of(seed, interval, has_stable=has_stable)
    ledger = Ledger(Recorder(), SINCE, has_stable=has_stable, warmup=warmup)
    played(ledger, pods, looks, "s")
    told = ledger.standing()
    fold = CounterFold(SINCE, canary_is_new=has_stable, warmup=warmup)
    increments = fold.add([s for pod in pods for s in pod.between(BEGINNING, END)])
    horizon = fold.covered_by(Side.STABLE) if has_stable else None
    expected: dict[Side, Tally] = {Side.CANARY: {}, Side.STABLE: {}}
    for one in increments:
        if one.side is Side.STABLE or horizon is None or one.end <= horizon:
            add_to(expected[one.side], one.tally)
    assert told.canary == expected[Side.CANARY]
    everything = told.stable
    add_to(everything, total(cell.stable for cell in told.learned))
    assert everything == expected[Side.STABLE]
    numbers = [cell.number for cell in [*told.learned, *told.taken]]
    assert numbers == sorted(set(numbers))
    first = (SINCE + warmup) // 1000
    assert all(cell.number < first and not cell.canary for cell in told.learned)
    if has_stable:
        assert all(cell.number >= first for cell in told.taken)


def ledger_of(*series: Series, has_stable: bool = True, warmup: int = 0) -> Ledger[Recorder]:
    ledger = Ledger(Recorder(), SINCE, has_stable=has_stable, warmup=warmup * 1000)
    ledger.add(series)
    return ledger


def counts(side: Side, *samples: tuple[float, int], pod: str = "", what: str = REQUESTS) -> Series:
    """Return samples at seconds since the evidence began."""
    times = [(SINCE + round(s * 1000), n) for s, n in samples]
    return Series(side, pod or side.value, what, {what: 1}, times)


def requests(tally: Tally) -> int:
    return tally.get(REQUESTS, 0)


def test_the_canary_counts_only_as_far_as_stable_was_scraped() -> None:
    ledger = ledger_of(
        counts(Side.CANARY, (-5, 0), (3, 10), (8, 15)), counts(Side.STABLE, (-1, 0), (4, 90))
    )
    assert ledger.standing().canary == {REQUESTS: 10}
    assert ledger.answered(SINCE) == 10
    ledger.add([counts(Side.STABLE, (9, 200))])
    assert ledger.standing().canary == {REQUESTS: 15}
    assert ledger.answered(SINCE) == 15
    assert ledger.answered(SINCE + 3000) == 5


def test_the_canary_counts_alone_when_stable_was_never_scraped() -> None:
    ledger = ledger_of(counts(Side.CANARY, (-5, 0), (3, 10)))
    assert ledger.standing().canary == {REQUESTS: 10}
    assert not ledger.seen().stable_is_scraped


def test_stable_is_booked_at_the_start_of_its_scrape_and_the_canary_at_the_end() -> None:
    told = ledger_of(
        counts(Side.CANARY, (-3, 0), (2, 1), (7, 3)),
        counts(Side.STABLE, (-1, 0), (4.5, 10), (9.5, 30), (80, 100)),
    ).standing()
    assert [(c.number - SINCE_S, c.canary, c.stable) for c in [*told.learned, *told.taken]] == [
        (-1, {}, {REQUESTS: 10}),
        (1, {REQUESTS: 1}, {}),
        (4, {}, {REQUESTS: 20}),
        (6, {REQUESTS: 2}, {}),
        (50, {}, {REQUESTS: 70}),  # a long gap: 30 s before its end
    ]


def test_partial_intervals_of_the_canary_are_not_whole() -> None:
    told = ledger_of(
        counts(Side.CANARY, (-3, 0), (2, 1), (7, 3)), counts(Side.STABLE, (-1, 0), (0, 0), (9, 10))
    ).standing()
    assert told.canary == {REQUESTS: 3}
    assert total(cell.canary_whole for cell in told.taken) == {REQUESTS: 2}


def test_the_canary_is_compared_from_when_stables_last_old_interval_is_over() -> None:
    """What hits both in the first seconds is in an interval of stable's with much from before."""
    told = ledger_of(
        counts(Side.CANARY, (-2, 0), (0, 0), (3, 5), (6, 9), (9, 16)),
        counts(Side.STABLE, (-6, 0), (4, 80), (14, 90)),
    ).standing()
    assert told.canary == {REQUESTS: 16}
    assert total(cell.canary_whole for cell in told.taken) == {REQUESTS: 16 - 9}


def test_nothing_is_known_of_a_canary_without_series() -> None:
    ledger = ledger_of()
    assert ledger.seen().newest is None
    assert ledger.standing() == Recorder()
    assert ledger.answered(SINCE) == 0


def test_samples_of_an_earlier_life_are_no_series_of_the_canary() -> None:
    ledger = ledger_of(
        counts(Side.CANARY, (-9, 70), (0, 80)), counts(Side.STABLE, (-1, 0), (4, 90))
    )
    assert ledger.seen().newest is None
    ledger.add([counts(Side.CANARY, (5, 80))])
    assert ledger.seen().newest == SINCE + 5000
    assert ledger.standing().canary == {}


def test_what_stable_did_before_is_learned_and_not_counted() -> None:
    tests = RateTests(Limits(tolerance=STRICT), has_stable=True)
    ledger = Ledger(tests, SINCE, has_stable=True)
    times = range(-300, 1, 5)
    ledger.add(
        [
            counts(Side.STABLE, *((t, 20 * (t + 300)) for t in times)),
            counts(Side.STABLE, *((t, t + 300) for t in times), what=BAD),
        ]
    )
    before = ledger.standing()
    assert before.usual.share == pytest.approx(0.05, rel=0.02)
    assert before.dispersion.is_known
    assert before.history == Counts(6000, 300)
    assert before.stable == before.canary == Counts()
    assert before.margin is not None
    assert before.margin.log_e() == 0.0
    ledger.add(
        [
            counts(Side.STABLE, (5, 6100), (10, 6200)),
            counts(Side.STABLE, (5, 305), (10, 310), what=BAD),
            counts(Side.CANARY, (-4, 0), (1, 3), (6, 10)),
        ]
    )
    assert ledger.standing().stable == Counts(200, 10)
    assert ledger.standing().canary == Counts(10, 0)


def test_what_a_canary_did_before_its_warm_up_was_over_does_not_count() -> None:
    """Its pod was scraped before the evidence began, so it is warm so long after the beginning.

    Stable's is warm at 20 s. What it did between 15 s and 25 s may be of either time.
    """
    ledger = ledger_of(
        counts(Side.CANARY, (-10, 0), (10, 5), (30, 20), (40, 27)),
        counts(Side.STABLE, (-10, 0), (15, 100), (25, 120), (35, 150), (45, 170)),
        warmup=30,
    )
    told = ledger.standing()
    assert told.canary == {REQUESTS: 7}
    assert ledger.answered(SINCE) == 7
    assert total(cell.stable for cell in told.learned) == {REQUESTS: 150 - 120}
    assert told.stable == {REQUESTS: 20}


@pytest.mark.parametrize(("side", "counted"), [(Side.CANARY, (14, 50)), (Side.STABLE, (10, 54))])
def test_a_pod_that_comes_later_warms_up_by_its_own_first_sample(
    side: Side, counted: tuple[int, int]
) -> None:
    ledger = ledger_of(
        counts(Side.CANARY, (-10, 0), (90, 0), (95, 10), (195, 10)),
        counts(Side.STABLE, (-10, 0), (91, 0), (96, 50), (196, 50)),
        counts(side, (100, 8), (125, 30), (135, 33), (140, 37), pod="late"),
        warmup=30,
    )
    told = ledger.standing()
    assert (requests(told.canary), requests(told.stable)) == counted


def spans(*of: tuple[Counts, Counts]) -> list[Cell]:
    """Return cells, one in each block."""

    def tally(counts: Counts) -> Tally:
        return {REQUESTS: counts.requests, BAD: counts.bad}

    return [
        Cell(100 + 5 * i, tally(canary), tally(canary), tally(stable))
        for i, (canary, stable) in enumerate(of)
    ]


def test_a_span_is_judged_by_what_was_known_before_it() -> None:
    """Else a bet would depend on what it is about."""
    of = [(Counts(50, 5 * (i % 3)), Counts(450, 2 + 9 * (i % 2))) for i in range(12)]
    tests = RateTests(BOTH, has_stable=True)
    limit, margin = LimitTest(0.02), MarginTest(Tolerance(1.2, 0.001))
    known, before = Dispersion(RateDifferences), Dispersion(RateDifferences)
    usual = StableRate()
    for cell, (canary, stable) in zip(spans(*of), of, strict=True):
        tests.take(cell)
        limit.step(canary, canary, stable, cell.number * 1000, before)
        margin.step(canary, stable, usual.share, known)
        before = known.copy()  # the span ends, and is learned, after the next one's first cell
        known.learn(canary, stable)
        usual.learn(stable)
    tests.close()
    assert tests.limit is not None
    assert tests.margin is not None
    assert tests.limit.log_e() == limit.log_e()
    assert tests.margin.log_e() == margin.log_e()
    assert known.phi > 2


def test_the_span_that_is_open_counts_for_what_is_known_right_now() -> None:
    tests = RateTests(Limits(tolerance=STRICT), has_stable=True)
    for one in spans((Counts(50, 20), Counts(450, 1))):
        tests.take(one)
    assert tests.margin is not None
    assert tests.margin.log_e() == 0.0
    looked = tests.copy()
    looked.close()
    assert looked.margin is not None
    assert looked.margin.log_e() > 2
    assert tests.margin.log_e() == 0.0


def test_a_version_alone_is_not_compared() -> None:
    tests = RateTests(Limits(tolerance=STRICT), has_stable=True)
    tests.take(Cell(100, {REQUESTS: 50, BAD: 20}, {REQUESTS: 50, BAD: 20}, {}))
    tests.close()
    assert tests.margin is not None
    assert tests.margin.log_e() == 0.0


def test_requests_a_second_are_those_of_both_versions() -> None:
    tests = RateTests(BOTH, has_stable=True)
    assert tests.per_second == 0.0
    for one in spans((Counts(10, 0), Counts(100, 0)), (Counts(20, 0), Counts(200, 0))):
        tests.take(one)
    assert tests.per_second == (30 + 300) / 6


def test_single_answers_are_forgotten_after_a_while() -> None:
    ledger = ledger_of(
        counts(Side.CANARY, (-5, 0), (3, 10), (2000, 15)), counts(Side.STABLE, (-1, 0), (2001, 1))
    )
    assert ledger.answered(SINCE) == 15
    assert ledger.answered(SINCE + 1) == 5


def cell(number: int, canary: int, stable: int, whole: int | None = None) -> Cell:
    def tally(n: int) -> Tally:
        return {REQUESTS: n} if n else {}

    return Cell(number, tally(canary), tally(canary if whole is None else whole), tally(stable))


def ended(*cells: Cell) -> list[tuple[int, int, int]]:
    """Return by which cell a span ended, and its requests."""
    pairing, out = Pairing(), []
    for one in cells:
        span = pairing.push(one)
        if span is not None:
            out.append((one.number, requests(span[0]), requests(span[1])))
    return out


def test_a_span_ends_with_its_block() -> None:
    assert ended(cell(101, 1, 10), cell(104, 2, 20), cell(105, 4, 40), cell(110, 8, 80)) == [
        (105, 3, 30),
        (110, 4, 40),
    ]


def test_a_span_goes_on_until_both_versions_counted_something() -> None:
    assert ended(cell(100, 0, 10), cell(107, 0, 20), cell(113, 5, 40), cell(115, 9, 9)) == [
        (115, 5, 70)
    ]


def test_a_span_compares_whole_increments_only() -> None:
    assert ended(cell(100, 9, 10, whole=0), cell(103, 2, 20), cell(105, 1, 1)) == [(105, 2, 30)]


def test_a_span_with_one_side_alone_for_a_minute_is_given_up() -> None:
    assert ended(cell(100, 0, 10), cell(155, 5, 40), cell(160, 1, 1)) == [(160, 5, 50)]
    assert ended(cell(100, 0, 10), cell(160, 5, 40), cell(165, 1, 1)) == [(165, 5, 40)]
