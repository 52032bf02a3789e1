"""A pod is ready once its model has answered, and says in words why it is not."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from crossfade.sidecar.config import Config, Fallback, Golden, Target
from crossfade.sidecar.messages import Answer, Request
from crossfade.sidecar.readiness import Readiness, probe_request

GOLDEN = Golden(path="/v2/models/iris/infer", body='{"x": "é"}', timeout_seconds=2)
FALLBACK = Fallback(targets=(Target(name="static"),))


@dataclass
class Clock:
    now: float = 100.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Model:
    """Answers as it is told to, and remembers what it was asked."""

    says: int | OSError = 200
    asked: list[tuple[str, int, Request, float]] = field(default_factory=list)
    was_asked: asyncio.Event = field(default_factory=asyncio.Event)
    opens: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.opens.set()

    async def send(
        self,
        host: str,
        port: int,
        request: Request,
        timeout: float,  # noqa: ASYNC109 - the interface's
    ) -> Answer:
        self.asked.append((host, port, request, timeout))
        self.was_asked.set()
        await self.opens.wait()
        if isinstance(self.says, OSError):
            raise self.says
        return Answer(self.says, (), b"")


def configured(
    golden: Golden | None = GOLDEN, fallback: Fallback | None = None, model_port: int = 8080
) -> Config:
    return Config(
        namespace="ml",
        name="iris",
        model="iris/1",
        version="1",
        revision="abc",
        port=8012,
        admin_port=8013,
        model_port=model_port,
        golden=golden,
        fallback=fallback,
    )


def ready(config: Config, model: Model, clock: Callable[[], float] | None = None) -> Readiness:
    return Readiness(config, model, clock or Clock())


async def result(readiness: Readiness) -> str:
    """Return why it is not ready, once the question that is asked beside is answered."""
    assert await readiness.why_not() == ""
    assert readiness._asking is not None
    await readiness._asking
    return readiness._why


async def test_the_golden_request_is_sent_to_the_model_as_configured() -> None:
    model = Model()
    assert await ready(configured(), model).why_not() == ""
    ((host, port, request, timeout),) = model.asked
    assert (host, port, timeout) == ("127.0.0.1", 8080, 2)
    assert (request.method, request.target) == ("POST", "/v2/models/iris/infer")
    assert request.body == '{"x": "é"}'.encode()
    assert dict(request.headers) == {
        b"host": b"iris.ml",
        b"content-type": b"application/json",
        b"content-length": b"11",
    }


@pytest.mark.parametrize(
    ("says", "words"),
    [
        (500, "the golden request got 500"),
        (404, "the golden request got 404"),
        (302, "the golden request got 302"),
        (TimeoutError(), "the golden request got no answer in 2 s"),
        (ConnectionRefusedError("refused"), "no connection to the model on port 8080: refused"),
    ],
)
async def test_it_is_not_ready_and_says_why(says: int | OSError, words: str) -> None:
    model = Model(says)
    readiness = ready(configured(), model)
    assert await readiness.why_not() == words
    model.says = 200
    assert await readiness.why_not() == ""


async def test_a_good_answer_is_enough_until_the_model_fails_a_request() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        model, clock = Model(), Clock()
        config = configured(model_port=listening.getsockname()[1])
        readiness = ready(config, model, clock)
        assert await readiness.why_not() == ""
        model.says = 503
        clock.now += 1000
        assert await result(readiness) == ""
        assert len(model.asked) == 1, "idle models are not asked"
        readiness.doubt()
        clock.now += 9.9
        assert await readiness.why_not() == ""
        assert len(model.asked) == 1, "a good answer is enough for ten seconds"
        clock.now += 0.1
        assert await result(readiness) == "the golden request got 503"
        assert len(model.asked) == 2
        assert await readiness.why_not() == "the golden request got 503"
        model.says = 200
        assert await readiness.why_not() == ""
        clock.now += 10
        assert await result(readiness) == ""
        assert len(model.asked) == 4, "it is well again"


async def test_a_model_whose_port_is_closed_is_not_ready() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        model, clock = Model(), Clock()
        readiness = ready(configured(model_port=port), model, clock)
        assert await readiness.why_not() == ""
    clock.now += 10
    assert (await result(readiness)).startswith(f"no connection to the model on port {port}: ")
    assert await readiness.why_not() == "", "the golden request decides"
    assert len(model.asked) == 2


async def test_a_good_answer_stands_while_the_model_is_asked_again() -> None:
    model, clock = Model(), Clock()
    readiness = ready(configured(), model, clock)
    assert await readiness.why_not() == ""
    readiness.doubt()
    clock.now += 10
    model.opens.clear()
    assert [await readiness.why_not() for _ in range(3)] == ["", "", ""]
    model.opens.set()
    model.says = TimeoutError()
    assert await result(readiness) == "the golden request got no answer in 2 s"
    assert len(model.asked) == 2


async def test_with_a_fallback_it_stays_ready_but_is_not_ready_before_the_model_was() -> None:
    model, clock = Model(503), Clock()
    readiness = ready(configured(fallback=FALLBACK), model, clock)
    assert await readiness.why_not() == "the golden request got 503"
    model.says = 200
    assert await readiness.why_not() == ""
    model.says = 503
    clock.now += 1000
    assert await readiness.why_not() == ""
    assert len(model.asked) == 2


async def test_many_probes_at_once_ask_the_model_once() -> None:
    model = Model()
    model.opens.clear()
    readiness = ready(configured(), model)
    probes = [asyncio.create_task(readiness.why_not()) for _ in range(5)]
    await model.was_asked.wait()
    model.opens.set()
    assert await asyncio.gather(*probes) == [""] * 5
    assert len(model.asked) == 1


async def test_a_probe_that_is_given_up_does_not_end_the_question() -> None:
    """Else a model that takes longer than the kubelet waits would never be ready."""
    model = Model()
    model.opens.clear()
    readiness = ready(configured(), model)
    probe = asyncio.create_task(readiness.why_not())
    await model.was_asked.wait()
    probe.cancel()
    with pytest.raises(asyncio.CancelledError):
        await probe
    model.opens.set()
    assert await readiness.why_not() == ""
    assert len(model.asked) == 1


async def test_a_pod_that_ends_is_not_ready_whatever_its_model_says() -> None:
    readiness = ready(configured(fallback=FALLBACK), Model())
    assert await readiness.why_not() == ""
    readiness.drain()
    assert await readiness.why_not() == "the pod is ending"


async def test_without_a_golden_request_the_model_is_asked_whether_it_is_loaded() -> None:
    model = Model(400)
    readiness = ready(configured(golden=None), model)
    assert await readiness.why_not() == "the model's readiness got 400"
    ((_, _, request, _),) = model.asked
    assert (request.method, request.target) == ("GET", "/v2/models/iris%2F1/ready")


async def test_where_nothing_is_known_a_connection_must_do() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        config = Config(
            namespace="ml",
            name="any",
            model="any",
            version="1",
            revision="abc",
            protocol="http",
            port=8012,
            admin_port=8013,
            model_port=port,
        )
        model = Model()
        assert await ready(config, model).why_not() == ""
    why = await ready(config, model).why_not()
    assert why.startswith(f"no connection to the model on port {port}: ")
    assert model.asked == []
    assert probe_request(config) is None
