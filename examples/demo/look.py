"""One look at the demo: what the ModelDeployment says, what the users got, what happened.

Reads only, and judges nothing.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from examples.demo.kubectl import Kubectl, KubectlError, Manifest
from examples.demo.stage import NAME, NAMESPACE
from examples.demo.tally import Report, VersionReport

RESOURCE: Final = f"/apis/crossfade.dev/v1alpha1/namespaces/{NAMESPACE}/modeldeployments/{NAME}"
EVENTS: Final = (
    f"/api/v1/namespaces/{NAMESPACE}/events?fieldSelector="
    f"involvedObject.kind=ModelDeployment,involvedObject.name={NAME}"
)
STATS: Final = f"/api/v1/namespaces/{NAMESPACE}/services/app:http/proxy/stats"


@dataclass(frozen=True, slots=True)
class Happening:
    """A Kubernetes Event of the ModelDeployment."""

    uid: str
    at: float
    """Seconds since the epoch."""
    is_warning: bool
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Rejection:
    """A version that the operator took back, and why."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All that one look saw."""

    at: float
    phase: str = ""
    stable: str = ""
    """The version that serves; "" for none."""
    canary: str = ""
    """The version that is rolled out or taken back; "" for none."""
    weight: int = 0
    """The canary's percent."""
    step: str = ""
    verdict: str = ""
    message: str = ""
    is_current: bool = False
    """The operator has seen the newest spec."""
    rejected: Mapping[str, Rejection] = field(default_factory=dict)
    happenings: tuple[Happening, ...] = ()
    """In the order of time."""
    users: Report | None = None
    """None while there is no application."""

    def version(self, name: str) -> VersionReport | None:
        """Return what users got from a version; None if nothing yet."""
        return self.users["versions"].get(name) if self.users else None

    @property
    def lost(self) -> int:
        """How many requests were lost so far."""
        return sum(self.users["lost"].values()) if self.users else 0


class Looker:
    """Takes looks, and remembers what it last saw of the application."""

    def __init__(self, kubectl: Kubectl) -> None:
        self._kubectl = kubectl
        self._users: Report | None = None

    def look(self) -> Snapshot:
        """Take a look.

        Raises:
            KubectlError: The API server does not answer.
        """
        body = self._kubectl.read(RESOURCE)
        events = self._kubectl.read(EVENTS)["items"]
        # It may not be there yet, and one answer that is missed is no reason to stop.
        with suppress(KubectlError):
            self._users = self._kubectl.read(STATS)
        return parse_snapshot(body, events, self._users, time.time())


def parse_snapshot(
    body: Manifest, events: list[Manifest], users: Report | None, now: float
) -> Snapshot:
    """Make a snapshot of what the API server said."""
    status: dict[str, Any] = body.get("status") or {}
    generation = body["metadata"]["generation"]
    return Snapshot(
        at=now,
        phase=status.get("phase", ""),
        stable=_version(status, "stable"),
        canary=_version(status, "canary"),
        weight=status.get("weight", 0),
        step=status.get("step", ""),
        verdict=status.get("verdict", ""),
        message=status.get("message", ""),
        is_current=status.get("observedGeneration") == generation,
        rejected={
            it["version"]: Rejection(it["reason"], it["message"])
            for it in status.get("rejected") or ()
        },
        happenings=tuple(sorted(map(_happening, events), key=lambda it: it.at)),
        users=users,
    )


def _version(status: Mapping[str, Any], role: str) -> str:
    return str((status.get(role) or {}).get("version", ""))


def _happening(event: Manifest) -> Happening:
    # events.k8s.io writes eventTime, older recorders the other two.
    stamp = event.get("eventTime") or event.get("lastTimestamp") or event.get("firstTimestamp")
    return Happening(
        uid=event["metadata"]["uid"],
        at=datetime.fromisoformat(stamp).timestamp() if stamp else 0.0,
        is_warning=event.get("type") == "Warning",
        reason=event.get("reason", ""),
        message=event.get("message", ""),
    )
