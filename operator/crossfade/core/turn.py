"""One turn of decision-making: what was seen, and what is being decided.

The rules write into a :class:`Turn`; nothing outside of it changes. When the rules are done,
:meth:`Turn.decision` freezes the result.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from crossfade.api.v1alpha1 import (
    DEFAULT_STEPS,
    ModelDeploymentSpec,
    ModelDeploymentStatus,
    Phase,
    RevisionStatus,
    RolloutStatus,
    Step,
)
from crossfade.core.actions import Action, Announcement, SetWeights, Split
from crossfade.core.observation import Observation, Workload
from crossfade.core.phases import is_legal
from crossfade.core.records import RecordWrite
from crossfade.evidence.verdicts import Verdict


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do now. The shell runs ``actions`` in order, then writes ``status``."""

    status: ModelDeploymentStatus
    actions: tuple[Action, ...] = ()
    announcements: tuple[Announcement, ...] = ()
    look_again_at: datetime | None = None
    """When to look even if nothing changes; None: only when something changes."""
    records: tuple[RecordWrite, ...] = ()
    """What is written of history, after all else; nothing waits for it."""


class Turn:
    """What was seen, and what is being decided."""

    def __init__(self, seen: Observation, spec: ModelDeploymentSpec, now: datetime) -> None:
        self.seen = seen
        self.spec = spec
        self.now = now
        self.status: ModelDeploymentStatus = seen.status
        self.route_settled = False
        """The route was seen in force as it is wanted."""
        self.steps: tuple[Step, ...] = tuple(spec.rollout.steps or DEFAULT_STEPS)
        self._actions: list[Action] = []
        self._announcements: list[Announcement] = []
        self._records: list[RecordWrite] = []
        self._look_again_at: datetime | None = None
        self._status_first = False

    # ── what was seen ─────────────────────────────────────────────────────────────────────────

    @property
    def rollout(self) -> RolloutStatus:
        """The rollout; only phases with a canary have one."""
        if self.status.rollout is None:
            raise LookupError(f"phase {self.status.phase} without a rollout")
        return self.status.rollout

    @property
    def stable(self) -> RevisionStatus:
        """The stable version; every phase but Initializing has one."""
        if self.status.stable is None:
            raise LookupError(f"phase {self.status.phase} without a stable version")
        return self.status.stable

    @property
    def canary(self) -> RevisionStatus:
        """The canary; only phases with a rollout have one."""
        if self.status.canary is None:
            raise LookupError(f"phase {self.status.phase} without a canary")
        return self.status.canary

    def workload(self, revision: str) -> Workload | None:
        """Return a revision's Deployment; None when there is none."""
        return self.seen.workloads.get(revision)

    def ready(self, revision: str) -> int:
        """Return a revision's ready pods; 0 when it has no Deployment."""
        workload = self.seen.workloads.get(revision)
        return workload.ready if workload is not None else 0

    @property
    def blind(self) -> bool:
        """This process took no look yet, or could not see: no reason to give a canary more."""
        if self.spec.analysis is None:
            return False
        answers = self.seen.known_answers
        return answers is None or any(a.verdict is Verdict.UNAVAILABLE for a in answers)

    @property
    def target(self) -> RevisionStatus:
        """The version that is asked for: by an undo if one is in force, else by the spec."""
        return RevisionStatus(revision=self.seen.revision, version=self.spec.model.version)

    @property
    def asked(self) -> RevisionStatus:
        """The version that the ModelDeployment's spec itself asks for."""
        return self.seen.asked or self.target

    # ── what is being decided ─────────────────────────────────────────────────────────────────

    def set(self, **changes: Any) -> None:
        """Change fields of the status."""
        self.status = self.status.model_copy(update=changes)

    def set_rollout(self, **changes: Any) -> None:
        """Change fields of ``status.rollout``."""
        self.set(rollout=self.rollout.model_copy(update=changes))

    def move(self, phase: Phase) -> None:
        """Enter a phase.

        Raises:
            AssertionError: the table of moves does not allow it, which is a bug of ours.
        """
        if not is_legal(self.seen.status.phase, phase):
            raise AssertionError(f"{self.seen.status.phase} may not become {phase}")
        self.set(phase=phase)

    def do(self, *actions: Action) -> None:
        """Ask for actions, after those that were asked for already."""
        self._actions.extend(actions)

    def announce(self, type_: Literal["Normal", "Warning"], reason: str, message: str) -> None:
        """Tell people of a transition."""
        self._announcements.append(Announcement(type_, reason, message))

    def remember(self, write: RecordWrite) -> None:
        """Write into the history, once everything else is done."""
        self._records.append(write)

    def look_in(self, seconds: float) -> None:
        """Look again after a time, or earlier if another rule asked for that."""
        self.look_at(self.now + timedelta(seconds=seconds))

    def look_at(self, when: datetime) -> None:
        """Look again at a time, or earlier if another rule asked for that."""
        if self._look_again_at is None or when < self._look_again_at:
            self._look_again_at = max(when, self.now)

    def write_status_first(self) -> None:
        """Write the status before any action, then look again at once.

        Whatever gives a canary more is written down before it is done: after a kill in between,
        the next start knows that it was meant. Whatever gives it less is done first.
        """
        self._status_first = True
        self.look_in(0)

    def decision(self) -> Decision:
        """Freeze what was decided."""
        return Decision(
            status=self.status,
            actions=() if self._status_first else tuple(self._actions),
            announcements=self.announcements,
            look_again_at=self._look_again_at,
            records=tuple(self._records),
        )

    @property
    def announcements(self) -> tuple[Announcement, ...]:
        """What people are told of so far."""
        return tuple(self._announcements)

    @property
    def writes_route(self) -> bool:
        """The route is about to be written."""
        return any(isinstance(action, SetWeights) for action in self._actions)


def split_of(stable: str, canary: str | None, weight: int) -> Split:
    """Return the split that gives a canary ``weight`` percent; no backend is kept at zero."""
    if weight <= 0 or canary is None:
        return Split(stable)
    if weight >= 100:  # noqa: PLR2004 - percent
        return Split(canary)
    return Split(stable, canary, weight)
