"""The operator may die after any single write; the next one goes on to the same end."""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import pytest

from crossfade.evidence.verdicts import Verdict
from crossfade.webhooks.client import Answer
from crossfade.workload.record import read_record
from tests.unit.world import Killed, Posted, World, guarded, healthy_world, manifest


async def first_version() -> World:
    world = World()
    world.apply(manifest())
    return world


async def good_version() -> World:
    world = await healthy_world()
    world.apply(manifest("2.0.0"))
    return world


async def bad_version() -> World:
    world = await healthy_world()
    world.analyst.verdicts["2.0.0"] = Verdict.HARM
    world.apply(manifest("2.0.0"))
    return world


async def unready_version() -> World:
    world = await healthy_world()
    world.cluster.unready = {"2.0.0"}
    world.apply(manifest("2.0.0"))
    return world


async def aborted_version() -> World:
    world = await healthy_world()
    world.apply(manifest("2.0.0"))
    await world.run_until(lambda: world.weight == 50)
    world.order("abort")
    return world


async def fully_promoted_version() -> World:
    world = await healthy_world()
    world.apply(manifest("2.0.0"))
    await world.run_until(lambda: world.weight == 10)
    world.order("promoteFull")
    return world


async def bad_in_probation() -> World:
    world = await healthy_world()
    world.apply(manifest("2.0.0"))
    await world.run_until(lambda: world.phase == "Probation")
    world.analyst.verdicts["2.0.0"] = Verdict.HARM
    return world


async def superseded_version() -> World:
    world = await healthy_world()
    world.apply(manifest("2.0.0"))
    await world.run_until(lambda: world.weight == 10)
    world.apply(manifest("3.0.0"))
    return world


async def first_version_with_fallback() -> World:
    world = World()
    world.apply(guarded("1.0.0", "static"))
    return world


async def good_version_with_fallback() -> World:
    world = await first_version_with_fallback()
    await world.run_until(lambda: world.phase == "Healthy")
    world.sidecars.refuses = ('age breaks the rule "maximum"',)
    world.apply(guarded("2.0.0", "stable", "static", inputs={"schema": {"type": "object"}}))
    return world


async def version_without_a_way_out() -> World:
    world = await healthy_world()
    world.sidecars.failing = {"service": "answered 503"}
    world.apply(guarded("2.0.0", "stable", "service"))
    return world


async def way_out_that_is_mended() -> World:
    world = await version_without_a_way_out()
    await world.run_until(lambda: "FallbackDrillFailed" in world.reasons)
    world.sidecars.failing = {}
    return world


def has_promoted(world: World, version: str) -> bool:
    return (world.phase, world.stable) == ("Healthy", version)


async def three_versions() -> World:
    world = await healthy_world()
    for version in ("2.0.0", "3.0.0"):
        world.apply(manifest(version))
        await world.run_until(partial(has_promoted, world, version))
        await world.settle()
    return world


async def undone_version() -> World:
    world = await three_versions()
    world.order("undo")
    return world


async def undone_in_probation() -> World:
    world = await healthy_world()
    world.apply(manifest("2.0.0"))
    await world.run_until(lambda: world.phase == "Probation")
    world.order("undo")
    return world


async def retried_after_undo() -> World:
    world = await undone_version()
    await world.run_until(lambda: (world.phase, world.stable) == ("RolledBack", "2.0.0"))
    world.order("retry")
    return world


async def told_and_gated_version() -> World:
    """The receiver answers 503 at first; the gate says no until its no is written down."""
    world = await healthy_world()

    def answer(posted: Posted) -> Answer:
        if posted.address == "http://hook":
            known = [it for it in world.outside.posted if it.body["id"] == posted.body["id"]]
            return Answer(503 if len(known) == 1 else 200)
        refused = bool(world.status.get("gates"))
        return Answer(200, b'{"allowed": true}' if refused else b'{"allowed": false}')

    world.outside.answer = answer
    hook = {"name": "hook", "webhook": {"address": "http://hook"}}
    gate = {"name": "freeze", "webhook": {"address": "http://gate"}}
    body = manifest("2.0.0", notifications=[hook])
    body["spec"]["rollout"]["gates"] = [gate]
    world.apply(body)
    return world


async def told_of_a_bad_version() -> World:
    world = await told_and_gated_version()
    world.analyst.verdicts["2.0.0"] = Verdict.HARM
    return world


SCENARIOS: dict[str, tuple[Callable[[], Awaitable[World]], str, str]] = {
    "first version": (first_version, "Healthy", "1.0.0"),
    "good version": (good_version, "Healthy", "2.0.0"),
    "bad version": (bad_version, "RolledBack", "1.0.0"),
    "unready version": (unready_version, "RolledBack", "1.0.0"),
    "aborted version": (aborted_version, "RolledBack", "1.0.0"),
    "fully promoted version": (fully_promoted_version, "Healthy", "2.0.0"),
    "bad in probation": (bad_in_probation, "RolledBack", "1.0.0"),
    "superseded version": (superseded_version, "Healthy", "3.0.0"),
    "first version with fallback": (first_version_with_fallback, "Healthy", "1.0.0"),
    "good version with fallback": (good_version_with_fallback, "Healthy", "2.0.0"),
    "version without a way out": (version_without_a_way_out, "RolledBack", "1.0.0"),
    "way out that is mended": (way_out_that_is_mended, "Healthy", "2.0.0"),
    "told and gated version": (told_and_gated_version, "Healthy", "2.0.0"),
    "told of a bad version": (told_of_a_bad_version, "RolledBack", "1.0.0"),
    "undone version": (undone_version, "RolledBack", "2.0.0"),
    "undone in probation": (undone_in_probation, "RolledBack", "1.0.0"),
    "retried after undo": (retried_after_undo, "Healthy", "3.0.0"),
}


def end_of(world: World) -> dict[str, Any]:
    """Return what must be the same however often the operator died."""
    kinds = sorted(f"{r.kind} {r.name}" for r in world.cluster.objects)
    revisions = [
        (r.number, r.version, r.promoted_at is not None, r.reason)
        for r in map(read_record, world.revisions)
        if r is not None
    ]
    told = {it.body["data"]["reason"] for it in world.outside.posted if it.address == "http://hook"}
    rejected = [(r["version"], r["reason"]) for r in world.status.get("rejected", ())]
    return {
        "phase": world.phase,
        "stable": world.stable,
        "shares": world.shares,
        "objects": kinds,
        "rejected": rejected,
        "told": told,
        "still to be told": world.status.get("notices"),
        "gates": world.status.get("gates"),
        "revisions": revisions,
        "roles": {
            n: d["metadata"]["labels"]["crossfade.dev/role"] for n, d in world.deployments.items()
        },
    }


@pytest.mark.parametrize("scenario", SCENARIOS)
async def test_killed_after_any_write_it_goes_on_to_the_same_end(scenario: str) -> None:
    begin, phase, stable = SCENARIOS[scenario]

    def done(world: World) -> bool:
        return (world.phase, world.stable) == (phase, stable) and "canary" not in world.status

    async def undisturbed() -> tuple[dict[str, Any], int]:
        world = await begin()
        before = len(world.cluster.writes)
        await world.run_until(lambda: done(world))
        await world.run(30)
        return end_of(world), len(world.cluster.writes) - before

    wanted, writes = await undisturbed()
    assert writes > 0
    for nth in range(1, writes + 1):
        world = await begin()
        begun = len(world.trail)
        world.cluster.kill_after = len(world.cluster.writes) + nth
        try:
            await world.run_until(partial(done, world))
            await world.run(30)
        except Killed:
            world.start_operator()
            await world.run_until(partial(done, world))
            await world.run(30)
        assert end_of(world) == wanted, f"killed after write {nth}"
        assert_never_given_back(world, begun, nth)


def assert_never_given_back(world: World, begun: int, nth: int) -> None:
    """Once a version's weight went down, it does not go up again."""
    falling = False
    weights = [w for phase, w, _ in world.trail[begun:] if phase not in ("Healthy", "Probation")]
    if world.status.get("rejected"):
        for before, after in itertools.pairwise(weights):
            falling = falling or after < before
            assert not (falling and after > before), f"killed after write {nth}: {weights}"
