"""What a new contract refuses that the old one accepted, in sentences for people. Pure.

Tensors are compared exactly. JSON Schemas are walked side by side: nothing that got narrower is
passed over, but where they differ in a way that cannot be compared it is said so, and a sentence
may tell of values that nobody sends.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from itertools import zip_longest
from typing import Any, Final

import jsonschema_rs

from crossfade.sidecar.config import Inputs, Tensor
from crossfade.sidecar.tensors import INTEGER_LIMITS

_MAX_COMPARISONS: Final = 2000
"""Pairs of subschemas; references can multiply them without end."""

_MAX_NAMED: Final = 5
"""Values that a sentence lists."""

_ALL_TYPES: Final = frozenset(
    ("null", "boolean", "integer", "number", "string", "array", "object")
)  # fmt: skip
_FINITE_TYPES: Final[Mapping[str, tuple[Any, ...]]] = {"null": (None,), "boolean": (False, True)}

_ANY: Final[dict[str, Any]] = {}
"""The schema that accepts everything; one object, since schemas are told apart by identity."""

_ANNOTATIONS: Final = frozenset(
    ("$schema", "$id", "$comment", "$defs", "definitions", "$anchor", "$vocabulary", "title",
     "description", "default", "examples", "deprecated", "readOnly", "writeOnly")
)  # fmt: skip
"""Keywords that refuse nothing."""

_APPLICATORS: Final = (
    "$ref", "$dynamicRef", "$recursiveRef", "allOf", "anyOf", "oneOf", "not", "if",
    "dependentSchemas", "contains",
)  # fmt: skip
"""What unevaluatedProperties and unevaluatedItems look into: JSON Schema 2020-12, sections 11.2 and
11.3 (an item that ``contains`` matches is evaluated)."""

_INCOMPARABLE: Final = (
    *((keyword,) for keyword in _APPLICATORS if keyword not in {"if", "contains"}),
    ("if", "then", "else"),
    ("contains", "minContains", "maxContains"),
    ("dependentRequired",), ("dependencies",), ("propertyNames",), ("additionalItems",),
    ("contentEncoding",), ("contentMediaType",),
)  # fmt: skip
"""Keywords that must stay the same, or go: without the first of a group the others mean nothing."""

_SIZES: Final = (
    ("minLength", "string", "characters"), ("maxLength", "string", "characters"),
    ("minItems", "array", "items"), ("maxItems", "array", "items"),
    ("minProperties", "object", "properties"), ("maxProperties", "object", "properties"),
)  # fmt: skip

_REFERENCE: Final = re.compile(r'"\$(?:ref|dynamicRef|recursiveRef)": "([^"]*)"')
_DEFINITIONS: Final = ("#/$defs/", "#/definitions/")


def narrowings(old: Inputs | None, new: Inputs | None) -> tuple[str, ...]:
    """Return what ``new`` refuses that ``old`` accepted; None: there is no contract.

    Without ``paths`` on either side it is not known which requests they mean, and this is taken
    to be the same.
    """
    if new is None or new.on_violation == "log":
        return ()
    if old is None:
        return ("there was no contract before: every request was accepted",)
    if old.on_violation == "log":
        return ("violations were only logged before: every request was accepted",)
    return tuple(dict.fromkeys((*_narrowed_paths(old, new), *_narrowed_contract(old, new))))


def _narrowed_paths(old: Inputs, new: Inputs) -> Iterator[str]:
    if old.paths is None:
        return
    if new.paths is None:
        yield f"requests to other paths than {_listed(old.paths)} are checked now"
    elif added := sorted(set(new.paths) - set(old.paths)):
        yield f"requests to {_listed(added)} are checked now"


def _narrowed_contract(old: Inputs, new: Inputs) -> Iterator[str]:
    if old.tensors is not None and new.tensors is not None:
        yield from _narrowed_tensors(old.tensors, new.tensors)
    elif old.schema is not None and new.schema is not None:
        yield from _Walk(old.schema, new.schema).narrowed()
    else:
        yield "cannot be compared: one contract is a JSON Schema, the other one of tensors"


def _narrowed_tensors(old: Sequence[Tensor], new: Sequence[Tensor]) -> Iterator[str]:
    before = {tensor.name: tensor for tensor in old}
    now = {tensor.name: tensor for tensor in new}
    for name, tensor in before.items():
        if name not in now:
            yield f"tensor {name}: it is not known any more"
        else:
            yield from (f"tensor {name}: {one}" for one in _narrowed_tensor(tensor, now[name]))
    for name, tensor in now.items():
        if name not in before and not tensor.optional:
            yield f"tensor {name}: it is new and required"


def _narrowed_tensor(old: Tensor, new: Tensor) -> Iterator[str]:
    if old.optional and not new.optional:
        yield "it is required now"
    if old.datatype != new.datatype:
        yield f"its datatype is {new.datatype} now, {old.datatype} before"
        return
    if len(old.shape) != len(new.shape) or any(
        size not in {-1, before} for before, size in zip(old.shape, new.shape, strict=True)
    ):
        yield f"its shape is {list(new.shape)} now, {list(old.shape)} before"
    (lowest, highest), (new_lowest, new_highest) = _range(old), _range(new)
    if new_lowest > lowest:
        yield f"its minimum is {new.min:g} now, {_number_or_none(old.min)} before"
    if new_highest < highest:
        yield f"its maximum is {new.max:g} now, {_number_or_none(old.max)} before"
    if new.allowed is not None and old.allowed is None:
        yield f"only {_listed(new.allowed)} are its categories now"
    elif new.allowed is not None and old.allowed is not None:
        gone = [one for one in old.allowed if one not in new.allowed]
        if gone:
            yield f"{_listed(gone)} {_verb(gone)} accepted no longer"
    if new.max_null_percent < old.max_null_percent:
        yield f"{new.max_null_percent:g} % may be null now, {old.max_null_percent:g} % before"


def _range(tensor: Tensor) -> tuple[float, float]:
    """Return the lowest and highest element, with what the datatype itself allows."""
    lowest = -math.inf if tensor.min is None else tensor.min
    highest = math.inf if tensor.max is None else tensor.max
    if tensor.datatype not in INTEGER_LIMITS:
        return lowest, highest
    floor, ceiling = INTEGER_LIMITS[tensor.datatype]
    return (
        floor if lowest <= floor else math.ceil(lowest),
        ceiling if highest >= ceiling else math.floor(highest),
    )


class _Walk:
    """A walk through two JSON Schemas side by side."""

    def __init__(self, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
        self._old, self._new = old, new
        definitions = [_text([root.get("$defs"), root.get("definitions")]) for root in (old, new)]
        self._same_definitions = definitions[0] == definitions[1] and _refers_to_definitions(
            definitions[0]
        )
        self._seen: set[tuple[int, int]] = set()
        self._left = [_MAX_COMPARISONS]

    def narrowed(self) -> Iterator[str]:
        if _text(self._old) == _text(self._new):
            return
        for keyword in ("$schema", "$vocabulary"):
            if self._old.get(keyword) != self._new.get(keyword):
                yield f"cannot be compared: their {keyword} differs"
                return
        if any(_has_own_base(root) for root in (self._old, self._new)):
            yield "cannot be compared: a part of the schema has an $id"
            return
        yield from self._compare(self._old, self._new, "")
        if self._left[0] <= 0:
            yield "cannot be compared: there are too many references"

    def _compare(self, old: Any, new: Any, path: str) -> Iterator[str]:
        """Yield what ``new`` refuses of what ``old`` accepts."""
        old, new = _resolved(old, self._old), _resolved(new, self._new)
        if old is False or new is True or (id(old), id(new)) in self._seen:
            return
        self._left[0] -= 1
        if self._left[0] < 0:
            return
        self._seen.add((id(old), id(new)))
        where = path or "the body"
        if new is False:
            yield f"{where}: it is refused now"
        elif (values := _values(old)) is not None:
            yield from self._compare_values(values, old, new, where)
        elif _is_choice(old) or _is_choice(new):
            yield from self._compare_choices(old, new, path)
        else:
            yield from self._compare_keywords(old, new, path)

    def _compare_values(
        self, values: Sequence[Any], old: Any, new: Any, where: str
    ) -> Iterator[str]:
        try:
            before, now = _validator(old, self._old), _validator(new, self._new)
        except (ValueError, jsonschema_rs.ReferencingError):
            yield f"cannot be compared: the values of {where}"
            return
        gone = [value for value in values if before.is_valid(value) and not now.is_valid(value)]
        if gone:
            yield f"{where}: {_listed(map(_text, gone))} {_verb(gone)} accepted no longer"

    def _compare_choices(self, old: Any, new: Any, path: str) -> Iterator[str]:
        """Compare each alternative with the one that takes its place."""
        where = path or "the body"
        choices = new["anyOf"] if _is_choice(new) else [new]
        for choice in old["anyOf"] if _is_choice(old) else [old]:
            types = _types(_resolved(choice, self._old))
            trials = [
                (types & _types(_resolved(one, self._new)), list(self._try(choice, one, path)))
                for one in choices
            ]
            if any(not sentences for _, sentences in trials):
                continue
            alike = [sentences for shared, sentences in trials if shared]
            if not alike:
                yield f"{where}: {_type_words(types)} is accepted no longer"
            elif len(alike) == 1:
                yield from alike[0]
            else:
                yield f"cannot be compared: anyOf of {where}"

    def _try(self, old: Any, new: Any, path: str) -> Iterator[str]:
        """Compare without memory of what was seen on the way."""
        seen = self._seen
        self._seen = set(seen)
        try:
            yield from self._compare(old, new, path)
            if self._left[0] <= 0:
                yield "cannot be compared: there are too many references"
        finally:
            self._seen = seen

    def _compare_keywords(self, old: Any, new: Mapping[str, Any], path: str) -> Iterator[str]:
        old = _ANY if old is True else old
        where = path or "the body"
        for keyword in ("enum", "const"):
            if keyword in new:
                values = new["enum"] if keyword == "enum" else [new["const"]]
                listed = _listed(map(_text, values))
                yield f"{where}: only {listed} {_verb(values)} accepted now"
                return
        types, new_types = _types(old), _types(new)
        if types - new_types:
            yield f"{where}: {_type_words(new_types)} now, {_type_words(types)} before"
        types &= new_types
        for words in self._incomparable(old, new):
            yield f"cannot be compared: {words} of {where}"
        if types & {"integer", "number"}:
            yield from (f"{where}: {one}" for one in _narrowed_numbers(old, new, types))
        yield from (f"{where}: {one}" for one in _narrowed_sizes(old, new, types))
        if "string" in types:
            yield from (f"{where}: {one}" for one in _narrowed_strings(old, new))
        if "object" in types:
            yield from self._compare_objects(old, new, path)
        if "array" in types:
            yield from self._compare_arrays(old, new, path)

    def _incomparable(self, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
        for group in _INCOMPARABLE:
            if group[0] in new and not all(self._is_same(old, new, keyword) for keyword in group):
                yield group[0]
        if "patternProperties" in old or "patternProperties" in new:
            gone = "patternProperties" not in new and _others(new) in (True, _ANY)
            same_names = set(old.get("properties", ())) == set(new.get("properties", ()))
            if not same_names or not (gone or self._is_same(old, new, "patternProperties")):
                yield "patternProperties"
        applied = _is_applied(old) or _is_applied(new)
        for keyword in ("unevaluatedProperties", "unevaluatedItems"):
            if keyword in new and applied and _text(old) != _text(new):
                yield keyword

    def _is_same(self, old: Mapping[str, Any], new: Mapping[str, Any], keyword: str) -> bool:
        if keyword not in old or keyword not in new:
            return keyword not in old and keyword not in new
        text = _text(new[keyword])
        if _text(old[keyword]) != text:
            return False
        refers = keyword in {"$dynamicRef", "$recursiveRef"} or _REFERENCE.search(text)
        if keyword == "$ref":
            return self._same_definitions and new[keyword].startswith(_DEFINITIONS)
        return not refers or (self._same_definitions and _refers_to_definitions(text))

    def _compare_objects(
        self, old: Mapping[str, Any], new: Mapping[str, Any], path: str
    ) -> Iterator[str]:
        known = set(old.get("required", ()))
        for name in new.get("required", ()):
            if name not in known:
                yield f"{_join(path, name)}: it is required now"
        before, now = old.get("properties", {}), new.get("properties", {})
        others, new_others = _others(old), _others(new)
        for name in dict.fromkeys((*before, *now)):
            inner, new_inner = before.get(name, others), now.get(name, new_others)
            sentences = self._compare(inner, new_inner, _join(path, name))
            if name in before or inner not in (True, _ANY):
                yield from sentences
            elif any(True for _ in sentences):
                yield f"{_join(path, name)}: it is checked now, it was not before"
        if new_others is False and others is not False:
            yield f"{path or 'the body'}: properties that it does not name are refused now"
        else:
            yield from self._compare(others, new_others, _join(path, "(others)"))

    def _compare_arrays(
        self, old: Mapping[str, Any], new: Mapping[str, Any], path: str
    ) -> Iterator[str]:
        where = path or "the body"
        if new.get("uniqueItems") is True and old.get("uniqueItems") is not True:
            yield f"{where}: its items must differ now"
        if any(isinstance(schema.get("items"), list) for schema in (old, new)):
            if not self._is_same(old, new, "items"):
                yield f"cannot be compared: items of {where}"
            return
        rest, new_rest = _rest(old), _rest(new)
        marker = object()
        first, new_first = old.get("prefixItems", ()), new.get("prefixItems", ())
        pairs = zip_longest(first, new_first, fillvalue=marker)
        for index, (inner, new_inner) in enumerate(pairs):
            yield from self._compare(
                rest if inner is marker else inner,
                new_rest if new_inner is marker else new_inner,
                f"{path}[{index}]",
            )
        yield from self._compare(rest, new_rest, f"{path}[]")


def _is_applied(schema: Mapping[str, Any]) -> bool:
    return any(keyword in schema for keyword in _APPLICATORS)


def _others(schema: Mapping[str, Any]) -> Any:
    """Return the schema of properties without a name; what applicators evaluate is not known."""
    unevaluated = True if _is_applied(schema) else schema.get("unevaluatedProperties", True)
    return schema.get("additionalProperties", unevaluated)


def _rest(schema: Mapping[str, Any]) -> Any:
    """Return the schema of items that prefixItems does not have, likewise."""
    unevaluated = True if _is_applied(schema) else schema.get("unevaluatedItems", True)
    return schema.get("items", unevaluated)


def _resolved(schema: Any, root: Mapping[str, Any]) -> Any:
    """Return the schema that a mere reference, or an allOf of one, means."""
    for _ in range(100):
        if not isinstance(schema, dict):
            return schema
        keywords = [keyword for keyword in schema if keyword not in _ANNOTATIONS]
        if not keywords:
            return True
        if keywords == ["allOf"] and len(schema["allOf"]) == 1:
            schema = schema["allOf"][0]
        elif keywords == ["$ref"] and schema["$ref"].startswith("#"):
            try:
                schema = _at(root, schema["$ref"])
            except (LookupError, ValueError, TypeError):
                return schema
        else:
            return schema
    return schema


def _at(schema: Any, pointer: str) -> Any:
    if pointer not in {"#", "#/"} and not pointer.startswith("#/"):
        raise ValueError(pointer)
    for step in pointer.split("/")[1:]:
        name = step.replace("~1", "/").replace("~0", "~")
        schema = schema[int(name)] if isinstance(schema, list) else schema[name]
    return schema


def _values(schema: Any) -> Sequence[Any] | None:
    """Return all values that a schema can accept, if they are listed."""
    if not isinstance(schema, dict):
        return None
    if "const" in schema:
        return [schema["const"]]
    if "enum" in schema:
        values: Sequence[Any] = schema["enum"]
        return values
    types = _types(schema)
    if types <= _FINITE_TYPES.keys():
        return [value for name in sorted(types) for value in _FINITE_TYPES[name]]
    return None


def _validator(schema: Any, root: Mapping[str, Any]) -> jsonschema_rs.Validator:
    if isinstance(schema, dict):
        kept = {name: root[name] for name in ("$schema", "$defs", "definitions") if name in root}
        schema = schema | kept
    return jsonschema_rs.validator_for(
        schema, validate_formats=True, offline=True, pattern_options=jsonschema_rs.RegexOptions()
    )


def _is_choice(schema: Any) -> bool:
    return isinstance(schema, dict) and [key for key in schema if key not in _ANNOTATIONS] == [
        "anyOf"
    ]


def _types(schema: Any) -> frozenset[str]:
    named = schema.get("type") if isinstance(schema, dict) else None
    if named is None:
        return _ALL_TYPES
    types = frozenset((named,) if isinstance(named, str) else named)
    return types | {"integer"} if "number" in types else types


def _type_words(types: frozenset[str]) -> str:
    if types == _ALL_TYPES:
        return "any type"
    return " or ".join(sorted(types - {"integer"} if "number" in types else types))


def _narrowed_numbers(
    old: Mapping[str, Any], new: Mapping[str, Any], types: frozenset[str]
) -> Iterator[str]:
    whole = "number" not in types
    for words, keyword, strict, sign in (
        (("at least", "more than"), "minimum", "exclusiveMinimum", 1),
        (("at most", "less than"), "maximum", "exclusiveMaximum", -1),
    ):
        if any(isinstance(schema.get(strict), bool) for schema in (old, new)):
            if any(old.get(one) != new.get(one) for one in (keyword, strict)):
                yield f"its {keyword} is another one"
            continue
        before = _bound(old, keyword, strict, sign, whole=whole)
        now = _bound(new, keyword, strict, sign, whole=whole)
        if now > before:
            ends = [f"{words[one[1]]} {one[0] * sign}" for one in (now, before)]
            yield f"{ends[0]} now, {'unbounded' if before[0] == -math.inf else ends[1]} before"
    step, new_step = old.get("multipleOf"), new.get("multipleOf")
    if new_step is not None and not _is_multiple(step, new_step, whole=whole):
        yield f"a multiple of {new_step} now, {f'of {step}' if step else 'any number'} before"


def _bound(
    schema: Mapping[str, Any], keyword: str, strict: str, sign: int, *, whole: bool
) -> tuple[float, bool]:
    """Return a lower bound, of the negative where ``sign`` is, and whether it is excluded."""
    bounds = [
        (schema[name] * sign, excluded)
        for name, excluded in ((keyword, False), (strict, True))
        if name in schema
    ]
    value, excluded = max(bounds, default=(-math.inf, False))
    if not whole or value == -math.inf:
        return value, excluded
    return (math.floor(value) + 1 if excluded else math.ceil(value)), False


def _is_multiple(step: float | None, new_step: float, *, whole: bool) -> bool:
    steps = [] if step is None else [Fraction(str(step))]
    if whole:
        steps.append(Fraction(1))
    return any((one / Fraction(str(new_step))).denominator == 1 for one in steps)


def _narrowed_strings(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    for keyword in ("pattern", "format"):
        if keyword in new and old.get(keyword) != new[keyword]:
            yield f"its {keyword} is {new[keyword]} now, {old.get(keyword, 'none')} before"


def _narrowed_sizes(
    old: Mapping[str, Any], new: Mapping[str, Any], types: frozenset[str]
) -> Iterator[str]:
    for keyword, kind, unit in _SIZES:
        if kind not in types or keyword not in new:
            continue
        least = keyword.startswith("min")
        before, now = old.get(keyword, 0 if least else math.inf), new[keyword]
        if now > before if least else now < before:
            words = "at least" if least else "at most"
            earlier = "any number" if before == math.inf else before
            yield f"{words} {now} {unit} now, {earlier} before"


def _has_own_base(root: Mapping[str, Any]) -> bool:
    return '"$id": ' in _text({key: value for key, value in root.items() if key != "$id"})


def _refers_to_definitions(text: str) -> bool:
    return all(target.startswith(_DEFINITIONS) for target in _REFERENCE.findall(text))


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _text(value: Any) -> str:
    """Return JSON by which values are told apart: for Python, True is 1."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False)


def _listed(values: Iterable[str]) -> str:
    texts = list(values)
    if not texts:
        return "nothing"
    more = f" and {len(texts) - _MAX_NAMED} more" if len(texts) > _MAX_NAMED else ""
    return ", ".join(texts[:_MAX_NAMED]) + more


def _verb(values: Sequence[Any]) -> str:
    return "is" if len(values) == 1 else "are"


def _number_or_none(number: float | None) -> str:
    return "none" if number is None else f"{number:g}"
