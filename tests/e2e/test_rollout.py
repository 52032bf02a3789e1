"""Rollouts on the real cluster, as a user meets them."""

from __future__ import annotations

import time
from typing import Any

import pytest

from examples.demo.kubectl import Kubectl
from tests.e2e.rollouts import Rollout, eventually


def serve(subject: Rollout, version: str = "1.0.0", **spec: Any) -> None:
    """Apply a first version and wait until it serves."""
    subject.apply(version, **spec)
    subject.wait("Healthy", stable=version)


def test_good_version_is_promoted_and_no_request_is_lost(rollout: Rollout, gateway: str) -> None:
    serve(rollout)
    (pod,) = rollout.pods("1.0.0")
    assert pod["status"]["phase"] == "Running"
    with rollout.load(20, gateway) as stats:
        rollout.apply("2.0.0")
        rollout.wait_weight(10)
        (canary,) = rollout.pods("2.0.0")
        rollout.wait_weight(50)
        rollout.wait("Healthy", stable="2.0.0")
    assert not stats.lost(), stats.lost()
    (after,) = rollout.pods("2.0.0")
    assert after["metadata"]["uid"] == canary["metadata"]["uid"], "a promotion restarts no pod"
    assert after["status"]["containerStatuses"][0]["restartCount"] == 0
    assert [reason for reason, _ in rollout.events()] == [
        "Serving",
        "RolloutStarted",
        "WeightInForce",
        "WeightInForce",
        "Promoted",
        "Removed",
    ]


def test_bad_version_is_taken_back_and_remembered(rollout: Rollout, gateway: str) -> None:
    serve(rollout)
    with rollout.load(20, gateway) as stats:
        rollout.apply("2.0.0", {"ERROR_PERCENT": 50})
        status = rollout.wait("RolledBack", stable="1.0.0")
    assert not stats.lost(), stats.lost()
    (rejected,) = status["rejected"]
    assert (rejected["version"], rejected["reason"]) == ("2.0.0", "MetricHarm")
    eventually(lambda: not rollout.pods("2.0.0") or None, 60, rollout.explain)
    rollout.apply("2.0.0", {"ERROR_PERCENT": 50})
    time.sleep(3)
    assert rollout.status["phase"] == "RolledBack"


def test_version_that_breaks_during_probation_is_taken_back(rollout: Rollout, gateway: str) -> None:
    spec: dict[str, Any] = {
        "rollout": {
            "steps": [{"weightPercent": 50, "minSeconds": 2, "minRequests": 5}],
            "probationSeconds": 120,
        }
    }
    serve(rollout, **spec)
    with rollout.load(20, gateway) as stats:
        rollout.apply("2.0.0", **spec)
        rollout.wait("Probation", stable="2.0.0")
        rollout.fault("2.0.0", ERROR_PERCENT=60)
        rollout.wait("RolledBack", stable="1.0.0")
    assert not stats.lost(), stats.lost()


@pytest.mark.parametrize(
    ("change", "trouble"),
    [
        ({"image": "crossfade.dev/no-such-image:1"}, "cannot be pulled"),
        ({"env": [{"name": "CRASH_AFTER_SECONDS", "value": "0.001"}]}, "crash"),
        ({"resources": {"requests": {"cpu": "900"}}}, "Insufficient cpu"),
    ],
    ids=["image", "crash", "unschedulable"],
)
def test_version_that_never_gets_ready_is_taken_back_and_the_reason_is_told(
    rollout: Rollout, gateway: str, change: dict[str, object], trouble: str
) -> None:
    serve(rollout)
    manifest = rollout.manifest("2.0.0")
    manifest["spec"]["rollout"]["readyDeadlineSeconds"] = 8
    manifest["spec"]["template"]["spec"]["containers"][0].update(change)
    with rollout.load(20, gateway) as stats:
        rollout.apply_manifest(manifest)
        status = rollout.wait("RolledBack", stable="1.0.0")
    assert status["rejected"][0]["reason"] == "NotReady"
    assert trouble in status["rejected"][0]["message"], status["rejected"]
    assert set(stats.answers_by_version()) == {"1.0.0"}
    assert not stats.lost(), stats.lost()


def test_no_traffic_promotes_nothing(rollout: Rollout) -> None:
    serve(rollout)
    rollout.apply("2.0.0")
    rollout.wait_weight(10)
    time.sleep(15)
    status = rollout.status
    assert (status["phase"], status["weight"]) == ("Progressing", 10)
    assert status["verdict"].startswith("Hold: errors: ")


def test_orders_by_annotation(rollout: Rollout, gateway: str) -> None:
    spec: dict[str, Any] = {
        "rollout": {
            "steps": [{"weightPercent": 10, "minSeconds": 1, "minRequests": 2, "pause": {}}],
            "probationSeconds": 0,
        }
    }
    serve(rollout, **spec)
    with rollout.load(20, gateway) as stats:
        rollout.apply("2.0.0", **spec)
        rollout.wait("Paused")
        rollout.order("abort")
        rollout.wait("RolledBack", stable="1.0.0")
        rollout.order("retry")
        rollout.wait("Paused")
        rollout.order("promote")
        rollout.wait("Healthy", stable="2.0.0")
    assert not stats.lost(), stats.lost()
    annotations = rollout.get("modeldeployments.crossfade.dev", "fraud")["metadata"]["annotations"]
    assert "crossfade.dev/command" not in annotations


def test_newer_version_and_return_to_stable_in_the_middle(rollout: Rollout, gateway: str) -> None:
    slow = {"rollout": {"steps": [{"weightPercent": 20, "minSeconds": 600}], "probationSeconds": 0}}
    serve(rollout)
    with rollout.load(20, gateway) as stats:
        rollout.apply("2.0.0", **slow)
        rollout.wait_weight(20)
        rollout.apply("3.0.0", **slow)
        eventually(
            lambda: (
                True if (rollout.status.get("canary") or {}).get("version") == "3.0.0" else None
            ),
            60,
            rollout.explain,
        )
        rollout.wait_weight(20)
        rollout.apply("1.0.0")
        rollout.wait("Healthy", stable="1.0.0")
    assert not stats.lost(), stats.lost()
    assert "rejected" not in rollout.status or not rollout.status["rejected"]


def test_weight_edited_by_hand_is_put_back_with_one_event(rollout: Rollout, gateway: str) -> None:
    serve(rollout)
    rollout.apply("2.0.0", rollout={"steps": [{"weightPercent": 10, "minSeconds": 600}]})
    rollout.wait_weight(10)
    route = rollout.get("httproute", "fraud")
    weights = [b["weight"] for b in route["spec"]["rules"][0]["backendRefs"]]
    assert sorted(weights) == [10, 90]
    patch = '[{"op":"replace","path":"/spec/rules/0/backendRefs/0/weight","value":40}]'
    rollout.kubectl.run(
        "-n", rollout.namespace, "patch", "httproute", "fraud", "--type=json", "-p", patch
    )

    def back() -> bool | None:
        live = rollout.get("httproute", "fraud")
        now = [b["weight"] for b in live["spec"]["rules"][0]["backendRefs"]]
        return True if now == weights else None

    eventually(back, 20, rollout.explain)
    restored = [note for reason, note in rollout.events() if reason == "WeightRestored"]
    assert len(restored) == 1, restored


def test_deletion_removes_everything(rollout: Rollout, cluster: Kubectl) -> None:
    serve(rollout)
    rollout.apply("2.0.0", rollout={"steps": [{"weightPercent": 10, "minSeconds": 600}]})
    rollout.wait_weight(10)
    cluster.run("-n", rollout.namespace, "delete", "modeldeployments.crossfade.dev", "fraud")

    def gone() -> bool | None:
        kinds = "deployments,services,httproutes,pods"
        return True if not rollout.objects(kinds) else None

    eventually(gone, 60, lambda: str([o["metadata"]["name"] for o in rollout.objects("all")]))


def test_kubectl_get_tells_how_it_goes(rollout: Rollout, cluster: Kubectl) -> None:
    serve(rollout)
    rollout.apply("2.0.0", rollout={"steps": [{"weightPercent": 10, "minSeconds": 600}]})
    rollout.wait_weight(10)
    out = cluster.run("-n", rollout.namespace, "get", "modeldeployments")
    header, line = out.strip().splitlines()
    assert header.split() == [
        "NAME",
        "PHASE",
        "STABLE",
        "CANARY",
        "WEIGHT",
        "STEP",
        "VERDICT",
        "AGE",
    ]
    assert line.split()[:6] == ["fraud", "Progressing", "1.0.0", "2.0.0", "10", "1/1"]


def test_refused_template_is_told_to_the_user(rollout: Rollout) -> None:
    serve(rollout)
    manifest = rollout.manifest("2.0.0")
    manifest["spec"]["template"]["spec"]["containers"][0]["ports"] = [{"containerPort": 99999}]
    rollout.apply_manifest(manifest)
    eventually(
        lambda: next((n for r, n in rollout.events() if r == "WriteFailed"), None),
        20,
        rollout.explain,
    )
    assert "containerPort" in rollout.status["message"]


def test_service_of_somebody_else_is_left_alone_and_named(rollout: Rollout) -> None:
    theirs = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "fraud", "namespace": rollout.namespace},
        "spec": {"selector": {"app": "theirs"}, "ports": [{"port": 80}]},
    }
    rollout.apply_manifest(theirs)
    rollout.apply("1.0.0")
    eventually(
        lambda: "somebody else's" in rollout.status.get("message", "") or None, 60, rollout.explain
    )
    assert rollout.get("service", "fraud")["spec"]["selector"] == {"app": "theirs"}
