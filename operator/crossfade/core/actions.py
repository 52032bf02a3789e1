"""What a decision asks of the shell: idempotent, in order; the first that fails stops the rest."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal

from typing_extensions import override

Manifest = dict[str, Any]
"""A Kubernetes object as its API takes it."""


@dataclass(frozen=True, slots=True)
class Split:
    """How the traffic of one ModelDeployment is divided: canary gets ``weight`` percent.

    Revisions are hashes. ``canary`` is None exactly when ``weight`` is 0 and there is none.
    """

    stable: str
    canary: str | None = None
    weight: int = 0

    @property
    def weights(self) -> dict[str, int]:
        """The percent of each revision that is named, also one at 0."""
        if self.canary is None:
            return {self.stable: 100}
        return {self.stable: 100 - self.weight, self.canary: self.weight}


class Role(StrEnum):
    """What a revision is for; the value of the role label of its Deployment."""

    STABLE = "stable"
    CANARY = "canary"
    PREVIOUS = "previous"


@dataclass(frozen=True, slots=True)
class EnsureWorkload:
    """Create the revision of the current spec: its Deployment, its Service, its autoscaler."""

    revision: str
    role: Role
    replicas: int
    """Pods to ask for; with an autoscaler, its minimum."""


@dataclass(frozen=True, slots=True)
class Scale:
    """Ask for another number of pods of a revision; with an autoscaler, another minimum."""

    revision: str
    replicas: int


@dataclass(frozen=True, slots=True)
class LabelRole:
    """Rename the role of a revision's Deployment. Restarts no pod."""

    revision: str
    role: Role


@dataclass(frozen=True, slots=True)
class SetWeights:
    """Write the route."""

    split: Split


@dataclass(frozen=True, slots=True)
class PointAddress:
    """Let the Service named like the ModelDeployment select the pods of a revision."""

    revision: str


@dataclass(frozen=True, slots=True)
class DeleteRevision:
    """Delete the children of a revision that was seen to receive nothing."""

    revision: str


@dataclass(frozen=True, slots=True)
class RestoreRoute:
    """Put a joined route back as it was."""


@dataclass(frozen=True, slots=True)
class SetFinalizer:
    """Hold, or let go of, the ModelDeployment's deletion."""

    present: bool


@dataclass(frozen=True, slots=True)
class RemoveCommand:
    """Remove the annotation of a command that is done."""


@dataclass(frozen=True, slots=True)
class AskGates:
    """Ask the gates of a weight, beside the loop. Writes nothing."""

    weight: int
    """What the canary would get, in percent."""


Action = (
    EnsureWorkload
    | Scale
    | LabelRole
    | SetWeights
    | PointAddress
    | DeleteRevision
    | RestoreRoute
    | SetFinalizer
    | RemoveCommand
    | AskGates
)


@dataclass(frozen=True, slots=True)
class Announcement:
    """A Kubernetes Event to post, once per transition."""

    type: Literal["Normal", "Warning"]
    reason: str
    message: str


# ── writes: how routers and workloads say what is to be sent to the API server ────────────────


@dataclass(frozen=True, slots=True)
class Apply:
    """Server-side apply with Crossfade's field manager."""

    manifest: Manifest
    force: bool = True
    """Take fields over that others changed. Only for what is known to be ours: an object of the
    same name that belongs to somebody else must be left alone."""


@dataclass(frozen=True, slots=True)
class Replace:
    """PUT of an object that is not ours, guarded by the resourceVersion it was read at.

    A conflict means that somebody wrote in between: look again.
    """

    manifest: Manifest


@dataclass(frozen=True, slots=True)
class MergePatch:
    """A JSON merge patch of a few fields of an object of ours.

    ``apiVersion``, ``kind`` and ``metadata`` say which.
    """

    manifest: Manifest


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete an object (background propagation); gone already is fine."""

    ref: ObjectRef


Write = Apply | Replace | MergePatch | Delete


@dataclass(frozen=True, slots=True, order=True)
class ObjectRef:
    """Which object: its API version, kind, namespace and name."""

    api_version: str
    kind: str
    namespace: str
    name: str

    @override
    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}"
