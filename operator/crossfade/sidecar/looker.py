"""Looking into bodies: into large ones in a thread, one at a time, so that nobody waits for it.

What a body holds takes ten times as much memory as its bytes. So of a large one only what was found
comes out of the thread, and no other one is looked into before its values are gone.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from crossfade.sidecar.messages import Request

HERE_BYTES: Final = 128 * 1024
"""Larger bodies are looked into in the thread."""

Found = TypeVar("Found")


class Looker:
    """Has the thread."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="look")
        self._turn = asyncio.Lock()

    async def look(self, request: Request, look: Callable[[Request], Found]) -> Found:
        """Return what is found in a request, which must be small for a large one."""
        if not is_large(request):
            return look(request)
        loop = asyncio.get_running_loop()
        async with self._turn:
            return await to_the_end(loop.run_in_executor(self._thread, _undisturbed, look, request))


def is_large(request: Request) -> bool:
    """Tell whether it takes long to look into a request, as it may where it is compressed."""
    return len(request.body) > HERE_BYTES or any(
        name.lower() == b"content-encoding" for name, _ in request.headers
    )


async def to_the_end(work: Awaitable[Found]) -> Found:
    """Wait for work that goes on whoever gives it up, and so keeps its memory."""
    going = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(going)
    except asyncio.CancelledError:
        await asyncio.wait((going,))
        raise


def _undisturbed(look: Callable[[Request], Found], request: Request) -> Found:
    """Look without the garbage collector: it would find none of a million lists to be garbage.

    To go through them again and again takes three times as long as to read them, and nothing else
    runs meanwhile.
    """
    gc.disable()
    try:
        return look(request)
    finally:
        gc.enable()
