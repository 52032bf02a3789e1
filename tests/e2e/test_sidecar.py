"""The sidecar beside MLServer: no change in the model server, all of it in the manifest."""

from __future__ import annotations

import json
import subprocess
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any

import pytest
import yaml

from cluster.__main__ import load_archive
from cluster.images import build_image
from cluster.paths import Paths
from examples.demo.kubectl import Kubectl
from tests.e2e.rollouts import PROMETHEUS, Rollout, eventually

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

TENSOR: dict[str, Any] = {"name": "x", "datatype": "FP32", "shape": [1, 2], "min": -5, "max": 5}

ERRORS: dict[str, Any] = {"name": "errors", "errorRate": {"maxPercent": 5}}

SCORE: dict[str, Any] = {"name": "score", "tensor": "score", "buckets": [-2, -1, 0, 1, 2, 3]}


def judged_by(metric: dict[str, Any]) -> dict[str, Any]:
    return {
        "prometheus": {"address": PROMETHEUS},
        "intervalSeconds": 1,
        "metrics": [metric],
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


@pytest.fixture
def served(rollout: Rollout, gateway: str, mlserver: None) -> Served:
    settings = {"name": "fraud", "implementation": "model.Model"}
    rollout.apply_manifest(
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "model", "namespace": rollout.namespace},
            "data": {"model.py": MODEL, "model-settings.json": json.dumps(settings)},
        }
    )
    return Served(rollout, gateway)


def kill_model(pod: dict[str, Any]) -> None:
    """End the model server's process with SIGKILL, as its node does when memory runs out."""
    [container] = [
        status["containerID"].removeprefix("containerd://")
        for status in pod["status"]["containerStatuses"]
        if status["name"] == "mlserver"
    ]
    socket = Paths.from_environment().run / "containerd.sock"
    subprocess.run(
        ["ctr", "--address", str(socket), "--namespace", "k8s.io", "tasks", "kill",
         "--signal", "SIGKILL", container],
        check=True, timeout=20,
    )  # fmt: skip


def test_a_request_that_breaks_the_contract_never_reaches_the_model(served: Served) -> None:
    served.release("1.0.0")
    served.rollout.wait("Healthy", stable="1.0.0")
    before = served.answers()
    wrong = [
        served.ask([1.0, 9.0]),
        served.ask([1.0, 2.0, 3.0]),
        served.ask([1.0, 2.0], datatype="BYTES"),
        served.ask([1.0, 2.0], name="y"),
    ]
    assert [status for status, _, _ in wrong] == [422] * 4
    said = [[(v["field"], v["rule"]) for v in body["violations"]] for _, _, body in wrong]
    assert all(said), said
    assert said[0][0][0].startswith("x"), said
    assert served.answers() == before + 1, "the model saw none of the four"
    exported = served.metrics("1.0.0")
    assert 'crossfade_inputs_total{result="rejected"} 4.0' in exported
    assert 'crossfade_model_requests_total{code="422"}' not in exported


def test_what_breaks_the_contract_may_be_logged_only_and_recordings_are_masked(
    served: Served, cluster: Kubectl
) -> None:
    inputs = {"tensors": [TENSOR], "onViolation": "log"}
    recording = {"percent": 100, "mask": ["$.inputs[0].data"]}
    served.release("1.0.0", inputs=inputs, recording=recording)
    served.rollout.wait("Healthy", stable="1.0.0")
    status, _, body = served.ask([1.25, 9.75])
    assert status == 200, body
    assert 'crossfade_inputs_total{result="logged"} 1.0' in served.metrics("1.0.0")
    [pod] = served.rollout.pods("1.0.0")
    place = f"namespaces/{served.rollout.namespace}/pods/{pod['metadata']['name']}:8013"
    kept = cluster.run("get", "--raw", f"/api/v1/{place}/proxy/recordings")
    [case] = [one for one in yaml.safe_load_all(kept) if one["spec"]["resp"]["status_code"] == 200]
    assert case["kind"] == "Http"
    asked, answered = (json.loads(case["spec"][side]["body"]) for side in ("req", "resp"))
    assert asked["inputs"][0] | {"data": "***"} == asked["inputs"][0]
    assert answered["outputs"] == body["outputs"]
    assert "9.75" not in kept


def test_what_breaks_the_contract_may_get_the_answer_of_the_fallback(served: Served) -> None:
    static = {"static": {"status": 200, "body": {"outputs": "nobody knows"}}}
    inputs = {"tensors": [TENSOR], "onViolation": "fallback"}
    served.release("1.0.0", inputs=inputs, fallback={"targets": [static]})
    served.rollout.wait("Healthy", stable="1.0.0")
    before = served.answers()
    status, headers, body = served.ask([1.0, 9.0])
    assert (status, body) == (200, {"outputs": "nobody knows"})
    assert headers["Crossfade-Fallback"] == "static", headers
    assert served.answers() == before + 1, "the model did not see it"


def test_a_killed_model_costs_no_answer_while_the_fallback_stands(served: Served) -> None:
    fallback = {
        "timeoutSeconds": 10,
        "targets": [{"stable": {}}, {"static": {"status": 200, "body": '{"outputs": []}'}}],
    }
    steps = STEPS | {"steps": [{"weightPercent": 60, "minSeconds": 1, "pause": {}}]}

    def release(version: str) -> None:
        served.release(version, fallback=fallback, replicas=2, rollout=steps)

    release("1.0.0")
    served.rollout.wait("Healthy", stable="1.0.0")
    with served.rollout.load(20, served.gateway) as stats:
        release("2.0.0")
        served.rollout.wait_weight(60)
        assert [(d["target"], d["ok"]) for d in served.rollout.status["fallback"]] == [
            ("stable", True),
            ("static", True),
        ]
        kill_model(served.rollout.pods("2.0.0")[0])
        time.sleep(15)  # the container comes back within it
    assert not stats.lost(), stats.lost()
    assert 'target="stable"' in served.metrics("2.0.0")


def test_a_version_whose_predictions_shift_is_rolled_back(served: Served) -> None:
    analysis = judged_by({"name": "scores", "drift": {"prediction": "score"}})

    def release(version: str, mean: float) -> None:
        served.release(version, mean, predictions=[SCORE], analysis=analysis)

    release("1.0.0", 0.0)
    served.rollout.wait("Healthy", stable="1.0.0")
    with served.rollout.load(25, served.gateway) as stats:
        release("2.0.0", 2.0)
        served.rollout.wait("RolledBack", stable="1.0.0")
    assert not stats.lost(), stats.lost()
    assert (
        "scores"
        in [note for reason, note in served.rollout.events() if reason == "RollingBack"][-1]
    )


def test_a_fallback_that_does_not_answer_keeps_the_canary_without_traffic(served: Served) -> None:
    served.release("1.0.0")
    served.rollout.wait("Healthy", stable="1.0.0")
    nowhere = {"targets": [{"service": {"name": "nowhere", "port": 8080}}]}
    served.release("2.0.0", fallback=nowhere, inputs={"tensors": [TENSOR | {"max": 1}]})

    def drilled() -> str | None:
        said = str(served.rollout.status.get("message", ""))
        return said if "drill" in said else None

    said = eventually(drilled, 120, served.rollout.explain)
    assert "service" in said
    assert served.rollout.status.get("weight", 0) == 0
    reasons = {reason for reason, _ in served.rollout.events()}
    assert {"FallbackDrillFailed", "InputsNarrowed"} <= reasons, served.rollout.explain()
    served.release("2.0.1", fallback={"targets": [{"stable": {}}]})
    with served.rollout.load(20, served.gateway) as stats:
        served.rollout.wait("Healthy", stable="2.0.1")
    assert not stats.lost(), stats.lost()
