"""Where metrics come from is written out where the sidecar's are meant."""

from __future__ import annotations

from typing import Any

import pytest

from crossfade.api.parse import parse_spec
from crossfade.api.v1alpha1 import Analysis, ModelDeploymentSpec, Source
from crossfade.errors import InvalidSpecError
from crossfade.metrics.sources import drift_join, plan_of, requests_plan

ERRORS: dict[str, Any] = {"name": "errors", "errorRate": {"maxPercent": 5}}
SLOW: dict[str, Any] = {
    "name": "slow",
    "latency": {"maxMilliseconds": 300, "maxSlowPercent": 1},
}
DECLARED: dict[str, Any] = {
    "predictions": [
        {"name": "score", "jsonPath": "$.score"},
        {"name": "class", "jsonPath": "$.class", "type": "label"},
    ],
    "inputs": {"schema": {}, "features": [{"name": "age", "jsonPath": "$.age"}]},
}


def parsed(*metrics: dict[str, Any], **changes: Any) -> ModelDeploymentSpec:
    source = changes.pop("source", None)
    analysis = {"prometheus": {"address": "http://p"}, "metrics": list(metrics)}
    spec = {
        "model": {"name": "fraud", "version": "1"},
        "template": {"spec": {"containers": [{"name": "model", "image": "fraud:1"}]}},
        "traffic": {"replicas": {}},
        "analysis": analysis | ({"source": source} if source is not None else {}),
    }
    return parse_spec({"spec": spec | changes})


def analysis_of(*metrics: dict[str, Any], **changes: Any) -> Analysis:
    analysis = parsed(*metrics, **changes).analysis
    assert analysis is not None
    return analysis


def drift(**fields: Any) -> dict[str, Any]:
    return {"name": "drift", "drift": fields}


@pytest.mark.parametrize("part", [{"sidecar": {}}, DECLARED, {"recording": {}}])
def test_with_a_sidecar_it_is_the_source(part: dict[str, Any]) -> None:
    analysis = analysis_of(ERRORS, SLOW, **part)
    assert analysis.source == Source(preset="sidecar")
    assert len(plan_of(analysis, analysis.metrics[0]).terms) == 2
    assert plan_of(analysis, analysis.metrics[1]).slowness is not None
    assert requests_plan(analysis) is not None


def test_without_a_sidecar_nothing_is_named() -> None:
    assert analysis_of(ERRORS).source is None


@pytest.mark.parametrize(
    "changes",
    [
        {"source": {"preset": "mlserver"}},
        {"source": {"requests": "a", "errors": "b"}},
    ],
)
def test_a_source_that_is_named_stays(changes: dict[str, Any]) -> None:
    analysis = analysis_of(ERRORS, sidecar={}, **changes)
    assert analysis.source == Source.model_validate(changes["source"])


def test_a_metric_keeps_its_own_source_and_others_get_the_sidecars() -> None:
    own = {**ERRORS, "source": {"preset": "istio"}}
    alone = analysis_of(own, sidecar={})
    assert alone.source is None
    assert alone.metrics[0].source == Source(preset="istio")
    both = analysis_of(own, SLOW, sidecar={})
    assert both.source == Source(preset="sidecar")
    assert both.metrics[0].source == Source(preset="istio")


@pytest.mark.parametrize(
    ("short", "written"),
    [
        ({"prediction": "score"}, {"histogram": 'crossfade_predictions{name="score"}'}),
        (
            {"prediction": "class"},
            {
                "counter": 'crossfade_prediction_labels_total{name="class"}',
                "label": "label",
            },
        ),
        ({"feature": "age"}, {"histogram": 'crossfade_features{name="age"}'}),
    ],
)
def test_a_short_form_of_a_drift_is_written_out(
    short: dict[str, Any], written: dict[str, Any]
) -> None:
    asked = analysis_of(drift(**short, minEffect=0.2), **DECLARED).metrics[0].drift
    assert asked is not None
    assert asked.model_dump(by_alias=True, exclude_none=True) == {**written, "minEffect": 0.2}


def test_a_drift_of_the_sidecar_is_told_apart_by_pod_whatever_counts_requests() -> None:
    source = {"requests": "a", "errors": "b", "versionLabel": "version", "podLabel": "pod_name"}
    analysis = analysis_of(drift(prediction="score"), ERRORS, source=source, **DECLARED)
    join = drift_join(analysis, analysis.metrics[0])
    assert (join.pod_label, join.namespace_label, join.version_label) == (
        "pod_name",
        "namespace",
        None,
    )


def test_a_drift_that_is_written_out_stays() -> None:
    given = drift(histogram="scores")
    analysis = analysis_of(given, source={"preset": "mlserver"}, **DECLARED)
    assert analysis.metrics[0].drift is not None
    assert analysis.metrics[0].drift.histogram == "scores"
    assert analysis.metrics[0].source is None


@pytest.mark.parametrize(
    ("short", "declared", "message"),
    [
        ({"prediction": "age"}, DECLARED, r"spec\.predictions: score, class"),
        ({"feature": "score"}, DECLARED, r"spec\.inputs\.features: age"),
        ({"feature": "age"}, {"sidecar": {}}, r"spec\.inputs\.features: there is none"),
        ({"prediction": "age"}, {}, r"spec\.predictions: there is none"),
    ],
)
def test_a_name_that_is_not_declared_is_told_with_those_that_are(
    short: dict[str, Any], declared: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidSpecError, match=message):
        analysis_of(drift(**short), **declared)


def test_the_sidecar_is_there_when_any_part_asks_for_it() -> None:
    assert parsed(ERRORS).proxy is None
    proxy = parsed(ERRORS, sidecar={"port": 9001}).proxy
    assert proxy is not None
    assert (proxy.port, proxy.admin_port) == (9001, 8013)
    proxy = parsed(ERRORS, recording={}).proxy
    assert proxy is not None
    assert (proxy.port, proxy.max_body_bytes) == (8012, 10 * 1024 * 1024)
