"""What a rollout asks of sidecars before a version gets traffic, in the simulated world."""

from __future__ import annotations

from typing import Any

import pytest

from crossfade.reconcile.sidecars import MOST_PODS
from tests.unit.world import GARBLED, World, guarded, healthy_world, manifest

ADULTS = {"schema": {"type": "object", "properties": {"age": {"minimum": 18}}}}
ALL = {"schema": {"type": "object"}}
REFUSED = 'inputs.age breaks the rule "minimum"'


async def guarded_world(version: str = "1.0.0", *targets: str, **spec: Any) -> World:
    """Return a world in which a version with a sidecar serves."""
    world = World()
    world.apply(guarded(version, *targets, **spec))
    await world.run_until(lambda: world.phase == "Healthy", 60)
    await world.settle()
    return world


def condition(world: World, kind: str) -> dict[str, Any] | None:
    return next((c for c in world.status["conditions"] if c["type"] == kind), None)


def told(world: World, reason: str) -> list[str]:
    return [message for r, message in world.cluster.events if r == reason]


async def test_a_fallback_that_answers_is_in_the_status_and_holds_nothing() -> None:
    world = await healthy_world()
    world.apply(guarded("2.0.0", "stable", "static"))
    await world.run_until(lambda: world.phase == "Progressing")
    assert world.status["fallback"] == [
        {"target": "stable", "ok": True},
        {"target": "static", "ok": True},
    ]
    assert world.sidecars.drilled
    await world.run_until(lambda: world.phase == "Healthy")
    assert world.stable == "2.0.0"
    assert [t["ok"] for t in world.status["fallback"]] == [True, True]
    assert "FallbackDrillFailed" not in world.reasons


async def test_a_fallback_that_fails_keeps_the_weight_at_zero_until_it_answers() -> None:
    world = await healthy_world()
    world.sidecars.failing = {"stable": "answered 503"}
    world.apply(guarded("2.0.0", "stable", "static"))
    await world.run(60)
    assert (world.phase, world.weight) == ("Preparing", 0)
    hold = "fallback drill: stable answered 503; the canary gets no weight until it answers"
    assert world.status["message"] == hold
    assert world.status["fallback"] == [
        {"target": "stable", "ok": False, "message": "answered 503"},
        {"target": "static", "ok": True},
    ]
    assert told(world, "FallbackDrillFailed") == [hold]
    assert 15 <= len(world.sidecars.drilled) <= 22

    world.sidecars.failing = {}
    await world.run(5)
    assert world.phase == "Progressing"
    assert "undrilledSince" not in world.status["rollout"]
    await world.run_until(lambda: world.phase == "Healthy")
    assert world.stable == "2.0.0"


async def test_a_fallback_that_never_answers_ends_the_rollout() -> None:
    world = await healthy_world()
    world.sidecars.failing = {"stable": "answered 503"}
    world.apply(guarded("2.0.0", "stable"))
    await world.run(119)
    assert world.phase == "Preparing"
    await world.run_until(lambda: world.phase == "RolledBack", 10)
    await world.settle()
    (rejected,) = world.status["rejected"]
    assert rejected["reason"] == "FallbackNotDrilled"
    assert rejected["message"] == "fallback drill: stable answered 503, after 120 s"
    assert world.status["fallback"] == []
    assert world.shares == {"1.0.0": 100}
    assert world.versions == {"1.0.0"}


async def test_the_deadline_of_a_drill_counts_from_when_the_pods_are_ready() -> None:
    world = await healthy_world()
    world.cluster.unready = {"2.0.0"}
    world.sidecars.failing = {"stable": "answered 503"}
    world.apply(guarded("2.0.0", "stable"))
    await world.run(100)
    world.cluster.unready = set()
    world.cluster.revive("2.0.0")
    await world.run(100)
    assert world.phase == "Preparing"
    await world.run(30)
    assert world.status["rejected"][0]["reason"] == "FallbackNotDrilled"


async def test_a_sidecar_that_cannot_be_reached_holds_and_says_how_to_allow_it() -> None:
    world = await healthy_world()
    world.sidecars.silent = True
    world.apply(guarded("2.0.0", "stable"))
    await world.run(30)
    assert world.phase == "Preparing"
    message = world.status["message"]
    assert "did not answer in 3 s" in message
    assert "NetworkPolicy" in message
    assert "port 8013" in message
    assert world.status["fallback"][0]["message"] == "is not known to answer"
    assert len(told(world, "FallbackDrillFailed")) == 1


async def test_an_operator_that_was_away_asks_before_it_gives_up() -> None:
    world = await healthy_world()
    world.sidecars.failing = {"stable": "answered 503"}
    world.apply(guarded("2.0.0", "stable"))
    await world.run(30)
    world.sidecars.failing = {}
    world.now = world.now.replace(hour=20)
    world.start_operator()
    await world.run_until(lambda: world.phase == "Progressing", 10)


async def test_a_restart_tells_no_failed_drill_twice() -> None:
    world = await healthy_world()
    world.sidecars.failing = {"stable": "answered 503"}
    world.apply(guarded("2.0.0", "stable"))
    await world.run(30)
    world.start_operator()
    await world.run(30)
    assert len(told(world, "FallbackDrillFailed")) == 1


async def test_words_that_change_with_each_drill_cost_few_writes() -> None:
    world = await healthy_world()
    world.apply(guarded("2.0.0", "stable"))
    world.sidecars.failing = {"stable": "answered 503"}
    await world.run(10)
    before = len(world.cluster.writes)
    for second in range(60):
        world.sidecars.failing = {"stable": f"did not answer (in {second} ms)"}
        await world.run(1)
    assert 0 < len(world.cluster.writes) - before <= 7


async def test_a_drill_that_was_good_long_ago_is_asked_for_again() -> None:
    world = await healthy_world()
    paused = {**manifest()["spec"]["rollout"], "paused": True}
    world.apply(guarded("2.0.0", "stable", rollout=paused))
    await world.run(3600)
    assert "paused" in world.status["message"]
    world.sidecars.failing = {"stable": "answered 503"}
    world.apply(guarded("2.0.0", "stable"))
    await world.run(10)
    assert (world.phase, world.weight) == ("Preparing", 0)
    assert "answered 503" in world.status["message"]


@pytest.mark.parametrize("targets", [("static",), ("service", "static")])
async def test_the_first_version_is_drilled_too(targets: tuple[str, ...]) -> None:
    world = await guarded_world("1.0.0", *targets)
    assert [t["target"] for t in world.status["fallback"]] == list(targets)
    assert all(t["ok"] for t in world.status["fallback"])


async def test_the_first_version_serves_though_its_fallback_fails() -> None:
    world = World()
    world.sidecars.failing = {"service": "answered 500"}
    world.apply(guarded("1.0.0", "service", "static"))
    await world.run(60)
    assert (world.phase, world.shares) == ("Healthy", {"1.0.0": 100})
    assert [t["ok"] for t in world.status["fallback"]] == [False, True]
    assert told(world, "FallbackDrillFailed") == [
        "fallback drill: service answered 500; the first version serves all the same"
    ]


async def test_the_first_version_serves_though_its_sidecars_cannot_be_reached() -> None:
    world = World()
    world.sidecars.silent = True
    world.apply(guarded("1.0.0", "static"))
    await world.run(60)
    assert world.phase == "Healthy"
    assert len(told(world, "FallbackDrillFailed")) == 1


async def test_nobody_is_asked_where_there_is_nothing_to_ask() -> None:
    world = await guarded_world("1.0.0")
    world.apply(guarded("2.0.0"))
    await world.run_until(lambda: world.stable == "2.0.0")
    assert world.sidecars.drilled == []
    assert world.status["fallback"] == []
    assert condition(world, "InputsCompatible") is None


async def test_a_few_pods_of_many_are_asked() -> None:
    world = await healthy_world(replicas=100)
    world.apply(guarded("2.0.0", "stable", replicas=100))
    await world.run_until(lambda: world.phase == "Progressing")
    assert len(set(world.sidecars.drilled)) == MOST_PODS


async def test_abort_works_while_a_fallback_fails() -> None:
    world = await healthy_world()
    world.sidecars.failing = {"stable": "answered 503"}
    world.apply(guarded("2.0.0", "stable"))
    await world.run(10)
    world.order("abort")
    await world.run_until(lambda: world.phase == "RolledBack", 60)
    assert world.status["rejected"][0]["reason"] == "Aborted"


async def test_a_version_whose_fallback_fails_can_be_superseded() -> None:
    world = await healthy_world()
    world.sidecars.failing = {"service": "answered 503"}
    world.apply(guarded("2.0.0", "service"))
    await world.run(10)
    world.apply(guarded("3.0.0", "stable"))
    await world.run_until(lambda: world.stable == "3.0.0")
    assert world.status["fallback"] == [{"target": "stable", "ok": True}]


async def test_a_narrower_contract_is_told_before_it_gets_traffic_and_holds_nothing() -> None:
    world = await guarded_world("1.0.0", inputs=ALL)
    world.cluster.unready = {"2.0.0"}
    world.apply(guarded("2.0.0", inputs=ADULTS))
    await world.run(10)
    assert (world.phase, world.weight) == ("Preparing", 0)
    (news,) = told(world, "InputsNarrowed")
    assert news.startswith("version 2.0.0 refuses inputs that 1.0.0 accepts: ")
    assert "age" in news
    assert world.status["message"].endswith(news)
    flagged = condition(world, "InputsCompatible")
    assert flagged is not None
    assert (flagged["status"], flagged["reason"]) == ("False", "InputsNarrowed")

    world.cluster.unready = set()
    world.cluster.revive("2.0.0")
    await world.run_until(lambda: world.phase == "Progressing")
    flagged = condition(world, "InputsCompatible")
    assert flagged is not None
    assert flagged["status"] == "False"
    await world.run_until(lambda: world.phase == "Healthy")
    assert world.stable == "2.0.0"
    assert condition(world, "InputsCompatible") is None
    assert len(told(world, "InputsNarrowed")) == 1


async def test_the_same_contract_is_compatible() -> None:
    world = await guarded_world("1.0.0", inputs=ADULTS)
    world.apply(guarded("2.0.0", inputs=ADULTS))
    await world.run_until(lambda: world.phase == "Progressing")
    kept = condition(world, "InputsCompatible")
    assert kept is not None
    assert (kept["status"], kept["reason"]) == ("True", "NothingNarrowed")
    assert "InputsNarrowed" not in world.reasons


async def test_what_the_golden_request_of_stable_shows_stays_while_there_is_the_canary() -> None:
    world = await guarded_world("1.0.0", inputs=ADULTS)
    world.sidecars.refuses = (REFUSED,)
    world.apply(guarded("2.0.0", inputs=ADULTS))
    await world.run_until(lambda: world.phase == "Progressing")
    assert [golden.path for golden in world.sidecars.checked] == ["/v2/models/fraud/infer"]
    words = f"stable's golden request: {REFUSED}"
    world.start_operator()
    await world.run(15)
    flagged = condition(world, "InputsCompatible")
    assert flagged is not None
    assert (flagged["status"], flagged["message"]) == ("False", words)
    assert told(world, "InputsNarrowed") == [
        f"version 2.0.0 refuses inputs that 1.0.0 accepts: {words}"
    ]
    await world.run_until(lambda: world.stable == "2.0.0")


async def test_a_check_that_cannot_be_made_holds_nothing_without_a_fallback() -> None:
    world = await guarded_world("1.0.0", inputs=ADULTS)
    world.sidecars.silent = True
    world.apply(guarded("2.0.0", inputs=ADULTS))
    await world.run_until(lambda: world.phase == "Progressing", 30)
    assert "InputsNarrowed" not in world.reasons


async def test_a_configuration_that_cannot_be_read_gives_no_weight() -> None:
    world = await healthy_world()
    world.cluster.unready = {"2.0.0"}
    world.apply(guarded("2.0.0", "static"))
    await world.run(1)
    objects = world.cluster.objects.items()
    (ref,) = (r for r, o in objects if r.kind == "Deployment" and ":2.0.0" in str(o["spec"]))

    def garble(body: dict[str, Any]) -> None:
        body["spec"]["template"]["metadata"]["annotations"]["crossfade.dev/sidecar"] = GARBLED

    world.cluster.unready = set()
    world.cluster.edit(ref, garble)
    await world.run(60)
    assert (world.phase, world.weight) == ("Preparing", 0)
    assert "the annotation crossfade.dev/sidecar of Deployment" in world.status["message"]
    assert len(told(world, "FallbackDrillFailed")) == 1


async def test_contracts_that_cannot_be_compared_hold_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(old: object, new: object) -> tuple[str, ...]:
        raise RecursionError

    monkeypatch.setattr("crossfade.sidecar.narrowing.narrowings", broken)
    world = await guarded_world("1.0.0", inputs=ALL)
    world.apply(guarded("2.0.0", inputs={"schema": {"type": "object", "title": "not seen yet"}}))
    await world.run_until(lambda: world.phase == "Progressing", 60)
    assert len(told(world, "InputsNarrowed")) == 1
    assert "cannot be compared" in caplog.text
