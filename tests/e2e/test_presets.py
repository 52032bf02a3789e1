"""Rollouts judged by nothing but a preset: the counters of a gateway, of a model server."""

from __future__ import annotations

from typing import Any

import pytest

from tests.e2e.rollouts import PROMETHEUS, Rollout, eventually
from tests.e2e.served import put_model

STEPS: dict[str, Any] = {
    "steps": [
        {"weightPercent": 10, "minSeconds": 2, "minRequests": 5},
        {"weightPercent": 50, "minSeconds": 2, "minRequests": 20},
    ],
    "probationSeconds": 5,
}


def judged_by(preset: str, slow_milliseconds: float) -> dict[str, Any]:
    return {
        "rollout": STEPS,
        "analysis": {
            "prometheus": {"address": PROMETHEUS},
            "intervalSeconds": 1,
            "source": {"preset": preset},
            "metrics": [
                {"name": "errors", "errorRate": {"maxPercent": 5}},
                {
                    "name": "slow",
                    "warmupSeconds": 0,
                    "latency": {"maxMilliseconds": slow_milliseconds, "maxSlowPercent": 20},
                },
            ],
        },
    }


def harm_of(rollout: Rollout) -> str:
    """Return what the Event of the last rollback says."""
    return [note for reason, note in rollout.events() if reason == "RollingBack"][-1]


def test_traefik_tells_good_versions_from_bad_and_slow_ones(rollout: Rollout, gateway: str) -> None:
    def release(version: str, **faults: Any) -> None:
        manifest = rollout.manifest(version, faults, **judged_by("traefik", 300))
        del manifest["spec"]["template"]["metadata"]  # nobody scrapes the pods
        rollout.apply_manifest(manifest)

    release("1.0.0")
    rollout.wait("Healthy", stable="1.0.0")
    with rollout.load(20, gateway) as stats:
        release("2.0.0")
        rollout.wait("Healthy", stable="2.0.0")
        release("3.0.0", ERROR_PERCENT=50)
        rollout.wait("RolledBack", stable="2.0.0")
        assert "errors" in harm_of(rollout)
        release("4.0.0", LATENCY_MS=400)
        eventually(lambda: len(rollout.status["rejected"]) == 2 or None, 120, rollout.explain)
        rollout.wait("RolledBack", stable="2.0.0")
        assert "slow" in harm_of(rollout)
    assert not stats.lost(), stats.lost()
    eventually(lambda: not rollout.pods("4.0.0") or None, 60, rollout.explain)


MODEL = """
import os
from mlserver import MLModel
from mlserver.types import InferenceResponse

class Model(MLModel):
    answers = 0

    async def predict(self, payload):
        self.answers += 1
        if os.environ["BROKEN"] == "yes" and self.answers % 2:
            raise RuntimeError("broken on purpose")
        return InferenceResponse(model_name=self.name, outputs=[])
"""


@pytest.mark.usefixtures("mlserver")
def test_mlserver_tells_good_versions_from_bad_ones(rollout: Rollout, gateway: str) -> None:
    put_model(rollout, MODEL)

    def release(version: str, broken: str = "no") -> None:
        manifest = rollout.manifest(version, **judged_by("mlserver", 500))
        template = manifest["spec"]["template"]
        template["metadata"]["annotations"]["prometheus.io/port"] = "8082"
        template["spec"] = {
            "containers": [
                {
                    "name": "mlserver",
                    "image": "crossfade.dev/mlserver:1.7.1",
                    "imagePullPolicy": "IfNotPresent",
                    "env": [{"name": "BROKEN", "value": broken}],
                    "ports": [{"containerPort": 8080}],
                    "volumeMounts": [{"name": "model", "mountPath": "/mnt/models"}],
                }
            ],
            "volumes": [{"name": "model", "configMap": {"name": "model"}}],
        }
        rollout.apply_manifest(manifest)

    release("1.0.0")
    rollout.wait("Healthy", stable="1.0.0")
    with rollout.load(20, gateway):
        release("2.0.0")
        rollout.wait("Healthy", stable="2.0.0")
        release("3.0.0", broken="yes")
        rollout.wait("RolledBack", stable="2.0.0")
        assert "errors" in harm_of(rollout)
