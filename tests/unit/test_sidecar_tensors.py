from __future__ import annotations

import struct
from array import array
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossfade.sidecar.config import Tensor
from crossfade.sidecar.messages import TensorData, Tensors
from crossfade.sidecar.tensors import DATATYPES, TensorContract, decode, flatten

AGE = Tensor(name="age", datatype="FP32", shape=(-1, 2), min=0, max=120)


def found(
    tensor: Tensor, data: Sequence[Any], shape: Sequence[int] | None = None, datatype: str = ""
) -> list[tuple[str, str]]:
    """Return fields and rules of what is wrong with a tensor."""
    sent = TensorData(
        datatype or tensor.datatype, (len(data),) if shape is None else tuple(shape), data
    )
    violations = list(TensorContract((tensor,)).check(Tensors({tensor.name: sent})))
    assert all(one.message.startswith(f"{tensor.name}: ") for one in violations)
    return [(one.field, one.rule) for one in violations]


def vector(datatype: str, **fields: Any) -> Tensor:
    return Tensor(name="x", datatype=datatype, shape=(-1,), **fields)


NUMPY = {
    "BOOL": "?", "INT8": "i1", "INT16": "<i2", "INT32": "<i4", "INT64": "<i8",
    "UINT8": "u1", "UINT16": "<u2", "UINT32": "<u4", "UINT64": "<u8",
    "FP16": "<f2", "FP32": "<f4", "FP64": "<f8",
}  # fmt: skip


@given(st.sampled_from(sorted(NUMPY)), st.binary(max_size=64))
def test_binary_data_is_decoded_as_numpy_decodes_it(datatype: str, data: bytes) -> None:
    kind = np.dtype(NUMPY[datatype])
    data = data[: len(data) // kind.itemsize * kind.itemsize]
    if datatype == "BOOL":
        data = bytes(byte & 1 for byte in data)
    np.testing.assert_array_equal(list(decode(datatype, data)), np.frombuffer(data, kind))


def test_many_half_floats_are_decoded_in_pieces() -> None:
    numbers = [float(one % 2048) for one in range(150_000)]
    data = struct.pack(f"<{len(numbers)}e", *numbers)
    assert list(decode("FP16", data)) == numbers


def test_brain_floats_are_the_upper_half_of_floats() -> None:
    whole = struct.pack("<3f", 1.0, -2.5, 0.15625)
    halves = b"".join(whole[start + 2 : start + 4] for start in (0, 4, 8))
    assert list(decode("BF16", halves)) == [1.0, -2.5, 0.15625]


@given(st.lists(st.text(max_size=5)))
def test_strings_come_back(strings: list[str]) -> None:
    encoded = [one.encode() for one in strings]
    data = b"".join(struct.pack("<I", len(one)) + one for one in encoded)
    assert decode("BYTES", data) == strings


def test_a_string_that_is_not_utf8_is_replaced() -> None:
    assert decode("BYTES", b"\x02\0\0\0\xffa") == ["\ufffda"]


@given(st.sampled_from([*sorted(DATATYPES), "FP31", ""]), st.binary(max_size=64))
def test_decoding_raises_nothing_but_value_errors(datatype: str, data: bytes) -> None:
    try:
        elements = decode(datatype, data)
    except ValueError as error:
        problem = str(error)
    else:
        problem = "" if len(elements) <= len(data) else "more elements than bytes"
    assert problem != "more elements than bytes"


@given(st.lists(st.integers(0, 4), max_size=4), st.randoms())
def test_nested_data_is_flattened_as_numpy_flattens_it(shape: list[int], random: Any) -> None:
    nested = np.array([random.random() for _ in range(int(np.prod(shape)))]).reshape(shape)
    if shape:
        assert flatten(nested.tolist()) == nested.ravel().tolist()


@pytest.mark.parametrize("data", [None, 1, "ab", {}, [1, {}], [[1], 2], [[1], [2, 3]], [[[1]], []]])
def test_what_is_no_array_is_not_flattened(data: Any) -> None:
    with pytest.raises(ValueError, match="data"):
        flatten(data)


def test_what_fits_the_contract() -> None:
    assert found(AGE, [0, 120, 1.5, 3], (2, 2)) == []
    assert found(AGE, array("f", [0, 120]), (1, 2)) == []
    assert found(AGE, [], (0, 2)) == []


@pytest.mark.parametrize(
    ("data", "shape", "datatype", "rule"),
    [
        ([1, 2], (1, 2), "FP64", "datatype"),
        ([1, 2], (2,), "", "shape"),
        ([1, 2, 3], (1, 3), "", "shape"),
        ([1, 2, 3], (1, 2), "", "shape"),
        ([1], (), "", "shape"),
        (["1", 2], (1, 2), "", "type"),
        ([True, 2], (1, 2), "", "type"),
        ([[1], [2]], (1, 2), "", "type"),
        ([1e39, 2], (1, 2), "", "type"),
        ([1, -0.1], (1, 2), "", "minimum"),
        ([1, 120.1], (1, 2), "", "maximum"),
        ([1, None], (1, 2), "", "nulls"),
        (array("f", [1, float("nan")]), (1, 2), "", "nulls"),
        (array("f", [1, float("inf")]), (1, 2), "", "maximum"),
        (array("f", [1, float("-inf")]), (1, 2), "", "minimum"),
    ],
)
def test_what_does_not_fit_it(
    data: Sequence[Any], shape: tuple[int, ...], datatype: str, rule: str
) -> None:
    assert found(AGE, data, shape, datatype) == [("age", rule)]


def test_both_ends_of_a_range_and_nulls_are_told_together() -> None:
    rules = [rule for _, rule in found(AGE, [None, 121, -1, 5], (2, 2))]
    assert rules == ["nulls", "minimum", "maximum"]


@pytest.mark.parametrize(
    ("datatype", "good", "bad"),
    [
        ("INT8", [-128, 127], [128]),
        ("INT8", [0], [-129]),
        ("INT32", [1], [1.0]),
        ("UINT64", [2**64 - 1], [-1]),
        ("INT64", [2**63 - 1], [2**63]),
        ("BOOL", [True, False], [1]),
        ("BYTES", ["", "a"], [1]),
        ("BYTES", ["a"], [["a"]]),
        ("FP16", [65504, -65504], [65505]),
        ("FP64", [1.7e308, 2**64 - 1], [True]),
    ],
)
def test_elements_are_of_the_datatype(datatype: str, good: list[Any], bad: list[Any]) -> None:
    assert found(vector(datatype), good) == []
    assert found(vector(datatype), bad) == [("x", "type")]


def test_categories() -> None:
    tensor = vector("BYTES", allowed=("de", "fr"))
    assert found(tensor, ["fr", "de", "fr"]) == []
    assert found(tensor, ["fr", "xx"]) == [("x", "allowed")]
    assert found(vector("BYTES", allowed=()), ["de"]) == [("x", "allowed")]


def test_the_share_of_nulls_is_of_all_elements() -> None:
    tensor = vector("BYTES", max_null_percent=25)
    assert found(tensor, ["a", None, "b", "c"]) == []
    assert found(tensor, ["a", None, "b"]) == [("x", "nulls")]
    nan = float("nan")
    assert found(vector("FP64", max_null_percent=50), array("d", [nan, 1])) == []
    assert found(vector("FP64", max_null_percent=100), array("d", [nan, nan])) == []


def test_a_number_equal_to_a_limit_is_within_it_as_the_datatype_stores_it() -> None:
    for datatype, code in (("FP32", "<f"), ("FP16", "<e")):
        stored = array("f", struct.unpack(code, struct.pack(code, 0.1)))
        assert found(vector(datatype, max=0.1), stored) == []
        assert found(vector(datatype, min=0.1), stored) == []
        assert found(vector(datatype, max=0.099), stored) == [("x", "maximum")]


def test_infinite_sums_of_finite_numbers_are_no_nulls() -> None:
    assert found(vector("FP64"), array("d", [1.7e308, 1.7e308])) == []


def test_missing_unknown_and_optional_tensors() -> None:
    contract = TensorContract(
        (AGE, Tensor(name="note", datatype="BYTES", shape=(1,), optional=True))
    )
    age = TensorData("FP32", (1, 2), [1, 2])
    assert list(contract.check(Tensors({"age": age}))) == []
    unknown, missing = contract.check(Tensors({"SECRET": age}))
    assert (unknown.field, unknown.rule) == ("(other)", "unknown")
    assert (missing.field, missing.rule) == ("age", "required")
    (nothing,) = contract.check(None)
    assert (nothing.field, nothing.rule) == ("", "inputs")


@pytest.mark.parametrize(
    "tensors",
    [
        (AGE, AGE),
        (vector("FP31"),),
        (Tensor(name="", datatype="FP32", shape=()),),
        (Tensor(name="x", datatype="FP32", shape=(-2,)),),
        (vector("BYTES", min=1),),
        (vector("BOOL", max=1),),
        (vector("INT8", allowed=("a",)),),
        (vector("FP32", min=2, max=1),),
        (vector("FP32", min=float("nan")),),
        (vector("FP32", max_null_percent=101),),
        (vector("FP32", max_null_percent=float("nan")),),
    ],
)
def test_contracts_that_contradict_themselves(tensors: tuple[Tensor, ...]) -> None:
    with pytest.raises(ValueError, match="contract"):
        TensorContract(tensors)
