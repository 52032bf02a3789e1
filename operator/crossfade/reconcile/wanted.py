"""Which version is wanted: what the spec asks for, or by an undo what a ControllerRevision has."""

from __future__ import annotations

from dataclasses import dataclass

from crossfade.api.parse import parse_spec
from crossfade.api.v1alpha1 import ModelDeploymentSpec, ModelDeploymentStatus, RevisionStatus
from crossfade.core.actions import Manifest
from crossfade.core.records import Record
from crossfade.core.undo import undone
from crossfade.errors import InvalidSpecError
from crossfade.kube.resources import CONTROLLER_REVISION, DEPLOYMENT, child_ref
from crossfade.kube.store import Store
from crossfade.names import NamespacedName
from crossfade.workload.record import read_record, spec_with
from crossfade.workload.render import Owner
from crossfade.workload.revision import revision_of
from crossfade.workload.sidecar import Injection, check


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be served; see ``Observation`` for its parts."""

    spec: ModelDeploymentSpec
    revision: str
    asked: RevisionStatus
    undo_problem: str = ""


def wanted_of(
    body: Manifest,
    owner: Owner,
    status: ModelDeploymentStatus,
    store: Store,
    injection: Injection,
) -> Wanted:
    """Return the spec, with another version in it where an undo is in force.

    Raises:
        InvalidSpecError: the spec cannot be read, or its sidecar would not take it.
    """
    own = parse_spec(body)
    asked = RevisionStatus(revision=revision_of(own), version=own.model.version)
    undo, problem = undone(status, asked.revision), ""
    if undo is not None and undo.instead is not None:
        try:
            spec = _recorded(body, owner, undo.instead, store)
            _expect_possible(owner, spec, undo.instead, store, injection)
            return Wanted(spec, undo.instead, asked)
        except InvalidSpecError as error:
            problem = (
                f"revision {undo.instead}, which was ordered instead of version {asked.version}, "
                f"cannot be rolled out: {error}; what is stable keeps serving; order undo=NUMBER "
                "for another revision, or retry for the version in the spec"
            )
    _expect_possible(owner, own, asked.revision, store, injection)
    return Wanted(own, asked.revision, asked, problem)


def history_of(owner: Owner, store: Store) -> dict[str, Record]:
    """Return what is recorded of each revision, by hash."""
    found = map(read_record, store.children(CONTROLLER_REVISION.kind, owner.namespace, owner.name))
    return {record.revision: record for record in found if record is not None}


def _recorded(body: Manifest, owner: Owner, revision: str, store: Store) -> ModelDeploymentSpec:
    ref = child_ref(CONTROLLER_REVISION, owner.namespace, owner.name, revision)
    record = store.get(ref)
    if record is None:
        raise InvalidSpecError(f"its ControllerRevision {ref.name} is gone")
    return spec_with(body["spec"], record["data"], revision)


def _expect_possible(
    owner: Owner, spec: ModelDeploymentSpec, revision: str, store: Store, injection: Injection
) -> None:
    """What was rendered once is no question any more."""
    if store.get(child_ref(DEPLOYMENT, owner.namespace, owner.name, revision)) is None:
        check(NamespacedName(owner.namespace, owner.name), spec, injection)
