"""The ControllerRevision of a revision: what is served, and annotations that say what became of it.

``data`` never changes: the API server sees to that. So one object is a version for good, and its
annotations and ``revision``, which counts, speak of when it ran last.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from textwrap import shorten
from typing import Any, Final

from crossfade.api.parse import parse_spec
from crossfade.api.v1alpha1 import ModelDeploymentSpec
from crossfade.core.actions import Manifest, MergePatch
from crossfade.core.records import Record
from crossfade.errors import InvalidSpecError
from crossfade.names import (
    ANNOTATION_ENDED_AT,
    ANNOTATION_ENDED_MESSAGE,
    ANNOTATION_ENDED_REASON,
    ANNOTATION_PROMOTED_AT,
    ANNOTATION_STARTED_AT,
    ANNOTATION_VERSION,
    LABEL_REVISION,
    child_name,
)
from crossfade.workload.render import Owner, metadata_of
from crossfade.workload.revision import SERVED, revision_of, served_part

MOST_CHARACTERS: Final = 1000
"""Of the words why a version ended."""


def render_record(owner: Owner, record: Record, spec: ModelDeploymentSpec) -> Manifest:
    """Build the ControllerRevision of the revision that a spec asks for."""
    manifest = _identity(owner, record.revision)
    manifest["metadata"] |= metadata_of(owner, record.revision)
    manifest["metadata"]["annotations"] = {k: v for k, v in _said(record).items() if v is not None}
    return {**manifest, "revision": record.number, "data": served_part(spec)}


def patch_record(owner: Owner, record: Record) -> MergePatch:
    """Bring what is said of a revision up to date."""
    manifest = _identity(owner, record.revision)
    manifest["metadata"]["annotations"] = _said(record)
    return MergePatch({**manifest, "revision": record.number})


def read_record(manifest: Manifest) -> Record | None:
    """Read a ControllerRevision of ours; None: it is none, or somebody garbled it."""
    metadata = manifest["metadata"]
    said = metadata.get("annotations") or {}
    revision = (metadata.get("labels") or {}).get(LABEL_REVISION)
    if not revision:
        return None
    try:
        return Record(
            number=int(manifest.get("revision", 0)),
            revision=revision,
            version=said.get(ANNOTATION_VERSION, ""),
            started_at=_time(said.get(ANNOTATION_STARTED_AT)),
            promoted_at=_time(said.get(ANNOTATION_PROMOTED_AT)),
            ended_at=_time(said.get(ANNOTATION_ENDED_AT)),
            reason=said.get(ANNOTATION_ENDED_REASON, ""),
            message=said.get(ANNOTATION_ENDED_MESSAGE, ""),
        )
    except ValueError:
        return None


def spec_with(spec: Mapping[str, Any], data: bytes, revision: str) -> ModelDeploymentSpec:
    """Read a spec as if the recorded part of a revision stood in it.

    Args:
        spec: what a ModelDeployment has.
        data: what the ControllerRevision has, as the store keeps it.
        revision: the hash that this part must have.

    Raises:
        InvalidSpecError: it cannot be read, or is another revision; the message says why.
    """
    try:
        recorded = json.loads(data)
    except ValueError as error:
        raise InvalidSpecError(f"what it recorded is no JSON: {error}") from error
    if not isinstance(recorded, dict):
        raise InvalidSpecError("what it recorded is no object")
    others = {key: value for key, value in spec.items() if key not in SERVED}
    read = parse_spec({"spec": {**others, **recorded}})
    if revision_of(read) != revision:
        raise InvalidSpecError("what it recorded is not this revision")
    return read


def _identity(owner: Owner, revision: str) -> Manifest:
    metadata = {"name": child_name(owner.name, revision), "namespace": owner.namespace}
    return {"apiVersion": "apps/v1", "kind": "ControllerRevision", "metadata": metadata}


def _said(record: Record) -> dict[str, str | None]:
    words = shorten(record.message, MOST_CHARACTERS, placeholder=" ...")
    return {
        ANNOTATION_VERSION: record.version,
        ANNOTATION_STARTED_AT: _text(record.started_at),
        ANNOTATION_PROMOTED_AT: _text(record.promoted_at),
        ANNOTATION_ENDED_AT: _text(record.ended_at),
        ANNOTATION_ENDED_REASON: record.reason or None,
        ANNOTATION_ENDED_MESSAGE: words or None,
    }


def _text(at: datetime | None) -> str | None:
    return at.isoformat().replace("+00:00", "Z") if at is not None else None


def _time(text: str | None) -> datetime | None:
    """Read a time stamp.

    Raises:
        ValueError: it is none, or says no time zone.
    """
    if text is None:
        return None
    at = datetime.fromisoformat(text)
    if at.tzinfo is None:
        raise ValueError(text)
    return at
