"""Ways to split traffic and to judge, with the operator: joined route, replicas, Istio, PromQL."""

from __future__ import annotations

import time
import urllib.request
from collections import Counter
from typing import Any

from cluster.istio_crd import ensure_istio_crd
from cluster.paths import Paths
from examples.demo.kubectl import Kubectl
from tests.e2e.rollouts import BODY, Rollout, eventually


def shared_route(rollout: Rollout) -> dict[str, Any]:
    """Build a user's HTTPRoute with a rule for the model and one that is none of our business."""
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": "shared", "namespace": rollout.namespace, "labels": {"team": "shop"}},
        "spec": {
            "parentRefs": [{"name": "public", "namespace": "gateways"}],
            "hostnames": [rollout.host],
            "rules": [
                {
                    "name": "model",
                    "matches": [{"path": {"type": "PathPrefix", "value": "/v2/models"}}],
                    "filters": [
                        {
                            "type": "RequestHeaderModifier",
                            "requestHeaderModifier": {"set": [{"name": "x-team", "value": "shop"}]},
                        }
                    ],
                    "backendRefs": [{"name": "fraud", "port": 8080, "weight": 7}],
                },
                {
                    "name": "shop",
                    "matches": [{"path": {"type": "PathPrefix", "value": "/shop"}}],
                    "backendRefs": [{"name": "shop", "port": 80, "weight": 3}],
                },
            ],
        },
    }


def test_joined_route_is_split_and_put_back_as_it_was(
    rollout: Rollout, gateway: str, cluster: Kubectl
) -> None:
    spec: dict[str, Any] = {
        "traffic": {"gateway": {"routeRef": {"name": "shared", "rule": "model"}}}
    }
    rollout.apply_manifest(shared_route(rollout))
    before = rollout.get("httproute", "shared")
    rollout.apply("1.0.0", **spec)
    rollout.wait("Healthy", stable="1.0.0")
    time.sleep(1)
    with rollout.load(20, gateway) as stats:
        rollout.apply("2.0.0", {"ERROR_PERCENT": 50}, **spec)
        rollout.wait("RolledBack", stable="1.0.0")
        rollout.apply("3.0.0", **spec)
        rollout.wait_weight(10)
        during = rollout.get("httproute", "shared")
        rollout.wait("Healthy", stable="3.0.0")
    assert not stats.lost(), stats.lost()
    assert during["spec"]["rules"][1] == before["spec"]["rules"][1]
    ours, was = during["spec"]["rules"][0], before["spec"]["rules"][0]
    assert {k: v for k, v in ours.items() if k != "backendRefs"} == {
        k: v for k, v in was.items() if k != "backendRefs"
    }
    assert sorted(b["weight"] for b in ours["backendRefs"]) == [10, 90]
    assert during["metadata"]["labels"] == before["metadata"]["labels"]
    cluster.run("-n", rollout.namespace, "delete", "modeldeployments.crossfade.dev", "fraud")
    assert rollout.get("httproute", "shared")["spec"] == before["spec"]


def test_rule_that_does_not_exist_holds_and_names_it(rollout: Rollout) -> None:
    rollout.apply_manifest(shared_route(rollout))
    rollout.apply("1.0.0", traffic={"gateway": {"routeRef": {"name": "shared", "rule": "modle"}}})
    eventually(lambda: "modle" in rollout.status.get("message", "") or None, 60, rollout.explain)
    assert rollout.status["phase"] == "Initializing"


def test_without_a_gateway_the_ready_pods_split(rollout: Rollout, cluster: Kubectl) -> None:
    spec: dict[str, Any] = {
        "traffic": {"replicas": {}},
        "replicas": 3,
        "rollout": {"steps": [{"weightPercent": 25, "minSeconds": 8, "minRequests": 5}],
                    "probationSeconds": 0},
    }  # fmt: skip
    rollout.apply("1.0.0", **spec)
    rollout.wait("Healthy", stable="1.0.0")
    address = rollout.get("service", "fraud")["spec"]["clusterIP"]
    rollout.apply("2.0.0", **spec)
    rollout.wait_weight(25)
    assert len(rollout.pods("2.0.0")) == 1
    time.sleep(1)
    seen: Counter[str] = Counter()
    for _ in range(100):  # each on a connection of its own: kube-proxy splits connections
        url = f"http://{address}:8080/v2/models/fraud/infer"
        with urllib.request.urlopen(url, data=BODY, timeout=5) as answer:
            seen[answer.headers["x-model-version"]] += 1
    assert set(seen) == {"1.0.0", "2.0.0"}, seen
    assert 5 <= seen["2.0.0"] <= 50, seen
    rollout.wait("Healthy", stable="2.0.0")
    selector = rollout.get("service", "fraud")["spec"]["selector"]
    assert selector["crossfade.dev/revision"] == rollout.status["stable"]["revision"]


def test_istio_gets_a_virtual_service_that_its_own_crd_accepts(
    rollout: Rollout, cluster: Kubectl
) -> None:
    crd = ensure_istio_crd(Paths.from_environment())
    cluster.run("apply", "--server-side", "--force-conflicts", "-f", str(crd))
    rollout.apply("1.0.0", traffic={"istio": {"hosts": [rollout.host]}})
    rollout.wait("Healthy", stable="1.0.0", seconds=60)
    rollout.apply(
        "2.0.0",
        traffic={"istio": {"hosts": [rollout.host]}},
        rollout={"steps": [{"weightPercent": 20, "minSeconds": 600}]},
    )
    rollout.wait_weight(20)
    service = rollout.get("virtualservices.networking.istio.io", "fraud")
    (http,) = service["spec"]["http"]
    assert sorted(route["weight"] for route in http["route"]) == [20, 80]


def test_slow_version_is_taken_back(rollout: Rollout, gateway: str) -> None:
    analysis = {
        **rollout.manifest("1.0.0")["spec"]["analysis"],
        "metrics": [{"name": "slow", "latency": {"maxMilliseconds": 250, "maxSlowPercent": 5}}],
    }
    rollout.apply("1.0.0", analysis=analysis)
    rollout.wait("Healthy", stable="1.0.0")
    time.sleep(1)
    with rollout.load(20, gateway) as stats:
        rollout.apply("2.0.0", {"SLOW_PERCENT": 60, "SLOW_MS": 400}, analysis=analysis)
        status = rollout.wait("RolledBack", stable="1.0.0")
    assert status["rejected"][0]["message"].startswith("slow: ")
    assert not stats.lost(), stats.lost()


def test_promql_with_a_failure_limit(rollout: Rollout, gateway: str) -> None:
    share = (
        'sum(rate(model_requests_total{code="200",pod=~"{{pods}}"}[10s]))'
        ' / sum(rate(model_requests_total{pod=~"{{pods}}"}[10s]))'
    )
    analysis = {
        **rollout.manifest("1.0.0")["spec"]["analysis"],
        "metrics": [{"name": "good", "query": {"promql": share, "min": 0.9, "failureLimit": 2}}],
    }
    rollout.apply("1.0.0", analysis=analysis)
    rollout.wait("Healthy", stable="1.0.0")
    time.sleep(1)
    with rollout.load(20, gateway) as stats:
        rollout.apply("2.0.0", {"ERROR_PERCENT": 60}, analysis=analysis)
        status = rollout.wait("RolledBack", stable="1.0.0")
        assert status["rejected"][0]["message"].startswith("good: ")
        rollout.apply("3.0.0", analysis=analysis)
        rollout.wait("Healthy", stable="3.0.0")
    assert not stats.lost(), stats.lost()


def test_each_version_has_an_autoscaler_of_its_own(rollout: Rollout, gateway: str) -> None:
    cpu = {"type": "Resource", "resource": {"name": "cpu", "target": {
        "type": "Utilization", "averageUtilization": 80}}}  # fmt: skip
    spec = {"autoscaling": {"minReplicas": 2, "maxReplicas": 4, "metrics": [cpu]}}
    rollout.apply("1.0.0", **spec)
    rollout.wait("Healthy", stable="1.0.0")
    eventually(lambda: rollout.status["readyReplicas"] == 2 or None, 60, rollout.explain)
    with rollout.load(20, gateway) as stats:
        rollout.apply("2.0.0", **spec)
        rollout.wait_weight(10)
        assert len(rollout.objects("horizontalpodautoscalers")) == 2
        rollout.wait("Healthy", stable="2.0.0")
    assert not stats.lost(), stats.lost()
    (scaler,) = rollout.objects("horizontalpodautoscalers")
    assert scaler["spec"]["minReplicas"] == 2
    assert (
        scaler["metadata"]["labels"]["crossfade.dev/revision"]
        == (rollout.status["stable"]["revision"])
    )
