"""What a user is told about the evidence on the real cluster, and that a restart keeps it."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from crossfade.api.v1alpha1 import Analysis
from crossfade.evidence.verdicts import MetricAnswer
from crossfade.metrics.analyst import Arm, Subject
from crossfade.metrics.prometheus import PrometheusClient
from crossfade.metrics.prometheus_analyst import PrometheusAnalyst
from crossfade.names import NamespacedName
from examples.demo.kubectl import Kubectl
from tests.e2e.rollouts import PROMETHEUS, Rollout, eventually, kill_operator

Spec = dict[str, Any]
Told = tuple[tuple[str, str, str], ...]
"""Of each metric its name, its verdict and its words."""

LOAD = 20
UNREACHABLE = 1_000_000
LABELS: Spec = {"counter": "model_predictions_total", "label": "label"}
ERRORS: Spec = {"name": "errors", "errorRate": {"worseThanStable": {}}}


def analysis_of(*metrics: Spec, rate: float = 0.01) -> Spec:
    return {
        "prometheus": {"address": PROMETHEUS},
        "intervalSeconds": 1,
        "falseRollbackRate": rate,
        "source": {
            "requests": "model_requests_total",
            "errors": 'model_requests_total{code=~"5.."}',
            "latency": "model_request_seconds",
        },
        "metrics": list(metrics),
    }


def serve(of: Rollout, faults: Spec | None = None, **spec: Any) -> None:
    of.apply("1.0.0", faults, **spec)
    of.wait("Healthy", stable="1.0.0")


def until(rollout: Rollout, holds: Callable[[Spec], object]) -> Spec:
    """Wait until something holds of the status; return it."""

    def look() -> Spec | None:
        status = rollout.status
        return status if holds(status) else None

    return eventually(look, 120, rollout.explain)


def told(status: Spec) -> Told:
    return tuple((m["name"], m["verdict"], m["message"]) for m in status["metrics"])


def notes(rollout: Rollout, reason: str) -> list[str]:
    return [note for r, note in rollout.events() if r == reason]


def progressing(status: Spec) -> tuple[str, str, str]:
    (condition,) = [c for c in status["conditions"] if c["type"] == "Progressing"]
    return condition["status"], condition["reason"], condition["message"]


# ── falseRollbackRate ─────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("rate", "needs"), [(0.01, 300), (0.05, 60)])
def test_the_false_rollback_rate_of_the_rollout_is_split_over_its_tests(
    rollout: Rollout, gateway: str, rate: float, needs: int
) -> None:
    """Two limits are two tests, a drift is one, and a query is none."""
    analysis = analysis_of(
        {"name": "errors", "errorRate": {"maxPercent": 10, "worseThanStable": {}}},
        {"name": "labels", "drift": LABELS},
        {"name": "query", "query": {"promql": "vector(1)", "max": 2}},
        rate=rate,
    )
    steps = [{"weightPercent": 50, "minSeconds": 1, "minRequests": 20, "pause": {}}]
    spec = {"analysis": analysis, "rollout": {"steps": steps}}
    serve(rollout, **spec)
    with rollout.load(LOAD, gateway):
        rollout.apply("2.0.0", **spec)
        said = {name: words for name, _, words in told(rollout.wait("Paused"))}
        assert said["errors"].endswith(f", needs {needs} : 1"), said
        assert said["labels"].endswith(f", needs {needs} : 1"), said
        assert said["query"] == "1 is at most 2"
        rollout.fault("2.0.0", ERROR_PERCENT=60)
        (rejected,) = rollout.wait("RolledBack", stable="1.0.0")["rejected"]
    odds = re.search(rf"evidence ([0-9,]+) : 1, needs {needs} : 1$", rejected["message"])
    assert odds, rejected
    assert int(odds[1].replace(",", "")) >= needs


# ── deadlineSeconds ───────────────────────────────────────────────────────────────────────────────


def never_enough(**rollout: Any) -> Spec:
    """Return a spec whose only step asks for more requests than there are."""
    steps = [{"weightPercent": 10, "minSeconds": 1, "minRequests": UNREACHABLE}]
    return {
        "analysis": analysis_of(ERRORS),
        "rollout": {"steps": steps, "probationSeconds": 0, **rollout},
    }


def answered(status: Spec) -> int:
    """Return how many requests the canary has answered of those that the step asks for."""
    (metric,) = status.get("metrics") or [{"message": ""}]
    found = re.fullmatch(
        r"canary answered ([0-9,]+) of the 1,000,000 requests that this step asks for",
        metric["message"],
    )
    return int(found[1].replace(",", "")) if found else 0


def test_a_deadline_holds_the_weight_until_a_person_decides(rollout: Rollout, gateway: str) -> None:
    spec = never_enough(deadlineSeconds=15, onDeadline="hold")
    serve(rollout, **spec)
    with rollout.load(LOAD, gateway) as stats:
        begun = time.time()
        rollout.apply("2.0.0", **spec)
        status = until(rollout, lambda it: it["message"].startswith("deadlineSeconds is over"))
        assert time.time() - begun >= 15
        status = until(rollout, answered)
        assert (status["phase"], status["weight"]) == ("Progressing", 10)
        assert status["metrics"][0]["verdict"] == "notEnoughData"
        waits = "waits for a person: set the annotation crossfade.dev/command=promote, or =abort"
        words = f"deadlineSeconds is over; {waits}"
        assert progressing(status) == ("True", "DeadlineExceeded", words)
        rollout.order("promote")
        rollout.wait("Healthy", stable="2.0.0")
    (said,) = notes(rollout, "DeadlineExceeded")
    assert said.startswith("not promoted after 15 s, the weight holds: ")
    assert not stats.lost(), stats.lost()


def test_a_deadline_takes_a_version_back_that_had_too_few_requests(
    rollout: Rollout, gateway: str
) -> None:
    serve(rollout, **never_enough())
    with rollout.load(LOAD, gateway) as stats:
        rollout.apply("2.0.0", **never_enough())
        status = until(rollout, answered)
        assert (status["phase"], status["weight"]) == ("Progressing", 10)
        # The rollout is older than a second by now: the deadline is over at once.
        rollout.apply("2.0.0", **never_enough(deadlineSeconds=1, onDeadline="rollBack"))
        status = rollout.wait("RolledBack", stable="1.0.0")
    (rejected,) = status["rejected"]
    assert rejected["reason"] == "DeadlineExceeded"
    why = r"not promoted after 1 s: errors: canary answered [0-9,]+ of the 1,000,000 requests .*"
    assert re.fullmatch(why, rejected["message"])
    assert progressing(status)[:2] == ("False", "RolledBack")
    assert notes(rollout, "RollingBack") == [
        f"version 2.0.0 is taken back, 1.0.0 serves (DeadlineExceeded): {rejected['message']}"
    ]
    assert not notes(rollout, "DeadlineExceeded")
    assert not stats.lost(), stats.lost()


# ── forecast ──────────────────────────────────────────────────────────────────────────────────────


def test_it_is_forecast_how_long_a_doubling_goes_unnoticed(rollout: Rollout, gateway: str) -> None:
    steps = [{"weightPercent": 10, "minSeconds": 900}, {"weightPercent": 50}]
    latency = {"maxMilliseconds": 250, "maxSlowPercent": 99}
    tolerant = {"name": "slow", "latency": latency, "warmupSeconds": 0}

    def spec(**rules: int) -> Spec:
        rules_of_all = {"steps": steps, **rules}
        return {"analysis": analysis_of(ERRORS, tolerant), "rollout": rules_of_all}

    faults = {"ERROR_PERCENT": 10}
    serve(rollout, faults, **spec())
    with rollout.load(LOAD, gateway):
        rollout.apply("2.0.0", faults, **spec())

        def timed(status: Spec) -> bool:
            rows = [f for m in status.get("metrics", ()) for f in m["forecast"]]
            return bool(rows) and all("seconds" in row for row in rows)

        errors, slow = until(rollout, timed)["metrics"]
        ten, fifty = errors["forecast"]
        assert (ten["weightPercent"], fifty["weightPercent"]) == (10, 50)
        assert 0 < ten["requests"] < fifty["requests"]
        for row in (ten, fifty):
            expected = row["requests"] / (LOAD * row["weightPercent"] / 100)
            assert expected / 2 <= row["seconds"] <= expected * 2, errors["forecast"]
        assert slow["forecast"] == []
        assert re.fullmatch(r"twice stable's rate \([0-9.]+ %\) is tolerated", slow["noForecast"])
        assert not notes(rollout, "SlowDetection")

        deadline = max(fifty["seconds"] // 4, 1)
        rollout.apply("2.0.0", faults, **spec(deadlineSeconds=deadline))
        eventually(lambda: notes(rollout, "SlowDetection") or None, 60, rollout.explain)
        time.sleep(3)
        (said,) = notes(rollout, "SlowDetection")
    assert re.fullmatch(
        r"errors: a doubling of the rate would be seen only after [0-9]+ (s|min)"
        r" at a weight of 50 % \([0-9,]+ canary requests\); deadlineSeconds is [0-9]+ (s|min):"
        r" raise weights, deadlineSeconds or falseRollbackRate",
        said,
    ), said


# ── restart ───────────────────────────────────────────────────────────────────────────────────────


def subject_of(rollout: Rollout, analysis: Spec, address: str) -> Subject:
    """Return what the operator judges, to be judged from here as well."""
    status = rollout.status
    went = status["rollout"]

    def arm(role: str) -> Arm:
        return Arm(status[role]["revision"], status[role]["version"])

    return Subject(
        key=NamespacedName(rollout.namespace, rollout.name),
        model="fraud",
        analysis=Analysis.model_validate({**analysis, "prometheus": {"address": address}}),
        canary=arm("canary"),
        stable=arm("stable"),
        since=datetime.fromisoformat(went["weightedAt"]),
        in_force_at=datetime.fromisoformat(went["inForceAt"]),
        min_requests=20,
    )


def told_anew(rollout: Rollout) -> Told:
    """Wipe what the status tells of the metrics; return what the operator then writes."""
    rollout.kubectl.run(
        "-n", rollout.namespace, "patch", "modeldeployments.crossfade.dev", rollout.name,
        "--subresource=status", "--type=merge", "-p", json.dumps({"status": {"metrics": []}}),
    )  # fmt: skip
    return told(until(rollout, lambda it: it.get("metrics")))


async def standing(analyst: PrometheusAnalyst, subject: Subject) -> tuple[MetricAnswer, ...]:
    """Look until nothing changes any more, for 20 s at most; return the answers."""
    answers = await analyst.look(subject, datetime.now(UTC))
    for _ in range(10):
        before = answers
        await asyncio.sleep(2)
        answers = await analyst.look(subject, datetime.now(UTC))
        if answers == before:
            return answers
    pytest.fail(f"the evidence changes without requests: {before}, {answers}")


@pytest.mark.alone
async def test_killed_operator_finds_the_same_evidence_again_to_the_last_digit(
    rollout: Rollout, gateway: str, cluster: Kubectl, prometheus: str
) -> None:
    """Freeze the counters, kill it, and compare what the next one says and what is found here."""
    analysis = analysis_of(
        {"name": "errors", "errorRate": {"maxPercent": 30, "worseThanStable": {"ratio": 2}}},
        {"name": "slow", "latency": {"maxMilliseconds": 250, "worseThanStable": {"ratio": 2}},
         "warmupSeconds": 3},
        {"name": "labels", "drift": LABELS},
        {"name": "scores", "drift": {"histogram": "model_score"}},
    )  # fmt: skip
    steps = [{"weightPercent": 50, "minSeconds": 1, "minRequests": 20, "pause": {}}]
    spec = {"analysis": analysis, "rollout": {"steps": steps}}
    faults = {"ERROR_PERCENT": 10, "SLOW_PERCENT": 10, "SLOW_MS": 400, "FLIP_PERCENT": 20}
    serve(rollout, faults, **spec)
    client = PrometheusClient()
    kept, fresh = (PrometheusAnalyst(client, NoSecrets(), time.monotonic) for _ in range(2))
    try:
        with rollout.load(LOAD, gateway):
            rollout.apply("2.0.0", faults, **spec)
            await asyncio.to_thread(rollout.wait, "Paused")
            subject = subject_of(rollout, analysis, prometheus)
            for _ in range(10):
                await kept.look(subject, datetime.now(UTC))
                await asyncio.sleep(0.5)
        frozen = await standing(kept, subject)
        assert all(a.evidence is not None and a.evidence.log_e for a in frozen), frozen

        before = told_anew(rollout)
        kill_operator(cluster)
        assert told_anew(rollout) == before == tuple((a.name, a.verdict, a.message) for a in frozen)

        now = datetime.now(UTC)
        again, on = await fresh.look(subject, now), await kept.look(subject, now)
        assert [a.evidence for a in again] == [a.evidence for a in frozen]
        assert again == on == frozen
    finally:
        client.close()


class NoSecrets:
    """The Prometheus of the cluster asks for none."""

    async def read(self, namespace: str, name: str) -> None:
        return None
