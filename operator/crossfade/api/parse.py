"""The edge between JSON and the API models: read specs and statuses, write statuses.

Rules over several fields are not repeated here: the API server has tried them (``rules.py``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, TypeVar

from pydantic import ValidationError

from crossfade.api.base import ApiModel
from crossfade.api.defaults import with_sources
from crossfade.api.v1alpha1 import ModelDeploymentSpec, ModelDeploymentStatus
from crossfade.errors import InvalidSpecError

Body = Mapping[str, Any]
"""An object as the API server gives it."""

Parsed = TypeVar("Parsed", bound=ApiModel)

_MOST_PROBLEMS: Final = 5
"""More than these would not be read in a condition's message."""


def parse_spec(body: Body) -> ModelDeploymentSpec:
    """Read the spec of a ModelDeployment, with every default filled in.

    Raises:
        InvalidSpecError: names the fields and what is wrong with them, for the user.
    """
    return with_sources(_parsed(ModelDeploymentSpec, body.get("spec"), "spec"))


def parse_status(body: Body) -> ModelDeploymentStatus:
    """Read the status of a ModelDeployment; one without status is a new one.

    What a newer operator added is dropped. A status that cannot be read otherwise must not look
    like a new ModelDeployment, whose versions would be set up again, so it is an error.

    Raises:
        InvalidSpecError: the status is there, but cannot be read; says how to go on.
    """
    status = body.get("status")
    if status is None:
        return ModelDeploymentStatus()
    try:
        return _parsed(ModelDeploymentStatus, status, "status")
    except InvalidSpecError as error:
        raise InvalidSpecError(
            f"{error}. Nothing is changed: a newer operator may have written this status; use that"
            " one, or remove the field with `kubectl edit --subresource=status`"
        ) from error


def dump_status(status: ModelDeploymentStatus) -> dict[str, Any]:
    """Write a status as JSON that the schema takes; fields that are None are left out.

    Time stamps are RFC 3339 with microseconds, so that reading gives the same status again.
    """
    return status.model_dump(mode="json", by_alias=True, exclude_none=True)


def _parsed(model: type[Parsed], value: Any, path: str) -> Parsed:
    if not isinstance(value, Mapping):
        raise InvalidSpecError(f"{path}: write an object here")
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise InvalidSpecError(_explain(error, path)) from error


def _explain(error: ValidationError, root: str) -> str:
    """Tell each problem as ``path: what is wrong``."""
    problems = [
        f"{_path(root, problem['loc'])}: {_sentence(problem['type'], problem['msg'])}"
        for problem in error.errors(include_url=False, include_input=False)
    ]
    more = len(problems) - _MOST_PROBLEMS
    shown = problems[:_MOST_PROBLEMS] + ([f"and {more} more"] if more > 0 else [])
    return "; ".join(shown)


def _path(root: str, location: tuple[int | str, ...]) -> str:
    return root + "".join(f"[{it}]" if isinstance(it, int) else f".{it}" for it in location)


def _sentence(kind: str, message: str) -> str:
    match kind:
        case "missing":
            return "this field is required"
        case "extra_forbidden":
            return "there is no such field; remove it or correct its name"
        case _:
            return message.removeprefix("Value error, ")
