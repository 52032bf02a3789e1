"""Orders from the command line, over the operator itself in the simulated world."""

from __future__ import annotations

import argparse
import asyncio
import copy
import json
from collections.abc import Iterator
from datetime import datetime
from io import StringIO
from typing import Any

import pytest
from typing_extensions import override

from crossfade.api.v1alpha1 import Phase
from crossfade.cli import explain, history, listing, orders, status
from crossfade.cli.clock import Clock
from crossfade.cli.deployed import read
from crossfade.cli.exits import FailedError, TooLateError
from crossfade.cli.kubectl import Body, NotThereError
from crossfade.core.commands import HELD_BY_PAUSE, Order, why_not
from crossfade.evidence.verdicts import Verdict
from crossfade.webhooks.client import Answer
from tests.unit.test_commands import world_in
from tests.unit.world import REF, World, healthy_world, manifest

VERBS = ("promote", "promote --full", "abort", "retry", "undo")
ORDERS = dict(zip(VERBS, Order, strict=True))


class FakeClock(Clock):
    """The world's time; to sleep lets the operator work."""

    def __init__(self, world: World, runner: asyncio.Runner, *, dead: bool = False) -> None:
        self._world, self._runner, self._dead = world, runner, dead

    @override
    def now(self) -> datetime:
        return self._world.now

    @override
    def sleep(self, seconds: float) -> None:
        if not self._dead:
            self._runner.run(self._world.run(seconds))
        else:
            self._world.now += orders.TAKEN_WITHIN


class FakeCluster:
    """What kubectl would do, to the world."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.written_between = 0
        """How often somebody writes just before an order."""
        self.events_allowed = True
        self.revisions_allowed = True
        self.failures = 0
        """How often reading fails from now on."""

    def deployment(self, name: str) -> Body:
        if self.failures:
            self.failures -= 1
            raise FailedError("kubectl: the connection was refused")
        if name != REF.name:
            raise NotThereError(f'there is no ModelDeployment "{name}" here')
        return copy.deepcopy(self.world.cluster.objects[REF])

    def deployments(self, *, everywhere: bool) -> list[Body]:
        return [self.deployment(REF.name)]

    def events(self, body: Body) -> list[Body]:
        if not self.events_allowed:
            raise FailedError("not allowed")
        at = self.world.now.isoformat()
        return [
            {"eventTime": at, "reason": reason, "message": note, "type": "Normal"}
            for reason, note in self.world.cluster.events
        ]

    def revisions(self, body: Body) -> list[Body]:
        if not self.revisions_allowed:
            raise FailedError("not allowed")
        return [copy.deepcopy(it) for it in self.world.revisions]

    def order(self, body: Body, command: str) -> bool:
        if self.written_between:
            self.written_between -= 1
            self.world.cluster.edit(REF, lambda it: it["metadata"].setdefault("labels", {}))
        live = self.world.cluster.objects[REF]["metadata"]["resourceVersion"]
        if body["metadata"]["resourceVersion"] != live:
            return False
        self.world.order(command)
        return True

    def set_paused(self, body: Body, *, paused: bool) -> None:
        def change(live: dict[str, Any]) -> None:
            live["spec"] = copy.deepcopy(live["spec"])
            live["spec"].setdefault("rollout", {})["paused"] = paused

        self.world.cluster.edit(REF, change)


class Setting:
    """A world in a phase, and the command line before it."""

    def __init__(self, runner: asyncio.Runner) -> None:
        self.runner = runner
        self.dead = False

    def start(self, phase: str) -> None:
        self.use(self.runner.run(world_in(phase)))

    def use(self, world: World) -> None:
        self.world, self.cluster = world, FakeCluster(world)

    @property
    def clock(self) -> FakeClock:
        return FakeClock(self.world, self.runner, dead=self.dead)

    def order(self, verb: str, output: str | None = None) -> int:
        word, *flags = verb.split()
        number = int(flags[-1]) if "--to-revision" in flags else None
        options = argparse.Namespace(
            name=REF.name, full="--full" in flags, to_revision=number, output=output
        )
        return orders.carry_out(word, options, self.cluster, self.clock)

    def status(self, stream: StringIO, **more: Any) -> int:
        given = {"name": REF.name, "watch": False, "wait_for": None, "timeout": status.WAIT}
        options = argparse.Namespace(**{**given, "output": None, **more})
        return status.show(options, self.cluster, stream, self.clock)

    def run(self, seconds: float) -> None:
        self.runner.run(self.world.run(seconds))


@pytest.fixture
def setting() -> Iterator[Setting]:
    with asyncio.Runner() as runner:
        yield Setting(runner)


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("phase", list(Phase))
def test_every_order_works_in_every_phase_or_says_why_not(
    setting: Setting, phase: str, verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    setting.start(phase)
    body = setting.cluster.deployment(REF.name)
    deployed = read(body, setting.cluster.revisions(body))
    assert deployed.spec is not None
    why = why_not(
        ORDERS[verb], deployed.spec, deployed.status, deployed.revision, deployed.revisions
    )
    if why is not None:
        with pytest.raises(FailedError, match="is refused") as refused:
            setting.order(verb)
        assert why in str(refused.value)
        assert setting.world.reasons.count("CommandIgnored") == 0, "it was not even given"
    else:
        assert setting.order(verb) == 0
        assert "CommandIgnored" not in setting.world.reasons
        assert capsys.readouterr().out.startswith(f"{deployed.key}: ")


def test_full_promotion_ends_in_the_new_version(setting: Setting) -> None:
    setting.start("Paused")
    setting.order("promote --full")
    setting.run(10)
    assert setting.world.stable == "2.0.0"


@pytest.mark.parametrize("phase", list(Phase))
def test_pause_and_resume_work_in_every_phase_and_say_what_they_hold(
    setting: Setting, phase: str, capsys: pytest.CaptureFixture[str]
) -> None:
    setting.start(phase)
    assert setting.order("pause") == 0
    said = capsys.readouterr().out
    assert ("holds" in said) == (phase in HELD_BY_PAUSE)
    assert ("the next new version gets no weight" in said) == (phase not in HELD_BY_PAUSE)
    assert setting.order("pause") == 0
    assert "paused already" in capsys.readouterr().out
    assert setting.order("resume") == 0
    assert "goes on" in capsys.readouterr().out
    assert setting.world.cluster.objects[REF]["spec"]["rollout"]["paused"] is False


def test_resume_of_a_step_that_waits_for_a_person_says_what_to_do(setting: Setting) -> None:
    setting.start("Paused")
    with pytest.raises(
        FailedError, match=r"step 2/3 that pauses \(crossfade promote fraud -n ml\)"
    ):
        setting.order("resume")


def test_promote_while_paused_says_how_to_go_on(setting: Setting) -> None:
    setting.start("Progressing")
    setting.order("pause")
    with pytest.raises(FailedError, match=r"paused is true.*\(crossfade resume fraud -n ml\)"):
        setting.order("promote")


def test_an_order_is_given_again_when_somebody_wrote_in_between(setting: Setting) -> None:
    setting.start("Progressing")
    setting.cluster.written_between = 3
    assert setting.order("abort") == 0
    assert setting.world.status["rejected"][0]["reason"] == "Aborted"


def test_an_order_that_never_gets_through_is_told(setting: Setting) -> None:
    setting.start("Progressing")
    setting.cluster.written_between = 1000
    with pytest.raises(FailedError, match="try again"):
        setting.order("abort")


def test_an_operator_that_is_away_is_told_and_the_order_stands(setting: Setting) -> None:
    setting.start("Progressing")
    setting.dead = True
    with pytest.raises(TooLateError, match="the operator has not taken the order"):
        setting.order("abort")
    with pytest.raises(FailedError, match=r'"abort" stands at .* is the operator running'):
        setting.order("promote")
    with pytest.raises(TooLateError, match="the operator has not taken the change"):
        setting.order("pause")


def test_a_spec_that_cannot_be_read_refuses_every_order(setting: Setting) -> None:
    setting.start("Progressing")
    world = setting.world
    world.cluster.edit(REF, lambda it: it["spec"].update(modle={}))
    for verb in VERBS:
        with pytest.raises(FailedError, match="the spec cannot be read, so nothing is done"):
            setting.order(verb)
    with pytest.raises(FailedError, match="the spec cannot be read"):
        setting.order("pause")


@pytest.mark.parametrize(("output", "start"), [("name", "modeldep"), ("json", "{"), ("yaml", "ap")])
def test_orders_print_for_programs(
    setting: Setting, output: str, start: str, capsys: pytest.CaptureFixture[str]
) -> None:
    setting.start("Progressing")
    setting.order("abort", output)
    assert capsys.readouterr().out.startswith(start)


# ── status ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("phase", list(Phase))
def test_status_shows_every_phase(setting: Setting, phase: str) -> None:
    setting.start(phase)
    out = StringIO()
    assert setting.status(out) == 0
    first = out.getvalue().splitlines()[0]
    assert first.startswith(f"ml/fraud  {phase}")
    assert "\x1b" not in out.getvalue()


@pytest.mark.parametrize("state", ["promoted", "healthy"])
def test_wait_for_ends_where_it_was_waited_for(setting: Setting, state: str) -> None:
    setting.start("Progressing")
    out = StringIO()
    assert setting.status(out, wait_for=state) == 0
    assert setting.world.stable == "2.0.0"
    assert setting.world.phase == ("Probation" if state == "promoted" else "Healthy")
    phases = [line.split()[1] for line in out.getvalue().splitlines()]
    assert phases[0] == "Progressing"
    assert phases[-1] == setting.world.phase


def test_wait_for_does_not_take_the_state_of_an_older_spec_for_that_of_the_new_one(
    setting: Setting,
) -> None:
    setting.start("Healthy")
    setting.world.apply(manifest("2.0.0"))
    out = StringIO()
    assert setting.status(out, wait_for="healthy") == 0
    assert setting.world.stable == "2.0.0"


@pytest.mark.parametrize("state", ["promoted", "healthy", "paused"])
def test_wait_for_fails_at_once_when_the_version_was_taken_back(
    setting: Setting, state: str
) -> None:
    setting.start("RollingBack")
    with pytest.raises(FailedError, match=f"will not be {state}: version 2.0.0 was taken back"):
        setting.status(StringIO(), wait_for=state)
    assert setting.world.phase == "RolledBack"


def test_wait_for_a_rollback_ends_there_and_fails_when_the_version_is_promoted(
    setting: Setting,
) -> None:
    setting.start("RollingBack")
    assert setting.status(StringIO(), wait_for="rolledBack") == 0
    setting.start("Progressing")
    with pytest.raises(FailedError, match="it is Healthy, and no rollout is under way"):
        setting.status(StringIO(), wait_for="rolledBack")


def test_wait_for_says_where_it_is_when_the_time_is_over(setting: Setting) -> None:
    setting.start("Paused")
    with pytest.raises(TooLateError, match=r"is not promoted after 10m0s: Paused  step 2/3"):
        setting.status(StringIO(), wait_for="promoted")


def test_wait_for_prints_nothing_but_the_object_for_programs(setting: Setting) -> None:
    setting.start("Progressing")
    out = StringIO()
    setting.status(out, wait_for="promoted", output="json")
    assert json.loads(out.getvalue())["status"]["phase"] == "Probation"


def test_a_watch_forgives_a_cluster_that_is_away_for_a_moment(setting: Setting) -> None:
    setting.start("Progressing")
    clock, seen = setting.clock, []

    def sleep(seconds: float) -> None:
        seen.append(seconds)
        if len(seen) == 1:
            setting.cluster.failures = 3
        FakeClock.sleep(clock, seconds)

    clock.sleep = sleep  # type: ignore[method-assign]
    options = argparse.Namespace(
        name=REF.name, watch=False, wait_for="promoted", timeout=status.WAIT, output=None
    )
    assert status.show(options, setting.cluster, StringIO(), clock) == 0


def test_a_watch_gives_up_on_a_cluster_that_stays_away(setting: Setting) -> None:
    setting.start("Paused")
    setting.cluster.failures = 0
    clock = setting.clock

    def sleep(seconds: float) -> None:
        setting.cluster.failures = 10_000
        FakeClock.sleep(clock, seconds)

    clock.sleep = sleep  # type: ignore[method-assign]
    options = argparse.Namespace(
        name=REF.name, watch=True, wait_for=None, timeout=status.WAIT, output=None
    )
    with pytest.raises(FailedError, match="refused"):
        status.show(options, setting.cluster, StringIO(), clock)


class Tty(StringIO):
    encoding = "utf-8"

    @override
    def isatty(self) -> bool:
        return True


def test_a_terminal_is_drawn_again_and_left_as_it_was(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    setting.start("Progressing")
    out = Tty()
    clock = setting.clock

    def interrupted(seconds: float) -> None:
        raise KeyboardInterrupt

    clock.sleep = interrupted  # type: ignore[method-assign]
    options = argparse.Namespace(
        name=REF.name, watch=True, wait_for=None, timeout=status.WAIT, output=None
    )
    assert status.show(options, setting.cluster, out, clock) == 0
    before, _, after = out.getvalue().partition("\x1b[?1049l")
    assert before.startswith("\x1b[?1049h")
    assert "Progressing" in before
    assert "Progressing" in after, "the last view stays"


def test_events_that_may_not_be_read_hide_nothing_else(setting: Setting) -> None:
    setting.start("Progressing")
    setting.cluster.events_allowed = False
    out = StringIO()
    assert setting.status(out) == 0
    assert "you may not read them" in out.getvalue()


# ── list, history, explain ────────────────────────────────────────────────────────────────────


def test_list_has_a_line_for_each(setting: Setting, capsys: pytest.CaptureFixture[str]) -> None:
    setting.start("Progressing")
    setting.run(2)
    options = argparse.Namespace(all_namespaces=True, output=None)
    assert listing.show(options, setting.cluster) == 0
    header, line = capsys.readouterr().out.splitlines()
    assert header.split()[:3] == ["NAMESPACE", "NAME", "PHASE"]
    assert line.split()[:5] == ["ml", "fraud", "Progressing", "1.0.0", "2.0.0"]


def test_history_keeps_a_rejection_whose_event_is_gone(
    setting: Setting, capsys: pytest.CaptureFixture[str]
) -> None:
    setting.start("RolledBack")
    options = argparse.Namespace(name=REF.name, output="json")
    history.show(options, setting.cluster)
    told = [entry["reason"] for entry in json.loads(capsys.readouterr().out)["events"]]
    assert told.count("Rejected") == 0
    assert told.count("RollingBack") == 1
    setting.world.cluster.events.clear()
    history.show(options, setting.cluster)
    (entry,) = json.loads(capsys.readouterr().out)["events"]
    assert entry["reason"] == "Rejected"
    assert entry["message"].startswith("version 2.0.0 was taken back (MetricHarm): errors: ")


def show_history(setting: Setting, output: str | None = None) -> None:
    history.show(argparse.Namespace(name=REF.name, output=output), setting.cluster)


def test_history_begins_with_the_revisions(
    setting: Setting, capsys: pytest.CaptureFixture[str]
) -> None:
    setting.start("RolledBack")
    setting.world.cluster.events.clear()
    show_history(setting)
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == ["REVISION", "VERSION", "HASH", "STARTED", "PROMOTED", "ENDED", "WHY"]
    assert lines[1][:2] == ["1", "1.0.0"]
    assert lines[1][-1] == "serves"
    assert lines[2][:2] == ["2", "2.0.0"]
    assert lines[2][-5:] == ["MetricHarm:", "errors:", "harm", "it", "is"]
    assert lines[3] == []
    assert lines[4] == ["TIME", "WHAT", "WHY"]


def test_history_tells_programs_of_revisions_and_events(
    setting: Setting, capsys: pytest.CaptureFixture[str]
) -> None:
    setting.start("Progressing")
    show_history(setting, "json")
    told = json.loads(capsys.readouterr().out)
    stable, canary = told["revisions"]
    assert (stable["number"], stable["version"]) == (1, "1.0.0")
    assert "promotedAt" in stable
    assert (canary["number"], canary["revision"]) == (
        2,
        setting.world.status["canary"]["revision"],
    )
    assert canary.keys() == {"number", "version", "revision", "startedAt"}
    assert "RolloutStarted" in [event["reason"] for event in told["events"]]


def test_history_without_the_right_to_read_revisions_tells_the_rest(
    setting: Setting, capsys: pytest.CaptureFixture[str]
) -> None:
    setting.start("RolledBack")
    setting.cluster.revisions_allowed = False
    show_history(setting)
    said = capsys.readouterr()
    assert "you may not read ControllerRevisions" in said.err
    assert said.out.startswith("TIME")
    with pytest.raises(FailedError, match="not allowed"):
        setting.order("undo")


async def two_versions() -> World:
    world = await healthy_world()
    world.apply(manifest("2.0.0"))
    await world.run_until(lambda: (world.phase, world.stable) == ("Healthy", "2.0.0"))
    await world.settle()
    return world


@pytest.mark.parametrize("verb", ["undo", "undo --to-revision 1"])
def test_undo_goes_back_and_is_never_taken_for_a_promotion(
    setting: Setting, verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    setting.use(setting.runner.run(two_versions()))
    assert setting.order(verb) == 0
    assert "it goes back to an earlier version; now " in capsys.readouterr().out
    with pytest.raises(FailedError, match=r"will not be promoted: .*\(Undone\)"):
        setting.status(StringIO(), wait_for="promoted")
    assert (setting.world.phase, setting.world.stable) == ("RolledBack", "1.0.0")


def test_undo_to_a_revision_that_is_not_there_says_which_are(setting: Setting) -> None:
    setting.use(setting.runner.run(two_versions()))
    with pytest.raises(
        FailedError, match=r"no revision 9; kept are 1 \(version 1.0.0\), 2 \(version 2.0.0\)"
    ):
        setting.order("undo --to-revision 9")


def test_explain_knows_whether_there_is_an_earlier_version(
    setting: Setting, capsys: pytest.CaptureFixture[str]
) -> None:
    options = argparse.Namespace(name=REF.name, output="json")
    for world, allowed in ((healthy_world(), False), (two_versions(), True)):
        setting.use(setting.runner.run(world))
        explain.show(options, setting.cluster, setting.clock)
        assert json.loads(capsys.readouterr().out)["orders"]["undo"]["allowed"] is allowed


@pytest.mark.parametrize("phase", list(Phase))
def test_explain_says_in_every_phase_what_would_move_it_and_which_orders_it_takes(
    setting: Setting, phase: str
) -> None:
    setting.start(phase)
    deployed = read(setting.cluster.deployment(REF.name))
    said = explain.explain(deployed, setting.world.now)
    assert said.moves
    assert phase in said.where
    assert {order: deployed.why_not(Order(order)) for order in said.orders} == said.orders


def explained(setting: Setting) -> str:
    deployed = read(setting.cluster.deployment(REF.name))
    return "\n".join(explain.explain(deployed, setting.world.now).moves)


def test_explain_names_every_closed_gate_and_not_only_the_first(setting: Setting) -> None:
    setting.start("Paused")
    setting.world.analyst.verdicts["2.0.0"] = Verdict.NOT_ENOUGH_DATA
    setting.order("pause")
    setting.run(30)
    said = explained(setting)
    assert "spec.rollout.paused is true: crossfade resume fraud" in said
    assert "errors: notEnoughData it is" in said
    assert "(crossfade promote fraud -n ml)" in said
    assert "it gets 50 %" in said


def test_explain_tells_of_time_that_is_left(setting: Setting) -> None:
    setting.start("Progressing")
    setting.run(2)
    assert "at this weight for" in explained(setting)
    assert "deadlineSeconds, in" in explained(setting)
    setting.start("Probation")
    assert "probationSeconds, in" in explained(setting)


def test_explain_after_a_full_promotion_says_what_is_next(setting: Setting) -> None:
    setting.start("Paused")
    setting.world.cluster.ready_at_most = 1
    setting.order("promote --full")
    assert "it gets everything" in explained(setting)


async def joined_world() -> World:
    world = await healthy_world()
    world.cluster.gateway_accepts = False
    world.apply(manifest("2.0.0"))
    await world.run(30)
    return world


async def gated_world(from_weight: int) -> World:
    world = await healthy_world()
    world.outside.answer = lambda _: Answer(200, b'{"allowed": false, "message": "not now"}')
    gate = {"name": "freeze", "webhook": {"address": "http://gate"}}
    body = manifest("2.0.0")
    body["spec"]["rollout"]["gates"] = [{**gate, "fromWeightPercent": from_weight}]
    world.apply(body)
    await world.run(30)
    return world


def test_explain_says_which_gate_says_no_and_how_to_go_on_without_it(setting: Setting) -> None:
    setting.use(setting.runner.run(gated_world(50)))
    assert (
        "gate freeze says no: not now "
        "(it is asked again; crossfade promote fraud -n ml goes on without it)"
    ) in explained(setting)
    setting.use(setting.runner.run(gated_world(0)))
    assert "every gate of the first weight says yes; they are asked again" in explained(setting)


def test_explain_says_what_a_condition_says(setting: Setting) -> None:
    setting.use(setting.runner.run(joined_world()))
    deployed = read(setting.cluster.deployment(REF.name))
    why = "\n".join(explain.explain(deployed, setting.world.now).why)
    assert "RouteAccepted is" in why
