"""The chain asks its targets in order, within their budgets, and marks what they answered."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossfade.sidecar.config import Config, Fallback, Target
from crossfade.sidecar.fallback import (
    ALWAYS_ALLOWED,
    DRILL_AGAIN_SECONDS,
    DRILL_FAILED_AGAIN_SECONDS,
    Chain,
    Drills,
    TargetAnswer,
)
from crossfade.sidecar.messages import ANSWERED_BY, BECAUSE, Answer, Headers, Reason, Request
from crossfade.sidecar.metrics import Metrics
from crossfade.sidecar.room import Room
from crossfade.sidecar.upstream_connection import UpstreamAnswer
from tests.unit.wires import arrived

STABLE = Target(name="stable", host="iris.ml.svc", port=80, timeout_seconds=2)
PREVIOUS = Target(name="previous", host="iris-old.ml.svc", port=80, timeout_seconds=1)
STATIC = Target(name="static", status=203, content_type="text/plain", body="söon")
REQUEST = Request("POST", "/predict?a=1", ((b"Host", b"iris.example"),), b"body")


@dataclass
class Clock:
    now: float = 100.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Network:
    """Answers for hosts as it is told to, and remembers who was asked."""

    says: dict[str, int | OSError] = field(default_factory=dict)
    headers: Headers = ()
    asked: list[tuple[str, int, Request]] = field(default_factory=list)
    was_asked: asyncio.Event = field(default_factory=asyncio.Event)
    opens: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.opens.set()

    async def open(self, host: str, port: int, request: Request) -> UpstreamAnswer:
        self.asked.append((host, port, request))
        self.was_asked.set()
        await self.opens.wait()
        said = self.says.get(host, 200)
        if isinstance(said, OSError):
            raise said
        return arrived(Answer(said, self.headers, host.encode()))

    def hosts(self) -> list[str]:
        return [host for host, *_ in self.asked]


@dataclass
class World:
    network: Network
    metrics: Metrics
    chain: Chain
    clock: Clock
    room: Room

    def counted(self) -> set[str]:
        """Lines of fallback metrics that are not 0."""
        return {
            line
            for line in self.metrics.render().decode().splitlines()
            if line.startswith("crossfade_fallback") and "_created" not in line
            if not line.endswith(" 0.0")
        }


def world(targets: Sequence[Target], **says: int | OSError) -> World:
    hosts = {"stable": "iris.ml.svc", "previous": "iris-old.ml.svc"}
    network = Network({hosts[name]: said for name, said in says.items()})
    config = Config(
        namespace="ml",
        name="iris",
        model="iris",
        version="1",
        revision="rev1",
        port=8012,
        admin_port=8013,
        model_port=8080,
        fallback=Fallback(targets=tuple(targets)),
    )
    metrics, clock = Metrics(config), Clock()
    room = Room(1000)
    chain = Chain(targets, network, metrics, "rev1", clock, room)
    return World(network, metrics, chain, clock, room)


def marks(answer: TargetAnswer | None) -> dict[bytes, bytes]:
    assert answer is not None
    return dict(answer.answer.headers)


async def test_the_first_target_that_answers_is_marked_and_counted() -> None:
    it = world([STABLE, PREVIOUS])
    answer = await it.chain.answer(REQUEST, Reason.TIMEOUT)
    assert answer is not None
    assert (answer.answer.status, answer.answer.body) == (200, b"iris.ml.svc")
    assert marks(answer) == {ANSWERED_BY: b"stable", BECAUSE: b"timeout"}
    assert it.network.hosts() == ["iris.ml.svc"]
    assert it.counted() == {'crossfade_fallbacks_total{reason="timeout",target="stable"} 1.0'}


async def test_failures_lead_to_the_next_target_and_are_counted() -> None:
    it = world([STABLE, PREVIOUS, STATIC], stable=TimeoutError(), previous=ConnectionError())
    answer = await it.chain.answer(REQUEST, Reason.CONNECTION)
    assert answer is not None
    assert answer.answer == Answer(
        203,
        (
            (b"content-type", b"text/plain"),
            (ANSWERED_BY, b"static"),
            (BECAUSE, b"connection"),
        ),
        "söon".encode(),
    )
    assert it.network.hosts() == ["iris.ml.svc", "iris-old.ml.svc"]
    assert it.counted() == {
        'crossfade_fallbacks_total{reason="connection",target="static"} 1.0',
        'crossfade_fallback_failures_total{reason="timeout",target="stable"} 1.0',
        'crossfade_fallback_failures_total{reason="connection",target="previous"} 1.0',
    }


@pytest.mark.parametrize(("status", "is_well"), [(404, True), (499, True), (500, False)])
async def test_an_answer_below_500_is_one(status: int, is_well: bool) -> None:
    it = world([STABLE, PREVIOUS], stable=status)
    answer = await it.chain.answer(REQUEST, Reason.SERVER_ERROR)
    assert marks(answer)[ANSWERED_BY] == (b"stable" if is_well else b"previous")


async def test_a_short_answer_is_held_and_one_that_is_not_is_passed_on() -> None:
    it = world([STABLE])
    short = await it.chain.answer(REQUEST, Reason.TIMEOUT)
    assert short is not None
    assert (short.answer.body, short.rest) == (b"iris.ml.svc", None)
    assert it.room.taken == len(b"iris.ml.svc")
    assert it.room.try_take(1000 - it.room.taken)
    no_room = await it.chain.answer(REQUEST, Reason.TIMEOUT)
    it.network.headers = ((b"content-type", b"text/event-stream"),)
    stream = await it.chain.answer(REQUEST, Reason.TIMEOUT)
    for one in (no_room, stream):
        assert one is not None
        assert one.rest is not None
        assert (one.answer.body, await one.rest.read_all()) == (b"", b"iris.ml.svc")
        assert marks(one)[ANSWERED_BY] == b"stable"
        one.let_go()
    short.let_go()
    assert it.room.taken == 1000 - len(b"iris.ml.svc")


async def test_a_target_that_takes_too_long_has_failed_and_leaves_nothing() -> None:
    it = world([Target(name="stable", host="iris.ml.svc", port=80, timeout_seconds=0.01), STATIC])
    it.network.opens.clear()
    answer = await it.chain.answer(REQUEST, Reason.TIMEOUT)
    assert marks(answer)[ANSWERED_BY] == b"static"
    (drilled, _) = await it.chain.drill(REQUEST)
    assert drilled.why == "no answer in 0.01 s"
    failed = 'crossfade_fallback_failures_total{reason="timeout",target="stable"} 1.0'
    assert failed in it.counted()
    assert it.room.taken == 0


async def test_where_nobody_answers_there_is_no_answer() -> None:
    it = world([STABLE, PREVIOUS], stable=500, previous=OSError())
    assert await it.chain.answer(REQUEST, Reason.SERVER_ERROR) is None
    assert it.counted() == {
        'crossfade_fallback_failures_total{reason="serverError",target="stable"} 1.0',
        'crossfade_fallback_failures_total{reason="connection",target="previous"} 1.0',
    }


async def test_a_target_gets_the_message_and_nothing_of_the_clients_connection() -> None:
    it = world([STABLE])
    request = Request(
        "POST",
        "/p",
        (
            (b"Host", b"iris.example"),
            (b"Connection", b"keep-alive, X-Hop"),
            (b"X-Hop", b"1"),
            (b"Transfer-Encoding", b"chunked"),
            (b"Expect", b"100-continue"),
            (b"Crossfade-Fallback-From", b"somebody"),
            (b"X-Trace", b"7"),
        ),
        b"body",
    )
    await it.chain.answer(request, Reason.TIMEOUT)
    ((host, port, sent),) = it.network.asked
    assert (host, port, sent.method, sent.target, sent.body) == (
        "iris.ml.svc",
        80,
        "POST",
        "/p",
        b"body",
    )
    assert sent.headers == (
        (b"Host", b"iris.example"),
        (b"X-Trace", b"7"),
        (b"crossfade-fallback-from", b"rev1"),
    )


async def test_an_answer_comes_without_its_connections_headers_and_others_marks() -> None:
    it = world([STABLE])
    it.network.headers = (
        (b"Content-Type", b"text/plain"),
        (b"Connection", b"close"),
        (b"Transfer-Encoding", b"chunked"),
        (b"Crossfade-Fallback", b"previous"),
        (b"Crossfade-Fallback-Reason", b"timeout"),
    )
    answer = await it.chain.answer(REQUEST, Reason.OPEN_CIRCUIT)
    assert answer is not None
    assert answer.answer.headers == (
        (b"Content-Type", b"text/plain"),
        (ANSWERED_BY, b"stable"),
        (BECAUSE, b"openCircuit"),
    )


def with_budget(percent: float) -> Target:
    return Target(name="stable", host="iris.ml.svc", port=80, budget_percent=percent)


async def test_a_target_gets_its_share_of_all_requests_and_then_the_next_is_asked() -> None:
    it = world([with_budget(20), STATIC])
    for _ in range(100):
        it.chain.seen()
    by = [marks(await it.chain.answer(REQUEST, Reason.TIMEOUT))[ANSWERED_BY] for _ in range(30)]
    assert by == [b"stable"] * 20 + [b"static"] * 10
    assert 'crossfade_fallback_failures_total{reason="budget",target="stable"} 10.0' in it.counted()
    it.clock.now += 10
    assert marks(await it.chain.answer(REQUEST, Reason.TIMEOUT))[ANSWERED_BY] == b"stable"


async def test_ten_requests_may_always_go_to_a_target_even_with_no_budget() -> None:
    it = world([with_budget(0), STATIC])
    by = [marks(await it.chain.answer(REQUEST, Reason.TIMEOUT))[ANSWERED_BY] for _ in range(12)]
    assert by == [b"stable"] * 10 + [b"static"] * 2


async def test_a_whole_budget_has_no_limit_though_requests_are_older_than_the_window() -> None:
    """They timed out: when they fall back, the ten seconds they are counted in are over."""
    it = world([with_budget(100)])
    for _ in range(50):
        it.chain.seen()
    it.clock.now += 11
    for _ in range(50):
        assert await it.chain.answer(REQUEST, Reason.TIMEOUT) is not None


@given(
    percent=st.floats(0, 99),
    steps=st.lists(st.tuples(st.floats(0, 3), st.integers(0, 30), st.integers(0, 30))),
)
async def test_a_budget_is_never_exceeded_nor_left_unused(
    percent: float, steps: list[tuple[float, int, int]]
) -> None:
    it = world([with_budget(percent)])
    all_requests: Counter[int] = Counter()
    used: Counter[int] = Counter()
    for wait, seen, failed in steps:
        it.clock.now += wait
        second = int(it.clock.now)
        for _ in range(seen):
            it.chain.seen()
        all_requests[second] += seen
        total = sum(n for at, n in all_requests.items() if at > second - 10)
        before = sum(n for at, n in used.items() if at > second - 10)
        may = max(0, max(math.floor(total * percent / 100), ALWAYS_ALLOWED) - before)
        answers = [await it.chain.answer(REQUEST, Reason.TIMEOUT) for _ in range(failed)]
        went = sum(answer is not None for answer in answers)
        assert went == min(failed, may)
        used[second] += went


async def test_a_drill_asks_every_target_and_says_what_each_answered() -> None:
    it = world([STABLE, PREVIOUS, STATIC], stable=404, previous=TimeoutError())
    results = await it.chain.drill(REQUEST)
    assert [(d.target, d.ok, d.status, d.why) for d in results] == [
        ("stable", False, 404, "the golden request got 404"),
        ("previous", False, None, "no answer in 1 s"),
        ("static", True, 203, ""),
    ]
    assert it.network.hosts() == ["iris.ml.svc", "iris-old.ml.svc"]
    assert dict(it.network.asked[0][2].headers)[b"crossfade-fallback-from"] == b"rev1"
    assert it.counted() == {'crossfade_fallback_drill_ok{target="static"} 1.0'}


async def test_a_drill_says_where_nobody_listens_and_uses_no_budget() -> None:
    it = world([with_budget(0)], stable=ConnectionRefusedError("refused"))
    for _ in range(ALWAYS_ALLOWED + 5):
        (result,) = await it.chain.drill(REQUEST)
        assert result.why == "no connection to iris.ml.svc:80: refused"
    it.network.says = {}
    assert await it.chain.answer(REQUEST, Reason.TIMEOUT) is not None


async def test_a_static_answer_that_is_an_error_on_purpose_is_an_answer() -> None:
    it = world([Target(name="static", status=503, body="later")])
    (result,) = await it.chain.drill(REQUEST)
    assert (result.ok, result.status) == (True, 503)
    answer = await it.chain.answer(REQUEST, Reason.TIMEOUT)
    assert answer is not None
    assert (answer.answer.status, answer.answer.body) == (503, b"later")


async def test_drills_come_again_sooner_while_a_target_fails() -> None:
    it = world([STABLE, STATIC], stable=500)
    drills = Drills(it.chain, REQUEST)
    assert not drills.are_ok
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        it.network.says = {}
        if len(slept) == 2:
            raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await drills.repeat(sleep)
    assert slept == [DRILL_FAILED_AGAIN_SECONDS, DRILL_AGAIN_SECONDS]
    assert drills.are_ok


async def test_who_asks_for_a_drill_while_one_is_under_way_gets_its_result() -> None:
    it = world([STABLE])
    drills = Drills(it.chain, REQUEST)
    impatient = asyncio.create_task(drills.run())
    others = [asyncio.create_task(drills.run()) for _ in range(3)]
    it.network.opens.clear()
    await it.network.was_asked.wait()
    impatient.cancel()
    it.network.opens.set()
    await asyncio.gather(*others)
    assert drills.are_ok
    assert len(it.network.asked) == 1
    await drills.run()
    assert len(it.network.asked) == 2
