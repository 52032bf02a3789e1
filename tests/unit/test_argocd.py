"""Argo CD's health and actions of a ModelDeployment, by Argo CD's own Lua and test format."""

from __future__ import annotations

from typing import Any

import pytest

from crossfade.api.v1alpha1 import Phase
from crossfade.core.actions import Manifest
from examples.argocd.__main__ import CONFIG_MAP, render
from tests.unit.argocd import act, discover, health, read
from tests.unit.argocd_statuses import (
    CUSTOMIZATION,
    SCENARIOS,
    TESTDATA,
    live,
    progressing,
    texts,
)
from tests.unit.world import REF, World

pytestmark = pytest.mark.timeout(900)  # the first run builds the program that runs Lua

HEALTH_TESTS = read(CUSTOMIZATION, "health_test.yaml")["tests"]
ACTION_TEST = read(CUSTOMIZATION, "actions/action_test.yaml")
ORDERS = ("promote", "promote-full", "abort", "retry", "undo")


def everything() -> dict[str, Manifest]:
    """Return all ModelDeployments of the test data, by the scenario's name."""
    return {name: read(TESTDATA, f"{name}.yaml") for name in SCENARIOS}


async def test_the_test_data_are_what_the_operator_writes_today() -> None:
    expected = await texts()
    folders = {file.parent for file in expected}
    stored = {file: file.read_text() for folder in folders for file in folder.iterdir()}
    assert stored == expected, "run python -m tests.unit.argocd_statuses and look at the changes"


def test_health_is_as_its_test_file_says() -> None:
    objects = [read(CUSTOMIZATION, test["inputPath"]) for test in HEALTH_TESTS]
    found = {t["inputPath"]: h for t, h in zip(HEALTH_TESTS, health(objects), strict=True)}
    assert found == {test["inputPath"]: test["healthStatus"] for test in HEALTH_TESTS}


def test_every_scenario_has_its_health_tested() -> None:
    tested = {test["inputPath"] for test in HEALTH_TESTS}
    assert tested == {f"testdata/{name}.yaml" for name in SCENARIOS}


def test_the_scenarios_have_every_phase_and_every_condition_that_health_reads() -> None:
    statuses = [body["status"] for body in everything().values() if "status" in body]
    assert {status["phase"] for status in statuses} == {phase.value for phase in Phase}
    reasons = {c["reason"] for status in statuses for c in status["conditions"]}
    assert reasons >= {
        "Initializing",
        "StableNotReady",
        "InvalidSpec",
        "WriteFailed",
        "DeadlineExceeded",
        "RouteProblem",
        "InputsNarrowed",
    }


def test_actions_are_offered_as_the_test_file_says() -> None:
    tests = ACTION_TEST["discoveryTests"]
    objects = [read(CUSTOMIZATION / "actions", test["inputPath"]) for test in tests]
    for test, offered in zip(tests, discover(objects), strict=True):
        expected = {it.pop("name"): it for it in test["result"]}
        assert offered == expected, test["inputPath"]


def test_actions_change_what_the_test_file_says() -> None:
    folder = CUSTOMIZATION / "actions"
    for test in ACTION_TEST["actionTests"]:
        (returned,) = act(test["action"], [read(folder, test["inputPath"])])
        assert returned == read(folder, test["expectedOutputPath"]), test["action"]


def test_each_offered_action_has_a_script_and_a_test() -> None:
    (offered,) = discover([read(TESTDATA, "healthy.yaml")])
    scripts = {file.parent.name for file in (CUSTOMIZATION / "actions").glob("*/action.lua")}
    assert scripts == set(offered) == {test["action"] for test in ACTION_TEST["actionTests"]}


def take(world: World, returned: Manifest) -> None:
    """Patch what Argo CD's action returned."""

    def change(body: Manifest) -> None:
        body["spec"] = returned["spec"]
        body["metadata"]["annotations"] = returned["metadata"].get("annotations", {})

    world.cluster.edit(REF, change)


@pytest.mark.parametrize("action", ORDERS)
async def test_the_operator_carries_out_what_is_offered_and_nothing_else(action: str) -> None:
    objects = everything()
    offered = discover(objects.values())
    returned = act(action, list(objects.values()))
    carried_out: dict[str, bool] = {}
    alone: set[str] = set()
    for name, changed in zip(objects, returned, strict=True):
        world = await SCENARIOS[name]()
        take(world, changed)
        await world.run(1)
        annotations = world.cluster.objects[REF]["metadata"]["annotations"]
        left = "crossfade.dev/command" in annotations
        carried_out[name] = not left and "CommandIgnored" not in world.reasons
        if any("there is no earlier version" in note for _, note in world.cluster.events):
            alone.add(name)
    expected = {n: not o[action]["disabled"] for n, o in zip(objects, offered, strict=True)}
    if action == "retry":
        # Possible before the version is gone, but then nobody sees yet what it was rejected for.
        expected["rolling_back"] = True
    if action == "undo":
        # An object does not say which versions there were before.
        assert alone >= {"healthy", "rolled_back"}
        expected |= dict.fromkeys(alone, False)
    assert carried_out == expected


async def test_pause_holds_a_rollout_and_resume_lets_it_go_on() -> None:
    world = await progressing()
    (paused,) = act("pause", [live(world)])
    take(world, paused)
    world.analyst.verdicts.clear()
    await world.run(600)
    assert (world.phase, world.weight) == ("Paused", 10)
    (resumed,) = act("resume", [live(world)])
    take(world, resumed)
    await world.run_until(lambda: world.stable == "2.0.0", 120)


async def test_a_sync_of_a_rejected_version_changes_neither_the_rollout_nor_its_health() -> None:
    world = await SCENARIOS["rolled_back"]()
    asked_for: dict[str, Any] = {
        key: world.cluster.objects[REF][key] for key in ("apiVersion", "kind", "spec")
    }
    asked_for["metadata"] = {"name": REF.name, "namespace": REF.namespace}
    (before,) = health([live(world)])
    writes = len(world.cluster.writes)
    for _ in range(20):
        world.apply(asked_for)
        await world.run(30)
    assert len(world.cluster.writes) == writes
    assert health([live(world)]) == [before]
    assert before["status"] == "Degraded"


def test_the_config_map_has_the_same_scripts() -> None:
    assert CONFIG_MAP.read_text() == render(), "run python -m examples.argocd"
