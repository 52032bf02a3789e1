"""What is seen of a revision: how many pods are ready, and why others are not."""

from __future__ import annotations

from typing import Any

import pytest

from crossfade.core.actions import Role
from crossfade.core.observation import Workload
from crossfade.workload.read import read_workload


def deployment(**changes: Any) -> dict[str, Any]:
    return {
        "metadata": {
            "generation": 2,
            "labels": {"crossfade.dev/revision": "bcdf", "crossfade.dev/role": "stable"},
            "annotations": {"crossfade.dev/model-version": "1.0"},
        },
        "spec": {"replicas": 3},
        "status": {"observedGeneration": 2, "readyReplicas": 3},
    } | changes


def pod(*containers: dict[str, Any], conditions: Any = (), **status: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "fraud-bcdf-1"},
        "status": {"containerStatuses": list(containers), "conditions": conditions, **status},
    }


def waiting(reason: str, message: str = "", **fields: Any) -> dict[str, Any]:
    state = {"waiting": {"reason": reason, "message": message}}
    return {"name": "model", "image": "fraud:1", "ready": False, "state": state, **fields}


def ended(code: int, **fields: Any) -> dict[str, Any]:
    return {"terminated": {"reason": "Error", "exitCode": code, **fields}}


def trouble(*pods: dict[str, Any], **changes: Any) -> str:
    return read_workload(deployment(**changes), pods, None).trouble


def test_a_healthy_deployment_is_read() -> None:
    assert read_workload(deployment(), [pod()], None) == Workload(
        revision="bcdf", version="1.0", role=Role.STABLE, replicas=3, ready=3
    )


def test_a_deployment_that_no_controller_has_seen_has_no_ready_pod() -> None:
    workload = read_workload(deployment(status=None), [], None)
    assert (workload.ready, workload.settled) == (0, False)


def test_pods_stay_ready_while_the_controller_has_not_seen_a_new_number() -> None:
    unseen = {"observedGeneration": 1, "readyReplicas": 3}
    workload = read_workload(deployment(status=unseen), [], None)
    assert (workload.ready, workload.settled) == (3, False)


def test_with_an_autoscaler_its_minimum_is_what_was_asked_for() -> None:
    assert read_workload(deployment(), [], {"spec": {"minReplicas": 2}}).replicas == 2
    assert read_workload(deployment(), [], {"spec": {}}).replicas == 1


@pytest.mark.parametrize("role", [{}, {"crossfade.dev/role": "king"}])
def test_a_role_that_is_none_is_none(role: dict[str, str]) -> None:
    metadata = {"labels": {"crossfade.dev/revision": "bcdf"} | role}
    workload = read_workload(deployment(metadata=metadata), [], None)
    assert (workload.role, workload.version, workload.settled) == (None, "", True)


NOT_FOUND = "rpc error: code = NotFound desc = failed to pull: fraud:1: not found"


@pytest.mark.parametrize(
    ("reason", "message", "cause"),
    [
        ("ErrImagePull", NOT_FOUND, "not found"),
        ("ImagePullBackOff", f"Back-off pulling image: ErrImagePull: {NOT_FOUND}", "not found"),
        ("InvalidImageName", "", "InvalidImageName"),
    ],
)
def test_an_image_that_cannot_be_pulled_is_named(reason: str, message: str, cause: str) -> None:
    expected = f'image "fraud:1" cannot be pulled ({cause})'
    assert trouble(pod(waiting(reason, message))) == expected
    assert trouble(pod(initContainerStatuses=[waiting(reason, message)])) == expected


def test_a_container_that_cannot_be_started_is_named() -> None:
    message = 'secret "a" not found'
    told = trouble(pod(waiting("CreateContainerConfigError", message)))
    assert told == 'container "model" cannot be started (secret "a" not found)'


@pytest.mark.parametrize(
    "container",
    [
        waiting("CrashLoopBackOff", lastState=ended(1)),
        waiting("", state=ended(1)),
        waiting("", state={"running": {}}, lastState=ended(1)),
    ],
    ids=["waits for its next start", "is down", "starts"],
)
def test_a_crash_is_told_in_the_same_words_all_the_time(container: dict[str, Any]) -> None:
    assert trouble(pod(container)) == 'container "model" crashes (Error, exit code 1)'


def test_a_crash_for_lack_of_memory_is_told() -> None:
    container = waiting("CrashLoopBackOff", lastState=ended(137, reason="OOMKilled"))
    assert trouble(pod(container)) == 'container "model" crashes (OOMKilled, exit code 137)'


def test_a_server_that_ends_without_error_is_told() -> None:
    container = waiting("CrashLoopBackOff", lastState=ended(0, reason="Completed"))
    assert trouble(pod(container)) == 'container "model" crashes (Completed, exit code 0)'


def test_the_last_words_of_a_crash_are_told_but_not_at_length() -> None:
    container = waiting("CrashLoopBackOff", lastState=ended(1, message="no such model " * 99))
    told = trouble(pod(container))
    assert "exit code 1: no such model" in told
    assert len(told) < 300


def test_a_crash_that_is_over_is_not_told() -> None:
    container = waiting("", state={"running": {}}, lastState=ended(1), ready=True)
    assert not trouble(pod(container))


def test_a_container_that_waits_for_its_turn_is_no_trouble() -> None:
    assert not trouble(pod(waiting("PodInitializing"), waiting("", state=None)))


def test_a_pod_without_a_place_is_told() -> None:
    condition = {"type": "PodScheduled", "status": "False", "message": "0/3 nodes: no gpu"}
    told = trouble(pod(conditions=[condition]))
    assert told == "a pod cannot be scheduled: 0/3 nodes: no gpu"


def test_a_pod_that_may_not_be_created_is_told() -> None:
    failure = {"type": "ReplicaFailure", "status": "True", "message": "exceeded quota: pods"}
    past = {"type": "ReplicaFailure", "status": "False", "message": "old"}
    told = trouble(status={"conditions": [past, failure]})
    assert told == "a pod cannot be created: exceeded quota: pods"


def test_a_pod_that_is_just_not_ready_is_told_with_the_time() -> None:
    at = "2026-11-24T12:00:00Z"
    ready = {"type": "Ready", "status": "False", "lastTransitionTime": at}
    placed = {"type": "PodScheduled", "status": "True"}
    told = trouble(pod(conditions=[placed, ready]))
    assert told == "pod fraud-bcdf-1 is not ready since 2026-11-24T12:00:00Z"


def test_a_cause_is_told_before_its_consequence() -> None:
    ready = {"type": "Ready", "status": "False", "lastTransitionTime": "2026-11-24T12:00:00Z"}
    slow = pod(conditions=[ready])
    broken = pod(waiting("ErrImagePull", NOT_FOUND))
    assert "cannot be pulled" in trouble(slow, broken)


def test_a_pod_that_is_ready_or_on_its_way_out_is_no_trouble() -> None:
    leaving = pod(waiting("ErrImagePull", NOT_FOUND))
    leaving["metadata"]["deletionTimestamp"] = "2026-11-24T12:00:00Z"
    assert not trouble(leaving, pod(conditions=[{"type": "Ready", "status": "True"}]))
