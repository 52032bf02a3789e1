"""The rules that hold over several fields, as CEL that the API server checks on every write.

Each message tells the user what to write. A rule belongs to a model, and its expression sees that
model as ``self``; with ``oldSelf`` it is about what may not change. Fields without a default need
``has(...)``, and so do those in lists: the schema has no defaults there (see ``schema.py``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from crossfade.api import v1alpha1 as api
from crossfade.names import KIND, MAX_NAME_LENGTH


@dataclass(frozen=True, slots=True)
class Rule:
    """One line of ``x-kubernetes-validations``."""

    expression: str
    message: str


def _exactly_one(*fields: str) -> str:
    return f"[{', '.join(f'has(self.{field})' for field in fields)}].exists_one(given, given)"


def _unchanged(field: str) -> str:
    """Write that an optional field is as before."""
    return (
        f"has(self.{field}) == has(oldSelf.{field})"
        f" && (!has(self.{field}) || self.{field} == oldSelf.{field})"
    )


def _countable(source: str) -> str:
    """Write that a source knows the counters of requests and errors."""
    return f"has({source}.preset) || (has({source}.requests) && has({source}.errors))"


def _timed(source: str) -> str:
    """Write that a source knows the histogram of latencies."""
    return f"has({source}.preset) || has({source}.latency)"


_LIMIT: Final = "has(self.{}) || has(self.worseThanStable)"

_ROOT: Final = (
    Rule(
        f"self.metadata.name.size() <= {MAX_NAME_LENGTH}",
        f"metadata.name may have at most {MAX_NAME_LENGTH} characters: the pods of its versions"
        " are named NAME-HASH",
    ),
    Rule(
        "self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
        "metadata.name must start with a letter and hold only lower-case letters, digits and '-':"
        " Services are named after it",
    ),
)

_SPEC: Final = (
    Rule(
        "!(has(self.replicas) && has(self.autoscaling))",
        "give replicas or autoscaling, not both",
    ),
    Rule(
        "!(has(self.traffic.replicas) && has(self.autoscaling))",
        "traffic.replicas splits by the number of pods, which an autoscaler changes: give replicas"
        " instead of autoscaling, or split by traffic.gateway or traffic.istio",
    ),
    Rule(
        "!has(self.traffic.replicas) || !has(self.rollout) || !has(self.rollout.steps)"
        " || self.rollout.steps.all(step, step.weightPercent <= 50)",
        "with traffic.replicas a canary gets at most half, as many pods as stable: give every step"
        " a weightPercent up to 50",
    ),
    Rule(
        "has(self.analysis) || (has(self.rollout) && has(self.rollout.steps)"
        " && self.rollout.steps.all(step, has(step.pause)))",
        "without analysis nobody judges a version: add analysis, or give every step of"
        " rollout.steps a pause ('pause: {}' waits for a person)",
    ),
    Rule(
        "self.serving.protocol != 'http'"
        " || self.template.spec.containers.exists(it, has(it.readinessProbe))",
        "with serving.protocol http Crossfade cannot ask whether the model is loaded: give a"
        " container of template a readinessProbe",
    ),
)

_METRIC: Final = (
    Rule(
        _exactly_one("errorRate", "latency", "drift", "query"),
        "give exactly one of errorRate, latency, drift and query",
    ),
    Rule(
        "!has(self.source) || !has(self.query)",
        "source is for counters and histograms; a query names its series itself",
    ),
    Rule(
        "!has(self.warmupSeconds) || !has(self.query)",
        "warmupSeconds is for counters and histograms; a query is evaluated as it is written",
    ),
    Rule(
        f"!has(self.errorRate) || !has(self.source) || {_countable('self.source')}",
        "errorRate needs counters: give source.requests and source.errors, or source.preset",
    ),
    Rule(
        f"!has(self.latency) || !has(self.source) || {_timed('self.source')}",
        "latency needs a histogram: give source.latency or source.preset",
    ),
)

_ANALYSIS: Final = (
    Rule(
        "self.metrics.all(metric, !has(metric.errorRate) || has(metric.source)"
        f" || (has(self.source) && ({_countable('self.source')})))",
        "errorRate needs counters: give source.requests and source.errors, or source.preset, in"
        " analysis or in the metric",
    ),
    Rule(
        "self.metrics.all(metric, !has(metric.latency) || has(metric.source)"
        f" || (has(self.source) && ({_timed('self.source')})))",
        "latency needs a histogram: give source.latency or source.preset, in analysis or in the"
        " metric",
    ),
)

_GATEWAY: Final = (
    Rule(
        _exactly_one("parentRefs", "routeRef"),
        "give parentRefs for a route of Crossfade's own, or routeRef to join one of yours",
    ),
    Rule(
        "!has(self.routeRef) || !has(self.hostnames) || self.hostnames.size() == 0",
        "hostnames go with parentRefs; with routeRef, write them in your HTTPRoute",
    ),
    Rule(
        "has(self.routeRef) == has(oldSelf.routeRef)",
        "a route of Crossfade's own (parentRefs) cannot become a joined one (routeRef), nor the"
        " other way round: create another ModelDeployment",
    ),
)

_QUERY: Final = (
    Rule("has(self.min) || has(self.max)", "give max, min, or both"),
    Rule(
        "!has(self.min) || !has(self.max) || self.min <= self.max",
        "min must not be greater than max",
    ),
)

_PROMETHEUS: Final = (
    Rule(
        "!(has(self.bearerToken) && has(self.basicAuth))",
        "give bearerToken or basicAuth, not both",
    ),
    Rule(
        "!has(self.tls) || self.address.startsWith('https://')",
        "tls needs an address that starts with https://",
    ),
    Rule(
        "!self.address.contains('@')",
        "address must not hold a user or password: use basicAuth",
    ),
)

RULES: Final[Mapping[str, tuple[Rule, ...]]] = {
    KIND: _ROOT,
    api.ModelDeploymentSpec.__name__: _SPEC,
    api.Serving.__name__: (
        Rule(
            "self.port == oldSelf.port",
            "port cannot change, since both versions are reached through the same port: create"
            " another ModelDeployment",
        ),
    ),
    api.Autoscaling.__name__: (
        Rule(
            "self.minReplicas <= self.maxReplicas",
            "minReplicas must not be greater than maxReplicas",
        ),
    ),
    api.Traffic.__name__: (
        Rule(
            _exactly_one("gateway", "istio", "replicas"),
            "give exactly one of gateway, istio and replicas; without a gateway write"
            " 'replicas: {}'",
        ),
        Rule(
            " && ".join(
                f"has(self.{it}) == has(oldSelf.{it})" for it in ("gateway", "istio", "replicas")
            ),
            "who splits the traffic (gateway, istio or replicas) cannot change: create another"
            " ModelDeployment",
        ),
    ),
    api.GatewayTraffic.__name__: _GATEWAY,
    api.RouteRef.__name__: (
        Rule(
            f"self.name == oldSelf.name && {_unchanged('rule')}",
            "routeRef cannot change, since the joined route must be put back: create another"
            " ModelDeployment",
        ),
    ),
    api.Rollout.__name__: (
        Rule(
            "!has(self.steps) || (self.steps.map(step, step.weightPercent).isSorted()"
            " && self.steps.all(step, self.steps.exists_one(other,"
            " other.weightPercent == step.weightPercent)))",
            "the weightPercent of each step must be greater than that of the step before",
        ),
    ),
    api.Metric.__name__: _METRIC,
    api.Analysis.__name__: _ANALYSIS,
    api.ErrorRate.__name__: (
        Rule(
            _LIMIT.format("maxPercent"),
            "errorRate needs a limit: give maxPercent, worseThanStable, or both",
        ),
    ),
    api.Latency.__name__: (
        Rule(
            _LIMIT.format("maxSlowPercent"),
            "latency needs a limit: give maxSlowPercent, worseThanStable, or both",
        ),
    ),
    api.Drift.__name__: (
        Rule(
            _exactly_one("histogram", "counter"),
            "drift needs a distribution: give histogram, or counter and label",
        ),
        Rule(
            "has(self.counter) == has(self.label)",
            "label goes with counter: its values are the categories",
        ),
    ),
    api.DriftReference.__name__: (
        Rule(
            _exactly_one("shares", "configMap", "stableBeforeSeconds"),
            "give exactly one of shares, configMap and stableBeforeSeconds",
        ),
    ),
    api.Query.__name__: _QUERY,
    api.Prometheus.__name__: _PROMETHEUS,
}
"""The rules by the name of the model that they are about; ``ModelDeployment`` is the root."""
