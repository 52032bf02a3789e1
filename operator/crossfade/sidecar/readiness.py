"""Whether this pod should get requests: the model has answered the golden request.

A port that is open says little: servers open theirs before a model is loaded, and keep it when the
model cannot be. Once the golden request was answered, it is sent again only when the model has
failed a request: models count it among their requests, so a version that leaves would never be
seen to receive nothing, and one without traffic would seem to have some.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final
from urllib.parse import quote

from crossfade.sidecar.config import Config
from crossfade.sidecar.messages import Client, Request

LOOPBACK: Final = "127.0.0.1"

GOOD_FOR_SECONDS: Final = 10.0
"""How long an answer of the model's is enough."""

PROBE_SECONDS: Final = 5.0
"""How long the model may take where no golden request says so."""


class Readiness:
    """Asks the model when it is asked itself, by the kubelet's probe."""

    def __init__(self, config: Config, client: Client, clock: Callable[[], float]) -> None:
        self._config = config
        self._client = client
        self._clock = clock
        self._request = probe_request(config)
        self._why = "the model was not asked yet"
        self._doubted = True
        self._good_until = 0.0
        self._asking: asyncio.Task[None] | None = None
        self.reached = asyncio.Event()
        """Set once the model was good for the first time."""
        self._draining = False

    def doubt(self) -> None:
        """Take in that the model has failed a request: the golden one must be answered anew."""
        self._doubted = True

    def drain(self) -> None:
        """Say "not ready" from now on."""
        self._draining = True

    async def why_not(self) -> str:
        """Return why the pod is not ready, in words; "" when it is.

        With a fallback a pod that was ready stays it: if the model fails, the fallback answers.
        Without one, a good answer stands until the next is here: a model may take longer for it
        than a probe waits.
        """
        if self._draining:
            return "the pod is ending"
        if self.reached.is_set() and self._config.fallback is not None:
            return ""
        if not self._why and self._clock() < self._good_until:
            return ""
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._find_out())
        if self._why:
            await asyncio.shield(self._asking)
        return self._why

    async def _find_out(self) -> None:
        doubted, self._doubted = self._doubted, False
        self._why = await self._ask(doubted=doubted)
        if self._why:
            self._doubted = True
            return
        self.reached.set()
        self._good_until = self._clock() + GOOD_FOR_SECONDS

    async def _ask(self, *, doubted: bool) -> str:
        config = self._config
        golden = config.golden
        seconds = golden.timeout_seconds if golden else PROBE_SECONDS
        asked = "the golden request" if golden else "the model's readiness"
        try:
            if self._request is None or (golden is not None and not doubted):
                await _connect(config.model_port, seconds)
                return ""
            answer = await self._client.send(LOOPBACK, config.model_port, self._request, seconds)
        except TimeoutError:  # an OSError too, so it comes first
            return f"{asked} got no answer in {seconds:g} s"
        except OSError as error:
            return f"no connection to the model on port {config.model_port}: {error}"
        return "" if answer.is_success else f"{asked} got {answer.status}"


def probe_request(config: Config) -> Request | None:
    """Return what a version that works answers with 2xx: the golden request if there is one.

    None: nothing is known that such a model answers.
    """
    host = (b"host", f"{config.name}.{config.namespace}".encode())
    golden = config.golden
    if golden is not None:
        body = golden.body.encode()
        content = (
            (b"content-type", golden.content_type.encode()),
            (b"content-length", str(len(body)).encode()),
        )
        return Request(golden.method, golden.path, (host, *content), body)
    if config.protocol == "openInference":
        return Request("GET", f"/v2/models/{quote(config.model, safe='')}/ready", (host,), b"")
    return None


async def _connect(port: int, seconds: float) -> None:
    async with asyncio.timeout(seconds):
        _, writer = await asyncio.open_connection(LOOPBACK, port)
    writer.close()
