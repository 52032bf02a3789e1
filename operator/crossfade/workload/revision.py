"""Name a model version by what is served, so that the same version always has the same name."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Final

from crossfade.api.v1alpha1 import ModelDeploymentSpec
from crossfade.names import REVISION_ALPHABET, REVISION_HASH_LENGTH

SERVED: Final = frozenset(
    {
        "model",
        "serving",
        "template",
        "sidecar",
        "inputs",
        "predictions",
        "fallback",
        "recording",
    }
)
"""The fields whose change restarts a model; all others are about how it is reached."""


def served_part(spec: ModelDeploymentSpec) -> dict[str, Any]:
    """Return what a revision is the hash of, as JSON has it; :data:`SERVED` has its fields.

    Fields at their default are left out.
    """
    return spec.model_dump(
        mode="json",
        by_alias=True,
        include=set(SERVED),
        exclude_none=True,
        exclude_defaults=True,
    )


def revision_of(spec: ModelDeploymentSpec) -> str:
    """Hash what is served into the name of the revision.

    Neither the order of keys nor a default that is written out makes a difference, since fields at
    their default are left out. So a field may be added to the API without a restart of every model
    after an upgrade, if it has a default that means what was done before. The default of a field
    that exists must never change: that would be a new revision of every spec that relies on it.
    """
    served = served_part(spec)
    text = json.dumps(served, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    number = int.from_bytes(hashlib.sha256(text.encode()).digest())
    letters = []
    for _ in range(REVISION_HASH_LENGTH):
        number, index = divmod(number, len(REVISION_ALPHABET))
        letters.append(REVISION_ALPHABET[index])
    return "".join(letters)
