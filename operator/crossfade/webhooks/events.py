"""What receivers and gates get: CloudEvents for programs, a line of text for people."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from crossfade.api.v1alpha1 import Notice, Phase, RevisionStatus
from crossfade.api.webhooks import Occasion
from crossfade.names import PLURAL, NamespacedName

Json = dict[str, Any]

MOST_TEXT: Final = 600
"""A message for people is cut to so many characters."""

_TITLES: Final[Mapping[Occasion, str]] = {
    "started": "rollout started",
    "held": "held",
    "promoted": "promoted",
    "rolledBack": "rolled back",
    "deadline": "late",
}


@dataclass(frozen=True, slots=True)
class Origin:
    """Whose news it is."""

    key: NamespacedName
    uid: str
    model: str


@dataclass(frozen=True, slots=True)
class Question:
    """May this canary get more?"""

    origin: Origin
    phase: Phase
    stable: RevisionStatus | None
    canary: RevisionStatus
    weight: int
    """What it has, in percent."""
    next_weight: int
    """What it would get."""
    step: str
    """Where it is on the ladder, such as "1/3"; "" before the first weight."""


def render_notice(origin: Origin, notice: Notice) -> Json:
    """Render a notice as a CloudEvent."""
    about = notice.canary or notice.stable
    return _event(
        origin,
        id_=notice.id,
        type_=f"dev.crossfade.rollout.{notice.occasion}",
        subject=about.version if about is not None else "",
        at=notice.at,
        data={
            "stable": _version(notice.stable),
            "canary": _version(notice.canary),
            "weightPercent": notice.weight,
            "phase": notice.phase.value,
            "reason": notice.reason,
            "message": notice.message,
        },
    )


def render_question(question: Question, at: datetime) -> Json:
    """Render a question to a gate as a CloudEvent; asked again at another time, it is another."""
    canary, weight = question.canary, question.next_weight
    milliseconds = int(at.timestamp() * 1000)
    return _event(
        question.origin,
        id_=f"{question.origin.uid}-{canary.revision}-{weight}-{milliseconds}",
        type_="dev.crossfade.gate",
        subject=canary.version,
        at=at,
        data={
            "stable": _version(question.stable),
            "canary": _version(canary),
            "weightPercent": question.weight,
            "nextWeightPercent": weight,
            "step": question.step,
            "phase": question.phase.value,
            "reason": "GateAsked",
            "message": f"may version {canary.version} get {weight} % of the traffic?",
        },
    )


def slack_text(origin: Origin, notice: Notice) -> str:
    """Say a notice to people, in Slack's mrkdwn."""
    message = " ".join(notice.message.split())
    if len(message) > MOST_TEXT:
        message = f"{message[: MOST_TEXT - 1]}…"
    return f"*{origin.key}* {_TITLES[notice.occasion]}: {_escaped(message)}"


def _event(origin: Origin, *, id_: str, type_: str, subject: str, at: datetime, data: Json) -> Json:
    key = origin.key
    event = {
        "specversion": "1.0",
        "id": id_,
        "source": f"/namespaces/{key.namespace}/{PLURAL}/{key.name}",
        "type": type_,
        "time": at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "datacontenttype": "application/json",
        "data": {
            "namespace": key.namespace,
            "name": key.name,
            "uid": origin.uid,
            "model": origin.model,
            **data,
        },
    }
    # An attribute that is there must not be empty.
    return {**event, "subject": subject} if subject else event


def _version(revision: RevisionStatus | None) -> Json | None:
    if revision is None:
        return None
    return {"version": revision.version, "revision": revision.revision}


def _escaped(text: str) -> str:
    """As https://docs.slack.dev/messaging/formatting-message-text says: these three, no more."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
