"""JSONPath (RFC 9535), where a body may have a million values.

The library makes a node for every match, which is what masks need and what values do not: 1,000
numbers take it 600 microseconds. Names, indexes and wildcards at the end of a path, which is all of
most paths, are walked here instead, as the library has parsed them.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Any, Final

import jsonpath_rfc9535
from jsonpath_rfc9535.query import JSONPathQuery
from jsonpath_rfc9535.segments import JSONPathChildSegment, JSONPathSegment
from jsonpath_rfc9535.selectors import IndexSelector, NameSelector, WildcardSelector

MAX_NODES: Final = 10_000
"""Matches of a filter, a slice or a descent that are looked at in one body: 10 milliseconds."""

EVERY: Final = None
"""The step of a wildcard."""

Step = str | int | None


class Path:
    """A JSONPath, compiled."""

    def __init__(self, text: str) -> None:
        """Compile it.

        Raises:
            ValueError: it is none.
        """
        self._query = compile_path(text)
        steps: list[Step] = []
        segments = self._query.segments
        while segments and _is_plain(segments[-1]):
            steps.append(_step(segments[-1]))
            segments = segments[:-1]
        self._steps = tuple(reversed(steps))
        self._head = JSONPathQuery(env=self._query.env, segments=segments) if segments else None

    def values(self, document: Any) -> list[Any]:
        """Return the values of all matches, in the library's order."""
        if self._head is None:
            values = [document]
        else:
            values = [node.value for node in islice(self._head.finditer(document), MAX_NODES)]
        for step in self._steps:
            values = _children(values, step)
        return values


def compile_path(text: str) -> JSONPathQuery:
    """Return the library's query.

    Raises:
        ValueError: the text is none.
    """
    try:
        return jsonpath_rfc9535.compile(text)
    except jsonpath_rfc9535.JSONPathError as error:
        raise ValueError(f"{text} is no JSONPath: {error}") from error


def _is_plain(segment: JSONPathSegment) -> bool:
    return (
        isinstance(segment, JSONPathChildSegment)
        and len(segment.selectors) == 1
        and isinstance(segment.selectors[0], NameSelector | IndexSelector | WildcardSelector)
    )


def _step(segment: JSONPathSegment) -> Step:
    selector = segment.selectors[0]
    if isinstance(selector, NameSelector):
        return selector.name
    return selector.index if isinstance(selector, IndexSelector) else EVERY


def _children(values: Iterable[Any], step: Step) -> list[Any]:
    found: list[Any] = []
    for value in values:
        if isinstance(value, dict):
            if step is EVERY:
                found.extend(value.values())
            elif step in value:
                found.append(value[step])
        elif isinstance(value, list):
            if step is EVERY:
                found.extend(value)
            elif isinstance(step, int) and -len(value) <= step < len(value):
                found.append(value[step])
    return found
