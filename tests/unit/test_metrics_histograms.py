"""What borders histograms have in common, whatever kind they are of."""

from __future__ import annotations

import math
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossfade.errors import MetricSourceError
from crossfade.evidence.counters import CounterFold, Side
from crossfade.metrics.histograms import (
    Bucket,
    BucketsSeen,
    Custom,
    Exponential,
    Growing,
    assemble_classic,
    border_name,
)

OWNER = (Side.CANARY, "pod")
INF = math.inf
SEEN = st.integers(0, 5)


def seen(*buckets: Bucket) -> BucketsSeen:
    found = BucketsSeen()
    found.add(OWNER, buckets)
    return found


def bucket_of(schema: int, index: int) -> Bucket:
    growth = 2.0**-schema
    return 2.0 ** ((index - 1) * growth), 2.0 ** (index * growth)


@given(st.integers(-4, 8), st.integers(-200, 200))
def test_a_schema_is_told_by_a_bucket(schema: int, index: int) -> None:
    index = max(min(index, int(1000 * 2.0**schema)), int(-1000 * 2.0**schema))
    left, right = bucket_of(schema, index)
    for bucket in ((left, right), (-right, -left)):
        assert seen(bucket).layout() == Exponential(schema, 0.0)


@given(st.integers(-2, 8), st.integers(0, 4), st.integers(-100, 100))
def test_a_coarser_schema_has_the_border_that_is_next(fine: int, less: int, index: int) -> None:
    layout = Exponential(max(fine - less, -4), 0.0)
    left, right = bucket_of(fine, index)
    border = layout.border((left, right))
    below = border / 2 ** (2.0**-layout.schema)
    assert below * (1 + 1e-9) < right <= border * (1 + 1e-9)
    assert below <= left * (1 + 1e-9)
    mirrored = layout.border((-right, -left))
    assert mirrored == pytest.approx(-below)


@pytest.mark.parametrize(
    "bucket",
    [(0.1, 0.25), (0.0, 0.5), (-INF, 0.5), (10.0, INF), (-1.0, 2.0), (1.0, 1.5), (3.0, 6.0)],
)
def test_other_borders_are_of_no_schema(bucket: Bucket) -> None:
    assert seen(bucket, (0.5, 1.0)).layout() == Custom()


def test_infinite_observations_hide_no_schema() -> None:
    most = sys.float_info.max
    layout = seen((0.5, 1.0), (most, INF), (-INF, -most), (-1e-9, 1e-9)).layout()
    assert layout == Exponential(0, 1e-9)
    assert layout.border((most, INF)) == INF
    assert layout.border((-INF, -most)) == -most
    assert layout.border((bucket_of(0, 1023)[1], most)) == INF


def test_buckets_are_merged_until_there_are_few() -> None:
    every = seen(*(bucket_of(3, index) for index in range(80)))
    assert every.layout(50) == Exponential(2, 0.0)
    assert every.layout() == Exponential(3, 0.0)


def test_a_wider_zero_takes_in_its_neighbours() -> None:
    found = seen(bucket_of(0, -3), bucket_of(0, 1), (-0.25, 0.25))
    layout = found.layout()
    assert [layout.border(b) for b in (bucket_of(0, -3), bucket_of(0, 1))] == [0.0, 2.0]


@pytest.mark.parametrize(
    ("number", "name"),
    [
        (1, "1"),
        (1.0, "1"),
        (0.5, "0.5"),
        (INF, "+Inf"),
        (-INF, "-Inf"),
        (1e-5, "1e-05"),
        (-2.0, "-2"),
    ],
)
def test_a_border_has_one_name(number: float, name: str) -> None:
    assert border_name(number) == name
    assert border_name(float(name)) == name


def test_a_border_of_a_reference_is_merged_into() -> None:
    layout = Custom((-1.0, 0.0, 0.5))
    buckets = [(-INF, -1.0), (-1.0, -0.5), (-1e-40, 1e-40), (0.1, 0.5), (0.5, 0.6)]
    assert [layout.border(b) for b in buckets] == [-1.0, 0.0, 0.0, 0.5, INF]


def test_classic_buckets_are_taken_apart_scrape_by_scrape() -> None:
    series = [("+Inf", [(1, 5.0), (2, 9.0)]), ("0.5", [(1, 2.0), (2, 3.0)]), ("1", [(1, 4.0)])]
    assert assemble_classic(series) == [
        (1, {(-INF, 0.5): 2.0, (0.5, 1.0): 2.0, (1.0, INF): 1.0}),
        (2, {(-INF, 0.5): 3.0, (0.5, INF): 6.0}),
    ]


def test_a_border_that_is_no_number_is_refused() -> None:
    with pytest.raises(MetricSourceError, match=r'^a bucket has le="x", which is no number$'):
        assemble_classic([("x", [(1, 1.0)])])


@given(
    st.lists(st.tuples(st.booleans(), st.lists(SEEN, min_size=3, max_size=3)), min_size=2),
    st.integers(1, 4),
)
def test_all_observations_are_counted_once_in_any_portions(
    scrapes: list[tuple[bool, list[int]]], portion: int
) -> None:
    """Also when a restarted process has more in a bucket than before; what is lost is not seen."""
    total, samples, expected = [0, 0, 0], [], 0
    for at, (restarted, more) in enumerate(scrapes):
        before = list(total)
        total = list(more) if restarted else [a + b for a, b in zip(total, more, strict=True)]
        samples.append((at, {str(i): float(n) for i, n in enumerate(total)}))
        hidden = restarted and all(a >= b for a, b in zip(total, before, strict=True))
        expected += sum(total) - sum(before) if hidden or not restarted else sum(total)
    growing, fold = Growing(), CounterFold(-1, canary_is_new=True)
    counted = 0
    for start in range(0, len(samples), portion):
        # Each portion begins with what the one before ended with, as when looks overlap.
        part = samples[max(start - 2, 0) : start + portion]
        series = growing.series(OWNER, "h", part, lambda _: {"n": 1})
        counted += sum(one.tally.get("n", 0) for one in fold.add(series))
    assert counted == expected
