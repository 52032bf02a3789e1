"""What came out of a backtest: the looks, and what the operator would have made of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from crossfade.evidence.verdicts import MetricAnswer, Verdict
from crossfade.metrics.analyst import Subject


@dataclass(frozen=True, slots=True)
class Look:
    """What was said at one instant."""

    at: datetime
    answers: tuple[MetricAnswer, ...]
    """One for each metric of the spec, in its order."""


@dataclass(frozen=True, slots=True)
class Backtest:
    """All looks of a range, from the oldest on; there is at least one."""

    subject: Subject
    end: datetime
    min_time: timedelta
    """What the steps take at least, pauses apart."""
    looks: tuple[Look, ...]

    @property
    def names(self) -> list[str]:
        """The metrics' names."""
        return [metric.name for metric in self.subject.analysis.metrics]

    def of(self, name: str) -> Iterator[tuple[datetime, MetricAnswer]]:
        """Yield what was said of one metric."""
        index = self.names.index(name)
        for look in self.looks:
            yield look.at, look.answers[index]

    def fired_at(self, name: str) -> datetime | None:
        """Return when a metric first showed harm; None: never."""
        return next((at for at, a in self.of(name) if a.verdict is Verdict.HARM), None)

    def changes(self, name: str) -> list[tuple[datetime, MetricAnswer]]:
        """Return the first answer on a metric, and each that differs from the one before.

        It ends with harm: by then the operator would have taken the version back. Numbers that
        change are no difference, an alert that comes or goes is one.
        """
        changes: list[tuple[datetime, MetricAnswer]] = []
        for at, answer in self.of(name):
            known = changes[-1][1] if changes else None
            if known is None or _kind(known) != _kind(answer):
                changes.append((at, answer))
            if answer.verdict is Verdict.HARM:
                break
        return changes

    @property
    def fired(self) -> tuple[datetime, list[str]] | None:
        """When harm was first shown, and by which metrics; None: never."""
        for look in self.looks:
            names = [a.name for a in look.answers if a.verdict is Verdict.HARM]
            if names:
                return look.at, names
        return None

    @property
    def ready_at(self) -> datetime | None:
        """When all metrics were healthy, with the requests and the time of all steps; None: never.

        Before any harm, that is: after it there is no canary any more.
        """
        for look in self.looks:
            verdicts = {answer.verdict for answer in look.answers}
            if Verdict.HARM in verdicts:
                return None
            if verdicts == {Verdict.HEALTHY} and look.at - self.subject.since >= self.min_time:
                return look.at
        return None


def _kind(answer: MetricAnswer) -> tuple[Verdict, bool]:
    return answer.verdict, bool(answer.alert)
