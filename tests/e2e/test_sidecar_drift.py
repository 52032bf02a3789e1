"""Inputs that move, seen by the sidecar's features beside an MLServer that knows nothing of it."""

from __future__ import annotations

import json
import random
import urllib.parse
import urllib.request
from typing import Any, Final

from tests.e2e.rollouts import eventually
from tests.e2e.served import PAUSED, TENSOR, Served, judged_by

AMOUNT: Final = {"name": "amount", "tensor": "x", "column": 0, "buckets": [-2, -1, 0, 1, 2, 3]}

INPUTS: Final = {"tensors": [TENSOR], "features": [AMOUNT]}


class Clients:
    """Requests whose inputs scatter about a mean, which may move."""

    def __init__(self, mean: float = 0.0) -> None:
        self.mean = mean

    def body(self, number: int) -> bytes:
        """Return the body of a request that satisfies the contract."""
        amount = random.Random(number).gauss(self.mean, 1.0)
        data = [max(-5.0, min(amount, 5.0)), 0.5]
        tensor = {"name": "x", "shape": [1, 2], "datatype": "FP32", "data": data}
        return json.dumps({"inputs": [tensor]}).encode()


def release(served: Served, version: str, **drift: Any) -> None:
    analysis = judged_by({"name": "amounts", "drift": {"feature": "amount"} | drift})
    served.release(version, inputs=INPUTS, analysis=analysis, rollout=PAUSED)


def scraped(prometheus: str, namespace: str) -> float:
    """Return how many amounts Prometheus knows of."""
    promql = f'sum(crossfade_features_count{{namespace="{namespace}",name="amount"}})'
    url = f"{prometheus}/api/v1/query?query={urllib.parse.quote(promql)}"
    with urllib.request.urlopen(url, timeout=10) as answer:
        found = json.load(answer)["data"]["result"]
    return float(found[0]["value"][1]) if found else 0.0


def wait_until_judged(served: Served) -> None:
    """Wait until both versions are found to get the same inputs."""

    def healthy() -> dict[str, Any] | None:
        [metric] = served.rollout.status.get("metrics") or [{}]
        return metric if metric.get("verdict") == "healthy" else None

    metric = eventually(healthy, 90, served.rollout.explain)
    assert not metric["alert"], metric


def test_inputs_that_move_for_both_versions_are_told_of_and_blame_none(
    served: Served, gateway: str, prometheus: str
) -> None:
    """The reference is what stable got before the canary had traffic."""
    rollout, clients = served.rollout, Clients()
    reference = {"reference": {"stableBeforeSeconds": 60}}
    release(served, "1.0.0", **reference)
    rollout.wait("Healthy", stable="1.0.0")
    with rollout.load(20, gateway, body=clients.body) as stats:
        eventually(
            lambda: scraped(prometheus, rollout.namespace) > 200 or None, 120, rollout.explain
        )
        release(served, "2.0.0", **reference)
        rollout.wait_weight(50)
        wait_until_judged(served)
        assert "InputsMoved" not in dict(rollout.events())
        clients.mean = 2.5
        told = eventually(lambda: dict(rollout.events()).get("InputsMoved"), 120, rollout.explain)
        assert told.startswith("amounts: the inputs moved: stable is at PSI "), told

        def unavailable() -> dict[str, Any] | None:
            """Be certain of the canary, too: which version it is seen of first is chance."""
            [metric] = rollout.status["metrics"]
            return metric if metric["verdict"] == "unavailable" else None

        metric = eventually(unavailable, 60, rollout.explain)
        assert metric["alert"].startswith("the inputs moved: stable is at PSI ")
        status = rollout.status
        assert (status["phase"], status["weight"]) in {("Paused", 50), ("Progressing", 50)}
        assert not status.get("rejected")
        rollout.order("promote")  # a person finds that it is fine
        status = rollout.wait("Healthy", stable="2.0.0")
    assert not status.get("rejected")
    assert not stats.lost(), stats.lost()


def test_a_version_that_gets_other_inputs_than_stable_is_taken_back(
    served: Served, gateway: str
) -> None:
    """Who asks a version past the gateway breaks what the analysis rests on.

    That either version gets a request by chance. The features tell that the inputs differ, and the
    message says so; whose fault it is they cannot tell, so the version is taken back.
    """
    rollout = served.rollout
    release(served, "1.0.0")
    rollout.wait("Healthy", stable="1.0.0")
    with rollout.load(20, gateway, body=Clients().body) as stats:
        release(served, "2.0.0")
        canary = rollout.wait_weight(50)["canary"]["revision"]
        wait_until_judged(served)
        address = rollout.get("service", f"{rollout.name}-{canary}")["spec"]["clusterIP"]
        with rollout.load(20, address, port=8080, body=Clients(2.5).body):
            rollout.wait("RollingBack", stable="1.0.0")
        status = rollout.wait("RolledBack", stable="1.0.0")  # once nobody asks it any more
    [rejected] = status["rejected"]
    assert (rejected["version"], rejected["reason"]) == ("2.0.0", "MetricHarm")
    assert rejected["message"].startswith("amounts: PSI "), rejected
    assert not stats.lost(), stats.lost()
