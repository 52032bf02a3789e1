"""What holds in every phase: roles, stable's capacity, the address, no orphans."""

from __future__ import annotations

from crossfade.api.v1alpha1 import ModelDeploymentStatus
from crossfade.core.actions import (
    DeleteRevision,
    EnsureWorkload,
    LabelRole,
    PointAddress,
    Role,
    Scale,
)
from crossfade.core.turn import Turn


def keep_house(turn: Turn) -> None:
    """Bring everything but the route and the canary to what the status says."""
    if turn.status.stable is None:
        return
    _keep_stable(turn)
    _keep_roles(turn)
    if turn.seen.addressed and turn.seen.address != turn.stable.revision:
        turn.do(PointAddress(turn.stable.revision))
    _remove_orphans(turn)


def _keep_stable(turn: Turn) -> None:
    """Stable has full capacity, always."""
    full = turn.seen.needed.get(100, 1)
    workload = turn.workload(turn.stable.revision)
    if workload is not None:
        if workload.replicas != full:
            turn.do(Scale(turn.stable.revision, full))
    elif turn.seen.revision == turn.stable.revision:
        turn.do(EnsureWorkload(turn.stable.revision, Role.STABLE, full))
    else:
        turn.set(
            message=f"the Deployment of the stable version {turn.stable.version} is gone; put "
            "that version back into the spec, or let the new one be promoted"
        )


def roles_of(status: ModelDeploymentStatus) -> dict[str, Role]:
    """Return the role of each revision that the status names."""
    named = (
        (status.stable, Role.STABLE),
        (status.canary, Role.CANARY),
        (status.previous, Role.PREVIOUS),
    )
    return {revision.revision: role for revision, role in named if revision is not None}


def _keep_roles(turn: Turn) -> None:
    for revision, role in roles_of(turn.status).items():
        workload = turn.workload(revision)
        if workload is not None and workload.role is not role:
            turn.do(LabelRole(revision, role))


def _remove_orphans(turn: Turn) -> None:
    """A revision that nobody names and nothing is routed to is left over from an earlier life."""
    named = roles_of(turn.status).keys() | roles_of(turn.seen.status).keys()
    for revision in turn.seen.workloads:
        unused = revision not in named and turn.seen.route.weight_of(revision) == 0
        if unused and turn.route_settled:
            turn.do(DeleteRevision(revision))
