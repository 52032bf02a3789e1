"""Start the cluster's daemons in the background, and end exactly those again.

Each daemon is recorded as process id, start time and program, so that a process id that the
kernel has since given to another program is never signalled. Must not know what the daemons do.
"""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from cluster.paths import Paths
from cluster.process import ClusterError, tail_of_file

POLL_SECONDS: Final = 0.05
START_TIME_FIELD: Final = 22
"""Place of the start time in /proc/PID/stat, counted from 1: see proc(5)."""


@dataclass(frozen=True, slots=True)
class Daemon:
    """A process that this package started."""

    name: str
    pid: int
    start_ticks: int
    """Start of the process in clock ticks since the machine's start."""
    program: str
    """Resolved path of what it runs."""

    def is_alive(self) -> bool:
        """Tell whether this very process still runs; a zombie does not."""
        return _observe_start(self.pid) == self.start_ticks and self.program == _program(self.pid)


def start(
    paths: Paths,
    name: str,
    command: Sequence[str | Path],
    env: Mapping[str, str] | None = None,
) -> Daemon:
    """Start a daemon in its own session, its output appended to its log, and record it."""
    paths.logs.mkdir(parents=True, exist_ok=True)
    with (paths.logs / f"{name}.log").open("ab") as log:
        process = subprocess.Popen(
            [str(word) for word in command],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, **(env or {})},
            start_new_session=True,
        )
    started = _observe_start(process.pid)
    program = str(Path(command[0]).resolve())
    daemon = Daemon(name, process.pid, started or 0, program)
    record = _record(paths, name)
    record.parent.mkdir(parents=True, exist_ok=True)
    # A record that a kill cut in half would hide the daemon from the next start.
    new = record.with_suffix(".new")
    new.write_text(json.dumps(asdict(daemon)))
    new.rename(record)
    return daemon


def recorded(paths: Paths) -> dict[str, Daemon]:
    """Return every daemon on record, alive or not, by its name."""
    found = {}
    for file in sorted((paths.run / "pids").glob("*.json")):
        daemon = Daemon(**json.loads(file.read_text()))
        found[daemon.name] = daemon
    return found


def stop(paths: Paths, names: Sequence[str], *, timeout_seconds: float) -> None:
    """End daemons together: ask all, wait, then kill those that stay; forget their records."""
    daemons = [it for name, it in recorded(paths).items() if name in names]
    for daemon in daemons:
        _signal(daemon, signal.SIGTERM)
    if not _all_gone(daemons, timeout_seconds):
        for daemon in daemons:
            _signal(daemon, signal.SIGKILL)
        _all_gone(daemons, timeout_seconds)
    for daemon in daemons:
        _record(paths, daemon.name).unlink(missing_ok=True)


def wait_until(
    paths: Paths,
    what: str,
    is_true: Callable[[], bool],
    *,
    timeout_seconds: float,
    daemon: str | None = None,
) -> None:
    """Poll until something is true.

    Args:
        paths: Where the daemon's log is.
        what: What is waited for, to finish the sentence "Waited for …".
        is_true: The question; must answer quickly.
        timeout_seconds: Limit.
        daemon: Name of the daemon whose end is also the end of waiting.

    Raises:
        ClusterError: After the limit, or when the daemon has ended; quotes its log.
    """
    deadline = time.monotonic() + timeout_seconds
    while not is_true():
        ended = daemon is not None and not recorded(paths)[daemon].is_alive()
        if ended or time.monotonic() > deadline:
            how = f"but {daemon} has ended" if ended else f"for {timeout_seconds:.0f} s in vain"
            message = f"Waited for {what}, {how}."
            if daemon is not None:
                log = paths.logs / f"{daemon}.log"
                message += f" The last lines of {log}:\n{tail_of_file(log)}"
            raise ClusterError(message)
        time.sleep(POLL_SECONDS)


def _record(paths: Paths, name: str) -> Path:
    return paths.run / "pids" / f"{name}.json"


def _observe_start(pid: int) -> int | None:
    """Return a process's start in clock ticks; None if there is none or it is a zombie."""
    try:
        # The program's name in parentheses may hold spaces; what follows it may not.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[START_TIME_FIELD - 3])


def _program(pid: int) -> str:
    try:
        # A rebuilt program leaves the running one's file deleted.
        return str(Path(f"/proc/{pid}/exe").readlink()).removesuffix(" (deleted)")
    except OSError:
        return ""


def _signal(daemon: Daemon, number: signal.Signals) -> None:
    if daemon.is_alive():
        os.kill(daemon.pid, number)


def _all_gone(daemons: Sequence[Daemon], timeout_seconds: float) -> bool:
    deadline = time.monotonic() + timeout_seconds
    while any(it.is_alive() for it in daemons):
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True
