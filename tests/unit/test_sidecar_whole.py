"""The whole sidecar as a process, before a small real model, on loopback."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import yaml

from crossfade.sidecar.config import (
    Breaker,
    Config,
    Fallback,
    Golden,
    Inputs,
    Recording,
    Target,
    write_config,
)

HERE = "127.0.0.1"
OPERATOR = Path(__file__).parents[2] / "operator"
PATIENCE = 30.0
"""Seconds that a condition may take to come true on a busy machine; none should need one."""

GOLDEN = Golden(path="/predict", body='{"age": 40}')
INPUTS = Inputs(
    schema={
        "type": "object",
        "required": ["age"],
        "properties": {"age": {"type": "number", "minimum": 0}},
    }
)


@dataclass
class Message:
    """A request or an answer as it was on the wire, but for the borders of chunks."""

    head: bytes
    body: bytes
    trailers: bytes = b""

    @property
    def path(self) -> str:
        return self.head.split(b" ")[1].decode()

    @property
    def status(self) -> int:
        return int(self.head.split(b" ")[1])

    def header(self, name: str) -> str | None:
        found = re.search(rf"^{name}: *(.*?)\r$", self.head.decode(), re.IGNORECASE | re.MULTILINE)
        return found and found[1]

    def lines(self) -> list[bytes]:
        return self.head.split(b"\r\n")[1:-2]


async def read_message(reader: asyncio.StreamReader) -> Message:
    """Read one message that says how long it is."""
    head = await reader.readuntil(b"\r\n\r\n")
    message = Message(head, b"")
    if message.header("transfer-encoding") != "chunked":
        message.body = await reader.readexactly(int(message.header("content-length") or 0))
        return message
    while piece := await read_chunk(reader):
        message.body += piece
    while (line := await reader.readuntil(b"\r\n")) != b"\r\n":
        message.trailers += line
    return message


async def read_chunk(reader: asyncio.StreamReader) -> bytes:
    """Read a chunk; of the last one, which is empty, only the line before its trailers."""
    size = int(await reader.readuntil(b"\r\n"), 16)
    if not size:
        return b""
    return (await reader.readexactly(size + 2))[:-2]


def answer(status: int, body: bytes, *headers: bytes) -> bytes:
    lines = [b"HTTP/1.1 %d X" % status, *headers, b"content-length: %d" % len(body), b"", body]
    return b"\r\n".join(lines)


def request(path: str, body: bytes, *headers: bytes, method: str = "POST") -> bytes:
    lines = [
        f"{method} {path} HTTP/1.1".encode(),
        b"Host: iris.example",
        b"content-type: application/json",
        *headers,
        b"content-length: %d" % len(body),
        b"",
        body,
    ]
    return b"\r\n".join(lines)


Handler = Callable[[Message, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Model:
    """A model server: answers with its name, unless it is told otherwise."""

    name: str
    status: int = 200
    handler: Handler | None = None
    seen: list[Message] = field(default_factory=list)
    port: int = 0
    _server: asyncio.Server | None = None
    _open: set[asyncio.StreamWriter] = field(default_factory=set)

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, HERE, self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def die(self) -> None:
        """Be gone, with all connections, as a killed process is."""
        assert self._server is not None
        self._server.close()
        for writer in tuple(self._open):
            writer.transport.abort()
        await self._server.wait_closed()

    def inferred(self) -> list[Message]:
        """Return the requests that were no golden ones."""
        return [one for one in self.seen if one.body != GOLDEN.body.encode()]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            while True:
                message = await read_message(reader)
                self.seen.append(message)
                if self.handler is not None:
                    await self.handler(message, writer)
                else:
                    writer.write(answer(self.status, f'{{"by": "{self.name}"}}'.encode()))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._open.discard(writer)
            writer.close()


@asynccontextmanager
async def model(name: str = "model") -> AsyncIterator[Model]:
    it = Model(name)
    await it.start()
    try:
        yield it
    finally:
        await it.die()


@dataclass
class Sidecar:
    """A running sidecar."""

    process: asyncio.subprocess.Process
    port: int
    admin_port: int

    async def ask(self, path: str, body: bytes, *headers: bytes) -> Message:
        return await exchange(self.port, request(path, body, *headers))

    async def admin(self, path: str) -> Message:
        return await exchange(self.admin_port, request(path, b"", method="GET"))

    async def metric(self, line: str) -> float:
        """Return the value of a sample, by its name and labels as they are written."""
        text = (await self.admin("/metrics")).body.decode()
        found = re.search(rf"^{re.escape(line)} (.*)$", text, re.MULTILINE)
        assert found, text
        return float(found[1])


async def exchange(port: int, sent: bytes) -> Message:
    """Send a request on a connection of its own."""
    async with asyncio.timeout(PATIENCE):
        reader, writer = await asyncio.open_connection(HERE, port)
        try:
            writer.write(sent)
            return await read_message(reader)
        finally:
            writer.close()


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait for a condition."""
    async with asyncio.timeout(PATIENCE):
        while not await condition():  # noqa: ASYNC110 - the other process sets no event
            await asyncio.sleep(0.01)


@asynccontextmanager
async def sidecar(
    tmp_path: Path,
    of: Model,
    *,
    golden: Golden | None = GOLDEN,
    inputs: Inputs | None = None,
    fallback: Fallback | None = None,
    recording: Recording | None = None,
    drain_seconds: float = PATIENCE,
) -> AsyncIterator[Sidecar]:
    """Run a sidecar until it is ready, and end it."""
    config = Config(
        namespace="ml",
        name="iris",
        model="iris",
        version="1",
        revision="rev1",
        protocol="http",
        port=0,
        admin_port=0,
        model_port=of.port,
        golden=golden,
        inputs=inputs,
        fallback=fallback,
        recording=recording,
        drain_seconds=drain_seconds,
    )
    path = tmp_path / "sidecar.json"
    path.write_text(write_config(config))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "crossfade.sidecar", "--config", str(path)),
        *("--recordings", str(tmp_path / "recordings")),
        env={**os.environ, "PYTHONPATH": str(OPERATOR)},
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    try:
        async with asyncio.timeout(PATIENCE):
            line = ""
            while " listening " not in line:
                line = (await process.stderr.readuntil()).decode()
        ports = re.search(r"port=(\d+) admin_port=(\d+)", line)
        assert ports, line
        it = Sidecar(process, int(ports[1]), int(ports[2]))

        async def ready() -> bool:
            return (await it.admin("/ready")).status == 200

        await until(ready)
        yield it
    finally:
        if process.returncode is None:
            process.kill()
        logged = await process.stderr.read()
        await process.wait()
        print(logged.decode())  # noqa: T201 - pytest shows it where a test fails


async def test_heads_and_bodies_pass_as_they_are(tmp_path: Path) -> None:
    said = (
        b"HTTP/1.1 299 Quite Fine\r\nX-Odd-CASE: 1\r\nset-cookie: a=1\r\nSet-Cookie: b=2\r\n"
        b"Content-Length: 3\r\n\r\n\x00\xffz"
    )

    async def say(_: Message, writer: asyncio.StreamWriter) -> None:
        writer.write(said)

    async with model() as it, sidecar(tmp_path, it) as proxy:
        it.handler = say
        sent = (
            b"PUT /a%2Fb/c?q=%20x&y=%C3%A9 HTTP/1.1\r\nhOsT: iris.example\r\nX-b: 2\r\nX-A: 1\r\n"
            b"x-b: 3\r\nContent-LENGTH: 4\r\n\r\n\x00\xff\r\n"
        )
        got = await exchange(proxy.port, sent)
        assert it.seen[-1].head + it.seen[-1].body == sent
        assert got.head + got.body == said


async def test_chunks_and_trailers_pass_both_ways(tmp_path: Path) -> None:
    async def say(_: Message, writer: asyncio.StreamWriter) -> None:
        writer.write(
            b"HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"3\r\nabc\r\n2\r\nde\r\n0\r\nX-Sum: 9\r\n\r\n"
        )

    async with model() as it, sidecar(tmp_path, it) as proxy:
        it.handler = say
        sent = (
            b"POST /p HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nTransfer-Encoding: chunked\r\n"
            b"Trailer: X-End\r\nConnection: TE\r\n\r\n1\r\na\r\n3\r\nbcd\r\n0\r\nX-End: 1\r\n\r\n"
        )
        got = await exchange(proxy.port, sent)
        assert (it.seen[-1].body, it.seen[-1].trailers) == (b"abcd", b"X-End: 1\r\n")
        assert (got.body, got.trailers) == (b"abcde", b"X-Sum: 9\r\n")
        assert got.header("trailer") == "X-Sum"


async def test_events_arrive_one_by_one_while_the_answer_goes_on(tmp_path: Path) -> None:
    go_on = asyncio.Event()

    async def say(_: Message, writer: asyncio.StreamWriter) -> None:
        writer.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
            b"transfer-encoding: chunked\r\n\r\n"
        )
        for number in range(3):
            event = b"data: %d\n\n" % number
            writer.write(b"%x\r\n%b\r\n" % (len(event), event))
            await writer.drain()
            await go_on.wait()
            go_on.clear()
        writer.write(b"0\r\n\r\n")

    async with model() as it, sidecar(tmp_path, it) as proxy, asyncio.timeout(PATIENCE):
        it.handler = say
        reader, writer = await asyncio.open_connection(HERE, proxy.port)
        writer.write(request("/stream", b"{}"))
        assert b" 200 " in await reader.readuntil(b"\r\n\r\n")
        for number in range(3):
            assert await read_chunk(reader) == b"data: %d\n\n" % number
            go_on.set()
        assert await read_chunk(reader) == b""
        writer.close()


async def test_five_megabytes_pass_both_ways(tmp_path: Path) -> None:
    body = os.urandom(5 * 1024 * 1024)

    async def echo(message: Message, writer: asyncio.StreamWriter) -> None:
        writer.write(answer(200, message.body))

    async with model() as it, sidecar(tmp_path, it) as proxy:
        it.handler = echo
        got = await proxy.ask("/echo", body)
        assert got.body == body


async def test_of_many_clients_at_once_each_gets_the_answer_to_its_own_requests(
    tmp_path: Path,
) -> None:
    async def echo(message: Message, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.001 * len(message.body))  # so that answers overtake each other
        writer.write(answer(200, message.body))

    async def client(proxy: Sidecar, number: int) -> None:
        reader, writer = await asyncio.open_connection(HERE, proxy.port)
        try:
            for turn in range(50):
                body = b"%d-%d" % (number, turn * 10 ** (number % 4))
                writer.write(request("/echo", body))
                assert (await read_message(reader)).body == body
        finally:
            writer.close()

    async with model() as it, sidecar(tmp_path, it) as proxy, asyncio.timeout(PATIENCE):
        it.handler = echo
        await asyncio.gather(*(client(proxy, number) for number in range(8)))


async def test_an_input_that_breaks_the_contract_never_reaches_the_model(tmp_path: Path) -> None:
    async with model() as it, sidecar(tmp_path, it, inputs=INPUTS) as proxy:
        good = await proxy.ask("/predict", b'{"age": 41}')
        assert (good.status, good.body) == (200, b'{"by": "model"}')
        bad = await proxy.ask("/predict", b'{"age": -4}')
        assert bad.status == 422
        assert "age" in bad.body.decode()
        assert [one.body for one in it.inferred()] == [b'{"age": 41}']
        assert await proxy.metric('crossfade_inputs_total{result="rejected"}') == 1
        checked = await exchange(proxy.admin_port, request("/check?path=/predict", b'{"age": -4}'))
        (violation,) = json.loads(checked.body)["violations"]
        assert (violation["field"], violation["rule"]) == ("age", "minimum")


def falling_back(*targets: Target, breaker: Breaker | None = None) -> Fallback:
    return Fallback(targets=targets, breaker=breaker or Breaker(min_requests=1_000_000))


async def test_when_the_model_is_killed_others_answer_and_the_static_answer_is_last(
    tmp_path: Path,
) -> None:
    async with model() as it, model("stable") as stable:
        fallback = falling_back(
            Target(name="stable", host=HERE, port=stable.port),
            Target(name="static", status=200, body='{"by": "nobody"}'),
        )
        async with sidecar(tmp_path, it, fallback=fallback) as proxy:
            assert (await proxy.ask("/predict", b"{}")).header("crossfade-fallback") is None

            async def is_drilled() -> bool:
                return bool(json.loads((await proxy.admin("/drill")).body)["ok"])

            await until(is_drilled)
            assert [one.body for one in stable.seen] == [GOLDEN.body.encode()]
            await it.die()
            got = await proxy.ask("/predict", b'{"age": 1}')
            assert (got.status, got.body) == (200, b'{"by": "stable"}')
            assert got.header("crossfade-fallback") == "stable"
            assert got.header("crossfade-fallback-reason") == "connection"
            assert stable.seen[-1].header("crossfade-fallback-from") == "rev1"
            assert stable.seen[-1].header("host") == "iris.example"
            assert stable.seen[-1].body == b'{"age": 1}'
            assert await proxy.metric('crossfade_model_requests_total{code="502"}') == 1
            await stable.die()
            got = await proxy.ask("/predict", b'{"age": 2}')
            assert (got.status, got.body) == (200, b'{"by": "nobody"}')
            assert got.header("crossfade-fallback") == "static"
            assert (await proxy.admin("/ready")).status == 200
            await it.start()
            got = await proxy.ask("/predict", b'{"age": 3}')
            assert got.body == b'{"by": "model"}'
            await stable.start()


async def test_the_circuit_opens_when_the_model_fails_and_closes_when_it_works(
    tmp_path: Path,
) -> None:
    breaker = Breaker(min_requests=5, open_seconds=1.0)
    fallback = falling_back(Target(name="static", body="{}"), breaker=breaker)
    async with model() as it, sidecar(tmp_path, it, fallback=fallback) as proxy:
        it.status = 500
        numbers = count()

        async def is_not_asked() -> bool:
            body = b"%d" % next(numbers)
            got = await proxy.ask("/predict", body)
            reason = got.header("crossfade-fallback-reason")
            was_asked = body in [one.body for one in it.seen]
            assert reason == ("serverError" if was_asked else "openCircuit")
            return not was_asked

        await until(is_not_asked)
        assert len(it.inferred()) >= 5
        assert await proxy.metric("crossfade_circuit_open") == 1
        assert await proxy.metric('crossfade_model_requests_total{code="503"}') >= 1
        it.status = 200

        async def answers() -> bool:
            return (await proxy.ask("/predict", b"{}")).header("crossfade-fallback") is None

        await until(answers)
        assert await proxy.metric("crossfade_circuit_open") == 0


async def test_recordings_come_out_masked(tmp_path: Path) -> None:
    recording = Recording(percent=100, mask=("$.name",), mask_headers=("x-user",))
    async with model() as it, sidecar(tmp_path, it, recording=recording) as proxy:
        await proxy.ask(
            "/predict",
            b'{"name": "Ada-Lovelace", "age": 36}',
            b"Authorization: Bearer Tell-Nobody",
            b"X-User: Ada-Lovelace",
        )

        async def is_recorded() -> bool:
            return await proxy.metric("crossfade_recorded_total") == 1

        await until(is_recorded)
        text = (await proxy.admin("/recordings")).body.decode()
        assert "Lovelace" not in text
        assert "Tell-Nobody" not in text
        (case,) = yaml.safe_load_all(text)
        assert case["kind"] == "Http"
        assert json.loads(case["spec"]["req"]["body"]) == {"name": "***", "age": 36}
        proxy.process.send_signal(signal.SIGTERM)
        assert await proxy.process.wait() == 0
        async with sidecar(tmp_path, it, recording=recording) as restarted:
            assert (await restarted.admin("/recordings")).body.decode() == text
    kept = [path.read_text() for path in (tmp_path / "recordings").iterdir()]
    assert len(kept) == 1
    assert "Lovelace" not in kept[0]


@dataclass
class Load:
    """Clients that send one request after the other, until they are told to stop."""

    port: int
    stop: bool = False
    answered: int = 0
    lost: list[str] = field(default_factory=list)

    async def client(self) -> None:
        while not self.stop and not self.lost:
            reader, writer = await asyncio.open_connection(HERE, self.port)
            try:
                await self.talk(reader, writer)
            except (asyncio.IncompleteReadError, OSError) as error:
                self.lost.append(repr(error))
            finally:
                writer.close()

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Use a connection as long as the other side wants to."""
        while not self.stop:
            writer.write(request("/predict", b'{"age": 5}'))
            got = await read_message(reader)
            if got.status != 200:
                self.lost.append(str(got.status))
            self.answered += 1
            if got.header("connection") == "close":
                return


async def test_no_request_is_lost_when_the_pod_ends_under_load(tmp_path: Path) -> None:
    async def slow(_: Message, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.05)  # so that some are under way at any time
        writer.write(answer(200, b"{}"))

    async with model() as it, sidecar(tmp_path, it) as proxy:
        it.handler = slow
        load = Load(proxy.port)
        clients = [asyncio.create_task(load.client()) for _ in range(8)]

        async def is_under_load() -> bool:
            return load.answered > 20

        await until(is_under_load)
        proxy.process.send_signal(signal.SIGTERM)

        async def is_not_ready() -> bool:
            return (await proxy.admin("/ready")).status == 503

        await until(is_not_ready)
        after = load.answered

        async def goes_on() -> bool:
            return load.answered > after or bool(load.lost)

        await until(goes_on)  # it serves those who do not know yet
        load.stop = True  # they know: nothing is sent to a pod that is not ready
        async with asyncio.timeout(PATIENCE):
            await asyncio.gather(*clients)
            assert await proxy.process.wait() == 0
        assert load.lost == []


async def test_told_that_its_pod_will_end_it_lets_connections_go_and_serves_on(
    tmp_path: Path,
) -> None:
    """Ended it is only once the model is."""
    async with model() as it, sidecar(tmp_path, it) as proxy:
        assert (await proxy.ask("/predict", b"{}")).header("connection") is None
        proxy.process.send_signal(signal.SIGUSR1)

        async def lets_go() -> bool:
            got = await proxy.ask("/predict", b"{}")
            assert got.status == 200
            return got.header("connection") == "close"

        await until(lets_go)
        assert (await proxy.admin("/ready")).status == 200


async def test_a_long_answer_is_sent_to_its_end_when_the_pod_ends(tmp_path: Path) -> None:
    go_on = asyncio.Event()

    async def say(_: Message, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nab")
        await go_on.wait()
        writer.write(b"cd")

    async with model() as it, sidecar(tmp_path, it) as proxy, asyncio.timeout(PATIENCE):
        it.handler = say
        reader, writer = await asyncio.open_connection(HERE, proxy.port)
        writer.write(request("/slow", b"{}"))
        await reader.readuntil(b"\r\n\r\nab")
        proxy.process.send_signal(signal.SIGTERM)

        async def is_not_ready() -> bool:
            return (await proxy.admin("/ready")).status == 503

        await until(is_not_ready)
        go_on.set()
        assert await reader.readexactly(2) == b"cd"
        assert await proxy.process.wait() == 0
        writer.close()


async def test_a_request_that_never_ends_is_broken_off_after_the_time_to_drain(
    tmp_path: Path,
) -> None:
    async def never(_: Message, writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    async with (
        model() as it,
        sidecar(tmp_path, it, drain_seconds=0.5) as proxy,
        asyncio.timeout(PATIENCE),
    ):
        it.handler = never
        reader, writer = await asyncio.open_connection(HERE, proxy.port)
        writer.write(request("/never", b"{}"))

        async def is_asked() -> bool:
            return bool(it.inferred())

        await until(is_asked)
        proxy.process.send_signal(signal.SIGTERM)
        assert await reader.read() == b""
        assert await proxy.process.wait() == 0
        writer.close()
