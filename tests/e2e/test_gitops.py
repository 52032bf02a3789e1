"""Git and Crossfade at one cluster: nobody takes anything from the other, and no weight flaps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from crossfade.names import FIELD_MANAGER
from examples.demo.kubectl import Kubectl
from tests.e2e.gitops import MANAGER, Film, Manifest, SelfHealing, filmed, without_repeats
from tests.e2e.rollouts import Rollout, eventually
from tests.e2e.test_traffic import shared_route
from tests.unit.argocd import act, discover, health

KUSTOMIZE = Path(__file__).parents[2] / "examples/kustomize"
MODEL = "modeldeployments.crossfade.dev"


def in_git(rollout: Rollout, version: str, faults: dict[str, Any] | None = None) -> Manifest:
    """Return the ModelDeployment as a team has it in Git: it joins a rule, its first step waits."""
    steps: list[dict[str, Any]] = [
        {"weightPercent": 10, "minSeconds": 1, "minRequests": 5, "pause": {}},
        {"weightPercent": 50, "minSeconds": 1, "minRequests": 5},
    ]
    return rollout.manifest(
        version,
        faults,
        traffic={"gateway": {"routeRef": {"name": "public", "rule": "fraud"}}},
        rollout={"steps": steps, "probationSeconds": 5},
    )


def route_in_git(rollout: Rollout) -> Manifest:
    """Return the HTTPRoute of another team that the example's Application speaks of."""
    route = shared_route(rollout)
    route["metadata"]["name"] = "public"
    route["spec"]["rules"][0]["name"] = "fraud"
    return route


def click(rollout: Rollout, action: str) -> None:
    """Run an action as Argo CD's server does: Lua on the live object, the rest is a merge patch."""
    live = rollout.get(MODEL, rollout.name)
    (offered,) = discover([live])
    assert not offered[action]["disabled"], (action, rollout.explain())
    (changed,) = act(action, [live])
    patch = {
        "metadata": {"annotations": changed["metadata"].get("annotations")},
        "spec": changed["spec"],
    }
    words = ("-n", rollout.namespace, "patch", MODEL, rollout.name, "--type=merge")
    rollout.kubectl.run(*words, "--field-manager=argocd-server", "-p", json.dumps(patch))


def after_syncs(git: SelfHealing, number: int, rollout: Rollout) -> None:
    """Wait until Git was applied that many times more."""
    wanted = git.syncs + number
    eventually(lambda: True if git.syncs >= wanted else None, 120, rollout.explain)


def shares(film: Film, revision: str) -> list[int | str]:
    """Return what a revision got of its rule, each time that changed; words for no split at all."""
    seen: list[int | str] = []
    for route in film.states:
        entries = route["spec"]["rules"][0]["backendRefs"]
        weights = {entry["name"]: entry.get("weight", 1) for entry in entries}
        if "fraud" in weights:
            seen.append("as in Git")
        else:
            seen.append(round(100 * weights.get(f"fraud-{revision}", 0) / sum(weights.values())))
    return without_repeats(seen)


def healths(film: Film) -> list[str]:
    """Return Argo CD's word for each state of a ModelDeployment, each time that changed."""
    return without_repeats([it["status"] for it in health(film.states)])


def fields_of(rollout: Rollout, manager: str, subresource: str = "") -> set[str]:
    """Return which top-level fields and metadata of the ModelDeployment a manager owns."""
    words = ("-n", rollout.namespace, "get", MODEL, rollout.name, "--show-managed-fields")
    live = json.loads(rollout.kubectl.run(*words, "-o", "json"))
    owned: set[str] = set()
    for entry in live["metadata"]["managedFields"]:
        if entry["manager"] != manager or entry.get("subresource", "") != subresource:
            continue
        for name, inner in entry["fieldsV1"].items():
            owned |= {f"{name}/{part}" for part in inner} if name == "f:metadata" else {name}
    return owned


@pytest.fixture
def git(cluster: Kubectl, rollout: Rollout) -> SelfHealing:
    return SelfHealing(cluster, in_git(rollout, "1.0.0"), route_in_git(rollout))


def test_a_rollout_under_a_tool_that_heals_each_second_has_no_flap(
    git: SelfHealing, rollout: Rollout, gateway: str
) -> None:
    with git:
        rollout.wait("Healthy", stable="1.0.0")
        before = rollout.get(MODEL, rollout.name)
        with (
            rollout.load(20, gateway) as stats,
            filmed("httproute", rollout.namespace, "public") as routes,
            filmed(MODEL, rollout.namespace, rollout.name) as models,
        ):
            git.model = in_git(rollout, "2.0.0")
            rollout.wait("Paused")
            click(rollout, "pause")
            after_syncs(git, 5, rollout)
            click(rollout, "resume")
            revision = rollout.wait("Paused")["canary"]["revision"]
            click(rollout, "promote")
            rollout.wait("Healthy", stable="2.0.0")
            after_syncs(git, 3, rollout)
        after = rollout.get(MODEL, rollout.name)
    assert not git.failures, git.failures

    assert shares(routes, revision) == [0, 10, 50, 100]
    assert git.route_syncs == 1, "only when there was no route yet"
    assert not stats.lost(), stats.lost()
    assert "WeightRestored" not in [reason for reason, _ in rollout.events()]

    asked = [state for state in models.states if state["spec"]["model"]["version"] == "2.0.0"]
    *meanwhile, last = healths(Film(asked))
    assert (set(meanwhile), last) == ({"Progressing", "Suspended"}, "Healthy")

    # Two commits, a pause and its end are all that ever changed the spec.
    assert after["metadata"]["generation"] == before["metadata"]["generation"] + 3
    for part in ("labels", "annotations", "finalizers", "ownerReferences"):
        assert (after["metadata"].get(part) or None) == (before["metadata"].get(part) or None)
    assert fields_of(rollout, FIELD_MANAGER) <= {"f:metadata/f:finalizers"}
    assert fields_of(rollout, FIELD_MANAGER, "status") == {"f:status"}
    assert "f:spec" in fields_of(rollout, MANAGER)


def test_a_rejected_version_that_git_still_asks_for_stays_rejected_and_says_why(
    git: SelfHealing, rollout: Rollout, gateway: str
) -> None:
    with git:
        rollout.wait("Healthy", stable="1.0.0")
        with (
            rollout.load(20, gateway),
            filmed("httproute", rollout.namespace, "public") as routes,
        ):
            git.model = in_git(rollout, "2.0.0", {"ERROR_PERCENT": 100})
            status = rollout.wait("RolledBack")
            revision = status["rejected"][0]["revision"]
            after_syncs(git, 10, rollout)
            (said,) = health([rollout.get(MODEL, rollout.name)])
            click(rollout, "retry")
            eventually(lambda: _started(rollout, 2), 60, rollout.explain)
            rollout.wait("RolledBack")
            after_syncs(git, 3, rollout)
            git.model = in_git(rollout, "1.0.0")
            rollout.wait("Healthy", stable="1.0.0")
    assert not git.failures, git.failures

    assert said["status"] == "Degraded"
    assert said["message"].startswith("version 2.0.0 was taken back (MetricHarm): errors: ")
    assert said["message"].endswith("version 1.0.0 serves")
    assert shares(routes, revision) == [0, 10, 0, 10, 0]
    assert [reason for reason, _ in rollout.events()].count("RolloutStarted") == 2
    assert git.route_syncs == 1


def _started(rollout: Rollout, times: int) -> bool | None:
    """Tell whether so many rollouts were started; None when not."""
    started = [reason for reason, _ in rollout.events() if reason == "RolloutStarted"]
    return True if len(started) == times else None


@pytest.mark.parametrize("overlay", ["staging", "production"])
def test_kustomize_builds_what_the_api_server_takes(
    cluster: Kubectl, namespace: str, overlay: str
) -> None:
    built = cluster.run("kustomize", str(KUSTOMIZE / "overlays" / overlay))
    words = ("-n", namespace, "apply", "--dry-run=server", "--validate=strict")
    taken = json.loads(cluster.run(*words, "-o", "json", "-f", "-", stdin=built))["items"]
    objects = {it["kind"]: it for it in taken}
    suffix = "-staging" if overlay == "staging" else ""
    assert objects["ModelDeployment"]["metadata"]["name"] == f"fraud{suffix}"
    spec = objects["ModelDeployment"]["spec"]
    (container,) = spec["template"]["spec"]["containers"]
    assert container["image"] == f"registry.example.com/fraud:{spec['model']['version']}"
    settings = container["envFrom"][0]["configMapRef"]["name"]
    assert settings == objects["ConfigMap"]["metadata"]["name"]
    route = objects["HTTPRoute"]
    assert spec["traffic"]["gateway"]["routeRef"]["name"] == route["metadata"]["name"]
    (backend,) = route["spec"]["rules"][0]["backendRefs"]
    assert backend["name"] == f"fraud{suffix}"
