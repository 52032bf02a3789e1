"""Runs Argo CD's scripts for ModelDeployments as Argo CD does: gopher-lua, and JSON around it.

What is here is what Argo CD does in ``util/lua``: the script sees the object as ``obj``; what it
returns goes through JSON, in which an empty table is an empty array until it is put right.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from cluster.gitops import LUA, judge
from crossfade.core.actions import Manifest
from tests.unit.argocd_statuses import CUSTOMIZATION


class LuaError(Exception):
    """A script failed."""


def read(folder: Path, path: str) -> Any:
    """Read a YAML file by its path in a test file."""
    return yaml.safe_load((folder / path).read_text())


def run(script: Path, objects: Iterable[Manifest]) -> list[Any]:
    """Run a script on each of several objects.

    Raises:
        LuaError: it failed on one of them.
    """
    text = script.read_text()
    answers = judge(LUA, [{"script": text, "object": body} for body in objects])
    for answer in answers:
        if "error" in answer:
            raise LuaError(f"{script.name}: {answer['error']}")
    return [answer["result"] for answer in answers]


def health(objects: Iterable[Manifest]) -> list[Any]:
    """Return the health of objects."""
    return run(CUSTOMIZATION / "health.lua", objects)


def discover(objects: Iterable[Manifest]) -> list[dict[str, Any]]:
    """Return the actions that are offered for objects, by name."""
    return run(CUSTOMIZATION / "actions" / "discovery.lua", objects)


def act(action: str, objects: list[Manifest]) -> list[Any]:
    """Return what an action makes of objects."""
    script = CUSTOMIZATION / "actions" / action / "action.lua"
    returned = run(script, objects)
    return [cleaned(new, old) for new, old in zip(returned, objects, strict=True)]


def cleaned(new: Any, old: Any) -> Any:
    """Put right what was an empty object before: Lua made an empty array of it."""
    if new == [] and isinstance(old, dict):
        return {}
    if isinstance(new, dict) and isinstance(old, dict):
        return {key: cleaned(value, old.get(key)) for key, value in new.items()}
    if isinstance(new, list) and isinstance(old, list):
        kept = [cleaned(value, before) for value, before in zip(new, old, strict=False)]
        return kept + new[len(old) :]
    return new
