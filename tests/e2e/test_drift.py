"""Predictions and scores that move, and latency by native histograms, on the real cluster."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from tests.e2e.rollouts import PROMETHEUS, Rollout, eventually

LABELS: dict[str, Any] = {"counter": "model_predictions_total", "label": "label"}
SCORES: dict[str, Any] = {"histogram": "model_score"}
TRAINING = {"configMap": {"name": "training", "key": "labels"}}


def judged_by(*metrics: dict[str, Any]) -> dict[str, Any]:
    """Return an analysis by these alone: neither errors nor requests are named."""
    return {
        "prometheus": {"address": PROMETHEUS},
        "intervalSeconds": 1,
        "source": {"requests": "model_requests_total", "latency": "model_request_seconds"},
        "metrics": list(metrics),
    }


def drift(reference: dict[str, Any] | None = None, **drift: Any) -> dict[str, Any]:
    referring = {"reference": reference} if reference is not None else {}
    return judged_by({"name": "drift", "drift": {**drift, **referring}})


def apply(
    rollout: Rollout, version: str, analysis: dict[str, Any], *, native: bool = False, **env: Any
) -> None:
    """Apply a version; ``native``: Prometheus stores its histograms in the native form only."""
    steps = [{"weightPercent": 50, "minSeconds": 3, "minRequests": 150}]
    spec = {"analysis": analysis, "rollout": {"steps": steps, "probationSeconds": 5}}
    manifest = rollout.manifest(version, env, **spec)
    if native:
        annotations = manifest["spec"]["template"]["metadata"]["annotations"]
        annotations["prometheus.io/native"] = "true"
    rollout.apply_manifest(manifest)


def serve(rollout: Rollout, analysis: dict[str, Any], *, native: bool = False, **env: Any) -> None:
    apply(rollout, "1.0.0", analysis, native=native, **env)
    rollout.wait("Healthy", stable="1.0.0")


def rejection(rollout: Rollout) -> str:
    """Wait until the version was taken back for a metric; return why."""
    (rejected,) = rollout.wait("RolledBack", stable="1.0.0")["rejected"]
    assert (rejected["version"], rejected["reason"]) == ("2.0.0", "MetricHarm")
    return str(rejected["message"])


def message(rollout: Rollout) -> str:
    (metric,) = rollout.status.get("metrics") or [{}]
    return str(metric.get("message", ""))


def test_predictions_that_move_take_a_version_back(rollout: Rollout, gateway: str) -> None:
    analysis = drift(**LABELS)
    serve(rollout, analysis)
    with rollout.load(20, gateway) as stats:
        apply(rollout, "2.0.0", analysis, FLIP_PERCENT=40)
        why = rejection(rollout)
    assert "most by 0: " in why or "most by 1: " in why, why
    assert not stats.lost(), stats.lost()


@pytest.mark.parametrize("native", [False, True], ids=["classic", "native"])
def test_scores_that_move_take_a_version_back(rollout: Rollout, gateway: str, native: bool) -> None:
    analysis = drift(**SCORES)
    serve(rollout, analysis, native=native)
    with rollout.load(20, gateway):
        apply(rollout, "2.0.0", analysis, native=native, SCORE_SHIFT=0.4)
        why = rejection(rollout)
    assert "from stable" in why, why


def test_a_version_that_predicts_alike_is_promoted(rollout: Rollout, gateway: str) -> None:
    analysis = judged_by(
        {"name": "labels", "drift": LABELS},
        {"name": "scores", "drift": {**SCORES, "reference": {"stableBeforeSeconds": 60}}},
    )
    serve(rollout, analysis, FLIP_PERCENT=20)
    with rollout.load(20, gateway) as stats:
        time.sleep(15)
        apply(rollout, "2.0.0", analysis, FLIP_PERCENT=20)
        rollout.wait("Healthy", stable="2.0.0")
    assert not stats.lost(), stats.lost()


def training(rollout: Rollout, **counts: float) -> None:
    """Write the distribution of the training data."""
    rollout.apply_manifest(
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "training", "namespace": rollout.namespace},
            "data": {"labels": json.dumps({k.strip("_"): v for k, v in counts.items()})},
        }
    )


def test_a_version_that_left_the_training_data_alone_is_taken_back(
    rollout: Rollout, gateway: str
) -> None:
    training(rollout, _0=200, _1=800)
    analysis = drift(TRAINING, **LABELS)
    serve(rollout, analysis, FLIP_PERCENT=20)
    with rollout.load(20, gateway):
        apply(rollout, "2.0.0", analysis, FLIP_PERCENT=70)
        why = rejection(rollout)
    assert "from the reference" in why, why


def test_when_both_left_the_training_data_the_weight_holds_and_people_are_told(
    rollout: Rollout, gateway: str
) -> None:
    training(rollout, _0=200, _1=800)
    analysis = drift(TRAINING, **LABELS)
    serve(rollout, analysis, FLIP_PERCENT=70)
    with rollout.load(20, gateway):
        apply(rollout, "2.0.0", analysis, FLIP_PERCENT=70)
        eventually(lambda: "InputsMoved" in dict(rollout.events()) or None, 120, rollout.explain)
        time.sleep(10)
        status = rollout.status
    assert (status["phase"], status["canary"]["version"]) == ("Progressing", "2.0.0")
    (metric,) = status["metrics"]
    assert metric["verdict"] == "unavailable"
    assert metric["alert"].startswith("the inputs moved: stable is at PSI ")
    assert not status.get("rejected")


def test_other_bucket_borders_hold_the_weight_and_are_named(rollout: Rollout, gateway: str) -> None:
    analysis = drift(**SCORES)
    serve(rollout, analysis)
    with rollout.load(20, gateway):
        apply(rollout, "2.0.0", analysis, SCORE_BUCKETS=4)
        eventually(
            lambda: "bucket borders differ" in message(rollout) or None, 120, rollout.explain
        )
        time.sleep(5)  # a weight that was written before that look comes into force after it
        before = rollout.status
        time.sleep(10)
        status = rollout.status
    # Seen before the first weight was written there is none; seen after it, it stays.
    assert before["weight"] in {0, 50}
    assert status["phase"] in {"Preparing", "Progressing"}
    assert status["weight"] == before["weight"]
    (metric,) = status["metrics"]
    assert metric["verdict"] == "unavailable"
    assert "0.25, 0.75 of canary but not of stable" in metric["message"]


@pytest.mark.parametrize("slow", [False, True])
def test_latency_is_judged_by_a_native_histogram(
    rollout: Rollout, gateway: str, slow: bool
) -> None:
    latency = {"maxMilliseconds": 250, "maxSlowPercent": 5}
    analysis = judged_by({"name": "slow", "latency": latency, "warmupSeconds": 0})
    serve(rollout, analysis, native=True)
    with rollout.load(20, gateway):
        percent = 50 if slow else 0
        apply(rollout, "2.0.0", analysis, native=True, SLOW_PERCENT=percent, SLOW_MS=400)
        if slow:
            assert rejection(rollout).startswith("slow: slower than 250 ms: canary ")
        else:
            rollout.wait("Healthy", stable="2.0.0")
