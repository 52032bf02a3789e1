"""Model servers behind a sidecar: MLServer as it is, and programs that a test writes down."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any

import pytest

from cluster.__main__ import load_archive
from cluster.images import build_image
from cluster.paths import Paths
from tests.e2e.rollouts import PROMETHEUS, Rollout

MODEL = """
import os
import random
from mlserver import MLModel
from mlserver.types import InferenceResponse, ResponseOutput

class Model(MLModel):
    answers = 0

    async def predict(self, payload):
        self.answers += 1
        score = random.gauss(float(os.environ["MEAN"]), 1.0)
        return InferenceResponse(
            model_name=self.name,
            outputs=[
                ResponseOutput(name="score", shape=[1], datatype="FP64", data=[score]),
                ResponseOutput(name="answers", shape=[1], datatype="INT64", data=[self.answers]),
            ],
        )
"""

STEPS: dict[str, Any] = {
    "steps": [
        {"weightPercent": 20, "minSeconds": 2, "minRequests": 5},
        {"weightPercent": 50, "minSeconds": 2, "minRequests": 20},
    ],
    "probationSeconds": 5,
    "readyDeadlineSeconds": 180,
}

PAUSED: dict[str, Any] = {
    "steps": [{"weightPercent": 50, "minSeconds": 1, "pause": {}}],
    "probationSeconds": 5,
    "readyDeadlineSeconds": 180,
}
"""No version goes on by itself, however long it takes to see what it does."""

TENSOR: dict[str, Any] = {"name": "x", "datatype": "FP32", "shape": [1, 2], "min": -5, "max": 5}

ERRORS: dict[str, Any] = {"name": "errors", "errorRate": {"maxPercent": 5}}


def judged_by(metric: dict[str, Any]) -> dict[str, Any]:
    return {
        "prometheus": {"address": PROMETHEUS},
        "intervalSeconds": 1,
        "metrics": [metric],
    }


def container(image: str, program: str) -> dict[str, Any]:
    return {
        "name": "model",
        "image": f"crossfade.dev/{image}",
        "imagePullPolicy": "IfNotPresent",
        "command": ["python", "-c", program],
    }


def serving(program: str, image: str, **container_fields: Any) -> dict[str, Any]:
    """Build the parts of a spec that are a model server of this program behind a sidecar."""
    model = container(image, program) | {"ports": [{"containerPort": 8080}]} | container_fields
    return {
        "serving": {"protocol": "http"},
        "sidecar": {},
        "template": {"spec": {"containers": [model]}},
    }


@pytest.fixture(scope="module")
def mlserver() -> None:
    """See that the image is in the cluster; `make demo` builds it too."""
    load_archive(Paths.from_environment(), build_image("mlserver"))


@dataclass
class Served:
    """A ModelDeployment of MLServer with a sidecar, as a user handles it."""

    rollout: Rollout
    gateway: str

    def manifest(self, version: str, mean: float = 0.0, **spec: Any) -> dict[str, Any]:
        usual = {"rollout": STEPS, "analysis": judged_by(ERRORS), "inputs": {"tensors": [TENSOR]}}
        manifest = self.rollout.manifest(version, **(usual | spec))
        manifest["spec"]["template"] = {
            "spec": {
                "containers": [
                    {
                        "name": "mlserver",
                        "image": "crossfade.dev/mlserver:1.7.1",
                        "imagePullPolicy": "IfNotPresent",
                        "env": [{"name": "MEAN", "value": str(mean)}],
                        "ports": [{"containerPort": 8080}],
                        "volumeMounts": [{"name": "model", "mountPath": "/mnt/models"}],
                    }
                ],
                "volumes": [{"name": "model", "configMap": {"name": "model"}}],
            }
        }
        return manifest

    def release(self, version: str, mean: float = 0.0, **spec: Any) -> None:
        self.rollout.apply_manifest(self.manifest(version, mean, **spec))

    def ask(self, data: list[Any], **tensor: Any) -> tuple[int, dict[str, str], Any]:
        """Send a request through the gateway; return status, headers and the JSON of the body."""
        one = {"name": "x", "shape": [1, 2], "datatype": "FP32", "data": data} | tensor
        request = urllib.request.Request(
            f"http://{self.gateway}/v2/models/fraud/infer",
            data=json.dumps({"inputs": [one]}).encode(),
            headers={"Host": self.rollout.host, "Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, dict(answer.headers), json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, dict(error.headers), json.load(error)

    def answers(self) -> int:
        """Return how many requests the one pod's model has answered, this one included."""
        status, _, body = self.ask([0.5, 0.5])
        assert status == 200, body
        by_name = {one["name"]: one["data"] for one in body["outputs"]}
        return int(by_name["answers"][0])

    def metrics(self, version: str) -> str:
        """Return what the sidecars of a version export."""
        texts = []
        for pod in self.rollout.pods(version):
            url = f"http://{pod['status']['podIP']}:8013/metrics"
            with urllib.request.urlopen(url, timeout=10) as answer:
                texts.append(answer.read().decode())
        return "\n".join(texts)


def put_model(rollout: Rollout, program: str) -> None:
    """Write the ConfigMap from which MLServer serves a program's ``Model``."""
    settings = {"name": "fraud", "implementation": "model.Model"}
    rollout.apply_manifest(
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "model", "namespace": rollout.namespace},
            "data": {"model.py": program, "model-settings.json": json.dumps(settings)},
        }
    )


@pytest.fixture
def served(rollout: Rollout, gateway: str, mlserver: None) -> Served:
    put_model(rollout, MODEL)
    return Served(rollout, gateway)
