"""Who answers when the model does not: other versions, another Service, then fixed words.

A target that is asked is asked once, with what is left of its budget: of retries without one, an
outage of the target's own would be the end of both ("Addressing Cascading Failures", in Beyer et
al., "Site Reliability Engineering", 2016: a retry budget in each process).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from crossfade.sidecar.breaker import Window
from crossfade.sidecar.config import Target
from crossfade.sidecar.messages import (
    ANSWERED_BY,
    BECAUSE,
    LOOP_GUARD,
    Answer,
    Client,
    Headers,
    Reason,
    Request,
    end_to_end,
)
from crossfade.sidecar.metrics import Metrics

BUDGET_SECONDS: Final = 10.0
ALWAYS_ALLOWED: Final = 10
"""Requests in BUDGET_SECONDS that may go to a target whatever its share of all is."""

DRILL_AGAIN_SECONDS: Final = 300.0
DRILL_FAILED_AGAIN_SECONDS: Final = 60.0
"""Until the next drill by itself, while a target fails."""

NOT_PASSED_ON: Final = frozenset({b"expect", LOOP_GUARD})
"""Beside the headers of one connection: the body is whole, nobody waits to send it."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Drilled:
    """What one target made of the golden request."""

    target: str
    ok: bool
    status: int | None
    """None: there was no answer."""
    seconds: float
    why: str
    """Why it is not ok, in words; "" where it is."""


class Chain:
    """The targets of a fallback, in the order of the configuration."""

    def __init__(
        self,
        targets: Sequence[Target],
        client: Client,
        metrics: Metrics,
        revision: str,
        clock: Callable[[], float],
    ) -> None:
        """Start with full budgets.

        Args:
            targets: who is asked, in this order.
            client: sends requests to them.
            metrics: told of each that answered and of each that did not.
            revision: of this sidecar's version, for the target to know.
            clock: seconds that never go back.
        """
        self._links = tuple((target, Window(BUDGET_SECONDS, clock)) for target in targets)
        self._client = client
        self._metrics = metrics
        self._revision = revision.encode()
        self._clock = clock
        self._all = Window(BUDGET_SECONDS, clock)

    def seen(self) -> None:
        """Count a request for the model: budgets are shares of all of them."""
        self._all.add()

    async def answer(self, request: Request, reason: Reason) -> Answer | None:
        """Return the first target's answer below 500, marked as such; None: no target had one.

        A static answer is what somebody wants to be said, whatever its status is.
        """
        sent = self._passed_on(request)
        for target, used in self._links:
            if not self._may_take(target, used):
                self._metrics.fallback_failed(target.name, "budget")
                continue
            used.add()
            answer = await self._ask(target, sent)
            if isinstance(answer, _Failure):
                self._metrics.fallback_failed(target.name, answer.reason)
            elif answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR and not _is_static(target):
                self._metrics.fallback_failed(target.name, "serverError")
            else:
                self._metrics.fell_back(target.name, reason)
                return _marked(answer, target, reason)
        return None

    async def drill(self, request: Request) -> tuple[Drilled, ...]:
        """Send a request through each target, one after the other; it must answer with 2xx.

        Budgets do not count: it is one request in a minute.
        """
        sent = self._passed_on(request)
        results = []
        for target, _ in self._links:
            begun = self._clock()
            answer = await self._ask(target, sent)
            result = _drilled(target, answer, self._clock() - begun)
            if not result.ok:
                _log.warning("fallback drill failed target=%s why=%r", result.target, result.why)
            self._metrics.drilled(result.target, result.ok)
            results.append(result)
        return tuple(results)

    def _passed_on(self, request: Request) -> Request:
        """Return the request as targets get it: the client's Host, and who sent it here."""
        headers = tuple(
            header
            for header in end_to_end(request.headers)
            if header[0].lower() not in NOT_PASSED_ON
        )
        headers = (*headers, (LOOP_GUARD, self._revision))
        return Request(request.method, request.target, headers, request.body)

    def _may_take(self, target: Target, used: Window) -> bool:
        if target.budget_percent >= 100:  # noqa: PLR2004 - percent; all may
            return True
        share = self._all.total() * target.budget_percent / 100
        return used.total() + 1 <= max(share, ALWAYS_ALLOWED)

    async def _ask(self, target: Target, request: Request) -> Answer | _Failure:
        """Return a target's answer, whatever it says, or why there is none."""
        if target.host is None or target.port is None:
            headers = ((b"content-type", target.content_type.encode()),)
            return Answer(target.status, headers, target.body.encode())
        try:
            return await self._client.send(
                target.host, target.port, request, target.timeout_seconds
            )
        except TimeoutError:  # an OSError too, so it comes first
            return _Failure("timeout", f"no answer in {target.timeout_seconds:g} s")
        except OSError as error:
            return _Failure("connection", f"no connection to {target.host}:{target.port}: {error}")


class Drills:
    """Drills a chain when it is told to and by itself, and keeps the last result."""

    def __init__(self, chain: Chain, request: Request) -> None:
        self._chain = chain
        self._request = request
        self._under_way: asyncio.Task[None] | None = None
        self.last: tuple[Drilled, ...] = ()
        """Empty: there was none yet."""

    @property
    def are_ok(self) -> bool:
        """Whether each target passed the last drill."""
        return bool(self.last) and all(drilled.ok for drilled in self.last)

    async def run(self) -> None:
        """Drill now, or wait for the drill that is under way: targets get one at a time."""
        if self._under_way is None or self._under_way.done():
            self._under_way = asyncio.create_task(self._drill())
        await asyncio.shield(self._under_way)

    async def _drill(self) -> None:
        self.last = await self._chain.drill(self._request)

    async def repeat(self, sleep: Callable[[float], Awaitable[object]] = asyncio.sleep) -> None:
        """Drill now, and again and again."""
        while True:
            await self.run()
            await sleep(DRILL_AGAIN_SECONDS if self.are_ok else DRILL_FAILED_AGAIN_SECONDS)


@dataclass(frozen=True, slots=True)
class _Failure:
    """Why a target has not answered: one word for the metric, and words."""

    reason: str
    why: str


def _is_static(target: Target) -> bool:
    return target.host is None or target.port is None


def _marked(answer: Answer, target: Target, reason: Reason) -> Answer:
    """Return an answer that says where it is from, and nothing of what its own chain said."""
    headers: Headers = tuple(
        header
        for header in end_to_end(answer.headers)
        if header[0].lower() not in (ANSWERED_BY, BECAUSE)
    )
    marks = ((ANSWERED_BY, target.name.encode()), (BECAUSE, reason.value.encode()))
    return Answer(answer.status, (*headers, *marks), answer.body)


def _drilled(target: Target, answer: Answer | _Failure, seconds: float) -> Drilled:
    if isinstance(answer, _Failure):
        return Drilled(target.name, ok=False, status=None, seconds=seconds, why=answer.why)
    ok = answer.is_success or _is_static(target)
    why = "" if ok else f"the golden request got {answer.status}"
    return Drilled(target.name, ok=ok, status=answer.status, seconds=seconds, why=why)
