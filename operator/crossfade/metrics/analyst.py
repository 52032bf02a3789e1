"""The contract between the reconciler and whatever judges versions by their metrics."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from crossfade.api.v1alpha1 import Analysis
from crossfade.core.observation import Arrivals
from crossfade.evidence.verdicts import MetricAnswer
from crossfade.names import NamespacedName


@dataclass(frozen=True, slots=True)
class Arm:
    """One version's side of a comparison."""

    revision: str
    version: str


@dataclass(frozen=True, slots=True)
class Subject:
    """What is to be judged in one look."""

    key: NamespacedName
    model: str
    analysis: Analysis
    canary: Arm
    """The version that is judged. During probation: the new stable."""
    stable: Arm | None
    """The version to compare with; None when it gets no traffic (probation)."""
    since: datetime
    """Evidence counts from here: when this canary first had weight (or was promoted)."""
    in_force_at: datetime | None
    """When the present weight was seen in force; None: not yet, so no answer is ``healthy``."""
    min_requests: int
    """Requests that the canary must have answered since ``in_force_at`` to be ``healthy``."""
    ladder: tuple[int, ...] = ()
    """The weights of the steps in percent, for the forecast; empty: none is wanted."""


class Analyst(Protocol):
    """Judges. Never raises for a metric source in trouble: that is the answer ``unavailable``."""

    async def look(self, subject: Subject, now: datetime) -> tuple[MetricAnswer, ...]:
        """Return one answer for each metric of the spec, in its order."""
        ...

    async def arrivals(
        self, key: NamespacedName, analysis: Analysis, arm: Arm, since: datetime, now: datetime
    ) -> Arrivals:
        """Return what reached a revision since a time, or that it cannot be seen."""
        ...

    def forget(self, key: NamespacedName) -> None:
        """Drop what is remembered of a ModelDeployment that is gone or settled."""
        ...
