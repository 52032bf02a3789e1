"""The composition root of the sidecar: builds the parts, connects them, and ends in order."""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import random
import signal
import sys
import time
from collections.abc import Awaitable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import uvloop

from crossfade.sidecar.admin import Admin
from crossfade.sidecar.breaker import CircuitBreaker
from crossfade.sidecar.config import Config, read_config
from crossfade.sidecar.contract import Contract
from crossfade.sidecar.fallback import Chain, Drills
from crossfade.sidecar.looker import Looker
from crossfade.sidecar.metrics import Metrics
from crossfade.sidecar.observer import Observer
from crossfade.sidecar.proxy import Proxy
from crossfade.sidecar.readiness import Readiness, probe_request
from crossfade.sidecar.recording import DIRECTORY, SAVE_SECONDS, Recorder
from crossfade.sidecar.room import ANSWERS_BYTES, Room, Rooms
from crossfade.sidecar.server import Server, serve
from crossfade.sidecar.upstream import UpstreamClient

CONFIG_FILE: Final = Path("/etc/crossfade/sidecar.json")
"""Where the downward API puts the annotation of the pod template."""

SWITCH_SECONDS: Final = 0.0005
"""How long the loop waits for the thread that looks into a large body, each time that it has
something to do, if that runs Python and no long piece of C; Python's own 5 ms add up."""

_log = logging.getLogger(__name__)


def main() -> None:
    """Run the sidecar; exit with 2 when its configuration is wrong."""
    parser = argparse.ArgumentParser(prog="crossfade-sidecar")
    parser.add_argument("--config", type=Path, default=CONFIG_FILE, help="a JSON file")
    parser.add_argument("--recordings", type=Path, default=DIRECTORY, help="a directory")
    arguments = parser.parse_args()
    logging.basicConfig(
        level=logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s %(message)s",
        stream=sys.stderr,
    )
    try:
        config = read_config(arguments.config.read_bytes())
        sidecar = Sidecar(config, arguments.recordings)
    except (OSError, ValueError) as error:
        words = " ".join(str(error).split())  # one line, whatever a validator says
        sys.stderr.write(f"crossfade-sidecar: {words}\n")
        sys.exit(2)
    keep_what_stays()
    sys.setswitchinterval(SWITCH_SECONDS)
    uvloop.run(sidecar.run())


def keep_what_stays() -> None:
    """Have the garbage collector pass over what was made so far.

    All of it stays; to look through its 28,000 objects again takes 40 ms, in which no request is
    answered.
    """
    gc.collect()
    gc.freeze()


class Sidecar:
    """All parts, connected."""

    def __init__(self, config: Config, recordings: Path) -> None:
        """Build them.

        Raises:
            ValueError: the configuration cannot be right, such as a schema that is none.
        """
        self._config = config
        self._client = UpstreamClient()
        metrics = Metrics(config)
        contract = Contract(config)
        looker = Looker()
        room = Room(ANSWERS_BYTES)
        self._rooms = Rooms(config.max_body_bytes)
        self._recorder = Recorder(config, metrics, random.random, _now, recordings)
        self._readiness = Readiness(config, self._client, time.monotonic)
        breaker, chain, self._drills = None, None, None
        if config.fallback is not None:
            breaker = CircuitBreaker(config.fallback.breaker, time.monotonic)
            targets = config.fallback.targets
            chain = Chain(targets, self._client, metrics, config.revision, time.monotonic, room)
            golden = probe_request(config)
            self._drills = Drills(chain, golden) if golden else None
        self._proxy = Proxy(
            config=config,
            client=self._client,
            contract=contract,
            features=Observer("features", config.features, metrics),
            predictions=Observer("predictions", config.predictions, metrics),
            recorder=self._recorder,
            metrics=metrics,
            breaker=breaker,
            chain=chain,
            looker=looker,
            room=room,
            doubt=self._readiness.doubt,
        )
        self._admin = Admin(
            metrics, self._readiness, self._drills, self._recorder, contract, looker
        )

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT, and until what is under way then is answered.

        SIGUSR1 says that the pod is about to end: connections end with their answers.
        """
        config = self._config
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for signum in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(signum, stop.set)
        admin = await serve(
            self._admin.answer, None, config.admin_port, config.max_body_bytes, self._rooms
        )
        server = await self._proxy.serve(self._rooms)
        loop.add_signal_handler(signal.SIGUSR1, server.begin_drain)
        _log.info("listening port=%d admin_port=%d", server.port, admin.port)
        ended = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            drills = tasks.create_task(_beside("drills", self._drill()))
            tasks.create_task(_beside("recordings", self._save(ended)))
            await stop.wait()
            await self._drain(server)
            drills.cancel()
            ended.set()
        await admin.close()
        self._client.close()

    async def _drain(self, server: Server) -> None:
        """Go on until nobody sends here any more; some do not know yet that the pod ends."""
        self._readiness.drain()
        server.begin_drain()
        _log.info("draining requests=%d", server.open_requests)
        if await server.drained(self._config.drain_seconds):
            _log.info("drained")
        else:
            _log.warning("requests are broken off requests=%d", server.open_requests)
        await server.close()

    async def _drill(self) -> None:
        if self._drills is not None:
            await self._readiness.reached.wait()
            await self._drills.repeat()

    async def _save(self, ended: asyncio.Event) -> None:
        """Save recordings now and then, and at the end."""
        while not ended.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(SAVE_SECONDS):
                    await ended.wait()
            await asyncio.to_thread(self._recorder.save)


async def _beside(what: str, work: Awaitable[None]) -> None:
    """Do what no request needs; should it fail, requests go on."""
    try:
        await work
    except Exception:  # noqa: BLE001 - see above
        _log.exception("work beside requests has failed what=%s", what)


def _now() -> datetime:
    return datetime.now(UTC)
