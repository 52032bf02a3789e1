"""What a rollout does, from apply to promotion or rollback, in the simulated world."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from crossfade.core.news import lasting
from crossfade.evidence.verdicts import Forecast, Verdict
from tests.unit.world import KEY, REF, World, healthy_world, manifest


def rollout(**changes: Any) -> dict[str, Any]:
    """Return the world's rollout with changes."""
    return {**manifest()["spec"]["rollout"], **changes}


Forecasting = Callable[[int], tuple[Forecast, ...]]


def nothing_forecast(_look: int) -> tuple[Forecast, ...]:
    return ()


def restless_forecast(look: int) -> tuple[Forecast, ...]:
    """Other numbers with every look, as traffic has it."""
    return (Forecast(10, 2000 + look, 2000 - look), Forecast(50, 4000 + look, 800 - look))


def slow_forecast(_look: int) -> tuple[Forecast, ...]:
    """Even where it is shortest, a doubling is seen after 26 hours."""
    return (Forecast(10, 2100, 5 * 86_400), Forecast(50, 4100, 26 * 3600))


async def test_first_version_serves_once_its_pods_are_ready() -> None:
    world = World()
    world.cluster.unready = {"1.0.0"}
    world.apply(manifest())
    await world.run(30)
    assert world.phase == "Initializing"
    assert world.route is None

    world.cluster.unready = set()
    world.cluster.revive("1.0.0")
    await world.run(1)
    assert (world.phase, world.stable, world.shares) == ("Healthy", "1.0.0", {"1.0.0": 100})


async def test_good_version_climbs_the_ladder_and_is_promoted() -> None:
    world = await healthy_world()
    world.apply(manifest("2.0.0"))
    await world.run_until(lambda: world.phase == "Probation")
    await world.settle()

    weights = [weight for phase, weight, _ in world.trail if phase == "Progressing"]
    assert sorted(set(weights)) == [0, 10, 50]
    assert world.shares == {"2.0.0": 100}
    assert world.versions == {"1.0.0", "2.0.0"}

    await world.run_until(lambda: world.phase == "Healthy")
    await world.settle()
    assert world.stable == "2.0.0"
    assert world.versions == {"2.0.0"}
    assert world.reasons.count("Promoted") == 1
    assert "WeightRestored" not in world.reasons


async def test_promotion_restarts_no_pod() -> None:
    world = await healthy_world()
    world.apply(manifest("2.0.0"))
    await world.run_until(lambda: world.phase == "Progressing")
    canary = next(d for n, d in world.deployments.items() if "2.0.0" in str(d["spec"]))
    template, uid = canary["spec"]["template"], canary["metadata"]["uid"]
    await world.run_until(lambda: world.phase == "Healthy")
    await world.settle()
    (stable,) = world.deployments.values()
    assert stable["metadata"]["uid"] == uid
    assert stable["spec"]["template"] == template
    assert stable["metadata"]["labels"]["crossfade.dev/role"] == "stable"


async def test_harm_takes_the_version_back_and_remembers_it() -> None:
    world = await healthy_world()
    world.analyst.verdicts["2.0.0"] = Verdict.HARM
    world.apply(manifest("2.0.0"))
    await world.run_until(lambda: world.phase == "RollingBack")
    assert world.shares == {"1.0.0": 100}

    await world.run_until(lambda: world.phase == "RolledBack")
    await world.settle()
    assert world.versions == {"1.0.0"}
    assert world.status["rejected"][0]["reason"] == "MetricHarm"

    before = len(world.cluster.writes)
    await world.run(3600)
    assert world.phase == "RolledBack"
    assert len(world.cluster.writes) == before


async def test_rejected_version_is_not_rolled_out_again_by_a_restart_or_a_resync() -> None:
    world = await healthy_world()
    world.analyst.verdicts["2.0.0"] = Verdict.HARM
    world.apply(manifest("2.0.0"))
    await world.run_until(lambda: world.phase == "RolledBack")
    world.start_operator()
    world.apply(manifest("2.0.0"))
    await world.run(600)
    assert world.phase == "RolledBack"
    assert world.versions == {"1.0.0"}


async def test_retry_rolls_a_rejected_version_out_again() -> None:
    world = await healthy_world()
    world.analyst.verdicts["2.0.0"] = Verdict.HARM
    world.apply(manifest("2.0.0"))
    await world.run_until(lambda: world.phase == "RolledBack")
    world.analyst.verdicts.clear()
    world.order("retry")
    await world.run_until(lambda: world.stable == "2.0.0")
    assert "crossfade.dev/command" not in world.cluster.objects[REF]["metadata"]["annotations"]


@pytest.mark.parametrize("phase", ["Preparing", "Progressing", "Promoting", "Probation"])
async def test_abort_works_in_every_phase_with_two_versions(phase: str) -> None:
    world = await healthy_world()
    world.apply(manifest("2.0.0"))
    await world.run_until(lambda: world.phase == phase)
    world.order("abort")
    await world.run_until(lambda: world.phase == "RolledBack")
    await world.settle()
    assert world.shares == {"1.0.0": 100}
    assert world.stable == "1.0.0"
    assert world.versions == {"1.0.0"}


async def test_harm_during_probation_returns_to_the_previous_version_at_once() -> None:
    world = await healthy_world()
    world.apply(manifest("2.0.0"))
    await world.run_until(lambda: world.phase == "Probation")
    world.analyst.verdicts["2.0.0"] = Verdict.HARM
    await world.run_until(lambda: world.phase == "RollingBack")
    assert world.shares == {"1.0.0": 100}
    await world.run_until(lambda: world.phase == "RolledBack")
    await world.settle()
    assert world.versions == {"1.0.0"}
    (stable,) = world.deployments.values()
    assert stable["metadata"]["labels"]["crossfade.dev/role"] == "stable"


async def test_no_data_holds_the_weight() -> None:
    world = await healthy_world()
    world.analyst.verdicts["2.0.0"] = Verdict.NOT_ENOUGH_DATA
    world.apply(manifest("2.0.0"))
    await world.run(7200)
    assert world.phase == "Progressing"
    assert world.shares == {"1.0.0": 90, "2.0.0": 10}
    assert world.status["verdict"].startswith("Hold: errors: ")


async def test_unreachable_prometheus_holds_the_weight_says_so_once_and_goes_on_afterwards() -> (
    None
):
    world = await healthy_world()
    world.apply(manifest("2.0.0"))
    await world.run_until(lambda: world.weight == 10)
    world.analyst.unavailable = True
    await world.run(600)
    assert world.weight == 10
    assert world.reasons.count("MetricsUnavailable") == 1
    world.analyst.unavailable = False
    await world.run_until(lambda: world.stable == "2.0.0", 60)


async def test_no_weight_is_given_while_prometheus_is_unreachable() -> None:
    world = await healthy_world()
    world.analyst.unavailable = True
    world.apply(manifest("2.0.0"))
    await world.run(600)
    assert world.shares == {"1.0.0": 100}


async def test_canary_that_never_gets_ready_is_rolled_back_also_without_prometheus() -> None:
    world = await healthy_world()
    world.analyst.unavailable = True
    world.cluster.unready = {"2.0.0"}
    world.apply(manifest("2.0.0"))
    await world.run_until(lambda: world.phase == "RolledBack", 200)
    assert world.status["rejected"][0]["reason"] == "NotReady"


async def test_canary_that_loses_its_pods_loses_its_weight_at_once() -> None:
    world = await healthy_world()
    world.apply(manifest("2.0.0"))
    await world.run_until(lambda: world.weight == 10)
    world.cluster.unready = {"2.0.0"}
    world.cluster.revive("2.0.0")
    await world.settle()
    assert world.shares == {"1.0.0": 100}
    assert world.phase == "Preparing"
    world.cluster.unready = set()
    world.cluster.revive("2.0.0")
    await world.run_until(lambda: world.stable == "2.0.0")


async def test_canary_that_keeps_losing_its_pods_is_rolled_back() -> None:
    world = await healthy_world()
    world.apply(manifest("2.0.0"))
    for _ in range(3):
        await world.run_until(lambda: world.weight == 10)
        world.cluster.unready = {"2.0.0"}
        world.cluster.revive("2.0.0")
        await world.settle()
        world.cluster.unready = set()
        if world.phase == "Preparing":
            world.cluster.revive("2.0.0")
    await world.run_until(lambda: world.phase == "RolledBack")
    assert world.status["rejected"][0]["reason"] == "Unstable"


async def test_newer_version_during_a_rollout_replaces_the_canary_and_stable_stays() -> None:
    world = await healthy_world()
    world.apply(manifest("2.0.0"))
    await world.run_until(lambda: world.weight == 10)
    world.apply(manifest("3.0.0"))
    await world.settle()
    assert world.shares == {"1.0.0": 100}
    await world.run_until(lambda: world.stable == "3.0.0")
    assert not world.status.get("rejected")
    assert "2.0.0" not in {stable for _, _, stable in world.trail}


async def test_going_back_to_the_stable_version_ends_the_rollout() -> None:
    world = await healthy_world()
    world.apply(manifest("2.0.0"))
    await world.run_until(lambda: world.weight == 10)
    world.apply(manifest("1.0.0"))
    await world.run_until(lambda: world.phase == "Healthy")
    await world.settle()
    assert world.shares == {"1.0.0": 100}
    assert world.versions == {"1.0.0"}
    assert not world.status.get("rejected")


async def test_going_back_during_probation_is_instant() -> None:
    world = await healthy_world()
    world.apply(manifest("2.0.0"))
    await world.run_until(lambda: world.phase == "Probation")
    world.apply(manifest("1.0.0"))
    await world.settle()
    assert world.shares == {"1.0.0": 100}
    await world.run_until(lambda: world.phase == "Healthy")
    assert world.stable == "1.0.0"


async def test_newer_version_during_probation_is_rolled_out() -> None:
    world = await healthy_world()
    world.apply(manifest("2.0.0"))
    await world.run_until(lambda: world.phase == "Probation")
    world.apply(manifest("3.0.0"))
    await world.run_until(lambda: world.stable == "3.0.0")


async def test_edited_ladder_keeps_the_weight_and_goes_on_from_there() -> None:
    world = await healthy_world()
    world.apply(manifest("2.0.0"))
    await world.run_until(lambda: world.weight == 10)
    steps = [{"weightPercent": w, "minSeconds": 10} for w in (5, 20, 80)]
    world.apply(manifest("2.0.0", rollout=rollout(steps=steps)))
    await world.settle()
    assert world.weight == 10
    assert world.status["step"] == "1/3"
    await world.run_until(lambda: world.weight == 20)
    assert world.status["step"] == "2/3"
    await world.run_until(lambda: world.stable == "2.0.0")


async def test_a_ladder_edited_to_begin_higher_lifts_the_weight_but_not_while_paused() -> None:
    world = await healthy_world()
    world.apply(manifest("2.0.0"))
    await world.run_until(lambda: world.weight == 10)
    steps = [{"weightPercent": w, "minSeconds": 10} for w in (30, 60)]
    world.apply(manifest("2.0.0", rollout=rollout(steps=steps, paused=True)))
    await world.run(120)
    assert (world.phase, world.weight) == ("Paused", 10)
    world.apply(manifest("2.0.0", rollout=rollout(steps=steps)))
    await world.settle()
    assert (world.status["step"], world.weight) == ("1/2", 30)
    await world.run_until(lambda: world.stable == "2.0.0")


async def test_paused_spec_holds_and_harm_still_rolls_back() -> None:
    world = await healthy_world()
    world.apply(manifest("2.0.0"))
    await world.run_until(lambda: world.weight == 10)
    world.apply(manifest("2.0.0", rollout=rollout(paused=True)))
    await world.run(600)
    assert (world.phase, world.weight) == ("Paused", 10)
    world.analyst.verdicts["2.0.0"] = Verdict.HARM
    await world.run_until(lambda: world.phase == "RollingBack", 30)


async def test_resumed_rollout_goes_on() -> None:
    world = await healthy_world()
    world.apply(manifest("2.0.0"))
    await world.run_until(lambda: world.weight == 10)
    world.apply(manifest("2.0.0", rollout=rollout(paused=True)))
    await world.run(600)
    world.apply(manifest("2.0.0"))
    await world.run_until(lambda: world.stable == "2.0.0", 120)


async def test_pause_for_a_person_waits_for_promote() -> None:
    steps = [{"weightPercent": 10, "minSeconds": 1, "pause": {}}, {"weightPercent": 50}]
    spec = rollout(steps=steps, deadlineSeconds=500)
    world = await healthy_world(rollout=spec)
    world.apply(manifest("2.0.0", rollout=spec))
    await world.run(2000)
    assert (world.phase, world.weight) == ("Paused", 10)
    assert "DeadlineExceeded" not in world.reasons
    world.order("promote")
    await world.run_until(lambda: world.weight == 50, 30)


async def test_timed_pause_ends_by_itself() -> None:
    steps = [{"weightPercent": 10, "minSeconds": 1, "pause": {"seconds": 300}}]
    world = await healthy_world(rollout=rollout(steps=steps))
    world.apply(manifest("2.0.0", rollout=rollout(steps=steps)))
    await world.run(290)
    assert (world.phase, world.weight) == ("Paused", 10)
    await world.run_until(lambda: world.stable == "2.0.0", 60)


async def test_promote_passes_a_step_that_has_no_data() -> None:
    world = await healthy_world()
    world.analyst.verdicts["2.0.0"] = Verdict.NOT_ENOUGH_DATA
    world.apply(manifest("2.0.0"))
    await world.run(100)
    assert world.weight == 10
    world.order("promote")
    await world.run(1)
    assert world.weight == 50


async def test_order_that_makes_no_sense_is_answered_and_removed() -> None:
    world = await healthy_world()
    world.order("promote")
    await world.run(1)
    assert ("CommandIgnored") in world.reasons
    assert "crossfade.dev/command" not in world.cluster.objects[REF]["metadata"]["annotations"]


async def test_weight_edited_by_hand_is_put_back_once_with_an_event() -> None:
    world = await healthy_world()
    world.apply(manifest("2.0.0"))
    await world.run_until(lambda: world.weight == 10 and world.status["weight"] == 10)
    await world.settle()
    assert world.route is not None
    before = len([w for w in world.cluster.writes if "HTTPRoute" in w])

    def edit(route: dict[str, Any]) -> None:
        backends = route["spec"]["rules"][0]["backendRefs"]
        backends[0]["weight"], backends[1]["weight"] = 63, 37

    ref = next(r for r in world.cluster.objects if r.kind == "HTTPRoute")
    world.cluster.edit(ref, edit)
    await world.run(1)
    assert world.weight == 10
    assert world.reasons.count("WeightRestored") == 1
    assert len([w for w in world.cluster.writes if "HTTPRoute" in w]) == before + 1


async def test_deadline_with_hold_holds_and_says_so() -> None:
    spec = rollout(deadlineSeconds=100)
    world = await healthy_world(rollout=spec)
    world.analyst.verdicts["2.0.0"] = Verdict.NOT_ENOUGH_DATA
    world.apply(manifest("2.0.0", rollout=spec))
    await world.run(200)
    world.analyst.verdicts.clear()
    await world.run(600)
    assert world.weight == 10
    (said,) = [note for reason, note in world.cluster.events if reason == "DeadlineExceeded"]
    assert said == "not promoted after 100 s, the weight holds: errors: notEnoughData it is"
    (condition,) = [c for c in world.status["conditions"] if c["type"] == "Progressing"]
    assert (condition["status"], condition["reason"]) == ("True", "DeadlineExceeded")


async def test_deadline_with_roll_back_rolls_back() -> None:
    spec = rollout(deadlineSeconds=100, onDeadline="rollBack")
    world = await healthy_world(rollout=spec)
    world.analyst.verdicts["2.0.0"] = Verdict.NOT_ENOUGH_DATA
    world.apply(manifest("2.0.0", rollout=spec))
    await world.run_until(lambda: world.phase == "RolledBack", 200)
    (rejected,) = world.status["rejected"]
    assert rejected["reason"] == "DeadlineExceeded"
    assert rejected["message"] == "not promoted after 100 s: errors: notEnoughData it is"


async def test_a_deadline_that_is_raised_lets_the_rollout_go_on() -> None:
    world = await healthy_world(rollout=rollout(deadlineSeconds=100))
    world.analyst.verdicts["2.0.0"] = Verdict.NOT_ENOUGH_DATA
    world.apply(manifest("2.0.0", rollout=rollout(deadlineSeconds=100)))
    await world.run_until(lambda: "DeadlineExceeded" in world.reasons, 200)
    world.analyst.verdicts.clear()
    world.apply(manifest("2.0.0", rollout=rollout(deadlineSeconds=3600)))
    await world.run_until(lambda: world.phase == "Healthy", 300)
    assert world.status["stable"]["version"] == "2.0.0"


async def test_on_deadline_may_be_changed_after_the_deadline() -> None:
    world = await healthy_world(rollout=rollout(deadlineSeconds=100))
    world.analyst.verdicts["2.0.0"] = Verdict.NOT_ENOUGH_DATA
    world.apply(manifest("2.0.0", rollout=rollout(deadlineSeconds=100)))
    await world.run_until(lambda: "DeadlineExceeded" in world.reasons, 200)
    assert world.weight == 10
    world.apply(manifest("2.0.0", rollout=rollout(deadlineSeconds=100, onDeadline="rollBack")))
    await world.run_until(lambda: world.phase == "RolledBack", 100)
    (rejected,) = world.status["rejected"]
    assert rejected["reason"] == "DeadlineExceeded"


async def test_gateway_that_does_not_accept_the_route_holds_the_weight() -> None:
    world = await healthy_world()
    world.apply(manifest("2.0.0"))
    await world.run_until(lambda: world.phase == "Preparing")
    world.cluster.gateway_accepts = False
    await world.run(300)
    assert world.status["weight"] == 0
    assert world.phase == "Progressing"
    condition = next(c for c in world.status["conditions"] if c["type"] == "RouteAccepted")
    assert condition["status"] == "False"


async def test_refused_pod_template_is_told_and_rolled_back_at_the_deadline() -> None:
    world = await healthy_world()

    def refuse(write: Any) -> str | None:
        body = getattr(write, "manifest", {})
        bad = body.get("kind") == "Deployment" and "2.0.0" in str(body)
        return "spec.template.spec.containers[0].image: Required value" if bad else None

    world.cluster.refuse = refuse
    world.apply(manifest("2.0.0"))
    await world.run(60)
    condition = next(c for c in world.status["conditions"] if c["type"] == "Progressing")
    assert "image: Required value" in condition["message"]
    assert world.reasons.count("WriteFailed") == 1
    await world.run_until(lambda: world.phase == "RolledBack", 200)


async def test_changed_replicas_scale_stable_without_a_rollout() -> None:
    world = await healthy_world()
    world.apply(manifest(replicas=5))
    await world.run(1)
    (deployment,) = world.deployments.values()
    assert deployment["spec"]["replicas"] == 5
    assert world.phase == "Healthy"


async def test_deleted_children_come_back() -> None:
    world = await healthy_world()
    for ref in [r for r in world.cluster.objects if r.kind in ("HTTPRoute", "Service")]:
        world.cluster.delete(ref)
        await world.run(1)
    (deployment,) = [r for r in world.cluster.objects if r.kind == "Deployment"]
    world.cluster.delete(deployment)
    await world.run(10)
    assert world.shares == {"1.0.0": 100}
    assert world.versions == {"1.0.0"}


async def test_deletion_leaves_nothing_behind() -> None:
    world = await healthy_world()
    world.apply(manifest("2.0.0"))
    await world.run_until(lambda: world.weight == 10)
    world.cluster.delete(REF)
    await world.settle()
    assert not world.cluster.objects


async def test_settled_world_is_left_alone() -> None:
    world = await healthy_world()
    writes, looks = len(world.cluster.writes), len(world.analyst.looks)
    await world.run(86_400)
    assert len(world.cluster.writes) == writes
    assert len(world.analyst.looks) == looks
    assert KEY not in world.looks._looks


async def test_route_is_written_once_for_each_weight() -> None:
    world = await healthy_world()
    before = len(world.cluster.writes)
    world.apply(manifest("2.0.0"))
    await world.run_until(lambda: world.phase == "Healthy" and world.stable == "2.0.0")
    await world.settle()
    routes = [w for w in world.cluster.writes[before:] if "HTTPRoute" in w]
    assert len(routes) == 3, routes


async def test_capacity_comes_before_the_route() -> None:
    steps = [{"weightPercent": w, "minSeconds": 1} for w in (10, 50)]
    world = await healthy_world(replicas=10, rollout=rollout(steps=steps))
    world.apply(manifest("2.0.0", replicas=10, rollout=rollout(steps=steps)))
    seen: list[tuple[int, int]] = []

    def note() -> bool:
        canary = [d for d in world.deployments.values() if "2.0.0" in str(d["spec"]["template"])]
        pods = canary[0]["status"]["readyReplicas"] if canary else 0
        if world.stable == "1.0.0":
            seen.append((world.weight, pods))
        return world.stable == "2.0.0"

    await world.run_until(note)
    needed = {0: 0, 10: 1, 50: 5, 100: 10}
    assert all(pods >= needed[weight] for weight, pods in seen), seen
    assert {weight for weight, _ in seen} == set(needed)


async def test_canary_whose_next_pods_do_not_come_keeps_its_weight() -> None:
    steps = [{"weightPercent": w, "minSeconds": 1} for w in (10, 50)]
    world = await healthy_world(replicas=10, rollout=rollout(steps=steps))
    world.apply(manifest("2.0.0", replicas=10, rollout=rollout(steps=steps)))
    await world.run_until(lambda: world.weight == 10)
    world.cluster.ready_at_most = 3
    await world.run(300)
    assert world.weight == 10
    assert "3 of 5 canary pods for the next weight" in world.status["message"]


async def test_leaving_version_is_kept_until_it_was_seen_to_receive_nothing() -> None:
    world = await healthy_world()
    world.analyst.verdicts["2.0.0"] = Verdict.HARM
    world.analyst.still_arriving = True
    world.apply(manifest("2.0.0"))
    await world.run_until(lambda: world.phase == "RollingBack")
    await world.run(25)
    assert "its counters still grow" not in world.status["message"]
    await world.run(35)
    assert world.versions == {"1.0.0", "2.0.0"}
    assert world.status["message"].startswith(
        "version 2.0.0 has no weight and its counters still grow"
    )
    world.analyst.still_arriving = False
    await world.run(10)
    assert world.versions == {"1.0.0"}


async def test_a_replaced_version_whose_counters_still_grow_is_told_of() -> None:
    world = await healthy_world()
    world.analyst.still_arriving = True
    world.apply(manifest("2.0.0"))
    await world.run_until(lambda: world.phase == "Probation")
    await world.run(90)
    assert world.status["message"] == (
        "version 2.0.0 is promoted; version 1.0.0 has no weight and its counters still grow, by "
        "probes, scrapes or direct calls: it is removed 5 min after it lost its weight, or once "
        "they stand still for 5 s"
    )
    await world.run(260)
    assert world.phase == "Healthy"
    assert world.status["message"] == ""


async def test_leaving_version_that_is_called_directly_does_not_stay_for_ever() -> None:
    world = await healthy_world()
    world.analyst.verdicts["2.0.0"] = Verdict.HARM
    world.analyst.still_arriving = True
    world.apply(manifest("2.0.0"))
    await world.run_until(lambda: world.phase == "RollingBack")
    await world.run(310)
    assert world.versions == {"1.0.0"}


async def test_leaving_version_whose_counters_are_not_seen_gets_thirty_seconds() -> None:
    world = await healthy_world()
    world.apply(manifest("2.0.0"))
    await world.run_until(lambda: world.weight == 10)
    world.analyst.unavailable = True
    world.order("abort")
    await world.run(25)
    assert world.versions == {"1.0.0", "2.0.0"}
    await world.run(10)
    assert world.versions == {"1.0.0"}


async def test_promote_overrules_an_unreachable_prometheus() -> None:
    world = await healthy_world()
    world.apply(manifest("2.0.0"))
    await world.run_until(lambda: world.weight == 10)
    world.analyst.unavailable = True
    await world.run(30)
    world.order("promote")
    await world.run(5)
    assert world.weight == 50


@pytest.mark.parametrize("forecast", [nothing_forecast, restless_forecast])
async def test_five_steps_of_ten_seconds_cost_few_writes(forecast: Forecasting) -> None:
    steps = [{"weightPercent": w, "minSeconds": 10} for w in (5, 10, 20, 40, 60)]
    spec = rollout(steps=steps, probationSeconds=10)
    world = await healthy_world(rollout=spec)
    world.analyst.forecast = forecast
    before = len(world.cluster.writes)
    world.apply(manifest("2.0.0", rollout=spec))
    await world.run_until(lambda: world.phase == "Healthy" and world.stable == "2.0.0")
    await world.settle()
    assert len(world.cluster.writes) - before <= 40, world.cluster.writes[before:]


async def test_broken_stable_version_does_not_keep_a_new_one_from_being_rolled_out() -> None:
    world = await healthy_world()
    world.cluster.unready = {"1.0.0"}
    world.cluster.revive("1.0.0")
    await world.settle()
    ready = next(c for c in world.status["conditions"] if c["type"] == "Ready")
    assert ready["status"] == "False"
    world.apply(manifest("2.0.0"))
    await world.run_until(lambda: world.stable == "2.0.0")


async def test_unreadable_spec_holds_everything_and_says_so() -> None:
    world = await healthy_world()
    world.apply(manifest("2.0.0"))
    await world.run_until(lambda: world.weight == 10)
    broken = manifest("2.0.0", traffic={"gateway": {"parentRefs": "public"}})
    world.apply(broken)
    await world.run(60)
    assert world.weight == 10
    condition = next(c for c in world.status["conditions"] if c["type"] == "Ready")
    assert condition["reason"] == "InvalidSpec"
    assert world.reasons.count("InvalidSpec") == 1


async def test_without_metrics_a_person_decides_each_step() -> None:
    spec: dict[str, Any] = {
        "rollout": rollout(steps=[{"weightPercent": 50, "minSeconds": 1, "pause": {}}]),
        "analysis": None,
    }
    world = await healthy_world(**spec)
    world.apply(manifest("2.0.0", **spec))
    await world.run(600)
    assert (world.phase, world.weight) == ("Paused", 50)
    world.order("promote")
    await world.run_until(lambda: world.stable == "2.0.0", 60)


async def test_service_of_somebody_else_is_left_alone_and_named() -> None:
    world = World()
    theirs = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": KEY.name, "namespace": KEY.namespace},
        "spec": {"selector": {"app": "theirs"}},
    }
    world.apply(theirs)
    world.apply(manifest())
    await world.run(30)
    (service,) = [
        o for r, o in world.cluster.objects.items() if r.name == KEY.name and r.kind == "Service"
    ]
    assert service["spec"] == theirs["spec"]
    assert "somebody else's" in world.status["message"]
    assert world.reasons.count("WriteFailed") == 1


async def test_last_step_may_give_everything_before_the_promotion() -> None:
    steps = [{"weightPercent": w, "minSeconds": 10} for w in (50, 100)]
    world = await healthy_world(rollout=rollout(steps=steps))
    world.apply(manifest("2.0.0", rollout=rollout(steps=steps)))
    await world.run_until(lambda: world.weight == 100)
    await world.run(5)
    assert (world.phase, world.stable, world.status["weight"]) == ("Progressing", "1.0.0", 100)
    world.analyst.verdicts["2.0.0"] = Verdict.HARM
    await world.run_until(lambda: world.phase == "RollingBack")
    assert world.shares == {"1.0.0": 100}


async def test_more_replicas_in_the_middle_scale_both_versions() -> None:
    world = await healthy_world(replicas=2)
    world.apply(manifest("2.0.0", replicas=2))
    await world.run_until(lambda: world.weight == 10)
    world.apply(manifest("2.0.0", replicas=20))
    await world.run_until(lambda: world.weight == 50)
    pods = {
        d["spec"]["template"]["spec"]["containers"][0]["image"]: d["spec"]["replicas"]
        for d in world.deployments.values()
    }
    assert pods == {"fraud:1.0.0": 20, "fraud:2.0.0": 10}


async def test_analyst_is_told_the_weights_of_the_ladder() -> None:
    world = await healthy_world()
    world.apply(manifest("2.0.0"))
    await world.run_until(lambda: world.phase == "Probation")
    await world.run(10)
    ladders = [look.ladder for look in world.analyst.looks]
    assert ladders[0] == (10, 50)
    assert ladders[-1] == ()

    world = await healthy_world(rollout={})
    world.apply(manifest("2.0.0", rollout={}))
    await world.run_until(lambda: world.weight == 25)
    assert world.analyst.looks[-1].ladder == (5, 25, 50)


async def test_forecast_is_in_the_status_and_is_refreshed_once_a_minute() -> None:
    world = await healthy_world()
    world.analyst.verdicts["2.0.0"] = Verdict.NOT_ENOUGH_DATA
    world.analyst.forecast = restless_forecast
    world.apply(manifest("2.0.0"))
    await world.run_until(lambda: world.weight == 10)
    await world.run(120)
    first, last = world.status["metrics"][0]["forecast"]
    assert first == {
        "weightPercent": 10,
        "requests": first["requests"],
        "seconds": first["seconds"],
    }
    assert first["requests"] + first["seconds"] == 4000
    assert last["weightPercent"] == 50

    written, looks = statuses_written(world), len(world.analyst.looks)
    await world.run(600)
    assert len(world.analyst.looks) - looks == 120
    assert statuses_written(world) - written == 10
    assert world.status["metrics"][0]["forecast"][0]["requests"] > first["requests"]


def statuses_written(world: World) -> int:
    return sum(1 for write in world.cluster.writes if write.startswith("status"))


async def test_forecast_without_traffic_has_no_time() -> None:
    world = await healthy_world()
    world.analyst.verdicts["2.0.0"] = Verdict.NOT_ENOUGH_DATA
    world.analyst.forecast = lambda _look: (Forecast(10, 2000, None),)
    world.apply(manifest("2.0.0", rollout=rollout(deadlineSeconds=3600)))
    await world.run(200)
    assert world.status["metrics"][0]["forecast"] == [{"weightPercent": 10, "requests": 2000}]
    assert "SlowDetection" not in world.reasons


async def test_time_of_a_forecast_is_told_as_soon_as_words_are() -> None:
    world = await healthy_world()
    world.analyst.verdicts["2.0.0"] = Verdict.NOT_ENOUGH_DATA
    world.analyst.forecast = lambda _look: (Forecast(10, 2000, None),)
    world.apply(manifest("2.0.0"))
    await world.run_until(lambda: bool(world.status.get("metrics")))
    world.analyst.forecast = lambda _look: (Forecast(10, 2000, 900),)
    await world.run(20)
    assert world.status["metrics"][0]["forecast"][0]["seconds"] == 900


async def test_it_is_told_why_there_is_no_forecast() -> None:
    world = await healthy_world()
    world.analyst.no_forecast = "twice stable's rate (0.1 %) is tolerated"
    world.apply(manifest("2.0.0"))
    await world.run_until(lambda: bool(world.status.get("metrics")))
    (metric,) = world.status["metrics"]
    assert metric["noForecast"] == world.analyst.no_forecast
    world.analyst.no_forecast = ""
    world.analyst.forecast = slow_forecast
    await world.run(20)
    (metric,) = world.status["metrics"]
    assert "noForecast" not in metric


async def test_alert_is_written_at_once_and_told_once_while_it_stays() -> None:
    world = await healthy_world()
    world.analyst.verdicts["2.0.0"] = Verdict.NOT_ENOUGH_DATA
    world.apply(manifest("2.0.0"))
    await world.run_until(lambda: world.weight == 10)
    await world.run(100)
    world.analyst.alert = "inputs moved: stable is 0.31 away from the reference"
    looks = len(world.analyst.looks)
    await world.run_until(lambda: "InputsMoved" in world.reasons, 10)
    assert len(world.analyst.looks) - looks == 1
    assert world.status["metrics"][0]["alert"] == world.analyst.alert
    assert ("InputsMoved", f"errors: {world.analyst.alert}") in world.cluster.events

    for tenths in range(60):
        world.analyst.alert = f"inputs moved: stable is 0.{tenths} away from the reference"
        await world.run(10)
    assert world.reasons.count("InputsMoved") == 1
    assert world.weight == 10


async def test_alert_that_comes_back_is_told_again_but_not_when_it_flickers() -> None:
    world = await healthy_world()
    world.analyst.verdicts["2.0.0"] = Verdict.NOT_ENOUGH_DATA
    world.analyst.alert = "inputs moved"
    world.apply(manifest("2.0.0"))
    await world.run_until(lambda: world.weight == 10)
    await world.run(20)
    assert world.reasons.count("InputsMoved") == 1
    world.analyst.alert = ""
    await world.run(20)
    assert world.status["metrics"][0]["alert"] == ""
    world.analyst.alert = "inputs moved"
    await world.run(1)
    await world.run_until(lambda: world.reasons.count("InputsMoved") == 2, 10)

    world.analyst.alert = ""
    await world.run(5)
    world.analyst.alert = "inputs moved"
    await world.run(60)
    assert world.reasons.count("InputsMoved") == 2


async def test_doubling_that_is_seen_too_late_is_told_once_a_rollout() -> None:
    spec = rollout(deadlineSeconds=86_400)
    world = await healthy_world(rollout=spec)
    world.analyst.verdicts["2.0.0"] = Verdict.NOT_ENOUGH_DATA
    world.analyst.forecast = slow_forecast
    world.apply(manifest("2.0.0", rollout=spec))
    await world.run(1000)
    world.start_operator()
    await world.run(1000)
    (told,) = [note for reason, note in world.cluster.events if reason == "SlowDetection"]
    assert told == (
        "errors: a doubling of the rate would be seen only after 26 h at a weight of 50 % "
        "(4,100 canary requests); deadlineSeconds is 24 h: raise weights, deadlineSeconds or "
        "falseRollbackRate"
    )
    world.apply(manifest("3.0.0", rollout=spec))
    await world.run(100)
    assert world.reasons.count("SlowDetection") == 2


@pytest.mark.parametrize(("seconds", "told"), [(601, 1), (600, 0)])
async def test_doubling_is_seen_too_late_only_after_more_than_the_whole_deadline(
    seconds: int, told: int
) -> None:
    spec = rollout(deadlineSeconds=600)
    world = await healthy_world(rollout=spec)
    world.analyst.verdicts["2.0.0"] = Verdict.NOT_ENOUGH_DATA
    world.analyst.forecast = lambda _look: (Forecast(10, 9, 700), Forecast(50, 9, seconds))
    world.apply(manifest("2.0.0", rollout=spec))
    await world.run(590)
    assert world.phase == "Progressing"
    assert world.reasons.count("SlowDetection") == told


async def test_nothing_is_said_of_slowness_before_the_weight_is_in_force() -> None:
    spec = rollout(deadlineSeconds=600)
    world = await healthy_world(rollout=spec)
    world.analyst.forecast = slow_forecast
    world.apply(manifest("2.0.0", rollout=spec))
    await world.run_until(lambda: world.phase == "Preparing")
    world.cluster.gateway_accepts = False
    await world.run(300)
    assert world.analyst.looks
    assert "SlowDetection" not in world.reasons


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (1, "1 s"),
        (119, "119 s"),
        (120, "2 min"),
        (121, "3 min"),
        (7199, "120 min"),
        (7200, "2 h"),
        (7201, "3 h"),
        (86_400, "24 h"),
        (36_000_000, "10,000 h"),
    ],
)
def test_times_are_said_in_one_unit_and_rounded_up(seconds: int, said: str) -> None:
    assert lasting(seconds) == said
