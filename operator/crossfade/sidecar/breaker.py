"""When the model is not asked any more, for a while: a circuit breaker.

::

    closed ──too many of the window failed──▶ open ──open_seconds──▶ half-open
       ▲                                       ▲  one request goes through │
       └──────── it succeeded ─────────────────┼───────────────────────────┤
                                               └──────── it failed ────────┘

One success closes it, as with Hystrix, and with gobreaker and Dapr by default (maxRequests 1):
there is one process behind it, on loopback, which is either back or not, and if it was too early
the fallback bears the few failures that open it again. resilience4j asks ten times, since it judges
many servers behind one name.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from crossfade.sidecar.config import Breaker

SUB_WINDOWS: Final = 10
"""A window moves by a tenth of its length, so it is that exact and takes no memory per request."""


class Window:
    """How often something happened lately: in a sliding window, as ten sums."""

    __slots__ = ("_clock", "_newest", "_sums", "_total", "_width")

    def __init__(self, seconds: float, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._width = seconds / SUB_WINDOWS
        self._newest = 0
        self._sums = [0] * SUB_WINDOWS
        self._total = 0

    def add(self) -> None:
        """Count one, now."""
        self._move()
        self._sums[self._newest % SUB_WINDOWS] += 1
        self._total += 1

    def total(self) -> int:
        """Return how many there were in nine tenths of the window, and in the one that runs."""
        self._move()
        return self._total

    def clear(self) -> None:
        """Forget all."""
        self._sums = [0] * SUB_WINDOWS
        self._total = 0

    def _move(self) -> None:
        now = int(self._clock() // self._width)
        if now <= self._newest:
            return
        for number in range(max(self._newest, now - SUB_WINDOWS) + 1, now + 1):
            place = number % SUB_WINDOWS
            self._total -= self._sums[place]
            self._sums[place] = 0
        self._newest = now


class CircuitBreaker:
    """Told what becomes of each request that it let through; closed at first."""

    __slots__ = ("_clock", "_failures", "_requests", "_retry_at", "_rules", "_trying", "is_open")

    def __init__(self, rules: Breaker, clock: Callable[[], float]) -> None:
        """Start closed.

        Args:
            rules: when it opens, and for how long.
            clock: seconds that never go back.
        """
        self._rules = rules
        self._clock = clock
        self._requests = Window(rules.window_seconds, clock)
        self._failures = Window(rules.window_seconds, clock)
        self._retry_at = 0.0
        self._trying = False
        self.is_open = False
        """Half-open is open too: nearly all requests go elsewhere."""

    def allow(self) -> bool:
        """Tell whether a request may go to the model; after True one of the others follows.

        If none does, since the client went away, the next may try after ``open_seconds``: a
        breaker must not wait for ever for what never comes (resilience4j#903).
        """
        if not self.is_open:
            return True
        now = self._clock()
        if now < self._retry_at:
            return False
        self._retry_at = now + self._rules.open_seconds
        self._trying = True
        return True

    def succeeded(self) -> None:
        """Count an answer; of an open breaker's trial it closes it."""
        if not self.is_open:
            self._requests.add()
        elif self._trying:
            self.is_open = self._trying = False
            self._requests.clear()
            self._failures.clear()

    def failed(self) -> None:
        """Count a failure.

        One that arrives while it is open, of a request from before, changes nothing. One that
        arrives during a trial is taken for the trial's: at worst it stays open a little longer.
        """
        if self.is_open:
            if self._trying:
                self._open()
            return
        self._requests.add()
        self._failures.add()
        requests = self._requests.total()
        too_many = self._failures.total() * 100 > self._rules.failure_percent * requests
        if too_many and requests >= self._rules.min_requests:
            self._open()

    def _open(self) -> None:
        self.is_open = True
        self._trying = False
        self._retry_at = self._clock() + self._rules.open_seconds
