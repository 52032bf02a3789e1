"""Who is to be told of what: the outbox in the status.

A notice is written with the transition that it tells of, so none is lost and none tells of what did
not happen. The shell (``reconcile/notices.py``) sends what is written, and says who took it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from itertools import chain, count
from typing import Final

from crossfade.api.v1alpha1 import Notice
from crossfade.api.webhooks import Occasion
from crossfade.core.actions import Announcement
from crossfade.core.phases import WITH_CANARY
from crossfade.core.turn import Turn

OCCASIONS: Final[Mapping[str, Occasion]] = {
    "RolloutStarted": "started",
    "Paused": "held",
    "MetricsUnavailable": "held",
    "CanaryNotReady": "held",
    "FallbackDrillFailed": "held",
    "GateClosed": "held",
    "Promoted": "promoted",
    "RollingBack": "rolledBack",
    "DeadlineExceeded": "deadline",
}
"""Which kind of news an Event's reason is; all others are no news for receivers."""

MOST_NOTICES: Final = 20
"""So many wait; of more, the oldest goes."""

LONGEST_MESSAGE: Final = 1024
"""Of a notice, in characters, as of an Event."""


def keep_notices(turn: Turn) -> None:
    """Cross out who was told, and write down who is to be told of this turn."""
    waiting = _left_of(turn)
    news = _news_of(turn, {notice.id for notice in waiting})
    notices = [*waiting, *news]
    for lost in notices[:-MOST_NOTICES]:
        _regret(turn, lost.receivers, lost, f"{MOST_NOTICES} newer notices wait")
    turn.set(notices=notices[-MOST_NOTICES:])
    if news:
        turn.look_in(0)
    if turn.seen.tell_again_at is not None:
        turn.look_at(turn.seen.tell_again_at)


def _left_of(turn: Turn) -> list[Notice]:
    """Return what is still to be told, to whom the spec still names."""
    named = {receiver.name for receiver in turn.spec.notifications or ()}
    told = {(it.notice, it.receiver): it for it in turn.seen.told}
    left = []
    for notice in turn.status.notices:
        missing = []
        for name in notice.receivers:
            done = told.get((notice.id, name))
            if done is None and name in named:
                missing.append(name)
            elif done is not None and done.failure:
                _regret(turn, [name], notice, done.failure)
        if missing:
            left.append(notice.model_copy(update={"receivers": missing}))
    return left


def _regret(turn: Turn, receivers: list[str], notice: Notice, why: str) -> None:
    words = f"{', '.join(receivers)} will not be told of {notice.reason}: {why}"
    turn.announce("Warning", "NotificationFailed", words)


def _news_of(turn: Turn, taken: set[str]) -> list[Notice]:
    """Return this turn's news, whose ids are none of those that are taken."""
    found = []
    for announced in turn.announcements:
        occasion = OCCASIONS.get(announced.reason)
        if occasion is None or (occasion == "held" and turn.status.phase not in WITH_CANARY):
            continue
        receivers = [
            receiver.name
            for receiver in turn.spec.notifications or ()
            if receiver.events is None or occasion in receiver.events
        ]
        if receivers:
            notice = _notice(turn, announced, occasion, receivers, taken)
            taken.add(notice.id)
            found.append(notice)
    return found


def _id_of(turn: Turn, reason: str, taken: Collection[str]) -> str:
    """Two gates may close in one turn; and a turn that is repeated gives the same ids."""
    first = f"{turn.seen.uid}-{int(turn.now.timestamp() * 1000)}-{reason}"
    others = (f"{first}-{n}" for n in count(2))
    return next(it for it in chain((first,), others) if it not in taken)


def _notice(
    turn: Turn,
    announced: Announcement,
    occasion: Occasion,
    receivers: list[str],
    taken: Collection[str],
) -> Notice:
    status = turn.status
    return Notice(
        id=_id_of(turn, announced.reason, taken),
        occasion=occasion,
        reason=announced.reason,
        message=announced.message[:LONGEST_MESSAGE],
        at=turn.now,
        phase=status.phase,
        stable=status.stable,
        canary=status.canary,
        weight=status.weight,
        receivers=receivers,
    )
