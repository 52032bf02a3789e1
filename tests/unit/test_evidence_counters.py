from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossfade.evidence.counters import BAD, REQUESTS, CounterFold, Increment, Series, Side

SINCE = 100_000


def series(
    samples: Sequence[tuple[int, float]],
    *,
    side: Side = Side.STABLE,
    pod: str = "p",
    key: str = "requests",
    adds: str = REQUESTS,
) -> Series:
    return Series(side, pod, key, {adds: 1}, [(s * 1000, v) for s, v in samples])


def total(*parts: list[Series], canary_is_new: bool = True, warmup: int = 0) -> int:
    fold = CounterFold(SINCE, canary_is_new=canary_is_new, warmup=warmup)
    return sum(sum(one.tally.values()) for part in parts for one in fold.add(part))


def test_counts_differences_after_the_baseline() -> None:
    assert total([series([(99, 1000), (101, 1003), (102, 1003), (103, 1010)])]) == 10


def test_counts_from_zero_after_a_reset() -> None:
    assert total([series([(99, 50), (101, 60), (102, 4), (103, 5)])]) == 15


def test_takes_the_first_sample_of_an_old_pod_as_a_baseline() -> None:
    assert total([series([(101, 5000), (102, 5001)])]) == 1


def test_counts_all_that_a_new_canary_pod_ever_did() -> None:
    assert total([series([(101, 7), (102, 9)], side=Side.CANARY)]) == 9


def test_ignores_what_a_canary_did_before_it_had_weight() -> None:
    assert total([series([(99, 7), (102, 9)], side=Side.CANARY)]) == 2


def test_takes_an_old_pod_of_the_judged_version_as_a_baseline_in_probation() -> None:
    assert total([series([(101, 7), (102, 9)], side=Side.CANARY)], canary_is_new=False) == 2


def test_counts_a_new_label_value_of_a_scraped_pod_from_zero() -> None:
    assert total([series([(99, 10), (101, 10)])], [series([(102, 3)], key="new")]) == 3


@pytest.mark.parametrize("value", [math.nan, math.inf, -1.0])
def test_passes_over_what_is_no_count(value: float) -> None:
    assert total([series([(99, 1), (101, value), (102, 4)])]) == 3


def test_sees_nothing_twice() -> None:
    part = [series([(99, 1), (101, 4)])]
    assert total(part, part, [series([(101, 4), (102, 6)])]) == 5


def test_knows_nothing_of_a_pod_without_samples() -> None:
    fold = CounterFold(SINCE, canary_is_new=True)
    assert fold.add([series([])]) == []
    assert (fold.newest(), fold.covered_by(Side.STABLE), fold.resume_at()) == (None, None, None)


def test_marks_an_increment_whose_interval_the_evidence_began_in() -> None:
    fold = CounterFold(SINCE, canary_is_new=True)
    increments = fold.add([series([(99, 1), (101, 2), (103, 4)], side=Side.CANARY, adds=BAD)])
    assert increments == [
        Increment(Side.CANARY, 99_000, 101_000, {BAD: 1}, partial=True),
        Increment(Side.CANARY, 101_000, 103_000, {BAD: 2}, partial=False),
    ]


def test_is_covered_by_the_pod_that_was_scraped_the_longest_ago() -> None:
    fold = CounterFold(SINCE, canary_is_new=True)
    fold.add([series([(101, 1), (106, 1)]), series([(103, 1), (108, 1)], pod="q")])
    assert fold.covered_by(Side.STABLE) == 106_000
    assert fold.spacing() == 5000
    assert fold.resume_at() == 96_000


def test_does_not_wait_for_a_pod_that_is_gone() -> None:
    fold = CounterFold(SINCE, canary_is_new=True)
    fold.add([series([(101, 1), (107, 1)]), series([(117, 1), (125, 1)], pod="q")])
    assert fold.covered_by(Side.STABLE) == 107_000
    fold.add([series([(133, 1)], pod="q")])
    assert fold.covered_by(Side.STABLE) == 133_000


def test_a_pod_that_is_gone_does_not_come_back_when_another_misses_scrapes() -> None:
    """Evidence that was taken in without it would have to be taken back."""
    fold = CounterFold(SINCE, canary_is_new=True)
    fold.add([series([(101, 1), (106, 1)]), series([(120, 1), (125, 1)], pod="q")])
    assert fold.covered_by(Side.STABLE) == 125_000
    fold.add([series([(130, 1), (190, 1)], pod="new")])
    assert fold.spacing() == 60_000
    assert fold.covered_by(Side.STABLE) == 190_000
    fold.add([series([(191, 1)])])
    assert fold.covered_by(Side.STABLE) == 190_000, "it is scraped again"
    fold.add([series([(195, 1)], pod="new")])
    assert fold.covered_by(Side.STABLE) == 191_000


def test_takes_a_pod_with_one_sample_to_be_scraped_as_seldom_as_others() -> None:
    fold = CounterFold(SINCE, canary_is_new=True)
    fold.add([series([(110, 1), (140, 1)], pod="q"), series([(105, 1)])])
    assert fold.covered_by(Side.STABLE) == 105_000


def test_counts_a_canary_pod_from_its_first_sample_on_wherever_that_lies() -> None:
    early, late = [(90, 0), (101, 7)], [(150, 9), (155, 12)]
    both = [series(early, side=Side.CANARY), series(late, side=Side.CANARY, pod="q")]
    assert total(both) == 7 + 12


def test_a_canarys_first_sample_marks_no_whole_interval() -> None:
    fold = CounterFold(SINCE, canary_is_new=True)
    increments = fold.add([series([(101, 7), (102, 9)], side=Side.CANARY)])
    assert [(one.tally, one.partial) for one in increments] == [
        ({REQUESTS: 7}, True),
        ({REQUESTS: 2}, False),
    ]


@pytest.mark.parametrize(
    ("side", "samples", "counted"),
    [
        (Side.CANARY, [(101, 7), (110, 9), (112, 12), (113, 14)], 2),
        (Side.CANARY, [(90, 0), (109, 7), (112, 9)], 0),
        (Side.CANARY, [(90, 0), (101, 7), (110, 9), (111, 13), (112, 14)], 5),
        (Side.CANARY, [(150, 7), (160, 8), (161, 9)], 1),
        (Side.STABLE, [(150, 7), (160, 8), (161, 9)], 1),
        (Side.STABLE, [(50, 7), (60, 8), (61, 10), (101, 13)], 5),
        (Side.STABLE, [(50, 7), (59, 8), (61, 10), (101, 13)], 3),
    ],
)
def test_leaves_out_what_a_pod_counts_while_it_warms_up(
    side: Side, samples: list[tuple[int, float]], counted: int
) -> None:
    """Also what it counts between two scrapes of which only the second is after the warm-up."""
    assert total([series(samples, side=side)], warmup=10_000) == counted


def test_a_pod_that_is_old_is_warm_in_probation() -> None:
    """What may be from before the evidence began is dropped all the same, with a warm-up."""
    old = [series([(80, 7), (99, 9), (101, 12), (102, 16)], side=Side.CANARY)]
    assert total(old, canary_is_new=False, warmup=10_000) == 4
    assert total(old, canary_is_new=False) == 3 + 4


@pytest.mark.parametrize("side", Side)
def test_no_increment_is_partial_at_the_end_of_a_warm_up(side: Side) -> None:
    fold = CounterFold(SINCE, canary_is_new=True, warmup=10_000)
    increments = fold.add([series([(101, 7), (110, 9), (112, 12), (113, 14)], side=side)])
    assert increments == [Increment(side, 112_000, 113_000, {REQUESTS: 2}, partial=False)]


def test_a_count_adds_what_its_series_says() -> None:
    fold = CounterFold(SINCE, canary_is_new=True)
    bucket = {"0.5": 1, "1": -1}
    (one,) = fold.add(
        [
            Series(Side.STABLE, "p", "le=0.5", bucket, [(99_000, 1), (101_000, 4)]),
            Series(Side.STABLE, "p", "le=1", {"1": 1}, [(99_000, 1), (101_000, 9)]),
        ]
    )
    assert one.tally == {"0.5": 3, "1": 5}, "one increment of all series of a scrape"


@st.composite
def streams(draw: st.DrawFn) -> list[Series]:
    """Pods that come, go, miss scrapes and restart, with two series each."""
    out = []
    for pod in range(draw(st.integers(1, 3))):
        side = draw(st.sampled_from(Side))
        times = sorted(draw(st.sets(st.integers(90, 130), min_size=1, max_size=12)))
        for key, adds in (("total", REQUESTS), ("errors", BAD)):
            first = draw(st.integers(0, len(times) - 1))
            values = [float(draw(st.integers(0, 40))) for _ in times[first:]]
            out.append(
                series(
                    list(zip(times[first:], values, strict=True)),
                    side=side, pod=f"p{pod}", key=key, adds=adds,
                )
            )  # fmt: skip
    return out


def between(stream: list[Series], start: int, end: int) -> list[Series]:
    return [
        Series(
            s.side, s.pod, s.key, s.adds,
            [sample for sample in s.samples if start < sample[0] <= end],
        )
        for s in stream
    ]  # fmt: skip


@given(
    streams(),
    st.lists(st.integers(88, 131), max_size=8),
    st.integers(0, 5),
    st.booleans(),
    st.integers(0, 15),
)
def test_gives_the_same_increments_in_any_portions(
    stream: list[Series], cuts: list[int], overlap: int, canary_is_new: bool, warmup: int
) -> None:
    def fresh() -> CounterFold:
        return CounterFold(SINCE, canary_is_new=canary_is_new, warmup=warmup * 1000)

    whole = fresh().add(stream)
    fold = fresh()
    portions: list[Increment] = []
    start = 0
    for cut in [*sorted(cuts), 200]:
        portions += fold.add(between(stream, start * 1000, cut * 1000))
        start = cut - overlap

    def order(one: Increment) -> tuple[object, ...]:
        return (one.side.value, one.start, one.end, one.partial, sorted(one.tally.items()))

    assert sorted(portions, key=order) == sorted(whole, key=order)
