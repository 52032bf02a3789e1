"""The rules over several fields, tried as the API server does, on a manifest that is new.

It fills defaults in, then tries each rule where it stands in the schema. Rules on changes
(``oldSelf``) say nothing of a manifest alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from crossfade.api.schema import root_schema
from crossfade.cli.cel import compile_rule

Schema = Mapping[str, Any]


def broken(body: Mapping[str, Any]) -> list[str]:
    """Return the rules that a manifest breaks, as ``path: what to write``.

    Its fields must have been read already: a rule is not tried on what has another type.
    """
    schema = root_schema()
    # The API server knows the names of objects itself, and lets rules see them.
    return list(_broken(schema, _completed(schema, body), ""))


def _completed(schema: Schema, value: Any) -> Any:
    """Fill in the schema's defaults; null is what is not there."""
    if isinstance(value, Mapping) and "properties" in schema:
        given = {key: one for key, one in value.items() if one is not None}
        for name, field in schema["properties"].items():
            if name not in given and "default" in field:
                given[name] = field["default"]
        return {
            key: _completed(schema["properties"].get(key, {}), one) for key, one in given.items()
        }
    if isinstance(value, list) and "items" in schema:
        return [_completed(schema["items"], one) for one in value]
    return value


def _broken(schema: Schema, value: Any, path: str) -> Iterator[str]:
    for rule in schema.get("x-kubernetes-validations", ()):
        if "oldSelf" not in rule["rule"] and not compile_rule(rule["rule"])({"self": value}):
            yield f"{path}: {rule['message']}" if path else rule["message"]
    if isinstance(value, Mapping):
        for name, field in schema.get("properties", {}).items():
            if name in value:
                yield from _broken(field, value[name], f"{path}.{name}" if path else name)
    elif isinstance(value, list) and "items" in schema:
        yield from _twins(schema, value, path)
        for index, one in enumerate(value):
            yield from _broken(schema["items"], one, f"{path}[{index}]")


def _twins(schema: Schema, value: list[Any], path: str) -> Iterator[str]:
    """Yield what is there twice in a list that is a map."""
    keys = schema.get("x-kubernetes-list-map-keys", ())
    seen = set()
    for index, one in enumerate(value):
        key = tuple(one.get(name) for name in keys)
        if keys and key in seen:
            yield f"{path}[{index}]: {', '.join(keys)} {', '.join(map(str, key))} is there twice"
        seen.add(key)
