"""The contract of a version: what requests must be, before they reach its model.

Time is bounded by a body's size, whatever it is: patterns match in linear time, no reference is
fetched, and errors are looked for in small parts only. jsonschema-rs collects all of them before
it gives the first, of all alternatives too, which takes 20 s for a list of 300,000 wrong elements;
to tell that something is wrong takes it milliseconds.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Final
from urllib.parse import unquote_to_bytes

import jsonschema_rs

from crossfade.sidecar.config import Config, Inputs
from crossfade.sidecar.documents import Unreadable, has_binary_data, parse_request
from crossfade.sidecar.messages import Document, Request, Violation
from crossfade.sidecar.tensors import OTHER, TensorContract

MAX_VIOLATIONS: Final = 20
"""That are told of one request."""

MAX_FIELDS: Final = 200
"""Fields that are told apart as labels; more there are only with a schema that refers to itself."""

_MAX_MESSAGE: Final = 300
"""Characters."""

_SMALL: Final = 500
"""Values in a part of a body whose errors are all collected: 40 microseconds each at worst."""

_MAX_SOUGHT: Final = 100_000
"""Elements of a list, or properties, that are looked at one by one for what is wrong."""

_BODILESS: Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "CONNECT", "DELETE"})

_INFERS: Final = re.compile(
    rb"/v2/models/[^/]+(?:/versions/[^/]+)?/(?:infer|generate)(?:_stream)?"
    rb"|/v1/models/[^/]+:(?:predict|explain)|/invocations"
)
"""In lower case. KServe's server has the older protocol on the same port, always, and MLServer has
MLflow's path."""

_CANONICAL: Final = re.compile(
    r"""
    (?: / (?!\.\.?(?:/|$))                       # no dot segments, no empty ones
        (?: [\w.~!$&'()*+,=:@-]                  # and no ; which some servers cut at
          | % (?! [01]. | 2[5DdEeFf] | 3[\dBb]   # escaped: no control character, % - . / digit ;
                | 4[1-9A-Fa-f] | 5[\dAaCcFf]     # letter \ _
                | 6[1-9A-Fa-f] | 7[\dAaEeFf]     # letter ~ delete
                | [Cc][01] )                     # overlong UTF-8
            [\dA-Fa-f]{2} )+
    )* /?
    """,
    re.VERBOSE | re.ASCII,
)
"""A path that all servers read alike. Escaped may be only what is reserved or not ASCII (RFC 3986,
2.3), and no separator."""

_MASK: Final = "the value"
"""Stands for values in messages, which otherwise repeat whole bodies."""

Path = tuple[str | int, ...]

Part = tuple[str, jsonschema_rs.Validator]
"""A place in a schema, as a pointer, and the validator of what is there."""


class Contract:
    """Checks requests."""

    def __init__(self, config: Config) -> None:
        """Compile the contract of a configuration; without inputs it applies to nothing.

        Raises:
            ValueError: the schema or the tensors are invalid.
        """
        inputs = config.inputs or Inputs(schema={})
        if (inputs.schema is None) == (inputs.tensors is None):
            raise ValueError("inputs have either a schema or tensors")
        if inputs.tensors is not None and config.protocol != "openInference":
            raise ValueError("tensors are of the protocol openInference only")
        self._exists = config.inputs is not None
        self._protocol = config.protocol
        self._max_bytes = config.max_body_bytes
        self._paths = None if inputs.paths is None else frozenset(map(_path_key, inputs.paths))
        self._chooses = self._paths is not None or self._protocol == "openInference"
        self._tensors = None if inputs.tensors is None else TensorContract(inputs.tensors)
        self._schema = None if inputs.schema is None else SchemaContract(inputs.schema)

    def applies_to(self, method: str, target: str) -> bool:
        """Tell whether a request must be checked; so must one whose path could be a disguise."""
        if not self._exists or method in _BODILESS:
            return False
        if not self._chooses:
            return True
        path = _canonical_path(target)
        if path is None:
            return True
        if self._paths is not None:
            return path in self._paths
        return _INFERS.fullmatch(path) is not None

    def check(self, request: Request) -> tuple[tuple[Violation, ...], Document | None]:
        """Return what is wrong with a request, and its body if it could be read."""
        if self._chooses and _canonical_path(request.target) is None:
            message = "the path is not in its canonical form, so it is not clear what it asks for"
            return (Violation("", "path", message),), None
        try:
            document = parse_request(request, self._protocol, self._max_bytes)
        except Unreadable as unreadable:
            return (Violation("", unreadable.rule, str(unreadable)[:_MAX_MESSAGE]),), None
        if self._tensors is not None:
            found = self._tensors.check(document.tensors)
        elif has_binary_data(request.headers):
            message = "the contract is a JSON Schema, which says nothing of binary data"
            found = iter((Violation("", "binaryData", message),))
        elif self._schema is not None:
            found = self._schema.check(document.value)
        return tuple(map(_shorten, islice(found, MAX_VIOLATIONS))), document


def _shorten(violation: Violation) -> Violation:
    if len(violation.message) <= _MAX_MESSAGE:
        return violation
    message = violation.message[: _MAX_MESSAGE - 1] + "…"
    return Violation(violation.field, violation.rule, message)


def _canonical_path(target: str) -> bytes | None:
    """Return what names a path, however it is written; None if it is not canonical.

    Servers differ in whether a slash at the end and the case of letters matter. Here neither does:
    to check a request too many is no harm.
    """
    path = target.partition("?")[0]
    if not path or not _CANONICAL.fullmatch(path):
        return None
    return unquote_to_bytes(path.lower()).rstrip(b"/")


def _path_key(path: str) -> bytes:
    key = _canonical_path(path)
    if key is None or "?" in path:
        raise ValueError(f"the path {path!r} of inputs is not canonical")
    return key


class SchemaContract:
    """A JSON Schema, compiled."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        """Raise a ValueError for a schema that is none, or refers to what is not in it."""
        options: dict[str, Any] = {
            "validate_formats": True,
            "offline": True,
            "pattern_options": jsonschema_rs.RegexOptions(),
            "mask": _MASK,
        }
        try:
            self._root = jsonschema_rs.validator_for(dict(schema), **options)
            self._parts = jsonschema_rs.validator_map_for(dict(schema), **options)
        except (ValueError, jsonschema_rs.ReferencingError) as error:
            problem = getattr(error, "message", "") or str(error)
            raise ValueError(f"the schema of inputs is invalid: {problem}") from error
        self._schema = schema
        self._names = frozenset(_names(schema))
        self._fields: set[str] = set()

    def check(self, value: Any) -> Iterator[Violation]:
        """Yield what is wrong with a value: one violation at least if it is invalid."""
        if self._root.is_valid(value):
            return
        found = False
        for violation in self._explain(("#", self._root), self._schema, value, ()):
            found = True
            yield violation
        if not found:
            yield Violation("", "schema", "the body does not fit the schema")

    def _explain(self, part: Part, schema: Any, value: Any, path: Path) -> Iterator[Violation]:
        """Yield what is wrong with an invalid value: all that is found in its small parts."""
        pointer, validator = part
        if _is_small(value):
            for error in validator.iter_errors(value):
                yield self._violation(error, path)
            return
        pointer, schema = self._follow(pointer, schema)
        found = False
        for below, inner_schema, inner, step in _parts(schema, value):
            inner_pointer = f"{pointer}/{below}"
            inner_validator = self._parts.get(inner_pointer)
            if inner_validator is not None and not inner_validator.is_valid(inner):
                found = True
                part = (inner_pointer, inner_validator)
                yield from self._explain(part, inner_schema, inner, (*path, step))
        if not found:
            message = f"{_exact(path)} does not fit the schema; it is too large to say more"
            yield Violation(self._field(path), "schema", message)

    def _follow(self, pointer: str, schema: Any) -> tuple[str, Any]:
        """Return where a schema really is that refers to another one in itself."""
        seen = set()
        while isinstance(schema, dict) and "$ref" in schema and pointer not in seen:
            seen.add(pointer)
            target = schema["$ref"]
            if target not in self._parts:
                break
            pointer, schema = target, _at(self._schema, target)
        return pointer, schema

    def _violation(self, error: jsonschema_rs.ValidationError, path: Path) -> Violation:
        rule = error.kind.name
        path = (*path, *error.instance_path)
        message = f"{_exact(path)}: {error.message}"
        if isinstance(error.kind, jsonschema_rs.ValidationErrorKind.Required):
            path = (*path, error.kind.property)
        elif rule in {"additionalProperties", "unevaluatedProperties", "propertyNames"}:
            path = (*path, OTHER)
        return Violation(self._field(path), rule, message)

    def _field(self, path: Path) -> str:
        """Return a path as a label, which says nothing that the schema does not say."""
        field = ""
        for step in path:
            if isinstance(step, int):
                field += "[]"
            else:
                field += f".{step if step in self._names else OTHER}"
        field = field.removeprefix(".")
        if field not in self._fields:
            if len(self._fields) >= MAX_FIELDS:
                return OTHER
            self._fields.add(field)
        return field


def _parts(schema: Any, value: Any) -> Iterator[tuple[str, Any, Any, str | int]]:
    """Yield a value's parts that have a schema of their own: its place, itself, part and step."""
    if isinstance(schema, dict) and isinstance(value, dict):
        properties = schema.get("properties", {})
        for name, inner in properties.items():
            if name in value:
                escaped = name.replace("~", "~0").replace("/", "~1")
                yield f"properties/{escaped}", inner, value[name], name
        if "additionalProperties" in schema and "patternProperties" not in schema:
            inner = schema["additionalProperties"]
            others = (name for name in value if name not in properties)
            for name in islice(others, _MAX_SOUGHT):
                yield "additionalProperties", inner, value[name], name
    elif isinstance(schema, dict) and isinstance(value, list) and "prefixItems" not in schema:
        inner = schema.get("items")
        for index, one in enumerate(islice(value, _MAX_SOUGHT)):
            yield "items", inner, one, index


def _at(schema: Any, pointer: str) -> Any:
    for step in pointer.split("/")[1:]:
        name = step.replace("~1", "/").replace("~0", "~")
        schema = schema[int(name)] if isinstance(schema, list) else schema[name]
    return schema


def _is_small(value: Any) -> bool:
    count = 1
    stack = [value]
    while stack:
        inner = stack.pop()
        if isinstance(inner, (dict, list)):
            count += len(inner)
            if count > _SMALL:
                return False
            stack.extend(inner.values() if isinstance(inner, dict) else inner)
    return True


def _exact(path: Sequence[str | int]) -> str:
    steps = (f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
    return "".join(steps).removeprefix(".") or "the body"


def _names(schema: Any) -> Iterator[str]:
    """Yield the names of properties that a schema mentions anywhere."""
    stack = [schema]
    while stack:
        one = stack.pop()
        if isinstance(one, list):
            stack.extend(one)
        if not isinstance(one, dict):
            continue
        stack.extend(one.values())
        for keyword in ("properties", "dependentRequired", "dependentSchemas", "dependencies"):
            if isinstance(one.get(keyword), dict):
                yield from one[keyword]
        for names in (one.get("required"), *_lists(one.get("dependentRequired"))):
            if isinstance(names, list):
                yield from (name for name in names if isinstance(name, str))


def _lists(value: Any) -> Sequence[Any]:
    return list(value.values()) if isinstance(value, dict) else []
