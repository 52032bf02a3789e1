"""Histograms as buckets with borders, and what may be counted of them, whatever kind they are of.

Prometheus stores a histogram in one of three ways:

classic
    a cumulative counter for each upper border, in the label ``le``;
native with custom buckets (schema -53)
    the same borders in one series, what classic ones are converted to;
native, exponential (schemas -4 to 8)
    borders at the powers of 2 ** (2 ** -schema), so each schema's are among those of a finer one.

The HTTP API names neither the schema nor the buckets that are empty (util/jsonutil/marshal.go), so
the schema is told by the borders: (0.25, 0.5] may be of a custom histogram as well, and then a
bucket that comes later shows it.
"""

from __future__ import annotations

import math
import sys
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from crossfade.errors import MetricSourceError
from crossfade.evidence.counters import Series
from crossfade.metrics.arms import Owner, names_of

Bucket = tuple[float, float]
"""A left border, which is not in it, and a right one, which is. What holds zeros in a native
histogram is (-x, x)."""

Buckets = Mapping[Bucket, float]
"""How many observations each bucket has."""

Sample = tuple[int, Buckets]
"""A histogram at a time in milliseconds."""

MAX_BUCKETS: Final = 50
"""Of an exponential histogram neighbours are merged until so many are left: more categories tell
no more, and hide small shifts."""

SCHEMAS: Final = range(-4, 9)
"""Of exponential histograms (Prometheus, model/histogram/generic.go)."""

TOLERANCE: Final = 1e-9
"""Borders that differ by less, relatively, are one: they are written with 17 digits."""


def border_name(border: float) -> str:
    """Return the one text of a border: 1 and 1.0 are the same."""
    if math.isinf(border):
        return "+Inf" if border > 0 else "-Inf"
    return repr(border).removesuffix(".0")


def parse_native(values: Sequence[tuple[float, Any]]) -> list[Sample]:
    """Read native histograms as the HTTP API gives them.

    Raises:
        MetricSourceError: they are none.
    """
    known: dict[tuple[str, str], Bucket] = {}
    samples: list[Sample] = []
    try:
        for at, histogram in values:
            buckets: dict[Bucket, float] = {}
            for _, left, right, count in histogram.get("buckets", ()):
                bucket = known.get((left, right))
                if bucket is None:
                    bucket = known[left, right] = float(left), float(right)
                buckets[bucket] = float(count)
            samples.append((round(at * 1000), buckets))
    except (TypeError, ValueError, AttributeError) as e:
        raise MetricSourceError("Prometheus gave a histogram that is not understood") from e
    return samples


def assemble_classic(series: Iterable[tuple[str, list[tuple[int, float]]]]) -> list[Sample]:
    """Put the buckets of one classic histogram together; they are of one scrape at a time.

    Args:
        series: the label ``le`` and the samples of each.

    Raises:
        MetricSourceError: a border is no number.
    """
    scrapes: dict[int, list[tuple[float, float]]] = {}
    for le, samples in series:
        border = _number(le)
        for at, value in samples:
            if math.isfinite(value):
                scrapes.setdefault(at, []).append((border, value))
    return [(at, _apart(sorted(scrapes[at]))) for at in sorted(scrapes)]


def _number(le: str) -> float:
    try:
        return float(le)
    except ValueError as e:
        raise MetricSourceError(f'a bucket has le="{le}", which is no number') from e


def _apart(cumulative: list[tuple[float, float]]) -> Buckets:
    buckets: dict[Bucket, float] = {}
    left, below = -math.inf, 0.0
    for border, count in cumulative:
        buckets[left, border] = max(count - below, 0.0)
        left, below = border, count
    return buckets


@dataclass(frozen=True, slots=True)
class Exponential:
    """Borders of one schema; finer buckets are merged."""

    schema: int
    zero: float
    """Up to this far from 0 all is one bucket."""

    def border(self, bucket: Bucket) -> float:
        """Return the right border of the bucket that a bucket is merged into."""
        left, right = bucket
        if max(abs(left), abs(right)) <= self.zero:
            return 0.0
        if math.isinf(left) or math.isinf(right):
            return right
        return self.at_or_above(right) if right > 0 else -self._power(self._index(-left) - 1)

    def at_or_above(self, number: float) -> float:
        """Return the first border at or above a number above 0."""
        return self._power(self._index(number))

    def _index(self, number: float) -> int:
        return math.ceil(math.log2(number) * 2.0**self.schema - TOLERANCE)

    def _power(self, index: int) -> float:
        exponent = index / 2.0**self.schema
        return math.inf if exponent >= sys.float_info.max_exp else float(2.0**exponent)


@dataclass(frozen=True, slots=True)
class Custom:
    """Borders that somebody chose."""

    borders: tuple[float, ...] | None = None
    """Only these count, least first: buckets between them are merged; None: all that there are."""

    def border(self, bucket: Bucket) -> float:
        """Return the right border of the bucket that a bucket is merged into."""
        if self.borders is None:
            return bucket[1]
        right = 0.0 if _is_tiny(bucket) else bucket[1]
        at = bisect_left(self.borders, _below(right))
        return self.borders[at] if at < len(self.borders) else math.inf


Layout = Exponential | Custom


class BucketsSeen:
    """All buckets that a rollout's histograms ever had, and which layout they have in common."""

    def __init__(self) -> None:
        self._owners: dict[Bucket, set[Owner]] = {}
        self._are_equal = False

    def add(self, owner: Owner, buckets: Iterable[Bucket]) -> None:
        """Take note of buckets."""
        for bucket in buckets:
            owners = self._owners.get(bucket)
            if owners is None:
                owners = self._owners[bucket] = set()
                self._are_equal = False
            owners.add(owner)

    def layout(self, most: int | None = None) -> Layout:
        """Return the finest layout of all buckets; the more is seen, the coarser it is.

        Args:
            most: buckets of an exponential histogram; finer ones are merged.
        """
        schemas = [
            _schema(bucket)
            for bucket in self._owners
            if not _is_zero(bucket) and not _is_overflow(bucket)
        ]
        known = [schema for schema in schemas if schema is not None]
        if not known or len(known) < len(schemas):
            return Custom()
        zero = max((right for left, right in self._owners if _is_zero((left, right))), default=0.0)
        layout = Exponential(min(known), zero)
        while most is not None and layout.schema > SCHEMAS.start and self._count(layout) > most:
            layout = replace(layout, schema=layout.schema - 1)
        return layout

    def around(self, border: float) -> Bucket | None:
        """Return a bucket that a border is inside of; None: there is none."""
        inside = (
            bucket
            for bucket in self._owners
            if _above(bucket[0]) < border < _below(bucket[1]) and not _is_tiny(bucket)
        )
        return next(inside, None)

    def borders(self) -> list[float]:
        """Return all right borders, least first."""
        return sorted({right for _, right in self._owners})

    def expect_equal(self) -> None:
        """Refuse borders that are inside of somebody's bucket.

        Raises:
            MetricSourceError: the message names the borders, and whose they are.
        """
        if self._are_equal:
            return
        having: dict[float, set[Owner]] = {}
        for bucket, owners in self._owners.items():
            for border in bucket:
                having.setdefault(border, set()).update(owners)
        borders = sorted(having)
        lacking: dict[float, set[Owner]] = {}
        for bucket, owners in self._owners.items():
            first = bisect_right(borders, _above(bucket[0]))
            for border in borders[first : bisect_left(borders, _below(bucket[1]))]:
                lacking.setdefault(border, set()).update(owners)
        if lacking:
            raise MetricSourceError(_differing(having, lacking))
        self._are_equal = True

    def _count(self, layout: Layout) -> int:
        return len({layout.border(bucket) for bucket in self._owners})


def _differing(having: Mapping[float, set[Owner]], lacking: Mapping[float, set[Owner]]) -> str:
    """Say which borders some have inside of a bucket."""
    borders: dict[tuple[str, str], list[str]] = {}
    for border, without in sorted(lacking.items()):
        having_it = having[border]
        if {side for side, _ in having_it} & {side for side, _ in without}:
            whose = _pods_of(having_it - without), _pods_of(without - having_it)
        else:
            whose = names_of(having_it), names_of(without)
        borders.setdefault(whose, []).append(border_name(border))
    said = [
        f"{', '.join(names)} of {have} but not of {lack}" for (have, lack), names in borders.items()
    ]
    return (
        f"the histograms' bucket borders differ: {'; '.join(said)}; give both versions the same "
        "buckets, or name borders that all have in drift.reference"
    )


def _pods_of(owners: set[Owner]) -> str:
    names = sorted(pod for _, pod in owners)
    if not names:
        return "a series of the same pod"
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"


def _above(border: float) -> float:
    return border if math.isinf(border) else border + TOLERANCE * abs(border)


def _below(border: float) -> float:
    return border if math.isinf(border) else border - TOLERANCE * abs(border)


def _is_overflow(bucket: Bucket) -> bool:
    """Tell whether a bucket is what every exponential histogram has for infinite observations."""
    return min(abs(border) for border in bucket) >= sys.float_info.max


def _is_zero(bucket: Bucket) -> bool:
    return bucket[0] == -bucket[1] and not math.isinf(bucket[1])


def _is_tiny(bucket: Bucket) -> bool:
    """Tell whether a bucket is as good as 0."""
    return _is_zero(bucket) and bucket[1] < TOLERANCE


def _schema(bucket: Bucket) -> int | None:
    """Return the schema of an exponential bucket; None: it is of no schema."""
    low, high = sorted(abs(border) for border in bucket)
    if low == 0 or math.isinf(high) or bucket[0] < 0 < bucket[1]:
        return None
    schema = round(-math.log2(math.log2(high / low)))
    indices = [math.log2(border) * 2.0**schema for border in (low, high)]
    exact = all(abs(index - round(index)) < TOLERANCE * 2.0**8 for index in indices)
    return schema if schema in SCHEMAS and exact else None


class Growing:
    """Makes counters of histograms, which may start from 0 again as a whole.

    A restarted process may have more in one bucket than before and less in another. So when any
    of the counted parts has fallen, all are taken to have started from 0, and what was counted
    before is added to what they say, as if nothing had happened.
    """

    def __init__(self) -> None:
        self._known: dict[str, tuple[int, dict[str, float], dict[str, float]]] = {}

    def known(self, key: str) -> int:
        """Return the time of a histogram's newest sample that was taken in; -1: none was."""
        return self._known[key][0] if key in self._known else -1

    def series(
        self,
        owner: Owner,
        key: str,
        samples: Iterable[tuple[int, Mapping[str, float]]],
        adds: Callable[[str], Mapping[str, int]],
    ) -> list[Series]:
        """Return a counter for each part, and one that says when there was a scrape, if any.

        Args:
            owner: whose histogram it is.
            key: which one.
            samples: the parts by name, oldest first. Older ones than were seen are left out.
            adds: gives what one count of a part adds.
        """
        at, last, base = self._known.get(key, (-1, {}, {}))
        counted: dict[str, list[tuple[int, float]]] = {}
        scrapes: list[tuple[int, float]] = []
        for time, parts in samples:
            if time <= at:
                continue
            if any(parts.get(name, 0.0) < value for name, value in last.items()):
                base = {name: base.get(name, 0.0) + last.get(name, 0.0) for name in base | last}
            at, last = time, dict(parts)
            for name in base | last:
                total = base.get(name, 0.0) + last.get(name, 0.0)
                counted.setdefault(name, []).append((time, total))
            scrapes.append((time, 0.0))
        if not scrapes:
            return []
        self._known[key] = (at, last, base)
        side, pod = owner
        taken = [Series(side, pod, key, {}, scrapes)]
        for name, values in counted.items():
            taken.append(Series(side, pod, f"{key}\0{name}", adds(name), values))
        return taken
