"""Receivers are told of what happened: in order, at least once, and nobody waits for them."""

from __future__ import annotations

import itertools
from datetime import timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from crossfade.core.notices import MOST_NOTICES, OCCASIONS
from crossfade.errors import WebhookError
from crossfade.evidence.verdicts import Verdict
from crossfade.reconcile import notices as shell
from crossfade.webhooks.client import Answer, NotAllowedError
from crossfade.webhooks.signing import RIGHT_KEY
from tests.unit.world import REF, Posted, World, healthy_world, manifest

HOOK = "http://hooks.example/rollouts"
OTHER = "http://other.example"
SLACK = "https://hooks.slack.com/services/T0/B0/verysecret"
SIGNING_KEY = b"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def receiver(name: str = "hook", address: str = HOOK, **more: Any) -> dict[str, Any]:
    return {"name": name, "webhook": {"address": address}, **more}


def slack() -> dict[str, Any]:
    ref = {"name": "crossfade-webhooks", "key": "slack"}
    return {"name": "team", "slack": {"address": ref}}


async def begun(*receivers: dict[str, Any], **spec: Any) -> World:
    """Return a world in which version 2.0.0 is about to be rolled out."""
    world = await healthy_world()
    world.apply(manifest("2.0.0", notifications=list(receivers), **spec))
    return world


def types(posted: list[Posted]) -> list[str]:
    return [it.body["type"].removeprefix("dev.crossfade.rollout.") for it in posted]


def waiting(world: World) -> list[tuple[str, list[str]]]:
    return [(it["reason"], it["receivers"]) for it in world.status["notices"]]


def failures(world: World) -> list[str]:
    return [note for reason, note in world.cluster.events if reason == "NotificationFailed"]


async def test_a_good_rollout_is_told_of_once_and_then_nothing_waits() -> None:
    world = await begun(receiver())
    await world.run_until(lambda: world.phase == "Probation")
    await world.run(1)
    assert types(world.outside.posted) == ["started", "promoted"]
    assert world.status["notices"] == []
    started, promoted = (it.body for it in world.outside.posted)
    assert started["source"] == "/namespaces/ml/modeldeployments/fraud"
    assert started["subject"] == "2.0.0"
    assert started["data"]["stable"]["version"] == "1.0.0"
    assert started["data"]["canary"]["version"] == "2.0.0"
    assert started["data"]["uid"] == world.cluster.objects[REF]["metadata"]["uid"]
    assert promoted["data"]["stable"]["version"] == "2.0.0"
    assert promoted["data"]["canary"] is None
    assert promoted["data"]["message"] == "version 2.0.0 is stable; 1.0.0 is kept ready"


async def test_a_notice_is_sent_only_after_it_is_written_down() -> None:
    world = await begun(receiver())
    written: list[bool] = []

    def answer(posted: Posted) -> Answer:
        written.append(any(it["id"] == posted.body["id"] for it in world.status["notices"]))
        return Answer(204)

    world.outside.answer = answer
    await world.run_until(lambda: world.phase == "Probation")
    await world.run(1)
    assert written == [True, True]


async def test_a_version_that_is_taken_back_is_told_of_with_its_weight_and_why() -> None:
    world = await begun(receiver())
    await world.run_until(lambda: world.status["weight"] == 10)
    world.analyst.verdicts["2.0.0"] = Verdict.HARM
    await world.run_until(lambda: world.phase == "RolledBack")
    assert types(world.outside.posted) == ["started", "rolledBack"]
    data = world.outside.posted[-1].body["data"]
    assert (data["reason"], data["phase"], data["weightPercent"]) == (
        "RollingBack",
        "RollingBack",
        10,
    )
    assert "errors: harm it is" in data["message"]


async def test_a_pause_and_a_passed_deadline_are_told() -> None:
    steps = [{"weightPercent": 10, "minSeconds": 10, "pause": {}}]
    rules = {"steps": steps, "deadlineSeconds": 600, "onDeadline": "hold"}
    world = await begun(receiver(), rollout=rules)
    await world.run_until(lambda: world.phase == "Paused")
    await world.run(1)
    assert types(world.outside.posted) == ["started", "held"]
    world.order("promote")
    world.analyst.verdicts["2.0.0"] = Verdict.NOT_ENOUGH_DATA
    await world.run_until(lambda: world.phase == "Probation")

    late = await begun(receiver(), rollout=rules)
    late.analyst.verdicts["2.0.0"] = Verdict.NOT_ENOUGH_DATA
    await late.run(700)
    assert types(late.outside.posted) == ["started", "deadline"]


async def test_a_receiver_is_told_only_of_what_it_wants() -> None:
    world = await begun(receiver(events=["promoted"]), receiver("other", OTHER))
    await world.run_until(lambda: world.phase == "Probation")
    await world.run(1)
    assert types(world.outside.to(HOOK)) == ["promoted"]
    assert types(world.outside.to(OTHER)) == ["started", "promoted"]


async def test_blind_metrics_hold_a_canary_and_nothing_in_probation() -> None:
    world = await begun(receiver())
    await world.run_until(lambda: world.status["weight"] == 10)
    world.analyst.unavailable = True
    await world.run(20)
    assert types(world.outside.posted) == ["started", "held"]

    settled = await begun(receiver())
    await settled.run_until(lambda: settled.phase == "Probation")
    settled.analyst.unavailable = True
    await settled.run(20)
    assert "MetricsUnavailable" in settled.reasons
    assert types(settled.outside.posted) == ["started", "promoted"]


async def test_it_is_sent_again_with_growing_pauses_and_the_same_id_until_it_is_taken() -> None:
    world = await begun(receiver(events=["started"]))
    world.outside.answer = lambda _: Answer(503 if len(world.outside.posted) < 12 else 200)
    await world.run(3000)
    posted = world.outside.posted
    pauses = [(b.at - a.at).total_seconds() for a, b in itertools.pairwise(posted)]
    assert pauses == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]
    assert len({it.headers["webhook-id"] for it in posted}) == 1
    assert posted[0].headers["webhook-id"] == posted[0].body["id"]
    assert world.status["notices"] == []
    assert failures(world) == []


async def test_later_notices_wait_for_the_earlier_ones_of_their_receiver_only() -> None:
    world = await begun(receiver(), receiver("other", OTHER))
    world.outside.answer = lambda it: Answer(503 if it.address == HOOK else 200)
    await world.run_until(lambda: world.phase == "Probation")
    await world.run(1)
    assert set(types(world.outside.to(HOOK))) == {"started"}
    assert types(world.outside.to(OTHER)) == ["started", "promoted"]
    assert waiting(world) == [("RolloutStarted", ["hook"]), ("Promoted", ["hook"])]
    world.outside.answer = lambda _: Answer(200)
    await world.run(300)
    assert types(world.outside.to(HOOK))[-2:] == ["started", "promoted"]
    assert world.status["notices"] == []


async def test_a_receiver_that_hangs_holds_neither_the_rollout_nor_another_receiver() -> None:
    world = await healthy_world()
    world.outside.hanging = {HOOK}
    world.apply(manifest("2.0.0", notifications=[receiver(), receiver("other", OTHER)]))
    await world.run_until(lambda: world.phase == "Probation", 120)
    await world.run(1)
    assert types(world.outside.to(OTHER)) == ["started", "promoted"]
    assert waiting(world) == [("RolloutStarted", ["hook"]), ("Promoted", ["hook"])]


@pytest.mark.parametrize("status", [400, 401, 404, 410])
async def test_a_receiver_that_does_not_want_it_is_not_asked_again(status: int) -> None:
    world = await begun(receiver(events=["started"]))
    world.outside.answer = lambda _: Answer(status)
    await world.run(60)
    assert len(world.outside.posted) == 1
    assert world.status["notices"] == []
    assert failures(world) == [f"hook will not be told of RolloutStarted: it answered {status}"]


@pytest.mark.parametrize("status", [302, 408, 429, 500])
async def test_what_may_pass_is_tried_again(status: int) -> None:
    world = await begun(receiver(events=["started"]))
    world.outside.answer = lambda _: Answer(status if len(world.outside.posted) < 3 else 200)
    await world.run(60)
    assert len(world.outside.posted) == 3
    assert failures(world) == []


async def test_after_an_hour_it_is_given_up_and_people_are_told() -> None:
    world = await begun(receiver(events=["started"]))
    world.outside.answer = lambda _: WebhookError("it is not reached: Connection refused")
    await world.run(59 * 60)
    assert waiting(world) == [("RolloutStarted", ["hook"])]
    assert failures(world) == []
    await world.run(6 * 60)
    assert world.status["notices"] == []
    assert failures(world) == [
        "hook will not be told of RolloutStarted: it is not reached: Connection refused"
    ]
    assert HOOK not in str(world.cluster.events)


async def test_where_the_administrator_lets_nobody_post_it_is_given_up_at_once() -> None:
    world = await begun(receiver(events=["started"]))
    world.outside.answer = lambda _: NotAllowedError("the operator may not post to its address")
    await world.run(5)
    assert len(world.outside.posted) == 1
    assert failures(world) == [
        "hook will not be told of RolloutStarted: the operator may not post to its address"
    ]


@pytest.mark.parametrize(
    ("asked", "pause"),
    [
        (lambda _: "30", 30),
        (lambda now: format_datetime(now + timedelta(seconds=40), usegmt=True), 40),
        (lambda _: "86400", 300),
        (lambda _: "9" * 5000, 300),
        (lambda _: "-5", 1),
        (lambda _: "soon", 1),
        (lambda _: "", 1),
        (lambda _: "Wed, 21 Oct 2015 07:28:00 GMT", 1),
        (lambda _: "Wed, 21 Oct 2015 07:28:00 -0000", 1),
    ],
)
async def test_a_receiver_says_when_to_try_again(asked: Any, pause: int) -> None:
    world = await begun(receiver(events=["started"]))

    def answer(_: Posted) -> Answer:
        first = len(world.outside.posted) == 1
        return Answer(429, retry_after=asked(world.now)) if first else Answer(200)

    world.outside.answer = answer
    await world.run(400)
    first, second = world.outside.posted
    assert (second.at - first.at).total_seconds() == pause


async def test_of_too_many_notices_the_oldest_goes_and_people_are_told() -> None:
    world = await begun(receiver(events=["started"]))
    world.outside.answer = lambda _: Answer(503)
    await world.run_until(lambda: bool(world.status.get("notices")))

    def fill(body: Any) -> None:
        (one,) = body["status"]["notices"]
        body["status"]["notices"] = [{**one, "id": f"n{n}"} for n in range(MOST_NOTICES)]

    await world.run_until(lambda: world.phase == "Probation")
    world.cluster.edit(REF, fill)
    world.apply(manifest("3.0.0", notifications=[receiver(events=["started"])]))
    await world.run(120)
    ids = [it["id"] for it in world.status["notices"]]
    assert len(ids) == MOST_NOTICES
    assert ids[:2] == ["n1", "n2"]
    assert failures(world) == ["hook will not be told of RolloutStarted: 20 newer notices wait"]


async def test_a_receiver_that_left_the_spec_is_not_waited_for() -> None:
    world = await begun(receiver(), receiver("other", OTHER))
    world.outside.answer = lambda _: Answer(503)
    await world.run(5)
    assert waiting(world) == [("RolloutStarted", ["hook", "other"])]
    world.apply(manifest("2.0.0", notifications=[receiver("other", OTHER)]))
    await world.run(1)
    assert waiting(world) == [("RolloutStarted", ["other"])]
    world.apply(manifest("2.0.0"))
    await world.run(1)
    assert world.status["notices"] == []
    assert failures(world) == []


async def test_after_a_restart_it_is_sent_again_with_the_same_id() -> None:
    world = await begun(receiver(events=["started"]))
    world.outside.answer = lambda _: Answer(503)
    await world.run(2)
    world.start_operator()
    world.outside.answer = lambda _: Answer(200)
    await world.run(1)
    assert len({it.body["id"] for it in world.outside.posted}) == 1
    assert world.status["notices"] == []


async def test_a_deletion_waits_for_no_receiver() -> None:
    world = await begun(receiver())
    world.outside.answer = lambda _: Answer(503)
    await world.run(2)
    world.cluster.delete(REF)
    await world.settle()
    assert REF not in world.cluster.objects
    sent = len(world.outside.posted)
    await world.run(60)
    assert len(world.outside.posted) == sent


async def test_a_request_is_signed_by_the_key_in_the_secret() -> None:
    key = {"name": "crossfade-webhooks", "key": "signing"}
    webhook = {"address": HOOK, "signingKey": key}
    world = await begun({"name": "hook", "webhook": webhook, "events": ["started"]})
    world.outside.secrets = {"crossfade-webhooks": {"signing": SIGNING_KEY + b"\n"}}
    await world.run(1)
    (posted,) = world.outside.posted
    assert posted.headers["webhook-signature"].startswith("v1,")
    assert posted.headers["Content-Type"] == "application/cloudevents+json"
    assert int(posted.headers["webhook-timestamp"]) == int(posted.at.timestamp())


@pytest.mark.parametrize(
    ("secrets", "why"),
    [
        ({}, "there is no Secret crossfade-webhooks in namespace ml"),
        (
            {"crossfade-webhooks": {"other": b"x"}},
            "Secret ml/crossfade-webhooks has no key signing",
        ),
        (
            {"crossfade-webhooks": {"signing": b"hunter2"}},
            f"key signing of Secret ml/crossfade-webhooks: a signing key is {RIGHT_KEY}",
        ),
    ],
)
async def test_what_is_wrong_with_a_key_is_said_without_the_key(
    secrets: dict[str, dict[str, bytes]], why: str
) -> None:
    key = {"name": "crossfade-webhooks", "key": "signing"}
    webhook = {"address": HOOK, "signingKey": key}
    world = await begun({"name": "hook", "webhook": webhook, "events": ["started"]})
    world.outside.secrets = secrets
    await world.run(4000)
    assert world.outside.posted == []
    assert failures(world) == [f"hook will not be told of RolloutStarted: {why}"]


async def test_slack_gets_a_line_of_text_at_its_secret_address() -> None:
    world = await begun(slack())
    world.outside.secrets = {"crossfade-webhooks": {"slack": SLACK.encode()}}
    await world.run_until(lambda: world.phase == "Probation")
    await world.run(1)
    assert [it.address for it in world.outside.posted] == [SLACK, SLACK]
    assert [it.body for it in world.outside.posted] == [
        {"text": "*ml/fraud* rollout started: version 2.0.0 is rolled out beside 1.0.0"},
        {"text": "*ml/fraud* promoted: version 2.0.0 is stable; 1.0.0 is kept ready"},
    ]
    assert not any(name.startswith("webhook-") for name in world.outside.posted[0].headers)


@pytest.mark.parametrize("address", [b"hooks.slack.com/x", b"https://user:pw@hooks.slack.com/x"])
async def test_what_is_no_address_of_slack_is_named_by_its_place(address: bytes) -> None:
    world = await begun(slack())
    world.outside.secrets = {"crossfade-webhooks": {"slack": address}}
    await world.run(4000)
    assert world.outside.posted == []
    assert failures(world)[0] == (
        "team will not be told of RolloutStarted: key slack of Secret ml/crossfade-webhooks: an "
        "address is such as https://hooks.slack.com/services/T000/B000/XXXX"
    )


async def test_nothing_secret_is_in_status_events_or_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    world = await begun(slack())
    world.outside.secrets = {"crossfade-webhooks": {"slack": SLACK.encode()}}
    world.outside.answer = lambda _: Answer(404)
    await world.run(20)
    assert failures(world)
    logged = " ".join(str(record.__dict__) for record in caplog.records)
    assert "verysecret" not in f"{logged}{world.status}{world.cluster.events}"


async def test_a_bug_in_sending_is_logged_and_tried_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    world = await begun(receiver(events=["started"]))

    def answer(_: Posted) -> Answer:
        if len(world.outside.posted) == 1:
            raise RuntimeError("boom")
        return Answer(200)

    world.outside.answer = answer
    await world.run(5)
    assert "boom" in caplog.text
    assert len(world.outside.posted) == 2
    assert world.status["notices"] == []


async def test_each_try_is_counted() -> None:
    counted: list[str] = []
    world = await begun(receiver(events=["started"]), receiver("other", OTHER))
    world.outside.answer = lambda it: Answer(
        410 if it.address == OTHER else 503 if len(world.outside.to(HOOK)) < 2 else 200
    )
    world.reconciler._memory.notices._on_try = counted.append
    await world.run(3)
    assert sorted(counted) == ["failed", "givenUp", "taken"]


def test_no_occasion_is_of_the_failure_to_tell() -> None:
    assert "NotificationFailed" not in OCCASIONS
    assert set(OCCASIONS.values()) == {"started", "held", "promoted", "rolledBack", "deadline"}
    assert shell.LONGEST_PAUSE < shell.GIVEN_UP_AFTER
