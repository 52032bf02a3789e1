"""What a gate answered: yes, no, or nothing that is an answer."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, Final

import msgspec

from crossfade.api.v1alpha1 import GateStatus
from crossfade.webhooks.client import Answer

MOST_SAID: Final = 200
"""So many characters of a gate's message are shown."""

NO_ANSWER: Final = 'it did not answer in JSON with "allowed" true or false'


class _Said(msgspec.Struct):
    allowed: bool
    message: Any = ""


def read_answer(gate: str, answer: Answer) -> GateStatus:
    """Read what a gate answered. Nothing else of it is shown than its status and ``message``."""
    if answer.status != HTTPStatus.OK:
        return failed(gate, f"it answered {answer.status}")
    try:
        said = msgspec.json.decode(answer.body, type=_Said)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return failed(gate, NO_ANSWER)
    words = plain(said.message) if isinstance(said.message, str) else ""
    return GateStatus(name=gate, answer="allowed" if said.allowed else "refused", message=words)


def failed(gate: str, why: str) -> GateStatus:
    """Return that there is no answer."""
    return GateStatus(name=gate, answer="failed", message=why)


def plain(text: str) -> str:
    """Return a text of somebody else as one short line of what can be printed."""
    line = " ".join(text.split())
    return "".join(character for character in line if character.isprintable())[:MOST_SAID]
