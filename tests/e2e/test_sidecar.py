"""The sidecar beside MLServer: no change in the model server, all of it in the manifest."""

from __future__ import annotations

import json
import subprocess
import time
from typing import Any

import yaml

from cluster.paths import Paths
from examples.demo.kubectl import Kubectl
from tests.e2e.rollouts import eventually
from tests.e2e.served import PAUSED, STEPS, TENSOR, Served, judged_by

SCORE: dict[str, Any] = {"name": "score", "tensor": "score", "buckets": [-2, -1, 0, 1, 2, 3]}


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
        served.release(version, mean, predictions=[SCORE], analysis=analysis, rollout=PAUSED)

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
