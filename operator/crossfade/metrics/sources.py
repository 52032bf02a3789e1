"""Which series a metric is read from: named by hand, or by a preset."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from crossfade.api.v1alpha1 import Analysis, Metric, Source
from crossfade.errors import InvalidSpecError
from crossfade.metrics.selectors import Matcher, Selector, parse_selector

_INFERENCE: Final = 'method="POST",path=~"/v2/models/.+/(infer|generate)(_stream)?"'

PRESETS: Final = {
    "mlserver": {
        "requests": f"rest_server_requests_total{{{_INFERENCE}}}",
        "errors": f'rest_server_requests_total{{{_INFERENCE},status_code=~"5.."}}',
        "latency": f"rest_server_request_duration_seconds{{{_INFERENCE}}}",
    }
}
"""The series of presets.

mlserver: MLServer 1.7.1 adds starlette_exporter's PrometheusMiddleware with the prefix
``rest_server`` (mlserver/rest/app.py, create_app; ``metrics_rest_server_prefix`` in settings.py).
starlette_exporter 0.23.0 (middleware.py) counts ``<prefix>_requests_total`` and observes
``<prefix>_request_duration_seconds``, both with the labels method, path, status_code and app_name.
``group_paths`` is on, so the path is the route's, ``/v2/models/{model_name}/infer`` and the like
(app.py, APIRoute: infer, generate, infer_stream, generate_stream, each also with a version), and
readiness probes and metadata, which are other paths, are not counted. Its buckets are
prometheus_client's defaults: 5, 10, 25, 50, 75, 100, 250, 500, 750 ms, 1, 2.5, 5, 7.5 and 10 s.
"""


@dataclass(frozen=True, slots=True)
class Term:
    """One family of series, and what one count of it adds."""

    selector: Selector
    requests: int
    bad: int


@dataclass(frozen=True, slots=True)
class Join:
    """How a series is joined to a version."""

    namespace_label: str
    pod_label: str
    version_label: str | None


@dataclass(frozen=True, slots=True)
class Plan:
    """What is asked for to judge one metric."""

    terms: tuple[Term, ...]
    """The bad ones first: they are asked for first, so that an answer that knows one scrape more
    never knows of bad requests without the requests."""
    join: Join
    border_seconds: float | None = None
    """The bucket border of a latency metric."""


def plan_of(analysis: Analysis, metric: Metric) -> Plan:
    """Return what to ask for.

    Raises:
        InvalidSpecError: a series that the metric needs is not named, or is no selector.
    """
    source = _source(analysis, metric)
    join = Join(source.namespace_label, source.pod_label, source.version_label)
    if metric.latency is not None:
        base = _selector(source, "latency")
        seconds = metric.latency.max_milliseconds / 1000
        border = Matcher("le", "=~", "|".join(_spellings(seconds)))
        count = Term(base.suffixed("_count"), 1, 1)
        fast = Term(base.suffixed("_bucket").matching(border), 0, -1)
        return Plan((count, fast), join, seconds)
    errors = Term(_selector(source, "errors"), 0, 1)
    return Plan((errors, Term(_selector(source, "requests"), 1, 0)), join)


def requests_plan(analysis: Analysis) -> Plan | None:
    """Return how requests are counted; None when the spec names no counter of requests."""
    sources = [analysis.source, *(metric.source for metric in analysis.metrics)]
    source = next((one for one in sources if one is not None), None)
    if source is None or (source.requests is None and source.preset is None):
        return None
    join = Join(source.namespace_label, source.pod_label, source.version_label)
    return Plan((Term(_selector(source, "requests"), 1, 0),), join)


def _source(analysis: Analysis, metric: Metric) -> Source:
    source = metric.source or analysis.source
    if source is None:
        raise InvalidSpecError("write analysis.source: which series tell of requests and errors")
    return source


def _selector(source: Source, which: str) -> Selector:
    written: str | None = getattr(source, which)
    if written is None and source.preset is not None:
        written = PRESETS[source.preset][which]
    if written is None:
        raise InvalidSpecError(f"write analysis.source.{which}, or a preset")
    return parse_selector(written)


def _spellings(seconds: float) -> list[str]:
    """Return how exporters may write a border, as regular expressions.

    Prometheus 3 writes 1 as "1.0", Go's client as "1"; OpenMetrics asks for the former.
    """
    plain = f"{seconds:.12f}".rstrip("0")
    forms = {f"{seconds:g}", repr(seconds), plain.rstrip("."), plain + "0" * plain.endswith(".")}
    return sorted(form.replace(".", "\\.").replace("+", "\\+") for form in forms)
