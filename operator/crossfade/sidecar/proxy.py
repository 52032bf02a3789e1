"""The life of a request: checked, sent to the model, answered by it or by others, observed.

A request that nobody looks into is streamed both ways. One that is checked, observed, recorded, or
can fall back is held whole first, since it must be sent a second time or not at all.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final, Literal

import msgspec

from crossfade.sidecar.breaker import CircuitBreaker
from crossfade.sidecar.config import Config, Inputs
from crossfade.sidecar.contract import Contract
from crossfade.sidecar.documents import Unreadable, parse_answer, parse_request
from crossfade.sidecar.exchange import ClientGoneError, Exchange
from crossfade.sidecar.fallback import Chain
from crossfade.sidecar.framing import RefusedError, RequestHead, error_answer, write_head
from crossfade.sidecar.looker import Looker, is_large, to_the_end
from crossfade.sidecar.messages import (
    LOOP_GUARD,
    Answer,
    Document,
    Headers,
    Reason,
    Request,
    Violation,
)
from crossfade.sidecar.metrics import Metrics
from crossfade.sidecar.observer import Observer, Taken
from crossfade.sidecar.readiness import LOOPBACK
from crossfade.sidecar.recording import Recorder
from crossfade.sidecar.room import Place, Room, Rooms
from crossfade.sidecar.server import Server
from crossfade.sidecar.tunnel import join, join_server, refuse_http2
from crossfade.sidecar.upstream import UpstreamClient
from crossfade.sidecar.upstream_connection import Body, UpstreamAnswer

OBSERVED_BYTES: Final = 1024 * 1024
"""Of an answer that is observed or recorded; larger ones are not."""

CLIENT_GONE: Final = 499
"""The code, as nginx's, for a client that went away before its answer."""

_WEBSOCKET: Final = b"connection: upgrade\r\nupgrade: websocket\r\n"

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Plan:
    """What is done with one request."""

    head: RequestHead
    started: float = 0.0
    infers: bool = False
    checked: bool = False
    observed: bool = False
    recorded: bool = False
    chain: Chain | None = None
    """None: it cannot fall back."""
    timed: bool = False
    """The model's time for its answer is limited; the client's time to send is not its fault."""
    request: Request | None = None
    """Where it is held whole."""
    document: Document | None = None
    """Of a small one: values take ten times as much memory, while the model works."""
    found: tuple[Taken, ...] | None = None
    """What is to be counted of its features, where that is known already."""
    place: Place | None = None
    """In memory, of an answer that is sent whole."""
    copy: _Copy | None = None
    """Of the answer, where it is observed or recorded."""
    counted: bool = False
    seconds: float = 0.0
    answered: UpstreamAnswer | None = None
    """The model's answer below 500, once it was sent."""

    @property
    def is_whole(self) -> bool:
        """Tell whether the request must be held."""
        return self.checked or self.recorded or self.observed or self.timed


@dataclass(slots=True)
class _Copy:
    """An answer, while it is sent, if it is not too long and there is room for it."""

    room: Room
    pieces: list[bytes] = field(default_factory=list)
    size: int = 0
    missing: str = ""
    """Why there is none."""

    def add(self, piece: bytes) -> None:
        if self.missing:
            return
        if self.size + len(piece) > OBSERVED_BYTES:
            self.drop("size")
        elif not self.room.try_take(len(piece)):
            self.drop("memory")
        else:
            self.size += len(piece)
            self.pieces.append(piece)

    def drop(self, why: str = "") -> None:
        """Do without it."""
        self.room.give(self.size)
        self.pieces.clear()
        self.size = 0
        self.missing = why


@dataclass(frozen=True, slots=True)
class _Failure:
    """The model did not answer, or with 5xx."""

    code: int
    reason: Reason
    message: str
    """Of the sidecar's own answer."""
    answer: UpstreamAnswer | None = None
    """The model's own, if it has one."""


class Proxy:
    """Handles the exchanges of the server that faces clients."""

    def __init__(
        self,
        config: Config,
        contract: Contract | None,
        features: Observer | None,
        predictions: Observer | None,
        chain: Chain | None,
        breaker: CircuitBreaker | None,
        recorder: Recorder | None,
        metrics: Metrics,
        client: UpstreamClient,
        looker: Looker,
        room: Room,
        doubt: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Connect the parts.

        Args:
            config: of the version.
            contract: of its inputs; None: all are fine.
            features: observes requests.
            predictions: observes the model's answers.
            chain: answers where the model does not.
            breaker: tells when not to ask the model.
            recorder: keeps pairs of requests and answers.
            metrics: told of what the model did.
            client: reaches the model.
            looker: looks into requests.
            room: for answers, and copies of them.
            doubt: called when the model has failed a request.
            clock: seconds that never go back.
        """
        self._config = config
        self._contract = contract if config.inputs is not None else None
        inputs = config.inputs or Inputs(schema={})
        self._inference = Contract(
            msgspec.structs.replace(config, inputs=Inputs(schema={}, paths=inputs.paths))
        )
        self._features = features if config.features else None
        self._predictions = predictions if config.predictions else None
        self._chain = chain
        self._breaker = breaker
        self._recorder = recorder
        self._metrics = metrics
        self._client = client
        self._looker = looker
        self._room = room
        self._doubt = doubt
        self._clock = clock
        fallback = config.fallback
        self._timeout = fallback.timeout_seconds if fallback is not None else None
        self._falls_back_on = frozenset(Reason(on) for on in fallback.on) if fallback else ()
        self._on_violation: Literal["reject", "fallback", "log"] = inputs.on_violation
        self._lets_all_pass = self._contract is None or self._on_violation == "log"

    async def serve(self, rooms: Rooms) -> Server:
        """Listen on the port of the configuration, on all addresses."""
        server = Server(self.handle, self._config.max_body_bytes, rooms, self.http2)
        await server.start(None, self._config.port)
        return server

    async def handle(self, exchange: Exchange) -> None:
        """Answer a request."""
        head = exchange.head
        if head.asks_for_websocket:
            await self._open_websocket(exchange)
            return
        plan = self._plan(head)
        try:
            await self._carry_out(exchange, plan)
            if plan.place is not None:
                await exchange.drain()
        finally:
            if plan.copy is not None:
                plan.copy.drop()
            if plan.place is not None:
                plan.place.shrink(0)

    async def _carry_out(self, exchange: Exchange, plan: _Plan) -> None:
        head = plan.head
        if plan.is_whole:
            body = await exchange.read_all()
            if head.expects_continue:
                head.headers = tuple(h for h in head.headers if h[0].lower() != b"expect")
            plan.request = Request(head.method, head.target, head.headers, body)
            if plan.checked and not await self._check(exchange, plan):
                return
        plan.started = self._clock()
        try:
            await self._ask(exchange, plan)
        except (asyncio.CancelledError, ClientGoneError, RefusedError):
            self._count(plan, CLIENT_GONE)
            raise
        await self._observe(plan)

    async def http2(self, transport: asyncio.Transport, begun: bytes) -> None:
        """Pass a connection that speaks HTTP/2 on to the model."""
        if not self._lets_all_pass:
            refuse_http2(transport, "inputs are checked, which needs HTTP/1.1 and JSON")
            return
        self._metrics.unobserved("requests", "http2")
        try:
            await join_server(transport, begun, LOOPBACK, self._config.model_port)
        except OSError as error:
            _log.warning("no connection to the model for HTTP/2 error=%s", error)

    def _plan(self, head: RequestHead) -> _Plan:
        plan = _Plan(head)
        # A body is a body: servers differ in what they do with that of a GET.
        method = "POST" if head.has_body else head.method
        if self._features is not None or self._predictions is not None:
            plan.infers = self._inference.applies_to(method, head.target)
        if self._contract is not None:
            plan.checked = self._contract.applies_to(method, head.target)
        plan.observed = plan.infers and self._features is not None
        plan.recorded = self._recorder is not None and self._recorder.wants()
        if (plan.infers and self._predictions is not None) or plan.recorded:
            plan.copy = _Copy(self._room)
        if self._chain is not None:
            plan.timed = True
            self._chain.seen()
            if not any(name.lower() == LOOP_GUARD for name, _ in head.headers):
                plan.chain = self._chain
        return plan

    # Before the model.

    async def _check(self, exchange: Exchange, plan: _Plan) -> bool:
        """Tell whether the request goes on to the model; if not, it is answered."""
        assert self._contract is not None  # noqa: S101 - what it is asked about, it applies to
        assert plan.request is not None  # noqa: S101 - and that is whole
        if is_large(plan.request):
            violations, plan.found = await self._looker.look(plan.request, self._check_large)
        else:
            violations, plan.document = self._contract.check(plan.request)
        if not violations:
            self._metrics.input_checked("accepted")
            return True
        for violation in violations:
            self._metrics.violated(violation)
        if self._on_violation == "log":
            self._metrics.input_checked("logged")
            return True
        falls_back = self._on_violation == "fallback"
        if falls_back and await self._let_others(exchange, plan, Reason.VIOLATION):
            self._metrics.input_checked("fallback")
            return False
        self._metrics.input_checked("rejected")
        exchange.answer(_rejection(violations))
        return False

    def _check_large(
        self, request: Request
    ) -> tuple[tuple[Violation, ...], tuple[Taken, ...] | None]:
        """Return what is wrong with a request, and what is to be counted of it.

        Both at once, since a large body is not read twice.
        """
        assert self._contract is not None  # noqa: S101 - as above
        violations, document = self._contract.check(request)
        if document is None or self._features is None:
            return violations, None
        return violations, self._features.find(document)

    # The model.

    async def _ask(self, exchange: Exchange, plan: _Plan) -> None:
        if self._breaker is not None and not self._breaker.allow():
            self._count(plan, HTTPStatus.SERVICE_UNAVAILABLE)
            said = "the model failed too often; ask again in a few seconds"
            failure = _Failure(HTTPStatus.SERVICE_UNAVAILABLE, Reason.OPEN_CIRCUIT, said)
            await self._fall_back(exchange, plan, failure)
            return
        try:
            async with asyncio.timeout(self._timeout):
                answer = await self._begin(exchange, plan)
        except OSError as error:
            await self._fail(exchange, plan, self._failure(error))
            return
        try:
            await self._take(exchange, plan, answer)
        finally:
            answer.abandon()

    async def _begin(self, exchange: Exchange, plan: _Plan) -> UpstreamAnswer:
        body: bytes | Body = exchange
        if plan.request is not None:
            body = plan.request.body
        elif exchange.complete:
            body = await exchange.read()
        else:
            exchange.relays_continue = True
        return await self._client.begin(
            LOOPBACK,
            self._config.model_port,
            plan.head,
            body,
            trailers=exchange.trailers,
            inform=exchange.inform,
        )

    async def _take(self, exchange: Exchange, plan: _Plan, answer: UpstreamAnswer) -> None:
        """Send the model's answer, if it is one."""
        head = answer.head
        if head.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            said = f"the model answered with {head.status}"
            await self._fail(
                exchange, plan, _Failure(head.status, Reason.SERVER_ERROR, said, answer)
            )
            return
        try:
            if plan.chain is not None and self._holds(plan, answer):
                async with asyncio.timeout(self._timeout):
                    body = await answer.read_all()
                exchange.answer(Answer(head.status, head.headers, body), head.reason)
                if plan.copy is not None:
                    plan.copy.add(body)
            else:
                await _relay(exchange, answer, head.headers, plan.copy)
        except ClientGoneError:
            raise
        except OSError as error:
            if exchange.is_broken:
                raise ClientGoneError from error
            await self._fail(exchange, plan, self._failure(error))
            return
        plan.answered = answer
        self._count(plan, head.status)
        if self._breaker is not None:
            self._breaker.succeeded()
            self._metrics.circuit(self._breaker.is_open)

    def _holds(self, plan: _Plan, answer: UpstreamAnswer) -> bool:
        """Take a place for an answer, if it may be held until it is whole."""
        if answer.is_short:
            plan.place = self._room.place_now(answer.head.length or 0)
        return plan.place is not None

    def _failure(self, error: OSError) -> _Failure:
        if isinstance(error, TimeoutError):
            said = f"the model gave no answer in {self._timeout or 0:g} s"
            return _Failure(HTTPStatus.GATEWAY_TIMEOUT, Reason.TIMEOUT, said)
        said = f"the model gave no answer: {error}"
        return _Failure(HTTPStatus.BAD_GATEWAY, Reason.CONNECTION, said)

    async def _fail(self, exchange: Exchange, plan: _Plan, failure: _Failure) -> None:
        """Count a failure against the model, and let others answer, if it is not too late."""
        self._count(plan, failure.code)
        self._doubt()
        if self._breaker is not None:
            self._breaker.failed()
            self._metrics.circuit(self._breaker.is_open)
        if not exchange.begun:
            await self._fall_back(exchange, plan, failure)

    async def _fall_back(self, exchange: Exchange, plan: _Plan, failure: _Failure) -> None:
        may = failure.reason in self._falls_back_on
        if may and await self._let_others(exchange, plan, failure.reason):
            return
        if failure.answer is not None:
            try:
                await _relay(exchange, failure.answer, failure.answer.head.headers, None)
            except ClientGoneError:
                raise
            except OSError as error:
                failure = self._failure(error)
        if not exchange.begun:
            exchange.answer(error_answer(failure.code, failure.message))

    async def _let_others(self, exchange: Exchange, plan: _Plan, reason: Reason) -> bool:
        """Tell whether a target has answered, be it that its answer broke off."""
        if plan.chain is None or plan.request is None:
            return False
        other = await plan.chain.answer(plan.request, reason)
        if other is None:
            return False
        try:
            if other.rest is None:
                exchange.answer(other.answer)
                await exchange.drain()
            else:
                await _relay(exchange, other.rest, other.answer.headers, None)
        except ClientGoneError:
            raise
        except OSError:  # the client is told by a reset
            self._metrics.fallback_failed(other.target, "connection")
        finally:
            other.let_go()
        return True

    def _count(self, plan: _Plan, code: int) -> None:
        """Count what the model did, once for each request."""
        if not plan.counted:
            plan.counted = True
            self._metrics.model_answered(code, self._clock() - plan.started)
            plan.seconds = self._clock() - plan.started

    # After the answer.

    async def _observe(self, plan: _Plan) -> None:
        """Look into what was sent. Nobody waits for it but the same client's next request."""
        self._observe_answer(plan)
        if not plan.observed or plan.request is None:
            return
        assert self._features is not None  # noqa: S101 - else it is not observed
        if plan.document is not None:
            self._features.take(plan.document)
        elif plan.found is not None:
            self._features.count(plan.found)
        elif is_large(plan.request):  # it is observed although the client has gone
            await to_the_end(self._observe_request(plan.request))
        else:
            await self._observe_request(plan.request)

    async def _observe_request(self, request: Request) -> None:
        assert self._features is not None  # noqa: S101 - as above
        found = await self._looker.look(request, self._find)
        if isinstance(found, str):
            self._metrics.unobserved("features", found)
        else:
            self._features.count(found)

    def _find(self, request: Request) -> tuple[Taken, ...] | str:
        """Return what is to be counted of a request, or why it cannot be read."""
        assert self._features is not None  # noqa: S101 - as above
        config = self._config
        try:
            document = parse_request(request, config.protocol, config.max_body_bytes)
        except Unreadable as unreadable:
            return unreadable.rule
        return self._features.find(document)

    def _observe_answer(self, plan: _Plan) -> None:
        if plan.answered is None or plan.copy is None:
            return
        if plan.copy.missing:
            self._metrics.unobserved("predictions", plan.copy.missing)
            return
        head = plan.answered.head
        answer = Answer(head.status, head.headers, b"".join(plan.copy.pieces))
        if plan.infers and self._predictions is not None and answer.is_success:
            try:
                document = parse_answer(answer, self._config.protocol, OBSERVED_BYTES)
            except Unreadable as unreadable:
                self._metrics.unobserved("predictions", unreadable.rule)
            else:
                self._predictions.take(document)
        if plan.recorded and self._recorder is not None and plan.request is not None:
            self._recorder.record(plan.request, answer, plan.seconds)

    # Other protocols.

    async def _open_websocket(self, exchange: Exchange) -> None:
        if not self._lets_all_pass:
            said = "inputs are checked, so websockets are not passed on; send a request for each"
            exchange.answer(error_answer(HTTPStatus.FORBIDDEN, said))
            return
        plan = _Plan(exchange.head, started=self._clock())
        try:
            answer = await self._client.begin(
                LOOPBACK, self._config.model_port, exchange.head, b"", more=_WEBSOCKET
            )
        except OSError as error:
            await self._fail(exchange, plan, self._failure(error))
            return
        except asyncio.CancelledError:
            self._count(plan, CLIENT_GONE)
            raise
        try:
            if answer.head.status != HTTPStatus.SWITCHING_PROTOCOLS:
                await self._take(exchange, plan, answer)
                return
            self._count(plan, answer.head.status)
            server, to_client = answer.detach()
            client, to_server = exchange.detach()
        finally:
            answer.abandon()
        line = b"HTTP/1.1 101 %b\r\n" % answer.head.reason
        to_client = write_head(line, answer.head.headers, _WEBSOCKET) + to_client
        await join(client, server, to_client, to_server)


async def _relay(
    exchange: Exchange, answer: UpstreamAnswer, headers: Headers, copy: _Copy | None
) -> None:
    """Send an answer as it comes.

    Raises:
        OSError: the model broke off, or the client went away.
    """
    head = answer.head
    piece = answer.read_nowait()
    if copy is not None:
        copy.add(piece)
    if answer.complete and not answer.trailers:
        exchange.begin(head.status, head.reason, headers, piece, last=True)
        return
    exchange.begin(head.status, head.reason, headers, piece)
    while piece := await answer.read():
        await exchange.write(piece)
        if copy is not None:
            copy.add(piece)
    exchange.end(answer.trailers)


def _rejection(violations: tuple[Violation, ...]) -> Answer:
    said = {"error": "the request breaks the inputs' contract", "violations": violations}
    headers = ((b"content-type", b"application/json"),)
    return Answer(HTTPStatus.UNPROCESSABLE_ENTITY, headers, msgspec.json.encode(said))
