"""What the benchmarks read: the operator's process, the audit log, Prometheus, and watches.

All of it is read beside the operator, never through it: /proc, the memory controller's files, the
API server's audit log. So it works on a cluster that runs on this machine (``python -m cluster``).
"""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
import urllib.request
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from cluster.paths import Paths
from examples.demo.kubectl import Kubectl

OPERATOR: Final = "system:serviceaccount:crossfade-system:crossfade-operator"
SYSTEM: Final = "crossfade-system"
MEGABYTE: Final = 1_000_000
SAMPLE_SECONDS: Final = 0.5


@dataclass(frozen=True, slots=True)
class Reading:
    """The operator's process at one moment."""

    at: float
    pid: int
    rss_mb: float
    """VmRSS, shared pages of libraries included."""
    working_mb: float
    """The container's working set, as ``kubectl top`` and the OOM killer count."""
    cpu_seconds: float


def find_operator(kubectl: Kubectl) -> int:
    """Return the process id of the operator's container.

    Raises:
        LookupError: it does not run, or not on this machine.
    """
    out = kubectl.run("-n", SYSTEM, "get", "pods", "-o", "json")
    names = [
        status["containerID"].rpartition("/")[2]
        for pod in json.loads(out)["items"]
        for status in pod["status"].get("containerStatuses", ())
        if "running" in status["state"]
    ]
    for path in Path("/proc").glob("[0-9]*/cgroup"):
        try:
            text = path.read_text()
        except OSError:
            continue
        if any(name in text for name in names):
            return int(path.parent.name)
    raise LookupError("no process of the operator on this machine")


def read_operator(pid: int) -> Reading:
    """Read memory and CPU time of the operator.

    Raises:
        OSError: the process has ended.
    """
    process = Path(f"/proc/{pid}")
    lines = (process / "status").read_text().splitlines()
    rss = next(int(it.split()[1]) * 1024 for it in lines if it.startswith("VmRSS:"))
    fields = (process / "stat").read_text().rpartition(")")[2].split()
    ticks = int(fields[11]) + int(fields[12])
    return Reading(
        at=time.time(),
        pid=pid,
        rss_mb=rss / MEGABYTE,
        working_mb=_working_set(pid) / MEGABYTE,
        cpu_seconds=ticks / os.sysconf("SC_CLK_TCK"),
    )


def _working_set(pid: int) -> int:
    """Return usage less inactive file pages, from the memory controller of either version."""
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        number, controllers, path = line.split(":", 2)
        if controllers == "memory":
            folder = Path("/sys/fs/cgroup/memory" + path)
            names = ("memory.usage_in_bytes", "total_inactive_file")
        elif number == "0" and Path(f"/sys/fs/cgroup{path}/memory.current").exists():
            folder = Path("/sys/fs/cgroup" + path)
            names = ("memory.current", "inactive_file")
        else:
            continue
        usage = int((folder / names[0]).read_text())
        stat = dict(it.split() for it in (folder / "memory.stat").read_text().splitlines())
        return usage - int(stat[names[1]])
    return 0


@dataclass
class Meter:
    """The operator's process while a block runs."""

    kubectl: Kubectl
    readings: list[Reading] = field(default_factory=list)

    @property
    def last(self) -> Reading:
        """The newest reading."""
        return self.readings[-1]

    @property
    def restarts(self) -> int:
        """How often somebody replaced the operator meanwhile: nothing measured counts then."""
        return len({it.pid for it in self.readings}) - 1

    def peak(self) -> tuple[float, float]:
        """Return the highest RSS and working set, in megabytes."""
        rss = max(it.rss_mb for it in self.readings)
        return rss, max(it.working_mb for it in self.readings)


@contextmanager
def metering(kubectl: Kubectl) -> Iterator[Meter]:
    """Read the operator's process twice a second while the block runs."""
    meter, stop = Meter(kubectl), threading.Event()
    pid = find_operator(kubectl)
    meter.readings.append(read_operator(pid))

    def run() -> None:
        nonlocal pid
        while not stop.wait(SAMPLE_SECONDS):
            try:
                meter.readings.append(read_operator(pid))
            except OSError:
                try:
                    pid = find_operator(kubectl)
                except LookupError:
                    continue

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield meter
    finally:
        stop.set()
        thread.join(30)


class Machine:
    """Who used the processors since a moment: programs that still run, and all together."""

    def __init__(self) -> None:
        self._before = _cpu_of_processes()
        self._total = _cpu_of_machine()

    def used(self, most: int = 8) -> str:
        """Say how busy the machine was, and with what, in CPU seconds."""
        busy, whole = (b - a for a, b in zip(self._total, _cpu_of_machine(), strict=True))
        by_program: defaultdict[str, float] = defaultdict(float)
        for pid, (program, seconds) in _cpu_of_processes().items():
            by_program[program] += seconds - self._before.get(pid, (program, 0.0))[1]
        ordered = sorted(by_program.items(), key=lambda it: -it[1])
        first = ", ".join(f"{name} {seconds:.1f}" for name, seconds in ordered[:most])
        return f"{busy:.0f} of {whole:.0f} CPU s: {first}"


def _cpu_of_processes() -> dict[int, tuple[str, float]]:
    found: dict[int, tuple[str, float]] = {}
    hertz = os.sysconf("SC_CLK_TCK")
    for path in Path("/proc").glob("[0-9]*"):
        try:
            text = (path / "stat").read_text()
            words = (path / "cmdline").read_text().split("\0")
        except OSError:
            continue
        head, _, tail = text.rpartition(")")
        name = head.partition("(")[2]
        if name.startswith("python"):
            name = " ".join(Path(it).name for it in words[:4] if it and not it.startswith("-"))
        fields = tail.split()
        found[int(path.name)] = name[:40], (int(fields[11]) + int(fields[12])) / hertz
    return found


def _cpu_of_machine() -> tuple[float, float]:
    numbers = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
    ticks, hertz = [int(it) for it in numbers], os.sysconf("SC_CLK_TCK")
    return (sum(ticks) - ticks[3] - ticks[4]) / hertz, sum(ticks) / hertz


class AuditMark:
    """A place in the API server's audit log: requests are counted from here on."""

    def __init__(self) -> None:
        self._log = Paths.from_environment().audit_log
        self._offset = self._log.stat().st_size

    def requests(self, namespace: str) -> Counter[str]:
        """Count the operator's requests by verb and kind, watches apart.

        Requests for other namespaces are left out; those for none (lists, discovery) are in.
        """
        counted: Counter[str] = Counter()
        with self._log.open("rb") as lines:
            lines.seek(self._offset)
            for line in lines:
                if OPERATOR.encode() not in line or not line.endswith(b"}\n"):
                    continue
                entry = json.loads(line)
                target = entry.get("objectRef", {})
                if entry["verb"] == "watch" or target.get("namespace", namespace) != namespace:
                    continue
                what = (target.get("resource", "-"), target.get("subresource", ""))
                counted[f"{entry['verb']} {'/'.join(it for it in what if it)}"] += 1
        return counted


def prometheus_queries(address: str) -> float:
    """Return how many queries a Prometheus has answered, whoever asked."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"http://{address}:9090/metrics", timeout=5) as answer:
        lines = answer.read().decode().splitlines()
    wanted = ('handler="/api/v1/query"', 'handler="/api/v1/query_range"')
    counters = [it for it in lines if it.startswith("prometheus_http_requests_total{")]
    return sum(float(it.split()[-1]) for it in counters if any(w in it for w in wanted))


class Watch:
    """The ModelDeployments of a namespace as they change, with the time of each change."""

    def __init__(self, namespace: str) -> None:
        paths = Paths.from_environment()
        path = f"/apis/crossfade.dev/v1alpha1/namespaces/{namespace}/modeldeployments"
        self._process = subprocess.Popen(
            [
                str(paths.bin / "kubectl"),
                f"--kubeconfig={paths.kubeconfig}",
                "get",
                "--raw",
                f"{path}?watch=1",
            ],
            stdout=subprocess.PIPE,
        )
        self.changes: list[tuple[float, str, dict[str, Any]]] = []
        """When, whose, and the status then."""
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        assert self._process.stdout is not None  # noqa: S101 - it is a pipe
        for line in self._process.stdout:
            seen = json.loads(line)["object"]
            if "metadata" in seen and seen.get("kind") == "ModelDeployment":
                name, status = seen["metadata"]["name"], seen.get("status", {})
                self.changes.append((time.time(), name, status))

    def first(self, since: float, want: Callable[[dict[str, Any]], bool]) -> dict[str, float]:
        """Return when each object was first seen so after a time."""
        found: dict[str, float] = {}
        for at, name, status in list(self.changes):
            if at >= since and name not in found and want(status):
                found[name] = at
        return found

    def close(self) -> None:
        """End the watch."""
        self._process.terminate()
        self._process.wait(10)
        self._thread.join(10)


@contextmanager
def watching(namespace: str) -> Iterator[Watch]:
    """Watch a namespace while the block runs."""
    watch = Watch(namespace)
    try:
        yield watch
    finally:
        watch.close()
