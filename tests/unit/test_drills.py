"""Sidecars are asked beside the loop, and every question ends."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import pytest

from crossfade.core.observation import Drill, DrillResult
from crossfade.errors import SidecarError
from crossfade.names import NamespacedName
from crossfade.reconcile.drills import ASK_AGAIN, BELIEVED, Asked, Drills
from crossfade.sidecar.config import Golden

KEY = NamespacedName("ml", "fraud")
ASKED = Asked(
    KEY,
    "bcdf",
    pods=(("fraud-0", "10.0.0.1"), ("fraud-1", "10.0.0.2")),
    port=8013,
    targets=("service", "service"),
    seconds=10,
    golden=None,
)
GOOD = DrillResult("service", ok=True)
BAD = DrillResult("service", ok=False, message="answered 503")


@dataclass
class World:
    """Drills with a clock, sidecars that say what the test says, and who was woken."""

    now: datetime = datetime(2026, 11, 24, tzinfo=UTC)
    says: dict[str, tuple[DrillResult, ...] | Exception] = field(default_factory=dict)
    hangs: bool = False
    asked: int = 0
    woken: list[NamespacedName] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.drills = Drills(self, self.wake, lambda: self.now)

    def wake(self, key: NamespacedName, *, urgent: bool) -> None:
        assert not urgent
        self.woken.append(key)

    async def drill(self, address: str, port: int, seconds: float) -> tuple[DrillResult, ...]:
        self.asked += 1
        if self.hangs:
            await asyncio.Event().wait()
        said = self.says.get(address, (GOOD, GOOD))
        if isinstance(said, Exception):
            raise said
        return said

    async def check(self, address: str, port: int, golden: Golden) -> tuple[str, ...]:
        raise SidecarError("no answer")

    async def answer(self, asked: Asked = ASKED) -> Drill | None:
        """Ask, let the question end, and return what is known then."""
        self.drills.known(asked)
        for _ in range(20):
            await asyncio.sleep(0)
        return self.drills.known(asked)


async def test_the_answer_comes_later_and_wakes() -> None:
    world = World()
    assert world.drills.known(ASKED) is None
    assert world.woken == []
    assert await world.answer() == Drill((GOOD, GOOD))
    assert world.woken == [KEY]


async def test_the_worst_of_the_pods_counts_for_each_target_by_its_place() -> None:
    world = World(says={"10.0.0.2": (GOOD, BAD)})
    assert await world.answer() == Drill((GOOD, BAD))
    world = World(says={"10.0.0.1": (BAD, GOOD), "10.0.0.2": (GOOD, BAD)})
    assert await world.answer() == Drill((BAD, BAD))


@pytest.mark.parametrize("said", [(), (GOOD,), (GOOD, DrillResult("stable", ok=True))])
async def test_a_target_that_a_pod_does_not_speak_of_is_not_good(
    said: tuple[DrillResult, ...],
) -> None:
    world = World(says={"10.0.0.1": said, "10.0.0.2": said})
    drill = await world.answer()
    assert drill is not None
    assert drill.results[1] == DrillResult("service", ok=False, message="was not tried")


@pytest.mark.parametrize("broken", [SidecarError("10.0.0.2:8013 got 500"), RuntimeError("bug")])
async def test_one_pod_that_cannot_be_asked_makes_all_unknown(broken: Exception) -> None:
    world = World(says={"10.0.0.2": broken})
    drill = await world.answer()
    assert drill is not None
    assert drill.problem
    assert [result.ok for result in drill.results] == [False, False]


async def test_a_check_that_fails_is_no_problem_of_a_version_without_fallback() -> None:
    world = World()
    asked = replace(ASKED, targets=(), golden=Golden(path="/", body=""))
    assert await world.answer(asked) == Drill()
    assert world.asked == 0


async def test_bad_answers_are_asked_for_again_after_seconds_and_good_ones_later() -> None:
    world = World(says={"10.0.0.1": (BAD, GOOD)})
    await world.answer()
    world.now += ASK_AGAIN - timedelta(seconds=0.1)
    await world.answer()
    assert world.asked == 2
    world.says = {}
    world.now += timedelta(seconds=0.1)
    assert await world.answer() == Drill((GOOD, GOOD))
    assert world.asked == 4
    world.now += BELIEVED - timedelta(seconds=0.1)
    assert await world.answer() == Drill((GOOD, GOOD))
    assert world.asked == 4
    world.now += timedelta(seconds=0.1)
    assert world.drills.known(ASKED) is None
    assert await world.answer() == Drill((GOOD, GOOD))
    assert world.asked == 6


async def test_an_answer_is_not_believed_for_ever_while_the_next_one_hangs() -> None:
    world = World(says={"10.0.0.1": (BAD, GOOD)})
    await world.answer()
    world.hangs = True
    world.now += ASK_AGAIN
    assert await world.answer() == Drill((BAD, GOOD))
    world.now += BELIEVED
    assert await world.answer() is None
    assert world.asked == 4
    world.drills.forget(KEY)


async def test_other_pods_are_other_questions() -> None:
    world = World()
    await world.answer()
    asked = replace(ASKED, pods=ASKED.pods[:1])
    assert world.drills.known(asked) is None
    assert await world.answer(asked) == Drill((GOOD, GOOD))
    assert world.asked == 3


async def test_what_is_forgotten_is_asked_no_more() -> None:
    world = World(hangs=True)
    await world.answer()
    world.drills.forget(KEY)
    world.hangs = False
    for _ in range(20):
        await asyncio.sleep(0)
    assert world.woken == []
    assert await world.answer() == Drill((GOOD, GOOD))
