from __future__ import annotations

import gzip
import json
import struct
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crossfade.sidecar.config import Config, Inputs, Tensor
from crossfade.sidecar.contract import MAX_FIELDS, MAX_VIOLATIONS, Contract, SchemaContract
from crossfade.sidecar.messages import Headers, Request, Violation

Schema = dict[str, Any]

PERSON: Schema = {
    "type": "object",
    "properties": {
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "country": {"enum": ["de", "fr"]},
        "since": {"type": "string", "format": "date"},
    },
    "required": ["age"],
    "additionalProperties": False,
}
ROWS: Schema = {
    "type": "object",
    "properties": {"rows": {"type": "array", "items": {"$ref": "#/$defs/person"}}},
    "required": ["rows"],
    "$defs": {"person": PERSON},
}
AGE = Tensor(name="age", datatype="FP32", shape=(-1,), min=0, max=120)
INFER = "/v2/models/m/infer"


def contract(
    schema: Schema | None = None,
    tensors: tuple[Tensor, ...] | None = None,
    paths: tuple[str, ...] | None = None,
    protocol: Any = "http",
    inputs: bool = True,
    max_body_bytes: int = 10**7,
) -> Contract:
    return Contract(
        Config(
            namespace="n", name="orders", model="m", version="1", revision="r",
            port=1, admin_port=2, model_port=3, protocol=protocol,
            inputs=Inputs(schema=schema, tensors=tensors, paths=paths) if inputs else None,
            max_body_bytes=max_body_bytes,
        )
    )  # fmt: skip


def violations(
    checked: Contract, value: Any, *headers: tuple[bytes, bytes], target: str = INFER
) -> tuple[Violation, ...]:
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    return checked.check(Request("POST", target, headers, body))[0]


def labels(checked: Contract, value: Any, *headers: tuple[bytes, bytes]) -> set[tuple[str, str]]:
    return {(one.field, one.rule) for one in violations(checked, value, *headers)}


def test_without_inputs_nothing_is_checked() -> None:
    assert not contract(inputs=False).applies_to("POST", INFER)


def test_http_checks_every_request_with_a_body() -> None:
    checked = contract(schema=PERSON)
    for method in ("POST", "PUT", "PATCH", "post", "REPORT"):
        assert checked.applies_to(method, "/any;thing/../at//all")
    for method in ("GET", "HEAD", "OPTIONS", "DELETE"):
        assert not checked.applies_to(method, "/predict")
    assert violations(checked, {"age": 1}, target="//any;thing") == ()


@pytest.mark.parametrize(
    ("target", "applies"),
    [
        ("/v2/models/m/infer", True),
        ("/v2/models/m/versions/1/infer?x=/", True),
        ("/v2/models/m/generate", True),
        ("/v2/models/m/generate_stream", True),
        ("/v2/models/m/versions/1/infer_stream", True),
        ("/v2/models/m/infer/", True),
        ("/V2/Models/m/INFER", True),
        ("/v2/models/a%20b%C3%A9/infer", True),
        ("/invocations", True),
        ("/v2/models/m/ready", False),
        ("/v2/models/m/inference", False),
        ("/v2/repository/models/m/load", False),
        ("/v2/repository/index?a=%69", False),
        ("/", False),
        ("/metrics", False),
    ],
)
def test_open_inference_checks_what_infers(target: str, applies: bool) -> None:
    checked = contract(tensors=(AGE,), protocol="openInference")
    assert checked.applies_to("POST", target) is applies
    assert ("", "path") not in {
        (one.field, one.rule) for one in violations(checked, {}, target=target)
    }


@pytest.mark.parametrize(
    "target",
    [
        "/v2/models/m/%69nfer",
        "/v2/models/m/infe%72",
        "/v2/models/m%2Finfer",
        "/v2/models/m%2finfer",
        "/v2/models/m%5Cinfer",
        "/v2/models/m%c0%afinfer",
        "/v2/models/m/infer%00",
        "/v2/models/m/infer%3Bx",
        "/v2/models/m/infer%",
        "/v2/models/m/infer%4",
        "/v2/models/m/infer%zz",
        "/v2/models/m/%2569nfer",
        "/v2//models/m/infer",
        "//v2/models/m/infer",
        "/v2/models/m/infer//",
        "/v2/./models/m/infer",
        "/v2/x/../models/m/infer",
        "/v2/%2e%2E/models/m/infer",
        "/v2/models/m/infer/..",
        "/v2/models/m/infer/.",
        "/v2/models/m/infer;x=1",
        "/v2\\models\\m\\infer",
        "/v2/models/m/infer#x",
        "/v2/models/m/ infer",
        "/v2/models/m/infer\t",
        "/v2/models/m/infer\n",
        "/v2/models/\u00e9/infer",
        "http://host/v2/models/m/infer",
        "v2/models/m/infer",
        "*",
        "",
        "?/v2/models/m/infer",
    ],
)
def test_a_path_in_disguise_is_no_way_around(target: str) -> None:
    for checked in (
        contract(tensors=(AGE,), protocol="openInference"),
        contract(schema=PERSON, paths=("/predict",)),
    ):
        assert checked.applies_to("POST", target)
        ((violation),) = violations(checked, {"age": 1}, target=target)
        assert (violation.field, violation.rule) == ("", "path")


def test_only_the_paths_of_the_contract() -> None:
    checked = contract(schema=PERSON, paths=("/predict", "/b%C3%A9"))
    for target in ("/predict", "/predict?a=b", "/Predict/", "/b%c3%a9"):
        assert checked.applies_to("POST", target)
    for target in ("/predict/all", "/pre", "/b"):
        assert not checked.applies_to("POST", target)


@given(st.text(max_size=8), st.text(alphabet="infer%/.;\\\t69", max_size=8))
def test_what_a_server_may_read_as_an_inference_is_never_passed_over(
    before: str, after: str
) -> None:
    checked = contract(tensors=(AGE,), protocol="openInference")
    target = f"/v2/models/{before}/{after}"
    if not checked.applies_to("POST", target):
        assert "infer" not in target.lower().partition("?")[0].rstrip("/").split("/")[4:]
        path = target.partition("?")[0]
        assert quote(path, safe="/!$&'()*+,=:@%") == path


def test_fields_are_named_by_the_schema_and_messages_by_the_request() -> None:
    checked = contract(schema=ROWS)
    assert violations(checked, {"rows": [{"age": 3}, {"age": 3, "since": "2026-01-31"}]}) == ()
    found = violations(
        checked,
        {"rows": [{"age": 3}, {"age": -1}, {"age": "x", "since": "31.1."}, {"SECRET": "SECRET"}]},
    )
    assert {(one.field, one.rule) for one in found} == {
        ("rows[].age", "minimum"),
        ("rows[].age", "type"),
        ("rows[].since", "format"),
        ("rows[].age", "required"),
        ("rows[].(other)", "additionalProperties"),
    }
    assert "rows[1].age: the value is less than the minimum of 0" in {one.message for one in found}
    assert not any("SECRET" in one.field + one.rule for one in found)
    assert labels(checked, {}) == {("rows", "required")}
    assert labels(checked, []) == {("", "type")}


def test_names_that_only_the_request_knows_are_no_labels() -> None:
    checked = contract(
        schema={
            "additionalProperties": {"type": "integer"},
            "patternProperties": {"^p": {"type": "integer"}},
            "propertyNames": {"maxLength": 9},
        }
    )
    assert labels(checked, {"SECRET": "x", "pSECRET": "x", "SECRETSECRET": 1}) == {
        ("(other)", "type"),
        ("(other)", "propertyNames"),
    }


def test_required_by_another_property() -> None:
    checked = contract(schema={"dependentRequired": {"card": ["expiry"]}})
    assert labels(checked, {"card": 1}) == {("expiry", "required")}


def test_fields_are_bounded_where_a_schema_refers_to_itself() -> None:
    tree = {
        "properties": {name: {"$ref": "#"} for name in "abcdefgh"},
        "additionalProperties": False,
    }
    checked = contract(schema=tree)
    fields = set()
    for first in "abcdefgh":
        for second in "abcdefgh":
            for third in "abcdefgh":
                fields |= labels(checked, {first: {second: {third: {"x": 1}}}})
    assert len(fields) == MAX_FIELDS + 1
    assert ("(other)", "additionalProperties") in fields


def test_violations_and_messages_are_bounded() -> None:
    found = violations(contract(schema=ROWS), {"rows": [1] * 100})
    assert len(found) == MAX_VIOLATIONS
    closed = contract(schema={"properties": {"a": {}}, "additionalProperties": False})
    (long,) = violations(closed, {"x" * 9999: 1})
    assert len(long.message) == 300


@pytest.mark.timeout(60)
def test_large_bodies_are_searched_part_by_part() -> None:
    checked = contract(schema=ROWS)
    good = [{"age": 3}] * 4000
    assert violations(checked, {"rows": good}) == ()
    (one,) = violations(checked, {"rows": [*good, {"age": 121}]})
    assert (one.field, one.rule) == ("rows[].age", "maximum")
    assert one.message.startswith("rows[4000].age: ")
    assert len(violations(checked, {"rows": [0] * 300_000})) == MAX_VIOLATIONS


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("schema", "value", "field"),
    [
        ({"anyOf": [{"items": {"type": "null"}}, {"items": False}]}, [1] * 300_000, ""),
        ({"oneOf": [{}, {}]}, ["x"] * 300_000, ""),
        ({"properties": {"a": {"maxItems": 3}}}, {"a": [0] * 1000}, "a"),
        ({"required": ["a"]}, {str(n): 0 for n in range(100_000)}, ""),
        ({"$ref": "#/$defs/a", "maxItems": 3, "$defs": {"a": {}}}, [0] * 1000, ""),
        ({"prefixItems": [{"type": "null"}]}, [0] * 1000, ""),
        ({"prefixItems": [{}], "items": {"type": "null"}}, ["x", *[None] * 999, 0], ""),
        ({"patternProperties": {"a": False}}, {f"a{n}": 0 for n in range(1000)}, ""),
        (
            {"patternProperties": {"a": {}}, "additionalProperties": {"type": "null"}},
            {f"a{n}": 0 for n in range(1000)} | {"b": 0},
            "",
        ),
    ],
)
def test_large_bodies_whose_errors_are_too_many_to_tell(
    schema: Schema, value: Any, field: str
) -> None:
    assert labels(contract(schema=schema), value) == {(field, "schema")}


def test_parts_of_large_bodies_have_the_names_of_their_pointers() -> None:
    for name in ("a/b", "a~b", "a b%41", "\u00e9", ""):
        checked = contract(schema={"properties": {name: {"items": {"type": "null"}}}})
        assert labels(checked, {name: [0] * 1000}) == {(f".{name}[]".removeprefix("."), "type")}
    checked = contract(schema={"additionalProperties": {"type": "null"}})
    assert labels(checked, {f"a{n}": 0 for n in range(1000)}) == {("(other)", "type")}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("pattern", ["^(a+)+$", "(a|aa)*c$", "(.*)(.*)(.*)(.*)x$"])
def test_patterns_match_in_linear_time(pattern: str) -> None:
    assert labels(contract(schema={"pattern": pattern}), "a" * 200_000 + "b") == {("", "pattern")}


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "wrong"},
        {"pattern": "("},
        {"pattern": "(?=a)b"},
        {"pattern": "(a{1000}){1000}"},
        {"$ref": "#/$defs/none"},
        {"$ref": "http://127.0.0.1:9/schema"},
        {"$ref": "file:///etc/hostname"},
        {"properties": {"a": {"$ref": "other.json"}}},
        {"$schema": "http://127.0.0.1:9/meta"},
    ],
)
def test_schemas_that_cannot_be_checked_are_told_at_the_start(schema: Schema) -> None:
    with pytest.raises(ValueError, match="the schema of inputs is invalid: "):
        contract(schema=schema)


def test_no_schema_is_fetched(tmp_path: Path) -> None:
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(ValueError, match="Retrieval is disabled"):
        contract(schema={"$ref": f"{tmp_path.as_uri()}/other.json"})


def test_what_is_invalid_is_refused_even_if_nothing_is_told_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Silent:
        def is_valid(self, value: Any) -> bool:
            return False

        def iter_errors(self, value: Any) -> list[Any]:
            return []

    checked = SchemaContract({})
    monkeypatch.setattr(checked, "_root", Silent())
    assert [(one.field, one.rule) for one in checked.check(1)] == [("", "schema")]


def test_contracts_that_cannot_be() -> None:
    with pytest.raises(ValueError, match="either"):
        contract()
    with pytest.raises(ValueError, match="either"):
        contract(schema={}, tensors=(AGE,), protocol="openInference")
    with pytest.raises(ValueError, match="openInference"):
        contract(tensors=(AGE,))
    with pytest.raises(ValueError, match="canonical"):
        contract(schema={}, paths=("/a//b",))
    with pytest.raises(ValueError, match="canonical"):
        contract(schema={}, paths=("/a?b",))
    with pytest.raises(ValueError, match="minimum"):
        contract(tensors=(Tensor(name="x", datatype="FP32", shape=(), min=2, max=1),),
                 protocol="openInference")  # fmt: skip


def test_other_drafts() -> None:
    draft = "http://json-schema.org/draft-07/schema#"
    checked = contract(schema={"$schema": draft, "items": [{"type": "null"}], "format": "date"})
    assert labels(checked, [1]) == {("[]", "type")}
    assert labels(checked, "x") == {("", "format")}


def test_unreadable_bodies_are_violations_without_a_document() -> None:
    checked = contract(schema=PERSON, max_body_bytes=1000)
    for body, headers, rule in (
        (b'{"age": 1, "age": -1}', (), "duplicate"),
        (b"{", (), "truncated"),
        (b"1", ((b"content-type", b"text/plain"),), "contentType"),
        (gzip.compress(b" " * 10_000), ((b"content-encoding", b"gzip"),), "size"),
    ):
        found, document = checked.check(Request("POST", "/x", headers, body))
        assert [(one.field, one.rule) for one in found] == [("", rule)]
        assert document is None


def test_the_document_comes_with_the_violations() -> None:
    checked = contract(schema=PERSON)
    found, document = checked.check(Request("POST", "/x", (), b'{"age": -1}'))
    assert document is not None
    assert (len(found), document.value) == (1, {"age": -1})


def binary(count: int, header: dict[str, Any] | None = None) -> tuple[bytes, Headers]:
    tensor = {"name": "age", "datatype": "FP32", "shape": [count],
              "parameters": {"binary_data_size": 4 * count}}  # fmt: skip
    start = json.dumps(header or {"inputs": [tensor]}).encode()
    length = (b"Inference-Header-Content-Length", str(len(start)).encode())
    return start + struct.pack(f"<{count}f", *range(count)), (length,)


def test_tensors_in_json_and_in_binary_data() -> None:
    checked = contract(tensors=(AGE,), protocol="openInference")
    sent = {"name": "age", "datatype": "FP32", "shape": [2], "data": [1, 2]}
    assert labels(checked, {"inputs": [sent]}) == set()
    assert labels(checked, {"inputs": [sent | {"data": [1, 121]}]}) == {("age", "maximum")}
    assert labels(checked, {"inputs": [sent | {"name": "SECRET"}]}) == {
        ("(other)", "unknown"),
        ("age", "required"),
    }
    assert labels(checked, {"text_input": "hi"}) == {("", "inputs")}
    body, headers = binary(121)
    assert labels(checked, body, *headers) == set()
    body, headers = binary(122)
    assert labels(checked, body, *headers) == {("age", "maximum")}
    assert labels(checked, body[:-1], *headers) == {("", "binaryData")}


def test_a_schema_says_nothing_of_binary_data_so_it_is_refused() -> None:
    checked = contract(schema={}, protocol="openInference")
    body, headers = binary(2)
    assert labels(checked, body, *headers) == {("", "binaryData")}
    assert labels(checked, {"inputs": []}) == set()


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["2026-01-31", "de", -1, 1e999]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["rows", "age", "since", "inputs", "name", "shape", "x"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=15,
)
CHECKED = (
    contract(schema=ROWS),
    contract(schema=PERSON, protocol="openInference"),
    contract(tensors=(AGE,), protocol="openInference"),
)


@settings(deadline=None)
@given(
    st.sampled_from(CHECKED),
    st.binary(max_size=100) | JSON.map(lambda value: json.dumps(value).encode()),
    st.lists(
        st.tuples(
            st.sampled_from([b"Content-Type", b"Content-Encoding", b"Accept"]),
            st.binary(max_size=8) | st.sampled_from([b"application/json", b"gzip"]),
        ),
        max_size=2,
    ),
    st.text(max_size=10) | st.just(INFER),
)
def test_whatever_comes_is_checked_without_an_exception(
    checked: Contract, body: bytes, headers: list[tuple[bytes, bytes]], target: str
) -> None:
    checked.applies_to("POST", target)
    found, document = checked.check(Request("POST", target, tuple(headers), body))
    assert found or document is not None
    known = {"", "rows", "rows[]", "rows[].(other)", "(other)"}
    known |= {f"{start}{name}" for start in ("", "rows[].") for name in ("age", "country", "since")}
    assert {one.field for one in found} <= known


LEAVES: list[Schema] = [
    {"type": "integer"},
    {"type": ["string", "null"]},
    {"type": "number", "exclusiveMinimum": 0, "maximum": 10},
    {"type": "integer", "multipleOf": 3},
    {"enum": [1, "a", None, [1]]},
    {"const": False},
    {"type": "string", "minLength": 1, "maxLength": 2},
    {"pattern": "^[ab]+$"},
    {"not": {"type": "null"}},
    {},
]
NAMES = ("a", "b", "c")


def composed(inner: st.SearchStrategy[Schema]) -> st.SearchStrategy[Schema]:
    return st.one_of(
        st.builds(lambda item: {"type": "array", "items": item}, inner),
        st.builds(lambda item, n: {"items": item, "maxItems": n}, inner, st.integers(0, 3)),
        st.builds(lambda one: {"prefixItems": [one], "uniqueItems": True}, inner),
        st.builds(
            lambda properties, required, others: {
                "type": "object",
                "properties": properties,
                "required": required,
                "additionalProperties": others,
            },
            st.dictionaries(st.sampled_from(NAMES), inner, max_size=3),
            st.lists(st.sampled_from(NAMES), max_size=2, unique=True),
            st.booleans(),
        ),
        st.builds(
            lambda keyword, one, two: {keyword: [one, two]},
            st.sampled_from(["anyOf", "oneOf", "allOf"]),
            inner,
            inner,
        ),
        st.builds(lambda one: {"$ref": "#/$defs/d", "$defs": {"d": one}}, inner),
    )


SCHEMAS = st.recursive(st.sampled_from(LEAVES), composed, max_leaves=6)
VALUES = st.recursive(
    st.sampled_from([None, True, False, 0, 1, 3, 3.0, 2.5, -1, 11, "", "a", "ab", "abc", "x"]),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=3)
    ),
    max_leaves=10,
)


def without_references(schema: Any) -> Any:
    """Put definitions in the place of references, which pointers from the root do not find."""
    if isinstance(schema, list):
        return [without_references(one) for one in schema]
    if isinstance(schema, dict) and "$ref" in schema:
        return {"allOf": [without_references(schema["$defs"]["d"])]}
    if isinstance(schema, dict):
        return {name: without_references(one) for name, one in schema.items()}
    return schema


@settings(max_examples=150, deadline=None)
@given(SCHEMAS, st.lists(VALUES, min_size=5, max_size=15), st.booleans())
def test_what_jsonschema_refuses_is_refused(schema: Schema, values: list[Any], large: bool) -> None:
    nested = without_references(schema)
    reference = jsonschema.Draft202012Validator(nested)
    checked = contract(schema={"items": {"items": nested}} if large else nested)
    for value in values:
        body = [[value] * 600] if large else value
        assert (violations(checked, body) == ()) == reference.is_valid(value)
