"""What still reaches a version that is leaving, by its own counters."""

from __future__ import annotations

from datetime import UTC, datetime

from crossfade.core.observation import Arrivals
from crossfade.evidence.counters import CounterFold, Series, Side, silence_after
from crossfade.metrics.analyst import Arm
from crossfade.metrics.batching import Batcher
from crossfade.metrics.counts import (
    LOOK_BACK_SECONDS,
    PORTION_SECONDS,
    Arms,
    identity,
    milliseconds,
    parse_samples,
)
from crossfade.metrics.endpoints import Endpoint
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
) -> Arrivals | None:
    """Return what reached a revision since a time, an hour at most; None: it is not seen.

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
    newest_increase: int | None = None
    for term in plan.terms:
        answer = await batcher.samples(arms.question(endpoint, term.selector, start, end))
        series = []
        for one in answer:
            owner = arms.owner(one)
            if owner is not None:
                samples = parse_samples(one.values)
                series.append(Series(*owner, identity(one), term.adds, samples))
        ends = [increment.end for increment in fold.add(series)]
        newest_increase = max([*ends, newest_increase or 0]) or None
    newest = fold.covered_by(Side.CANARY)
    if newest is None or milliseconds(now) - newest > silence_after(fold.spacing()):
        return None
    return Arrivals(_utc(newest_increase) if newest_increase else None, _utc(newest))


def _utc(at: int) -> datetime:
    return datetime.fromtimestamp(at / 1000, UTC)
