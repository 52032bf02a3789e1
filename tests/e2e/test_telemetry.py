"""The operator's own metrics, alerts and dashboard, read by a Prometheus of the test's own.

It is the cluster's program, started here with the shipped rules, so that nothing of the cluster's
Prometheus has to change for it.
"""

from __future__ import annotations

import json
import math
import socket
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from cluster.paths import Paths
from examples.demo.kubectl import Kubectl
from tests.dashboard import ALERTS, questions
from tests.e2e.rollouts import Rollout, eventually

NO_DATA: Final = frozenset(
    {"Error rate by version", "Requests by version", "Latency by version, 95 %"}
)
"""Panels about sidecars, of which the test has none."""

PERHAPS: Final = frozenset({"Requests that failed"})
"""Panels that have data only when something goes wrong."""

AFTER_A_ROLLBACK: Final = frozenset({"Versions taken back, in an hour", "Seconds to a rollback"})


class Prometheus:
    """A Prometheus that scrapes the operator."""

    def __init__(self, address: str) -> None:
        self.address = address

    def get(self, path: str, **params: str) -> Any:
        """Ask its API; an error is an error of the test."""
        url = f"{self.address}/api/v1/{path}?{urllib.parse.urlencode(params)}"
        with urllib.request.urlopen(url, timeout=10) as answer:
            said = json.load(answer)
        assert said["status"] == "success", said
        return said["data"]

    def values(self, expr: str) -> list[float]:
        """Evaluate an expression now."""
        return [float(s["value"][1]) for s in self.get("query", query=expr)["result"]]


def address_of_operator(cluster: Kubectl) -> str:
    out = cluster.run("-n", "crossfade-system", "get", "pods", "-o", "json")
    (pod,) = (p for p in json.loads(out)["items"] if "deletionTimestamp" not in p["metadata"])
    return f"{pod['status']['podIP']}:8080"


def scraped(address: str) -> str:
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as answer:
        return str(answer.read().decode())


@pytest.fixture
def own(cluster: Kubectl, tmp_path: Path) -> Iterator[Prometheus]:
    """Start a Prometheus with the shipped alerts on the operator's pod."""
    config = {
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(ALERTS)],
        "scrape_configs": [
            {
                "job_name": "crossfade",
                "honor_labels": True,
                "static_configs": [
                    {
                        "targets": [address_of_operator(cluster)],
                        # As service discovery gives them to every target.
                        "labels": {"namespace": "crossfade-system", "pod": "the-operator"},
                    }
                ],
            }
        ],
    }
    file = tmp_path / "prometheus.yml"
    file.write_text(yaml.safe_dump(config))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = str(Paths.from_environment().bin / "prometheus")
    command = [
        program,
        f"--config.file={file}",
        f"--storage.tsdb.path={tmp_path / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with (tmp_path / "log").open("wb") as log, subprocess.Popen(command, stderr=log) as process:
        prometheus = Prometheus(f"http://127.0.0.1:{port}")

        def reads() -> bool | None:
            if process.poll() is not None:
                pytest.fail((tmp_path / "log").read_text())
            try:
                return bool(prometheus.values("crossfade_queue_depth")) or None
            except OSError:
                return None

        try:
            eventually(reads, 60, lambda: "Prometheus reads the operator's metrics")
            yield prometheus
        finally:
            process.terminate()
            process.wait(30)


def test_a_rollback_is_seen_in_metrics_alerts_and_every_panel_and_then_forgotten(
    cluster: Kubectl, rollout: Rollout, gateway: str, own: Prometheus
) -> None:
    of_one = f'{{namespace="{rollout.namespace}",name="fraud"}}'
    waits = {"steps": [{"weightPercent": 20, "minRequests": 100_000}], "probationSeconds": 5}
    rollout.apply("1.0.0", rollout=waits)
    rollout.wait("Healthy", stable="1.0.0")
    with rollout.load(40, gateway):
        rollout.apply("2.0.0", rollout=waits)
        rollout.wait_weight(20)

        def counts() -> bool | None:
            return bool(own.values(f"crossfade_evidence_log_e{of_one}")) or None

        def weighs() -> bool | None:
            return own.values(f"crossfade_canary_weight{of_one}") == [20] or None

        eventually(counts, 60, lambda: "evidence")
        eventually(weighs, 60, lambda: str(own.values(f"crossfade_canary_weight{of_one}")))
        (needed,) = own.values(f"crossfade_evidence_log_e_needed{of_one}")
        assert needed == pytest.approx(math.log(100), abs=2), "falseRollbackRate is 0.01"

        rollout.fault("2.0.0", ERROR_PERCENT=100)
        rollout.wait("RolledBack", stable="1.0.0")

    def told() -> bool | None:
        firing = [
            a["labels"]["alertname"]
            for a in own.get("alerts")["alerts"]
            if a["state"] == "firing" and a["labels"].get("namespace") == rollout.namespace
        ]
        return firing == ["CrossfadeRolledBack"] or None

    eventually(told, 30, lambda: json.dumps(own.get("alerts")))
    ended = f'crossfade_rollouts_total{{namespace="{rollout.namespace}"}}'
    assert own.values(f"sum({ended})") == [1]
    assert own.values(f'{ended[:-1]},result="rolledBack"}}') == [1]
    assert own.values(f"crossfade_canary_weight{of_one}") == [0]
    assert own.values('crossfade_rollback_seconds_sum{reason="MetricHarm"}')[0] > 0
    assert own.values('sum(crossfade_api_requests_total{verb="patch",code="200"})')[0] > 0
    assert own.values('crossfade_prometheus_queries_total{result="ok"}')[0] > 0

    silent = set()
    for panel, expr in questions(rollout.namespace, "fraud"):
        found = own.values(expr)
        if not own.values(f"last_over_time(({expr})[5m:1s])"):
            silent.add(panel)
        if panel in AFTER_A_ROLLBACK:
            assert found, panel
            assert not math.isnan(max(found)), panel
    assert silent - PERHAPS == NO_DATA

    rollout.kubectl.run(
        "-n", rollout.namespace, "delete", "modeldeployments.crossfade.dev", "fraud"
    )
    address = address_of_operator(cluster)

    def forgotten() -> bool | None:
        return rollout.namespace not in scraped(address) or None

    eventually(forgotten, 60, lambda: scraped(address))
