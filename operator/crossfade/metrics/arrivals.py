"""What still reaches a version that is leaving, by its own counters."""

from __future__ import annotations

from datetime import UTC, datetime

from crossfade.core.observation import UNSEEN, Arrivals
from crossfade.evidence.counters import CounterFold, Side, silence_after
from crossfade.metrics.analyst import Arm
from crossfade.metrics.arms import Arms, Portion
from crossfade.metrics.batching import Batcher
from crossfade.metrics.counts import CountersReading
from crossfade.metrics.endpoints import Endpoint
from crossfade.metrics.folds import LOOK_BACK_SECONDS, PORTION_SECONDS, milliseconds
from crossfade.metrics.sources import Plan
from crossfade.names import NamespacedName


async def arrivals_of(
    batcher: Batcher,
    endpoint: Endpoint,
    plan: Plan,
    key: NamespacedName,
    arm: Arm,
    since: datetime,
    now: datetime,
) -> Arrivals:
    """Return what reached a revision since a time, an hour at most; or that it is not seen.

    It is not seen when it has no series, or none any more: a gateway drops those of a Service when
    the last route to it is gone.

    Raises:
        MetricSourceError: there is no usable answer.
        InvalidSpecError: the source cannot be read.
    """
    arms = Arms(key, plan.join, arm, None)
    fold = CounterFold(milliseconds(since), canary_is_new=False)
    end = now.timestamp()
    start = max(since.timestamp() - LOOK_BACK_SECONDS, end - PORTION_SECONDS)
    portion = Portion(batcher, endpoint, arms, start, end)
    increments = fold.add(await CountersReading(plan.terms).read(portion))
    newest_increase = max((increment.end for increment in increments), default=None)
    newest = fold.covered_by(Side.CANARY)
    if newest is None or milliseconds(now) - newest > silence_after(fold.spacing()):
        return UNSEEN
    return Arrivals(_utc(newest_increase) if newest_increase else None, _utc(newest))


def _utc(at: int) -> datetime:
    return datetime.fromtimestamp(at / 1000, UTC)
