"""What a look at a metric can say: one of four answers, with its reason in words and numbers."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


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


@dataclass(frozen=True, slots=True)
class Counts:
    """Requests and, of them, the bad ones (errors, or slow), since the evidence began."""

    requests: int = 0
    bad: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.requests + other.requests, self.bad + other.bad)

    @property
    def percent(self) -> float:
        """The share of bad requests in percent; 0 without requests."""
        return 100.0 * self.bad / self.requests if self.requests else 0.0


@dataclass(frozen=True, slots=True)
class MetricAnswer:
    """One metric, one look."""

    name: str
    verdict: Verdict
    message: str
    """For people: what was seen and, where it holds, what is missing. One sentence, no period."""
