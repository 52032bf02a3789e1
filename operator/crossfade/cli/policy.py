"""The policy that is tried: a ModelDeployment's manifest, from a file."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from crossfade.api.parse import parse_spec
from crossfade.api.v1alpha1 import Analysis, ModelDeploymentSpec
from crossfade.errors import CommandError
from crossfade.names import KIND, NamespacedName


@dataclass(frozen=True, slots=True)
class Policy:
    """What a manifest says on how versions are judged."""

    key: NamespacedName
    spec: ModelDeploymentSpec
    analysis: Analysis


def read_policy(path: str, namespace: str | None) -> Policy:
    """Read the one ModelDeployment of a YAML or JSON file; ``-`` is the standard input.

    Raises:
        CommandError: there is no such file, or not one ModelDeployment with an analysis in it.
        InvalidSpecError: the spec is wrong.
    """
    found = [body for body in read_objects(path) if body.get("kind") == KIND]
    if len(found) != 1:
        raise CommandError(f"{path} has {len(found)} {KIND}s; give a file with one")
    (body,) = found
    meta = body.get("metadata")
    name = meta.get("name") if isinstance(meta, dict) else None
    if not isinstance(meta, dict) or not isinstance(name, str):
        raise CommandError(f"{path}: write metadata.name; pods are found by it")
    spec = parse_spec(body)
    if spec.analysis is None:
        raise CommandError(f"{path} has no spec.analysis, so nothing would be judged")
    key = NamespacedName(namespace or meta.get("namespace") or "default", name)
    return Policy(key, spec, spec.analysis)


def read_objects(path: str) -> Iterable[dict[str, Any]]:
    """Read the objects of a YAML or JSON file; ``-`` is the standard input.

    Raises:
        CommandError: there is no such file, or it is neither.
    """
    try:
        text = sys.stdin.read() if path == "-" else Path(path).read_text(encoding="utf-8")
        documents = list(yaml.safe_load_all(text))
    except OSError as e:
        raise CommandError(f"{path} cannot be read: {e.strerror}") from e
    except (yaml.YAMLError, UnicodeDecodeError) as e:
        raise CommandError(f"{path} is neither YAML nor JSON: {' '.join(str(e).split())}") from e
    return (document for document in documents if isinstance(document, dict))
