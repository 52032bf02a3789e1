"""The evidence on an errorRate or latency metric: asks for counters and folds them."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from typing import Final

from typing_extensions import override

from crossfade.api.v1alpha1 import Metric
from crossfade.errors import InvalidSpecError, MetricSourceError
from crossfade.evidence import power
from crossfade.evidence.counters import BAD, REQUESTS, Series
from crossfade.evidence.kernel import Tolerance
from crossfade.evidence.ledger import Seen
from crossfade.evidence.rates import Limits, RateTests
from crossfade.evidence.rules import Asked, evidence_of, judge
from crossfade.evidence.verdicts import Counts, Forecast, MetricAnswer, Verdict
from crossfade.metrics.analyst import Subject
from crossfade.metrics.arms import Owner, Portion, Row, names_of
from crossfade.metrics.folds import Fold, Reading
from crossfade.metrics.histograms import (
    Buckets,
    BucketsSeen,
    Custom,
    Exponential,
    Growing,
    parse_native,
)
from crossfade.metrics.kinds import Kind, KindFinder
from crossfade.metrics.sources import Plan, Slowness, Term

FORECAST_MS: Final = 60_000
"""How old a forecast may get."""

MEASURED_MS: Final = 10_000
"""How long traffic must have been counted before a time is forecast from it. Of two seconds one
may have been without, and the event ``SlowDetection`` is told once."""

_SLOW: Final = "slow"
_FAST: Final = "fast"
_ADDS: Final[Mapping[str, Mapping[str, int]]] = {
    _SLOW: {REQUESTS: 1, BAD: 1},
    _FAST: {REQUESTS: 1},
}


class CountersReading:
    """Counters, each of which adds what its term says."""

    said = ""
    layout: Hashable = None

    def __init__(self, terms: tuple[Term, ...]) -> None:
        """Read these."""
        self._terms = terms
        self.names = tuple(term.selector.name for term in terms)

    async def read(self, portion: Portion) -> list[Series]:
        """See :class:`~crossfade.metrics.folds.Reading`."""
        taken: list[Series] = []
        for term in self._terms:
            taken += counters(portion, term, await portion.series(term.selector))
        return taken

    def forget(self) -> None:
        """See :class:`~crossfade.metrics.folds.Reading`."""

    async def check(self, portion: Portion) -> None:
        """See :class:`~crossfade.metrics.folds.Reading`."""


def counters(portion: Portion, term: Term, rows: Iterable[Row]) -> list[Series]:
    """Return what is new of the series of a term, as evidence takes it."""
    taken = []
    for row in rows:
        news = portion.news(row)
        if news:
            (side, pod), key, _ = row
            taken.append(Series(side, pod, key, term.adds, news))
    return taken


class LatencyReading:
    """A histogram, of which only a border counts.

    Of a classic one two series are read: the bucket at the border, and the count of all. A native
    one is one series.
    """

    def __init__(self, plan: Plan, slowness: Slowness) -> None:
        """Read what the plan names."""
        self._terms = plan.terms
        self._border = slowness.border
        self._unit = slowness.unit_milliseconds
        self._base = slowness.base
        self.names = tuple(term.selector.name for term in plan.terms)
        self._kinds = KindFinder()
        self._kind: Kind | None = None
        self._seen = BucketsSeen()
        self._shape: Custom | Exponential = Custom()
        self._growing = Growing()
        self._bordered: set[Owner] = set()
        self._counted: set[Owner] = set()

    @property
    def layout(self) -> Hashable:
        """See :class:`~crossfade.metrics.folds.Reading`."""
        return (self._kind, self._shape) if self._kind is not None else None

    @property
    def said(self) -> str:
        """See :class:`~crossfade.metrics.folds.Reading`."""
        wanted, judged = f"{self._border * self._unit:g}", f"{self._judged * self._unit:.4g}"
        said = f"slower than {wanted} ms"
        if self._kind is Kind.NATIVE and float(judged) != float(wanted):
            said += f" (judged at {judged} ms, the next bucket border)"
        return said

    async def read(self, portion: Portion) -> list[Series]:
        """See :class:`~crossfade.metrics.folds.Reading`."""
        native: list[Row] = []
        classic: list[tuple[Term, list[Row]]] = []
        asked = self._kinds.asked
        if Kind.NATIVE in asked:
            native = await portion.histograms(self._base)
        if Kind.CLASSIC in asked:
            classic = [(term, await portion.series(term.selector)) for term in self._terms]
        owners = {
            Kind.NATIVE: {owner for owner, _, _ in native},
            Kind.CLASSIC: {owner for _, rows in classic for owner, _, _ in rows},
        }
        kind = self._kinds.find(owners, portion.arms.sides)
        if kind is Kind.NATIVE:
            return self._read_native(native)
        self._kind = kind
        taken: list[Series] = []
        for term, rows in classic:
            having = self._bordered if term.bad < 0 else self._counted
            having.update(owner for owner, _, _ in rows)
            taken += counters(portion, term, rows)
        return taken

    def forget(self) -> None:
        """See :class:`~crossfade.metrics.folds.Reading`."""
        self._growing = Growing()

    async def check(self, portion: Portion) -> None:
        """Refuse the evidence when there is no such bucket; see the protocol."""
        if self._kind is Kind.NATIVE:
            around = self._seen.around(self._border) if self._shape == Custom() else None
            if around is not None:
                raise MetricSourceError(self._lacking("the histogram", set(around)))
            return
        lacking = self._counted - self._bordered
        if not lacking:
            return
        borders: set[float] = set()
        for owner, _, series in await portion.series(self._base.suffixed("_bucket")):
            if owner in lacking:
                borders.add(_number(series.labels.get("le", "")))
        raise MetricSourceError(self._lacking(names_of(lacking), borders))

    @property
    def _judged(self) -> float:
        if isinstance(self._shape, Exponential):
            return self._shape.at_or_above(self._border)
        return self._border

    def _read_native(self, native: list[Row]) -> list[Series]:
        rows = [(owner, key, parse_native(series.histograms)) for owner, key, series in native]
        for owner, _, samples in rows:
            for _, buckets in samples:
                self._seen.add(owner, buckets)
        shape = self._seen.layout()
        if (self._kind, self._shape) != (Kind.NATIVE, shape):
            self._kind, self._shape = Kind.NATIVE, shape
            self.forget()
        taken: list[Series] = []
        for owner, key, samples in rows:
            parts = ((at, self._parts(buckets)) for at, buckets in samples)
            taken += self._growing.series(owner, key, parts, _ADDS.__getitem__)
        return taken

    def _parts(self, buckets: Buckets) -> dict[str, float]:
        parts = {_SLOW: 0.0, _FAST: 0.0}
        most = self._judged * (1 + 1e-9)
        for bucket, count in buckets.items():
            parts[_FAST if self._shape.border(bucket) <= most else _SLOW] += count
        return parts

    def _lacking(self, whose: str, borders: set[float]) -> str:
        border = self._border * self._unit
        near = _nearest(border, {one * self._unit for one in borders})
        return f"maxMilliseconds {border:g} is no bucket border of {whose}; {near}"


class CountsFold(Fold[RateTests]):
    """The evidence on a share of bad answers."""

    def __init__(self, plan: Plan, metric: Metric, subject: Subject) -> None:
        """Start with no evidence.

        Raises:
            InvalidSpecError: the versions cannot be told apart, or there is no limit.
        """
        self._limits = limits_of(metric)
        self._forecast: tuple[int, tuple[Forecast, ...]] = (0, ())
        reading: Reading = CountersReading(plan.terms)
        if plan.slowness is not None:
            reading = LatencyReading(plan, plan.slowness)
        super().__init__(reading, plan.join, metric, subject)

    @override
    def _tests(self) -> RateTests:
        return RateTests(self._limits, has_stable=self._has_stable)

    @override
    def _answer(self, tests: RateTests, seen: Seen, asked: Asked) -> MetricAnswer:
        tests.close()
        verdict, message = judge(tests, seen, self._limits, asked)
        if self._reading.said and verdict in (Verdict.HARM, Verdict.HEALTHY):
            message = f"{self._reading.said}: {message}"
        forecast = self._forecast_of(tests, asked)
        none = bool(asked.ladder) and not forecast
        return MetricAnswer(
            self._name,
            verdict,
            message,
            evidence_of(tests, asked),
            forecast=forecast,
            no_forecast=power.why_none(self._limits, _stable_of(tests)) if none else "",
        )

    def _forecast_of(self, tests: RateTests, asked: Asked) -> tuple[Forecast, ...]:
        """Say how long a doubling goes unnoticed; it changes slowly, so not at every look.

        One that has no time yet is made anew as soon as the traffic is known.
        """
        made_at, forecast = self._forecast
        measured = asked.now - self._since >= MEASURED_MS
        per_second = tests.per_second if measured else 0.0
        untimed = per_second and any(one.seconds is None for one in forecast)
        old = asked.now - made_at >= FORECAST_MS
        if asked.ladder and (not forecast or untimed or old):
            forecast = power.forecast(
                self._limits,
                _stable_of(tests),
                asked.ladder,
                per_second,
                asked.log_needed,
                tests.dispersion.phi,
            )
            self._forecast = asked.now, forecast
        return forecast


def _stable_of(tests: RateTests) -> Counts:
    """Return all that is known of stable's rate, also from before the evidence."""
    return tests.history + tests.stable


def limits_of(metric: Metric) -> Limits:
    """Return the limits as shares.

    Raises:
        InvalidSpecError: there is none.
    """
    if metric.latency is not None:
        percent, worse = metric.latency.max_slow_percent, metric.latency.worse_than_stable
    elif metric.error_rate is not None:
        percent, worse = metric.error_rate.max_percent, metric.error_rate.worse_than_stable
    else:
        raise InvalidSpecError("a metric is one of errorRate, latency, drift and query")
    if percent is None and worse is None:
        raise InvalidSpecError("write a limit in percent, or worseThanStable")
    tolerance = Tolerance(worse.ratio, worse.min_increase_percent / 100) if worse else None
    return Limits(percent / 100 if percent is not None else None, tolerance)


def _number(le: str) -> float:
    try:
        return float(le)
    except ValueError:
        return float("inf")


def _nearest(border: float, borders: set[float]) -> str:
    below = max((b for b in borders if b < border and b > float("-inf")), default=None)
    above = min((b for b in borders if border < b < float("inf")), default=None)
    near = [f"{b:g}" for b in (below, above) if b is not None]
    return f"the nearest are {' and '.join(near)}" if near else "it has no buckets"
