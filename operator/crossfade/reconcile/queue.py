"""A keyed, delayed, de-duplicating work queue: the semantics of controller-runtime's.

    add ───────────────▶ ready ──get──▶ processing ──done──▶ (gone, or ready again if it was
    add_at ─▶ waiting ──────▲                                 added meanwhile)

A key is processed by one worker at a time. Adding a key that is waiting, ready or processing
already costs nothing.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Final, Generic, TypeVar

Key = TypeVar("Key")

BACKOFF_FIRST_SECONDS: Final = 0.2
BACKOFF_LIMIT_SECONDS: Final = 60.0


class WorkQueue(Generic[Key]):
    """Keys to work on; bound to the event loop that runs when it is first used."""

    def __init__(
        self, rng: random.Random | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._rng = rng or random.Random()  # noqa: S311 - jitter, not secrecy
        self._ready: deque[Key] = deque()
        self._clock = clock
        self._queued: dict[Key, float] = {}
        """Since when each ready key is."""
        self._processing: set[Key] = set()
        self._again: set[Key] = set()
        self._timers: dict[Key, asyncio.TimerHandle] = {}
        self._failures: dict[Key, int] = {}
        self._wakeup = asyncio.Event()
        self._last_progress = clock()
        """When a key was last finished, or the queue was last seen empty."""

    def add(self, key: Key, *, urgent: bool = False) -> None:
        """Work on a key as soon as a worker is free; before all others if it is urgent."""
        self._cancel_timer(key)
        if key in self._processing:
            self._again.add(key)
            return
        if key in self._queued:
            if urgent:
                self._ready.remove(key)
                self._ready.appendleft(key)
            return
        self._queued[key] = self._clock()
        (self._ready.appendleft if urgent else self._ready.append)(key)
        self._wakeup.set()

    def add_in(self, key: Key, seconds: float) -> None:
        """Work on a key after a time, or earlier if it is due or added earlier."""
        loop = asyncio.get_running_loop()
        when = loop.time() + max(seconds, 0.0)
        timer = self._timers.get(key)
        if timer is not None and timer.when() <= when:
            return
        self._cancel_timer(key)
        self._timers[key] = loop.call_at(when, self._fire, key)

    def _fire(self, key: Key) -> None:
        self._timers.pop(key, None)
        self.add(key)

    def _cancel_timer(self, key: Key) -> None:
        timer = self._timers.pop(key, None)
        if timer is not None:
            timer.cancel()

    async def get(self) -> Key:
        """Wait for a key and take it; :meth:`done` must follow."""
        while not self._ready:
            self._last_progress = self._clock()
            self._wakeup.clear()
            await self._wakeup.wait()
        key = self._ready.popleft()
        del self._queued[key]
        self._processing.add(key)
        return key

    def done(self, key: Key) -> None:
        """Finish a key that was taken; it is ready again if it was added meanwhile."""
        self._processing.discard(key)
        self._last_progress = self._clock()
        if key in self._again:
            self._again.discard(key)
            self.add(key)

    def succeeded(self, key: Key) -> None:
        """Forget earlier failures of a key."""
        self._failures.pop(key, None)

    def failed(self, key: Key) -> float:
        """Work on a key again after an exponential back-off; return it in seconds."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        backoff = min(BACKOFF_FIRST_SECONDS * 2.0**failures, BACKOFF_LIMIT_SECONDS)
        backoff *= self._rng.uniform(0.8, 1.2)
        self.add_in(key, backoff)
        return backoff

    @property
    def failures(self) -> Mapping[Key, int]:
        """How often each key failed since its last success; without those that did not."""
        return self._failures

    def waiting_seconds(self) -> float:
        """Return how long the key that waits longest has been ready; 0 when none is."""
        return self._clock() - min(self._queued.values()) if self._queued else 0.0

    def idle_seconds(self) -> float:
        """Return for how long no key was finished while there is work; 0 without work."""
        return self._clock() - self._last_progress if len(self) else 0.0

    def __len__(self) -> int:
        """Return how many keys are ready or being worked on."""
        return len(self._ready) + len(self._processing)
