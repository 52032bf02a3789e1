"""The demo's application: what it asks, how it judges, and what it counts."""

from __future__ import annotations

import ast
import asyncio
import json
import sys
from contextlib import suppress

import pytest

from crossfade.api.v1alpha1 import ModelDeploymentSpec
from examples.demo.app import Application, Digits
from examples.demo.http1 import Response, parse_response
from examples.demo.load import Load
from examples.demo.stage import CODE, FOLDER, render_release
from examples.demo.stats import Fate, Judgement, Reading, Record, Stats
from examples.demo.tally import Tally

DIGITS = Digits(images=[[0, 16], [16, 0]], labels=[3, 7])


def answer(version: str, label: int) -> Response:
    document = {"model_version": version, "outputs": [{"data": [label]}]}
    return Response(200, b"", json.dumps(document).encode())


def record(at: float, version: str = "1", *, wrong: bool = False) -> Record:
    judgement = Judgement.WRONG if wrong else Judgement.RIGHT
    return Record(at, 0.0, Fate.ANSWERED, 200, version, judgement)


def test_sends_one_image_a_request_and_begins_again() -> None:
    (tensor,) = json.loads(DIGITS.body(0))["inputs"]
    assert tensor["shape"] == [1, 2]
    assert tensor["data"] == [0, 16]
    assert DIGITS.body(2) == DIGITS.body(0) != DIGITS.body(1)


def test_judges_an_answer_by_what_the_image_shows() -> None:
    assert DIGITS.read(0, answer("1.0.0", 3)) == Reading("1.0.0", Judgement.RIGHT)
    assert DIGITS.read(1, answer("2.0.0", 3)) == Reading("2.0.0", Judgement.WRONG)
    assert DIGITS.read(3, answer("1.0.0", 7)).judgement is Judgement.RIGHT


def test_judges_no_error() -> None:
    assert DIGITS.read(0, Response(500, b"", b"")).judgement is Judgement.UNKNOWN


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b'{"model_version": "1"}', b'{"model_version":"1","outputs":[]}']
)
def test_refuses_what_is_no_inference_answer(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        DIGITS.read(0, Response(200, b"", body))


def test_counts_right_and_wrong_by_version() -> None:
    stats = Stats()
    tally = Tally(stats)
    stats.add(record(1.0))
    stats.add(record(2.0, "2", wrong=True))
    stats.add(Record(3.0, 0.0, Fate.ANSWERED, 500, "", Judgement.UNKNOWN))
    tally.metrics("digits")
    stats.add(Record(4.0, 0.5, Fate.RESET, 0, "", Judgement.UNKNOWN))
    lines = tally.metrics("digits").splitlines()
    assert [it for it in lines if not it.startswith("#")] == [
        'answers_total{model="digits",version="1",outcome="right"} 1',
        'answers_total{model="digits",version="1",outcome="wrong"} 0',
        'answers_total{model="digits",version="2",outcome="right"} 0',
        'answers_total{model="digits",version="2",outcome="wrong"} 1',
        'requests_lost_total{kind="status_500"} 1',
        'requests_lost_total{kind="reset"} 1',
    ]


def test_reports_times_and_what_is_recent() -> None:
    stats = Stats(scheduled=5)
    for at, wrong in ((10.0, False), (11.0, True), (18.0, True), (19.0, False)):
        stats.add(record(at, wrong=wrong))
    report = Tally(stats).report(20.0, ended=False)
    assert report["underWay"] == 1
    assert report["lost"] == {}
    version = report["versions"]["1"]
    assert (version["answers"], version["wrong"]) == (4, 2)
    assert (version["recentAnswers"], version["recentWrong"]) == (2, 1)
    assert (version["firstWrongAt"], version["lastAnswerAt"]) == (11.0, 19.0)


async def test_serves_what_it_counts_while_and_after_the_load_runs() -> None:
    model = await asyncio.start_server(serve_answers, "127.0.0.1")
    stop = asyncio.Event()
    load = Load(
        host="127.0.0.1",
        port=model.sockets[0].getsockname()[1],
        path="/",
        host_header="x",
        rate_per_second=100,
        seconds=0.1,
        body=DIGITS.body,
        read=DIGITS.read,
    )
    probe = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1")
    port = probe.sockets[0].getsockname()[1]
    probe.close()
    running = asyncio.create_task(Application(load, "digits").run(port, stop))
    report: dict[str, object] = {}
    while not report.get("ended"):
        await asyncio.sleep(0.02)
        report = json.loads(await get(port, b"/stats"))
    assert report["sent"] == 10
    assert b'answers_total{model="digits",version="1",outcome="right"} 5' in await get(
        port, b"/metrics"
    )
    assert await get(port, b"/") == b"see /metrics and /stats\n"
    stop.set()
    await running
    model.close()
    # Transports end at the next turns of the loop.
    await asyncio.sleep(0.01)


async def serve_answers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    body = answer("1", 3).body
    with suppress(OSError):
        while await reader.read(10_000):
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))
    writer.close()


async def get(port: int, path: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET %b HTTP/1.1\r\nhost: x\r\n\r\n" % path)
    response = parse_response(await reader.read(), ended=True)
    writer.close()
    assert response is not None
    return response.body


def test_the_release_is_a_valid_spec() -> None:
    manifest = render_release("2.0.0")
    spec = ModelDeploymentSpec.model_validate(manifest["spec"])
    assert spec.model.version == "2.0.0"
    volume = spec.template["spec"]["volumes"][0]
    assert volume["configMap"]["name"] == "digits-2.0.0"


def test_code_for_the_cluster_needs_only_what_is_there() -> None:
    available = {*sys.stdlib_module_names, "examples", "joblib", "sklearn"}
    for name in CODE:
        for node in ast.walk(ast.parse((FOLDER / name).read_text())):
            match node:
                case ast.Import(names=[alias]):
                    needed = alias.name
                case ast.ImportFrom(module=str(module)):
                    needed = module
                case _:
                    continue
            # For the type checker only.
            if needed == "typing_extensions":
                continue
            assert needed.split(".")[0] in available, name
            if needed.startswith("examples."):
                assert f"{needed.rpartition('.')[2]}.py" in CODE
