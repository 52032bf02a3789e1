"""Notices on their way to receivers, beside the loop.

What is to be told is in the status, and each turn hands it over; who took it is seen by a later
turn, which crosses it out. So after a restart everything that is still there is sent again, with
the same id. Each receiver gets its notices in order, and one that does not answer holds no other.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Final

from crossfade.api.v1alpha1 import Notice
from crossfade.api.webhooks import Notification
from crossfade.core.observation import Told
from crossfade.errors import WebhookError
from crossfade.logs import about
from crossfade.names import NamespacedName
from crossfade.reconcile.looks import Wake
from crossfade.telemetry import FAILED, GIVEN_UP, TAKEN
from crossfade.webhooks.client import Answer, NotAllowedError
from crossfade.webhooks.events import Origin, render_notice, slack_text
from crossfade.webhooks.sender import Sender

ANSWER_SECONDS: Final = 10.0
"""How long a receiver may take."""

FIRST_PAUSE: Final = timedelta(seconds=1)
LONGEST_PAUSE: Final = timedelta(minutes=5)
"""Between two tries; each is twice the one before."""

GIVEN_UP_AFTER: Final = timedelta(hours=1)
"""Old news tells a receiver little, and newer notices wait for it."""

_TRY_AGAIN: Final = (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS)

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Line:
    """One receiver of one ModelDeployment."""

    notice: str = ""
    """Which notice is its turn."""
    tries: int = 0
    next_try: datetime | None = None
    task: asyncio.Task[None] | None = None


@dataclass(slots=True)
class _Outbox:
    """What is known of one ModelDeployment."""

    lines: dict[str, _Line] = field(default_factory=dict)
    done: dict[tuple[str, str], Told] = field(default_factory=dict)
    """By notice and receiver."""


class Notices:
    """Sends notices in the background and remembers who is done with which."""

    def __init__(
        self,
        sender: Sender,
        wake: Wake,
        clock: Callable[[], datetime],
        on_try: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Send by a sender; ``on_try`` is told how each try ended (telemetry.TRIES)."""
        self._sender = sender
        self._wake = wake
        self._clock = clock
        self._on_try = on_try
        self._outboxes: dict[NamespacedName, _Outbox] = {}

    def send(
        self, origin: Origin, receivers: Sequence[Notification], notices: Sequence[Notice]
    ) -> tuple[tuple[Told, ...], datetime | None]:
        """Send what is due; return what is done, and when the next try of any receiver is due.

        Args:
            origin: whose notices they are.
            receivers: those of the spec.
            notices: those that are written in the status, the oldest first.
        """
        if not notices:
            self.forget(origin.key)
            return (), None
        outbox = self._outboxes.setdefault(origin.key, _Outbox())
        written = {(notice.id, name) for notice in notices for name in notice.receivers}
        outbox.done = {it: told for it, told in outbox.done.items() if it in written}
        later = [self._send_to(origin, receiver, notices, outbox) for receiver in receivers]
        return tuple(outbox.done.values()), min((it for it in later if it), default=None)

    def forget(self, key: NamespacedName) -> None:
        """Drop a ModelDeployment that is gone, or of which nobody is to be told."""
        outbox = self._outboxes.pop(key, None)
        for line in outbox.lines.values() if outbox is not None else ():
            if line.task is not None:
                line.task.cancel()

    def _send_to(
        self, origin: Origin, receiver: Notification, notices: Sequence[Notice], outbox: _Outbox
    ) -> datetime | None:
        """Tell one receiver of its first notice; return when that is due, None: now, or never."""
        line = outbox.lines.setdefault(receiver.name, _Line())
        if line.task is not None and not line.task.done():
            return None
        first = next((n for n in notices if _waits(n, receiver.name, outbox)), None)
        if first is None:
            return None
        if line.notice != first.id:
            line.notice, line.tries, line.next_try = first.id, 0, None
        if line.next_try is not None and self._clock() < line.next_try:
            return line.next_try
        line.task = asyncio.create_task(self._try(origin, receiver, first, outbox, line))
        return None

    async def _try(
        self,
        origin: Origin,
        receiver: Notification,
        notice: Notice,
        outbox: _Outbox,
        line: _Line,
    ) -> None:
        result, why, pause = TAKEN, "", timedelta(0)
        try:
            answer = await self._post(origin, receiver, notice)
        except NotAllowedError as e:
            result, why = GIVEN_UP, str(e)
        except WebhookError as e:
            result, why = FAILED, str(e)
        except Exception:  # noqa: BLE001 - what never ends would hold all later notices
            _log.exception("a notice could not be sent", extra=about(origin.key))
            result, why = FAILED, "it could not be sent; the operator's log says why"
        else:
            result, why = _result_of(answer)
            pause = _asked_pause(answer.retry_after, self._clock())
        now = self._clock()
        if result == FAILED and now - notice.at >= GIVEN_UP_AFTER:
            result = GIVEN_UP
        if result == FAILED:
            growing = min(FIRST_PAUSE * 2 ** min(line.tries, 16), LONGEST_PAUSE)
            line.tries, line.next_try = line.tries + 1, now + max(growing, pause)
        else:
            told = Told(notice.id, receiver.name, why)
            outbox.done[notice.id, receiver.name] = told
        self._say(origin.key, receiver, notice, result, why)
        self._wake(origin.key, urgent=False)

    async def _post(self, origin: Origin, receiver: Notification, notice: Notice) -> Answer:
        namespace = origin.key.namespace
        if receiver.slack is not None:
            text = slack_text(origin, notice)
            return await self._sender.text(namespace, receiver.slack, text, ANSWER_SECONDS)
        if receiver.webhook is None:
            raise WebhookError("it has neither webhook nor slack")
        event = render_notice(origin, notice)
        return await self._sender.event(namespace, receiver.webhook, event, ANSWER_SECONDS)

    def _say(
        self, key: NamespacedName, receiver: Notification, notice: Notice, result: str, why: str
    ) -> None:
        self._on_try(result)
        words = about(key, receiver=receiver.name, notice=notice.id, result=result)
        if result == TAKEN:
            _log.info("notice", extra=words)
        else:
            _log.warning("notice", extra={"fields": {**words["fields"], "why": why}})


def _waits(notice: Notice, receiver: str, outbox: _Outbox) -> bool:
    return receiver in notice.receivers and (notice.id, receiver) not in outbox.done


def _result_of(answer: Answer) -> tuple[str, str]:
    """Return how a try ended, and why not well."""
    status = answer.status
    if HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
        return TAKEN, ""
    client_error = HTTPStatus.BAD_REQUEST <= status < HTTPStatus.INTERNAL_SERVER_ERROR
    result = GIVEN_UP if client_error and status not in _TRY_AGAIN else FAILED
    return result, f"it answered {status}"


def _asked_pause(retry_after: str, now: datetime) -> timedelta:
    """Read the header, seconds or a date (RFC 9110, 10.2.3); what is neither asks for nothing."""
    if retry_after.isascii() and retry_after.isdigit():
        return min(timedelta(seconds=int(retry_after[:9])), LONGEST_PAUSE)
    try:
        pause = parsedate_to_datetime(retry_after) - now
    except (TypeError, ValueError):
        return timedelta(0)
    return min(max(pause, timedelta(0)), LONGEST_PAUSE)
