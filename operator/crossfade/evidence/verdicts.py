"""What a look at a metric can say: one of four answers, with its reason in words and numbers."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import msgspec


class Verdict(StrEnum):
    """The four answers. Only HEALTHY of all metrics advances; HARM of any rolls back."""

    HARM = "harm"
    """The evidence is past its threshold."""
    HEALTHY = "healthy"
    """Enough requests at this weight, and no harm."""
    NOT_ENOUGH_DATA = "notEnoughData"
    """Too few requests since the weight was in force. Never success, never failure."""
    UNAVAILABLE = "unavailable"
    """No answer, or one that cannot be used. Never success, never failure."""


class Counts(msgspec.Struct, frozen=True, gc=False):
    """Requests and, of them, the bad ones (errors, or slow), since the evidence began.

    No dataclass, since each look makes some twenty for each metric.
    """

    requests: int = 0
    bad: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.requests + other.requests, self.bad + other.bad)

    @property
    def percent(self) -> float:
        """The share of bad requests in percent; 0 without requests."""
        return 100.0 * self.bad / self.requests if self.requests else 0.0


class Evidence(msgspec.Struct, frozen=True, gc=False):
    """How much speaks against the canary: what people are told as "340 : 1, needs 300 : 1"."""

    log_e: float
    """The logarithm of the e-value of the test that is closest to its threshold."""
    log_needed: float
    """The logarithm of the threshold: the number of tests over ``falseRollbackRate``."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """What it takes to see twice the present rate with 80 % probability at one weight."""

    weight_percent: int
    requests: int
    """Answers of the canary."""
    seconds: int | None
    """At today's traffic; None while there is none."""


class MetricAnswer(msgspec.Struct, frozen=True, gc=False):
    """One metric, one look."""

    name: str
    verdict: Verdict
    message: str
    """For people: what was seen and, where it holds, what is missing. One sentence, no period."""
    evidence: Evidence | None = None
    """None: nothing was counted yet, or the metric is a query."""
    alert: str = ""
    """What people should know though no version is to blame; "" for nothing."""
    forecast: tuple[Forecast, ...] = ()
    """One for each step of the ladder; empty where nothing can be said yet."""
    no_forecast: str = ""
    """Why a doubling is seen at no step, for people; "" where it is, or where nobody asked."""
