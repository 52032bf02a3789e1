"""Each alert fires when it should and not before, says Prometheus' own promtool; so does it read
the dashboard's queries, and what both ask for is there and documented.

promtool is built from source on the first run, which takes longer than other unit tests may.
"""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from cluster.binaries import PROMTOOL, SLOWEST_BUILD_SECONDS, ensure_built
from cluster.paths import Paths
from crossfade.evidence.verdicts import Evidence, MetricAnswer, Verdict
from crossfade.reconcile.queue import WorkQueue
from crossfade.sidecar.metrics import Metrics
from crossfade.telemetry import REASONS, Telemetry
from tests.dashboard import ALERTS, ROOT, dashboard, questions
from tests.unit.test_sidecar_metrics import config as sidecar_config
from tests.unit.test_telemetry import in_phase
from tests.unit.world import KEY

RUNBOOK: Final = ROOT / "docs" / "runbook.md"
DOCS: Final = ROOT / "docs" / "metrics.md"

FRAUD: Final = 'namespace="ml",name="fraud"'
LABELS: Final = {"namespace": "ml", "name": "fraud"}
ERRORS: Final = {**LABELS, "metric": "errors"}

pytestmark = pytest.mark.timeout(SLOWEST_BUILD_SECONDS)


@dataclass(frozen=True, slots=True)
class Case:
    """What was scraped each minute, and whether an alert fires some minutes later."""

    alert: str
    series: dict[str, str]
    minutes: int
    value: str = ""
    """What its words say of the value; "" when it does not fire."""
    labels: dict[str, str] = field(default_factory=dict)
    """What it fires with beside its severity."""


DEPTH: Final = "crossfade_queue_depth"
AGE: Final = "crossfade_queue_age_seconds"
FAILED: Final = f"crossfade_reconcile_failures{{{FRAUD}}}"
LATE: Final = f"crossfade_rollout_deadline_exceeded{{{FRAUD}}}"
BACK: Final = f'crossfade_modeldeployment_phase{{{FRAUD},phase="RolledBack"}}'
GOING_BACK: Final = f'crossfade_modeldeployment_phase{{{FRAUD},phase="RollingBack"}}'
MOVED: Final = f'crossfade_inputs_moved{{{FRAUD},metric="errors"}}'
LOST: Final = f'crossfade_metric_verdict{{{FRAUD},metric="errors",verdict="unavailable"}}'
UNSURE: Final = f'crossfade_metric_verdict{{{FRAUD},metric="errors",verdict="notEnoughData"}}'
LOST_LABELS: Final = {**ERRORS, "verdict": "unavailable"}

CASES: Final = (
    Case("CrossfadeOperatorDown", {DEPTH: "0 0 stale"}, 8, "1"),
    Case("CrossfadeOperatorDown", {DEPTH: "0 0 stale"}, 6),
    Case("CrossfadeOperatorDown", {DEPTH: "0 0 stale _ _ 0x20"}, 12),
    Case("CrossfadeReconcileFailing", {FAILED: "0 1+1x20"}, 12, "12", LABELS),
    Case("CrossfadeReconcileFailing", {FAILED: "0 1+1x20"}, 10),
    Case("CrossfadeReconcileFailing", {FAILED: "1x5 0 1x8 0"}, 14),
    Case("CrossfadeQueueStuck", {AGE: "0 31 91"}, 2, "1m 31s"),
    Case("CrossfadeQueueStuck", {AGE: "29x20"}, 20),
    Case("CrossfadeQueueStuck", {AGE: "0 31 2 31 2"}, 3),
    Case("CrossfadeMetricsUnavailable", {LOST: "1x10", MOVED: "0x10"}, 5, "1", LOST_LABELS),
    Case("CrossfadeMetricsUnavailable", {LOST: "1x10", MOVED: "0x10"}, 4),
    Case("CrossfadeMetricsUnavailable", {LOST: "1x10", MOVED: "1x10"}, 10),
    Case("CrossfadeMetricsUnavailable", {UNSURE: "1x10", MOVED: "0x10"}, 10),
    Case("CrossfadeRolloutDeadlineExceeded", {LATE: "0 1"}, 1, "1", LABELS),
    Case("CrossfadeRolloutDeadlineExceeded", {LATE: "1 0"}, 1),
    Case("CrossfadeRolledBack", {BACK: "_ 1"}, 1, "1", {**LABELS, "phase": "RolledBack"}),
    Case("CrossfadeRolledBack", {GOING_BACK: "1x3"}, 2),
    Case("CrossfadeRolledBack", {BACK: "1 stale"}, 1),
    Case("CrossfadeInputsMoved", {MOVED: "1x5"}, 2, "1", ERRORS),
    Case("CrossfadeInputsMoved", {MOVED: "1x5"}, 1),
    Case("CrossfadeInputsMoved", {MOVED: "0x5"}, 5),
)


@pytest.fixture(scope="module")
def promtool() -> Path:
    paths = Paths.from_environment()
    ensure_built(paths, (PROMTOOL,))
    return paths.bin / PROMTOOL.name


def rules() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load(ALERTS.read_text())["groups"]
    return list(group["rules"])


def run(promtool: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [str(promtool), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_rules_are_well_formed(promtool: Path) -> None:
    done = run(promtool, "check", "rules", "--lint=all", "--lint-fatal", ALERTS)
    assert done.returncode == 0, done.stderr
    assert f"{len(rules())} rules found" in done.stdout


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c.alert}-{c.minutes}-{bool(c.value)}")
def test_alert_fires_when_it_should(promtool: Path, tmp_path: Path, case: Case) -> None:
    rule = next(r for r in rules() if r["alert"] == case.alert)
    fires = {
        "exp_labels": {**rule["labels"], **case.labels},
        "exp_annotations": {k: rendered(words, case) for k, words in rule["annotations"].items()},
    }
    test = {
        "rule_files": [str(ALERTS)],
        "evaluation_interval": "30s",
        "tests": [
            {
                "interval": "1m",
                "input_series": [{"series": s, "values": v} for s, v in case.series.items()],
                "alert_rule_test": [
                    {
                        "alertname": case.alert,
                        "eval_time": f"{case.minutes}m",
                        "exp_alerts": [fires] if case.value else [],
                    }
                ],
            }
        ],
    }
    file = tmp_path / "test.yaml"
    file.write_text(yaml.safe_dump(test))
    done = run(promtool, "test", "rules", file)
    assert done.returncode == 0, done.stdout + done.stderr


def rendered(words: str, case: Case) -> str:
    """Fill in an annotation as Prometheus does, as far as ours go."""
    for name, value in case.labels.items():
        words = words.replace(f"{{{{ $labels.{name} }}}}", value)
    return re.sub(r"{{ \$value[^}]* }}", case.value, words)


def test_every_alert_is_seen_to_fire_and_not_to_fire() -> None:
    names = [rule["alert"] for rule in rules()]
    for fires in (True, False):
        assert set(names) == {case.alert for case in CASES if bool(case.value) == fires}


def test_every_alert_has_its_place_in_the_runbook() -> None:
    headings = re.findall(r"^#+ (\w+)$", RUNBOOK.read_text(), re.MULTILINE)
    for rule in rules():
        page, anchor = rule["annotations"]["runbook_url"].split("#")
        assert (ROOT / page) == RUNBOOK
        assert anchor == rule["alert"].lower()
        assert rule["alert"] in headings


def test_every_reason_for_a_rollback_is_in_the_runbook() -> None:
    explained = re.findall(r"^\| `(\w+)` \|", RUNBOOK.read_text(), re.MULTILINE)
    assert sorted(explained) == sorted(REASONS)


# ── the dashboard ─────────────────────────────────────────────────────────────────────────────────


def test_prometheus_reads_every_query_of_the_dashboard(promtool: Path, tmp_path: Path) -> None:
    asked = questions()
    assert len(asked) >= 20
    recorded = [{"record": f"q{nth}", "expr": expr} for nth, (_, expr) in enumerate(asked)]
    file = tmp_path / "rules.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": recorded}]}))
    done = run(promtool, "check", "rules", file)
    assert done.returncode == 0, done.stderr


def test_no_variable_of_grafana_is_left_that_the_dashboard_does_not_have() -> None:
    known = {variable["name"] for variable in dashboard()["templating"]["list"]}
    assert known == {"datasource", "namespace", "name"}
    for title, expr in questions():
        assert set(re.findall(r"\$\w+", expr)) <= {"$1"}, title


def test_panels_do_not_lie_upon_each_other() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in dashboard()["panels"]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells


def exported() -> dict[str, str]:
    """Return the samples' names of the operator's own metrics, with the family of each."""
    telemetry = Telemetry()
    telemetry.watch_queue(WorkQueue())
    telemetry.api_request("get", "secrets", "200", 0.1)
    answer = MetricAnswer("errors", Verdict.HEALTHY, "", Evidence(0.0, 5.7))
    telemetry.seen(KEY, in_phase("Progressing"), (answer,))
    return {
        sample.name: family.name + ("_total" if family.type == "counter" else "")
        for family in telemetry.registry.collect()
        for sample in family.samples
    }


def test_alerts_and_dashboard_ask_only_for_what_there_is() -> None:
    sidecar = {s.name for family in Metrics(sidecar_config()).collect() for s in family.samples}
    there = set(exported()) | sidecar
    asked = [expr for _, expr in questions()] + [rule["expr"] for rule in rules()]
    names = {name for expr in asked for name in re.findall(r"\b(?:crossfade|process)_\w+", expr)}
    assert len(names) >= 20
    assert names <= there, names - there


def test_every_metric_is_documented_and_no_other() -> None:
    documented = re.findall(r"^\| `(crossfade_\w+)` \|", DOCS.read_text(), re.MULTILINE)
    ours = {family for family in exported().values() if family.startswith("crossfade_")}
    assert sorted(documented) == sorted(ours)
