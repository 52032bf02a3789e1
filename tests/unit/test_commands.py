"""Orders by annotation: each in every phase, and a promotion that skips the rest of the ladder."""

from __future__ import annotations

from typing import Any

import pytest

from crossfade.api.parse import parse_spec, parse_status
from crossfade.api.v1alpha1 import Phase, Rollout
from crossfade.cli.revisions import read_revisions
from crossfade.core.commands import HELD_BY_PAUSE, PHASES, Order, why_not
from crossfade.core.gates import EVERY_STEP
from crossfade.evidence.verdicts import Verdict
from crossfade.workload.revision import revision_of
from tests.unit.world import REF, World, healthy_world, manifest

STEPS = [
    {"weightPercent": 10, "minSeconds": 5},
    {"weightPercent": 20, "minSeconds": 5, "pause": {}},
    {"weightPercent": 50, "minSeconds": 5},
]
RISKY = {"Preparing", "Progressing", "Paused", "Promoting", "Probation"}


async def world_in(phase: str) -> World:
    """Return a world in a phase, whose spec asks for 2.0.0 where there are two versions."""
    if phase == "Initializing":
        world = World()
        world.cluster.unready = {"1.0.0"}
        world.apply(manifest())
        await world.run(5)
        return world
    steps = STEPS if phase == "Paused" else STEPS[:1]
    spec: dict[str, Any] = {"rollout": {**manifest()["spec"]["rollout"], "steps": steps}}
    world = await healthy_world(**spec)
    if phase == "Healthy":
        return world
    if phase in ("RollingBack", "RolledBack"):
        world.analyst.verdicts["2.0.0"] = Verdict.HARM
    world.apply(manifest("2.0.0", **spec))
    await world.run_until(lambda: world.phase == phase)
    return world


def refusal(world: World, order: Order) -> str | None:
    """Ask the table about what the API server has."""
    body = world.cluster.objects[REF]
    spec = parse_spec(body)
    records = read_revisions(world.revisions)
    return why_not(order, spec, parse_status(body), revision_of(spec), records)


@pytest.mark.parametrize("order", list(Order))
@pytest.mark.parametrize("phase", list(Phase))
async def test_operator_ignores_exactly_the_orders_that_the_table_refuses(
    phase: Phase, order: Order
) -> None:
    world = await world_in(phase)
    why = refusal(world, order)
    world.order(order)
    await world.run(1)
    ignored = [note for reason, note in world.cluster.events if reason == "CommandIgnored"]
    assert ignored == ([f'the order "{order}": {why}'] if why else [])
    assert "crossfade.dev/command" not in world.cluster.objects[REF]["metadata"]["annotations"]


@pytest.mark.parametrize(
    ("order", "allowed"),
    [
        ("promote", {"Progressing", "Paused"}),
        ("promoteFull", {"Progressing", "Paused"}),
        ("abort", RISKY),
        ("retry", set(Phase)),
        ("undo", {"Healthy", "RolledBack", "Probation"}),
    ],
)
def test_where_each_order_has_something_to_act_on(order: str, allowed: set[str]) -> None:
    assert PHASES[Order(order)] == allowed


async def test_retry_is_refused_where_nothing_was_rejected_and_not_while_it_was() -> None:
    assert refusal(await world_in("Healthy"), Order.RETRY) is not None
    assert refusal(await world_in("RolledBack"), Order.RETRY) is None


async def test_unknown_order_is_told_the_known_ones() -> None:
    world = await healthy_world()
    world.order("promotefull")
    await world.run(1)
    (said,) = [note for reason, note in world.cluster.events if reason == "CommandIgnored"]
    assert said.endswith("it is none of promote, promoteFull, abort, retry, undo and undo=NUMBER")


async def climbing(**verdicts: Verdict) -> World:
    """Return a world whose canary stands on the first of three steps."""
    spec: dict[str, Any] = {"rollout": {**manifest()["spec"]["rollout"], "steps": STEPS}}
    world = await healthy_world(**spec)
    world.analyst.verdicts.update(verdicts)
    world.apply(manifest("2.0.0", **spec))
    await world.run_until(lambda: world.status.get("weight") == 10)
    return world


async def test_full_promotion_skips_the_remaining_steps() -> None:
    world = await climbing()
    begun = len(world.trail)
    world.order("promoteFull")
    await world.run_until(lambda: world.stable == "2.0.0", 60)
    weights = {weight for phase, weight, _ in world.trail[begun:] if phase != "Probation"}
    assert weights <= {10, 100}
    assert world.reasons.count("StepPassed") == 1
    assert world.shares == {"2.0.0": 100}


async def test_full_promotion_needs_no_evidence() -> None:
    world = await climbing()
    world.analyst.verdicts["2.0.0"] = Verdict.NOT_ENOUGH_DATA
    await world.run(60)
    assert world.weight == 10
    world.order("promoteFull")
    await world.run_until(lambda: world.stable == "2.0.0", 60)


async def test_full_promotion_waits_for_the_pods_of_the_whole_traffic() -> None:
    world = await climbing()
    world.cluster.ready_at_most = 1
    world.order("promoteFull")
    await world.run(60)
    assert (world.phase, world.weight) == ("Progressing", 10)
    assert world.status["message"] == "1 of 2 canary pods for the next weight are ready"
    world.order("promote")
    await world.run(1)
    assert world.status["rollout"]["promotedStep"] == EVERY_STEP, "the lesser order takes nothing"
    world.cluster.ready_at_most = 100
    world.cluster.revive("2.0.0")
    await world.run_until(lambda: world.stable == "2.0.0", 60)


async def test_full_promotion_does_not_overrule_harm() -> None:
    world = await climbing()
    world.cluster.ready_at_most = 1
    world.order("promoteFull")
    await world.run(2)
    world.analyst.verdicts["2.0.0"] = Verdict.HARM
    await world.run_until(lambda: world.phase == "RolledBack", 120)
    assert world.status["rejected"][0]["reason"] == "MetricHarm"


async def test_full_promotion_is_forgotten_when_the_canary_loses_its_pods() -> None:
    world = await climbing()
    world.cluster.ready_at_most = 1
    world.order("promoteFull")
    await world.run(2)
    world.cluster.unready = {"2.0.0"}
    world.cluster.revive("2.0.0")
    await world.run(2)
    assert (world.phase, world.weight) == ("Preparing", 0)
    world.cluster.unready, world.cluster.ready_at_most = set(), 100
    world.cluster.revive("2.0.0")
    await world.run(3)
    assert (world.phase, world.weight) == ("Progressing", 10)
    assert "promotedStep" not in world.status["rollout"]


def test_every_step_is_no_index_of_the_longest_ladder() -> None:
    ladder = Rollout.model_json_schema()["properties"]["steps"]["anyOf"][0]
    assert ladder["maxItems"] <= EVERY_STEP


@pytest.mark.parametrize("phase", sorted(HELD_BY_PAUSE))
async def test_pause_holds_in_the_phases_of_the_table(phase: str) -> None:
    world = await world_in(phase)
    body = world.cluster.objects[REF]
    world.apply(manifest("2.0.0", rollout={**body["spec"]["rollout"], "paused": True}))
    await world.run(1)
    before = world.weight
    await world.run(600)
    assert (world.weight, world.stable) == (before, "1.0.0")


@pytest.mark.parametrize("phase", ["Promoting"])
async def test_pause_does_not_hold_in_other_phases_with_a_rollout(phase: str) -> None:
    world = await world_in(phase)
    body = world.cluster.objects[REF]
    world.apply(manifest("2.0.0", rollout={**body["spec"]["rollout"], "paused": True}))
    await world.run_until(lambda: world.stable == "2.0.0", 60)
