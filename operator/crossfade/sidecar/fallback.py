"""Who answers when the model does not: other versions, another Service, then fixed words.

A target that is asked is asked once, with what is left of its budget: of retries without one, an
outage of the target's own would be the end of both ("Addressing Cascading Failures", in Beyer et
al., "Site Reliability Engineering", 2016: a retry budget in each process).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Final, Protocol

from crossfade.sidecar.breaker import Window
from crossfade.sidecar.config import Target
from crossfade.sidecar.messages import (
    ANSWERED_BY,
    BECAUSE,
    LOOP_GUARD,
    Answer,
    Headers,
    Reason,
    Request,
    end_to_end,
)
from crossfade.sidecar.metrics import Metrics
from crossfade.sidecar.room import Place, Room
from crossfade.sidecar.upstream_connection import UpstreamAnswer

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


class Client(Protocol):
    """Reaches the targets."""

    async def open(self, host: str, port: int, request: Request) -> UpstreamAnswer:
        """Send a request and return the answer when its head is there.

        Raises:
            OSError: no connection, or it broke (also: an answer that is no HTTP).
        """
        ...


@dataclass(frozen=True, slots=True)
class TargetAnswer:
    """What a target answers."""

    target: str
    answer: Answer
    """With the whole body, or none of it."""
    rest: UpstreamAnswer | None = None
    """The body, where it is passed on as it comes."""
    place: Place | None = None
    """In memory, of a whole body."""

    def let_go(self) -> None:
        """Have nothing more to do with it: each answer needs that in the end."""
        if self.rest is not None:
            self.rest.abandon()
        if self.place is not None:
            self.place.shrink(0)


class Chain:
    """The targets of a fallback, in the order of the configuration."""

    def __init__(
        self,
        targets: Sequence[Target],
        client: Client,
        metrics: Metrics,
        revision: str,
        clock: Callable[[], float],
        room: Room,
    ) -> None:
        """Start with full budgets.

        Args:
            targets: who is asked, in this order.
            client: sends requests to them.
            metrics: told of each that answered and of each that did not.
            revision: of this sidecar's version, for the target to know.
            clock: seconds that never go back.
            room: where answers are held until they are whole; those that find none are not.
        """
        self._links = tuple((target, Window(BUDGET_SECONDS, clock)) for target in targets)
        self._client = client
        self._metrics = metrics
        self._revision = revision.encode()
        self._clock = clock
        self._room = room
        self._all = Window(BUDGET_SECONDS, clock)

    def seen(self) -> None:
        """Count a request for the model: budgets are shares of all of them."""
        self._all.add()

    async def answer(self, request: Request, reason: Reason) -> TargetAnswer | None:
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
            else:
                self._metrics.fell_back(target.name, reason)
                return replace(answer, answer=_marked(answer.answer, target, reason))
        return None

    async def drill(self, request: Request) -> tuple[Drilled, ...]:
        """Send a request through each target, one after the other; it must answer with 2xx.

        Budgets do not count: it is one request in a minute.
        """
        sent = self._passed_on(request)
        results = []
        for target, _ in self._links:
            begun = self._clock()
            status, why = await self._try(target, sent)
            ok = not why
            seconds = self._clock() - begun
            result = Drilled(target.name, ok=ok, status=status, seconds=seconds, why=why)
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

    async def _ask(self, target: Target, request: Request) -> TargetAnswer | _Failure:
        """Return a target's answer, or why there is none."""
        if target.host is None or target.port is None:
            headers = ((b"content-type", target.content_type.encode()),)
            said = Answer(target.status, headers, target.body.encode())
            return TargetAnswer(target.name, said)
        try:
            async with asyncio.timeout(target.timeout_seconds):
                answer = await self._client.open(target.host, target.port, request)
                return await self._take(target, answer)
        except TimeoutError:  # an OSError too, so it comes first
            return _Failure("timeout", f"no answer in {target.timeout_seconds:g} s")
        except OSError as error:
            return _Failure("connection", f"no connection to {target.host}:{target.port}: {error}")

    async def _take(self, target: Target, answer: UpstreamAnswer) -> TargetAnswer | _Failure:
        """Wait until a short answer is whole: until then another target may be asked."""
        head = answer.head
        if head.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            answer.abandon()
            return _Failure("serverError", f"the golden request got {head.status}", head.status)
        place = self._room.place_now(head.length or 0) if answer.is_short else None
        if place is None:
            return TargetAnswer(target.name, Answer(head.status, head.headers, b""), rest=answer)
        try:
            body = await answer.read_all()
        except BaseException:
            place.shrink(0)
            raise
        finally:
            answer.abandon()
        return TargetAnswer(target.name, Answer(head.status, head.headers, body), place=place)

    async def _try(self, target: Target, request: Request) -> tuple[int | None, str]:
        """Return what a target answers to the golden request, and why that is not good enough."""
        tried = await self._ask(target, request)
        if isinstance(tried, _Failure):
            return tried.status, tried.why
        try:
            if tried.rest is not None:
                async with asyncio.timeout(target.timeout_seconds):
                    while await tried.rest.read():
                        pass
        except TimeoutError:
            return None, f"no whole answer in {target.timeout_seconds:g} s"
        except OSError as error:
            return None, f"no whole answer: {error}"
        finally:
            tried.let_go()
        status = tried.answer.status
        if tried.answer.is_success or _is_static(target):
            return status, ""
        return status, f"the golden request got {status}"


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
    status: int | None = None


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
