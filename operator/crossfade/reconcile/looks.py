"""Looks at metrics, taken beside the reconcile loop.

A metric source that hangs must not keep a rollback from happening. So a look is a task of its
own: reconciling asks for it, goes on, and is woken when it has come back.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from crossfade.api.v1alpha1 import Analysis
from crossfade.core.observation import Arrivals
from crossfade.evidence.verdicts import MetricAnswer, Verdict
from crossfade.metrics.analyst import Analyst, Arm, Subject
from crossfade.names import NamespacedName

Answers = tuple[MetricAnswer, ...]

_log = logging.getLogger(__name__)


def unwatched(_: NamespacedName) -> AbstractContextManager[None]:
    """Look without anybody to tell of it."""
    return nullcontext()


class Wake(Protocol):
    """Has a ModelDeployment reconciled soon."""

    def __call__(self, key: NamespacedName, *, urgent: bool) -> None:
        """Take a ModelDeployment into the queue; before all others if it is urgent."""
        ...


@dataclass(slots=True)
class _Looks:
    """What is known of one ModelDeployment."""

    task: asyncio.Task[None] | None = None
    began_at: datetime | None = None
    subject: Subject | None = None
    answers: Answers | None = None
    unused: bool = False
    """``answers`` have not been decided upon."""
    arrivals: dict[tuple[str, datetime], Arrivals] = field(default_factory=dict)
    arrivals_task: asyncio.Task[None] | None = None


class Looks:
    """Takes looks in the background and keeps the newest answers of each ModelDeployment."""

    def __init__(
        self,
        analyst: Analyst,
        wake: Wake,
        clock: Callable[[], datetime],
        watched: Callable[[NamespacedName], AbstractContextManager[None]] = unwatched,
    ) -> None:
        """Take looks by an analyst, each inside of a block of ``watched``."""
        self._watched = watched
        self._analyst = analyst
        self._wake = wake
        self._clock = clock
        self._looks: dict[NamespacedName, _Looks] = {}

    def began_at(self, key: NamespacedName) -> datetime | None:
        """Return when the newest look began; None when this process took none."""
        return self._of(key).began_at

    def ask(self, subject: Subject) -> None:
        """Take a look, unless one is under way."""
        looks = self._of(subject.key)
        if looks.task is not None and not looks.task.done():
            return
        looks.began_at = self._clock()
        looks.task = asyncio.create_task(self._look(subject, looks, looks.began_at))
        looks.task.add_done_callback(_log_failure)

    async def _look(self, subject: Subject, looks: _Looks, now: datetime) -> None:
        with self._watched(subject.key):
            looks.answers = await self._analyst.look(subject, now)
        looks.subject = subject
        looks.unused = True
        harm = any(a.verdict is Verdict.HARM for a in looks.answers)
        self._wake(subject.key, urgent=harm)

    def known(self, subject: Subject) -> Answers | None:
        """Return the newest answers about this canary; None when there are none."""
        looks = self._of(subject.key)
        if looks.subject is None or looks.subject.canary != subject.canary:
            return None
        return looks.answers

    def fresh(self, subject: Subject) -> Answers | None:
        """Return answers that nobody decided upon yet.

        Answers from before the present weight was in force count only when they are of harm.
        """
        answers = self.known(subject)
        if answers is None or not self._of(subject.key).unused:
            return None
        harm = any(a.verdict is Verdict.HARM for a in answers)
        return answers if harm else self.current(subject)

    def current(self, subject: Subject) -> Answers | None:
        """Return the newest answers if they are about the present weight."""
        looked_at = self._of(subject.key).subject
        answers = self.known(subject)
        same_weight = looked_at is not None and looked_at.in_force_at == subject.in_force_at
        return answers if same_weight else None

    def use(self, key: NamespacedName) -> None:
        """Note that the newest answers have been decided upon, and that it was carried out."""
        self._of(key).unused = False

    def arrivals(
        self, key: NamespacedName, analysis: Analysis, arm: Arm, since: datetime
    ) -> Arrivals | None:
        """Return what is known of a leaving version's requests, and ask anew."""
        looks = self._of(key)
        if looks.arrivals_task is None or looks.arrivals_task.done():
            looks.arrivals_task = asyncio.create_task(self._ask_arrivals(key, analysis, arm, since))
            looks.arrivals_task.add_done_callback(_log_failure)
        return looks.arrivals.get((arm.revision, since))

    async def _ask_arrivals(
        self, key: NamespacedName, analysis: Analysis, arm: Arm, since: datetime
    ) -> None:
        answer = await self._analyst.arrivals(key, analysis, arm, since, self._clock())
        looks = self._of(key)
        known = looks.arrivals.get((arm.revision, since))
        looks.arrivals = {(arm.revision, since): answer}
        if answer != known:
            self._wake(key, urgent=False)

    def forget(self, key: NamespacedName) -> None:
        """Drop everything about a ModelDeployment that is gone or settled."""
        looks = self._looks.pop(key, None)
        if looks is None:
            return
        for task in (looks.task, looks.arrivals_task):
            if task is not None:
                task.cancel()
        self._analyst.forget(key)

    def _of(self, key: NamespacedName) -> _Looks:
        return self._looks.setdefault(key, _Looks())


def _log_failure(task: asyncio.Task[None]) -> None:
    """An analyst never raises for a source in trouble, so what it raises is a bug: say so."""
    if not task.cancelled() and task.exception() is not None:
        _log.error("a look failed", exc_info=task.exception())
