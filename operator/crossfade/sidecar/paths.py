"""JSONPath (RFC 9535), where a body may have a million values.

The library makes a node for every match: 1,000 numbers take it 600 microseconds. Names, indexes and
wildcards at the end of a path, which is all of most paths, are walked here instead, as the library
has parsed them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

import jsonpath_rfc9535
from jsonpath_rfc9535.query import JSONPathQuery
from jsonpath_rfc9535.segments import JSONPathRecursiveDescentSegment, JSONPathSegment
from jsonpath_rfc9535.selectors import IndexSelector, NameSelector, WildcardSelector

MAX_NODES: Final = 10_000
"""Matches of a filter or a slice that are looked at in one body: 10 milliseconds."""

EVERY: Final = None
"""The selector of a wildcard."""

Selector = str | int | None


@dataclass(frozen=True, slots=True)
class _Step:
    """From values to some of their children."""

    selector: Selector
    descends: bool
    """To children of all that is within the values, too."""


class Path:
    """A JSONPath, compiled."""

    def __init__(self, text: str) -> None:
        """Compile it.

        Raises:
            ValueError: it is none.
        """
        try:
            query = jsonpath_rfc9535.compile(text)
        except jsonpath_rfc9535.JSONPathError as error:
            raise ValueError(f"{text} is no JSONPath: {error}") from error
        segments, steps = query.segments, []
        while segments and (step := _step(segments[-1])) is not None:
            steps.append(step)
            segments = segments[:-1]
        self._steps = tuple(reversed(steps))
        self._head = JSONPathQuery(env=query.env, segments=segments) if segments else None

    def values(self, document: Any) -> list[Any]:
        """Return the values of all matches, in the library's order."""
        if self._head is None:
            return _walk([document], self._steps)
        nodes = islice(self._head.finditer(document), MAX_NODES)
        return _walk([node.value for node in nodes], self._steps)

    def replace(self, document: Any, new: str) -> Any:
        """Return the document, which is changed, with a text in the place of every match."""
        if not self._steps:
            if self._head is None:
                return new
            for node in reversed(self._head.find(document)):  # what is within a match comes later
                node.value = new
            return document
        heads = [document] if self._head is None else self._head.find(document).values()
        *steps, last = self._steps
        parents = _walk(heads, steps)
        for parent in _within(parents) if last.descends else parents:
            _replace_children(parent, last.selector, new)
        return document


def _step(segment: JSONPathSegment) -> _Step | None:
    """Return the step of a segment; None: the library takes it."""
    if len(segment.selectors) != 1:
        return None
    selector = segment.selectors[0]
    descends = isinstance(segment, JSONPathRecursiveDescentSegment)
    if isinstance(selector, NameSelector):
        return _Step(selector.name, descends)
    if isinstance(selector, IndexSelector):
        return _Step(selector.index, descends)
    return _Step(EVERY, descends) if isinstance(selector, WildcardSelector) else None


def _walk(values: list[Any], steps: Iterable[_Step]) -> list[Any]:
    for step in steps:
        values = _children(_within(values) if step.descends else values, step.selector)
    return values


def _children(values: Iterable[Any], selector: Selector) -> list[Any]:
    found: list[Any] = []
    for value in values:
        if isinstance(value, dict):
            if selector is EVERY:
                found.extend(value.values())
            elif selector in value:
                found.append(value[selector])
        elif isinstance(value, list):
            if selector is EVERY:
                found.extend(value)
            elif isinstance(selector, int) and -len(value) <= selector < len(value):
                found.append(value[selector])
    return found


def _within(values: Iterable[Any]) -> list[Any]:
    """Return the objects and lists among values and all within them, parents first."""
    found: list[Any] = []
    stack = [value for value in values if isinstance(value, dict | list)][::-1]
    while stack:
        value = stack.pop()
        found.append(value)
        inner = value.values() if isinstance(value, dict) else value
        stack += [one for one in inner if isinstance(one, dict | list)][::-1]
    return found


def _replace_children(parent: Any, selector: Selector, new: str) -> None:
    if isinstance(parent, dict):
        if selector is EVERY:
            parent.update(dict.fromkeys(parent, new))
        elif selector in parent:
            parent[selector] = new
    elif isinstance(parent, list):
        if selector is EVERY:
            parent[:] = [new] * len(parent)
        elif isinstance(selector, int) and -len(parent) <= selector < len(parent):
            parent[selector] = new
