"""What the sidecar only passes on: websockets, event streams, large bodies, gRPC, and a pod's end.

Through the real gateway, but for gRPC: the route that Crossfade writes is HTTP/1.1 behind the
gateway, so its client is a pod that asks the Service. What waits here waits for the other side,
never for a time.
"""

from __future__ import annotations

import hashlib
import io
import json
import random
import re
from collections.abc import AsyncIterator, Iterator
from typing import Any, Final

import aiohttp
import pytest

from cluster.__main__ import load_archive
from cluster.images import build_image
from cluster.paths import Paths
from examples.demo.kubectl import Kubectl
from tests.e2e.fixtures import namespace_of
from tests.e2e.rollouts import BODY, Rollout, eventually
from tests.e2e.served import container, serving

WEB: Final = """
import asyncio
import hashlib
from aiohttp import WSMsgType, web

closed = asyncio.Queue()  # the codes with which clients ended their websockets
events = asyncio.Queue()

async def health(request):
    return web.Response()

async def chat(request):
    socket = web.WebSocketResponse(protocols=("chat.v2",), max_msg_size=0)
    await socket.prepare(request)
    await socket.send_str("welcome")
    async for message in socket:
        if message.data == "bye":
            await socket.close(code=4000, message=b"as you wish")
        elif message.type is WSMsgType.TEXT:
            await socket.send_str(message.data.upper())
        else:
            await socket.send_bytes(message.data[::-1])
    await closed.put(socket.close_code)
    return socket

async def see_closed(request):
    return web.json_response(await closed.get())

async def stream(request):
    response = web.StreamResponse(headers={"content-type": "text/event-stream"})
    await response.prepare(request)
    while text := await events.get():
        await response.write(f"data: {text}\\n\\n".encode())
    return response

async def tell(request):
    await events.put(await request.text())
    return web.Response()

async def echo(request):
    body = await request.read()
    response = web.Response(body=body)
    if "Transfer-Encoding" in request.headers:
        response.enable_chunked_encoding()
    response.headers["x-sha256"] = hashlib.sha256(body).hexdigest()
    for name in ("Transfer-Encoding", "Expect"):
        response.headers[f"x-{name}"] = request.headers.get(name, "")
    return response

async def end_streams(app):  # called once the process was told to end
    await events.put("told to end")
    await events.put("")

app = web.Application(client_max_size=2**30)
app.on_shutdown.append(end_streams)
app.router.add_get("/health", health)
app.router.add_get("/chat", chat)
app.router.add_get("/closed", see_closed)
app.router.add_get("/events", stream)
app.router.add_post("/events", tell)
app.router.add_post("/echo", echo)
web.run_app(app, port=8080)
"""

GRPC: Final = """
from concurrent.futures import ThreadPoolExecutor
import grpc

def once(request, context):
    context.set_trailing_metadata((("model", "fraud"),))
    return request[::-1]

def refuse(request, context):
    context.abort(grpc.StatusCode.FAILED_PRECONDITION, "not today")

def each(requests, context):
    for request in requests:
        yield request.upper()

HANDLERS = {
    "/Model/Once": grpc.unary_unary_rpc_method_handler(once),
    "/Model/Refuse": grpc.unary_unary_rpc_method_handler(refuse),
    "/Model/Each": grpc.stream_stream_rpc_method_handler(each),
}

class Model(grpc.GenericRpcHandler):
    def service(self, call):
        return HANDLERS.get(call.method)

server = grpc.server(ThreadPoolExecutor(4))
server.add_generic_rpc_handlers((Model(),))
server.add_insecure_port("0.0.0.0:8080")
server.start()
server.wait_for_termination()
"""

GRPC_CLIENT: Final = """
import json
import queue
import sys
import grpc

said = {}
with grpc.insecure_channel(sys.argv[1]) as channel:
    ask = channel.unary_unary("/Model/Once")
    sent = bytes(range(256)) * 4096
    answer, call = ask.with_call(sent, wait_for_ready=True, timeout=60)
    said["once"] = answer == sent[::-1]
    said["trailers"] = dict(call.trailing_metadata())
    try:
        channel.unary_unary("/Model/Refuse")(b"", timeout=60)
    except grpc.RpcError as error:
        said["refused"] = [error.code().name, error.details()]
    requests = queue.Queue()
    answers = channel.stream_stream("/Model/Each")(iter(requests.get, None), timeout=60)
    said["each"] = []
    for word in (b"one", b"two", b"three"):  # each only after the answer to the one before
        requests.put(word)
        said["each"].append(next(answers).decode())
    requests.put(None)
    said["rest"] = [it.decode() for it in answers]
print(json.dumps(said))
"""

SIZE: Final = 8 * 1024 * 1024

BOUNDED: Final = aiohttp.ClientWSTimeout(ws_receive=60, ws_close=60)
"""So that what never comes fails a test, as ``client_of`` bounds requests."""


def web() -> dict[str, Any]:
    parts = serving(WEB, "operator:dev")
    return parts | {"sidecar": {"goldenRequest": {"path": "/health", "method": "GET"}}}


def grpc() -> dict[str, Any]:
    # Nothing is known that a gRPC server answers over HTTP/1.1, so its port is asked.
    return serving(GRPC, "mlserver:1.7.1", readinessProbe={"tcpSocket": {"port": 8080}})


@pytest.fixture(scope="module")
def models(cluster: Kubectl) -> Iterator[tuple[Rollout, Rollout]]:
    """Two models that serve: one of HTTP/1.1, one of gRPC."""
    load_archive(Paths.from_environment(), build_image("mlserver"))
    with namespace_of(cluster, "transports") as namespace:
        one, other = Rollout(cluster, namespace, "web"), Rollout(cluster, namespace, "grpc")
        one.apply("1.0.0", **web())
        other.apply("1.0.0", **grpc())
        for rollout in (one, other):
            rollout.wait("Healthy", stable="1.0.0")
        yield one, other


@pytest.fixture(scope="module")
def model(models: tuple[Rollout, Rollout]) -> Rollout:
    return models[0]


def client_of(address: str, rollout: Rollout) -> aiohttp.ClientSession:
    """Return a client of the rollout, at the gateway or a Service."""
    return aiohttp.ClientSession(
        f"http://{address}",
        headers={"Host": rollout.host},
        timeout=aiohttp.ClientTimeout(total=60),
    )


async def metrics_of(rollout: Rollout) -> str:
    """Return what the one sidecar of a model exports."""
    [pod] = [
        it for it in rollout.pods("1.0.0")
        if it["metadata"]["labels"]["crossfade.dev/name"] == rollout.name
    ]  # fmt: skip
    url = f"http://{pod['status']['podIP']}:8013/metrics"
    async with aiohttp.ClientSession() as client, client.get(url) as answer:
        return await answer.text()


async def test_a_websocket_carries_messages_both_ways_and_is_closed_by_either_side(
    model: Rollout, gateway: str
) -> None:
    large = random.Random(5).randbytes(1024 * 1024)
    async with client_of(gateway, model) as client:
        async with client.ws_connect("/chat", timeout=BOUNDED, protocols=["chat.v2"]) as socket:
            assert socket.protocol == "chat.v2"
            assert await socket.receive_str() == "welcome"
            for word in ("one", "two", "three"):
                await socket.send_str(word)
                assert await socket.receive_str() == word.upper()
            await socket.send_bytes(large)
            assert await socket.receive_bytes() == large[::-1]
            await socket.send_str("bye")
            end = await socket.receive()
            assert (end.type, end.data, end.extra) == (
                aiohttp.WSMsgType.CLOSE,
                4000,
                "as you wish",
            )
        async with client.get("/closed") as answer:
            assert await answer.json() == 1000, "the client closed in turn"
        async with client.ws_connect("/chat", timeout=BOUNDED) as socket:
            assert await socket.receive_str() == "welcome"
            await socket.close(code=4001)
            assert socket.close_code == 1000, "the model closed in turn"
        async with client.get("/closed") as answer:
            assert await answer.json() == 4001
    assert 'crossfade_model_requests_total{code="101"} 2.0' in await metrics_of(model)


async def test_each_event_arrives_before_the_model_knows_of_the_next(
    model: Rollout, gateway: str
) -> None:
    async with client_of(gateway, model) as client, client.get("/events") as stream:
        assert stream.content_type == "text/event-stream"
        for word in ("one", "two", "three"):
            (await client.post("/events", data=word)).raise_for_status()
            assert await stream.content.readline() == f"data: {word}\n".encode()
            assert await stream.content.readline() == b"\n"
        (await client.post("/events", data="")).raise_for_status()
        assert await stream.content.read() == b"", "the stream has ended, and in order"


@pytest.mark.parametrize("framing", ["", "chunked"])
@pytest.mark.parametrize("through", ["gateway", "service"])
async def test_a_large_body_is_the_same_at_the_model_and_back(
    model: Rollout, gateway: str, through: str, framing: str
) -> None:
    sent = random.Random(7).randbytes(SIZE)
    digest = hashlib.sha256(sent).hexdigest()

    async def pieces() -> AsyncIterator[bytes]:
        for begin in range(0, SIZE, 100_000):
            yield sent[begin : begin + 100_000]

    address = gateway
    if through == "service":
        address = model.get("service", model.name)["spec"]["clusterIP"] + ":8080"
    async with client_of(address, model) as client:
        body = pieces() if framing else io.BytesIO(sent)
        async with client.post("/echo", data=body, expect100=True) as answer:
            assert answer.status == 200, await answer.text()
            assert answer.headers["x-expect"] == "100-continue"
            assert answer.headers["x-transfer-encoding"] == framing
            assert answer.headers["x-sha256"] == digest
            assert answer.headers.get("Transfer-Encoding", "") == framing
            assert hashlib.sha256(await answer.read()).hexdigest() == digest


async def test_grpc_goes_through_with_streams_trailers_and_statuses(
    models: tuple[Rollout, Rollout],
) -> None:
    rollout = models[1]
    client = container("mlserver:1.7.1", GRPC_CLIENT) | {"args": [f"{rollout.name}:8080"]}
    rollout.apply_manifest(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "client", "namespace": rollout.namespace},
            "spec": {"restartPolicy": "Never", "containers": [client]},
        }
    )

    def ended() -> str | None:
        phase = str(rollout.get("pod", "client")["status"]["phase"])
        return phase if phase in {"Succeeded", "Failed"} else None

    phase = eventually(ended, 120, rollout.explain)
    log = rollout.kubectl.run("-n", rollout.namespace, "logs", "client")
    assert phase == "Succeeded", log
    assert json.loads(log) == {
        "once": True,
        "trailers": {"model": "fraud"},
        "refused": ["FAILED_PRECONDITION", "not today"],
        "each": ["ONE", "TWO", "THREE"],
        "rest": [],
    }
    # Mostly one; how many connections a client of gRPC makes is its own affair.
    passed_on = r'crossfade_unobserved_total\{what="requests",why="http2"\} (\S+)'
    [connections] = re.findall(passed_on, await metrics_of(rollout))
    assert float(connections) >= 1


async def test_a_stream_ends_in_order_when_its_pod_is_told_to_end(
    cluster: Kubectl, rollout: Rollout, gateway: str
) -> None:
    rollout.apply("1.0.0", **web())
    rollout.wait("Healthy", stable="1.0.0")
    [pod] = rollout.pods("1.0.0")
    async with client_of(gateway, rollout) as client, client.get("/events") as stream:
        (await client.post("/events", data="first")).raise_for_status()
        assert await stream.content.readuntil(b"\n\n") == b"data: first\n\n"
        cluster.run(
            "-n", rollout.namespace, "delete", "pod", pod["metadata"]["name"], "--wait=false"
        )
        assert await stream.content.read() == b"data: told to end\n\n"


def test_versions_that_are_replaced_and_pods_that_end_lose_no_answer(
    cluster: Kubectl, rollout: Rollout, gateway: str
) -> None:
    def release(version: str) -> None:
        rollout.apply(
            version,
            {"LATENCY_MS": 250},  # of 20 requests a second five are under way, whenever a pod ends
            replicas=2,
            sidecar={"goldenRequest": {"body": json.loads(BODY)}},
            rollout={
                "steps": [{"weightPercent": 50, "minSeconds": 1, "minRequests": 5}],
                "probationSeconds": 0,
            },
        )
        rollout.wait("Healthy", stable=version)

    def have_ended() -> bool | None:
        last = [pod for pod in rollout.pods("3.0.0") if pod["metadata"]["name"] == deleted]
        return not (rollout.pods("1.0.0") or rollout.pods("2.0.0") or last) or None

    release("1.0.0")
    with rollout.load(20, gateway) as stats:
        release("2.0.0")
        release("3.0.0")
        # Who asks the Service keeps connections to a pod that ends, until the sidecar closes them.
        address = rollout.get("service", rollout.name)["spec"]["clusterIP"]
        with rollout.load(20, address, port=8080) as kept:
            eventually(lambda: len(kept) > 20 or None, 60, rollout.explain)
            deleted = rollout.pods("3.0.0")[0]["metadata"]["name"]
            cluster.run("-n", rollout.namespace, "delete", "pod", deleted, "--wait=false")
            eventually(have_ended, 90, rollout.explain)
    assert not kept.lost(), kept.lost()
    assert kept.failed() == 0, kept.statuses()
    assert not stats.lost(), stats.lost()
    assert stats.failed() == 0, stats.statuses()
    assert set(stats.answers_by_version()) == {"1.0.0", "2.0.0", "3.0.0"}
