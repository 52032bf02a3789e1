"""The application of the demo: asks the model what digits it sees, and learns whether it was right.

It sends the held-out images through the gateway at a steady rate, bounded in time. It knows what
they show, as an application learns later from its users, and counts right and wrong answers by the
version that gave them, which every answer of the Open Inference Protocol names. Prometheus scrapes
these counters; the operator judges versions by them.

    GET /metrics    answers_total{model, version, outcome}, requests_lost_total{kind}
    GET /stats      `tally.Report`, as JSON
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from examples.demo.http1 import Response
from examples.demo.load import Load, run_load
from examples.demo.stats import NO_READING, Judgement, Reading, Stats
from examples.demo.tally import Tally

OK: Final = 200


class Digits:
    """Makes inference requests of images, and judges the answers by what the images show."""

    def __init__(self, images: Sequence[Sequence[int]], labels: Sequence[int]) -> None:
        self._bodies = [_body(image) for image in images]
        self._labels = labels

    def body(self, index: int) -> bytes:
        """Return the body of request `index`; the images come round again."""
        return self._bodies[index % len(self._bodies)]

    def read(self, index: int, response: Response) -> Reading:
        """Read which version answered, and judge it; only answers of status 200 are judged.

        Raises:
            ValueError: It is not an answer of the Open Inference Protocol.
        """
        if response.status != OK:
            return NO_READING
        try:
            answer = json.loads(response.body)
            version, (label,) = str(answer["model_version"]), answer["outputs"][0]["data"]
        except (KeyError, IndexError, TypeError) as error:
            raise ValueError("not an inference answer") from error
        is_right = label == self._labels[index % len(self._labels)]
        return Reading(version, Judgement.RIGHT if is_right else Judgement.WRONG)


def _body(image: Sequence[int]) -> bytes:
    tensor = {"name": "pixels", "datatype": "FP64", "shape": [1, len(image)], "data": list(image)}
    return json.dumps({"inputs": [tensor]}, separators=(",", ":")).encode()


class Application:
    """Runs the load and answers questions about it."""

    def __init__(self, load: Load, model: str) -> None:
        self._load = load
        self._model = model
        self._stats = Stats()
        self._tally = Tally(self._stats)
        self._ended = False

    async def run(self, port: int, stop: asyncio.Event) -> None:
        """Serve from before the first request until `stop`, also when the load has ended."""
        server = await asyncio.start_server(self._serve, port=port)
        async with server:
            await run_load(self._load, stop=stop, stats=self._stats)
            self._ended = True
            await stop.wait()
        print(json.dumps(self._report()), flush=True)

    def _report(self) -> object:
        return self._tally.report(time.time(), ended=self._ended)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(10):
                head = await reader.readuntil(b"\r\n\r\n")
                status, kind, body = self._page(head.split(b" ")[1].split(b"?")[0])
                writer.write(
                    f"HTTP/1.1 {status}\r\ncontent-type: {kind}\r\nconnection: close\r\n"
                    f"content-length: {len(body)}\r\n\r\n{body}".encode()
                )
                await writer.drain()
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, IndexError, OSError):
            pass  # Whoever asked is gone, or does not speak HTTP.
        finally:
            writer.close()

    def _page(self, path: bytes) -> tuple[str, str, str]:
        """Return status, content type and body (ASCII: its length counts bytes)."""
        match path:
            case b"/metrics":
                return "200 OK", "text/plain; version=0.0.4", self._tally.metrics(self._model)
            case b"/stats":
                return "200 OK", "application/json", json.dumps(self._report())
            case _:
                return "404 Not Found", "text/plain", "see /metrics and /stats\n"


async def main(options: argparse.Namespace) -> None:
    """Run the application until SIGTERM."""
    traffic = json.loads(options.traffic.read_text())
    digits = Digits(traffic["images"], traffic["labels"])
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    load = Load(
        host=options.gateway,
        port=80,
        path=f"/v2/models/{options.model}/infer",
        host_header=options.host,
        rate_per_second=options.rate,
        seconds=options.seconds,
        body=digits.body,
        read=digits.read,
    )
    await Application(load, options.model).run(options.port, stop)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m examples.demo.app")
    parser.add_argument("--traffic", type=Path, required=True, help="JSON: images and labels")
    parser.add_argument("--gateway", required=True, help="name or address")
    parser.add_argument("--host", required=True, help="sent as the Host header")
    parser.add_argument("--model", default="digits")
    parser.add_argument("--rate", type=float, default=40, help="requests per second")
    parser.add_argument("--seconds", type=float, default=300, help="requests end after so long")
    parser.add_argument("--port", type=int, default=8000, help="of /metrics and /stats")
    return parser


if __name__ == "__main__":
    asyncio.run(main(_parser().parse_args()))
