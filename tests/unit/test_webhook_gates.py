"""Gates: nothing moves up without their yes, and nothing that goes down asks them."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from typing import Any

import pytest

from crossfade.errors import WebhookError
from crossfade.evidence.verdicts import Verdict
from crossfade.webhooks.client import Answer, NotAllowedError
from tests.unit.world import Posted, World, healthy_world, manifest

FREEZE = "http://freeze.example/ask"
SMOKE = "http://smoke.example/ask"
STEPS = [{"weightPercent": 10, "minSeconds": 10}, {"weightPercent": 50, "minSeconds": 10}]


def gate(name: str = "freeze", address: str = FREEZE, **more: Any) -> dict[str, Any]:
    return {"name": name, "webhook": {"address": address}, **more}


def said(allowed: object, message: str = "") -> Answer:
    return Answer(200, json.dumps({"allowed": allowed, "message": message}).encode())


def no(message: str = "") -> Answer:
    return said(allowed=False, message=message)


def rules(*gates: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"steps": STEPS, "probationSeconds": 60, "gates": list(gates), **more}


YES = said(allowed=True)
NO = said(allowed=False, message="nothing moves before Monday")


async def begun(
    answer: Callable[[Posted], Answer | WebhookError], *gates: dict[str, Any], **more: Any
) -> World:
    """Return a world in which version 2.0.0 is about to be rolled out through gates."""
    world = await healthy_world()
    world.outside.answer = answer
    world.apply(manifest("2.0.0", rollout=rules(*gates, **more)))
    return world


async def running(world: World) -> None:
    """Let the canary get its first weight."""
    await world.run_until(lambda: bool(world.status.get("weight") == 10))


def weights(posted: list[Posted]) -> list[int]:
    """Return the weights that were asked for, each once in a row."""
    asked = [it.body["data"]["nextWeightPercent"] for it in posted]
    return [w for n, w in enumerate(asked) if n == 0 or asked[n - 1] != w]


def told(world: World) -> list[tuple[str, str]]:
    return [(reason, note) for reason, note in world.cluster.events if reason.startswith("Gate")]


async def test_gates_that_say_yes_are_asked_before_each_weight_and_hold_nothing() -> None:
    world = await begun(lambda _: YES, gate())
    await world.run_until(lambda: world.phase == "Probation")
    assert weights(world.outside.posted) == [10, 50, 100]
    assert len(world.outside.posted) == 3
    assert told(world) == []
    assert world.status["gates"] == []


async def test_a_question_says_what_would_come() -> None:
    world = await begun(lambda _: YES, gate())
    await world.run_until(lambda: world.phase == "Probation")
    first, second, _ = (it.body for it in world.outside.posted)
    assert second["type"] == "dev.crossfade.gate"
    data = second["data"]
    assert (data["weightPercent"], data["nextWeightPercent"], data["step"]) == (10, 50, "1/2")
    assert data["message"] == "may version 2.0.0 get 50 % of the traffic?"
    assert first["data"]["phase"] == "Preparing"
    assert first["id"] != second["id"]


async def test_a_no_holds_is_asked_again_and_is_told_once() -> None:
    world = await begun(lambda _: NO, gate())
    await world.run(60)
    assert world.phase == "Preparing"
    assert world.weight == 0
    assert world.status["message"] == ("ready; gate freeze says no: nothing moves before Monday")
    assert world.status["gates"] == [
        {"name": "freeze", "answer": "refused", "message": "nothing moves before Monday"}
    ]
    assert told(world) == [("GateClosed", "gate freeze says no: nothing moves before Monday")]
    times = [it.at for it in world.outside.posted]
    assert {(b - a).total_seconds() for a, b in itertools.pairwise(times)} == {10}
    world.outside.answer = lambda _: YES
    await world.run_until(lambda: world.phase == "Probation")
    assert told(world)[1:] == [("GateOpened", "gate freeze says yes")]
    assert world.status["gates"] == []


async def test_a_no_holds_the_weight_that_there_is() -> None:
    world = await begun(
        lambda it: NO if it.body["data"]["nextWeightPercent"] == 50 else YES, gate()
    )
    await world.run(120)
    assert (world.phase, world.weight) == ("Progressing", 10)
    assert world.status["message"] == "gate freeze says no: nothing moves before Monday"


async def test_a_ladder_edited_to_begin_higher_asks_before_its_first_weight() -> None:
    closed = True
    world = await begun(lambda _: NO if closed else YES, gate(fromWeightPercent=30))
    await running(world)
    higher = [{"weightPercent": 30, "minSeconds": 10}, {"weightPercent": 60, "minSeconds": 10}]
    world.apply(manifest("2.0.0", rollout={**rules(gate(fromWeightPercent=30)), "steps": higher}))
    await world.run(120)
    assert world.weight == 10
    assert world.status["message"] == "gate freeze says no: nothing moves before Monday"
    closed = False
    await world.run_until(lambda: world.weight == 30, 60)


@pytest.mark.parametrize(("least", "asked"), [(0, [10, 50, 100]), (50, [50, 100]), (100, [100])])
async def test_a_gate_is_asked_from_its_weight_on(least: int, asked: list[int]) -> None:
    world = await begun(lambda _: YES, gate(fromWeightPercent=least))
    await world.run_until(lambda: world.phase == "Probation")
    assert weights(world.outside.posted) == asked


async def test_it_is_asked_last_of_all() -> None:
    world = await begun(lambda _: YES, gate())
    world.analyst.verdicts["2.0.0"] = Verdict.NOT_ENOUGH_DATA
    await running(world)
    await world.run(60)
    assert weights(world.outside.posted) == [10]
    del world.analyst.verdicts["2.0.0"]
    await world.run_until(lambda: world.phase == "Probation")


async def test_a_yes_passes_between_two_looks_at_the_metrics_and_bad_ones_hold_it() -> None:
    world = await healthy_world()
    world.outside.answer = lambda _: NO
    spec = manifest("2.0.0", rollout=rules(gate(fromWeightPercent=20)))
    spec["spec"]["analysis"]["intervalSeconds"] = 60
    world.apply(spec)
    await world.run_until(lambda: bool(world.status.get("gates")))
    looks = len(world.analyst.looks)
    world.outside.answer = lambda _: YES
    await world.run(12)
    assert len(world.analyst.looks) == looks
    assert world.weight == 50

    world.outside.answer = lambda _: NO
    await world.run_until(lambda: bool(world.status.get("gates")))
    world.analyst.verdicts["2.0.0"] = Verdict.NOT_ENOUGH_DATA
    await world.run(60)
    world.outside.answer = lambda _: YES
    await world.run(300)
    assert world.weight == 50


async def test_while_the_spec_is_paused_nobody_is_asked() -> None:
    world = await begun(lambda _: NO, gate(), paused=True)
    await world.run(60)
    assert world.outside.posted == []
    assert world.status["message"] == "ready; holds because spec.rollout.paused is true"


async def test_promote_waves_a_step_through_and_the_next_asks_again() -> None:
    world = await begun(lambda _: NO, gate(fromWeightPercent=20))
    await running(world)
    await world.run(30)
    world.order("promote")
    await world.run(1)
    assert world.weight == 50
    assert world.status["gates"] == []
    await world.run(60)
    assert (world.phase, world.weight) == ("Progressing", 50)
    assert weights(world.outside.posted) == [50, 100]


async def test_promote_full_asks_nobody() -> None:
    world = await begun(lambda _: NO, gate(fromWeightPercent=20))
    await running(world)
    world.order("promoteFull")
    await world.run_until(lambda: world.phase == "Probation", 60)
    assert world.outside.posted == []


async def test_rolling_back_asks_nobody_and_waits_for_no_answer() -> None:
    world = await begun(lambda _: NO, gate(fromWeightPercent=20))
    await running(world)
    await world.run(30)
    asked = len(world.outside.posted)
    world.analyst.verdicts["2.0.0"] = Verdict.HARM
    await world.run_until(lambda: world.phase == "RolledBack")
    assert len(world.outside.posted) <= asked + 1
    assert world.status["gates"] == []
    after = len(world.outside.posted)
    await world.run(60)
    assert len(world.outside.posted) == after


async def test_a_gate_that_hangs_keeps_no_version_from_being_taken_back() -> None:
    world = await healthy_world()
    world.outside.hanging = {FREEZE}
    world.apply(manifest("2.0.0", rollout=rules(gate(fromWeightPercent=20))))
    await running(world)
    await world.run(30)
    assert world.status["message"] == "waits for the answer of gate freeze"
    world.analyst.verdicts["2.0.0"] = Verdict.HARM
    await world.run_until(lambda: world.weight == 0, 10)
    await world.run_until(lambda: world.phase == "RolledBack")


async def test_the_deadline_goes_on_counting() -> None:
    late = {"deadlineSeconds": 600, "onDeadline": "rollBack"}
    world = await begun(lambda _: NO, gate(fromWeightPercent=20), **late)
    await world.run_until(lambda: world.phase == "RolledBack", 700)
    assert world.status["rejected"][0]["reason"] == "DeadlineExceeded"
    assert world.status["rejected"][0]["message"].endswith(
        "gate freeze says no: nothing moves before Monday"
    )


async def test_the_deadline_counts_before_the_first_weight_too() -> None:
    late = {"deadlineSeconds": 600, "onDeadline": "rollBack"}
    world = await begun(lambda _: NO, gate(), **late)
    await world.run_until(lambda: world.phase == "RolledBack", 700)
    assert world.status["rejected"][0]["reason"] == "DeadlineExceeded"

    held = await begun(lambda _: NO, gate(), deadlineSeconds=600, onDeadline="hold")
    await held.run(700)
    assert held.phase == "Preparing"
    assert held.reasons.count("DeadlineExceeded") == 1


# ── questions that fail ───────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (Answer(503), "it answered 503"),
        (Answer(302), "it answered 302"),
        (Answer(201, b'{"allowed": true}'), "it answered 201"),
        (said("true"), 'it did not answer in JSON with "allowed" true or false'),
        (said(1), 'it did not answer in JSON with "allowed" true or false'),
        (Answer(200, b"OK"), 'it did not answer in JSON with "allowed" true or false'),
        (WebhookError("it did not answer in 10 s"), "it did not answer in 10 s"),
    ],
)
async def test_what_is_no_answer_holds(answer: Answer | WebhookError, why: str) -> None:
    world = await begun(lambda _: answer, gate())
    await world.run(30)
    assert world.weight == 0
    assert told(world) == [("GateClosed", f"gate freeze gives no answer: {why}")]
    assert world.status["gates"] == [{"name": "freeze", "answer": "failed", "message": why}]


async def test_a_question_that_fails_is_repeated_within_its_time_and_then_asked_anew() -> None:
    world = await begun(lambda _: Answer(503), gate(timeoutSeconds=5))
    await world.run(24)
    began = world.outside.posted[0].at
    at = [(it.at - began).total_seconds() for it in world.outside.posted]
    assert at[:12] == [0, 1, 2, 3, 4, 14, 15, 16, 17, 18]
    ids = [it.headers["webhook-id"] for it in world.outside.posted]
    assert len(set(ids[:5])) == 1
    assert len(set(ids[:10])) == 2


async def test_a_question_that_fails_and_then_does_not_is_told_to_nobody() -> None:
    world = await begun(lambda _: Answer(503) if len(world.outside.posted) < 4 else YES, gate())
    await running(world)
    assert told(world) == []


async def test_on_failure_pass_goes_on_and_says_so() -> None:
    world = await begun(
        lambda _: Answer(503), gate(timeoutSeconds=2, onFailure="pass", fromWeightPercent=50)
    )
    await world.run_until(lambda: world.phase == "Probation")
    words = "gate freeze gives no answer: it answered 503; it does not hold (onFailure: pass)"
    assert told(world) == [("GateSkipped", words)] * 2


async def test_on_failure_pass_does_not_pass_a_no() -> None:
    world = await begun(lambda _: NO, gate(onFailure="pass"))
    await world.run(120)
    assert world.weight == 0


async def test_where_the_administrator_lets_nobody_post_no_try_is_repeated() -> None:
    refused = NotAllowedError("the operator may not post to its address")
    world = await begun(lambda _: refused, gate())
    await world.run(5)
    assert len(world.outside.posted) == 1
    assert told(world)[0][1] == (
        "gate freeze gives no answer: the operator may not post to its address"
    )


async def test_a_bug_in_asking_is_logged_and_holds(caplog: pytest.LogCaptureFixture) -> None:
    def answer(_: Posted) -> Answer:
        raise RuntimeError("boom")

    world = await begun(answer, gate(timeoutSeconds=1))
    await world.run(5)
    assert "boom" in caplog.text
    assert world.weight == 0
    assert "the operator's log says why" in told(world)[0][1]


# ── several gates, and what changes meanwhile ─────────────────────────────────────────────────


async def test_all_must_say_yes_and_the_one_that_does_not_is_named() -> None:
    world = await begun(
        lambda it: no() if it.address == SMOKE else YES, gate(), gate("smoke", SMOKE)
    )
    await world.run(100)
    assert world.status["message"] == "ready; gate smoke says no"
    assert [(it["name"], it["answer"]) for it in world.status["gates"]] == [
        ("freeze", "allowed"),
        ("smoke", "refused"),
    ]
    assert told(world) == [("GateClosed", "gate smoke says no")]
    times = [it.at for it in world.outside.to(FREEZE)]
    assert {(b - a).total_seconds() for a, b in itertools.pairwise(times)} == {30}


async def test_a_yes_is_not_believed_for_longer_than_half_a_minute() -> None:
    world = await begun(lambda it: NO if it.address == SMOKE else YES, gate(), gate("smoke", SMOKE))
    await world.run(25)
    world.outside.answer = lambda it: NO if it.address == FREEZE else no()
    await world.run(15)
    world.outside.answer = lambda it: NO if it.address == FREEZE else YES
    await world.run(60)
    assert world.weight == 0


async def test_slow_gates_that_do_not_answer_at_one_time_pass_all_the_same() -> None:
    slow = {FREEZE: 120.0, SMOKE: 60.0}
    world = await healthy_world()
    until: dict[str, Any] = {}

    def answer(posted: Posted) -> Answer | WebhookError:
        """Fail until the gate has worked long enough on this question."""
        ready = until.setdefault(posted.body["id"] + posted.address, posted.at)
        worked = (posted.at - ready).total_seconds()
        return YES if worked >= slow[posted.address] else WebhookError("not yet")

    world.outside.answer = answer
    gates = (gate(timeoutSeconds=150), gate("smoke", SMOKE, timeoutSeconds=100))
    world.apply(manifest("2.0.0", rollout=rules(*gates)))
    await world.run(125)
    assert world.weight == 10
    assert told(world) == []


async def test_a_gate_that_leaves_the_spec_holds_no_longer() -> None:
    world = await begun(lambda _: NO, gate())
    await world.run(30)
    world.apply(manifest("2.0.0", rollout={"steps": STEPS}))
    await running(world)
    assert world.status["gates"] == []


async def test_after_a_restart_it_is_asked_again_and_the_event_is_not_repeated() -> None:
    world = await begun(lambda _: NO, gate())
    await world.run(15)
    asked = len(world.outside.posted)
    world.start_operator()
    await world.run(1)
    assert len(world.outside.posted) == asked + 1
    assert len(told(world)) == 1
    assert world.weight == 0


async def test_what_a_gate_says_is_one_short_line_of_text() -> None:
    words = "no\n\tnot  \x1b[31mnow\x00 \u202e" + "x" * 500
    world = await begun(lambda _: no(words), gate())
    await world.run(5)
    (shown,) = (it["message"] for it in world.status["gates"])
    assert shown == ("no not [31mnow " + "x" * 500)[:200]


async def test_a_closed_gate_is_told_to_receivers() -> None:
    world = await healthy_world()
    world.outside.answer = lambda it: NO if it.address == FREEZE else Answer(204)
    hook = {"name": "hook", "events": ["held"], "webhook": {"address": "http://hook"}}
    world.apply(manifest("2.0.0", rollout=rules(gate()), notifications=[hook]))
    await world.run(60)
    (posted,) = world.outside.to("http://hook")
    assert posted.body["type"] == "dev.crossfade.rollout.held"
    assert posted.body["data"]["reason"] == "GateClosed"


async def test_gates_that_close_together_are_news_with_ids_of_their_own() -> None:
    world = await healthy_world()
    world.outside.answer = lambda it: no(it.address) if it.address != "http://hook" else YES
    hook = {"name": "hook", "events": ["held"], "webhook": {"address": "http://hook"}}
    spec = rules(gate(), gate("smoke", SMOKE))
    world.apply(manifest("2.0.0", rollout=spec, notifications=[hook]))
    await world.run(5)
    messages = {it.body["id"]: it.body["data"]["message"] for it in world.outside.to("http://hook")}
    assert list(messages.values()) == [
        f"gate freeze says no: {FREEZE}",
        f"gate smoke says no: {SMOKE}",
    ]


async def test_answers_whose_words_change_are_not_written_at_each_question() -> None:
    world = await begun(lambda _: no(f"asked {len(world.outside.posted)} times"), gate())
    await world.run(30)
    before = len(world.cluster.writes)
    await world.run(300)
    assert len(world.cluster.writes) - before <= 6


async def test_each_answer_is_counted() -> None:
    counted: list[str] = []
    world = await begun(lambda _: NO if len(world.outside.posted) < 2 else YES, gate())
    world.reconciler._memory.gates._on_answer = counted.append
    await running(world)
    assert counted == ["refused", "allowed"]
