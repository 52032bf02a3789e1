"""Rules about a version that leaves: it is scaled down only when it is seen to receive nothing."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from crossfade.api.v1alpha1 import ModelDeploymentSpec, ModelDeploymentStatus, Phase
from crossfade.core.turn import Turn

QUIET: Final = timedelta(seconds=5)
"""Its counters must have stood still this long. A gateway takes about a second to follow a route
(docs/adr/0004-routing.md); a request that is being answered is protected by the pod's own grace
period."""

WHILE_UNSEEN: Final = timedelta(seconds=30)
"""The time allowed instead where its counters cannot be seen."""

IMPATIENCE: Final = timedelta(minutes=5)
"""After this, requests that still come do not come by the route (somebody calls the pods
directly), and waiting longer would block the next version."""

LINGERS_AFTER: Final = timedelta(seconds=30)
"""From then on people are told what a version waits for that still counts requests."""

RECHECK_SECONDS: Final = 2.0


def is_drained(turn: Turn) -> bool:
    """Tell whether the leaving version receives nothing; call only while its weight is zero."""
    if turn.status.drained_since is None:
        turn.set(drained_since=turn.now)
    since = turn.status.drained_since or turn.now
    turn.look_in(RECHECK_SECONDS)
    if turn.now - since >= IMPATIENCE:
        return True
    arrivals = turn.seen.leaving
    if arrivals is None:
        return False  # they are being asked for
    if arrivals.newest_sample_at is None:
        return turn.now - since >= WHILE_UNSEEN
    idle_since = max(since, arrivals.last_request_seen_at or since)
    return arrivals.newest_sample_at - idle_since >= QUIET


def why_it_lingers(turn: Turn, version: str) -> str:
    """Say that a version without weight still counts requests, and until when; "" if it does not.

    Often nobody sends them: models count probes, too, or the scrapes of their metrics.
    """
    since, arrivals = turn.status.drained_since, turn.seen.leaving
    if since is None or arrivals is None or arrivals.last_request_seen_at is None:
        return ""
    if arrivals.last_request_seen_at - since < LINGERS_AFTER:
        return ""
    return (
        f"version {version} has no weight and its counters still grow, by probes, scrapes or "
        f"direct calls: it is removed {IMPATIENCE // timedelta(minutes=1)} min after it lost its "
        f"weight, or once they stand still for {QUIET // timedelta(seconds=1)} s"
    )


def leaving_revision(
    status: ModelDeploymentStatus, spec: ModelDeploymentSpec, now: datetime
) -> str | None:
    """Return the revision whose arrivals matter to this turn; None when none leaves."""
    if status.drained_since is None:
        return None
    if status.phase is Phase.ROLLING_BACK and status.canary is not None:
        return status.canary.revision
    if status.phase is Phase.PROBATION and status.previous is not None:
        started = status.promoted_at or now
        over = now >= started + timedelta(seconds=spec.rollout.probation_seconds)
        return status.previous.revision if over else None
    return None
