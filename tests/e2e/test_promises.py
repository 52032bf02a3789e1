"""What Crossfade promises in numbers, on the real cluster: splits, losses, reaction, restraint.

The bounds are the product's, not the machine's. The busier sizes (50 rollouts at once, twenty
healthy canaries, memory) are in ``bench/``.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from typing import Any

import pytest

from cluster.paths import Paths
from examples.demo.kubectl import Kubectl
from tests.e2e.rollouts import Rollout, eventually, kill_operator

OPERATOR = "system:serviceaccount:crossfade-system:crossfade-operator"


def quick(weight: int = 50, probation: int = 0) -> dict[str, Any]:
    """Return a ladder of one short step."""
    steps = [{"weightPercent": weight, "minSeconds": 1, "minRequests": 5}]
    return {"rollout": {"steps": steps, "probationSeconds": probation}}


@pytest.mark.parametrize("weight", [5, 25, 50])
def test_gateway_splits_as_asked_counted_at_the_pods(
    rollout: Rollout, gateway: str, weight: int
) -> None:
    rollout.apply("1.0.0")
    rollout.wait("Healthy", stable="1.0.0")
    rollout.apply("2.0.0", rollout={"steps": [{"weightPercent": weight, "minSeconds": 600}]})
    rollout.wait_weight(weight)
    time.sleep(2)
    before = rollout.counts("1.0.0"), rollout.counts("2.0.0")
    with rollout.load(100, gateway, seconds=8) as stats:
        time.sleep(9)
    stable = rollout.counts("1.0.0") - before[0]
    canary = rollout.counts("2.0.0") - before[1]
    assert stable + canary == len(stats) == 800
    assert abs(100 * canary / 800 - weight) <= 1, (stable, canary)


def test_ten_promotions_and_ten_rollbacks_lose_no_request(rollout: Rollout, gateway: str) -> None:
    rollout.apply("1.0.0", **quick())
    rollout.wait("Healthy", stable="1.0.0")
    time.sleep(1)
    with rollout.load(50, gateway, seconds=900) as stats:
        for i in range(10):
            good, bad = f"{i + 2}.0.0", f"{i + 2}.0.1-bad"
            rollout.apply(bad, {"ERROR_PERCENT": 100}, **quick())
            rollout.wait("RolledBack")
            rollout.apply(good, **quick())
            rollout.wait("Healthy", stable=good)
    assert not stats.lost(), stats.lost()
    assert set(stats.statuses()) == {200, 500}
    assert len(stats.answers_by_version()) == 21


@pytest.mark.alone
def test_version_that_starts_to_fail_is_off_within_five_seconds(
    rollout: Rollout, gateway: str
) -> None:
    """Break a healthy canary at run time; bench/ has the distribution for every second answer."""
    rollout.apply("1.0.0")
    rollout.wait("Healthy", stable="1.0.0")
    slow = {"steps": [{"weightPercent": 10, "minSeconds": 600}]}
    with rollout.load(20, gateway) as stats:
        rollout.apply("2.0.0", rollout=slow)
        rollout.wait_weight(10)
        time.sleep(5)
        rollout.fault("2.0.0", ERROR_PERCENT=100)
        rollout.wait("RolledBack")
    first_bad, last = stats.first_bad_at("2.0.0"), stats.last_answer_at("2.0.0")
    assert first_bad is not None
    assert last is not None
    assert last - first_bad <= 5
    assert stats.bad_by_version()["2.0.0"] <= 10
    assert not stats.lost(), stats.lost()


def requests_of_operator(namespace: str, since: float) -> Counter[str]:
    """Count the operator's API requests by verb and kind, watches and events apart.

    Requests for other namespaces are left out; those for none (lists, discovery) are in.
    """
    begin = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(since))
    counted: Counter[str] = Counter()
    with Paths.from_environment().audit_log.open() as lines:
        for line in lines:
            if OPERATOR not in line:
                continue
            entry = json.loads(line)
            resource = entry.get("objectRef", {}).get("resource", "-")
            late = entry["requestReceivedTimestamp"] >= begin
            ours = entry.get("objectRef", {}).get("namespace", namespace) == namespace
            if late and ours and entry["verb"] != "watch" and resource != "events":
                sub = entry.get("objectRef", {}).get("subresource", "")
                counted[f"{entry['verb']} {resource}{'/' if sub else ''}{sub}"] += 1
    return counted


def test_five_steps_cost_at_most_forty_requests_and_rest_costs_none(
    rollout: Rollout, gateway: str
) -> None:
    steps = [{"weightPercent": w, "minSeconds": 10, "minRequests": 5} for w in (5, 10, 20, 40, 60)]
    ladder = {"rollout": {"steps": steps, "probationSeconds": 10}}
    rollout.apply("1.0.0", **ladder)
    rollout.wait("Healthy", stable="1.0.0")
    time.sleep(2)
    with rollout.load(20, gateway):
        begun = time.time()
        rollout.apply("2.0.0", **ladder)
        rollout.wait("Healthy", stable="2.0.0", seconds=180)
        time.sleep(3)
        counted = requests_of_operator(rollout.namespace, begun)
        settled = time.time()
        time.sleep(15)
        at_rest = requests_of_operator(rollout.namespace, settled + 1)
    assert sum(counted.values()) <= 40, counted
    routes = sum(n for what, n in counted.items() if "httproutes" in what)
    assert routes == len(steps) + 1, counted
    assert not at_rest, at_rest


@pytest.mark.alone
def test_prometheus_away_holds_the_weight_and_the_rollout_goes_on_by_itself(
    rollout: Rollout, gateway: str, cluster: Kubectl
) -> None:
    rollout.apply("1.0.0")
    rollout.wait("Healthy", stable="1.0.0")
    prometheus = ("-n", "monitoring", "scale", "deployment", "prometheus")
    with rollout.load(20, gateway) as stats:
        rollout.apply("2.0.0", rollout={"probationSeconds": 0, "steps": [
            {"weightPercent": 10, "minSeconds": 20, "minRequests": 5}]})  # fmt: skip
        rollout.wait_weight(10)
        try:
            cluster.run(*prometheus, "--replicas=0")
            time.sleep(60)
            status = rollout.status
            assert (status["phase"], status["weight"]) == ("Progressing", 10)
            assert status["verdict"].startswith("Hold: errors: ")
        finally:
            cluster.run(*prometheus, "--replicas=1")
            cluster.run("-n", "monitoring", "rollout", "status", "deployment/prometheus")
        rollout.wait("Healthy", stable="2.0.0", seconds=120)
    told = [note for reason, note in rollout.events() if reason == "MetricsUnavailable"]
    assert len(told) == 1, told
    assert not stats.lost(), stats.lost()


@pytest.mark.alone
def test_rollback_works_while_prometheus_is_away(
    rollout: Rollout, gateway: str, cluster: Kubectl
) -> None:
    rollout.apply("1.0.0")
    rollout.wait("Healthy", stable="1.0.0")
    prometheus = ("-n", "monitoring", "scale", "deployment", "prometheus")
    with rollout.load(20, gateway) as stats:
        rollout.apply("2.0.0", rollout={"steps": [{"weightPercent": 10, "minSeconds": 600}]})
        rollout.wait_weight(10)
        try:
            cluster.run(*prometheus, "--replicas=0")
            time.sleep(3)
            rollout.order("abort")
            ordered = time.time()
            rollout.wait("RollingBack", stable="1.0.0", seconds=5)
        finally:
            cluster.run(*prometheus, "--replicas=1")
            cluster.run("-n", "monitoring", "rollout", "status", "deployment/prometheus")
        rollout.wait("RolledBack", seconds=60)
    last = stats.last_answer_at("2.0.0") or 0
    assert last - ordered < 3
    assert not stats.lost(), stats.lost()


@pytest.mark.alone
@pytest.mark.parametrize("after", [3, 6, 9, 12])
def test_killed_operator_goes_on_to_the_same_end(
    rollout: Rollout, gateway: str, cluster: Kubectl, after: int
) -> None:
    rollout.apply("1.0.0", **quick())
    rollout.wait("Healthy", stable="1.0.0")
    time.sleep(1)
    with rollout.load(20, gateway) as stats:
        begun = time.time()
        rollout.apply("2.0.0", **quick(probation=5))

        def wrote() -> bool | None:
            counted = requests_of_operator(rollout.namespace, begun)
            writes = sum(n for what, n in counted.items() if not what.startswith(("get", "list")))
            return True if writes >= after else None

        eventually(wrote, 60, rollout.explain)
        kill_operator(cluster)
        rollout.wait("Healthy", stable="2.0.0")
    assert not stats.lost(), stats.lost()
    assert not [r for r, _ in rollout.events() if r in ("WeightRestored", "RollingBack")]
