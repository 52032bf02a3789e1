"""How far a metric is from what it waits for, read from its words in the status.

The status has words and no numbers, since they are for people; these are the words of
``evidence/rules.py``, and the tests hold the two together.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Final

_ODDS: Final = re.compile(r"evidence (over )?([\d.,]+(?:e[+-]?\d+)?) : 1, needs ([\d.,]+) : 1")
_ANSWERED: Final = re.compile(
    r"canary answered ([\d,]+) of the ([\d,]+) requests(?: that this step asks for)?"
)


@dataclass(frozen=True, slots=True)
class Gauge:
    """A way of which a share is gone."""

    share: float
    label: str
    rest: str
    """What the words say beside it."""
    towards_harm: bool
    """At its end the version is taken back; else the step may be passed."""


def gauge_of(message: str) -> Gauge | None:
    """Return how far it is; None where the words say nothing of it.

    Odds multiply, so their bar is one of logarithms: half of the way to 100 : 1 is 10 : 1, and
    1 : 1 or less is nothing.
    """
    odds = _ODDS.search(message)
    if odds is not None:
        have, need = _number(odds[2]), _number(odds[3])
        share = math.log(have) / math.log(need) if have > 1 and need > 1 else 0.0
        label = f"{odds[1] or ''}{odds[2]} : 1, needs {odds[3]} : 1"
        return Gauge(min(share, 1.0), label, _rest(message, odds), towards_harm=True)
    answered = _ANSWERED.search(message)
    if answered is not None:
        have, need = _number(answered[1]), _number(answered[2])
        share = min(have / need, 1.0) if need else 1.0
        label = f"{answered[1]} of {answered[2]} requests"
        return Gauge(share, label, _rest(message, answered), towards_harm=False)
    return None


def _rest(message: str, found: re.Match[str]) -> str:
    parts = (message[: found.start()], message[found.end() :])
    return "; ".join(part.strip("; ") for part in parts if part.strip("; "))


def _number(text: str) -> float:
    return float(text.replace(",", ""))
