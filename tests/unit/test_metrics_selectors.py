from __future__ import annotations

import pytest

from crossfade.errors import InvalidSpecError
from crossfade.metrics.selectors import Matcher, Selector, escape_regex, parse_selector


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("requests_total", "requests_total"),
        (" job:requests:sum {} ", "job:requests:sum"),
        ('r{code=~"5..",method!="GET",}', 'r{code=~"5..",method!="GET"}'),
        ("r{ a = 'x\"y' , b !~ `\\d` }", 'r{a="x\\"y",b!~"\\\\d"}'),
        ('r{a="\\n\\t\\r\\\\\\""}', 'r{a="\\n\\t\\r\\\\\\""}'),
    ],
)
def test_reads_a_name_and_matchers(text: str, canonical: str) -> None:
    assert str(parse_selector(text)) == canonical
    assert parse_selector(canonical) == parse_selector(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{a='b'}",
        "rate(r[1m])",
        "r[5m]",
        "r offset 5m",
        "r or s",
        "r{a}",
        'r{a="b" c="d"}',
        'r{a="b"',
        'r{a="b"} or vector(1)',
        'r{a="b"}[5m]',
        'r{a=="b"}',
        'r{__name__="x"}',
        'r{a:b="x"}',
        'r{a="\\x41"}',
        'r{a="b\n"}',
        "r # comment",
        "2r",
    ],
)
def test_refuses_anything_else_and_says_what_to_write(text: str) -> None:
    with pytest.raises(InvalidSpecError, match="write a metric name and label matchers"):
        parse_selector(text)


def test_adds_matchers_with_their_values_escaped() -> None:
    selector = Selector("r").suffixed("_count").matching(Matcher("pod", "=", 'a"} or b{c="'))
    assert str(selector) == 'r_count{pod="a\\"} or b{c=\\""}'
    assert parse_selector(str(selector)) == selector


def test_escapes_what_a_regular_expression_takes_as_special() -> None:
    assert escape_regex("a.b-c+(d)") == r"a\.b-c\+\(d\)"
