"""Undo: an earlier version is rolled out while the spec goes on asking for the present one."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from crossfade.api.parse import parse_spec
from crossfade.api.v1alpha1 import ModelDeploymentStatus, RejectedRevision, RevisionStatus
from crossfade.core.actions import Manifest
from crossfade.core.commands import Order, read_order
from crossfade.core.observation import Observation, RouteState
from crossfade.core.rollback import REMEMBERED_REJECTIONS, reject_version
from crossfade.core.turn import Turn
from crossfade.evidence.verdicts import Verdict
from crossfade.kube.resources import ref_of
from tests.unit.test_history import promoted, told, world_of
from tests.unit.world import REF, START, World, guarded, manifest


async def after(world: World, phase: str, stable: str) -> None:
    await world.run_until(lambda: (world.phase, world.stable) == (phase, stable), 600)
    await world.settle()


def rejections(world: World) -> list[tuple[str, str]]:
    return [(it["version"], it["reason"]) for it in world.status.get("rejected", ())]


def ignored(world: World) -> list[str]:
    return [note for reason, note in world.cluster.events if reason == "CommandIgnored"]


async def undone_world() -> World:
    """Return a world of three versions, of which the third was undone."""
    world = await world_of("1.0.0", "2.0.0", "3.0.0")
    world.order("undo")
    await after(world, "RolledBack", "2.0.0")
    return world


async def test_undo_rolls_the_version_before_out_and_leaves_the_spec_alone() -> None:
    world = await world_of("1.0.0", "2.0.0", "3.0.0")
    asked = copy.deepcopy(world.cluster.objects[REF]["spec"])
    begun = len(world.trail)
    world.order("undo")
    await after(world, "RolledBack", "2.0.0")
    assert world.cluster.objects[REF]["spec"] == asked
    phases = [phase for phase, _, _ in world.trail[begun:]]
    assert [p for p in phases if p != "Progressing"][:2] == ["Preparing", "Promoting"]
    assert {weight for _, weight, _ in world.trail[begun:]} >= {10, 50}, "a rollout like any other"
    assert (world.versions, world.shares) == ({"2.0.0"}, {"2.0.0": 100})
    assert rejections(world) == [("3.0.0", "Undone")]
    assert world.status["message"].startswith(
        "version 3.0.0 was taken back (Undone): a person ordered undo: version 2.0.0 is rolled out "
        "instead"
    )
    assert told(world) == [
        (1, "1.0.0", True, "Replaced"),
        (3, "3.0.0", True, "Undone"),
        (4, "2.0.0", True, ""),
    ]


async def test_the_deployment_of_an_undo_is_that_of_the_version_then() -> None:
    world = await world_of("1.0.0", "2.0.0")
    world.order("undo")
    await after(world, "RolledBack", "1.0.0")
    (deployment,) = world.deployments.values()
    template = deployment["spec"]["template"]
    assert template["spec"]["containers"][0]["image"] == "fraud:1.0.0"
    assert template["metadata"]["annotations"]["crossfade.dev/model-version"] == "1.0.0"


async def test_a_sync_and_a_restart_change_nothing_while_an_undo_is_in_force() -> None:
    world = await undone_world()
    writes = len(world.cluster.writes)
    for _ in range(5):
        world.apply(manifest("3.0.0"))
        await world.run(60)
        world.start_operator()
        await world.run(60)
    assert len(world.cluster.writes) == writes
    assert (world.phase, world.stable) == ("RolledBack", "2.0.0")


async def test_what_is_not_part_of_a_version_still_comes_from_the_spec() -> None:
    world = await undone_world()
    world.apply(manifest("3.0.0", replicas=5))
    await world.settle()
    (deployment,) = world.deployments.values()
    assert deployment["spec"]["replicas"] == 5
    assert (world.phase, world.stable) == ("RolledBack", "2.0.0")


async def test_the_deployment_of_what_serves_by_an_undo_is_made_again_when_it_is_lost() -> None:
    world = await undone_world()
    (deployment,) = world.deployments.values()
    world.cluster.delete(ref_of(deployment))
    await world.settle()
    assert world.versions == {"2.0.0"}


async def test_undo_with_a_number_goes_back_to_that_revision() -> None:
    world = await world_of("1.0.0", "2.0.0", "3.0.0")
    world.order("undo=1")
    await after(world, "RolledBack", "1.0.0")
    assert rejections(world) == [("3.0.0", "Undone")]


async def test_another_undo_goes_further_back() -> None:
    world = await undone_world()
    world.order("undo")
    await after(world, "RolledBack", "1.0.0")
    assert rejections(world) == [("3.0.0", "Undone")]
    assert world.status["rejected"][0]["message"].startswith("a person ordered undo: version 1.0.0")


async def test_retry_ends_an_undo() -> None:
    world = await undone_world()
    world.order("retry")
    await after(world, "Healthy", "3.0.0")
    assert rejections(world) == []


async def test_a_change_of_the_spec_ends_an_undo() -> None:
    world = await undone_world()
    await promoted(world, "4.0.0")
    assert told(world)[-1] == (5, "4.0.0", True, "")
    world.order("undo")
    await after(world, "RolledBack", "2.0.0")


async def test_the_spec_may_agree_with_an_undo_afterwards() -> None:
    world = await undone_world()
    world.apply(manifest("2.0.0"))
    await after(world, "Healthy", "2.0.0")
    assert world.status.get("message", "") == ""


async def test_undo_of_a_version_that_was_rejected_goes_back_one_further() -> None:
    world = await world_of("1.0.0", "2.0.0")
    world.analyst.verdicts["3.0.0"] = Verdict.HARM
    world.apply(manifest("3.0.0"))
    await after(world, "RolledBack", "2.0.0")
    world.order("undo")
    await after(world, "RolledBack", "1.0.0")
    assert rejections(world) == [("3.0.0", "Undone")]
    assert world.reasons.count("Undone") == 1


async def test_a_version_that_was_taken_back_is_not_gone_back_to_but_by_its_number() -> None:
    world = await world_of("1.0.0")
    world.apply(manifest("2.0.0"))
    await world.run_until(lambda: world.phase == "Probation")
    world.analyst.verdicts["2.0.0"] = Verdict.HARM
    await after(world, "RolledBack", "1.0.0")
    world.analyst.verdicts.clear()
    await promoted(world, "3.0.0")
    assert told(world)[0] == (2, "2.0.0", True, "MetricHarm")
    world.order("undo")
    await after(world, "RolledBack", "1.0.0")
    world.order("undo=2")
    await after(world, "RolledBack", "2.0.0")
    assert rejections(world) == [("3.0.0", "Undone")], "it was asked for by its number"


async def test_harm_takes_the_version_of_an_undo_back_and_retry_tries_it_again() -> None:
    world = await world_of("1.0.0", "2.0.0")
    world.analyst.verdicts["1.0.0"] = Verdict.HARM
    world.order("undo")
    await world.run_until(lambda: world.phase == "RollingBack")
    await after(world, "RolledBack", "2.0.0")
    assert rejections(world) == [("1.0.0", "MetricHarm"), ("2.0.0", "Undone")]
    assert world.status["message"].startswith("version 1.0.0 was taken back (MetricHarm)")
    world.analyst.verdicts.clear()
    world.order("retry")
    await after(world, "RolledBack", "1.0.0")
    assert rejections(world) == [("2.0.0", "Undone")]


async def test_retry_in_the_middle_of_an_undo_ends_it() -> None:
    world = await world_of("1.0.0", "2.0.0")
    world.order("undo")
    await world.run_until(lambda: world.weight == 10)
    world.order("retry")
    await after(world, "Healthy", "2.0.0")
    assert rejections(world) == []


# ── probation ─────────────────────────────────────────────────────────────────────────────────


async def world_in_probation(*before: str, version: str) -> World:
    world = await world_of(*before)
    world.apply(manifest(version))
    await world.run_until(lambda: world.phase == "Probation")
    await world.settle()
    return world


@pytest.mark.parametrize("order", ["undo", "undo=2"])
async def test_undo_in_probation_is_the_instant_return(order: str) -> None:
    world = await world_in_probation("1.0.0", "2.0.0", version="3.0.0")
    world.order(order)
    await world.run(1)
    assert world.shares == {"2.0.0": 100}
    await after(world, "RolledBack", "2.0.0")
    assert rejections(world) == [("3.0.0", "Undone")]
    world.order("retry")
    await after(world, "Healthy", "3.0.0")


async def test_undo_in_probation_waits_for_nothing_but_ready_pods() -> None:
    world = await world_in_probation("1.0.0", version="2.0.0")
    world.cluster.unready = {"1.0.0"}
    world.cluster.revive("1.0.0")
    world.order("undo")
    await world.run(1)
    assert (world.phase, world.stable) == ("Probation", "2.0.0")
    assert rejections(world) == []


async def test_undo_in_probation_to_an_older_one_ends_the_probation() -> None:
    world = await world_in_probation("1.0.0", "2.0.0", version="3.0.0")
    world.order("undo=1")
    await after(world, "RolledBack", "1.0.0")
    assert rejections(world) == [("3.0.0", "Undone")]


async def test_undo_in_the_probation_of_an_undo_ends_it() -> None:
    world = await world_of("1.0.0", "2.0.0")
    world.order("undo")
    await world.run_until(lambda: world.phase == "Probation")
    world.order("undo")
    await after(world, "Healthy", "2.0.0")
    assert rejections(world) == [("1.0.0", "Undone")]


async def test_undo_in_the_probation_of_a_version_that_is_superseded_already() -> None:
    world = await world_in_probation("1.0.0", version="2.0.0")
    world.analyst.still_arriving = True
    world.apply(manifest("3.0.0"))
    await world.run(2)
    assert world.phase == "Probation"
    world.order("undo")
    await world.run(1)
    world.analyst.still_arriving = False
    await after(world, "RolledBack", "1.0.0")
    assert rejections(world) == [("3.0.0", "Undone"), ("2.0.0", "Undone")]


# ── refusals ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("order", "why"),
    [
        ("undo=7", "there is no revision 7; kept are 1 (version 1.0.0), 2 (version 2.0.0)"),
        ("undo=2", "revision 2 (version 2.0.0) serves already"),
        ("undo=0", "it is none of promote, "),
        ("undo=", "it is none of promote, "),
        ("undo=-1", "it is none of promote, "),
        ("undo=latest", "it is none of promote, "),
        ("abort=1", "it is none of promote, "),
    ],
)
async def test_what_cannot_be_gone_back_to_is_refused(order: str, why: str) -> None:
    world = await world_of("1.0.0", "2.0.0")
    world.order(order)
    await world.run(5)
    (said,) = ignored(world)
    assert said.startswith(f'the order "{order}": {why}')
    assert (world.phase, world.stable, rejections(world)) == ("Healthy", "2.0.0", [])


async def test_without_an_earlier_version_there_is_nothing_to_go_back_to() -> None:
    world = await world_of("1.0.0")
    world.order("undo")
    await world.run(5)
    assert ignored(world) == [
        (
            'the order "undo": there is no earlier version that was stable; kept are 1 '
            "(version 1.0.0)"
        )
    ]


async def test_what_the_spec_asks_for_is_the_business_of_retry() -> None:
    world = await undone_world()
    world.order("undo=3")
    await world.run(5)
    (said,) = ignored(world)
    assert "revision 3 (version 3.0.0) is what the spec asks for: the order retry" in said


async def test_a_rollout_is_not_undone_but_aborted() -> None:
    world = await world_of("1.0.0")
    world.apply(manifest("2.0.0"))
    await world.run_until(lambda: world.weight == 10)
    world.order("undo")
    await world.run(1)
    (said,) = ignored(world)
    assert said.endswith("in phase Progressing; to take the new version back, order abort")


def test_orders_are_read_with_their_number() -> None:
    assert read_order("undo") == (Order.UNDO, None)
    assert read_order("undo=12") == (Order.UNDO, 12)
    assert read_order("promote") == (Order.PROMOTE, None)
    assert read_order("undo=1 ") is None
    assert read_order("undo=9999999999") is None


# ── what is lost ──────────────────────────────────────────────────────────────────────────────


def lose(world: World, version: str) -> None:
    (ref,) = (ref_of(it) for it in world.revisions if it["data"]["model"]["version"] == version)
    world.cluster.delete(ref)


def garble(world: World, version: str) -> None:
    (ref,) = (ref_of(it) for it in world.revisions if it["data"]["model"]["version"] == version)

    def change(body: Manifest) -> None:
        body["data"] = {**body["data"], "serving": {"protocol": "other"}}

    world.cluster.edit(ref, change)


@pytest.mark.parametrize("break_", [lose, garble])
async def test_stable_serves_on_when_the_version_of_an_undo_is_lost(
    break_: Callable[[World, str], None],
) -> None:
    world = await world_of("1.0.0", "2.0.0")
    world.order("undo")
    await world.run_until(lambda: world.weight == 10)
    break_(world, "1.0.0")
    await after(world, "RolledBack", "2.0.0")
    assert world.shares == {"2.0.0": 100}
    said = world.status["message"]
    assert "which was ordered instead of version 2.0.0, cannot be rolled out: " in said
    assert "what is stable keeps serving" in said
    await world.run(600)
    assert (world.phase, world.stable) == ("RolledBack", "2.0.0")
    world.order("retry")
    await after(world, "Healthy", "2.0.0")


async def test_what_was_promoted_by_an_undo_stays_when_its_record_is_lost() -> None:
    world = await world_of("1.0.0", "2.0.0")
    world.order("undo")
    await world.run_until(lambda: world.phase == "Probation")
    lose(world, "1.0.0")
    await world.run(5)
    assert (world.phase, world.shares) == ("Probation", {"1.0.0": 100})
    await after(world, "RolledBack", "1.0.0")
    assert world.versions == {"1.0.0"}
    assert "its ControllerRevision fraud-" in world.status["message"]


# ── the sidecar ───────────────────────────────────────────────────────────────────────────────


async def test_an_undo_brings_the_sidecar_of_the_version_with_it() -> None:
    world = await world_of("1.0.0")
    world.apply(guarded("2.0.0", "static"))
    await after(world, "Healthy", "2.0.0")
    await promoted(world, "3.0.0")
    world.order("undo")
    await after(world, "RolledBack", "2.0.0")
    (deployment,) = world.deployments.values()
    assert "crossfade.dev/sidecar" in deployment["spec"]["template"]["metadata"]["annotations"]
    assert world.sidecars.drilled, "its fallback was tried before it had traffic"


async def test_a_version_that_does_not_fit_the_present_analysis_is_said_to_be_so() -> None:
    """The drift is of a prediction that only the newer version declares."""
    world = await world_of("1.0.0")
    predictions = [{"name": "score", "type": "number", "jsonPath": "$.score", "buckets": [0.5]}]
    drift: dict[str, Any] = copy.deepcopy(manifest()["spec"]["analysis"])
    drift["metrics"].append({"name": "scores", "drift": {"prediction": "score"}})
    world.apply(manifest("2.0.0", predictions=predictions, analysis=drift))
    await after(world, "Healthy", "2.0.0")
    world.order("undo")
    await after(world, "RolledBack", "2.0.0")
    assert 'a drift of "score" needs a name in spec.predictions' in world.status["message"]


# ── what is remembered ────────────────────────────────────────────────────────────────────────


def test_the_rejection_of_what_the_spec_asks_for_is_never_forgotten() -> None:
    def entry(n: int) -> RejectedRevision:
        at = START + timedelta(seconds=n)
        return RejectedRevision(
            revision=f"r{n}", version=str(n), reason="Aborted", message="so", at=at
        )

    spec = parse_spec(manifest())
    seen = Observation(
        name="fraud",
        namespace="ml",
        generation=1,
        spec=spec,
        status=ModelDeploymentStatus(rejected=[entry(0)]),
        revision="r0",
        workloads={},
        route=RouteState(found=True),
        address=None,
        asked=RevisionStatus(revision="r0", version="0"),
    )
    turn = Turn(seen, spec, START)
    for n in range(1, 30):
        reject_version(turn, entry(n))
    kept = [it.revision for it in turn.status.rejected]
    assert kept == [f"r{n}" for n in range(29, 29 - REMEMBERED_REJECTIONS, -1)] + ["r0"]


async def test_an_undo_is_in_the_status_as_the_schema_has_it() -> None:
    world = await undone_world()
    (rejected,) = world.status["rejected"]
    revisions = {it["data"]["model"]["version"]: it["metadata"]["labels"] for it in world.revisions}
    assert rejected["instead"] == revisions["2.0.0"]["crossfade.dev/revision"]
    assert rejected["revision"] == revisions["3.0.0"]["crossfade.dev/revision"]
    json.dumps(world.status)
