"""The work queue keeps controller-runtime's promises."""

from __future__ import annotations

import asyncio
import random

from crossfade.reconcile.queue import BACKOFF_LIMIT_SECONDS, WorkQueue


async def test_key_added_twice_is_worked_on_once() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a")
    queue.add("a")
    assert await queue.get() == "a"
    assert len(queue) == 1
    queue.done("a")
    assert len(queue) == 0


async def test_key_added_while_it_is_worked_on_is_worked_on_again_and_never_twice_at_once() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a")
    await queue.get()
    queue.add("a")
    getter = asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    assert not getter.done()
    queue.done("a")
    assert await getter == "a"


async def test_earlier_wakeup_wins_and_a_later_one_is_dropped() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add_in("a", 100)
    queue.add_in("a", 0)
    queue.add_in("a", 100)
    assert await asyncio.wait_for(queue.get(), 1) == "a"
    queue.done("a")
    assert len(queue) == 0


async def test_adding_a_key_cancels_its_timer() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add_in("a", 0)
    queue.add("a")
    await queue.get()
    queue.done("a")
    await asyncio.sleep(0.01)
    assert len(queue) == 0


async def test_failures_back_off_to_a_limit_and_success_forgets_them() -> None:
    queue: WorkQueue[str] = WorkQueue(random.Random(1))
    delays = [queue.failed("a") for _ in range(20)]
    assert delays[0] < 0.3
    assert delays[3] > delays[0]
    assert max(delays) <= BACKOFF_LIMIT_SECONDS * 1.2
    queue.succeeded("a")
    assert queue.failed("a") < 0.3


async def test_urgent_key_goes_before_all_others_also_when_it_waits_already() -> None:
    queue: WorkQueue[str] = WorkQueue()
    for key in "abc":
        queue.add(key)
    queue.add("c", urgent=True)
    assert [await queue.get() for _ in range(3)] == ["c", "a", "b"]
