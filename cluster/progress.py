"""Show how far long work is: what, n of m, how long so far.

A terminal gets one line that is redrawn; anything else (a CI log, a file) gets plain lines, with
a sign of life in between. Must not know what the work is.
"""

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

REDRAW_SECONDS: Final = 0.5
"""How often a terminal's line is redrawn."""
SIGN_OF_LIFE_SECONDS: Final = 30.0
"""How often a plain log gets a line while a step runs."""
BAR_WIDTH: Final = 20
"""Characters of the bar."""


class Progress:
    """Progress of a known number of steps, printed to standard error."""

    def __init__(self, title: str, total: int) -> None:
        """Start counting; ``total`` is the number of steps to come."""
        self._title = title
        self._total = total
        self._done = 0
        self._start = time.monotonic()
        self._tty = sys.stderr.isatty()

    @contextmanager
    def step(self, what: str) -> Iterator[None]:
        """Show a step while its block runs, and that it is done or has failed."""
        started = time.monotonic()
        stop = threading.Event()
        painter = threading.Thread(target=self._paint, args=(what, started, stop), daemon=True)
        painter.start()
        try:
            yield
        except BaseException:
            self._end(stop, painter, what, f"FAILED after {time.monotonic() - started:.1f} s")
            raise
        self._done += 1
        self._end(stop, painter, what, f"{time.monotonic() - started:.1f} s")

    def _end(self, stop: threading.Event, painter: threading.Thread, what: str, how: str) -> None:
        stop.set()
        painter.join()
        if self._tty:
            sys.stderr.write("\r\x1b[K")
        say(f"[{self._title} {self._done}/{self._total}] {what}: {how}")

    def _paint(self, what: str, started: float, stop: threading.Event) -> None:
        wait = REDRAW_SECONDS if self._tty else SIGN_OF_LIFE_SECONDS
        if self._tty:
            self._draw(what)
        while not stop.wait(wait):
            if self._tty:
                self._draw(what)
            else:
                say(
                    f"[{self._title} {self._done + 1}/{self._total}] {what}: "
                    f"still at it after {time.monotonic() - started:.0f} s"
                )

    def _draw(self, what: str) -> None:
        filled = BAR_WIDTH * self._done // max(1, self._total)
        bar = "#" * filled + "." * (BAR_WIDTH - filled)
        elapsed = time.monotonic() - self._start
        line = f"{self._title} [{bar}] {self._done + 1}/{self._total} {what} {elapsed:.0f} s"
        sys.stderr.write(f"\r\x1b[K{line}")
        sys.stderr.flush()


def say(text: str) -> None:
    """Print a line for the person at the terminal; standard output is for what scripts read."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()
