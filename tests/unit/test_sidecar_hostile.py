"""What somebody does who wants the sidecar to fall, or his request past it."""

from __future__ import annotations

import asyncio
import gc
import json
import threading
from contextlib import AsyncExitStack
from typing import Any

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossfade.sidecar.config import Breaker, Fallback, Inputs, Observed, Target
from crossfade.sidecar.connection import SEND_SECONDS
from crossfade.sidecar.documents import Unreadable, parse_request
from crossfade.sidecar.framing import RefusedError
from crossfade.sidecar.looker import HERE_BYTES, Looker
from crossfade.sidecar.messages import Request
from crossfade.sidecar.room import HELD_BODIES, MOST_WAITING, SMALL_BYTES, Room
from tests.unit.test_sidecar_proxy import BAD, GOOD, SCHEMA, answer, ask, post, sidecar
from tests.unit.wires import (
    MAX_BODY,
    OK,
    Model,
    Reader,
    Writer,
    dialled,
    on_both_loops,
    read_message,
    said,
    until,
)

JSON = ((b"content-type", b"application/json"),)
CHECKED = Inputs(schema=SCHEMA)
STATIC = Target(name="static", body="static")
TEN_MB = 10 * 1024 * 1024


def fallback(**settings: Any) -> Fallback:
    return Fallback(targets=(STATIC,), **settings)


# A request past the contract, or read in two ways.


@on_both_loops
@pytest.mark.parametrize(
    "trailer",
    [
        b"Content-Type: text/plain",
        b"content_type: text/plain",
        b"Content-Encoding: gzip",
        b"Inference-Header-Content-Length: 2",
        b"Host: other",
        b"Authorization: Basic x",
        b"Expect: 100-continue",
        b"crossfade-fallback-from: x",
        b"Connection: close",
    ],
)
async def test_no_trailer_says_how_a_request_is_read(trailer: bytes) -> None:
    sent = (
        b"POST /predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"a\r\n%b\r\n0\r\n%b\r\nX-Sum: 1\r\n\r\n" % (GOOD, trailer)
    )
    async with sidecar(Model(), inputs=CHECKED) as made:
        assert (await ask(made.port, sent))[0] == 200
        assert made.model.seen[0][1] == GOOD + b"X-Sum: 1\r\n"


@on_both_loops
@pytest.mark.parametrize(
    "header",
    [
        b"Content_Type: application/x-www-form-urlencoded",
        b"content-encoding_: gzip\r\nContent_Encoding: gzip",
        b"CONTENT_LENGTH: 1",
        b"Transfer_Encoding: chunked",
        b"Inference-Header_Content-Length: 4",
    ],
)
async def test_no_other_spelling_of_a_header_says_how_a_request_is_read(header: bytes) -> None:
    async with sidecar(Model(), inputs=CHECKED) as made:
        assert (await ask(made.port, post(GOOD, "/predict", header)))[0] == 422
        assert made.model.seen == []


@on_both_loops
async def test_what_is_pipelined_behind_a_refusal_is_checked_as_well_or_thrown_away() -> None:
    upgrade = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"
    early = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n"
    async with sidecar(Model(), inputs=CHECKED) as made:
        for first in (post(BAD), upgrade, post(GOOD) + upgrade, early):
            got = await said(made.port, first + post(BAD) + b"BROKEN\r\n\r\n")
            assert got.count(b"HTTP/1.1 ") > 0
        assert [body for _, body in made.model.seen] == [GOOD]


@on_both_loops
async def test_what_follows_an_answer_is_no_part_of_the_next_one() -> None:
    poison = b"HTTP/1.1 200 Evil\r\nX-Evil: "
    model = Model()
    model.says(answer(b"one") + poison, answer(b"two"), closes=False)
    async with sidecar(model) as made:
        assert (await ask(made.port, post(GOOD)))[::2] == (200, b"one")
        status, head, body = await ask(made.port, post(GOOD))
        assert (status, body) == (200, b"two")
        assert b"evil" not in head.lower()


@on_both_loops
@pytest.mark.parametrize(
    "target", ["/v1/models/iris:predict", "/v1/models/iris%3APredict/", "/v1/models/iris:explain"]
)
async def test_an_older_protocol_on_the_same_port_is_no_way_round_the_contract(target: str) -> None:
    async with sidecar(Model(), inputs=CHECKED, protocol="openInference") as made:
        assert (await ask(made.port, post(BAD, target)))[0] == 422
        assert (await ask(made.port, post(GOOD, "/v1/models/iris:metadata")))[0] == 200
        assert len(made.model.seen) == 1


# Generated from the contract.

FIELDS: dict[str, Any] = {
    "age": {"type": "integer", "minimum": 0, "maximum": 150},
    "country": {"enum": ["DE", "FR"]},
    "tags": {"type": "array", "maxItems": 3, "items": {"type": "string", "maxLength": 5}},
}
STRICT = {
    "type": "object",
    "required": ["age", "country"],
    "properties": FIELDS,
    "additionalProperties": False,
}
VALID = st.fixed_dictionaries(
    {"age": st.integers(0, 150), "country": st.sampled_from(["DE", "FR"])},
    optional={"tags": st.lists(st.text(st.characters(codec="utf-8"), max_size=5), max_size=3)},
)
WRONG: dict[str, st.SearchStrategy[Any]] = {
    "age": st.integers(max_value=-1) | st.integers(151) | st.floats(151) | st.text() | st.none(),
    "country": st.sampled_from(["de", "", "XX", None, 1, ["DE"]]),
    "tags": st.lists(st.text(), min_size=4) | st.just(["longer"]) | st.text() | st.just([1]),
    "more": st.none(),
}


@st.composite
def wrong(draw: st.DrawFn) -> bytes:
    """Return a valid body in which one thing is wrong."""
    value = draw(VALID)
    field = draw(st.sampled_from([*WRONG, "missing", "twice", "cut", "behind", "within"]))
    if field in WRONG:
        value[field] = draw(WRONG[field])
    elif field == "missing":
        del value[draw(st.sampled_from(["age", "country"]))]
    text = json.dumps(value, ensure_ascii=draw(st.booleans()))
    changed = {
        "twice": '{"age": 1, ' + text[1:],
        "cut": text[: draw(st.integers(0, len(text) - 1))],
        "behind": text + draw(st.sampled_from(["{}", ",", "]", "\0", text])),
        "within": f"[{text}]",
    }.get(field, text)
    return changed.encode(errors="surrogatepass")


@given(st.lists(st.tuples(st.booleans(), VALID, wrong()), min_size=1, max_size=20))
@hypothesis.settings(max_examples=40, deadline=None)
def test_the_valid_pass_and_the_wrong_never_reach_the_model(
    drawn: list[tuple[bool, dict[str, Any], bytes]],
) -> None:
    sent = [(good, json.dumps(v).encode() if good else bad) for good, v, bad in drawn]

    async def run() -> None:
        async with (
            sidecar(Model(), inputs=Inputs(schema=STRICT)) as made,
            dialled(made.port) as (reader, writer),
        ):
            writer.write(b"".join(post(body) for _, body in sent))
            for good, body in sent:
                head, _ = await read_message(reader)
                assert int(head.split()[1]) == (200 if good else 422), body
            assert [body for _, body in made.model.seen] == [body for good, body in sent if good]

    asyncio.run(run())


# Until it falls.


@pytest.mark.parametrize("one", [b"[]", b"{}", b"[1]", b'{"a":1}', b'"a"', b"[[[]]]"])
def test_a_body_whose_values_take_more_than_the_sidecar_has_is_not_parsed(one: bytes) -> None:
    body = b"[" + b",".join([one] * ((TEN_MB - 2) // (len(one) + 1))) + b"]"
    with pytest.raises(Unreadable) as caught:
        parse_request(Request("POST", "/", JSON, body), "http", TEN_MB)
    assert caught.value.rule == "size"


@pytest.mark.parametrize("one", [b"1.25", b'"' + b"," * 1000 + b'"'])
def test_a_large_body_of_numbers_or_long_texts_is_parsed(one: bytes) -> None:
    count = (TEN_MB // 4) // (len(one) + 1)
    body = b"[" + b",".join([one] * count) + b"]"
    assert len(parse_request(Request("POST", "/", JSON, body), "http", TEN_MB).value) == count


@on_both_loops
async def test_all_bodies_that_are_held_have_a_bound() -> None:
    go_on = asyncio.Event()

    async def wait(reader: Reader, writer: Writer) -> None:
        await model.take(reader)
        await go_on.wait()
        writer.write(OK)

    body = json.dumps({"age": 1, "pad": "x" * (MAX_BODY - 100)}).encode()
    model = Model([wait])
    large = HELD_BODIES - 1
    async with sidecar(model, inputs=CHECKED, max_body_bytes=MAX_BODY) as made:
        held = [asyncio.create_task(ask(made.port, post(body))) for _ in range(3 * large)]
        await until(lambda: made.server.open_requests == 3 * large and len(model.seen) == large)
        assert made.server.rooms.taken == large * len(body)
        small = asyncio.create_task(ask(made.port, post(GOOD)))
        await until(lambda: len(model.seen) == large + 1)
        assert made.server.rooms.taken == large * len(body) + len(GOOD)
        go_on.set()
        assert {status for status, _, _ in await asyncio.gather(*held, small)} == {200}
        assert len(model.seen) == 3 * large + 1
        await until(lambda: made.server.rooms.taken == 0)


@on_both_loops
async def test_who_waits_too_long_for_room_is_told_to_ask_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("crossfade.sidecar.room.WAIT_SECONDS", 0.01)
    body = b" " * MAX_BODY
    sent = post(body)[:-1]
    large = HELD_BODIES - 1
    async with (
        AsyncExitStack() as open_,
        sidecar(Model(), inputs=CHECKED, max_body_bytes=MAX_BODY) as made,
    ):
        for _ in range(large):
            (_, writer) = await open_.enter_async_context(dialled(made.port))
            writer.write(sent)
        await until(lambda: made.server.rooms.taken == large * MAX_BODY)
        status, head, _ = await ask(made.port, sent)
        assert status == 503
        assert b"connection: close" in head
        assert made.model.seen == []


@on_both_loops
async def test_only_so_many_wait_for_room() -> None:
    room = Room(10)
    await room.take(10)
    waiting = [asyncio.create_task(room.place(1)) for _ in range(MOST_WAITING)]
    await asyncio.sleep(0)
    with pytest.raises(RefusedError) as caught:
        await room.place(1)
    assert caught.value.status == 503
    waiting[3].cancel()
    await asyncio.gather(waiting[3], return_exceptions=True)
    last = asyncio.create_task(room.place(1))
    await asyncio.sleep(0)
    room.give(10)
    await asyncio.gather(*waiting[:3], *waiting[4:11])
    assert room.taken == 10
    room.give(10)
    room.give(10)
    room.give(10)
    assert (await last).size == 1


@on_both_loops
async def test_of_who_goes_away_while_he_waits_for_room_nothing_stays() -> None:
    room = Room(10)
    await room.take(7)
    gone, first, second = (asyncio.create_task(room.take(size)) for size in (9, 5, 5))
    await asyncio.sleep(0)
    assert not room.try_take(1)  # it would come before those who wait
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
    room.give(7)
    first.cancel()  # it has its bytes, and does not know yet
    await asyncio.gather(first, second, return_exceptions=True)
    assert first.cancelled()
    assert room.taken == 5
    room.give(5)
    assert room.try_take(10)


@on_both_loops
@pytest.mark.parametrize("size", [10, SMALL_BYTES + 1, MAX_BODY])
async def test_a_body_of_unknown_length_has_the_room_that_it_takes(size: int) -> None:
    go_on = asyncio.Event()

    async def wait(reader: Reader, writer: Writer) -> None:
        await model.take(reader)
        await go_on.wait()
        writer.write(OK)

    model = Model([wait])
    body = json.dumps({"age": 1}).encode().ljust(size)
    head = post(b"").replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
    async with (
        sidecar(model, inputs=CHECKED, max_body_bytes=MAX_BODY) as made,
        dialled(made.port) as (reader, writer),
    ):
        writer.write(head + b"%x\r\n%b" % (len(body), body[:5]))
        await until(lambda: made.server.rooms.taken > 0)
        assert made.server.rooms.taken == SMALL_BYTES
        writer.write(body[5:] + b"\r\n0\r\n\r\n")
        await until(lambda: bool(model.seen))
        assert model.seen[0][1] == body
        assert made.server.rooms.taken == len(body)
        go_on.set()
        assert (await read_message(reader))[1] == b"ok"
        await until(lambda: made.server.rooms.taken == 0)


@on_both_loops
async def test_of_requests_that_are_given_up_nothing_stays_held() -> None:
    async with sidecar(Model(), inputs=CHECKED) as made:
        for length in (3, 100_000):
            async with dialled(made.port) as (_, writer):
                writer.write(post(b" " * 100_001)[: length - 100_001])
                await until(lambda: made.server.open_requests == 1)
            await until(lambda: made.server.open_requests == 0)
        assert made.server.rooms.taken == 0


@on_both_loops
async def test_who_has_a_part_of_the_room_never_waits_for_others_who_have() -> None:
    """Bodies of unknown length that turn out to be a little larger than small ones."""
    most = SMALL_BYTES + 1000
    body = json.dumps({"age": 1}).encode().ljust(most)
    head = post(b"").replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
    chunk = b"%x\r\n" % most + body
    model = Model()
    async with (
        AsyncExitStack() as open_,
        sidecar(model, inputs=CHECKED, max_body_bytes=most) as made,
    ):
        rooms = made.server.rooms
        clients = [await open_.enter_async_context(dialled(made.port)) for _ in range(16)]
        for _, writer in clients:
            writer.write(head + chunk[:100])
        await until(lambda: rooms.small.taken == 16 * SMALL_BYTES)
        assert rooms.small.place_now(SMALL_BYTES) is None
        for _, writer in clients:
            writer.write(chunk[100:] + b"\r\n0\r\n\r\n")
        for reader, _ in clients:
            assert (await read_message(reader))[0].startswith(b"HTTP/1.1 200 ")
        assert len(model.seen) == 16
        await until(lambda: rooms.taken == 0)


@on_both_loops
async def test_who_reads_no_answer_gets_no_other_one() -> None:
    size = 1_000_000
    async with (
        sidecar(Model(), is_down=True, fallback=_static(b"y" * size)) as made,
        dialled(made.port) as (reader, writer),
    ):
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(post(GOOD) * 50)
        (connection,) = await _connections(made.server)
        await until(lambda: connection._drainer is not None)
        writer.write(post(GOOD) * 50)
        async with dialled(made.port) as (answers, other):  # the loop turns meanwhile
            for _ in range(3):
                other.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                await read_message(answers)
        assert connection._transport.get_write_buffer_size() <= 2 * size
        writer.transport.resume_reading()  # type: ignore[attr-defined]
        for _ in range(100):
            assert len((await read_message(reader))[1]) == size


@on_both_loops
async def test_who_never_reads_a_whole_answer_is_cut_off() -> None:
    held = b"y" * 20_000_000
    async with (
        sidecar(Model(), is_down=True, fallback=_static(held)) as made,
        dialled(made.port) as (_, writer),
    ):
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(post(GOOD))
        (connection,) = await _connections(made.server)
        await until(lambda: connection._drainer is not None)
        now = asyncio.get_running_loop().time()
        connection.sweep(now)
        connection.sweep(now + SEND_SECONDS + 60)
        await until(lambda: not made.server.connections)


def _static(body: bytes) -> Fallback:
    return Fallback(
        targets=(Target(name="static", body=body.decode()),),
        breaker=Breaker(min_requests=1_000_000),
    )


async def _connections(server: Any) -> tuple[Any, ...]:
    await until(lambda: bool(server.connections))
    return tuple(server.connections)


@on_both_loops
@pytest.mark.parametrize("good", [True, False])
async def test_large_bodies_are_checked_and_observed_beside_the_loop(good: bool) -> None:
    age = 3 if good else -3
    body = json.dumps({"age": age, "pad": "x" * HERE_BYTES}).encode()
    feature = Observed(name="age", json_path="$.age", buckets=(1.0, 5.0))
    async with sidecar(Model(), inputs=CHECKED, features=(feature,)) as made:
        assert (await ask(made.port, post(body)))[0] == (200 if good else 422)
        await until(lambda: made.count("crossfade_features_count") == good)
        assert [body for _, body in made.model.seen] == [body] * good


async def test_one_large_body_is_looked_into_at_a_time_even_if_nobody_waits_for_it() -> None:
    looker = Looker()
    go_on = threading.Event()
    began = asyncio.Event()
    loop = asyncio.get_running_loop()
    request = Request("POST", "/", JSON, b" " * (HERE_BYTES + 1))
    looks: list[str] = []

    def first(_: Request) -> str:
        loop.call_soon_threadsafe(began.set)
        go_on.wait()
        looks.append(f"first, collector {gc.isenabled()}")
        return "first"

    def second(_: Request) -> str:
        looks.append("second")
        return "second"

    gives_up = asyncio.create_task(looker.look(request, first))
    await began.wait()
    gives_up.cancel()
    waits = asyncio.create_task(looker.look(request, second))
    small = Request("POST", "/", JSON, b" ")
    assert await looker.look(small, lambda _: "small") == "small"
    assert not gives_up.done()  # its body is still needed
    assert looks == []
    go_on.set()
    assert await waits == "second"
    assert gives_up.cancelled()
    assert looks == ["first, collector False", "second"]
    assert gc.isenabled()


# What is held against the model.


@on_both_loops
async def test_a_slow_client_is_not_the_model_s_fault_whatever_it_says_it_is() -> None:
    async with (
        sidecar(Model(), fallback=fallback(timeout_seconds=0.05)) as made,
        dialled(made.port) as (_, writer),
    ):
        sent = post(GOOD, "/predict", b"crossfade-fallback-from: me")
        writer.write(sent[:-1])
        await until(lambda: made.server.open_requests == 1)
        (connection,) = await _connections(made.server)
        await until(lambda: connection._current is not None and connection._current.is_waiting)
        assert connection._current.relays_continue is False
        assert made.codes() == {}
        assert made.model.connections == 0
