from __future__ import annotations

import gzip
import json
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossfade.sidecar.documents import (
    MAX_DEPTH,
    Unreadable,
    has_binary_data,
    parse_answer,
    parse_json,
    parse_request,
)
from crossfade.sidecar.messages import Answer, Document, Headers, Request

JSON_HEADERS: Headers = ((b"Content-Type", b"application/json"),)


def request_of(body: bytes, *headers: tuple[bytes, bytes]) -> Request:
    return Request("POST", "/v2/models/m/infer", headers, body)


def parse(
    body: bytes, *headers: tuple[bytes, bytes], protocol: str = "http", max_bytes: int = 10**6
) -> Document:
    return parse_request(request_of(body, *headers), protocol, max_bytes)


def rule_of(body: bytes, *headers: tuple[bytes, bytes], **options: Any) -> str:
    with pytest.raises(Unreadable) as caught:
        parse(body, *headers, **options)
    assert str(caught.value)
    return caught.value.rule


def infer(*tensors: dict[str, Any], binary: bytes | None = None) -> Document:
    """Parse a request of the Open Inference Protocol."""
    header = json.dumps({"inputs": tensors}).encode()
    if binary is None:
        return parse(header, *JSON_HEADERS, protocol="openInference")
    length = (b"Inference-Header-Content-Length", str(len(header)).encode())
    return parse(header + binary, length, protocol="openInference")


def infer_rule(*tensors: dict[str, Any], binary: bytes | None = None) -> str:
    with pytest.raises(Unreadable) as caught:
        infer(*tensors, binary=binary)
    return caught.value.rule


def tensor(**fields: Any) -> dict[str, Any]:
    """A tensor of two numbers."""
    return {"name": "x", "datatype": "FP32", "shape": [2], "data": [1.5, 2.5]} | fields


def binary_tensor(datatype: str, shape: list[int], size: Any, **fields: Any) -> dict[str, Any]:
    parameters = {"binary_data_size": size}
    return {"name": "x", "datatype": datatype, "shape": shape, "parameters": parameters} | fields


@pytest.mark.parametrize(
    ("body", "rule"),
    [
        (b"", "empty"),
        (b" \n", "empty"),
        (b'{"a": 1', "truncated"),
        (b'"\\ud800"', "truncated"),
        (b'{"a": NaN}', "json"),
        (b"[-Infinity]", "json"),
        (b"{'a': 1}", "json"),
        (b'{"a": 1} {"a": 2}', "json"),
        (b'{"a": 1,}', "json"),
        (b'"\\udc00\\udc00"', "json"),
        (b'\xef\xbb\xbf{"a": 1}', "encoding"),
        ('{"a": 1}'.encode("utf-16"), "encoding"),
        (b'{"a": "\xff"}', "encoding"),
        (b'{"a": "\xed\xa0\x80"}', "encoding"),
        (b'{"a": 1e999}', "number"),
        (b'{"a": ' + b"1" * 5000 + b"}", "number"),
        (b'{"a": [18446744073709551616]}', "number"),
        (b"-9223372036854775809", "number"),
        (b'{"a": 1, "a": 2}', "duplicate"),
        (b'[{"b": {"a": 1, "\\u0061": 1}}]', "duplicate"),
        (b'{"a" \n: "::", "b": "\\":", "a":1}', "duplicate"),
        (b"[" * 101 + b"]" * 101, "depth"),
        (b'{"a":' * 101 + b"1" + b"}" * 101, "depth"),
        (b"[" * 100_000, "depth"),
    ],
)
def test_what_two_parsers_may_read_in_two_ways_is_refused(body: bytes, rule: str) -> None:
    assert rule_of(body) == rule


@pytest.mark.parametrize(
    "body",
    [
        b'{"time": "12:30:00", "note": "\\"a\\": 1, \\u003a", ":": {"::": "\\\\"}}',
        b'[{"a": 1}, {"a": 1}, {"A": {"a": "a"}}]',
        b"[18446744073709551615, -9223372036854775808, 1e300, 12345678901234567890.5]",
        b'"12345678901234567890123"',
        b"[" * 100 + b"]" * 100,
        b'{"a":' * 100 + b"1" + b"}" * 100,
        b"-0.0",
        '"\U0001f600 \u00e9"'.encode(),
        b'"\\ud83d\\ude00"',
    ],
)
def test_what_all_parsers_read_alike_is_accepted(body: bytes) -> None:
    assert parse(body).value == json.loads(body)


def test_depth_does_not_depend_on_the_number_of_brackets() -> None:
    assert parse(b"[" + b"[]," * 5000 + b"[]]").value == [[]] * 5001
    assert rule_of(b"[" + b"[]," * 5000 + b"[" * 100 + b"]" * 100 + b"]") == "depth"


class Twice(Exception):  # noqa: N818
    pass


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise Twice
    return found


KEYS = st.sampled_from(["a", "b", ":", '"', "\\", '":', '\\":', "a:b", "", "\u00e9"])


def write(value: Any, escape: bool) -> str:
    """Write JSON in which objects are lists of pairs, and colons may be escaped."""
    if isinstance(value, tuple):
        pairs = (f"{write(key, escape)} :{write(one, escape)}" for key, one in value)
        return "{" + ",".join(pairs) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(write(one, escape) for one in value) + "]"
    text = json.dumps(value)
    return text.replace(":", "\\u003a") if escape else text


VALUES = st.recursive(
    KEYS | st.integers(-9, 9) | st.none(),
    lambda inner: (
        st.lists(inner, max_size=3) | st.lists(st.tuples(KEYS, inner), max_size=4).map(tuple)
    ),
    max_leaves=12,
)


@given(VALUES, st.booleans())
def test_a_key_twice_is_told_as_the_standard_library_tells_it(value: Any, escape: bool) -> None:
    text = write(value, escape).encode()
    try:
        expected = json.loads(text, object_pairs_hook=unique)
    except Twice:
        assert rule_of(text) == "duplicate"
    else:
        assert parse(text).value == expected


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_read_as_the_standard_library_reads_them_or_not_at_all(
    body: bytes,
) -> None:
    try:
        value = parse_json(body)
    except Unreadable:
        return
    assert value == json.loads(body)


@given(st.data())
def test_mutated_bodies_raise_nothing_else(data: st.DataObject) -> None:
    body = bytearray(
        json.dumps({"inputs": [tensor(), tensor(name="y", shape=[1, 2], data=[[1, 2]])]}).encode()
    )
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(body)))
        body[at : at + data.draw(st.integers(0, 5))] = data.draw(
            st.binary(max_size=4) | st.sampled_from([b"[", b"{", b'"', b"1e999", b"-", b"null"])
        )
    headers = data.draw(
        st.lists(
            st.tuples(
                st.sampled_from(
                    [
                        b"content-type",
                        b"Content-Encoding",
                        b"inference-header-content-length",
                    ]
                ),
                st.sampled_from([b"gzip", b"application/json", b"", b"20", b"\xff", b"9" * 40])
                | st.binary(max_size=10),
            ),
            max_size=3,
        )
    )
    try:
        document = parse(bytes(body), *headers, protocol="openInference")
    except Unreadable as unreadable:
        rule = unreadable.rule
    else:
        rule = "readable"
        assert document.value is not None
    assert rule.isalpha()


@pytest.mark.parametrize(
    "kind",
    [
        b"application/json",
        b"Application/JSON; charset=UTF-8",
        b'application/vnd.api+json;charset="utf8"',
        b"application/json; profile=x",
    ],
)
def test_json_content_types(kind: bytes) -> None:
    assert parse(b"1", (b"content-type", kind)).value == 1


@pytest.mark.parametrize(
    ("headers", "rule"),
    [
        (((b"Content-Type", b"text/plain"),), "contentType"),
        (((b"Content-Type", b"application/octet-stream"),), "contentType"),
        (((b"Content-Type", b"application/jsonx"),), "contentType"),
        (((b"Content-Type", b"application/json, text/plain"),), "contentType"),
        (JSON_HEADERS * 2, "contentType"),
        (((b"Content-Type", b"application/json; charset=utf-16"),), "charset"),
        (((b"Content-Type", b"application/json; charset=utf-8; charset = latin1"),), "charset"),
        (((b"Content-Encoding", b"br"),), "contentEncoding"),
        (((b"Content-Encoding", b"deflate"),), "contentEncoding"),
        (((b"Content-Encoding", b"gzip, gzip"),), "contentEncoding"),
        (((b"Content-Encoding", b"gzip"), (b"content-encoding", b"gzip")), "contentEncoding"),
        (((b"Content-Encoding", b"gzip"),), "contentEncoding"),
        (((b"Inference-Header-Content-Length", b"1"),), "binaryData"),
    ],
)
def test_types_and_encodings_that_are_not_understood(headers: Headers, rule: str) -> None:
    assert rule_of(b"1", *headers) == rule


GZIP = (b"Content-Encoding", b"GZip")


def test_gzip_is_inflated() -> None:
    assert parse(gzip.compress(b'{"a": 1}'), GZIP).value == {"a": 1}
    assert parse(b"1", (b"Content-Encoding", b"identity")).value == 1


def test_gzip_is_inflated_to_the_limit_and_not_beyond() -> None:
    assert parse(gzip.compress(b" " * 99 + b"1"), GZIP, max_bytes=100).value == 1
    assert rule_of(gzip.compress(b" " * 100 + b"1"), GZIP, max_bytes=100) == "size"
    assert rule_of(gzip.compress(b" " * 10**8), GZIP) == "size"
    assert rule_of(b" " * 100 + b"1", max_bytes=100) == "size"


def test_gzip_that_is_not_all_of_the_body() -> None:
    whole = gzip.compress(b'{"a": 1}')
    assert rule_of(whole[:-1], GZIP) == "contentEncoding"
    assert rule_of(whole + whole, GZIP) == "contentEncoding"
    assert rule_of(whole + b"x", GZIP) == "contentEncoding"
    assert rule_of(zlib.compress(b"1"), GZIP) == "contentEncoding"


def test_tensors_in_json_are_flattened() -> None:
    document = infer(
        tensor(shape=[2, 2], data=[[1, 2], [3, 4]]),
        tensor(name="flat", shape=[2, 2], data=[1, 2, 3, 4]),
        tensor(name="text", datatype="BYTES", data=["a", None]),
        tensor(name="none", shape=[0, 3], data=[]),
    )
    assert document.tensors is not None
    tensors = document.tensors.by_name
    assert tensors["x"].data == tensors["flat"].data == [1, 2, 3, 4]
    assert (tensors["x"].shape, tensors["x"].datatype) == ((2, 2), "FP32")
    assert tensors["text"].data == ["a", None]
    assert tensors["none"].data == []


@pytest.mark.parametrize(
    ("wrong", "rule"),
    [
        ({"data": None}, "data"),
        ({"data": "abc"}, "data"),
        ({"data": [1, {}]}, "data"),
        ({"data": [[1, 2], 3]}, "data"),
        ({"data": [[1, 2, 3], [4]]}, "data"),
        ({"name": 1}, "tensor"),
        ({"datatype": None}, "tensor"),
        ({"shape": None}, "tensor"),
        ({"shape": [-1]}, "tensor"),
        ({"shape": [True]}, "tensor"),
        ({"shape": [1.0]}, "tensor"),
        ({"shape": [2**63] * 1000}, "tensor"),
        ({"parameters": []}, "tensor"),
        ({"parameters": {"shared_memory_region": "r"}}, "sharedMemory"),
        ({"parameters": {"binary_data_size": 8}}, "binaryData"),
    ],
)
def test_tensors_that_are_none(wrong: dict[str, Any], rule: str) -> None:
    assert infer_rule(tensor() | wrong) == rule


def test_two_tensors_of_one_name() -> None:
    assert infer_rule(tensor(), tensor()) == "duplicate"


@pytest.mark.parametrize("value", [[], 1, None, {}, {"inputs": "text"}, {"outputs": []}])
def test_json_without_a_list_of_inputs_has_no_tensors(value: Any) -> None:
    document = parse(json.dumps(value).encode(), protocol="openInference")
    assert (document.value, document.tensors) == (value, None)


def test_an_input_must_be_an_object() -> None:
    assert rule_of(b'{"inputs": [1]}', protocol="openInference") == "tensor"


def test_outputs_of_an_answer() -> None:
    body = json.dumps({"model_name": "m", "outputs": [tensor()]}).encode()
    document = parse_answer(Answer(200, JSON_HEADERS, body), "openInference")
    assert document.tensors is not None
    assert document.tensors.by_name["x"].data == [1.5, 2.5]
    with pytest.raises(Unreadable):
        parse_answer(Answer(200, ((b"Content-Type", b"text/html"),), body), "openInference")


def test_binary_data_follows_the_json_in_order() -> None:
    document = infer(
        binary_tensor("INT16", [1, 2], 4),
        tensor(name="json"),
        binary_tensor("BOOL", [3], 3, name="y"),
        binary_tensor("BYTES", [2], 13, name="z"),
        binary=b"\x01\x00\xff\xff\x00\x01\x01\x02\x00\x00\x00\xc3\xa9\x03\x00\x00\x00abc",
    )
    assert document.tensors is not None
    tensors = document.tensors.by_name
    assert list(tensors["x"].data) == [1, -1]
    assert tensors["json"].data == [1.5, 2.5]
    assert tensors["y"].data == [False, True, True]
    assert tensors["z"].data == ["\u00e9", "abc"]
    assert document.value["inputs"][0]["name"] == "x"


@pytest.mark.parametrize(
    ("wrong", "binary"),
    [
        (binary_tensor("FP32", [2], 8), b"1234567"),
        (binary_tensor("FP32", [2], 8), b"123456789"),
        (binary_tensor("FP32", [2], 4), b"1234"),
        (binary_tensor("FP32", [2], -1), b""),
        (binary_tensor("FP32", [2], 8.0), b"12345678"),
        (binary_tensor("FP32", [2], "8"), b"12345678"),
        (binary_tensor("INT8", [1], size=True), b"1"),
        (binary_tensor("FP32", [2], 8, data=[1, 2]), b"12345678"),
        (binary_tensor("FP31", [2], 8), b"12345678"),
        (binary_tensor("BYTES", [1], 8), b"\x04\x00\x00\x00abc"),
        (binary_tensor("BYTES", [1], 8), b"\x05\x00\x00\x00abcd"),
        (binary_tensor("BYTES", [2], 8), b"\x04\x00\x00\x00abcd"),
        (binary_tensor("BYTES", [1], 3), b"\x04\x00\x00"),
        (binary_tensor("BOOL", [1], 1), b"\x02"),
        (tensor(), b"x"),
    ],
)
def test_binary_data_that_is_not_what_was_announced(wrong: dict[str, Any], binary: bytes) -> None:
    assert infer_rule(wrong, binary=binary) == "binaryData"


@pytest.mark.parametrize("length", [b"", b"0", b"-1", b"+2", b"1e1", b"99", b"9" * 50, b"2, 2"])
def test_header_lengths_that_are_none(length: bytes) -> None:
    header = (b"Inference-Header-Content-Length", length)
    assert rule_of(b'{"inputs":[]}', header, protocol="openInference") == "binaryData"


def test_there_is_one_header_length_and_a_list_of_tensors() -> None:
    header = (b"Inference-Header-Content-Length", b"2")
    assert rule_of(b"{}", header, header, protocol="openInference") == "binaryData"
    assert rule_of(b"{}", header, protocol="openInference") == "binaryData"
    assert has_binary_data((header,))
    assert not has_binary_data(JSON_HEADERS)


def test_octets_are_json_only_with_a_header_length() -> None:
    octets = (b"Content-Type", b"application/octet-stream")
    length = (b"Inference-Header-Content-Length", b"13")
    assert parse(b'{"inputs":[]}', octets, length, protocol="openInference").tensors is not None
    assert rule_of(b'{"inputs":[]}', octets, protocol="openInference") == "contentType"


def test_the_deepest_body_is_as_deep_as_jsonpath_looks() -> None:
    assert MAX_DEPTH == 100
