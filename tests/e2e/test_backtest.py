"""``crossfade backtest`` over what a real operator and Prometheus have just been through."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import matplotlib.image

from tests.e2e.rollouts import Rollout

INTERVAL_SECONDS = 5


def test_fires_when_and_for_what_the_operator_took_the_version_back(
    rollout: Rollout, gateway: str, prometheus: str, tmp_path: Path
) -> None:
    spec = _spec(rollout, min_seconds=600)
    rollout.apply("1.0.0", **spec)
    rollout.wait("Healthy", stable="1.0.0")
    with rollout.load(20, gateway):
        rollout.apply("2.0.0", **spec)
        start = rollout.wait_weight(20)["rollout"]["weightedAt"]
        rollout.fault("2.0.0", ERROR_PERCENT=50)
        rollout.wait("RolledBack", stable="1.0.0")
    manifest = rollout.manifest("2.0.0", **spec)
    plot = tmp_path / "out.png"
    found = _backtest(manifest, prometheus, start, tmp_path, "--plot", str(plot))
    assert (found["outcome"], found["firedBy"]) == ("fired", ["errors"])
    taken_back_at = _event_at(rollout, "RollingBack")
    late = datetime.fromisoformat(found["firedAt"]) - taken_back_at
    assert abs(late.total_seconds()) <= 2 * INTERVAL_SECONDS
    assert matplotlib.image.imread(plot).std() > 0.05, "the picture shows something"


def test_does_not_fire_for_a_version_that_was_promoted(
    rollout: Rollout, gateway: str, prometheus: str, tmp_path: Path
) -> None:
    spec = _spec(rollout, min_seconds=10)
    rollout.apply("1.0.0", {"ERROR_PERCENT": 1}, **spec)
    rollout.wait("Healthy", stable="1.0.0")
    with rollout.load(20, gateway):
        rollout.apply("2.0.0", {"ERROR_PERCENT": 1}, **spec)
        start = rollout.wait_weight(20)["rollout"]["weightedAt"]
        rollout.wait("Healthy", stable="2.0.0")
    manifest = rollout.manifest("2.0.0", {"ERROR_PERCENT": 1}, **spec)
    found = _backtest(manifest, prometheus, start, tmp_path)
    assert (found["outcome"], found["firedAt"]) == ("ready", None), found


def _spec(rollout: Rollout, min_seconds: int) -> dict[str, Any]:
    analysis = rollout.manifest("1.0.0")["spec"]["analysis"]
    errors = {"name": "errors", "errorRate": {"maxPercent": 10}}
    slow = {"name": "slow", "latency": {"maxMilliseconds": 1000, "maxSlowPercent": 5}}
    return {
        "rollout": {
            "steps": [{"weightPercent": 20, "minSeconds": min_seconds, "minRequests": 10}],
            "probationSeconds": 0,
        },
        "analysis": {
            **analysis,
            "intervalSeconds": INTERVAL_SECONDS,
            "metrics": [errors, slow],
        },
    }


def _backtest(
    manifest: dict[str, Any], prometheus: str, start: str, folder: Path, *more: str
) -> dict[str, Any]:
    """Run the command as a person does."""
    file = folder / "manifest.yaml"
    file.write_text(json.dumps(manifest))
    to = datetime.now(UTC).isoformat()
    done = subprocess.run(
        [sys.executable, "-m", "crossfade", "backtest", "-f", str(file), "-o", "json",
         "--canary", "2.0.0", "--stable", "1.0.0", "--from", start, "--to", to,
         "--prometheus", prometheus, *more],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def _event_at(rollout: Rollout, reason: str) -> datetime:
    (at,) = [
        event["eventTime"]
        for event in rollout.objects("events.v1.events.k8s.io")
        if event["reason"] == reason and event["regarding"]["name"] == rollout.name
    ]
    return datetime.fromisoformat(at)
