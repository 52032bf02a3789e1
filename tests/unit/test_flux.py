"""What Flux makes of a ModelDeployment with the expressions of ``examples/flux``, by Flux's CEL."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.gitops import CEL, judge
from crossfade.core.actions import Manifest
from tests.unit.argocd import health, read
from tests.unit.argocd_statuses import SCENARIOS, TESTDATA

pytestmark = pytest.mark.timeout(900)  # the first run builds the program that evaluates CEL

EXAMPLE = Path(__file__).parents[2] / "examples/flux/sync.yaml"

CURRENT = {"healthy", "healthy_paused", "probation"}
FAILED = {
    "rolled_back",
    "rolled_back_by_person",
    "rolled_back_not_ready",
    "rolled_back_undone",
    "stable_not_ready",
    "invalid_spec",
}


def expressions() -> dict[str, str]:
    _source, kustomization = yaml.safe_load_all(EXAMPLE.read_text())
    (checked,) = kustomization["spec"]["healthCheckExprs"]
    assert (checked["apiVersion"], checked["kind"]) == ("crossfade.dev/v1alpha1", "ModelDeployment")
    return {name: checked[name] for name in ("failed", "current")}


def flux(body: Manifest, answers: dict[str, Any]) -> str:
    """Say what Flux says, in the order of its RFC 9 (``runtime/cel/status_evaluator.go``)."""
    observed = body.get("status", {}).get("observedGeneration")
    if observed is not None and observed != body["metadata"]["generation"]:
        return "InProgress"
    for name, word in (("failed", "Failed"), ("current", "Current")):
        if "error" in answers[name]:
            return "cannot be told yet"
        if answers[name]["result"]:
            return word
    return "InProgress"


def test_flux_waits_goes_on_and_fails_as_people_would() -> None:
    wanted = expressions()
    objects = {name: read(TESTDATA, f"{name}.yaml") for name in SCENARIOS}
    jobs = [{"expression": e, "object": o} for o in objects.values() for e in wanted.values()]
    answers = iter(judge(CEL, jobs))
    said = {n: flux(o, {e: next(answers) for e in wanted}) for n, o in objects.items()}
    assert said.pop("without_status") == "cannot be told yet"
    going_on = set(said) - CURRENT - FAILED
    assert said == {
        **dict.fromkeys(CURRENT, "Current"),
        **dict.fromkeys(FAILED, "Failed"),
        **dict.fromkeys(going_on, "InProgress"),
    }


def test_flux_calls_ready_what_argo_cd_calls_healthy() -> None:
    objects = {name: read(TESTDATA, f"{name}.yaml") for name in SCENARIOS}
    healths = zip(objects, health(objects.values()), strict=True)
    assert {name for name, it in healths if it["status"] == "Healthy"} == CURRENT
