"""The API server itself says what is wrong with a manifest, in words that say what to write."""

from __future__ import annotations

import json
import secrets
import subprocess
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from crossfade.api.parse import dump_status, parse_spec, parse_status
from crossfade.api.v1alpha1 import (
    Condition,
    GateStatus,
    MetricStatus,
    ModelDeploymentStatus,
    Notice,
    Phase,
    RejectedRevision,
    RevisionStatus,
    RolloutStatus,
    StepForecast,
)
from crossfade.core.actions import Role
from crossfade.names import NamespacedName
from crossfade.workload import render
from crossfade.workload.revision import revision_of
from crossfade.workload.sidecar import Injection, check

Manifest = dict[str, Any]
Kubectl = Callable[..., subprocess.CompletedProcess[str]]

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))

ABSENT = object()
MODEL = {"name": "model", "image": "registry.example.com/model:1"}
JOINED = {"routeRef": {"name": "public", "rule": "model"}}
OWNED = {"parentRefs": [{"name": "public"}]}
ERRORS = {"name": "errors", "errorRate": {"maxPercent": 5}}
SLOW = {"name": "slow", "latency": {"maxMilliseconds": 300, "maxSlowPercent": 1}}
DRIFT = {"counter": "labels_total", "label": "class"}
SHARES = [{"value": "a", "weight": 0.9}, {"value": "b", "weight": 0.1}]
PAUSE: Manifest = {"weightPercent": 50, "pause": {}}
HTTP: Manifest = {"spec.serving": {"protocol": "http"}}
TENSOR: Manifest = {"name": "input", "datatype": "FP32", "shape": [-1, 4]}
SCORE: Manifest = {"name": "score", "jsonPath": "$.score"}
CLASS: Manifest = {"name": "class", "tensor": "class", "type": "label"}
GOLDEN: Manifest = {"spec.sidecar": {"goldenRequest": {"body": {"inputs": []}}}}
GUARDED: Manifest = {
    "spec.sidecar": {
        "resources": {"limits": {"memory": "128Mi"}},
        "goldenRequest": {"body": {"inputs": []}},
    },
    "spec.inputs": {
        "schema": {"type": "object", "properties": {"age": {"type": ["number", "null"]}}},
        "onViolation": "fallback",
        "features": [{"name": "age", "jsonPath": "$.age", "buckets": [18, 30, 65]}],
    },
    "spec.predictions": [SCORE, {**CLASS, "labels": ["cat", "dog"]}],
    "spec.fallback": {
        "reasons": ["timeout", "connection"],
        "targets": [
            {"stable": {}, "budgetPercent": 20},
            {"previous": {}},
            {"service": {"name": "rules", "port": 80}, "timeoutSeconds": 1},
            {"static": {"status": 503, "body": {"score": None}}},
        ],
        "breaker": {"failurePercent": 20},
    },
    "spec.recording": {"percent": 5, "mask": ["$..email"], "maskHeaders": ["X-User"]},
}
AUTOSCALING = {"minReplicas": 1, "maxReplicas": 3}

GOOD: Manifest = {
    "apiVersion": "crossfade.dev/v1alpha1",
    "kind": "ModelDeployment",
    "metadata": {"name": "good"},
    "spec": {
        "model": {"name": "good", "version": "1"},
        "template": {"spec": {"containers": [MODEL]}},
        "traffic": {"gateway": OWNED},
        "rollout": {"steps": [{"weightPercent": 5}, {"weightPercent": 50}]},
        "analysis": {
            "prometheus": {"address": "http://prometheus:9090"},
            "source": {"preset": "mlserver"},
            "metrics": [ERRORS],
        },
    },
}

NOW = datetime(2026, 11, 24, 12, 0, 0, 123456, tzinfo=UTC)
STATUS = ModelDeploymentStatus(
    observed_generation=1,
    phase=Phase.PROGRESSING,
    stable=RevisionStatus(revision="bbbbbbbb", version="1"),
    canary=RevisionStatus(revision="cccccccc", version="2"),
    previous=RevisionStatus(revision="dddddddd", version="0"),
    weight=25,
    step="2/3",
    verdict="healthy",
    message="500 of 1000 requests",
    rollout=RolloutStatus(started_at=NOW, step=1, target_weight=25, ready_at=NOW, warned_slow=True),
    promoted_at=NOW,
    rejected=[
        RejectedRevision(
            revision="fffffff0", version="9", reason="Harm", message="too many errors", at=NOW
        )
    ],
    metrics=[
        MetricStatus(
            name="errors",
            verdict="healthy",
            message="1 of 100",
            alert="inputs moved",
            forecast=[
                StepForecast(weight_percent=5, requests=4100, seconds=93_600),
                StepForecast(weight_percent=50, requests=9500),
            ],
            no_forecast="none",
        )
    ],
    gates=[GateStatus(name="freeze", answer="refused", message="not now")],
    notices=[
        Notice(
            id="a-1-Paused",
            occasion="held",
            reason="Paused",
            message="waits for a person",
            at=NOW,
            phase=Phase.PAUSED,
            stable=RevisionStatus(revision="bbbbbbbb", version="1"),
            weight=25,
            receivers=["team"],
        )
    ],
    joined_backend={"name": "model", "port": 8080, "filters": [{"type": "X"}]},
    conditions=[
        Condition(
            type="Ready",
            status="True",
            observed_generation=1,
            last_transition_time=NOW,
            reason="Serving",
            message="3 of 3 pods are ready",
        )
    ],
    replicas=3,
    ready_replicas=3,
    selector="crossfade.dev/name=told",
)


def changed(changes: Manifest, base: Manifest = GOOD) -> Manifest:
    """Return a copy with other values at dotted paths; ABSENT removes."""
    manifest = deepcopy(base)
    for path, value in changes.items():
        *parents, last = path.split(".")
        place: Any = manifest
        for parent in parents:
            place = place[int(parent)] if isinstance(place, list) else place.setdefault(parent, {})
        if value is ABSENT:
            del place[last]
        else:
            place[int(last) if isinstance(place, list) else last] = value
    return manifest


def metric(**fields: Any) -> Manifest:
    return {"spec.analysis.metrics": [{"name": "one", **fields}]}


def steps(*weights: int) -> Manifest:
    return {"spec.rollout.steps": [{"weightPercent": weight} for weight in weights]}


def gates(*names: str, **webhook: Any) -> Manifest:
    address = {"address": "https://gate.example.com", **webhook}
    return {"spec.rollout.gates": [{"name": name, "webhook": address} for name in names]}


HOOK = {"address": "https://hooks.example.com/a?b=c"}
SLACK = {"address": {"name": "crossfade-webhooks", "key": "slack"}}

WRONG: dict[str, tuple[Manifest, str]] = {
    "a receiver with two addresses": (
        {"spec.notifications": [{"name": "team", "webhook": HOOK, "slack": SLACK}]},
        "give exactly one of webhook and slack",
    ),
    "a receiver without an address": (
        {"spec.notifications": [{"name": "team"}]},
        "give exactly one of webhook and slack",
    ),
    "two receivers of one name": (
        {"spec.notifications": [{"name": "team", "webhook": HOOK}] * 2},
        "Duplicate value",
    ),
    "news that there is not": (
        {"spec.notifications": [{"name": "team", "webhook": HOOK, "events": ["finished"]}]},
        'supported values: "started", "held", "promoted", "rolledBack", "deadline"',
    ),
    "an address of Slack in the spec": (
        {"spec.notifications": [{"name": "team", "slack": {"address": "https://a.b"}}]},
        "spec.notifications[0].slack.address",
    ),
    "a gate with a password in its address": (
        gates("freeze", address="https://me:secret@gate.example.com"),
        "address must not hold a user or password: use signingKey",
    ),
    "a gate without a scheme": (
        gates("freeze", address="gate.example.com"),
        "spec.rollout.gates[0].webhook.address",
    ),
    "two gates of one name": (gates("freeze", "freeze"), "Duplicate value"),
    "a name that is too long": (
        {"metadata.name": "a" * 55},
        "metadata.name may have at most 48 characters",
    ),
    "a name that starts with a digit": (
        {"metadata.name": "2fast"},
        "metadata.name must start with a letter",
    ),
    "a name with a dot": ({"metadata.name": "a.b"}, "metadata.name must start with a letter"),
    "no spec": ({"spec": ABSENT}, "spec: Required value"),
    "no model": ({"spec.model": ABSENT}, "spec.model: Required value"),
    "an empty version": ({"spec.model.version": ""}, "spec.model.version"),
    "a number as version": ({"spec.model.version": 2}, "must be of type string"),
    "a digest that is none": ({"spec.model.sha256": "abc"}, "spec.model.sha256"),
    "an unknown field": ({"spec.modle": {}}, 'unknown field "spec.modle"'),
    "an unknown protocol": (
        {"spec.serving": {"protocol": "grpc"}},
        'supported values: "openInference", "http"',
    ),
    "a port that is none": ({"spec.serving": {"port": 65536}}, "spec.serving.port"),
    "http without a probe": (
        {"spec.serving": {"protocol": "http"}},
        "give a container of template a readinessProbe",
    ),
    "no pods": ({"spec.replicas": 0}, "spec.replicas"),
    "replicas and autoscaling": (
        {"spec.replicas": 2, "spec.autoscaling": AUTOSCALING},
        "give replicas or autoscaling, not both",
    ),
    "more pods at least than at most": (
        {"spec.autoscaling": {"minReplicas": 4, "maxReplicas": 3}},
        "minReplicas must not be greater than maxReplicas",
    ),
    "an autoscaler without a maximum": (
        {"spec.autoscaling": {"minReplicas": 4}},
        "spec.autoscaling.maxReplicas: Required value",
    ),
    "autoscaling where pods are the split": (
        {"spec.autoscaling": AUTOSCALING, "spec.traffic": {"replicas": {}}},
        "give replicas instead of autoscaling, or split by traffic.gateway",
    ),
    "more than half of the pods for a canary": (
        {**steps(5, 75), "spec.traffic": {"replicas": {}}},
        "with traffic.replicas a canary gets at most half",
    ),
    "no template": ({"spec.template": ABSENT}, "spec.template: Required value"),
    "a template without spec": ({"spec.template": {}}, "spec.template.spec: Required value"),
    "a template without containers": (
        {"spec.template": {"spec": {}}},
        "spec.template.spec.containers: Required value",
    ),
    "no container": (
        {"spec.template.spec.containers": []},
        "spec.template.spec.containers in body should have at least 1 items",
    ),
    "a container without image": (
        {"spec.template.spec.containers": [{"name": "model"}]},
        "spec.template.spec.containers[0].image: Required value",
    ),
    "two containers of one name": (
        {"spec.template.spec.containers": [MODEL, MODEL]},
        "spec.template.spec.containers[1]: Duplicate value",
    ),
    "an environment that is an object": (
        {"spec.template.spec.containers": [{**MODEL, "env": {"A": "b"}}]},
        "spec.template.spec.containers[0].env",
    ),
    "no traffic": ({"spec.traffic": ABSENT}, "spec.traffic: Required value"),
    "nobody to split": (
        {"spec.traffic": {}},
        "give exactly one of gateway, istio and replicas; without a gateway write 'replicas: {}'",
    ),
    "two to split": (
        {"spec.traffic": {"gateway": OWNED, "replicas": {}}},
        "give exactly one of gateway, istio and replicas",
    ),
    "a gateway without anything": (
        {"spec.traffic": {"gateway": {}}},
        "give parentRefs for a route of Crossfade's own, or routeRef to join one of yours",
    ),
    "a gateway with everything": (
        {"spec.traffic": {"gateway": OWNED | JOINED}},
        "give parentRefs for a route of Crossfade's own, or routeRef to join one of yours",
    ),
    "hostnames of somebody else's route": (
        {"spec.traffic": {"gateway": JOINED | {"hostnames": ["a.example.com"]}}},
        "with routeRef, write them in your HTTPRoute",
    ),
    "a URL as hostname": (
        {"spec.traffic": {"gateway": OWNED | {"hostnames": ["https://a.example.com"]}}},
        "spec.traffic.gateway.hostnames[0]",
    ),
    "no parent": ({"spec.traffic": {"gateway": {"parentRefs": []}}}, "at least 1 items"),
    "a VirtualService without hosts": (
        {"spec.traffic": {"istio": {"hosts": []}}},
        "spec.traffic.istio.hosts in body should have at least 1 items",
    ),
    "no step": (
        {"spec.rollout.steps": []},
        "spec.rollout.steps in body should have at least 1 items",
    ),
    "a step of nothing": (steps(0, 5), "weightPercent in body should be greater than or equal"),
    "more than everything": (
        steps(5, 101),
        "weightPercent in body should be less than or equal to 100",
    ),
    "weights that fall": (
        steps(50, 5),
        "the weightPercent of each step must be greater than that of the step before",
    ),
    "weights that stay": (
        steps(5, 5),
        "the weightPercent of each step must be greater than that of the step before",
    ),
    "a pause of no time": (
        {"spec.rollout.steps": [{"weightPercent": 5, "pause": {"seconds": 0}}]},
        "spec.rollout.steps[0].pause.seconds",
    ),
    "another end of the deadline": (
        {"spec.rollout.onDeadline": "rollback"},
        'supported values: "hold", "rollBack"',
    ),
    "no deadline": ({"spec.rollout.deadlineSeconds": 0}, "spec.rollout.deadlineSeconds"),
    "nobody who judges": (
        {"spec.analysis": ABSENT},
        "add analysis, or give every step of rollout.steps a pause",
    ),
    "nobody who judges the last step": (
        {
            "spec.analysis": ABSENT,
            "spec.rollout.steps": [{**PAUSE, "weightPercent": 5}, {"weightPercent": 50}],
        },
        "add analysis, or give every step of rollout.steps a pause",
    ),
    "nobody who judges the default ladder": (
        {"spec.analysis": ABSENT, "spec.rollout": ABSENT},
        "add analysis, or give every step of rollout.steps a pause",
    ),
    "an analysis without metrics": (
        {"spec.analysis.metrics": []},
        "spec.analysis.metrics in body should have at least 1 items",
    ),
    "an address without scheme": (
        {"spec.analysis.prometheus.address": "prometheus:9090"},
        "spec.analysis.prometheus.address",
    ),
    "a password in the address": (
        {"spec.analysis.prometheus.address": "http://me:secret@prometheus"},
        "address must not hold a user or password: use basicAuth",
    ),
    "two ways to say who asks": (
        {
            "spec.analysis.prometheus.bearerToken": {"name": "a", "key": "b"},
            "spec.analysis.prometheus.basicAuth": {"name": "a"},
        },
        "give bearerToken or basicAuth, not both",
    ),
    "TLS without https": (
        {"spec.analysis.prometheus.tls": {"insecureSkipVerify": True}},
        "tls needs an address that starts with https://",
    ),
    "two metrics of one name": (
        {"spec.analysis.metrics": [ERRORS, ERRORS]},
        "spec.analysis.metrics[1]: Duplicate value",
    ),
    "a metric of no kind": (metric(), "give exactly one of errorRate, latency, drift and query"),
    "a metric of two kinds": (
        metric(errorRate=ERRORS["errorRate"], latency=SLOW["latency"]),
        "give exactly one of errorRate, latency, drift and query",
    ),
    "a metric's name in capitals": (
        {"spec.analysis.metrics": [{**ERRORS, "name": "Errors"}]},
        "spec.analysis.metrics[0].name",
    ),
    "an errorRate without limit": (
        metric(errorRate={}),
        "errorRate needs a limit: give maxPercent, worseThanStable, or both",
    ),
    "an errorRate of nothing": (
        metric(errorRate={"maxPercent": 0}),
        "maxPercent in body should be greater than 0",
    ),
    "an errorRate of everything": (
        metric(errorRate={"maxPercent": 100}),
        "maxPercent in body should be less than 100",
    ),
    "a latency without limit": (
        metric(latency={"maxMilliseconds": 300}),
        "latency needs a limit: give maxSlowPercent, worseThanStable, or both",
    ),
    "a latency without time": (
        metric(latency={"maxSlowPercent": 1}),
        "spec.analysis.metrics[0].latency.maxMilliseconds: Required value",
    ),
    "a ratio that asks for a better version": (
        metric(errorRate={"worseThanStable": {"ratio": 0.5}}),
        "worseThanStable.ratio",
    ),
    "a query without limit": (metric(query={"promql": "1"}), "give max, min, or both"),
    "a query that nothing passes": (
        metric(query={"promql": "1", "min": 2, "max": 1}),
        "min must not be greater than max",
    ),
    "a query with a source": (
        metric(query={"promql": "1", "min": 2}, source={"preset": "mlserver"}),
        "source is for counters and histograms; a query names its series itself",
    ),
    "a query that warms up": (
        metric(query={"promql": "1", "min": 2}, warmupSeconds=30),
        "warmupSeconds is for counters and histograms; a query is evaluated as it is written",
    ),
    "a warm-up that leaves nothing": (
        {"spec.analysis.metrics": [{**SLOW, "warmupSeconds": 301}]},
        "warmupSeconds in body should be less than or equal to 300",
    ),
    "an increase of everything": (
        metric(errorRate={"worseThanStable": {"minIncreasePercent": 100}}),
        "worseThanStable.minIncreasePercent in body should be less than 100",
    ),
    "an increase that asks for a better version": (
        metric(errorRate={"worseThanStable": {"minIncreasePercent": -0.1}}),
        "worseThanStable.minIncreasePercent in body should be greater than or equal to 0",
    ),
    "no healthy version may ever be rolled back": (
        {"spec.analysis.falseRollbackRate": 0},
        "spec.analysis.falseRollbackRate in body should be greater than 0",
    ),
    "healthy versions are rolled back as often as not": (
        {"spec.analysis.falseRollbackRate": 0.51},
        "spec.analysis.falseRollbackRate in body should be less than or equal to 0.5",
    ),
    "a drift beside an errorRate": (
        metric(drift=DRIFT, errorRate=ERRORS["errorRate"]),
        "give exactly one of errorRate, latency, drift and query",
    ),
    "a drift of nothing": (
        metric(drift={"minEffect": 0.2}),
        "drift needs one distribution: give prediction, feature, histogram, or counter",
    ),
    "a drift of two things": (
        metric(drift={**DRIFT, "histogram": "scores"}),
        "drift needs one distribution: give prediction, feature, histogram, or counter",
    ),
    "a drift of a counter without label": (
        metric(drift={"counter": "labels_total"}),
        "label goes with counter: its values are the categories",
    ),
    "a drift of a histogram with a label": (
        metric(drift={"histogram": "scores", "label": "class"}),
        "label goes with counter: its values are the categories",
    ),
    "a drift of a label that is none": (
        metric(drift={"counter": "labels_total", "label": "the class"}),
        "drift.label",
    ),
    "a drift of any size": (
        metric(drift={**DRIFT, "minEffect": 0}),
        "drift.minEffect in body should be greater than 0",
    ),
    "a drift that is never large enough": (
        metric(drift={**DRIFT, "minEffect": 11}),
        "drift.minEffect in body should be less than or equal to 10",
    ),
    "a reference to nothing": (
        metric(drift={**DRIFT, "reference": {}}),
        "give exactly one of shares, configMap and stableBeforeSeconds",
    ),
    "two references": (
        metric(drift={**DRIFT, "reference": {"shares": SHARES, "stableBeforeSeconds": 3600}}),
        "give exactly one of shares, configMap and stableBeforeSeconds",
    ),
    "a reference of one bucket": (
        metric(drift={**DRIFT, "reference": {"shares": SHARES[:1]}}),
        "drift.reference.shares in body should have at least 2 items",
    ),
    "a reference with a negative share": (
        metric(drift={**DRIFT, "reference": {"shares": [*SHARES, {"value": "c", "weight": -1}]}}),
        "drift.reference.shares[2].weight in body should be greater than or equal to 0",
    ),
    "a reference to a ConfigMap without key": (
        metric(drift={**DRIFT, "reference": {"configMap": {"name": "training"}}}),
        "drift.reference.configMap.key: Required value",
    ),
    "a reference to less than a minute": (
        metric(drift={**DRIFT, "reference": {"stableBeforeSeconds": 59}}),
        "drift.reference.stableBeforeSeconds in body should be greater than or equal to 60",
    ),
    "an errorRate without counters": (
        {"spec.analysis.source": ABSENT},
        "errorRate needs counters: give source.requests and source.errors, or source.preset",
    ),
    "an errorRate with half the counters": (
        {"spec.analysis.source": {"requests": "a"}},
        "errorRate needs counters: give source.requests and source.errors, or source.preset",
    ),
    "an errorRate whose own source has no counters": (
        metric(errorRate={"maxPercent": 5}, source={"latency": "a"}),
        "errorRate needs counters: give source.requests and source.errors, or source.preset",
    ),
    "a latency without histogram": (
        {"spec.analysis.source": {"requests": "a", "errors": "b"}, "spec.analysis.metrics": [SLOW]},
        "latency needs a histogram: give source.latency or source.preset",
    ),
    "a latency whose own source has no histogram": (
        metric(latency=SLOW["latency"], source={"requests": "a", "errors": "b"}),
        "latency needs a histogram: give source.latency or source.preset",
    ),
    "a drift of two of our own": (
        metric(drift={"prediction": "score", "feature": "age"}),
        "drift needs one distribution: give prediction, feature, histogram, or counter",
    ),
    "a drift of a prediction that is not declared": (
        {**metric(drift={"prediction": "scores"}), **GUARDED},
        "drift.prediction must be the name of one of predictions",
    ),
    "a drift of a prediction where none is declared": (
        metric(drift={"prediction": "score"}),
        "drift.prediction must be the name of one of predictions",
    ),
    "a drift of a feature that is not declared": (
        {**metric(drift={"feature": "score"}), **GUARDED},
        "drift.feature must be the name of one of inputs.features",
    ),
    "a drift of a feature where no input is declared": (
        metric(drift={"feature": "age"}),
        "drift.feature must be the name of one of inputs.features",
    ),
    "a container with our name": (
        {"spec.template.spec.containers": [{**MODEL, "name": "crossfade-sidecar"}]},
        "the container name crossfade-sidecar is taken",
    ),
    "an init container with our name": (
        {"spec.template.spec.initContainers": [{**MODEL, "name": "crossfade-sidecar"}]},
        "the container name crossfade-sidecar is taken",
    ),
    "a sidecar on the model's port": (
        {"spec.sidecar": {"port": 8080}},
        "sidecar.port and sidecar.adminPort must differ from serving.port",
    ),
    "a model on the sidecar's port": (
        {"spec.serving": {"port": 8013}, "spec.recording": {}},
        "sidecar.port and sidecar.adminPort must differ from serving.port",
    ),
    "one port for two": ({"spec.sidecar": {"port": 8013}}, "port and adminPort must differ"),
    "a body of nothing": ({"spec.sidecar": {"maxBodyBytes": 0}}, "spec.sidecar.maxBodyBytes"),
    "a golden request without path": (
        {**HTTP, "spec.sidecar": {"goldenRequest": {"body": {}}}},
        "give sidecar.goldenRequest.path",
    ),
    "a path that is a URL": (
        {"spec.sidecar": {"goldenRequest": {"path": "http://a/b", "body": {}}}},
        "spec.sidecar.goldenRequest.path",
    ),
    "inputs of no kind": ({"spec.inputs": {}}, "give exactly one of schema and tensors"),
    "inputs of two kinds": (
        {"spec.inputs": {"schema": {}, "tensors": [TENSOR]}},
        "give exactly one of schema and tensors",
    ),
    "a schema that is a list": ({"spec.inputs": {"schema": []}}, "spec.inputs.schema"),
    "tensors of another protocol": (
        {**HTTP, "spec.inputs": {"tensors": [TENSOR]}},
        "tensors are of the Open Inference Protocol",
    ),
    "a prediction in a tensor of another protocol": (
        {**HTTP, "spec.predictions": [{"name": "score", "tensor": "out"}]},
        "tensors are of the Open Inference Protocol",
    ),
    "two tensors of one name": (
        {"spec.inputs": {"tensors": [TENSOR, TENSOR]}},
        "spec.inputs.tensors[1]: Duplicate value",
    ),
    "a tensor of an unknown datatype": (
        {"spec.inputs": {"tensors": [{**TENSOR, "datatype": "FLOAT"}]}},
        "spec.inputs.tensors[0].datatype: Unsupported value",
    ),
    "a tensor that nothing fits": (
        {"spec.inputs": {"tensors": [{**TENSOR, "min": 2, "max": 1}]}},
        "min must not be greater than max",
    ),
    "categories of numbers": (
        {"spec.inputs": {"tensors": [{**TENSOR, "allowed": ["1"]}]}},
        "allowed is for datatype BYTES",
    ),
    "a least text": (
        {"spec.inputs": {"tensors": [{**TENSOR, "datatype": "BYTES", "min": 1}]}},
        "min and max are for numbers; for BYTES give allowed",
    ),
    "a violation for nobody": (
        {"spec.inputs": {"schema": {}, "onViolation": "fallback"}},
        "inputs.onViolation fallback needs somebody to ask: give fallback.targets",
    ),
    "two predictions of one name": (
        {"spec.predictions": [SCORE, SCORE]},
        "spec.predictions[1]: Duplicate value",
    ),
    "a prediction from nowhere": (
        {"spec.predictions": [{"name": "score"}]},
        "give exactly one of jsonPath and tensor",
    ),
    "a prediction from two places": (
        {"spec.predictions": [{**SCORE, "tensor": "out"}]},
        "give exactly one of jsonPath and tensor",
    ),
    "a path that starts nowhere": (
        {"spec.predictions": [{"name": "score", "jsonPath": "score"}]},
        "spec.predictions[0].jsonPath",
    ),
    "a column of JSON": ({"spec.predictions": [{**SCORE, "column": 0}]}, "column goes with tensor"),
    "buckets of labels": (
        {"spec.predictions": [{**CLASS, "buckets": [1, 2]}]},
        "buckets are for type number; give labels",
    ),
    "labels of numbers": (
        {"spec.predictions": [{**SCORE, "labels": ["a"]}]},
        "labels are for type label: write 'type: label'",
    ),
    "buckets that fall": (
        {"spec.predictions": [{**SCORE, "buckets": [2, 1]}]},
        "buckets must rise from one to the next",
    ),
    "buckets that stay": (
        {"spec.predictions": [{**SCORE, "buckets": [1, 1]}]},
        "buckets must rise from one to the next",
    ),
    "a fallback that cannot be tried out": (
        {"spec.fallback": {"targets": [{"stable": {}}]}},
        "a fallback is tried out before it is needed: give sidecar.goldenRequest a body",
    ),
    "a fallback to nobody": ({**GOLDEN, "spec.fallback": {"targets": []}}, "spec.fallback.targets"),
    "a target that is none": (
        {**GOLDEN, "spec.fallback": {"targets": [{"timeoutSeconds": 1}]}},
        "give exactly one of stable, previous, service and static ('stable: {}')",
    ),
    "a target that is two": (
        {**GOLDEN, "spec.fallback": {"targets": [{"stable": {}, "previous": {}}]}},
        "give exactly one of stable, previous, service and static ('stable: {}')",
    ),
    "somebody after the static answer": (
        {**GOLDEN, "spec.fallback": {"targets": [{"static": {}}, {"stable": {}}]}},
        "a static answer never fails, so nobody after it is asked: make it the last target",
    ),
    "two static answers": (
        {**GOLDEN, "spec.fallback": {"targets": [{"static": {}}, {"static": {"status": 503}}]}},
        "a static answer never fails, so nobody after it is asked: make it the last target",
    ),
    "a Service in another namespace": (
        {**GOLDEN, "spec.fallback": {"targets": [{"service": {"name": "a.b", "port": 80}}]}},
        "spec.fallback.targets[0].service.name",
    ),
    "an unknown reason": (
        {**GOLDEN, "spec.fallback": {"reasons": ["slow"], "targets": [{"stable": {}}]}},
        'supported values: "timeout", "connection", "serverError", "openCircuit"',
    ),
    "a recording of nothing": ({"spec.recording": {"percent": 0}}, "spec.recording.percent"),
    "a header that is none": (
        {"spec.recording": {"maskHeaders": ["x: y"]}},
        "spec.recording.maskHeaders[0]",
    ),
    "an unknown preset": (
        {"spec.analysis.source": {"preset": "tritno"}},
        'supported values: "mlserver", "triton", "vllm"',
    ),
    "an unknown unit": (
        {"spec.analysis.source": {"preset": "mlserver", "latencyUnit": "minutes"}},
        'supported values: "seconds", "milliseconds", "microseconds"',
    ),
}

RIGHT: dict[str, Manifest] = {
    "as little as possible": {"spec.rollout": ABSENT},
    "the longest name": {"metadata.name": "a" * 48},
    "a pod template as kubectl writes it": {
        "spec.template.metadata": {"creationTimestamp": None, "labels": {"team": "ml"}}
    },
    "receivers and gates": {
        "spec.notifications": [
            {"name": "team", "slack": SLACK, "events": ["held", "deadline"]},
            {"name": "registry", "webhook": {**HOOK, "signingKey": SLACK["address"]}},
        ],
        **gates("freeze", "smoke"),
    },
    "no gateway": {"spec.traffic": {"replicas": {}}},
    "a joined route": {"spec.traffic": {"gateway": JOINED}},
    "people who decide": {"spec.analysis": ABSENT, "spec.rollout.steps": [PAUSE]},
    "an autoscaler": {"spec.autoscaling": AUTOSCALING},
    "a source of the metric's own": {
        "spec.analysis.source": ABSENT,
        "spec.analysis.metrics": [{**ERRORS, "source": {"requests": "a", "errors": "b"}}],
    },
    "drift without any counter of requests": {
        "spec.analysis.source": ABSENT,
        "spec.analysis.metrics": [{"name": "labels", "drift": DRIFT}],
    },
    "drift of a histogram from the training data": metric(
        drift={"histogram": "scores", "reference": {"shares": SHARES}}
    ),
    "drift from a ConfigMap": metric(
        drift={**DRIFT, "reference": {"configMap": {"name": "training", "key": "labels.yaml"}}}
    ),
    "drift from stable's own past": metric(
        drift={**DRIFT, "minEffect": 0.25, "reference": {"stableBeforeSeconds": 86_400}}
    ),
    "a strict comparison": metric(
        errorRate={"worseThanStable": {"ratio": 1, "minIncreasePercent": 0}}
    ),
    "one false rollback in a thousand": {"spec.analysis.falseRollbackRate": 0.001},
    "a model that warms up": {"spec.analysis.metrics": [{**ERRORS, "warmupSeconds": 120}]},
    "a gateway that counts": {"spec.analysis.source": {"preset": "istio"}},
    "a sidecar with everything": GUARDED,
    "a proxy alone": {"spec.sidecar": {}},
    "a sidecar that counts": {"spec.sidecar": {}, "spec.analysis.source": ABSENT},
    "a drift of a prediction and of a feature": {
        **GUARDED,
        "spec.analysis.source": ABSENT,
        "spec.analysis.metrics": [
            {"name": "scores", "drift": {"prediction": "score"}},
            {"name": "classes", "drift": {"prediction": "class"}},
            {"name": "ages", "drift": {"feature": "age"}},
        ],
    },
    "http with a golden request": {
        **HTTP,
        "spec.sidecar": {"goldenRequest": {"path": "/predict", "body": [1, None]}},
    },
    "a golden request of text": {
        "spec.sidecar": {"goldenRequest": {"path": "/a", "body": "a,b", "contentType": "text/csv"}}
    },
    "a golden request from tensors": {
        "spec.inputs": {"tensors": [TENSOR]},
        "spec.fallback": {"targets": [{"stable": {}}]},
    },
    "answers counted elsewhere": {
        "spec.analysis.source": {"requests": "a", "errors": "b", "versionLabel": "version"}
    },
    "http with a probe": {
        "spec.serving": {"protocol": "http", "port": 80},
        "spec.template.spec.containers": [
            {**MODEL, "readinessProbe": {"httpGet": {"path": "/", "port": 80}}}
        ],
    },
}

FIXED: dict[str, tuple[Manifest, Manifest, str]] = {
    "who splits the traffic": (
        {},
        {"spec.traffic": {"replicas": {}}},
        "who splits the traffic (gateway, istio or replicas) cannot change",
    ),
    "whose route it is": (
        {},
        {"spec.traffic": {"gateway": JOINED}},
        "cannot become a joined one (routeRef), nor the other way round",
    ),
    "which route is joined": (
        {"spec.traffic": {"gateway": JOINED}},
        {"spec.traffic": {"gateway": {"routeRef": {"name": "other", "rule": "model"}}}},
        "routeRef cannot change, since the joined route must be put back",
    ),
    "which rule is joined": (
        {"spec.traffic": {"gateway": JOINED}},
        {"spec.traffic": {"gateway": {"routeRef": {"name": "public"}}}},
        "routeRef cannot change, since the joined route must be put back",
    ),
    "the port": (
        {},
        {"spec.serving": {"port": 9000}},
        "port cannot change, since both versions are reached through the same port",
    ),
}


@pytest.fixture(scope="module")
def namespace() -> str:
    return f"api-{secrets.token_hex(3)}"


@pytest.fixture(scope="module")
def api(kubectl: Kubectl, namespace: str) -> Iterator[Kubectl]:
    """The API server with our kind; what it is asked goes to a namespace of its own."""
    for command in (
        ("apply", "--server-side", "--force-conflicts", "-k", str(ROOT / "crds")),
        ("wait", "--for=condition=Established", "crd/modeldeployments.crossfade.dev"),
        ("create", "namespace", namespace),
    ):
        done = kubectl(*command)
        assert done.returncode == 0, done.stderr

    def run(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        return kubectl("--namespace", namespace, *arguments, **options)

    yield run
    kubectl("delete", "namespace", namespace, "--wait=false")


@pytest.mark.parametrize(("changes", "message"), WRONG.values(), ids=WRONG)
def test_a_wrong_manifest_is_refused_with_what_to_write(
    api: Kubectl, changes: Manifest, message: str
) -> None:
    refused = api("create", "--dry-run=server", "-f", "-", manifest=changed(changes))
    assert refused.returncode != 0
    assert message in refused.stderr


@pytest.mark.parametrize("changes", RIGHT.values(), ids=RIGHT)
def test_a_right_manifest_is_taken(api: Kubectl, changes: Manifest) -> None:
    taken = api("create", "--dry-run=server", "-f", "-", manifest=changed(changes))
    assert taken.returncode == 0, taken.stderr


@pytest.mark.parametrize(("before", "after", "message"), FIXED.values(), ids=FIXED)
def test_what_may_not_change_is_kept(
    api: Kubectl, before: Manifest, after: Manifest, message: str
) -> None:
    name = {"metadata.name": f"fixed-{secrets.token_hex(3)}"}
    first = changed(before | name)
    assert api("create", "-f", "-", manifest=first).returncode == 0
    # The operator writes, too: what it does first would be a conflict with what is replaced here.
    seen = "--for=jsonpath={.status.observedGeneration}=1"
    assert api("wait", seen, f"modeldeployment/{first['metadata']['name']}").returncode == 0
    refused = api("replace", "-f", "-", manifest=changed(after, first))
    assert refused.returncode != 0
    assert message in refused.stderr
    unchanged = api("replace", "--dry-run=server", "-f", "-", manifest=first)
    assert unchanged.returncode == 0, unchanged.stderr


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_an_example_is_taken(api: Kubectl, example: Path) -> None:
    taken = api("apply", "--dry-run=server", "-f", str(example))
    assert taken.returncode == 0, taken.stderr


def test_the_api_server_fills_in_defaults_but_not_in_lists(api: Kubectl) -> None:
    manifest = changed({"spec.rollout": {"steps": [{"weightPercent": 5}]}})
    taken = api("create", "--dry-run=server", "-o", "json", "-f", "-", manifest=manifest)
    spec = json.loads(taken.stdout)["spec"]
    assert spec["serving"] == {"protocol": "openInference", "port": 8080}
    assert spec["rollout"]["deadlineSeconds"] == 86_400
    assert spec["analysis"]["falseRollbackRate"] == 0.01
    assert spec["rollout"]["steps"] == [{"weightPercent": 5}]
    assert spec["analysis"]["metrics"] == [ERRORS]


def test_a_whole_status_is_stored_as_it_was_dumped(api: Kubectl) -> None:
    manifest = changed({"metadata.name": "told"})
    assert api("create", "-f", "-", manifest=manifest).returncode == 0
    patch = json.dumps({"status": dump_status(STATUS)})
    # A dry run: an operator may be at work, and it would write what is really there.
    told = ("patch", "mdep", "told", "--subresource=status", "--type=merge", "--dry-run=server")
    done = api(*told, "-o", "json", "-p", patch)
    assert done.returncode == 0, done.stderr
    stored = json.loads(done.stdout)
    written = {key: stored["status"][key] for key in dump_status(STATUS)}
    assert written == dump_status(STATUS)
    assert parse_status({"status": written}) == STATUS


def test_kubectl_explain_tells_every_field(api: Kubectl) -> None:
    told = api("explain", "mdep.spec.rollout.steps.weightPercent")
    assert "Weights must rise from step" in told.stdout


def test_kubectl_scale_changes_the_pods_of_stable(api: Kubectl) -> None:
    manifest = changed({"metadata.name": "scaled", "spec.replicas": 2})
    assert api("create", "-f", "-", manifest=manifest).returncode == 0
    assert api("scale", "mdep", "scaled", "--replicas=3").returncode == 0
    replicas = api("get", "mdep", "scaled", "-o", "jsonpath={.spec.replicas}")
    assert replicas.stdout == "3"


def test_the_operators_manifests_are_taken(api: Kubectl) -> None:
    rendered = api("kustomize", str(ROOT / "manifests"))
    assert rendered.returncode == 0, rendered.stderr
    for path in sorted((ROOT / "manifests").glob("[!k]*.yaml")):
        for manifest in yaml.safe_load_all(path.read_text()):
            manifest["metadata"].pop("namespace", None)  # which may not exist in a dry run
            taken = api("create", "--dry-run=server", "-f", "-", manifest=renamed(manifest))
            assert taken.returncode == 0, taken.stderr


def renamed(manifest: Manifest) -> Manifest:
    """Return it under a name that is not taken by an operator that is installed."""
    name = f"dry-{secrets.token_hex(3)}"
    return {**manifest, "metadata": {**manifest["metadata"], "name": name}}


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_the_children_of_an_example_are_taken(api: Kubectl, namespace: str, example: Path) -> None:
    (body,) = (
        manifest
        for manifest in yaml.safe_load_all(example.read_text())
        if manifest["kind"] == "ModelDeployment"
    )
    spec = parse_spec(body)
    owner = render.Owner(name=body["metadata"]["name"], namespace=namespace, uid="u1")
    revision = revision_of(spec)
    injection = Injection("crossfade.dev/operator:dev")
    ordinary = replace(injection, is_native=False)
    check(NamespacedName(namespace, owner.name), spec, injection)
    children = [
        render.render_deployment(owner, spec, revision, Role.STABLE, 2, injection),
        render.render_deployment(owner, spec, revision, Role.STABLE, 2, ordinary),
        render.render_service(owner, spec, revision),
        render.render_address(owner, spec, revision),
        render.render_address(owner, spec, None),
    ]
    if spec.autoscaling is not None:
        children.append(render.render_autoscaler(owner, spec, revision, 2))
    for child in children:
        taken = api("apply", "--server-side", "--dry-run=server", "-f", "-", manifest=child)
        assert taken.returncode == 0, taken.stderr
