"""Bodies as documents: parsed once, strictly, for all who look into them.

What is parsed here must be what the model reads. So a body that two parsers may read in two ways
is refused: a key twice (Triton's RapidJSON takes the first, Python's json and orjson the last),
numbers beyond 64 bits, several encodings, nesting that a parser may give up on.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Sequence
from math import prod
from typing import Any, Final

import msgspec

from crossfade.sidecar.messages import Answer, Document, Headers, Request, TensorData, Tensors
from crossfade.sidecar.tensors import ELEMENT_BYTES, decode, flatten

MAX_DEPTH: Final = 100
"""Lists and objects within each other; jsonpath-rfc9535 looks no deeper."""

MAX_BYTES: Final = 10 * 1024 * 1024
"""A body's size when it is inflated, where the configuration does not say."""

MAX_VALUES_BYTES: Final = 12
"""Times what a body may have, for what its values take in memory: ten for numbers like 1.5, and
twenty-six for lists of one, of which ten megabytes are more than the sidecar's limit."""

_LEAST_VALUES_BYTES: Final = 64 * 1024 * 1024
"""What values may take in any case."""

_LIST_BYTES: Final = 64
_OBJECT_BYTES: Final = 200
_ELEMENT_BYTES: Final = 40
_TEXT_BYTES: Final = 32
"""What Python takes for a list, an object with up to five keys, an element that is a number, and
what a short text takes more; measured."""

MAX_RANK: Final = 32
"""Dimensions of a tensor; a client's list of sizes is multiplied."""

HEADER_LENGTH: Final = b"inference-header-content-length"
"""The length of the JSON before the binary data: the protocol's binary tensor data extension."""

_READ: Final = frozenset(
    {
        b"content-type",
        b"content-encoding",
        b"content-length",
        b"transfer-encoding",
        HEADER_LENGTH,
    }
)
"""Headers that say how a body is read. To servers after CGI's manner (WSGI) Content_Type is one."""

_DECODE: Final = msgspec.json.Decoder().decode

_DIGITS: Final = bytes(0x30 if 0x30 <= byte <= 0x39 else 0x20 for byte in range(256))  # noqa: PLR2004
"""Translates every digit to 0 and everything else to a space."""

_LONG_NUMBER: Final = b"0" * 19
"""Shorter runs of digits are below 2**63."""

_LOWEST, _HIGHEST = -(2**63), 2**64 - 1
"""What RapidJSON and others read as an integer; beyond it, it becomes a float, or an error."""

_STRING: Final = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"([ \t\r\n]*+:)?')
"""A string of valid JSON; the group matches if it is a key. Never backtracks."""

_JSON: Final = re.compile(rb"application/(?:[\w.+-]+\+)?json")
_OCTETS: Final = b"application/octet-stream"


class Unreadable(ValueError):  # noqa: N818 - it is what the body is
    """A body that is no document, or may be read in two ways."""

    def __init__(self, rule: str, message: str) -> None:
        super().__init__(message)
        self.rule: Final = rule
        """One word, for the metric."""


def parse_request(request: Request, protocol: str, max_bytes: int = MAX_BYTES) -> Document:
    """Return a request's body as a document, of at most ``max_bytes`` when inflated.

    Raises:
        Unreadable: it is none.
    """
    return _parse(request.headers, request.body, protocol, "inputs", max_bytes)


def parse_answer(answer: Answer, protocol: str, max_bytes: int = MAX_BYTES) -> Document:
    """Return an answer's body as a document, likewise."""
    return _parse(answer.headers, answer.body, protocol, "outputs", max_bytes)


def has_binary_data(headers: Headers) -> bool:
    """Tell whether the body is JSON with tensors' binary data behind it."""
    return any(name.lower() == HEADER_LENGTH for name, _ in headers)


def _parse(headers: Headers, body: bytes, protocol: str, key: str, max_bytes: int) -> Document:
    length, kind, encoding = _read_headers(headers)
    _expect_json(kind, binary=length is not None)
    if encoding not in {b"", b"identity"}:
        body = _inflate(encoding, body, max_bytes)
    if len(body) > max_bytes:
        raise Unreadable("size", f"the body is larger than {max_bytes} bytes")
    end = len(body) if length is None else _read_length(length, protocol, len(body))
    if _values_bytes(body[:end]) > max(MAX_VALUES_BYTES * max_bytes, _LEAST_VALUES_BYTES):
        raise Unreadable("size", "the body has too many values, lists or objects")
    if length is None:
        value = parse_json(body)
        return Document(value, _tensors(value, key, None) if protocol == "openInference" else None)
    value = parse_json(body[:end])
    tensors = _tensors(value, key, body[end:])
    if tensors is None:
        raise Unreadable("binaryData", f"there is binary data, but no list of {key}")
    return Document(value, tensors)


def _read_length(length: bytes, protocol: str, size: int) -> int:
    """Return the length of the JSON before the binary data."""
    if protocol != "openInference":
        raise Unreadable("binaryData", "binary tensor data is not understood here")
    if not length.isdigit() or not 0 < int(length[:20]) <= size:
        raise Unreadable("binaryData", "Inference-Header-Content-Length is no length of JSON here")
    return int(length)


def _values_bytes(text: bytes) -> int:
    """Return about what a JSON text takes in memory once it is parsed; of small ones 0."""
    if len(text) < _LEAST_VALUES_BYTES // 32:
        return 0
    texts = max(text.count(b'"') // 2 - text.count(b":"), 0)
    containers = text.count(b"[") * _LIST_BYTES + text.count(b"{") * _OBJECT_BYTES
    return containers + text.count(b",") * _ELEMENT_BYTES + texts * _TEXT_BYTES


def _read_headers(headers: Headers) -> tuple[bytes | None, bytes, bytes]:
    """Return the header length, the content type and the content encoding."""
    length, kind, encoding = None, None, None
    for name, value in headers:
        lower = name.lower()
        if b"_" in lower and lower.replace(b"_", b"-") in _READ:
            raise Unreadable("header", "a header has _ for -, which some servers read as the same")
        if lower == b"content-type":
            if kind is not None:
                raise Unreadable("contentType", "there are two Content-Type headers")
            kind = value.strip().lower()
        elif lower == b"content-encoding":
            if encoding is not None:
                raise Unreadable("contentEncoding", "there are two Content-Encoding headers")
            encoding = value.strip().lower()
        elif lower == HEADER_LENGTH:
            if length is not None:
                raise Unreadable("binaryData", "there are two Inference-Header-Content-Length")
            length = value.strip()
    return length, kind or b"", encoding or b""


def _expect_json(kind: bytes, *, binary: bool) -> None:
    if kind in {b"", b"application/json"}:
        return
    media, *parameters = (part.strip() for part in kind.split(b";"))
    if not (_JSON.fullmatch(media) or (binary and media == _OCTETS)):
        raise Unreadable("contentType", "the Content-Type is not JSON, such as application/json")
    for parameter in parameters:
        name, _, value = parameter.partition(b"=")
        if name.strip() == b"charset" and value.strip(b' \t"') not in {b"utf-8", b"utf8"}:
            raise Unreadable("charset", "the charset is not utf-8")


def _inflate(encoding: bytes, body: bytes, max_bytes: int) -> bytes:
    if encoding != b"gzip":
        raise Unreadable("contentEncoding", "a Content-Encoding other than gzip is not understood")
    inflater = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
    try:
        inflated = inflater.decompress(body, max_bytes + 1)
    except zlib.error:
        raise Unreadable("contentEncoding", "the body is not gzip") from None
    if len(inflated) > max_bytes:
        raise Unreadable("size", f"the body is larger than {max_bytes} bytes when inflated")
    if not inflater.eof or inflater.unused_data:
        raise Unreadable("contentEncoding", "the gzip is cut off, or something follows it")
    return inflated


def parse_json(body: bytes) -> Any:
    """Return the value of a JSON text that all parsers read alike.

    Raises:
        Unreadable: it is no such text.
    """
    try:
        value = _DECODE(body)
    except UnicodeDecodeError:
        raise Unreadable("encoding", "the body is not UTF-8") from None
    except RecursionError:
        raise _too_deep() from None
    except msgspec.ValidationError:
        raise Unreadable("number", "a number of the body is out of range") from None
    except msgspec.DecodeError as error:
        raise _malformed(body, str(error)) from None
    keys = _count_keys(value)
    if keys != body.count(b":") and keys != _count_keys_of_text(body):
        raise Unreadable("duplicate", "an object of the body has a key twice")
    if _LONG_NUMBER in body.translate(_DIGITS) and _has_big_integer(value):
        raise Unreadable("number", "an integer of the body has more than 64 bits")
    return value


def _malformed(body: bytes, message: str) -> Unreadable:
    if not body.strip():
        return Unreadable("empty", "the body is empty")
    if body.startswith((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")):
        return Unreadable("encoding", "the body begins with a byte order mark")
    if "truncated" in message:
        return Unreadable("truncated", "the JSON of the body is cut off")
    return Unreadable("json", message)


def _too_deep() -> Unreadable:
    return Unreadable("depth", f"the body has more than {MAX_DEPTH} levels")


def _count_keys(value: Any) -> int:
    """Return the keys of all objects, which are fewer than those of the text if one was twice."""
    keys = 0
    level = [value] if isinstance(value, (dict, list)) else []
    for _ in range(MAX_DEPTH):
        if not level:
            return keys
        children: list[Any] = []
        for node in level:
            inner: Iterable[Any] = node
            if type(node) is dict:
                keys += len(node)
                inner = node.values()
            children += [one for one in inner if type(one) is dict or type(one) is list]
        level = children
    if level:
        raise _too_deep()
    return keys


def _count_keys_of_text(body: bytes) -> int:
    """Return the strings that are keys; one by one, so that other threads have their turns."""
    return sum(1 for string in _STRING.finditer(body) if string[1])


def _has_big_integer(value: Any) -> bool:
    stack = [value]
    while stack:
        one = stack.pop()
        if type(one) is int and not _LOWEST <= one <= _HIGHEST:
            return True
        if type(one) is dict:
            stack += one.values()
        elif type(one) is list:
            stack += one
    return False


def _tensors(value: Any, key: str, binary: bytes | None) -> Tensors | None:
    """Return the tensors of a message; None if it has no list of them.

    Args:
        value: the JSON.
        key: where the list is: inputs or outputs.
        binary: what follows the JSON, exactly as long as the tensors say; None: nothing may.
    """
    listed = value.get(key) if isinstance(value, dict) else None
    if not isinstance(listed, list):
        return None
    by_name: dict[str, TensorData] = {}
    position = 0
    for number, tensor in enumerate(listed):
        where = f"{key}[{number}]"
        name, datatype, shape, parameters = _read_tensor(tensor, where)
        if name in by_name:
            raise Unreadable("duplicate", f"{where}: another tensor has its name")
        size = parameters.get("binary_data_size")
        try:
            if size is None:
                data: Sequence[Any] = flatten(tensor.get("data"))
            else:
                data, position = _slice(tensor, datatype, shape, binary, (position, size))
        except ValueError as error:
            rule = "data" if size is None else "binaryData"
            raise Unreadable(rule, f"{where}: {error}") from None
        by_name[name] = TensorData(datatype, shape, data)
    if binary is not None and position != len(binary):
        raise Unreadable("binaryData", f"{len(binary)} bytes of binary data, {position} announced")
    return Tensors(by_name)


def _read_tensor(tensor: Any, where: str) -> tuple[str, str, tuple[int, ...], dict[str, Any]]:
    if not isinstance(tensor, dict):
        raise Unreadable("tensor", f"{where} is no object")
    name, datatype, shape = tensor.get("name"), tensor.get("datatype"), tensor.get("shape")
    if not isinstance(name, str) or not isinstance(datatype, str):
        raise Unreadable("tensor", f"{where} lacks its name or its datatype")
    if not isinstance(shape, list) or not all(type(size) is int and size >= 0 for size in shape):
        raise Unreadable("tensor", f"{where} has no shape, which is a list of sizes")
    if len(shape) > MAX_RANK:
        raise Unreadable("tensor", f"{where} has more than {MAX_RANK} dimensions")
    parameters = tensor.get("parameters")
    if parameters is None:
        parameters = {}
    if not isinstance(parameters, dict):
        raise Unreadable("tensor", f"{where} has parameters that are no object")
    if any(one.startswith("shared_memory") for one in parameters):
        raise Unreadable("sharedMemory", f"{where} is in shared memory, which nobody sees here")
    return name, datatype, tuple(shape), parameters


def _slice(
    tensor: dict[str, Any],
    datatype: str,
    shape: tuple[int, ...],
    binary: bytes | None,
    piece: tuple[int, Any],
) -> tuple[Sequence[Any], int]:
    """Return a tensor's elements in binary data, and where the next one's begin."""
    start, size = piece
    if binary is None:
        raise ValueError("binary_data_size without Inference-Header-Content-Length")
    if "data" in tensor:
        raise ValueError("it has data and binary_data_size")
    if type(size) is not int or size < 0 or start + size > len(binary):
        raise ValueError("binary_data_size is no size within the body")
    count = prod(shape)
    if datatype in ELEMENT_BYTES and count * ELEMENT_BYTES[datatype] != size:
        raise ValueError(f"{size} bytes are not what its shape and datatype need")
    data = decode(datatype, binary[start : start + size])
    if len(data) != count:
        raise ValueError(f"it has {len(data)} elements, which its shape does not")
    return data, start + size
