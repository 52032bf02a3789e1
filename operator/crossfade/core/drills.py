"""Rules about the drill of a fallback: a way out that was never tried is none.

Each sidecar sends its golden request through every target before its version has traffic. A
canary whose targets do not all answer gets no weight. The first version serves all the same: where
nothing serves yet, waiting protects nobody.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from crossfade.api.v1alpha1 import FallbackTargetStatus
from crossfade.core.observation import Drill
from crossfade.core.rollback import take_back
from crossfade.core.turn import Turn

RECHECK_SECONDS: Final = 1.0
"""How soon to look again whether the sidecars have answered; how often they are asked is the
shell's (``reconcile/drills.py``)."""

HOLDS: Final = "the canary gets no weight until it answers"


def is_drilled(turn: Turn) -> bool:
    """Tell whether the canary may have weight as far as its fallback goes; say what is missing.

    After as long as its pods may take to get ready, the canary is taken back.
    """
    if not turn.seen.drills:
        return True
    drill = turn.seen.drill
    if drill is None:
        _wait(turn)
        return False
    _note(turn, drill, HOLDS)
    if not _is_bad(drill):
        turn.set_rollout(undrilled_since=None)
        return True
    since = turn.rollout.undrilled_since or turn.now
    allowed = turn.spec.rollout.ready_deadline_seconds
    if turn.now >= since + timedelta(seconds=allowed):
        take_back(turn, "FallbackNotDrilled", f"{_words(drill)}, after {allowed} s")
        return False
    turn.set_rollout(undrilled_since=since)
    turn.set(message=f"{_words(drill)}; {HOLDS}")
    turn.look_in(RECHECK_SECONDS)
    return False


def is_first_drill_over(turn: Turn) -> bool:
    """Wait for what the sidecars of the first version say, good or bad."""
    if not turn.seen.drills:
        return True
    if turn.seen.drill is None:
        _wait(turn)
        return False
    _note(turn, turn.seen.drill, "the first version serves all the same")
    return True


def _wait(turn: Turn) -> None:
    """The shell answers in any case: in the end, that the sidecars do not."""
    turn.set(message="waits for what the sidecars of the new version say")
    turn.look_in(RECHECK_SECONDS)


def _is_bad(drill: Drill) -> bool:
    return bool(drill.problem or drill.failed)


def _words(drill: Drill) -> str:
    failed = ", ".join(f"{result.target} {result.message}" for result in drill.failed)
    return f"fallback drill: {drill.problem or failed}"


def _note(turn: Turn, drill: Drill, consequence: str) -> None:
    """Keep the results, and tell people once when they turn bad."""
    before = turn.seen.status
    was_bad = any(not target.ok for target in before.fallback) or (
        before.rollout is not None and before.rollout.undrilled_since is not None
    )
    turn.set(
        fallback=[
            FallbackTargetStatus(target=r.target, ok=r.ok, message=r.message or None)
            for r in drill.results
        ]
    )
    if _is_bad(drill) and not was_bad:
        turn.announce("Warning", "FallbackDrillFailed", f"{_words(drill)}; {consequence}")
