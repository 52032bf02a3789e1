"""Does the sidecar grow? Mixed traffic for an hour, and what it takes each minute.

    python -m bench.sidecar_soak [--minutes 60] [--rate 100]

Of twenty requests fourteen are right, three break the contract, two are given up half way, and one
comes on a connection of its own. Everything of the sidecar is on, and a tenth is recorded. Prints
its resident set, its open files and what was answered, each minute; compare the second half with
the end of the first, since recordings and memory pools fill up in the beginning.
"""

from __future__ import annotations

import argparse
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.sidecar import (
    ANSWER,
    FULL,
    HOST,
    REQUEST,
    SIDECAR,
    free_port,
    resident_mb,
    started,
    told,
)
from crossfade.sidecar.config import Recording

BROKEN = REQUEST.replace(b'"age": 44', b'"age": -4')
"""Breaks the contract; as long as the right one."""

PATTERN = "rrrrrbrrrrgrrrbrrobg"
"""r: right, b: breaks the contract, g: given up, o: on a connection of its own."""


@contextmanager
def stub(port: int) -> Iterator[None]:
    """Run the model that answers at once."""
    process = subprocess.Popen([sys.executable, "-m", "bench.sidecar", "--stub", str(port)])
    try:
        time.sleep(1)
        yield
    finally:
        process.terminate()
        process.wait(10)


def exchange(connection: socket.socket, request: bytes) -> str:
    """Send a request and return the status of its answer."""
    connection.sendall(request)
    got = b""
    while b"\r\n\r\n" not in got:
        more = connection.recv(65536)
        if not more:
            return "closed"
        got += more
    head, _, body = got.partition(b"\r\n\r\n")
    length = next(
        int(line.partition(b":")[2])
        for line in head.split(b"\r\n")
        if line.lower().startswith(b"content-length:")
    )
    while len(body) < length:
        body += connection.recv(65536)
    status = head.split(b" ", 2)[1].decode()
    return status if status != "200" or body == ANSWER else "200 and wrong"


def one(kind: str, port: int, kept: socket.socket) -> str:
    """Send a request of a kind; return what came of it."""
    if kind == "r":
        return exchange(kept, REQUEST)
    if kind == "b":
        return exchange(kept, BROKEN)
    with socket.create_connection((HOST, port), timeout=10) as own:
        if kind == "o":
            return exchange(own, REQUEST)
        own.sendall(REQUEST[: len(REQUEST) // 2])
        return "given up"


def soak(port: int, pid: int, minutes: int, rate: float) -> None:
    """Send the traffic and print a row a minute."""
    print("| minute | RSS, MB | open files | answers |\n|---:|---:|---:|---|", flush=True)
    begun = time.monotonic()
    number = 0
    with socket.create_connection((HOST, port), timeout=10) as kept:
        for minute in range(1, minutes + 1):
            came: Counter[str] = Counter()
            while time.monotonic() < begun + 60 * minute:
                came[one(PATTERN[number % len(PATTERN)], port, kept)] += 1
                number += 1
                time.sleep(max(begun + number / rate - time.monotonic(), 0))
            files = sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())
            answers = ", ".join(f"{amount} x {what}" for what, amount in sorted(came.items()))
            print(f"| {minute} | {resident_mb(pid):.1f} | {files} | {answers} |", flush=True)


def main() -> None:
    """Run the bench."""
    parser = argparse.ArgumentParser(prog="python -m bench.sidecar_soak")
    parser.add_argument("--minutes", type=int, default=60)
    parser.add_argument("--rate", type=float, default=100.0, help="requests a second")
    asked = parser.parse_args()
    port, model = free_port(), free_port()
    settings = FULL | {"recording": Recording(percent=10.0)}
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder, "sidecar.json")
        config.write_text(told(port, model, **settings))
        command = [part.format(config=config) for part in SIDECAR]
        command += ["--recordings", str(Path(folder, "recordings"))]
        with stub(model), started(command, port, core=0, model=model) as pid:
            soak(port, pid, asked.minutes, asked.rate)


if __name__ == "__main__":
    main()
