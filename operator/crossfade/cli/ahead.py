"""A Prometheus whose past is read in large portions and then asked from memory.

The looks of an hour ask for the same series some hundred times, each for the few seconds that it
does not know yet. Reading ahead makes one query of them. What a look is told is the same: samples
up to its own time and none later.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, Final, TypeVar

import msgspec
from typing_extensions import override

from crossfade.errors import CommandError, MetricSourceError
from crossfade.metrics.batching import Batcher, Pods, Question
from crossfade.metrics.endpoints import Endpoint
from crossfade.metrics.prometheus import Prom, RawSeries
from crossfade.metrics.selectors import Selector

PORTION_SECONDS: Final = 3600
"""What one query reads: the most that one of the operator's does (``metrics/folds.py``)."""

_Key = tuple[Endpoint, Selector, Pods | None]
_time: Final = itemgetter(0)
T = TypeVar("T", bound=tuple[float, Any])


class SamplesAhead(Batcher):
    """Gets raw samples, a portion at a time, and answers later questions from it."""

    def __init__(self, prom: Prom, end: float) -> None:
        """Ask ``prom``, for nothing after ``end`` (seconds)."""
        super().__init__(prom)
        self._end = end
        self._portions: dict[_Key, dict[int, list[RawSeries]]] = {}
        self._reading = asyncio.Lock()

    @override
    async def samples(self, question: Question) -> list[RawSeries]:
        """See :class:`Batcher`.

        Raises:
            CommandError: there is no usable answer. The operator would call it ``unavailable`` and
                ask again later; an answer about the past does not get better.
        """
        first, last = (int(at // PORTION_SECONDS) for at in (question.start, question.end))
        portions = self._portions.setdefault(
            (question.endpoint, question.selector, question.pods), {}
        )
        parts: list[RawSeries] = []
        async with self._reading:
            for portion in range(first, last + 1):
                if portion not in portions:
                    portions[portion] = await self._read(question, portion)
                parts += _between(portions[portion], question.start, question.end)
            for passed in [p for p in portions if p < first - 1]:
                del portions[passed]
        return _joined(parts) if last > first else parts

    async def _read(self, question: Question, portion: int) -> list[RawSeries]:
        start = float(portion * PORTION_SECONDS)
        end = min(start + PORTION_SECONDS, self._end)
        if end <= start:
            return []
        try:
            answer = await super().samples(msgspec.structs.replace(question, start=start, end=end))
        except MetricSourceError as e:
            raise CommandError(f"the past cannot be read: {e}") from e
        return list(_between(answer, start, end))


@dataclass(frozen=True, slots=True)
class _Steps:
    start: int
    end: int
    answer: list[RawSeries] | MetricSourceError


class StepsAhead:
    """Evaluates queries, a portion of their points at a time."""

    def __init__(self, prom: Prom, end: float) -> None:
        """Ask ``prom``, for no more points than are asked for after ``end`` (seconds)."""
        self._prom = prom
        self._end = int(end)
        self._known: dict[tuple[Endpoint, str, int], _Steps] = {}

    async def instant(self, endpoint: Endpoint, promql: str, at: float) -> list[RawSeries]:
        """See :class:`Prom`."""
        return await self._prom.instant(endpoint, promql, at)

    async def steps(
        self, endpoint: Endpoint, promql: str, start: int, end: int, step: int
    ) -> list[RawSeries]:
        """See :class:`Prom`. A failure is remembered: often it is the query that is wrong."""
        key = (endpoint, promql, step)
        known = self._known.get(key)
        if known is None or start < known.start or end > known.end:
            until = max(end, min(start + PORTION_SECONDS, self._end))
            try:
                answer = await self._prom.steps(endpoint, promql, start, until, step)
                known = _Steps(start, until, answer)
            except MetricSourceError as e:
                known = _Steps(start, until, e)
            self._known[key] = known
        if isinstance(known.answer, MetricSourceError):
            raise known.answer
        return list(_between(known.answer, start - 1, end))


def _between(answer: Iterable[RawSeries], start: float, end: float) -> Iterable[RawSeries]:
    """Cut to the samples after ``start`` and up to ``end``; series without any are left out."""
    for series in answer:
        values = _cut(series.values, start, end)
        histograms = _cut(series.histograms, start, end)
        if values or histograms:
            yield RawSeries(series.labels, values, histograms)


def _cut(samples: Sequence[T], start: float, end: float) -> list[T]:
    low = bisect_right(samples, start, key=_time)
    return list(samples[low : bisect_right(samples, end, key=_time)])


def _joined(parts: list[RawSeries]) -> list[RawSeries]:
    """Put the parts of a series together; they come in the order of time."""
    whole: dict[frozenset[tuple[str, str]], RawSeries] = {}
    for part in parts:
        labels = frozenset(part.labels.items())
        known = whole.get(labels, RawSeries(part.labels, []))
        histograms = [*known.histograms, *part.histograms]
        whole[labels] = RawSeries(part.labels, known.values + part.values, histograms)
    return list(whole.values())
