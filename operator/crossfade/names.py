"""Every name, label, annotation and limit that Crossfade puts on a cluster, in one place.

A name that is spelled here is spelled nowhere else. This module imports nothing of Crossfade.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from typing_extensions import override

GROUP: Final = "crossfade.dev"
VERSION: Final = "v1alpha1"
API_VERSION: Final = f"{GROUP}/{VERSION}"
KIND: Final = "ModelDeployment"
PLURAL: Final = "modeldeployments"

FIELD_MANAGER: Final = "crossfade"
"""The one field manager of every server-side apply."""

CLI_FIELD_MANAGER: Final = "crossfade-cli"
"""That of the command line. Not kubectl's, whose changes Flux takes back."""

FINALIZER: Final = f"{GROUP}/restore-route"
"""Held only while a route that is not ours is modified: deletion must put it back first."""

LABEL_NAME: Final = f"{GROUP}/name"
"""On every child and every pod: the ModelDeployment's name."""

LABEL_REVISION: Final = f"{GROUP}/revision"
"""On every child of one revision and on its pods: the revision's hash."""

LABEL_ROLE: Final = f"{GROUP}/role"
"""On Deployments only, never on pods: a promotion changes it and must not restart a pod."""

LABEL_MANAGED_BY: Final = "app.kubernetes.io/managed-by"
MANAGED_BY: Final = "crossfade"
MANAGED_SELECTOR: Final = f"{LABEL_MANAGED_BY}={MANAGED_BY},{LABEL_NAME}"

ANNOTATION_COMMAND: Final = f"{GROUP}/command"
"""A person's order on a ModelDeployment (``core/commands.py``). Consumed by the operator."""

ANNOTATION_VERSION: Final = f"{GROUP}/model-version"
"""On children and pods of a revision: the model version as the user wrote it."""

ANNOTATION_STARTED_AT: Final = f"{GROUP}/started-at"
ANNOTATION_PROMOTED_AT: Final = f"{GROUP}/promoted-at"
ANNOTATION_ENDED_AT: Final = f"{GROUP}/ended-at"
ANNOTATION_ENDED_REASON: Final = f"{GROUP}/ended-reason"
ANNOTATION_ENDED_MESSAGE: Final = f"{GROUP}/ended-message"
"""On the ControllerRevision of a revision: what became of it when it ran last."""

ANNOTATION_ROUTE_HASH: Final = f"{GROUP}/route-hash"
"""On a route of ours: a hash of everything in it but the weights, to see that it is current."""

ANNOTATION_WEIGHTS: Final = f"{GROUP}/weights"
"""On the Service that is the route where there is no gateway: the weights that were asked for."""

SIDECAR: Final = "crossfade-sidecar"
"""The container in a model's pods that is ours."""

SIDECAR_PORT: Final = "crossfade"
SIDECAR_ADMIN_PORT: Final = "crossfade-admin"
"""The names of its ports, by which scrape jobs and the operator find them."""

ANNOTATION_SIDECAR: Final = f"{GROUP}/sidecar"
"""On pod templates: the sidecar's configuration, which the downward API hands to it."""

REVISION_HASH_LENGTH: Final = 8
REVISION_ALPHABET: Final = "bcdfghjklmnpqrstvwxz2456789"
"""What revisions are spelled with; no vowels, so that no word is taken for one (``detector``)."""

MAX_NAME_LENGTH: Final = 57 - 1 - REVISION_HASH_LENGTH
"""Children are named ``<name>-<hash>``. A pod's name keeps the first 58 characters of its
Deployment's name and a dash (k8s.io/apiserver/pkg/storage/names), by which series are joined to a
revision."""


@dataclass(frozen=True, slots=True, order=True)
class NamespacedName:
    """The identity of a namespaced object."""

    namespace: str
    name: str

    @override
    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


def child_name(name: str, revision: str) -> str:
    """Name the Deployment, Service, autoscaler and ControllerRevision of one revision."""
    return f"{name}-{revision}"


def pod_prefix(name: str, revision: str) -> str:
    """Return what every pod's name of this revision starts with.

    A Deployment names its pods ``<deployment>-<template hash>-<random>``, so series that carry
    a pod's name can be joined to a revision also after the pod is gone.
    """
    return f"{child_name(name, revision)}-"


def selector_labels(name: str, revision: str) -> dict[str, str]:
    """Return the labels that select exactly the pods of one revision."""
    return {LABEL_NAME: name, LABEL_REVISION: revision}


def child_labels(name: str, revision: str | None = None) -> dict[str, str]:
    """Return the labels of a child; with ``revision``, of a child of that revision."""
    labels = {LABEL_MANAGED_BY: MANAGED_BY, LABEL_NAME: name}
    if revision is not None:
        labels[LABEL_REVISION] = revision
    return labels
