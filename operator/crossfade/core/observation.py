"""What a decision may know: everything that was seen in one look, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from crossfade.api.v1alpha1 import (
    GateStatus,
    ModelDeploymentSpec,
    ModelDeploymentStatus,
    RevisionStatus,
)
from crossfade.core.actions import Manifest, Role
from crossfade.core.records import Record
from crossfade.evidence.verdicts import MetricAnswer


@dataclass(frozen=True, slots=True)
class Workload:
    """The Deployment of one revision, as last seen."""

    revision: str
    version: str
    role: Role | None
    replicas: int
    """Pods asked for: spec.replicas, or an autoscaler's minimum."""
    ready: int
    """Pods that are ready and run the current template."""
    trouble: str = ""
    """Why pods are not ready, for people; empty when nothing is known to be wrong."""
    settled: bool = True
    """The Deployment's controller has seen its newest generation."""


@dataclass(frozen=True, slots=True)
class RouteState:
    """What the route object says, as last seen."""

    found: bool
    weights: Mapping[str, int] = field(default_factory=dict)
    """Percent of this ModelDeployment's traffic by revision; revisions at 0 may be left out."""
    current: bool = True
    """Everything but the weights is as it would be written now."""
    in_force: bool = False
    """The data plane says that it has taken over exactly this generation of the object."""
    settling: bool = False
    """The data plane said so only just now, and may still be about to follow."""
    problem: str = ""
    """Why it cannot be written or is not accepted, for people; names what to change."""
    writable: bool = True
    """False: it cannot be written as asked (not found, foreign, ambiguous); see ``problem``."""

    share: Mapping[str, int] | None = None
    """Percent that each revision really gets where that is coarser than ``weights`` (it follows the
    number of ready pods); None: the same as ``weights``."""

    @property
    def carried(self) -> dict[str, int]:
        """The weights without the revisions that get nothing."""
        return {revision: share for revision, share in self.weights.items() if share}

    def weight_of(self, revision: str | None) -> int:
        """Return a revision's percent; 0 when the route does not name it."""
        return self.weights.get(revision, 0) if revision is not None else 0


@dataclass(frozen=True, slots=True)
class Arrivals:
    """Requests that reached one revision, by its own counters."""

    last_request_seen_at: datetime | None
    """Time stamp of the newest sample that had increased; None when none did."""
    newest_sample_at: datetime | None
    """Time stamp of the newest sample; None when its counters cannot be seen."""


UNSEEN: Final = Arrivals(None, None)
"""Of a revision whose counters cannot be seen."""


@dataclass(frozen=True, slots=True)
class DrillResult:
    """What one target of a fallback did with the golden request."""

    target: str
    ok: bool
    message: str = ""
    """What it did instead, to be read after its name, such as "answered 503"."""


@dataclass(frozen=True, slots=True)
class Drill:
    """What the sidecars of a version say of it before it has traffic."""

    results: tuple[DrillResult, ...] = ()
    """Each target of the fallback, as the pod that fared worst; empty without a fallback."""
    problem: str = ""
    """Why the sidecars could not be asked, and what to do about it; then no result is good."""
    refused: tuple[str, ...] | None = None
    """What the version's contract finds wrong with stable's golden request, in sentences; None:
    it was not asked."""

    @property
    def failed(self) -> tuple[DrillResult, ...]:
        """The targets that would not answer."""
        return tuple(result for result in self.results if not result.ok)


@dataclass(frozen=True, slots=True)
class GateAnswers:
    """What gates said of one weight of one version."""

    revision: str
    weight: int
    """What it would get, in percent."""
    said: tuple[GateStatus, ...]
    """Of those that have answered not too long ago."""


@dataclass(frozen=True, slots=True)
class Told:
    """A receiver is done with a notice."""

    notice: str
    """Its id."""
    receiver: str
    failure: str = ""
    """Why it was given up; empty: the receiver took it."""


@dataclass(frozen=True, slots=True)
class Observation:
    """One look at one ModelDeployment."""

    name: str
    namespace: str
    generation: int
    spec: ModelDeploymentSpec | None
    """What is asked for, with the version that an undo rolls out in place of the spec's own. None
    when the spec cannot be read; then ``spec_problem`` says why."""
    status: ModelDeploymentStatus
    revision: str
    """The hash of what ``spec`` asks to be served; "" when the spec cannot be read."""
    workloads: Mapping[str, Workload]
    """Every revision that has a Deployment, by hash."""
    route: RouteState
    address: str | None
    """The revision that the Service named like the ModelDeployment selects; None: no Service,
    or it selects both."""
    spec_problem: str = ""
    asked: RevisionStatus | None = None
    """The version that the ModelDeployment itself asks for; another than ``revision`` while an undo
    is in force. None when the spec cannot be read."""
    undo_problem: str = ""
    """Why the version that an undo asks for cannot be rolled out, for people; then ``spec`` is the
    ModelDeployment's own."""
    history: Mapping[str, Record] = field(default_factory=dict)
    """What is recorded of each revision, by hash."""
    needed: Mapping[int, int] = field(default_factory=dict)
    """Canary pods that each weight of the ladder needs, by percent; 100 is the full capacity."""
    answers: tuple[MetricAnswer, ...] | None = None
    """The metrics of this look; None when none was due."""
    current_answers: tuple[MetricAnswer, ...] | None = None
    """The newest answers since the present weight is in force, also if they were decided upon."""
    known_answers: tuple[MetricAnswer, ...] | None = None
    """The answers of the newest look of this process; None when it took none yet."""
    narrowed: tuple[str, ...] | None = None
    """What the canary's contract refuses that stable's accepts, in sentences, by comparison of the
    two; None: the canary has no contract, or no Deployment yet."""
    drills: bool = False
    """The sidecars of the version that gets ready are asked about it before it gets traffic."""
    drill: Drill | None = None
    """What they said; None: nothing yet, or too long ago."""
    gate_answers: GateAnswers | None = None
    """What the gates said that were asked last; None: none were, or not about this rollout."""
    told: tuple[Told, ...] = ()
    """Which of the notices in the status are done, and for whom."""
    tell_again_at: datetime | None = None
    """When somebody who did not take a notice is to be told again; None: nobody waits."""
    leaving: Arrivals | None = None
    """What the revision that is drained still receives; None: nobody leaves, or it is asked for."""
    command: str = ""
    """The annotation's value; "" for none."""
    joins: bool = False
    """The route is somebody else's and must be put back on deletion."""
    original_backend: Manifest | None = None
    """The backend of a joined route as it was before we replaced it; None: not seen."""
    addressed: bool = True
    """There is a Service for callers in the cluster beside the route (no gateway: it *is* it)."""
    uid: str = ""
    """Of the ModelDeployment."""
    deleting: bool = False
    has_finalizer: bool = False
