"""As much of CEL as the rules of the API are written in (``api/rules.py``), and no more.

The Common Expression Language is what the API server tries rules in. Its libraries for Python
bring more with them than these rules need; what is not known here is an error, and a test tries
every rule. https://github.com/google/cel-spec/blob/master/doc/langdef.md
"""

from __future__ import annotations

import itertools
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

Env = Mapping[str, Any]
"""The values of names."""

Expr = Callable[[Env], Any]

_TOKEN: Final = re.compile(
    r"\s*(?:('[^']*')|(\d+)|([A-Za-z_]\w*)|(\|\||&&|[=!<>]=|[!<>?:.,()\[\]]))"
)

_COMPARES: Final[Mapping[str, Callable[[Any, Any], bool]]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
    "in": lambda one, many: one in many,
}

_CONSTANTS: Final[Mapping[str, Any]] = {"true": True, "false": False, "null": None}

_METHODS: Final[Mapping[str, Callable[..., Any]]] = {
    "size": len,
    "startsWith": lambda text, start: text.startswith(start),
    "contains": lambda text, part: part in text,
    "matches": lambda text, pattern: re.search(pattern, text) is not None,
    "isSorted": lambda many: all(a <= b for a, b in itertools.pairwise(many)),
}

_MACROS: Final[Mapping[str, Callable[[list[Any], Callable[[Any], Any]], Any]]] = {
    "all": lambda many, test: all(test(one) for one in many),
    "exists": lambda many, test: any(test(one) for one in many),
    "exists_one": lambda many, test: sum(1 for one in many if test(one)) == 1,
    "filter": lambda many, test: [one for one in many if test(one)],
    "map": lambda many, change: [change(one) for one in many],
}


class CelError(ValueError):
    """An expression uses what is not known here."""


@lru_cache(maxsize=256)
def compile_rule(text: str) -> Expr:
    """Read an expression.

    Raises:
        CelError: it uses what is not known here.
    """
    parser = _Parser(text)
    expr = parser.ternary()
    parser.expect_end()
    return expr


@dataclass(frozen=True, slots=True)
class _Select:
    """A field of something, which ``has`` can ask for."""

    target: Expr
    name: str

    def __call__(self, env: Env) -> Any:
        return self.target(env)[self.name]

    def is_there(self, env: Env) -> bool:
        return self.name in self.target(env)


class _Parser:
    """Reads by descent: each method reads what binds as strongly as its name says."""

    def __init__(self, text: str) -> None:
        self._tokens: list[str] = []
        at = 0
        while at < len(text.rstrip()):
            found = _TOKEN.match(text, at)
            if found is None:
                raise CelError(f"not known here: {text[at : at + 20]!r}")
            self._tokens.append(found[0].strip())
            at = found.end()
        self._at = 0

    def _peek(self) -> str:
        return self._tokens[self._at] if self._at < len(self._tokens) else ""

    def _next(self) -> str:
        token = self._peek()
        self._at += 1
        return token

    def _take(self, token: str) -> bool:
        if self._peek() != token:
            return False
        self._at += 1
        return True

    def _expect(self, token: str) -> None:
        if not self._take(token):
            raise CelError(f"{token!r} is missing before {self._peek()!r}")

    def expect_end(self) -> None:
        """Expect that everything is read."""
        if self._peek():
            raise CelError(f"not known here: {self._peek()!r}")

    def ternary(self) -> Expr:
        """Read a condition, and what it chooses from."""
        condition = self._or()
        if not self._take("?"):
            return condition
        yes = self.ternary()
        self._expect(":")
        no = self.ternary()
        return lambda env: yes(env) if condition(env) else no(env)

    def _or(self) -> Expr:
        parts = [self._and()]
        while self._take("||"):
            parts.append(self._and())
        return parts[0] if len(parts) == 1 else lambda env: any(part(env) for part in parts)

    def _and(self) -> Expr:
        parts = [self._relation()]
        while self._take("&&"):
            parts.append(self._relation())
        return parts[0] if len(parts) == 1 else lambda env: all(part(env) for part in parts)

    def _relation(self) -> Expr:
        left = self._unary()
        compare = _COMPARES.get(self._peek())
        if compare is None:
            return left
        self._next()
        right = self._unary()
        return lambda env: compare(left(env), right(env))

    def _unary(self) -> Expr:
        if not self._take("!"):
            return self._member()
        negated = self._unary()
        return lambda env: not negated(env)

    def _member(self) -> Expr:
        expr = self._primary()
        while self._take("."):
            name = self._next()
            expr = self._call(expr, name) if self._take("(") else _Select(expr, name)
        return expr

    def _call(self, target: Expr, name: str) -> Expr:
        if name in _MACROS:
            macro, variable = _MACROS[name], self._next()
            self._expect(",")
            body = self.ternary()
            self._expect(")")
            return lambda env: macro(target(env), lambda one: body({**env, variable: one}))
        if name not in _METHODS:
            raise CelError(f"not known here: {name}()")
        method, arguments = _METHODS[name], self._list_until(")")
        return lambda env: method(target(env), *(argument(env) for argument in arguments))

    def _list_until(self, end: str) -> list[Expr]:
        parts: list[Expr] = []
        while not self._take(end):
            parts.append(self.ternary())
            if self._peek() != end:
                self._expect(",")
        return parts

    def _primary(self) -> Expr:
        word = self._next()
        if word == "(":
            expr = self.ternary()
            self._expect(")")
            return expr
        if word == "[":
            parts = self._list_until("]")
            return lambda env: [part(env) for part in parts]
        if word.startswith("'"):
            return lambda _: word[1:-1]
        if word.isdecimal():
            return lambda _: int(word)
        if word in _CONSTANTS:
            return lambda _: _CONSTANTS[word]
        if word == "has" and self._take("("):
            field = self.ternary()
            self._expect(")")
            if not isinstance(field, _Select):
                raise CelError("has() asks for a field")
            return field.is_there
        if word.isidentifier():
            return lambda env: env[word]
        raise CelError(f"not known here: {word!r}")
