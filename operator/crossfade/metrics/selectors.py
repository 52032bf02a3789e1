"""Series selectors as users write them, parsed strictly so that matchers can be added safely.

Only ``name`` or ``name{label="value", ...}`` is a selector here; whatever else PromQL allows is
refused, so nothing that a user writes can change the rest of a query.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

import msgspec
from typing_extensions import override

from crossfade.errors import InvalidSpecError

_TOKEN: Final = re.compile(
    r"""\s*(?:
        (?P<name>[a-zA-Z_:][a-zA-Z0-9_:]*)
      | (?P<op>=~|!~|!=|=)
      | (?P<mark>[{},])
      | (?P<string>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'|`[^`]*`)
      | (?P<end>$)
    )""",
    re.VERBOSE,
)
_LABEL: Final = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_ESCAPES: Final = {"\\": "\\", '"': '"', "'": "'", "n": "\n", "t": "\t", "r": "\r"}
"""The escapes that are taken; PromQL knows more (Go's), which nobody needs in a matcher."""

_META: Final = re.compile(r"([\\.+*?()|\[\]{}^$])")
"""What RE2 takes as special."""


class Matcher(msgspec.Struct, frozen=True, order=True, gc=False):
    """One label matcher."""

    label: str
    op: str
    value: str

    @override
    def __str__(self) -> str:
        return f"{self.label}{self.op}{quote(self.value)}"


class Selector(msgspec.Struct, frozen=True, order=True, gc=False, cache_hash=True):
    """A metric's name and label matchers."""

    name: str
    matchers: tuple[Matcher, ...] = ()

    @override
    def __str__(self) -> str:
        inside = ",".join(str(matcher) for matcher in self.matchers)
        return f"{self.name}{{{inside}}}" if inside else self.name

    def matching(self, *matchers: Matcher) -> Selector:
        """Return the selector with further matchers: all must hold."""
        return Selector(self.name, (*self.matchers, *matchers))

    def suffixed(self, suffix: str) -> Selector:
        """Return the selector of a histogram's part, such as ``_bucket``."""
        return Selector(self.name + suffix, self.matchers)


def quote(value: str) -> str:
    """Return a PromQL string literal."""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + escaped.replace("\n", "\\n").replace("\r", "\\r").replace("\t", "\\t") + '"'


def escape_regex(value: str) -> str:
    """Return a regular expression (RE2) that matches exactly this text."""
    return _META.sub(r"\\\1", value)


def any_of(values: Iterable[str]) -> str:
    """Return a regular expression that matches any of some texts."""
    return "|".join(escape_regex(value) for value in values)


def parse_selector(text: str) -> Selector:
    """Read a selector.

    Raises:
        InvalidSpecError: it is anything but a name and, in braces, matchers.
    """
    tokens = _tokens(text)
    kind, name = tokens.pop(0)
    if kind != "name":
        raise _refuse(text, "it must start with the metric's name")
    matchers: list[Matcher] = []
    if tokens[0] == ("mark", "{"):
        tokens.pop(0)
        while tokens[0] != ("mark", "}"):
            matchers.append(_matcher(text, tokens))
            if tokens[0] == ("mark", ","):
                tokens.pop(0)
            elif tokens[0] != ("mark", "}"):
                raise _refuse(text, "matchers are separated by commas and end with }")
        tokens.pop(0)
    if tokens[0][0] != "end":
        raise _refuse(text, f"nothing may follow it, but there is {tokens[0][1]!r}")
    return Selector(name, tuple(matchers))


def _matcher(text: str, tokens: list[tuple[str, str]]) -> Matcher:
    if [kind for kind, _ in tokens[:3]] != ["name", "op", "string"]:
        raise _refuse(text, 'a matcher is a label, one of = != =~ !~ and a "value"')
    (_, label), (_, op), (_, literal) = tokens[:3]
    del tokens[:3]
    if not _LABEL.fullmatch(label) or label == "__name__":
        raise _refuse(text, f"{label} cannot be matched on")
    return Matcher(label, op, _unquote(text, literal))


def _unquote(text: str, literal: str) -> str:
    body = literal[1:-1]
    if literal[0] == "`":
        return body

    def unescape(found: re.Match[str]) -> str:
        if found[1] not in _ESCAPES:
            raise _refuse(text, f"the escape \\{found[1]} is not known; a backslash is \\\\")
        return _ESCAPES[found[1]]

    return re.sub(r"\\(.)", unescape, body)


def _tokens(text: str) -> list[tuple[str, str]]:
    tokens: list[tuple[str, str]] = []
    at = 0
    while not tokens or tokens[-1][0] != "end":
        found = _TOKEN.match(text, at)
        if found is None or found.lastgroup is None:
            raise _refuse(text, f"{text[at:].strip()[:20]!r} is not understood")
        tokens.append((found.lastgroup, found[found.lastgroup]))
        at = found.end()
    return tokens


def _refuse(text: str, why: str) -> InvalidSpecError:
    return InvalidSpecError(
        f"{text!r} is not a series selector: {why}; "
        'write a metric name and label matchers, such as requests_total{code=~"5.."}'
    )
