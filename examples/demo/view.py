"""Show the demo as it runs: a block that is redrawn on a terminal, plain lines elsewhere.

Rendering is pure; only `Screen` writes.
"""

from __future__ import annotations

import re
import shutil
import time
from typing import Final, TextIO

from examples.demo.look import Snapshot

BAR_WIDTH: Final = 40
HAPPENINGS_SHOWN: Final = 6

_BOLD: Final = "\x1b[1m"
_PLAIN: Final = "\x1b[0m"
_ERASE_LINE: Final = "\x1b[2K"


def render_block(seen: Snapshot, elapsed_seconds: float) -> list[str]:
    """Render a snapshot as the lines of the block that a terminal shows."""
    minutes, seconds = divmod(int(elapsed_seconds), 60)
    step = f", step {seen.step}" if seen.step else ""
    lines = [f"{minutes}:{seconds:02d}  {seen.phase or 'not seen by the operator yet'}{step}"]
    lines.append(_render_version(seen, "stable", seen.stable, 100 - seen.weight))
    lines.append(_render_version(seen, "canary", seen.canary, seen.weight))
    lines.append(f"  verdict  {seen.verdict or '-'}")
    lines.append(f"  message  {seen.message or '-'}")
    if seen.users:
        lines.append(f"  users    {seen.users['sent']:,} requests, {seen.lost} lost")
    lines += [render_happening(seen, index) for index in range(len(seen.happenings))][
        -HAPPENINGS_SHOWN:
    ]
    return lines


def _render_version(seen: Snapshot, role: str, version: str, weight: int) -> str:
    if not version:
        return f"  {role}   -"
    filled = round(BAR_WIDTH * weight / 100)
    bar = "█" * filled + "·" * (BAR_WIDTH - filled)
    return f"  {role}   {version} {bar} {weight:3d} %  {_render_answers(seen, version)}"


def _render_answers(seen: Snapshot, version: str) -> str:
    found = seen.version(version)
    if found is None:
        return "no answers yet"
    wrong = f"{found['recentWrong']} of the last {found['recentAnswers']} answers wrong"
    return f"{wrong}; {found['wrong']} of {found['answers']} in all"


def render_happening(seen: Snapshot, index: int) -> str:
    """Render one event."""
    it = seen.happenings[index]
    clock = time.strftime("%H:%M:%S", time.localtime(it.at))
    return f"  {clock} {'!' if it.is_warning else ' '} {it.reason}: {it.message}"


def render_change(before: Snapshot | None, seen: Snapshot, elapsed_seconds: float) -> list[str]:
    """Render what is new since the snapshot before, for where lines cannot be redrawn."""
    known = {it.uid for it in before.happenings} if before else set()
    lines = [
        render_happening(seen, index)
        for index, it in enumerate(seen.happenings)
        if it.uid not in known
    ]
    if before is None or _gist(before) != _gist(seen):
        weights = f"{seen.stable} {100 - seen.weight} %" if seen.stable else "nothing serves yet"
        if seen.canary:
            weights += f", {seen.canary} {seen.weight} %"
            weights += f" ({_render_answers(seen, seen.canary)})"
        line = f"{elapsed_seconds:6.1f} s  {seen.phase or '-'} {seen.step}  {weights}"
        lines.append(f"{line}  {seen.verdict or seen.message}".rstrip())
    return lines


def _gist(seen: Snapshot) -> tuple[object, ...]:
    """Return what makes two snapshots different in kind; numbers in words change all the time."""
    verdict = re.sub(r"[\d.,]+", "#", seen.verdict)
    return seen.phase, seen.stable, seen.canary, seen.weight, seen.step, verdict


class Screen:
    """Writes the demo to a stream."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._is_terminal = stream.isatty()
        self._started = time.monotonic()
        self._drawn = 0
        """Lines of the block that stand above the cursor."""
        self._before: Snapshot | None = None

    def say(self, text: str, *, bold: bool = False) -> None:
        """Write lines that stay; the block goes on below them."""
        if self._is_terminal and bold:
            text = f"{_BOLD}{text}{_PLAIN}"
        self._drawn = 0
        self._write(text)

    def show(self, seen: Snapshot) -> None:
        """Show a snapshot."""
        elapsed = time.monotonic() - self._started
        if self._is_terminal:
            self._redraw(render_block(seen, elapsed))
        else:
            for line in render_change(self._before, seen, elapsed):
                self._write(line)
        self._before = seen

    def _redraw(self, lines: list[str]) -> None:
        width = shutil.get_terminal_size().columns - 1
        up = f"\x1b[{self._drawn}A" if self._drawn else ""
        # A block that has become shorter leaves no line of the one before.
        lines = lines + [""] * (self._drawn - len(lines))
        self._write(up + "\n".join(f"{_ERASE_LINE}{line[:width]}" for line in lines))
        self._drawn = len(lines)

    def _write(self, text: str) -> None:
        self._stream.write(f"{text}\n")
        self._stream.flush()
