"""Does the sidecar stay within its limit? Many clients that send the largest bodies, all at once.

    python -m bench.sidecar_memory [--clients 16] [--rounds 3]

Each client sends a body of 10 MB as often as there are rounds. Prints for each case the sidecar's
highest resident set since it started, the longest that its event loop was not there for an answer
of its own (asked every 5 ms), and what was answered. A client that is told to ask again does.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import uvloop

from bench.sidecar import HOST, SIDECAR, children, free_port, pin, started, told
from crossfade.sidecar.config import (
    Fallback,
    Inputs,
    Observed,
    Recording,
    Target,
)

BODY_BYTES: Final = 10_000_000

ANSWER: Final = b'{"score":0.731}'
LARGE_ANSWER_BYTES: Final = 20_000_000

SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {
        "numbers": {"type": "array", "items": {"type": "number"}},
        "rows": {"type": "array", "items": {"type": "array", "items": {"type": "number"}}},
        "records": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["at", "amount"],
                "properties": {"at": {"type": "string"}, "amount": {"type": "number"}},
            },
        },
    },
}


def body_of(name: str, one: bytes) -> bytes:
    """Return a body with one thing again and again."""
    start, end = b'{"%b":[' % name.encode(), b"]}"
    times = (BODY_BYTES - len(start) - len(end)) // (len(one) + 1)
    return start + b",".join([one] * times) + end


BODIES: Final = {
    "numbers": body_of("numbers", b"1.5"),
    "rows": body_of("rows", b"[12.75,-0.5,3.125,44]"),
    "records": body_of("records", b'{"at":"2026-03-01T10:00:00Z","amount":51234.5}'),
    "broken": body_of("records", b'{"at":"2026-03-01T10:00:00Z","amount":"51234.5"}'),
}
"""Numbers take most memory for their size, records most time."""

CHECKED: Final[dict[str, Any]] = {"inputs": Inputs(schema=SCHEMA)}
OBSERVED: Final[dict[str, Any]] = {
    **CHECKED,
    "features": (Observed(name="number", json_path="$.*[*]", buckets=(1.0, 2.0)),),
    "predictions": (Observed(name="score", json_path="$.score", buckets=(0.5,)),),
}
RECORDED: Final[dict[str, Any]] = {**OBSERVED, "recording": Recording(percent=100.0)}


@dataclass
class Case:
    """What is sent where."""

    name: str
    body: str
    settings: dict[str, Any]
    falls_back: str = ""
    """The path; the model fails there, and the target gives a large answer."""


def cases(target: int) -> list[Case]:
    """Return them, with less and more to do."""
    service = Target(name="service", host=HOST, port=target, timeout_seconds=60)
    fallback = Fallback(timeout_seconds=60, targets=(service, Target(name="static", body="{}")))
    full = {**RECORDED, "fallback": fallback}
    others = {**OBSERVED, "inputs": Inputs(schema=SCHEMA, on_violation="fallback")}
    found = [Case(f"schema, {body}", body, CHECKED) for body in BODIES]
    found += [Case(f"and observed, {body}", body, OBSERVED) for body in ("numbers", "records")]
    found += [Case(f"and recorded, {body}", body, RECORDED) for body in ("numbers",)]
    found += [Case(f"and with a fallback, {body}", body, full) for body in ("numbers", "records")]
    found.append(Case("the fallback answers, 20 MB each", "numbers", full, "/fails"))
    found.append(
        Case("the fallback answers what is broken", "broken", {**others, "fallback": fallback})
    )
    return found


# Who answers.


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Read requests, keep nothing of them, and answer; the paths say how."""
    try:
        while head := await reader.readuntil(b"\r\n\r\n"):
            found = re.search(rb"content-length: *(\d+)", head, re.IGNORECASE)
            left = int(found[1]) if found else 0
            while left and (piece := await reader.read(min(left, 1 << 20))):
                left -= len(piece)
            if b"POST /fails" not in head:
                said, status = ANSWER, b"200 OK"
            elif b"crossfade-fallback-from" in head.lower():
                said, status = b"x" * LARGE_ANSWER_BYTES, b"200 OK"
            else:
                said, status = b"", b"503 Service Unavailable"
            await asyncio.sleep(0.05)  # so that requests overlap
            writer.write(
                b"HTTP/1.1 %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
                % (status, len(said), said)
            )
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


async def serve(port: int) -> None:
    """Run until it is ended."""
    await (await asyncio.start_server(answer, HOST, port, limit=1 << 20)).serve_forever()


@contextmanager
def stub(port: int) -> Iterator[None]:
    """Run the model, which is the target too."""
    command = [sys.executable, "-m", "bench.sidecar_memory", "--stub", str(port)]
    process = subprocess.Popen(command)
    try:
        time.sleep(1)
        yield
    finally:
        process.terminate()
        process.wait(10)


# Who asks.


def ask(port: int, path: str, body: bytes) -> str:
    """Send a request on a connection of its own; return what came of it."""
    head = (
        f"POST {path or '/predict'} HTTP/1.1\r\nHost: m\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    with socket.create_connection((HOST, port), timeout=120) as connection:
        try:
            connection.sendall(head.encode())
            connection.sendall(body)
        except OSError:  # it has its answer
            pass
        got, last = b"", b""
        size = 0
        try:
            while piece := connection.recv(1 << 20):
                got = got or piece
                last = piece
                size += len(piece)
        except OSError:
            return "reset"
    status = got[9:12].decode()
    marked = got[: got.find(b"\r\n\r\n")].lower()
    other = re.search(rb"crossfade-fallback: (\w+)", marked)
    length = re.search(rb"content-length: (\d+)", marked)
    whole = length is None or size == got.find(b"\r\n\r\n") + 4 + int(length[1])
    by = f" by {other[1].decode()}" if other else ""
    return status + by + ("" if whole and last else " cut off")


def keep_asking(port: int, case: Case, rounds: int, came: Counter[str]) -> None:
    """Send the body so often; told to ask again, do."""
    for _ in range(rounds):
        while (what := ask(port, case.falls_back, BODIES[case.body])) == "503":
            came["503, asked again"] += 1
            time.sleep(0.2)
        came[what] += 1


def stalls(port: int, done: threading.Event) -> list[float]:
    """Return the milliseconds that each answer of the sidecar's own took."""
    took = []
    with socket.create_connection((HOST, port), timeout=120) as connection:
        while not done.is_set():
            begun = time.perf_counter()
            connection.sendall(b"GET /live HTTP/1.1\r\nHost: m\r\n\r\n")
            connection.recv(65536)
            took.append((time.perf_counter() - begun) * 1000)
            time.sleep(0.005)
    return took


def peak_mb(pid: int) -> float:
    """Return the highest resident set of a process and of those it has started."""
    total = 0
    for one in (pid, *children(pid)):
        found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{one}/status").read_text())
        total += int(found[1]) if found else 0
    return total / 1024


def measure(case: Case, model: int, clients: int, rounds: int, folder: Path) -> None:
    """Print a row."""
    port, admin = free_port(), free_port()
    path = folder / "sidecar.json"
    path.write_text(told(port, model, admin_port=admin, drain_seconds=1, **case.settings))
    command = [part.format(config=path) for part in SIDECAR]
    command += ["--recordings", str(folder / "recordings")]
    came: Counter[str] = Counter()
    with started(command, port, core=0, model=model) as pid:
        done = threading.Event()
        asking = [
            threading.Thread(target=keep_asking, args=(port, case, rounds, came))
            for _ in range(clients)
        ]
        took: list[float] = []
        watching = threading.Thread(target=lambda: took.extend(stalls(admin, done)))
        begun = time.monotonic()
        for thread in (watching, *asking):
            thread.start()
        for thread in asking:
            thread.join()
        done.set()
        watching.join()
        answers = ", ".join(f"{amount} x {what}" for what, amount in sorted(came.items()))
        print(
            f"| {case.name} | {peak_mb(pid):.0f} MB | {max(took):.0f} ms "
            f"| {statistics.quantiles(took, n=100)[98]:.0f} ms | {time.monotonic() - begun:.1f} s "
            f"| {answers} |",
            flush=True,
        )


def main() -> None:
    """Run the bench."""
    parser = argparse.ArgumentParser(prog="python -m bench.sidecar_memory")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="", help="cases whose name has this in it")
    parser.add_argument("--stub", type=int, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.stub:
        uvloop.run(serve(asked.stub))
        return
    pin(1)
    model = free_port()
    print("| | peak | longest stall | p99 | took | answers |\n|---|---:|---:|---:|---:|---|")
    with tempfile.TemporaryDirectory() as folder, stub(model):
        for case in cases(model):
            if asked.only in case.name:
                measure(case, model, asked.clients, asked.rounds, Path(folder))


if __name__ == "__main__":
    main()
