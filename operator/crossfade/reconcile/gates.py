"""Questions to gates, asked beside the loop.

A decision asks, goes on, and finds the answers in a later look. They count for a short time only,
and are about one weight of one version.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from crossfade.api.v1alpha1 import (
    GateStatus,
    ModelDeploymentSpec,
    ModelDeploymentStatus,
    RevisionStatus,
)
from crossfade.api.webhooks import Gate
from crossfade.core.observation import GateAnswers
from crossfade.errors import WebhookError
from crossfade.logs import about
from crossfade.names import NamespacedName
from crossfade.reconcile.looks import Wake
from crossfade.webhooks.answers import failed, read_answer
from crossfade.webhooks.client import NotAllowedError
from crossfade.webhooks.events import Origin, Question, render_question
from crossfade.webhooks.sender import Sender
from crossfade.workload.render import Owner

BELIEVED: Final = timedelta(seconds=30)
"""How long an answer counts: at least as long as the slowest gate beside it may take, since all
must have said yes at one time."""

ASK_AGAIN: Final = timedelta(seconds=10)
"""How soon a gate is asked again that did not say yes."""

TRY_AGAIN: Final = timedelta(seconds=1)
"""How soon a question is repeated that failed, within ``timeoutSeconds``."""

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Asked:
    """One gate, and what is known of it."""

    gate: Gate
    began_at: datetime | None = None
    """Since when an answer is tried to get; None: it is there, or nobody asked."""
    tried_at: datetime | None = None
    said: GateStatus | None = None
    said_at: datetime | None = None
    task: asyncio.Task[None] | None = None


@dataclass(slots=True)
class _Round:
    """What is known of one ModelDeployment: the answers about one weight of one version."""

    question: Question
    gates: tuple[Gate, ...]
    asked: list[_Asked]

    @property
    def about(self) -> tuple[str, int]:
        return self.question.canary.revision, self.question.next_weight

    @property
    def believed(self) -> timedelta:
        slowest = max(gate.timeout_seconds for gate in self.gates)
        return max(BELIEVED, timedelta(seconds=slowest))


class Gates:
    """Asks gates in the background and keeps what they said last."""

    def __init__(
        self,
        sender: Sender,
        wake: Wake,
        clock: Callable[[], datetime],
        on_answer: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Ask by a sender; ``on_answer`` is told each answer: allowed, refused or failed."""
        self._sender = sender
        self._wake = wake
        self._clock = clock
        self._on_answer = on_answer
        self._rounds: dict[NamespacedName, _Round] = {}

    def ask(self, question: Question, gates: tuple[Gate, ...]) -> None:
        """Ask gates, of which there is one at least, unless they are being asked or said enough."""
        key = question.origin.key
        round_ = self._rounds.get(key)
        wanted = question.canary.revision, question.next_weight
        if round_ is None or (round_.about, round_.gates) != (wanted, gates):
            self.forget(key)
            round_ = self._rounds[key] = _Round(question, gates, [_Asked(gate) for gate in gates])
        round_.question = question
        now = self._clock()
        for asked in round_.asked:
            if _is_due(asked, round_.believed, now):
                asked.tried_at = now
                asked.task = asyncio.create_task(self._try(round_, asked, now))

    def known(self, key: NamespacedName) -> GateAnswers | None:
        """Return what was said that still counts; None when nobody was asked."""
        round_ = self._rounds.get(key)
        if round_ is None:
            return None
        now, (revision, weight) = self._clock(), round_.about
        said = tuple(
            asked.said
            for asked in round_.asked
            if asked.said is not None
            and asked.said_at is not None
            and now - asked.said_at < round_.believed
        )
        return GateAnswers(revision, weight, said)

    def forget(self, key: NamespacedName) -> None:
        """Drop what was asked for a ModelDeployment that is gone, or has no canary any more."""
        round_ = self._rounds.pop(key, None)
        for asked in round_.asked if round_ is not None else ():
            if asked.task is not None:
                asked.task.cancel()

    async def _try(self, round_: _Round, asked: _Asked, now: datetime) -> None:
        """Ask once; a failure counts when there is no time for another try."""
        allowed = timedelta(seconds=asked.gate.timeout_seconds)
        began = asked.began_at = asked.began_at or now
        said, is_final = await self._answer(
            round_.question, asked.gate, began, allowed - (now - began)
        )
        now = self._clock()
        if said.answer == "failed" and not is_final and now + TRY_AGAIN < began + allowed:
            return
        key = round_.question.origin.key
        before, asked.said, asked.said_at, asked.began_at = asked.said, said, now, None
        self._on_answer(said.answer)
        if before is None or before.answer != said.answer:
            words = about(key, gate=said.name, answer=said.answer, said=said.message)
            _log.info("gate", extra=words)
        self._wake(key, urgent=False)

    async def _answer(
        self, question: Question, gate: Gate, began: datetime, left: timedelta
    ) -> tuple[GateStatus, bool]:
        """Return what a gate says, and whether another try could change nothing."""
        namespace, event = question.origin.key.namespace, render_question(question, began)
        try:
            answer = await self._sender.event(
                namespace, gate.webhook, event, left.total_seconds(), reads=True
            )
        except NotAllowedError as e:
            return failed(gate.name, str(e)), True
        except WebhookError as e:
            return failed(gate.name, str(e)), False
        except Exception:  # noqa: BLE001 - a question that never ends would hold for ever
            _log.exception("a gate could not be asked", extra=about(question.origin.key))
            words = "it could not be asked; the operator's log says why"
            return failed(gate.name, words), False
        return read_answer(gate.name, answer), False


def question_of(
    owner: Owner,
    spec: ModelDeploymentSpec,
    status: ModelDeploymentStatus,
    canary: RevisionStatus,
    weight: int,
) -> Question:
    """Return the question whether a canary may get a weight."""
    key = NamespacedName(owner.namespace, owner.name)
    return Question(
        origin=Origin(key, owner.uid, spec.model.name),
        phase=status.phase,
        stable=status.stable,
        canary=canary,
        weight=status.weight,
        next_weight=weight,
        step=status.step,
    )


def _is_due(asked: _Asked, believed: timedelta, now: datetime) -> bool:
    """Tell whether a gate is to be asked now; ends a try for an answer that nobody waits for."""
    if asked.task is not None and not asked.task.done():
        return False
    if asked.began_at is not None and asked.tried_at is not None:
        if now - asked.began_at < timedelta(seconds=asked.gate.timeout_seconds):
            return now - asked.tried_at >= TRY_AGAIN
        asked.began_at = None
        return True
    if asked.said is None or asked.said_at is None:
        return True
    pause = believed if asked.said.answer == "allowed" else ASK_AGAIN
    return now - asked.said_at >= pause
