"""Which series a metric is read from: named by hand, or by a preset."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Literal

from crossfade.api.v1alpha1 import Analysis, Metric, Source
from crossfade.errors import InvalidSpecError
from crossfade.evidence.counters import BAD, REQUESTS
from crossfade.metrics.presets import PRESETS, Place, Unit
from crossfade.metrics.selectors import Matcher, Selector, parse_selector

_Which = Literal["requests", "errors", "latency"]

_LACKING: Final[dict[_Which, str]] = {
    "requests": "no counter of requests: name one in source.requests",
    "errors": "no counter of errors: name one in source.errors, or use latency",
    "latency": "no latency histogram: name one in source.latency, or use errorRate",
}

_MILLISECONDS: Final[dict[Unit, float]] = {
    "seconds": 1000,
    "milliseconds": 1,
    "microseconds": 0.001,
}
"""How many milliseconds each unit has."""


@dataclass(frozen=True)
class Term:
    """One family of series, and what one count of it adds."""

    selector: Selector
    requests: int
    bad: int

    @cached_property
    def key(self) -> str:
        """What tells its series from those of other terms."""
        return str(self.selector)

    @cached_property
    def adds(self) -> Mapping[str, int]:
        """What one count adds, as evidence takes it."""
        counted = {REQUESTS: self.requests, BAD: self.bad}
        return {what: amount for what, amount in counted.items() if amount}


@dataclass(frozen=True, slots=True)
class Join:
    """How a series is joined to a version."""

    namespace_label: str
    pod_label: str
    version_label: str | None
    place: Place | None = None
    """Where a gateway's series name the version; then namespace and pod are the gateway's."""


@dataclass(frozen=True, slots=True)
class Slowness:
    """Which requests of a histogram are slow."""

    base: Selector
    """The histogram by its base name, as a native one is called."""
    border: float
    """The bucket border above which they are, in the histogram's unit."""
    unit_milliseconds: float
    """How many milliseconds that unit has."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is asked for to judge one metric."""

    terms: tuple[Term, ...]
    """The bad ones first: they are asked for first, so that an answer that knows one scrape more
    never knows of bad requests without the requests."""
    join: Join
    slowness: Slowness | None = None
    """Of a latency metric; then the terms are those of a classic histogram."""


def plan_of(analysis: Analysis, metric: Metric) -> Plan:
    """Return what to ask for.

    Raises:
        InvalidSpecError: a series that the metric needs is not named, or is no selector.
    """
    source = _source(analysis, metric)
    if metric.latency is not None:
        (base,) = _selectors(source, "latency")
        unit = _MILLISECONDS[_unit(source)]
        border = metric.latency.max_milliseconds / unit
        matcher = Matcher("le", "=~", "|".join(_spellings(border)))
        count = Term(base.suffixed("_count"), 1, 1)
        fast = Term(base.suffixed("_bucket").matching(matcher), 0, -1)
        return Plan((count, fast), _join(source), Slowness(base, border, unit))
    errors, requests = _selectors(source, "errors"), _selectors(source, "requests")
    bad = [Term(selector, int(selector in requests), 1) for selector in errors]
    rest = [Term(selector, 1, 0) for selector in requests if selector not in errors]
    return Plan((*bad, *rest), _join(source))


def requests_plan(analysis: Analysis) -> Plan | None:
    """Return how requests are counted; None when the spec names no counter of requests."""
    sources = [analysis.source, *(metric.source for metric in analysis.metrics)]
    source = next((one for one in sources if one is not None), None)
    if source is None or (source.requests is None and source.preset is None):
        return None
    terms = [Term(selector, 1, 0) for selector in _selectors(source, "requests")]
    return Plan(tuple(terms), _join(source))


def drift_join(analysis: Analysis, metric: Metric) -> Join:
    """Return how a drift's series are joined: they are the model's own, never a gateway's."""
    source = metric.source or analysis.source or Source()
    return Join(source.namespace_label, source.pod_label, source.version_label)


def _source(analysis: Analysis, metric: Metric) -> Source:
    source = metric.source or analysis.source
    if source is None:
        raise InvalidSpecError("write analysis.source: which series tell of requests and errors")
    return source


def _join(source: Source) -> Join:
    place = PRESETS[source.preset].place if source.preset is not None else None
    return Join(source.namespace_label, source.pod_label, source.version_label, place)


def _unit(source: Source) -> Unit:
    if source.latency_unit is not None:
        return source.latency_unit
    return PRESETS[source.preset].unit if source.preset is not None else "seconds"


def _selectors(source: Source, which: _Which) -> tuple[Selector, ...]:
    """Return the selectors that the user names, else those of the preset: at least one.

    Raises:
        InvalidSpecError: there is none, or it is no selector.
    """
    written: str | None = getattr(source, which)
    if written is not None:
        return (parse_selector(written),)
    if source.preset is None:
        raise InvalidSpecError(f"write analysis.source.{which}, or a preset")
    preset = PRESETS[source.preset]
    match which:
        case "requests":
            known = preset.requests
        case "errors":
            known = preset.errors
        case "latency":
            known = () if preset.latency is None else (preset.latency,)
    if not known:
        raise InvalidSpecError(f"preset {source.preset} has {_LACKING[which]}")
    return tuple(parse_selector(one) for one in known)


def _spellings(border: float) -> list[str]:
    """Return how exporters may write a border, as regular expressions.

    Prometheus 3 writes 1 as "1.0", Go's client as "1"; OpenMetrics asks for the former.
    """
    plain = f"{border:.12f}".rstrip("0")
    forms = {f"{border:g}", repr(border), plain.rstrip("."), plain + "0" * plain.endswith(".")}
    return sorted(form.replace(".", "\\.").replace("+", "\\+") for form in forms)
