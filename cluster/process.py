"""Run commands so that a failure shows what the command said.

The only place of the package that runs a command to its end. Must not know what is run.
"""

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

TAIL_LINES: Final = 15
"""How many of a failed command's or component's last output lines a message quotes."""


class ClusterError(Exception):
    """Something that the person at the terminal must act on; the text says how."""


def tail(text: str, lines: int = TAIL_LINES) -> str:
    """Return the last lines of a text, indented for quoting in a message."""
    return "\n".join(f"    {line}" for line in text.rstrip().splitlines()[-lines:])


def tail_of_file(log: Path, lines: int = TAIL_LINES) -> str:
    """Return the last lines of a log file, or a word that there is none."""
    if not log.exists():
        return "    (no log yet)"
    with log.open("rb") as file:
        # 64 KiB hold the last lines of any log here; API server logs may be many megabytes.
        file.seek(max(0, log.stat().st_size - 65536))
        return tail(file.read().decode(errors="replace"), lines)


def run(
    command: Sequence[str | Path],
    *,
    stdin: str | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    log: Path | None = None,
    timeout_seconds: float | None = 120,
    check: bool = True,
) -> str:
    """Run a command to its end and return its standard output.

    Args:
        command: Program and arguments; no shell is involved.
        stdin: Text for its standard input; without it the input is empty.
        env: Variables added to this process's own.
        cwd: Folder to run in.
        log: File that also gets the command line and all output, appended.
        timeout_seconds: Limit on its run time; None for no limit.
        check: Whether a non-zero exit raises.

    Raises:
        ClusterError: If the command is missing, fails or runs too long; quotes the last lines.
    """
    words = [str(word) for word in command]
    shown = " ".join(words[:6])
    try:
        done = subprocess.run(
            words,
            input=stdin or "",
            env={**os.environ, **(env or {})},
            cwd=cwd,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_seconds,
            check=False,
        )
    except FileNotFoundError as error:
        raise ClusterError(f"{words[0]} is not installed") from error
    except subprocess.TimeoutExpired as error:
        raise ClusterError(f"{shown} took longer than {timeout_seconds} s") from error
    if log is not None:
        with log.open("a") as file:
            file.write(f"$ {' '.join(words)}\n{done.stdout}{done.stderr}\n")
    if check and done.returncode != 0:
        where = f"\n    (all of it: {log})" if log is not None else ""
        said = tail(done.stdout + done.stderr)
        raise ClusterError(f"{shown} failed with exit code {done.returncode}:\n{said}{where}")
    return done.stdout
