"""A canary that refuses inputs which stable accepts: people are told before it gets traffic.

It holds nothing. That a contract gets narrower is often the point of the new version, and who
sends what no program can know: people decide.
"""

from __future__ import annotations

from typing import Final

from crossfade.api.v1alpha1 import Phase
from crossfade.core.phases import WITH_CANARY
from crossfade.core.turn import Turn

INPUTS_COMPATIBLE: Final = "InputsCompatible"
"""The condition's type, which remembers what was told."""

MOST_SENTENCES: Final = 8
"""So many are said; of more, the number."""


def refusals(turn: Turn) -> str | None:
    """Say what the canary refuses that stable accepts.

    "" is for nothing, None for nothing to compare. What stable's golden request showed is asked for
    only before the first weight, and said for as long as there is this canary.
    """
    if turn.status.phase not in WITH_CANARY or turn.seen.narrowed is None:
        return None
    drill = turn.seen.drill
    refused = drill.refused if drill is not None else None
    said = _said_before(turn)
    if refused is None and said:
        return said
    sentences = (*turn.seen.narrowed, *(refused or ()))
    more = len(sentences) - MOST_SENTENCES
    return "; ".join((*sentences[:MOST_SENTENCES], *([f"and {more} more"] if more > 0 else ())))


def flag_narrowed_inputs(turn: Turn) -> None:
    """Say so once for each canary, and in the message for as long as it has no weight."""
    words = refusals(turn)
    if not words:
        return
    version, stable = turn.canary.version, turn.stable.version
    told = f"version {version} refuses inputs that {stable} accepts: {words}"
    if not _said_before(turn):
        turn.announce("Warning", "InputsNarrowed", told)
    if turn.status.phase is Phase.PREPARING and told not in turn.status.message:
        turn.set(message=f"{turn.status.message}; {told}")


def _said_before(turn: Turn) -> str:
    known = (c for c in turn.seen.status.conditions if c.type == INPUTS_COMPATIBLE)
    return next((c.message for c in known if c.status == "False"), "")
