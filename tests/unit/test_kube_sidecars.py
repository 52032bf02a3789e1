"""The operator asks real admin ports, and takes nothing for an answer that is none."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest
from aiohttp import web

from crossfade.core.observation import DrillResult
from crossfade.errors import SidecarError
from crossfade.kube.sidecars import LARGEST_ANSWER, HttpSidecars
from crossfade.sidecar.admin import Admin
from crossfade.sidecar.config import Config, Fallback, Golden, Inputs, Target
from crossfade.sidecar.contract import Contract
from crossfade.sidecar.fallback import Chain, Drills
from crossfade.sidecar.looker import Looker
from crossfade.sidecar.messages import Answer, Request
from crossfade.sidecar.metrics import Metrics
from crossfade.sidecar.readiness import Readiness
from crossfade.sidecar.recording import Recorder
from crossfade.sidecar.room import Room
from crossfade.sidecar.upstream_connection import UpstreamAnswer
from tests.unit.wires import arrived

HERE = "127.0.0.1"
GOLDEN = Golden(path="/predict", body='{"age": 17}')
CONFIG = Config(
    namespace="ml",
    name="fraud",
    model="fraud",
    version="2.0.0",
    revision="bcdf",
    protocol="http",
    port=8012,
    admin_port=8013,
    model_port=8080,
    golden=GOLDEN,
    inputs=Inputs(schema={"properties": {"age": {"type": "integer", "minimum": 18}}}),
    fallback=Fallback(
        targets=(
            Target(name="stable", host="fraud.ml.svc", port=80),
            Target(name="service", host="legacy.ml.svc", port=80),
            Target(name="static"),
        )
    ),
)


@dataclass
class Network:
    """What the sidecar's targets do."""

    says: dict[str, int | OSError] = field(default_factory=dict)
    asked: int = 0

    async def send(
        self,
        host: str,
        port: int,
        request: Request,
        timeout: float,  # noqa: ASYNC109 - the interface's
    ) -> Answer:
        self.asked += 1
        said = self.says.get(host, 200)
        if isinstance(said, OSError):
            raise said
        return Answer(said, (), b"")

    async def open(self, host: str, port: int, request: Request) -> UpstreamAnswer:
        return arrived(await self.send(host, port, request, 0))


def admin_of(config: Config, network: Network) -> Admin:
    metrics = Metrics(config)
    request = Request("POST", GOLDEN.path, (), GOLDEN.body.encode())
    drills = None
    if config.fallback is not None:
        clock = asyncio.get_running_loop().time
        chain = Chain(config.fallback.targets, network, metrics, config.revision, clock, Room(1000))
        drills = Drills(chain, request)
    readiness = Readiness(config, network, asyncio.get_running_loop().time)
    recorder = Recorder(config, metrics, lambda: 1.0, lambda: datetime(2026, 11, 24, tzinfo=UTC))
    return Admin(metrics, readiness, drills, recorder, Contract(config), Looker())


@asynccontextmanager
async def listening(answer: Callable[[Request], Awaitable[Answer]]) -> AsyncIterator[int]:
    """Serve as an admin port does."""

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        headers = tuple((k.lower(), v) for k, v in request.raw_headers)
        body = await request.read()
        said = await answer(Request(request.method, str(request.rel_url), headers, body))
        return web.Response(
            status=said.status,
            body=said.body,
            headers={name.decode(): value.decode() for name, value in said.headers},
        )

    runner = web.ServerRunner(web.Server(handle))
    await runner.setup()
    site = web.TCPSite(runner, HERE, 0)
    await site.start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


@asynccontextmanager
async def saying(raw: bytes) -> AsyncIterator[int]:
    """Serve these bytes, whatever is asked; none: say nothing and keep the connection."""
    writers: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        await reader.readuntil(b"\r\n\r\n")
        if raw:
            writer.write(raw)
            writer.close()

    server = await asyncio.start_server(serve, HERE)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for writer in writers:
            writer.close()
        await server.wait_closed()


def answering(body: bytes, status: str = "200 OK") -> bytes:
    return b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s" % (status.encode(), len(body), body)


async def test_a_good_drill_is_taken_from_the_sidecar_without_another() -> None:
    network = Network()
    admin = admin_of(CONFIG, network)
    await admin.answer(Request("POST", "/drill", (), b""))
    before = network.asked
    async with listening(admin.answer) as port:
        said = await HttpSidecars().drill(HERE, port, 15)
    assert said == tuple(DrillResult(n, ok=True) for n in ("stable", "service", "static"))
    assert network.asked == before == 2


async def test_a_sidecar_that_has_not_drilled_yet_is_told_to() -> None:
    network = Network({"legacy.ml.svc": 503})
    async with listening(admin_of(CONFIG, network).answer) as port:
        said = await HttpSidecars().drill(HERE, port, 15)
    assert said[1] == DrillResult("service", ok=False, message="answered 503")
    assert [result.ok for result in said] == [True, False, True]


async def test_a_drill_that_failed_is_tried_again_at_once() -> None:
    network = Network({"fraud.ml.svc": ConnectionRefusedError("refused")})
    admin = admin_of(CONFIG, network)
    async with listening(admin.answer) as port:
        failed, *_ = await HttpSidecars().drill(HERE, port, 15)
        assert not failed.ok
        assert failed.message.startswith("did not answer (")
        assert "fraud.ml.svc:80" in failed.message
        network.says.clear()
        mended = await HttpSidecars().drill(HERE, port, 15)
    assert all(result.ok for result in mended)


async def test_a_golden_request_is_held_against_the_contract_and_no_value_is_told() -> None:
    async with listening(admin_of(CONFIG, Network()).answer) as port:
        (found,) = await HttpSidecars().check(HERE, port, GOLDEN)
        assert await HttpSidecars().check(HERE, port, Golden(path="/predict", body="{}")) == ()
    assert found == 'age breaks the rule "minimum"'


async def test_a_path_of_a_golden_request_may_have_a_query() -> None:
    golden = Golden(path="/predict?a=1&b=%2F", body='{"age": 17}')
    asked: list[str] = []
    admin = admin_of(CONFIG, Network())

    async def answer(request: Request) -> Answer:
        asked.append(request.target)
        return await admin.answer(request)

    async with listening(answer) as port:
        assert len(await HttpSidecars().check(HERE, port, golden)) == 1
    assert asked[0].startswith("/check?path=")


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (answering(b"no json"), "is no sidecar"),
        (answering(b"[]"), "is no sidecar"),
        (answering(b'{"targets": [{"name": "stable"}]}'), "is no sidecar"),
        (answering(b'{"targets": [{"name": "\xff"}]}'), "is no sidecar"),
        (answering(b"", "404 Not Found"), "got 404"),
        (answering(b"", "302 Found\r\nLocation: http://127.0.0.1:1/"), "got 302"),
        (answering(b"x" * (LARGEST_ANSWER + 1)), "does not stop answering"),
        (b"SSH-2.0-OpenSSH\r\n", "cannot be asked"),
    ],
)
async def test_what_is_no_answer_of_a_sidecar_is_said_to_be_none(raw: bytes, words: str) -> None:
    async with saying(raw) as port:
        with pytest.raises(SidecarError, match=words):
            await HttpSidecars().drill(HERE, port, 1)


async def test_a_port_that_is_closed_or_silent_is_an_error_after_a_short_time() -> None:
    async with saying(b"") as port:
        with pytest.raises(SidecarError, match=r"did not answer in 0.05 s"):
            await HttpSidecars(answer_seconds=0.05).drill(HERE, port, 15)
    with pytest.raises(SidecarError, match="cannot be asked"):
        await HttpSidecars().check(HERE, port, GOLDEN)


async def test_an_ipv6_address_is_written_as_one() -> None:
    with pytest.raises(SidecarError, match=r"^\[::1\]:1 "):
        await HttpSidecars().drill("::1", 1, 15)
