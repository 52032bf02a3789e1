"""How the terminal view is drawn: plain ANSI, and without it where there is no terminal."""

from __future__ import annotations

import os
import re
import shutil
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, TextIO

_CODES: Final[Mapping[str, str]] = {
    "bold": "1",
    "dim": "2",
    "red": "31",
    "green": "32",
    "yellow": "33",
    "cyan": "36",
}

_ESCAPE: Final = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")

NARROWEST: Final = 40
"""Columns. Narrower terminals wrap the lines themselves."""

WIDEST: Final = 120
"""Columns. Longer lines are hard to read."""


@dataclass(frozen=True, slots=True)
class Style:
    """What the terminal can show."""

    width: int = 100
    colour: bool = False
    unicode: bool = True

    def paint(self, text: str, *how: str) -> str:
        """Colour a text, where that is possible."""
        if not self.colour or not text or not how:
            return text
        return f"\x1b[{';'.join(_CODES[one] for one in how)}m{text}\x1b[0m"

    def bar(self, share: float, width: int, *how: str) -> str:
        """Draw a share between 0 and 1; what is not nothing shows at least one cell."""
        share = min(max(share, 0.0), 1.0)
        cells = round(share * width)
        if share > 0:
            cells = max(cells, 1)
        if share < 1:
            cells = min(cells, width - 1)
        full, empty = ("█", "░") if self.unicode else ("#", ".")
        return self.paint(full * cells, *how) + self.paint(empty * (width - cells), "dim")

    def mark(self, name: str) -> str:
        """Return a sign for something that is passed, present, coming, good or bad."""
        signs = {
            "passed": ("✓", "x"),
            "present": ("▶", ">"),
            "coming": ("·", "-"),
            "good": ("✓", "+"),
            "bad": ("✗", "!"),
        }
        return signs[name][0 if self.unicode else 1]

    def wrap(self, text: str, indent: int, first: str = "") -> list[str]:
        """Break a text into lines that fit; the first follows ``first``, the rest is indented."""
        width = max(self.width - indent, 20)
        lines = textwrap.wrap(clean(text), width, break_on_hyphens=False) or [""]
        pad = " " * max(indent - visible(first), 0)
        return [first + pad + lines[0], *(" " * indent + line for line in lines[1:])]


def style_of(stream: TextIO) -> Style:
    """Return what a stream can show. ``NO_COLOR`` (no-color.org) is heeded."""
    is_terminal = stream.isatty()
    columns = shutil.get_terminal_size().columns if is_terminal else WIDEST
    colour = is_terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    encoding = (getattr(stream, "encoding", "") or "").lower().replace("-", "")
    return Style(max(min(columns, WIDEST), NARROWEST), colour, encoding == "utf8")


def clean(text: str) -> str:
    """Return a text of the cluster without what would steer the terminal."""
    return _CONTROL.sub(" ", text)


def visible(text: str) -> int:
    """Count the columns of a text without its colours."""
    return len(_ESCAPE.sub("", text))
