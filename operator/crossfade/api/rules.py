"""The rules that hold over several fields, as CEL that the API server checks on every write.

Each message tells the user what to write. A rule belongs to a model, and its expression sees that
model as ``self``; with ``oldSelf`` it is about what may not change. Fields without a default need
``has(...)``, and so do those in lists: the schema has no defaults there (see ``schema.py``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from crossfade.api import inference, webhooks
from crossfade.api import v1alpha1 as api
from crossfade.names import KIND, MAX_NAME_LENGTH, SIDECAR


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


_SIDECAR: Final = " || ".join(
    f"has(self.{part})" for part in ("sidecar", "inputs", "predictions", "fallback", "recording")
)
"""That there is a sidecar."""


def _sourced(kind: str, known: str) -> str:
    """Write that each metric of a kind has a source: its own, that of all, or the sidecar."""
    return (
        f"!has(self.analysis) || self.analysis.metrics.all(metric, !has(metric.{kind})"
        " || has(metric.source)"
        f" || (has(self.analysis.source) ? ({known}) : ({_SIDECAR})))"
    )


def _declared(field: str, place: str, parent: str = "") -> Rule:
    """Return the rule that a drift's short name is one of those that are declared."""
    known = f"has({place})" if not parent else f"has({parent}) && has({place})"
    return Rule(
        f"!has(self.analysis) || self.analysis.metrics.all(metric, !has(metric.drift)"
        f" || !has(metric.drift.{field}) || ({known}"
        f" && {place}.exists(it, it.name == metric.drift.{field})))",
        f"drift.{field} must be the name of one of {place.removeprefix('self.')}",
    )


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
        " || self.template.spec.containers.exists(it, has(it.readinessProbe))"
        " || (has(self.sidecar) && has(self.sidecar.goldenRequest))",
        "with serving.protocol http Crossfade cannot ask whether the model is loaded: give a"
        " container of template a readinessProbe, or give sidecar.goldenRequest",
    ),
    Rule(
        _sourced("errorRate", _countable("self.analysis.source")),
        "errorRate needs counters: give source.requests and source.errors, or source.preset, in"
        " analysis or in the metric",
    ),
    Rule(
        _sourced("latency", _timed("self.analysis.source")),
        "latency needs a histogram: give source.latency or source.preset, in analysis or in the"
        " metric",
    ),
    _declared("prediction", "self.predictions"),
    _declared("feature", "self.inputs.features", "self.inputs"),
)

_PROXIED: Final = (
    Rule(
        f"self.template.spec.containers.all(it, it.name != '{SIDECAR}')"
        " && (!has(self.template.spec.initContainers)"
        f" || self.template.spec.initContainers.all(it, it.name != '{SIDECAR}'))",
        f"the container name {SIDECAR} is taken: give your container another name",
    ),
    Rule(
        f"!({_SIDECAR}) || (has(self.sidecar)"
        " ? self.serving.port != self.sidecar.port && self.serving.port != self.sidecar.adminPort"
        f" : self.serving.port != {inference.DEFAULT_PORT}"
        f" && self.serving.port != {inference.DEFAULT_ADMIN_PORT})",
        "sidecar.port and sidecar.adminPort must differ from serving.port, on which the model"
        f" listens: give sidecar others (they are {inference.DEFAULT_PORT} and"
        f" {inference.DEFAULT_ADMIN_PORT} by default)",
    ),
    Rule(
        "!has(self.inputs) || self.inputs.onViolation != 'fallback' || has(self.fallback)",
        "inputs.onViolation fallback needs somebody to ask: give fallback.targets",
    ),
    Rule(
        "!has(self.fallback) || (has(self.sidecar) && has(self.sidecar.goldenRequest))"
        " || (has(self.inputs) && has(self.inputs.tensors))",
        "a fallback is tried out before it is needed: give sidecar.goldenRequest a body that the"
        " model accepts, or give inputs.tensors, from which one is made",
    ),
    Rule(
        "self.serving.protocol != 'http' || !has(self.sidecar)"
        " || !has(self.sidecar.goldenRequest) || has(self.sidecar.goldenRequest.path)",
        "with serving.protocol http the path of an inference is not known: give"
        " sidecar.goldenRequest.path",
    ),
    Rule(
        "self.serving.protocol != 'http' || (!(has(self.inputs) && (has(self.inputs.tensors)"
        " || (has(self.inputs.features) && self.inputs.features.exists(it, has(it.tensor)))))"
        " && !(has(self.predictions) && self.predictions.exists(it, has(it.tensor))))",
        "tensors are of the Open Inference Protocol: with serving.protocol http give inputs.schema"
        " instead of inputs.tensors, and jsonPath instead of tensor",
    ),
)

_OBSERVED: Final = (
    Rule(_exactly_one("jsonPath", "tensor"), "give exactly one of jsonPath and tensor"),
    Rule("!has(self.column) || has(self.tensor)", "column goes with tensor"),
    Rule(
        "!has(self.buckets) || !has(self.type) || self.type == 'number'",
        "buckets are for type number; give labels",
    ),
    Rule(
        "!has(self.labels) || (has(self.type) && self.type == 'label')",
        "labels are for type label: write 'type: label'",
    ),
    Rule(
        "!has(self.buckets) || (self.buckets.isSorted() && self.buckets.all(one,"
        " self.buckets.exists_one(other, other == one)))",
        "buckets must rise from one to the next",
    ),
)

_TENSOR: Final = (
    Rule(
        "!has(self.min) || !has(self.max) || self.min <= self.max",
        "min must not be greater than max",
    ),
    Rule(
        "!has(self.allowed) || self.datatype == 'BYTES'",
        "allowed is for datatype BYTES; numbers have min and max",
    ),
    Rule(
        "!(has(self.min) || has(self.max)) || !(self.datatype in ['BYTES', 'BOOL'])",
        "min and max are for numbers; for BYTES give allowed",
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
    api.ModelDeploymentSpec.__name__: (*_SPEC, *_PROXIED),
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
            _exactly_one("prediction", "feature", "histogram", "counter"),
            "drift needs one distribution: give prediction, feature, histogram, or counter and"
            " label",
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
    webhooks.Notification.__name__: (
        Rule(_exactly_one("webhook", "slack"), "give exactly one of webhook and slack"),
    ),
    webhooks.Webhook.__name__: (
        Rule(
            "!self.address.contains('@')",
            "address must not hold a user or password: use signingKey",
        ),
    ),
    inference.Sidecar.__name__: (
        Rule("self.port != self.adminPort", "port and adminPort must differ"),
    ),
    inference.Inputs.__name__: (
        Rule(
            _exactly_one("schema", "tensors"),
            "give exactly one of schema and tensors ('schema: {}' is any JSON)",
        ),
    ),
    inference.TensorContract.__name__: _TENSOR,
    inference.Observed.__name__: _OBSERVED,
    inference.Fallback.__name__: (
        Rule(
            "self.targets.map(target, has(target.static)).isSorted()"
            " && self.targets.filter(target, has(target.static)).size() <= 1",
            "a static answer never fails, so nobody after it is asked: make it the last target",
        ),
    ),
    inference.FallbackTarget.__name__: (
        Rule(
            _exactly_one("stable", "previous", "service", "static"),
            "give exactly one of stable, previous, service and static ('stable: {}')",
        ),
    ),
}
"""The rules by the name of the model that they are about; ``ModelDeployment`` is the root."""
