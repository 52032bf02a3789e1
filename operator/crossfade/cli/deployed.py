"""A ModelDeployment and its Events as commands read them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from crossfade.api.parse import parse_spec, parse_status
from crossfade.api.v1alpha1 import (
    DEFAULT_STEPS,
    ModelDeploymentSpec,
    ModelDeploymentStatus,
    Step,
)
from crossfade.cli.exits import FailedError
from crossfade.cli.kubectl import Body
from crossfade.cli.revisions import read_revisions
from crossfade.core.commands import Order, why_not
from crossfade.core.records import Record
from crossfade.core.undo import undone
from crossfade.errors import InvalidSpecError
from crossfade.names import ANNOTATION_COMMAND, NamespacedName
from crossfade.workload.revision import revision_of


@dataclass(frozen=True, slots=True)
class Deployed:
    """What the API server has of one ModelDeployment."""

    body: Body
    key: NamespacedName
    spec: ModelDeploymentSpec | None
    """None: this program cannot read it; then ``problem`` says why."""
    status: ModelDeploymentStatus
    revision: str
    """The hash of what the spec asks for; "" when the spec cannot be read."""
    problem: str = ""
    revisions: tuple[Record, ...] = ()
    """What is kept of its revisions, the oldest first, where it was asked for."""

    @property
    def argument(self) -> str:
        """How it is named on the command line, in words that can be copied."""
        return f"{self.key.name} -n {self.key.namespace}"

    @property
    def generation(self) -> int:
        """The generation of the spec."""
        return int(self.body["metadata"].get("generation", 0))

    @property
    def is_current(self) -> bool:
        """The operator has seen this spec."""
        return self.status.observed_generation >= self.generation

    @property
    def command(self) -> str:
        """The order that stands there and is not carried out yet; "" for none."""
        annotations = self.body["metadata"].get("annotations") or {}
        return str(annotations.get(ANNOTATION_COMMAND, ""))

    @property
    def steps(self) -> tuple[Step, ...]:
        """The ladder."""
        given = self.spec.rollout.steps if self.spec is not None else None
        return tuple(given or DEFAULT_STEPS)

    @property
    def is_promoted(self) -> bool:
        """The version that the spec asks for is the stable one, and nobody ordered another."""
        stable = self.status.stable
        serves = stable is not None and stable.revision == self.revision
        return self.is_current and serves and undone(self.status, self.revision) is None

    def why_not(self, order: Order, number: int | None = None) -> str | None:
        """Say why an order cannot be carried out now; None when it can.

        Args:
            order: what would be ordered.
            number: the revision that undo would go back to; None for the one before.
        """
        if self.spec is None:
            return (
                f"the spec cannot be read, so nothing is done until it is corrected: {self.problem}"
            )
        return why_not(order, self.spec, self.status, self.revision, self.revisions, number)


def read(body: Body, revisions: Iterable[Body] = ()) -> Deployed:
    """Read what kubectl gave of it and, where it matters, of its revisions.

    Raises:
        FailedError: the status cannot be read, such as one of a newer operator.
    """
    meta = body["metadata"]
    key = NamespacedName(meta["namespace"], meta["name"])
    try:
        status = parse_status(body)
    except InvalidSpecError as e:
        raise FailedError(f"{key}: {e}; use the crossfade of the operator's version") from e
    records = read_revisions(revisions)
    try:
        spec = parse_spec(body)
    except InvalidSpecError as e:
        return Deployed(body, key, None, status, "", str(e), records)
    return Deployed(body, key, spec, status, revision_of(spec), revisions=records)


@dataclass(frozen=True, slots=True, order=True)
class Event:
    """One Event."""

    at: datetime
    reason: str
    message: str
    is_warning: bool

    def as_json(self) -> dict[str, Any]:
        """Return it as ``-o json`` shows it."""
        return {
            "at": self.at.isoformat().replace("+00:00", "Z"),
            "type": "Warning" if self.is_warning else "Normal",
            "reason": self.reason,
            "message": self.message,
        }


def read_events(bodies: Iterable[Body]) -> list[Event]:
    """Read Events, the oldest first; those without a time are left out."""
    events = []
    for body in bodies:
        at = body.get("eventTime") or body.get("lastTimestamp") or body.get("firstTimestamp")
        if not at:
            continue
        events.append(
            Event(
                datetime.fromisoformat(at).astimezone(UTC),
                str(body.get("reason", "")),
                " ".join(str(body.get("message", "")).split()),
                body.get("type") == "Warning",
            )
        )
    return sorted(events)
