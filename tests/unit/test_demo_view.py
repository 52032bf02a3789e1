"""What the demo shows, and how it judges its own end."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import pytest
from typing_extensions import override

from examples.demo.look import Happening, Rejection, Snapshot, parse_snapshot
from examples.demo.summary import (
    BROKEN,
    GOOD,
    find_broken_promises,
    render_accuracies,
    render_summary,
)
from examples.demo.tally import Report, VersionReport
from examples.demo.view import Screen, render_block, render_change


def version(**changed: Any) -> VersionReport:
    values: Any = {
        "answers": 100,
        "wrong": 9,
        "recentAnswers": 20,
        "recentWrong": 2,
        "firstAnswerAt": 1.0,
        "lastAnswerAt": 15.5,
        "firstWrongAt": 12.0,
        "medianMilliseconds": 4.0,
        "p99Milliseconds": 9.0,
    }
    result: VersionReport = values | changed
    return result


def users(**changed: Any) -> Report:
    values: Any = {
        "now": 20.0,
        "sent": 301,
        "underWay": 1,
        "ended": False,
        "lost": {},
        "firstLostAt": None,
        "versions": {"1.0.0": version(), BROKEN: version(wrong=90), GOOD: version(wrong=1)},
    }
    result: Report = values | changed
    return result


WARNING = Happening("b", 14.0, is_warning=True, reason="RollingBack", message="2.0.0 goes")
GOOD_END = Snapshot(
    at=20.0,
    phase="Healthy",
    stable=GOOD,
    is_current=True,
    rejected={BROKEN: Rejection("MetricHarm", "90 of 100 wrong")},
    happenings=(WARNING,),
    users=users(),
)


def test_finds_nothing_wrong_with_the_promised_end() -> None:
    assert find_broken_promises(GOOD_END) == []


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"rejected": {}}, "was not taken back"),
        ({"rejected": {BROKEN: Rejection("NotReady", "no pods")}}, "not for wrong answers"),
        ({"stable": "1.0.0"}, "3.0.0 is good and was not promoted; 1.0.0 serves"),
        ({"phase": "Probation"}, "phase Probation"),
        ({"users": users(lost={"reset": 2, "timeout": 1})}, "3 requests were lost: 2 reset"),
        ({"users": users(versions={GOOD: version()})}, "never answered a user"),
        ({"users": None}, "never told"),
    ],
)
def test_names_every_broken_promise(changed: dict[str, Any], words: str) -> None:
    assert words in " / ".join(find_broken_promises(replace(GOOD_END, **changed)))


def test_summary_counts_from_the_first_wrong_answer() -> None:
    text = render_summary(GOOD_END)
    assert "to the decision to take it back: 2.0 s" in text
    assert "3.5 s, 90 wrong answers" in text
    assert "300 requests, 0 of them lost." in text
    assert render_summary(Snapshot(at=0)) == "No answers were counted."


def test_accuracies_show_the_notebooks_error() -> None:
    made: Any = {"offline": 0.99, "served": 0.1, "joblib": ""}
    text = render_accuracies({"versions": {BROKEN: made}, "images": [], "labels": []})
    assert "99.0% right" in text
    assert "10.0% right" in text


def test_reads_a_snapshot_from_what_the_cluster_says() -> None:
    body = {
        "metadata": {"generation": 2},
        "status": {
            "observedGeneration": 2,
            "phase": "Progressing",
            "stable": {"revision": "a", "version": "1.0.0"},
            "canary": None,
            "weight": 10,
            "rejected": [{"version": "0.9", "reason": "MetricHarm", "message": "bad"}],
        },
    }
    late = {
        "metadata": {"uid": "l"},
        "eventTime": "2026-01-01T00:00:02.500000Z",
        "type": "Warning",
        "reason": "RollingBack",
        "message": "x",
    }
    early = {
        "metadata": {"uid": "e"},
        "eventTime": None,
        "lastTimestamp": "2026-01-01T00:00:01Z",
        "type": "Normal",
    }
    seen = parse_snapshot(body, [late, early], None, now=5.0)
    assert seen.is_current
    assert (seen.phase, seen.stable, seen.canary, seen.weight) == ("Progressing", "1.0.0", "", 10)
    assert seen.rejected == {"0.9": Rejection("MetricHarm", "bad")}
    assert [it.uid for it in seen.happenings] == ["e", "l"]
    assert seen.happenings[1].at - seen.happenings[0].at == 1.5


def test_a_new_object_is_not_current() -> None:
    assert not parse_snapshot({"metadata": {"generation": 1}}, [], None, now=0.0).is_current


def test_the_block_shows_weights_and_wrong_answers() -> None:
    seen = Snapshot(
        at=0,
        phase="Progressing",
        stable="1.0.0",
        canary=BROKEN,
        weight=25,
        step="1/3",
        users=users(),
    )
    text = "\n".join(render_block(seen, 61))
    assert "1:01  Progressing, step 1/3" in text
    assert "1.0.0 " + "█" * 30 + "·" * 10 + "  75 %" in text
    assert "2.0.0 " + "█" * 10 + "·" * 30 + "  25 %  2 of the last 20 answers wrong" in text
    assert "301 requests, 0 lost" in text


def test_plain_lines_come_only_with_changes() -> None:
    seen = Snapshot(at=0, phase="Healthy", stable="1.0.0", verdict="healthy: 3 of 10")
    again = replace(seen, verdict="healthy: 4 of 12", users=users())
    assert len(render_change(None, seen, 0)) == 1
    assert render_change(seen, again, 1) == []
    assert render_change(seen, replace(again, happenings=(WARNING,)), 1)[0].endswith(
        "! RollingBack: 2.0.0 goes"
    )
    assert "2.0.0 10 %" in render_change(seen, replace(again, canary=BROKEN, weight=10), 1)[0]


class Terminal(io.StringIO):
    @override
    def isatty(self) -> bool:
        return True


def test_a_terminal_is_redrawn_in_place() -> None:
    stream = Terminal()
    screen = Screen(stream)
    screen.show(GOOD_END)
    lines = stream.getvalue().count("\n")
    screen.show(replace(GOOD_END, happenings=()))
    assert f"\x1b[{lines}A" in stream.getvalue()
    # The shorter block is filled up, so that nothing of the longer one stays.
    assert stream.getvalue().count("\n") == 2 * lines


def test_a_file_gets_no_control_characters() -> None:
    stream = io.StringIO()
    screen = Screen(stream)
    screen.say("chapter", bold=True)
    screen.show(GOOD_END)
    screen.show(GOOD_END)
    assert "\x1b" not in stream.getvalue()
    assert len(stream.getvalue().splitlines()) == 3
