"""What the evidence on one metric has in common, whatever it counts: reading on, and answering."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Hashable
from datetime import datetime
from typing import Final, Generic, Protocol, TypeVar

from crossfade.api.v1alpha1 import Metric
from crossfade.evidence.counters import Series, Side
from crossfade.evidence.ledger import Ledger, Seen, Tests
from crossfade.evidence.rules import Asked
from crossfade.evidence.verdicts import MetricAnswer, Verdict
from crossfade.metrics.analyst import Subject
from crossfade.metrics.arms import Arms, Portion
from crossfade.metrics.batching import Batcher
from crossfade.metrics.endpoints import Endpoint
from crossfade.metrics.sources import Join

LOOK_BACK_SECONDS: Final = 300.0
"""How long before the evidence begins samples are read, for baselines and the scrape interval.
Always from the same time, so that a restarted operator reads the same samples."""

PORTION_SECONDS: Final = 3600.0
"""The most that one query reads: a long rollout is read again in portions, with as many samples."""

FIRST_PORTION_SECONDS: Final = 60.0
"""What is read first, when it is not known how many samples that is."""

GROWTH: Final = 4
"""How many times longer the next portion may be."""

PORTION_SAMPLES: Final = 10_000
"""How many samples a portion has, about."""

SAMPLES_PER_SECOND: Final = 30.0
"""What is expected at first: as many series, scraped each second."""

LATENCY_WARMUP_SECONDS: Final = 30
"""The default of ``warmupSeconds`` for latency: caches fill, and code is compiled."""

T = TypeVar("T", bound=Tests)


class Reading(Protocol):
    """Which series are read, and what they count."""

    @property
    def names(self) -> tuple[str, ...]:
        """What the series are called, for people."""
        ...

    @property
    def layout(self) -> Hashable:
        """What is counted; None before the first series.

        When a portion changes it, what was read before counts no more.
        """
        ...

    @property
    def said(self) -> str:
        """What words on what was counted begin with; "" for nothing."""
        ...

    async def read(self, portion: Portion) -> list[Series]:
        """Return the series of a portion of time.

        Raises:
            MetricSourceError: there is no usable answer. Then nothing of the portion was read.
        """
        ...

    def forget(self) -> None:
        """Drop what is remembered of samples: they will be read again from the first."""
        ...

    async def check(self, portion: Portion) -> None:
        """Refuse what was read when it is no evidence; ``portion`` is the latest one.

        Raises:
            MetricSourceError: the message says what to do.
        """
        ...


class Fold(ABC, Generic[T]):
    """The evidence on one metric of one rollout, and how to bring it up to date."""

    def __init__(self, reading: Reading, join: Join, metric: Metric, subject: Subject) -> None:
        """Start with no evidence.

        Raises:
            InvalidSpecError: the versions cannot be told apart.
        """
        self._name = metric.name
        self._reading = reading
        self._arms = Arms(subject.key, join, subject.canary, subject.stable)
        self._has_stable = subject.stable is not None
        self._since = milliseconds(subject.since)
        self._warmup = 1000 * _warmup_seconds(metric)
        self._first = math.floor(subject.since.timestamp() - LOOK_BACK_SECONDS)
        self._from: float = self._first
        self._portion_seconds = FIRST_PORTION_SECONDS
        self._samples_per_second = SAMPLES_PER_SECOND
        self._layout = reading.layout
        self._ledger = self._empty()

    @abstractmethod
    def _tests(self) -> T:
        """Return fresh tests."""

    @abstractmethod
    def _answer(self, tests: T, seen: Seen, asked: Asked) -> MetricAnswer:
        """Give the answer on what was read."""

    def _empty(self) -> Ledger[T]:
        return Ledger(self._tests(), self._since, has_stable=self._has_stable, warmup=self._warmup)

    async def catch_up(
        self, batcher: Batcher, endpoint: Endpoint, now: datetime, in_force_at: datetime | None
    ) -> None:
        """Read what was not read yet. When a query fails nothing of its portion is taken in.

        In portions, each of which is folded before the next is asked for, so that what is in
        memory does not grow with what is to be read. They meet at whole seconds: times are sent
        in milliseconds, and what is rounded could leave out a sample. What the canary answered
        is counted from ``in_force_at``.

        Raises:
            MetricSourceError: there is no usable answer.
        """
        end, until = self._from, now.timestamp()
        while end < until:
            end = min(math.floor(self._from + self._portion_seconds), until)
            async with batcher.room.taken(round((end - self._from) * self._samples_per_second)):
                end = await self._read(batcher, endpoint, end)
            if in_force_at is not None:
                self._ledger.count_from(milliseconds(in_force_at))
        resume = self._ledger.fold.resume_at()
        self._from = max(self._first, end - LOOK_BACK_SECONDS)
        if resume is not None:
            self._from = resume / 1000
        latest = Portion(batcher, endpoint, self._arms, until - LOOK_BACK_SECONDS, until)
        await self._reading.check(latest)

    async def _read(self, batcher: Batcher, endpoint: Endpoint, end: float) -> float:
        """Read on up to ``end``, and return up to when all was read."""
        known = self._ledger.fold.known
        portion = Portion(batcher, endpoint, self._arms, self._from, end, known)
        taken = await self._reading.read(portion)
        self._measure(portion)
        before, self._layout = self._layout, self._reading.layout
        if before != self._layout:
            self._ledger = self._empty()
            if before is not None and self._from != self._first:
                self._reading.forget()
                self._from = self._first
                return self._first
        self._ledger.add(taken)
        self._from = end
        return end

    def _measure(self, portion: Portion) -> None:
        """Find how long the next portion may be, by how many samples this one had."""
        seconds = portion.end - portion.start
        self._samples_per_second = portion.samples / seconds
        enough = seconds * PORTION_SAMPLES / max(portion.samples, 1)
        longest = min(GROWTH * self._portion_seconds, PORTION_SECONDS)
        self._portion_seconds = max(min(enough, longest), 1.0)

    def judge(self, subject: Subject, now: datetime, log_needed: float) -> MetricAnswer:
        """Give the answer on what was read."""
        in_force_at = subject.in_force_at
        seen = self._ledger.seen()
        if seen.newest is None:
            names = " and ".join(sorted(set(self._reading.names)))
            said = f"no series of {names} {self._arms.whose(Side.CANARY)}: is it scraped?"
            return MetricAnswer(self._name, Verdict.NOT_ENOUGH_DATA, said)
        asked = Asked(
            milliseconds(now),
            in_force=in_force_at is not None,
            answered=self._ledger.answered(milliseconds(in_force_at)) if in_force_at else 0,
            min_requests=subject.min_requests,
            log_needed=log_needed,
            in_probation=subject.stable is None,
            ladder=subject.ladder,
        )
        return self._answer(self._ledger.standing(), seen, asked)


def milliseconds(at: datetime) -> int:
    """Return milliseconds since the epoch."""
    return round(at.timestamp() * 1000)


def _warmup_seconds(metric: Metric) -> int:
    if metric.warmup_seconds is not None:
        return metric.warmup_seconds
    return LATENCY_WARMUP_SECONDS if metric.latency is not None else 0
