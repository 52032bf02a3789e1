"""How much may be held in memory at once: who does not fit in waits, in order, or does without."""

from __future__ import annotations

import asyncio
from collections import deque
from http import HTTPStatus
from typing import Final

from crossfade.sidecar.framing import RefusedError

HELD_BODIES: Final = 3
"""Bodies of the largest size that may be held at once, one of them as many smaller ones: 30 MiB of
the 256 that the sidecar may take, of which the values of one may take 120 (MAX_VALUES_BYTES)."""

SMALL_BYTES: Final = 256 * 1024
"""Bodies up to this size do not wait behind larger ones."""

WAIT_SECONDS: Final = 30.0
"""How long a body waits for its place: two of the largest that come as slowly as they may would
take longer, so it does not wait for them."""

ANSWERS_BYTES: Final = 16 * 1024 * 1024
"""Of answers that are held until they are whole, and of copies to observe and record. An answer
that does not fit in is passed on as it comes, and a copy is not made."""

MOST_WAITING: Final = 32
"""Bodies that wait for one room. Of each, half a megabyte may have arrived already."""

_LEAST_BYTES: Final = 4 * 1024 * 1024
"""For small bodies, however small the largest one may be."""


class Place:
    """What one body has of a room, or one answer."""

    __slots__ = ("_room", "size")

    def __init__(self, room: Room, size: int) -> None:
        self._room = room
        self.size = size

    def shrink(self, size: int) -> None:
        """Keep so much of it."""
        self._room.give(self.size - size)
        self.size = size


class Room:
    """So many bytes, taken and given back."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._free = size
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @property
    def taken(self) -> int:
        """What is not free."""
        return self._size - self._free

    def try_take(self, size: int) -> bool:
        """Take bytes, if they are free and nobody waits."""
        if self._waiting or size > self._free:
            return False
        self._free -= size
        return True

    async def take(self, size: int) -> None:
        """Take bytes once they are free; who asked first gets them first."""
        if self.try_take(size):
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append((size, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():  # they were taken for it already
                self._free += size
            self._waiting = deque(one for one in self._waiting if not one[1].done())
            self._hand_out()
            raise

    def place_now(self, size: int) -> Place | None:
        """Return a place; None: there is none now."""
        return Place(self, size) if self.try_take(size) else None

    async def place(self, size: int) -> Place:
        """Wait for a place for a body, or for the rest of one.

        Raises:
            RefusedError: there was none for too long, or too many wait.
        """
        if len(self._waiting) >= MOST_WAITING:
            raise _full()
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                await self.take(size)
        except TimeoutError:
            raise _full() from None
        return Place(self, size)

    def give(self, size: int) -> None:
        """Give bytes back."""
        self._free += size
        self._hand_out()

    def _hand_out(self) -> None:
        while self._waiting:
            size, turn = self._waiting[0]
            if not turn.done():
                if size > self._free:
                    return
                self._free -= size
                turn.set_result(None)
            self._waiting.popleft()


class Rooms:
    """Of the bodies of requests that are held whole."""

    def __init__(self, max_body_bytes: int) -> None:
        self.small = Room(max(max_body_bytes, _LEAST_BYTES))
        """For bodies up to SMALL_BYTES, and as much of those whose length is not known."""
        self.large = Room((HELD_BODIES - 1) * max_body_bytes)

    @property
    def taken(self) -> int:
        """Bytes that are held, or promised to who sends them."""
        return self.small.taken + self.large.taken


def _full() -> RefusedError:
    said = "too many large requests are under way; ask again in a second"
    return RefusedError(HTTPStatus.SERVICE_UNAVAILABLE, said)
