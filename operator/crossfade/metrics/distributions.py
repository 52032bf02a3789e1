"""The evidence on a drift metric: the categories of a labelled counter, or of a histogram."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping
from functools import lru_cache
from typing import Final, Protocol

from typing_extensions import override

from crossfade.api.v1alpha1 import Metric
from crossfade.errors import InvalidSpecError, MetricSourceError
from crossfade.evidence.counters import CATEGORY, REQUESTS, Series, Side
from crossfade.evidence.drift import DriftTests, drift_evidence, judge_drift
from crossfade.evidence.ledger import Seen
from crossfade.evidence.rules import Asked
from crossfade.evidence.verdicts import MetricAnswer
from crossfade.metrics.analyst import Subject
from crossfade.metrics.arms import Owner, Portion, Row, identity, names_of
from crossfade.metrics.folds import Fold, Reading
from crossfade.metrics.histograms import (
    MAX_BUCKETS,
    Bucket,
    Buckets,
    BucketsSeen,
    Custom,
    Growing,
    Layout,
    Sample,
    assemble_classic,
    border_name,
    parse_native,
)
from crossfade.metrics.kinds import Kind, KindFinder
from crossfade.metrics.references import Reference
from crossfade.metrics.selectors import Selector, parse_selector
from crossfade.metrics.sources import drift_join

MAX_LABELS: Final = 100
"""Values of a label; more are no categories but identities."""

NEAR: Final = 3
"""Borders or values that a message names."""

_BEFORE: Final[Owner] = (Side.STABLE, "stable before the rollout")


class DistributionReading(Reading, Protocol):
    """Series whose counts are categories."""

    def reference(self) -> Mapping[str, float] | None:
        """Return the weights of the categories that are expected; None: nothing is."""
        ...


class DriftFold(Fold[DriftTests]):
    """The evidence that a distribution has moved."""

    def __init__(self, metric: Metric, subject: Subject, reference: Reference | None) -> None:
        """Start with no evidence.

        Raises:
            InvalidSpecError: there is no selector, the reference does not fit, or the versions
                cannot be told apart.
        """
        drift = metric.drift
        if drift is None:
            raise InvalidSpecError("a metric is one of errorRate, latency, drift and query")
        self._min_effect = drift.min_effect
        if drift.histogram is not None:
            self._reads: DistributionReading = HistogramReading(
                parse_selector(drift.histogram), reference
            )
        else:
            counter = parse_selector(drift.counter or "")
            self._reads = LabelReading(counter, drift.label or "", reference)
        super().__init__(self._reads, drift_join(subject.analysis, metric), metric, subject)

    @override
    def _tests(self) -> DriftTests:
        return DriftTests(self._reads.reference(), has_stable=self._has_stable)

    @override
    def _answer(self, tests: DriftTests, seen: Seen, asked: Asked) -> MetricAnswer:
        tests.close()
        verdict, message, alert = judge_drift(tests, seen, asked, self._min_effect)
        evidence = drift_evidence(tests, asked)
        return MetricAnswer(self._name, verdict, message, evidence, alert)


@lru_cache(maxsize=4096)
def part_adds(category: str) -> Mapping[str, int]:
    """Return what an observation of a category adds."""
    return {f"{CATEGORY}{category}": 1, REQUESTS: 1}


class LabelReading:
    """A counter with a label, whose values are the categories."""

    said = ""
    layout: Hashable = None

    def __init__(self, counter: Selector, label: str, reference: Reference | None) -> None:
        """Read a counter."""
        self._counter = counter
        self._label = label
        self._expected = dict(reference.weights) if reference is not None else None
        self.names = (counter.name,)
        self._sides: set[Side] = set()
        self._values: dict[str, set[Side]] = {}

    def reference(self) -> Mapping[str, float] | None:
        """See :class:`DistributionReading`."""
        return self._expected

    async def read(self, portion: Portion) -> list[Series]:
        """See :class:`~crossfade.metrics.folds.Reading`."""
        rows = await portion.series(self._counter)
        lacking = {owner for owner, _, one in rows if not one.labels.get(self._label)}
        if lacking:
            raise MetricSourceError(
                f"series of {self._counter.name} of {names_of(lacking)} lack the label "
                f"{self._label}; drift.label names the label that holds the categories"
            )
        taken = []
        for row in rows:
            (side, pod), key, series = row
            self._sides.add(side)
            news = portion.news(row)
            if not news:
                continue
            value = series.labels[self._label]
            sides = self._values.setdefault(value, set())
            if side not in sides and any(count > 0 for _, count in news):
                sides.add(side)
            taken.append(Series(side, pod, key, part_adds(value), news))
        self._expect_categories()
        return taken

    def forget(self) -> None:
        """See :class:`~crossfade.metrics.folds.Reading`."""

    async def check(self, portion: Portion) -> None:
        """See :class:`~crossfade.metrics.folds.Reading`."""
        _expect_stable(self._sides, self.names, portion)

    def _expect_categories(self) -> None:
        """Refuse values that are no categories, or none of the reference.

        Raises:
            MetricSourceError: the message names some.
        """
        if len(self._values) > MAX_LABELS:
            raise MetricSourceError(
                f"the label {self._label} of {self._counter.name} has {len(self._values)} values; "
                f"a drift has at most {MAX_LABELS} categories, so group them"
            )
        if self._expected is None:
            return
        strange = [v for v, sides in sorted(self._values.items()) if Side.STABLE in sides]
        strange = [value for value in strange if value not in self._expected]
        if strange:
            raise MetricSourceError(
                f"stable has {self._label} {_some(strange)}, which the reference lacks; it has "
                f"{_some(self._expected)}: write what is missing, with 0 if it is not expected"
            )


class HistogramReading:
    """A histogram, whose buckets are the categories.

    All kinds are read as whole histograms, scrape by scrape, and their buckets merged to what both
    versions have: the borders of the reference where it names some, those of the coarser schema
    where they are exponential, else all borders, which must then be the same.
    """

    said = ""

    def __init__(self, base: Selector, reference: Reference | None) -> None:
        """Read a histogram by its base name.

        Raises:
            InvalidSpecError: the reference is none of a histogram.
        """
        self._base = base
        self._weights = _borders_of(reference) if reference and reference.weights else None
        self._counted = reference.buckets if reference is not None else ()
        self.names = (base.name,)
        self._kinds = KindFinder()
        self._sides: set[Side] = set()
        self._seen = BucketsSeen()
        self._seen.add(_BEFORE, (bucket for bucket, _ in self._counted))
        self._growing = Growing()
        self._histograms: dict[str, str] = {}
        """Which histogram a bucket's series is of."""
        self._known: tuple[Kind, Layout] | None = None
        self._categories: dict[Bucket, str] = {}

    @property
    def layout(self) -> Hashable:
        """See :class:`~crossfade.metrics.folds.Reading`."""
        return self._known

    def reference(self) -> Mapping[str, float] | None:
        """See :class:`DistributionReading`."""
        if self._weights is not None:
            return {border_name(border): weight for border, weight in self._weights.items()}
        return self._parts(dict(self._counted)) if self._counted else None

    async def read(self, portion: Portion) -> list[Series]:
        """See :class:`~crossfade.metrics.folds.Reading`."""
        answers = {
            kind: await (
                portion.histograms(self._base)
                if kind is Kind.NATIVE
                else portion.series(self._base.suffixed("_bucket"))
            )
            for kind in self._kinds.asked
        }
        owners = {kind: {owner for owner, _, _ in rows} for kind, rows in answers.items()}
        kind = self._kinds.find(owners, portion.arms.sides)
        if kind is None:
            return []
        rows = self._whole(kind, answers[kind], portion)
        for owner, _, samples in rows:
            self._sides.add(owner[0])
            for _, buckets in samples:
                self._seen.add(owner, buckets)
        self._settle(kind)
        taken: list[Series] = []
        for owner, key, samples in rows:
            parts = ((at, self._parts(buckets)) for at, buckets in samples)
            taken += self._growing.series(owner, key, parts, part_adds)
        return taken

    def forget(self) -> None:
        """See :class:`~crossfade.metrics.folds.Reading`."""
        self._growing = Growing()

    async def check(self, portion: Portion) -> None:
        """See :class:`~crossfade.metrics.folds.Reading`."""
        _expect_stable(self._sides, self.names, portion)

    def _whole(
        self, kind: Kind, rows: list[Row], portion: Portion
    ) -> list[tuple[Owner, str, list[Sample]]]:
        """Return the histograms: whose, which, and their new samples."""
        if kind is Kind.NATIVE:
            return [(owner, key, parse_native(one.histograms)) for owner, key, one in rows]
        classic: dict[tuple[Owner, str], list[tuple[str, list[tuple[int, float]]]]] = {}
        for owner, key, one in rows:
            histogram = self._histograms.get(key)
            if histogram is None:
                histogram = self._histograms[key] = identity(one, but="le")
            news = portion.since(one, self._growing.known(histogram))
            bucket = (one.labels.get("le", ""), news)
            classic.setdefault((owner, histogram), []).append(bucket)
        return [(owner, key, assemble_classic(one)) for (owner, key), one in classic.items()]

    def _settle(self, kind: Kind) -> None:
        """Find what is counted, by all that was seen.

        Raises:
            MetricSourceError: the borders do not fit.
        """
        layout: Layout
        if self._weights is not None:
            self._expect_borders(self._weights)
            layout = Custom(tuple(self._weights))
        else:
            layout = self._seen.layout(MAX_BUCKETS)
            if isinstance(layout, Custom):
                self._seen.expect_equal()
        if (kind, layout) != self._known:
            self._known = (kind, layout)
            self._categories = {}
            self.forget()

    def _expect_borders(self, borders: Iterable[float]) -> None:
        for border in borders:
            bucket = self._seen.around(border)
            if bucket is None:
                continue
            near = sorted(self._seen.borders(), key=lambda b: abs(b - border))[:NEAR]
            raise MetricSourceError(
                f"the reference has the border {border_name(border)}, which is inside of the "
                f"bucket from {border_name(bucket[0])} to {border_name(bucket[1])} of "
                f"{self.names[0]}; the nearest borders are {_some(map(border_name, sorted(near)))}"
            )

    def _parts(self, buckets: Buckets) -> dict[str, float]:
        layout = self._known[1] if self._known is not None else Custom()
        parts: dict[str, float] = {}
        for bucket, count in buckets.items():
            name = self._categories.get(bucket)
            if name is None:
                name = self._categories[bucket] = border_name(layout.border(bucket))
            parts[name] = parts.get(name, 0.0) + count
        return parts


def _borders_of(reference: Reference) -> dict[float, float]:
    """Return a reference's weights by border, least first.

    Raises:
        InvalidSpecError: one is no number, or there twice.
    """
    weights: dict[float, float] = {}
    for name, weight in reference.weights:
        try:
            border = float(name)
        except ValueError:
            border = math.nan
        if math.isnan(border):
            raise InvalidSpecError(
                f"the reference names {name}, which is no bucket border; write the upper borders "
                'of the histogram, such as "0.5" and "+Inf"'
            )
        if border in weights:
            raise InvalidSpecError(f"the reference names the border {border_name(border)} twice")
        weights[border] = weight
    return dict(sorted(weights.items()))


def _expect_stable(sides: set[Side], names: tuple[str, ...], portion: Portion) -> None:
    """Refuse the evidence when the canary has series and stable has none.

    Raises:
        MetricSourceError: the message says where they were looked for.
    """
    missing = portion.arms.sides - sides
    if sides and Side.STABLE in missing:
        where = portion.arms.whose(Side.STABLE)
        raise MetricSourceError(f"no series of {' and '.join(names)} {where}: is it scraped?")


def _some(texts: Iterable[str]) -> str:
    """Name a few."""
    every = list(texts)
    said = ", ".join(text[:60] for text in every[:NEAR])
    return said if len(every) <= NEAR else f"{said} and {len(every) - NEAR} more"
