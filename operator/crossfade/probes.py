"""The operator's own port: is it alive, and its metrics."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST

from crossfade.names import NamespacedName
from crossfade.reconcile.queue import WorkQueue
from crossfade.telemetry import Telemetry

STUCK_SECONDS: Final = 120.0
"""A queue that holds work and finished none for this long is stuck; the pod is restarted."""


def application_of(queue: WorkQueue[NamespacedName], telemetry: Telemetry) -> web.Application:
    """Return what answers ``/healthz`` and ``/metrics``.

    It runs in the same event loop as the work: if that hangs, nobody answers, and that is right.
    """

    async def healthz(_: web.Request) -> web.Response:
        idle = queue.idle_seconds()
        if idle > STUCK_SECONDS:
            return web.Response(status=503, text=f"no turn was finished for {idle:.0f} s\n")
        return web.Response(text="ok\n")

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=telemetry.text(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    application = web.Application()
    application.add_routes([web.get("/healthz", healthz), web.get("/metrics", metrics)])
    return application


@asynccontextmanager
async def served(application: web.Application, port: int) -> AsyncIterator[None]:
    """Answer on a port while the block runs.

    Raises:
        OSError: the port is taken.
    """
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        await web.TCPSite(runner, port=port).start()
        yield
    finally:
        await runner.cleanup()
