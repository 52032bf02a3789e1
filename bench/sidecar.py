"""Measure what the sidecar costs: beside the model alone, and beside other ways to write a proxy.

    python -m bench.sidecar [--runs 5] [--seconds 5] [--candidates]

A stub that answers at once stands for the model. The proxy has one core for itself, as far as the
machine has two: the stub and the load are on the other. Each figure is the median of the runs, and
the cases take turns, so that whatever else the machine does meets all of them.

- Requests a second: eight connections ask as fast as they can. It is the requests in a second of
  the proxy's own CPU time, which is what a whole core gives; what the wall clock gave is beside it,
  where stub and load, in Python too, may be what is slow.
- Added latency: 200 requests a second go through the proxy and 200 to the stub, by turns, each on
  a connection of its own; the quantile of these is subtracted from that of those.
- Memory is the resident set at the end; growth is what the load added to it.

All who take part are scheduled before all others while they are measured (SCHED_FIFO), if this runs
as root: else it would measure what else the machine does.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import json
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, cast

import uvloop
from typing_extensions import override

from crossfade.sidecar.config import (
    Config,
    Fallback,
    Inputs,
    Observed,
    Recording,
    Target,
    write_config,
)

HOST: Final = "127.0.0.1"
RATE: Final = 200
"""Requests a second where the latency is measured."""

FLOOD_SECONDS: Final = 1.0
"""Nothing else runs on the machine in that time."""

CONNECTIONS: Final = 8
"""Where the most requests a second are."""

ANSWER: Final = b'{"score":0.731,"label":"yes","model":"iris","version":"7"}'

BODY: Final = json.dumps(
    {
        "customer": "c-20391",
        "age": 44,
        "income": 51234.5,
        "country": "CH",
        "active": True,
        "visits": 17,
        "score": 0.25,
        "channel": "web",
        "tags": ["new", "mobile", "returning"],
        "history": [round(0.37 * number, 3) for number in range(285)],
    }
).encode()
"""2 KB."""

SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "required": ["customer", "age", "income", "country", "history"],
    "additionalProperties": False,
    "properties": {
        "customer": {"type": "string", "pattern": "^c-[0-9]+$"},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "income": {"type": "number", "minimum": 0},
        "country": {"enum": ["AT", "CH", "DE", "FR", "IT"]},
        "active": {"type": "boolean"},
        "visits": {"type": "integer", "minimum": 0},
        "score": {"type": "number", "minimum": 0, "maximum": 1},
        "channel": {"enum": ["web", "app", "branch"]},
        "tags": {"type": "array", "maxItems": 10, "items": {"type": "string"}},
        "history": {"type": "array", "maxItems": 1000, "items": {"type": "number"}},
    },
}
"""Ten fields."""

REQUEST: Final = (
    b"POST /predict HTTP/1.1\r\nHost: model\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\n\r\n" % len(BODY)
) + BODY


@dataclass
class Case:
    """A proxy, and what was measured of it."""

    name: str
    command: list[str]
    """How it is started; {port} and {model} are replaced."""
    config: dict[str, Any] | None = None
    """The sidecar's, beside what all have."""
    a_core: list[float] = field(default_factory=list)
    a_second: list[float] = field(default_factory=list)
    median: list[float] = field(default_factory=list)
    p99: list[float] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)
    growth: list[float] = field(default_factory=list)


SIDECAR: Final = [sys.executable, "-m", "crossfade.sidecar", "--config", "{config}"]

FULL: Final[dict[str, Any]] = {
    "inputs": Inputs(schema=SCHEMA),
    "features": (Observed(name="age", json_path="$.age", buckets=(20.0, 40.0, 60.0)),),
    "predictions": (
        Observed(name="score", json_path="$.score", buckets=(0.25, 0.5, 0.75)),
        Observed(name="label", json_path="$.label", type="label"),
    ),
    "fallback": Fallback(targets=(Target(name="static", body="{}"),)),
    "recording": Recording(percent=1.0),
}


def cases() -> list[Case]:
    """Return the sidecar, with less and more to do."""
    return [
        Case("sidecar, only passing on", SIDECAR, {}),
        Case("sidecar, schema of ten fields", SIDECAR, {"inputs": FULL["inputs"]}),
        Case("sidecar, everything on", SIDECAR, FULL),
    ]


def candidates() -> list[Case]:
    """Return other ways to write a proxy that can be imported here."""
    here = "bench.sidecar_candidates"
    asgi = ["--host", HOST, "--port", "{port}", "--log-level", "warning"]
    made = [Case("aiohttp, server and client", [sys.executable, "-m", here, "{port}"])]
    uvicorn = [sys.executable, "-m", "uvicorn", *asgi, "--no-access-log"]
    if importlib.util.find_spec("uvicorn"):
        made.append(Case("uvicorn and aiohttp's client", [*uvicorn, f"{here}:with_aiohttp"]))
        if importlib.util.find_spec("httpx"):
            made.append(Case("uvicorn and httpx", [*uvicorn, f"{here}:with_httpx"]))
    if importlib.util.find_spec("granian"):
        command = [sys.executable, "-m", "granian", *asgi, "--interface", "asgi"]
        made.append(Case("granian and aiohttp's client", [*command, f"{here}:with_aiohttp"]))
    return made


# The stub.


class Stub(asyncio.Protocol):
    """Reads requests with a Content-Length and answers each."""

    _length = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._pending = b""

    @override
    def data_received(self, data: bytes) -> None:
        self._pending += data
        while (end := self._pending.find(b"\r\n\r\n")) >= 0:
            found = self._length.search(self._pending, 0, end)
            end += 4 + (int(found[1]) if found else 0)
            if len(self._pending) < end:
                return
            self._pending = self._pending[end:]
            self._transport.write(
                b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
                % (len(ANSWER), ANSWER)
            )


async def serve_stub(port: int) -> None:
    """Run until it is ended."""
    server = await asyncio.get_running_loop().create_server(Stub, HOST, port)
    await server.serve_forever()


# The load.


class Asker(asyncio.Protocol):
    """Asks again as soon as it is answered."""

    def __init__(self) -> None:
        self.answered = 0
        self.lost = False
        self._pending = b""

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.transport.write(REQUEST)

    @override
    def data_received(self, data: bytes) -> None:
        self._pending += data
        if self._pending.endswith(ANSWER):
            self._pending = b""
            self.answered += 1
            self.transport.write(REQUEST)

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True


async def flood(port: int, seconds: float) -> int:
    """Return how many requests were answered."""
    loop = asyncio.get_running_loop()
    askers = [(await loop.create_connection(Asker, HOST, port))[1] for _ in range(CONNECTIONS)]
    await asyncio.sleep(seconds)
    answered = sum(asker.answered for asker in askers)
    if any(asker.lost for asker in askers):
        raise RuntimeError("a connection was closed under load")
    for asker in askers:
        asker.transport.abort()
    return answered


def ask(connection: socket.socket) -> float:
    """Return the milliseconds that an answer took."""
    begun = time.perf_counter()
    connection.sendall(REQUEST)
    got = b""
    while not got.endswith(ANSWER):
        got += connection.recv(65536)
    return (time.perf_counter() - begun) * 1000


def pace(port: int, model: int, seconds: float) -> tuple[list[float], list[float]]:
    """Return the milliseconds of requests through the proxy, and of those to the stub."""
    through: list[float] = []
    direct: list[float] = []
    with (
        socket.create_connection((HOST, port)) as one,
        socket.create_connection((HOST, model)) as two,
    ):
        for connection in (one, two):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            ask(connection)
        begun = time.perf_counter()
        for number in range(int(seconds * RATE)):
            for half, (connection, times) in enumerate(((one, through), (two, direct))):
                due = begun + (number + half / 2) / RATE
                time.sleep(max(due - time.perf_counter(), 0))
                times.append(ask(connection))
    return through, direct


# Processes.


def pin(core: int) -> None:
    """Let this process run on one core only."""
    if (os.cpu_count() or 1) > 1:
        os.sched_setaffinity(0, {core})


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process and of those it has started."""
    total = 0
    for one in (pid, *children(pid)):
        words = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
        total += int(words[11]) + int(words[12])
    return total / os.sysconf("SC_CLK_TCK")


@contextmanager
def preferred(*pids: int) -> Iterator[None]:
    """Let processes run before all others, if that is allowed."""
    threads = [
        int(thread.name)
        for pid in pids
        for one in (pid, *children(pid))
        for thread in Path(f"/proc/{one}/task").iterdir()
    ]
    if os.getuid() == 0:
        for thread in threads:
            os.sched_setscheduler(thread, os.SCHED_FIFO, os.sched_param(1))
    try:
        yield
    finally:
        if os.getuid() == 0:
            for thread in threads:
                os.sched_setscheduler(thread, os.SCHED_OTHER, os.sched_param(0))


def children(pid: int) -> list[int]:
    """Return the processes that a process has started."""
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def resident_mb(pid: int) -> float:
    """Return the resident set of a process and of those it has started."""
    total = 0
    for one in (pid, *children(pid)):
        found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{one}/status").read_text())
        total += int(found[1]) if found else 0
    return total / 1024


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.create_server((HOST, 0)) as server:
        return int(server.getsockname()[1])


def told(port: int, model: int, **settings: Any) -> str:
    """Return what a sidecar is told, with these ports of its own and of the model."""
    usual: dict[str, Any] = {
        "namespace": "ml",
        "name": "iris",
        "model": "iris",
        "version": "7",
        "revision": "iris-7",
        "protocol": "http",
        "admin_port": free_port(),
    }
    return write_config(Config(port=port, model_port=model, **(usual | settings)))


@contextmanager
def started(command: Sequence[str], port: int, core: int, model: int) -> Iterator[int]:
    """Run a program until it listens; yields its process id."""
    environment = {**os.environ, "MODEL_PORT": str(model)}
    process = subprocess.Popen(command, env=environment, preexec_fn=lambda: pin(core))  # noqa: PLW1509 - no threads here
    try:
        for _ in range(200):
            try:
                socket.create_connection((HOST, port), timeout=1).close()
            except OSError:
                if process.poll() is not None:
                    raise RuntimeError(f"ended: {command}") from None
                time.sleep(0.1)
            else:
                break
        yield process.pid
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def measure(case: Case, model: int, stub: int, seconds: float, folder: Path) -> None:
    """Run one case once."""
    port = free_port()
    config = folder / "sidecar.json"
    if case.config is not None:
        config.write_text(told(port, model, drain_seconds=1, **case.config))
    command = [part.format(port=port, model=model, config=config) for part in case.command]
    with started(command, port, core=0, model=model) as pid:
        uvloop.run(flood(port, FLOOD_SECONDS))
        before = resident_mb(pid)
        cpu = cpu_seconds(pid)
        with preferred(pid, stub, os.getpid()):
            answered = uvloop.run(flood(port, FLOOD_SECONDS))
        case.a_core.append(answered / (cpu_seconds(pid) - cpu))
        case.a_second.append(answered / FLOOD_SECONDS)
        with preferred(pid, stub, os.getpid()):
            through, direct = pace(port, model, seconds)
        case.median.append(statistics.median(through) - statistics.median(direct))
        case.p99.append(_p99(through) - _p99(direct))
        case.memory.append(resident_mb(pid))
        case.growth.append(resident_mb(pid) - before)


def _p99(times: list[float]) -> float:
    return statistics.quantiles(times, n=100)[98]


def report(measured: Sequence[Case]) -> str:
    """Return the table."""
    lines = [
        "| | requests/s of a core | requests/s | added, median | added, p99 | memory | growth |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for case in measured:
        middle = statistics.median
        lines.append(
            f"| {case.name} | {middle(case.a_core):,.0f} | {middle(case.a_second):,.0f} "
            f"| {middle(case.median):.2f} ms | {middle(case.p99):.2f} ms "
            f"| {middle(case.memory):.0f} MB | {middle(case.growth):+.1f} MB |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5.0, help="of latencies, in each run")
    parser.add_argument("--candidates", action="store_true", help="other ways to write a proxy too")
    parser.add_argument("--stub", type=int, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.stub:
        uvloop.run(serve_stub(asked.stub))
        return
    measured = cases() + (candidates() if asked.candidates else [])
    pin(1)
    model = free_port()
    stub = [sys.executable, "-m", "bench.sidecar", "--stub", str(model)]
    loads = []
    with (
        tempfile.TemporaryDirectory() as folder,
        started(stub, model, core=1, model=model) as stub_pid,
    ):
        for run in range(asked.runs):
            for case in measured:
                measure(case, model, stub_pid, asked.seconds, Path(folder))
                loads.append(os.getloadavg()[0])
            print(f"run {run + 1} of {asked.runs}", file=sys.stderr)
    print(report(measured))
    print(f"\n{asked.runs} runs; load average {statistics.median(loads):.1f}")


if __name__ == "__main__":
    main()
