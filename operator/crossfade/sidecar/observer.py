"""Takes numbers and labels out of bodies, for the distributions that the drift evidence reads."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from math import gcd, isfinite
from typing import Any, Final

from crossfade.sidecar.config import Observed
from crossfade.sidecar.messages import Document, TensorData
from crossfade.sidecar.metrics import Kind, Metrics
from crossfade.sidecar.paths import Path

MAX_VALUES: Final = 1_000
"""Of one name in one body. They are of one request, so more of them say little more, and so many
take a fifth of a millisecond."""

GOLDEN: Final = (5**0.5 - 1) / 2

_log = logging.getLogger(__name__)


class Why(StrEnum):
    """Why a value is in no distribution."""

    MISSING = "missing"
    """No match, no such tensor, no such column: counted once a body."""
    NULL = "null"
    TYPE = "type"
    """Not a number, where numbers are expected; not a text, a whole number or a truth value,
    where labels are."""
    NOT_FINITE = "notFinite"
    """NaN, infinite, or too large for a double."""
    ERROR = "error"
    """The body could not be looked into, for example because it is nested too deep."""


@dataclass(slots=True)
class Taken:
    """What was found in a body under one name."""

    of: Observed
    missed: dict[Why, int]
    """How many values are in no distribution, and why."""
    numbers: Sequence[float] = ()
    labels: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class _Watched:
    """One of the configuration's names, with its path compiled."""

    of: Observed
    path: Path | None


class Observer:
    """Feeds the values of requests, or of answers, to the metrics."""

    def __init__(self, kind: Kind, observed: Sequence[Observed], metrics: Metrics) -> None:
        """Compile all paths.

        Args:
            kind: whether it is given requests or answers.
            observed: what to look for; the metrics know the same names.
            metrics: where the values go.

        Raises:
            ValueError: a path is no JSONPath.
        """
        self._kind = kind
        self._metrics = metrics
        self._watched = tuple(
            _Watched(one, None if one.json_path is None else Path(one.json_path))
            for one in observed
        )

    def take(self, document: Document) -> None:
        """Observe a body. Nothing is raised: whatever it is, it has been served already."""
        for one in self._watched:
            self._count(_take(one, document))

    def find(self, document: Document) -> tuple[Taken, ...]:
        """Return what is to be counted of a body. It may be called in a thread."""
        return tuple(_take(one, document) for one in self._watched)

    def count(self, found: Iterable[Taken]) -> None:
        """Count it."""
        for taken in found:
            self._count(taken)

    def _count(self, taken: Taken) -> None:
        name = taken.of.name
        if taken.numbers:
            self._metrics.observed_numbers(self._kind, name, taken.numbers)
        if taken.labels:
            self._metrics.observed_labels(self._kind, name, taken.labels)
        for why, amount in taken.missed.items():
            self._metrics.unobserved(f"{self._kind}.{name}", why.value, amount)


def _take(one: _Watched, document: Document) -> Taken:
    missed: dict[Why, int] = {}
    try:
        values = _values(one, document)
        if not len(values):
            return Taken(one.of, missed={Why.MISSING: 1})
        if one.of.type == "number":
            return Taken(one.of, missed, numbers=_numbers(_some(values), missed))
        return Taken(one.of, missed, labels=_labels(_some(values), missed))
    except Exception as error:  # noqa: BLE001 - of any body, in the request path
        _log.debug("not observed name=%s error=%r", one.of.name, error)
        return Taken(one.of, missed={Why.ERROR: 1})


def _values(one: _Watched, document: Document) -> Sequence[Any]:
    if one.path is not None:
        return one.path.values(document.value)
    tensors = document.tensors.by_name if document.tensors is not None else {}
    tensor = tensors.get(one.of.tensor or "")
    return () if tensor is None else _elements(tensor, one.of.column)


def _elements(tensor: TensorData, column: int | None) -> Sequence[Any]:
    data: Sequence[Any] = tensor.data
    if column is None:
        return data
    columns = tensor.shape[-1] if tensor.shape else 0
    return data[column::columns] if 0 <= column < columns else ()


def _some(values: Sequence[Any]) -> Sequence[Any]:
    """Return at most MAX_VALUES, evenly spread.

    Steps of about the golden section, round and round, leave gaps that differ little (Knuth, "The
    Art of Computer Programming" 3, 6.4). The step has no divisor in common with the number of
    values, nor so with the columns of a flat tensor: each column is taken as often as any other,
    which equal gaps would not do.
    """
    count = len(values)
    if count <= MAX_VALUES:
        return values
    step = int(count * GOLDEN)
    while gcd(step, count) > 1:
        step += 1
    return [values[number * step % count] for number in range(MAX_VALUES)]


def _numbers(values: Iterable[Any], missed: dict[Why, int]) -> list[float]:
    numbers: list[float] = []
    for value in values:
        if type(value) is float and isfinite(value):
            numbers.append(value)
        elif type(value) is int and _fits(value):
            numbers.append(float(value))
        elif value is None:
            _count(missed, Why.NULL)
        elif type(value) is float or type(value) is int:
            _count(missed, Why.NOT_FINITE)
        else:
            _count(missed, Why.TYPE)
    return numbers


def _labels(values: Iterable[Any], missed: dict[Why, int]) -> list[str]:
    labels: list[str] = []
    for value in values:
        if type(value) is str:
            labels.append(value)
        elif type(value) is bool:
            labels.append("true" if value else "false")
        elif type(value) is int and _fits(value):
            labels.append(str(value))
        elif type(value) is float and value.is_integer():
            labels.append(str(int(value)))  # classes that a model gives as 1.0
        else:
            _count(missed, Why.NULL if value is None else Why.TYPE)
    return labels


def _fits(value: int) -> bool:
    """Tell whether it is well within a double's range."""
    return value.bit_length() < 1024  # noqa: PLR2004 - DBL_MAX_EXP


def _count(missed: dict[Why, int], why: Why) -> None:
    missed[why] = missed.get(why, 0) + 1
