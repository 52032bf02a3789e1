"""ControllerRevisions: what is recorded of versions, when, and that nothing waits for it."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import Any

import pytest

from crossfade.api.parse import parse_spec
from crossfade.core.actions import Apply, Manifest, MergePatch, Write
from crossfade.core.history import KEPT_REVISIONS
from crossfade.core.records import Record
from crossfade.errors import InvalidSpecError
from crossfade.evidence.verdicts import Verdict
from crossfade.kube.resources import CONTROLLER_REVISION
from crossfade.names import LABEL_REVISION
from crossfade.reconcile.records import PAUSE
from crossfade.workload.record import read_record, spec_with
from crossfade.workload.revision import revision_of
from tests.unit.world import KEY, REF, START, World, healthy_world, manifest

Told = tuple[int, str, bool, str]
"""Number, version, whether it was promoted, and why it ended; "" while it runs."""


def told(world: World) -> list[Told]:
    return [(it.number, it.version, it.promoted_at is not None, it.reason) for it in records(world)]


def records(world: World) -> list[Record]:
    found = [read_record(body) for body in world.revisions]
    assert None not in found
    return [it for it in found if it is not None]


def last(world: World) -> Record:
    return records(world)[-1]


async def promoted(world: World, version: str, **spec: Any) -> None:
    """Roll a version out, to the end of its probation."""
    world.apply(manifest(version, **spec))
    await world.run_until(lambda: (world.phase, world.stable) == ("Healthy", version))
    await world.settle()


async def world_of(*versions: str) -> World:
    """Return a world in which some versions were stable, one after the other."""
    first, *others = versions
    world = await healthy_world(first)
    for version in others:
        await promoted(world, version)
    return world


async def test_the_first_version_is_recorded_with_what_is_served() -> None:
    world = await healthy_world()
    (body,) = world.revisions
    assert told(world) == [(1, "1.0.0", True, "")]
    asked = manifest()["spec"]
    assert body["data"] == {"model": asked["model"], "template": asked["template"]}
    (owner,) = body["metadata"]["ownerReferences"]
    assert owner["uid"] == world.cluster.objects[REF]["metadata"]["uid"]
    deployment = world.deployments[body["metadata"]["name"]]
    assert body["metadata"]["labels"].items() <= deployment["metadata"]["labels"].items()


async def test_what_is_recorded_is_exactly_what_the_hash_is_of() -> None:
    world = await healthy_world()
    (body,) = world.revisions
    revision = body["metadata"]["labels"][LABEL_REVISION]
    assert revision_of(parse_spec({"spec": {**manifest()["spec"], **body["data"]}})) == revision


async def test_a_rollout_is_recorded_from_its_start_to_its_replacement() -> None:
    world = await healthy_world()
    world.apply(manifest("2.0.0"))
    await world.run_until(lambda: world.weight == 10)
    await world.settle()
    assert told(world) == [(1, "1.0.0", True, ""), (2, "2.0.0", False, "")]
    started = world.status["rollout"]["startedAt"]
    await world.run_until(lambda: world.phase == "Probation")
    await world.settle()
    old, new = records(world)
    assert told(world) == [(1, "1.0.0", True, "Replaced"), (2, "2.0.0", True, "")]
    assert old.ended_at == new.promoted_at
    assert old.message == "version 2.0.0 was promoted"
    assert new.started_at is not None
    assert new.started_at.isoformat().replace("+00:00", "Z") == started


async def test_a_rollout_costs_three_writes_of_history_and_rest_none() -> None:
    world = await healthy_world()
    before = len(world.cluster.writes)
    await promoted(world, "2.0.0")
    written = [it for it in world.cluster.writes[before:] if "ControllerRevision" in it]
    assert [it.split()[0] for it in written] == ["apply", "mergepatch", "mergepatch"]
    before = len(world.cluster.writes)
    for _ in range(20):
        world.awake = True
        await world.run(30)
    world.start_operator()
    await world.run(30)
    assert len(world.cluster.writes) == before


async def test_a_version_that_is_taken_back_is_recorded_with_its_reason() -> None:
    world = await healthy_world()
    world.analyst.verdicts["2.0.0"] = Verdict.HARM
    world.apply(manifest("2.0.0"))
    await world.run_until(lambda: world.phase == "RolledBack")
    await world.settle()
    assert told(world) == [(1, "1.0.0", True, ""), (2, "2.0.0", False, "MetricHarm")]
    assert last(world).message == "errors: harm it is"


async def test_a_version_that_fails_in_probation_was_promoted_and_the_old_one_runs_again() -> None:
    world = await healthy_world()
    world.apply(manifest("2.0.0"))
    await world.run_until(lambda: world.phase == "Probation")
    world.analyst.verdicts["2.0.0"] = Verdict.HARM
    await world.run_until(lambda: world.phase == "RolledBack")
    await world.settle()
    assert told(world) == [(2, "2.0.0", True, "MetricHarm"), (3, "1.0.0", True, "")]
    assert last(world).ended_at is None


@pytest.mark.parametrize(("asked", "reason"), [("1.0.0", "Cancelled"), ("3.0.0", "Superseded")])
async def test_a_version_that_nobody_asks_for_any_more_is_recorded_so(
    asked: str, reason: str
) -> None:
    world = await healthy_world()
    world.apply(manifest("2.0.0"))
    await world.run_until(lambda: world.weight == 10)
    world.apply(manifest(asked))
    await world.run_until(lambda: world.phase == "RollingBack")
    await world.settle()
    assert told(world)[:2] == [(1, "1.0.0", True, ""), (2, "2.0.0", False, reason)]
    assert asked in last(world).message


async def test_a_version_that_runs_again_gets_the_next_number_and_new_times() -> None:
    world = await healthy_world()
    world.analyst.verdicts["2.0.0"] = Verdict.HARM
    world.apply(manifest("2.0.0"))
    await world.run_until(lambda: world.phase == "RolledBack")
    await world.settle()
    before = last(world)
    world.analyst.verdicts.clear()
    world.order("retry")
    await world.run_until(lambda: world.weight == 10)
    await world.settle()
    again = last(world)
    assert told(world) == [(1, "1.0.0", True, ""), (3, "2.0.0", False, "")]
    assert again.started_at is not None
    assert before.ended_at is not None
    assert again.started_at >= before.ended_at
    assert (again.ended_at, again.message) == (None, "")


async def test_the_newest_ten_are_kept() -> None:
    world = await world_of(*(f"{n}.0.0" for n in range(1, 14)))
    assert len(world.revisions) == KEPT_REVISIONS
    assert [it.number for it in records(world)] == list(range(4, 14))


async def test_what_serves_and_what_an_undo_names_is_kept_however_old() -> None:
    world = await world_of("1.0.0", "2.0.0")
    world.order("undo")
    await world.run_until(lambda: (world.phase, world.stable) == ("RolledBack", "1.0.0"))
    for n in range(3, 15):
        world.analyst.verdicts[f"{n}.0.0"] = Verdict.HARM
        world.apply(manifest(f"{n}.0.0"))
        await world.run_until(partial(_has_rejected, world, f"{n}.0.0"))
        await world.run_until(lambda: world.phase == "RolledBack")
        await world.settle()
    assert len(world.revisions) == KEPT_REVISIONS + 1
    assert told(world)[0] == (3, "1.0.0", True, "")


def _has_rejected(world: World, version: str) -> bool:
    return any(it["version"] == version for it in world.status.get("rejected", ()))


# ── what was not recorded from the start ──────────────────────────────────────────────────────


def forget_history(world: World) -> None:
    """Make the world one of an older operator's."""
    for ref in [it for it in world.cluster.objects if it.kind == "ControllerRevision"]:
        world.cluster.delete(ref)
    world.start_operator()


async def test_after_an_upgrade_the_stable_version_gets_a_record() -> None:
    world = await world_of("1.0.0", "2.0.0")
    forget_history(world)
    await world.settle()
    assert told(world) == [(1, "2.0.0", True, "")]
    assert last(world).started_at is None, "nobody knows"


async def test_what_the_spec_does_not_ask_for_any_more_is_not_known() -> None:
    world = await healthy_world()
    world.apply(manifest("2.0.0"))
    await world.run_until(lambda: world.weight == 10)
    forget_history(world)
    await world.settle()
    assert told(world) == [(1, "2.0.0", False, "")]
    await world.run_until(lambda: world.phase == "Healthy")
    await world.settle()
    assert told(world) == [(1, "2.0.0", True, "")]


async def test_what_was_removed_while_nobody_looked_is_closed() -> None:
    world = await healthy_world()
    world.apply(manifest("2.0.0"))
    await world.run_until(lambda: world.weight == 10)

    def lose(body: Manifest) -> None:
        status = {k: v for k, v in body["status"].items() if k not in ("canary", "rollout")}
        body["status"] = {**status, "phase": "Healthy", "weight": 0}

    world.apply(manifest("1.0.0"))
    world.cluster.edit(REF, lose)
    await world.settle()
    assert told(world) == [(1, "1.0.0", True, ""), (2, "2.0.0", False, "Removed")]


# ── what is refused ───────────────────────────────────────────────────────────────────────────


def is_record(write: Write) -> bool:
    return isinstance(write, Apply | MergePatch) and write.manifest["kind"] == "ControllerRevision"


async def test_history_that_is_refused_holds_no_rollout_and_is_told_once() -> None:
    world = await healthy_world()
    world.cluster.refuse = lambda write: "forbidden" if is_record(write) else None
    await promoted(world, "2.0.0")
    assert told(world) == [(1, "1.0.0", True, "")]
    assert world.failures == []
    said = [note for reason, note in world.cluster.events if reason == "HistoryNotWritten"]
    assert said == [
        "the history of revisions is not written, so undo may not find this version: forbidden"
    ]
    assert "HistoryNotWritten" not in str(world.status)


async def test_history_that_was_refused_is_tried_again_with_a_pause() -> None:
    world = await healthy_world()
    tries: list[Write] = []

    def refuse(write: Write) -> str | None:
        if not is_record(write):
            return None
        tries.append(write)
        return "forbidden"

    world.cluster.refuse = refuse
    world.apply(manifest("2.0.0", rollout={"steps": [{"weightPercent": 10, "pause": {}}]}))
    await world.run(3 * PAUSE.total_seconds() - 1)
    assert len(tries) == 3
    world.cluster.refuse = lambda _write: None
    await world.run(PAUSE.total_seconds())
    assert told(world)[-1] == (2, "2.0.0", False, "")
    started = last(world).started_at
    assert started is not None
    assert started - START < timedelta(minutes=1), "as it was, not as it is written"


# ── reading and keeping ───────────────────────────────────────────────────────────────────────


async def kept() -> Manifest:
    """Return a ControllerRevision as the store has it."""
    world = await healthy_world()
    (body,) = world.store.children(CONTROLLER_REVISION.kind, KEY.namespace, KEY.name)
    return body


async def test_the_store_keeps_what_was_served_as_bytes_and_drops_what_nobody_reads() -> None:
    body = await kept()
    assert isinstance(body["data"], bytes)
    assert "ownerReferences" not in body["metadata"]


async def test_what_is_recorded_is_read_into_the_present_spec() -> None:
    body = await kept()
    revision = body["metadata"]["labels"][LABEL_REVISION]
    asked = manifest("2.0.0", replicas=7)["spec"]
    read = spec_with(asked, body["data"], revision)
    assert (read.model.version, read.replicas) == ("1.0.0", 7)
    assert revision_of(read) == revision


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"{", "no JSON"),
        (b"null", "no object"),
        (b'{"model": {"name": "fraud"}}', "required"),
        (
            (
                b'{"model":{"name":"x","version":"9"},'
                b'"template":{"spec":{"containers":[{"name":"a","image":"b"}]}}}'
            ),
            "not this revision",
        ),
    ],
)
def test_what_is_garbled_is_not_rolled_out(data: bytes, why: str) -> None:
    with pytest.raises(InvalidSpecError, match=why):
        spec_with(manifest()["spec"], data, "abcdefgh")


@pytest.mark.parametrize(
    "change",
    [
        {"labels": {}},
        {"annotations": {"crossfade.dev/ended-at": "yesterday"}},
        {"annotations": {"crossfade.dev/ended-at": "2026-11-24T12:00:00"}},
    ],
)
async def test_a_record_that_is_none_or_was_garbled_is_left_out(change: dict[str, Any]) -> None:
    body = await kept()
    assert read_record({**body, "metadata": {**body["metadata"], **change}}) is None
