from __future__ import annotations

import copy
from typing import Any

import jsonschema
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from crossfade.sidecar.config import Inputs, Tensor
from crossfade.sidecar.messages import TensorData, Tensors
from crossfade.sidecar.narrowing import narrowings
from crossfade.sidecar.tensors import TensorContract

Schema = dict[str, Any]


def of_schemas(old: Schema, new: Schema) -> tuple[str, ...]:
    return narrowings(Inputs(schema=old), Inputs(schema=new))


def of_tensors(old: Tensor | None, new: Tensor | None) -> tuple[str, ...]:
    return narrowings(
        Inputs(tensors=() if old is None else (old,)),
        Inputs(tensors=() if new is None else (new,)),
    )


def tensor(datatype: str = "FP32", **fields: Any) -> Tensor:
    return Tensor(**({"name": "x", "shape": (-1,), "datatype": datatype} | fields))


def test_no_contract_and_one_that_only_logs_refuse_nothing() -> None:
    strict = Inputs(schema={"type": "object"})
    logged = Inputs(schema={"type": "object"}, on_violation="log")
    assert narrowings(strict, None) == ()
    assert narrowings(None, None) == ()
    assert narrowings(strict, Inputs(schema={"type": "array"}, on_violation="log")) == ()
    (sentence,) = narrowings(None, strict)
    assert sentence == "there was no contract before: every request was accepted"
    (sentence,) = narrowings(logged, strict)
    assert sentence == "violations were only logged before: every request was accepted"


def test_fallback_refuses_as_reject_does() -> None:
    new = Inputs(schema={"type": "object"}, on_violation="fallback")
    assert narrowings(Inputs(schema={}), new) == ("the body: object now, any type before",)


def test_paths() -> None:
    def between(old: tuple[str, ...] | None, new: tuple[str, ...] | None) -> tuple[str, ...]:
        return narrowings(Inputs(schema={}, paths=old), Inputs(schema={}, paths=new))

    assert between(("/a", "/b"), ("/a",)) == ()
    assert between(None, ("/a",)) == ()
    assert between(("/a",), ("/b", "/a")) == ("requests to /b are checked now",)
    assert between(("/a",), None) == ("requests to other paths than /a are checked now",)


def test_a_schema_and_tensors_cannot_be_compared() -> None:
    (sentence,) = narrowings(Inputs(schema={}), Inputs(tensors=(tensor(),)))
    assert sentence.startswith("cannot be compared: ")


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        (tensor(), None, "tensor x: it is not known any more"),
        (None, tensor(), "tensor x: it is new and required"),
        (tensor(optional=True), tensor(), "tensor x: it is required now"),
        (tensor(), tensor("FP64"), "tensor x: its datatype is FP64 now, FP32 before"),
        (tensor(), tensor(shape=(4,)), "tensor x: its shape is [4] now, [-1] before"),
        (tensor(), tensor(shape=(-1, 1)), "tensor x: its shape is [-1, 1] now, [-1] before"),
        (tensor(), tensor(min=0), "tensor x: its minimum is 0 now, none before"),
        (tensor(max=9), tensor(max=8.5), "tensor x: its maximum is 8.5 now, 9 before"),
        (tensor("INT8", max=9), tensor("INT8", max=8.5), "tensor x: its maximum is 8.5 now, 9"),
        (tensor("BYTES"), tensor("BYTES", allowed=("a",)), "tensor x: only a are its categories"),
        (
            tensor("BYTES", allowed=("a", "b", "c")),
            tensor("BYTES", allowed=("b", "d")),
            "tensor x: a, c are accepted no longer",
        ),
        (
            tensor(max_null_percent=5),
            tensor(max_null_percent=1),
            "tensor x: 1 % may be null now, 5 % before",
        ),
    ],
)
def test_narrower_tensors(old: Tensor | None, new: Tensor | None, sentence: str) -> None:
    (found,) = of_tensors(old, new)
    assert found.startswith(sentence)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (None, tensor(optional=True)),
        (tensor(), tensor(optional=True)),
        (tensor(shape=(4,)), tensor()),
        (tensor(min=1, max=2), tensor(min=0, max=3)),
        (tensor(min=1, max=2), tensor()),
        (tensor("UINT8"), tensor("UINT8", min=-3, max=255.5)),
        (tensor("INT8", min=0.2), tensor("INT8", min=1)),
        (tensor("BYTES", allowed=("a",)), tensor("BYTES", allowed=("b", "a"))),
        (tensor("BYTES", allowed=("a",)), tensor("BYTES")),
        (tensor(max_null_percent=1), tensor(max_null_percent=5)),
    ],
)
def test_wider_tensors(old: Tensor | None, new: Tensor | None) -> None:
    assert of_tensors(old, new) == ()


TENSORS = st.builds(
    Tensor,
    name=st.just("x"),
    datatype=st.sampled_from(["INT8", "UINT8", "FP32"]),
    shape=st.sampled_from([(-1,), (1,), (2,), (-1, 1)]),
    min=st.none() | st.sampled_from([-1.0, 0.0, 0.5]),
    max=st.none() | st.sampled_from([1.0, 2.5, 127.0]),
    max_null_percent=st.sampled_from([0.0, 50.0, 100.0]),
    optional=st.booleans(),
)
DATA = st.builds(
    TensorData,
    datatype=st.sampled_from(["INT8", "UINT8", "FP32"]),
    shape=st.sampled_from([(1,), (2,), (1, 1)]),
    data=st.lists(st.sampled_from([None, -2, -1, 0, 1, 2, 3, 100]), min_size=1, max_size=2),
)


@given(TENSORS, TENSORS, st.lists(st.none() | DATA, min_size=1, max_size=8))
def test_what_the_old_tensors_accept_the_new_do_if_nothing_got_narrower(
    old: Tensor, new: Tensor, requests: list[TensorData | None]
) -> None:
    lost = False
    for data in requests:
        sent = Tensors({} if data is None else {"x": data})
        accepted = not list(TensorContract((old,)).check(sent))
        lost = lost or (accepted and bool(list(TensorContract((new,)).check(sent))))
    assert not (lost and of_tensors(old, new) == ())


def row(**properties: Any) -> Schema:
    return {"type": "object", "properties": properties}


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ({}, {"type": "object"}, "the body: object now, any type before"),
        ({"type": ["null", "string"]}, {"type": "string"}, "the body: string now, null or string"),
        ({"type": "number"}, {"type": "integer"}, "the body: integer now, number before"),
        (row(), row() | {"required": ["age"]}, "age: it is required now"),
        (
            row(age={"type": "integer"}),
            row(age={"type": "integer", "minimum": 18}),
            "age: at least 18 now, unbounded before",
        ),
        (
            row(age={"type": "number", "maximum": 9}),
            row(age={"type": "number", "exclusiveMaximum": 9}),
            "age: less than 9 now, at most 9 before",
        ),
        (
            row(age={"type": "integer", "minimum": 1}),
            row(age={"type": "integer", "minimum": 1, "exclusiveMinimum": 1}),
            "age: at least 2 now, at least 1 before",
        ),
        (row(), row() | {"additionalProperties": False}, "the body: properties that it does not"),
        (
            row(a={}) | {"additionalProperties": False},
            row() | {"additionalProperties": False},
            "a: it is refused now",
        ),
        (row(), row(age={"type": "integer"}), "age: it is checked now, it was not before"),
        (row(), row() | {"additionalProperties": {"type": "string"}}, "(others): string now"),
        ({"enum": ["a", "b"]}, {"enum": ["b", "c"]}, 'the body: "a" is accepted no longer'),
        ({"enum": [1, True]}, {"enum": [1]}, "the body: true is accepted no longer"),
        ({"const": 1}, {"minimum": 2}, "the body: 1 is accepted no longer"),
        ({"type": "string"}, {"enum": ["a", "b"]}, 'the body: only "a", "b" are accepted now'),
        ({"type": "string"}, {"const": "a"}, 'the body: only "a" is accepted now'),
        ({"type": "boolean"}, {"const": True}, "the body: false is accepted no longer"),
        (
            {"type": "string", "maxLength": 9},
            {"type": "string", "maxLength": 8},
            "the body: at most 8 characters now, 9 before",
        ),
        ({"type": "array"}, {"type": "array", "minItems": 1}, "the body: at least 1 items now, 0"),
        ({"type": "array"}, {"type": "array", "uniqueItems": True}, "the body: its items must"),
        (
            {"type": "array", "items": row(a={"type": "string"})},
            {"type": "array", "items": row(a={"type": "null"})},
            "[].a: null now, string before",
        ),
        (
            {"type": "array", "prefixItems": [{}, {}]},
            {"type": "array", "prefixItems": [{}, {"type": "null"}]},
            "[1]: null now, any type before",
        ),
        ({"type": "integer"}, {"type": "integer", "multipleOf": 5}, "the body: a multiple of 5"),
        (
            {"type": "number", "multipleOf": 0.01},
            {"type": "number", "multipleOf": 0.02},
            "the body: a multiple of 0.02 now, of 0.01 before",
        ),
        ({"type": "string"}, {"type": "string", "pattern": "^a"}, "the body: its pattern is ^a"),
        (
            {"type": "string", "format": "date"},
            {"type": "string", "format": "date-time"},
            "the body: its format is date-time now, date before",
        ),
        (
            {"$ref": "#/$defs/a", "$defs": {"a": row(x={"type": "string"})}},
            {"$ref": "#/$defs/b", "$defs": {"b": row(x={"type": "null"})}},
            "x: null now, string before",
        ),
        (
            {"anyOf": [{"type": "integer"}, {"type": "null"}]},
            {"type": "integer"},
            "the body: null is accepted no longer",
        ),
        (
            {"anyOf": [{"type": "integer"}, {"type": "null"}]},
            {"anyOf": [{"type": "integer", "minimum": 0}, {"type": "null"}]},
            "the body: at least 0 now, unbounded before",
        ),
        ({}, {"not": {"type": "null"}}, "cannot be compared: not of the body"),
        (
            row(a={"type": "string"}),
            row(a={"type": "string", "allOf": [{}, {}]}),
            "cannot be compared: allOf of a",
        ),
        ({}, {"if": {"minimum": 1}, "then": False}, "cannot be compared: if of the body"),
        (
            {"if": {"minimum": 1}},
            {"if": {"minimum": 1}, "then": False},
            "cannot be compared: if of the body",
        ),
        (
            row() | {"patternProperties": {"^a": {}}, "additionalProperties": False},
            row(ab={"type": "string"}) | {"additionalProperties": False},
            "cannot be compared: patternProperties of the body",
        ),
        (
            row() | {"patternProperties": {"^a": {}}, "additionalProperties": False},
            row(ab=False) | {"patternProperties": {"^a": {}}, "additionalProperties": False},
            "cannot be compared: patternProperties of the body",
        ),
        (
            {"$schema": "http://json-schema.org/draft-07/schema#"},
            {"$schema": "https://json-schema.org/draft/2020-12/schema"},
            "cannot be compared: their $schema differs",
        ),
        (
            {"$defs": {"a": {"$id": "https://example.com/a"}}},
            {},
            "cannot be compared: a part of the schema has an $id",
        ),
        (
            {"$ref": "#/$defs/a", "minimum": 1, "$defs": {"a": {}}},
            {"$ref": "#/$defs/a", "minimum": 1, "$defs": {"a": {"maximum": 3}}},
            "cannot be compared: $ref of the body",
        ),
    ],
)
def test_narrower_schemas(old: Schema, new: Schema, sentence: str) -> None:
    (found,) = of_schemas(old, new)
    assert found.startswith(sentence)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ({"type": "object"}, {}),
        ({"type": "object"}, {"title": "A", "description": "B", "type": "object"}),
        ({"type": "integer"}, {"type": ["number", "null"]}),
        ({"type": "integer", "exclusiveMinimum": 0}, {"type": "integer", "minimum": 0.5}),
        ({"type": "integer", "multipleOf": 4}, {"type": "integer", "multipleOf": 2}),
        ({"type": "integer"}, {"type": "integer", "multipleOf": 0.5}),
        ({"type": "string"}, {"type": "string", "minimum": 3, "required": ["a"], "minItems": 1}),
        ({"enum": ["a"]}, {"type": "string", "maxLength": 1}),
        ({"type": "boolean"}, {"enum": [False, True]}),
        (row(a={"type": "string"}) | {"additionalProperties": False}, row(a={"type": "string"})),
        (row() | {"additionalProperties": False}, row(a={}) | {"additionalProperties": False}),
        (row() | {"required": ["a", "b"]}, row() | {"required": ["b"]}),
        ({"type": "integer"}, {"anyOf": [{"type": "null"}, {"type": "number"}]}),
        (
            {"anyOf": [{"type": "integer"}, {"type": "null"}]},
            {"anyOf": [{"type": "null"}, {"type": "integer"}, {"type": "string"}]},
        ),
        ({"not": {"type": "null"}, "minimum": 3}, {"not": {"type": "null"}, "minimum": 2}),
        ({"not": {"type": "null"}}, {}),
        (
            {"$ref": "#/$defs/a", "$defs": {"a": {"type": "string"}}},
            {"type": "string"},
        ),
        ({"allOf": [{"type": "string"}]}, {"type": "string"}),
    ],
)
def test_wider_schemas(old: Schema, new: Schema) -> None:
    assert of_schemas(old, new) == ()


def tree(leaf: Schema) -> Schema:
    node = row(left={"$ref": "#/$defs/node"}, leaf=leaf)
    return {"$ref": "#/$defs/node", "$defs": {"node": node}}


def test_schemas_that_refer_to_themselves() -> None:
    assert of_schemas(tree({"type": "string"}), tree({"type": ["string", "null"]})) == ()
    (sentence,) = of_schemas(tree({"type": "string"}), tree({"type": "null"}))
    assert sentence == "leaf: null now, string before"
    (sentence,) = of_schemas({"$ref": "#"}, {"$ref": "#", "title": "A"})
    assert sentence == "cannot be compared: $ref of the body"


def test_references_that_multiply_end() -> None:
    def doubled(depth: int, leaf: Schema) -> Schema:
        steps = {
            f"d{number}": {"anyOf": [{"$ref": f"#/$defs/d{number + 1}"}] * 2}
            for number in range(depth)
        }
        return {"$ref": "#/$defs/d0", "$defs": steps | {f"d{depth}": leaf}}

    found = of_schemas(doubled(40, {"type": "string"}), doubled(40, {"type": "null"}))
    assert "cannot be compared: there are too many references" in found


KEYWORDS: dict[str, list[Any]] = {
    "type": ["integer", "number", "string", "object", "array", ["string", "null"], "boolean"],
    "enum": [[1, "a"], ["a", "b", None], [True, False], [{}, []]],
    "const": [1, "a", None],
    "minimum": [0, 1, 1.5],
    "exclusiveMinimum": [0, 1],
    "maximum": [1, 2],
    "exclusiveMaximum": [1, 2, 1.5],
    "multipleOf": [1, 2, 0.5],
    "minLength": [0, 1],
    "maxLength": [1, 2],
    "pattern": ["^a", "b$"],
    "required": [[], ["a"], ["a", "b"]],
    "minItems": [0, 1],
    "maxItems": [1, 2],
    "uniqueItems": [True, False],
    "minProperties": [1],
    "maxProperties": [1],
    "patternProperties": [{"^a": {"type": "integer"}}, {"^b": False}],
    "dependentRequired": [{"a": ["b"]}],
    "propertyNames": [{"maxLength": 1}],
    "contains": [{"type": "integer"}],
    "minContains": [0, 2],
    "unevaluatedProperties": [False, {"type": "integer"}],
    "unevaluatedItems": [False],
    "$ref": ["#/$defs/d"],
}
SMALL = st.sampled_from(
    [True, False, {}, {"type": "integer"}, {"type": "string"}, {"minimum": 1}, {"enum": ["a", 1]}]
)
NESTED = {
    "properties": st.dictionaries(st.sampled_from(["a", "b"]), SMALL, max_size=2),
    "additionalProperties": SMALL,
    "items": SMALL,
    "prefixItems": st.lists(SMALL, min_size=1, max_size=2),
    "anyOf": st.lists(SMALL, min_size=1, max_size=3),
    "allOf": st.lists(SMALL, min_size=1, max_size=2),
    "oneOf": st.lists(SMALL, min_size=1, max_size=2),
    "not": SMALL,
    "if": SMALL,
    "then": SMALL,
    "else": SMALL,
}


@st.composite
def pairs(draw: st.DrawFn) -> tuple[Schema, Schema]:
    """Draw two schemas that differ in a few keywords."""
    values = {name: st.sampled_from(choices) for name, choices in KEYWORDS.items()} | NESTED
    names = draw(st.lists(st.sampled_from(sorted(values)), max_size=5, unique=True))
    old = {name: draw(values[name]) for name in names}
    new = copy.deepcopy(old)
    for name in draw(st.lists(st.sampled_from(sorted(values)), max_size=2)):
        new[name] = draw(values[name])
    for name in draw(st.lists(st.sampled_from(sorted(new) or ["type"]), max_size=2)):
        new.pop(name, None)
    for schema in (old, new):
        schema["$defs"] = {"d": draw(SMALL)}
    return old, new


SCALARS = st.sampled_from([None, True, False, 0, 1, 1.5, 2, 3, "", "a", "ab", "b"])
INSTANCES = st.lists(
    SCALARS
    | st.lists(SCALARS, max_size=3)
    | st.dictionaries(st.sampled_from(["a", "b", "ab"]), SCALARS, max_size=3),
    min_size=10,
    max_size=25,
)


@settings(max_examples=400)
@given(pairs(), INSTANCES)
@example(
    (
        {"allOf": [row(a={})], "unevaluatedProperties": False},
        {"properties": {"a": {"type": "integer"}}},
    ),
    [{"a": "b"}],
)
@example(
    (
        {"contains": {"type": "integer"}, "unevaluatedItems": False},
        {"unevaluatedItems": False},
    ),
    [[0]],
)
def test_what_the_old_schema_accepts_the_new_does_if_nothing_got_narrower(
    schemas: tuple[Schema, Schema], instances: list[Any]
) -> None:
    before, now = (jsonschema.Draft202012Validator(schema) for schema in schemas)
    lost = [one for one in instances if before.is_valid(one) and not now.is_valid(one)]
    if lost:
        assert of_schemas(*schemas) != ()
