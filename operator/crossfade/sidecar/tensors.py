"""Tensors of the Open Inference Protocol: their elements, and what a contract says of them.

Without numpy, for the sidecar's memory's sake: ``array``, and builtins that loop in C.
"""

from __future__ import annotations

import math
import struct
import sys
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final

from crossfade.sidecar.config import Tensor
from crossfade.sidecar.messages import TensorData, Tensors, Violation

OTHER: Final = "(other)"
"""Stands for every name that a contract does not know, where a name becomes a metric's label."""

ELEMENT_BYTES: Final = {
    "BOOL": 1, "INT8": 1, "INT16": 2, "INT32": 4, "INT64": 8,
    "UINT8": 1, "UINT16": 2, "UINT32": 4, "UINT64": 8,
    "FP16": 2, "BF16": 2, "FP32": 4, "FP64": 8,
}  # fmt: skip
"""Of the protocol's datatypes in binary data; BYTES has a length before each element. BF16 is
Triton's addition."""

_ARRAY_CODES: Final = {
    "INT8": "b", "INT16": "h", "INT32": "i", "INT64": "q",
    "UINT8": "B", "UINT16": "H", "UINT32": "I", "UINT64": "Q",
    "FP32": "f", "FP64": "d",
}  # fmt: skip

INTEGER_LIMITS: Final = {
    "INT8": (-(2**7), 2**7 - 1), "INT16": (-(2**15), 2**15 - 1),
    "INT32": (-(2**31), 2**31 - 1), "INT64": (-(2**63), 2**63 - 1),
    "UINT8": (0, 2**8 - 1), "UINT16": (0, 2**16 - 1),
    "UINT32": (0, 2**32 - 1), "UINT64": (0, 2**64 - 1),
}  # fmt: skip

_FLOAT_LIMITS: Final = {
    "FP16": 65504.0, "BF16": 3.3895313892515355e38,
    "FP32": 3.4028234663852886e38, "FP64": sys.float_info.max,
}  # fmt: skip
"""The largest finite numbers; what is larger in JSON would be infinite for the model."""

_ROUNDED: Final = {"FP16": "<e", "FP32": "<f"}
"""struct's names of the datatypes whose limits are compared as the datatype stores them."""

_CHUNK: Final = 65536
"""Half floats become Python floats so many at a time, for the memory's sake."""

DATATYPES: Final = frozenset((*ELEMENT_BYTES, "BYTES"))


def decode(datatype: str, data: bytes) -> Sequence[Any]:
    """Return the elements of a tensor's binary data, which is little-endian.

    BYTES become strings; what is not UTF-8 in them is replaced.

    Raises:
        ValueError: it is not the binary data of such a tensor.
    """
    if datatype == "BYTES":
        return list(_strings(data))
    size = ELEMENT_BYTES.get(datatype)
    if size is None:
        raise ValueError(f"the datatype {datatype[:20]!r} is not known")
    if len(data) % size:
        raise ValueError(f"{len(data)} bytes are no whole number of {datatype} elements")
    if datatype == "BOOL":
        if data.strip(b"\0\1"):
            raise ValueError("a BOOL element is neither 0 nor 1")
        return [byte == 1 for byte in data]
    if datatype == "FP16":
        return _halves(data)
    if datatype == "BF16":
        wide = bytearray(2 * len(data))
        wide[2::4], wide[3::4] = data[::2], data[1::2]
        return _numbers("f", bytes(wide))
    return _numbers(_ARRAY_CODES[datatype], data)


def _numbers(code: str, data: bytes) -> array[Any]:
    numbers: array[Any] = array(code)
    numbers.frombytes(data)
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers


def _halves(data: bytes) -> array[float]:
    numbers = array("f")
    for start in range(0, len(data), 2 * _CHUNK):
        chunk = data[start : start + 2 * _CHUNK]
        numbers.extend(struct.unpack(f"<{len(chunk) // 2}e", chunk))
    return numbers


def _strings(data: bytes) -> Iterator[str]:
    start = 0
    while start < len(data):
        end = start + 4
        if end > len(data):
            raise ValueError("the length of a BYTES element is cut off")
        start, end = end, end + int.from_bytes(data[start:end], "little")
        if end > len(data):
            raise ValueError("a BYTES element is cut off")
        yield data[start:end].decode(errors="replace")
        start = end


def flatten(data: Any) -> list[Any]:
    """Return the elements of a tensor's JSON data, nested or flat, in row-major order.

    Raises:
        ValueError: it is no list, rows have several lengths, or elements are no scalars.
    """
    if not isinstance(data, list):
        raise ValueError("data is no list")  # noqa: TRY004 - it is the sender's value
    elements: list[Any] = data
    while True:
        kinds = set(map(type, elements))
        if dict in kinds:
            raise ValueError("data has an object in it")
        if list not in kinds:
            return elements
        if len(kinds) > 1 or len(set(map(len, elements))) > 1:
            raise ValueError("the rows of data have several lengths")
        elements = list(chain.from_iterable(elements))


@dataclass(frozen=True, slots=True)
class _Rules:
    """What a tensor must be, worked out once."""

    tensor: Tensor
    kinds: frozenset[type]
    """Of its elements in JSON."""
    representable: tuple[float, float]
    """The lowest and highest number of the datatype."""
    lowest: float
    highest: float
    """Of the contract; infinite without one."""


class TensorContract:
    """What the input tensors of a request must be."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        """Raise a ValueError for tensors that contradict themselves."""
        for tensor in tensors:
            _expect_sound(tensor)
        self._rules: Final[Mapping[str, _Rules]] = {one.name: _rules(one) for one in tensors}
        if len(self._rules) != len(tensors):
            raise ValueError("two tensors of the contract have one name")

    def check(self, tensors: Tensors | None) -> Iterator[Violation]:
        """Yield what is wrong with a request's tensors; None: it has none."""
        if tensors is None:
            yield Violation("", "inputs", "the body has no list of inputs")
            return
        for name in tensors.by_name:
            if name not in self._rules:
                yield Violation(OTHER, "unknown", f"{name}: the contract knows no such tensor")
        for name, rules in self._rules.items():
            data = tensors.by_name.get(name)
            if data is not None:
                for rule, message in _check(rules, data):
                    yield Violation(name, rule, f"{name}: {message}")
            elif not rules.tensor.optional:
                yield Violation(name, "required", f"{name}: the tensor is missing")


def _expect_sound(tensor: Tensor) -> None:
    problem = ""
    if not tensor.name:
        problem = "has no name"
    elif tensor.datatype not in DATATYPES:
        problem = f"has the datatype {tensor.datatype}, which the protocol does not know"
    elif any(size < -1 for size in tensor.shape):
        problem = "has a size below -1 in its shape"
    elif tensor.datatype in {"BOOL", "BYTES"} and (tensor.min, tensor.max) != (None, None):
        problem = f"is {tensor.datatype} and has a range"
    elif tensor.allowed is not None and tensor.datatype != "BYTES":
        problem = f"is {tensor.datatype} and has categories"
    elif any(limit is not None and not math.isfinite(limit) for limit in (tensor.min, tensor.max)):
        problem = "has a limit that is no number"
    elif tensor.min is not None and tensor.max is not None and tensor.min > tensor.max:
        problem = "has a minimum above its maximum"
    elif not 0 <= tensor.max_null_percent <= 100:  # noqa: PLR2004 - percent
        problem = "has a share of nulls that is no percentage"
    if problem:
        raise ValueError(f"tensor {tensor.name!r} of the contract {problem}")


def _rules(tensor: Tensor) -> _Rules:
    datatype = tensor.datatype
    largest = _FLOAT_LIMITS.get(datatype, math.inf)
    return _Rules(
        tensor,
        _kinds(datatype),
        INTEGER_LIMITS.get(datatype, (-largest, largest)),
        lowest=_rounded(datatype, tensor.min, -math.inf, min),
        highest=_rounded(datatype, tensor.max, math.inf, max),
    )


def _kinds(datatype: str) -> frozenset[type]:
    if datatype == "BYTES":
        return frozenset({str})
    if datatype == "BOOL":
        return frozenset({bool})
    return frozenset({int} if datatype in INTEGER_LIMITS else {int, float})


def _rounded(
    datatype: str, limit: float | None, without: float, wider: Callable[[float, float], float]
) -> float:
    """Return the limit so that a number equal to it passes as stored: 0.1 is more as FP32."""
    if limit is None:
        return without
    code = _ROUNDED.get(datatype)
    if code is None or abs(limit) > _FLOAT_LIMITS[datatype]:
        return limit
    stored: float = struct.unpack(code, struct.pack(code, limit))[0]
    return wider(limit, stored)


def _check(rules: _Rules, data: TensorData) -> Iterator[tuple[str, str]]:
    """Yield the rules that a tensor breaks, and how."""
    tensor, shape = rules.tensor, data.shape
    if data.datatype != tensor.datatype:
        yield "datatype", f"it is {data.datatype}, not {tensor.datatype}"
        return
    if len(shape) != len(tensor.shape) or not all(
        wanted in {-1, size} for wanted, size in zip(tensor.shape, shape, strict=True)
    ):
        yield "shape", f"its shape is {list(shape)}, not {list(tensor.shape)}"
        return
    count = len(data.data)
    if math.prod(shape) != count:
        yield "shape", f"it has {count} elements, which its shape does not"
        return
    values = _present(data.data)
    if not isinstance(values, array) and not rules.kinds.issuperset(map(type, values)):
        yield "type", f"an element is no {tensor.datatype}"
        return
    nulls = count - len(values)
    if nulls * 100 > tensor.max_null_percent * count:
        share = f"{nulls} of {count}"
        yield "nulls", f"{share} are null, {tensor.max_null_percent:g} % may be"
    if not values:
        return
    if tensor.datatype != "BYTES":
        yield from _check_range(rules, data.data, min(values), max(values))
    elif tensor.allowed is not None and (other := set(values).difference(tensor.allowed)):
        yield "allowed", f"{min(other)!r} is not one of its categories"


def _present(values: Sequence[Any]) -> Sequence[Any]:
    """Return the elements that are not null, or NaN in binary data."""
    if isinstance(values, array):
        if values.typecode in "fd" and not math.isfinite(sum(values)):
            return [value for value in values if not math.isnan(value)]
        return values
    return [value for value in values if value is not None] if None in values else values


def _check_range(
    rules: _Rules, data: Sequence[Any], lowest: float, highest: float
) -> Iterator[tuple[str, str]]:
    least, most = rules.representable
    if not isinstance(data, array) and not (least <= lowest and highest <= most):
        yield "type", f"an element is no {rules.tensor.datatype}"
        return
    if lowest < rules.lowest:
        yield "minimum", f"{lowest} is below the minimum of {rules.tensor.min:g}"
    if highest > rules.highest:
        yield "maximum", f"{highest} is above the maximum of {rules.tensor.max:g}"
