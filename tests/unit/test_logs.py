"""The operator's log is one line a fact, for people and for programs."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from crossfade.errors import ClusterError
from crossfade.logs import Format, Json, Text, about, set_up
from tests.unit.world import KEY, healthy_world, manifest


def record(words: str, *args: object, fails: bool = False, **extra: Any) -> logging.LogRecord:
    """Return what a logger hands to a formatter."""
    failure = None
    if fails:
        error = ClusterError("no answer")
        failure = (ClusterError, error, error.__traceback__)
    logger = logging.getLogger("crossfade.test")
    return logger.makeRecord(logger.name, logging.INFO, "", 1, words, args, failure, extra=extra)


def test_text_quotes_what_is_more_than_a_word() -> None:
    line = Text().format(
        record("failed", **about(KEY, phase="Paused", error=ClusterError('no\n"answer"'), was=""))
    )
    assert line.endswith(
        ' INFO crossfade.test failed namespace=ml name=fraud phase=Paused error="no\\n\\"answer\\""'
        ' was=""'
    )


def test_text_stays_on_one_line_whatever_somebody_else_says() -> None:
    assert Text().format(record("two\n%s", "lines")).endswith("two\\nlines")


def test_json_has_the_fields_beside_the_event() -> None:
    said = json.loads(Json().format(record("phase", **about(KEY, message="it\nwaits", do=KEY))))
    assert said.pop("time").endswith("+00:00")
    assert said == {
        "level": "INFO",
        "logger": "crossfade.test",
        "event": "phase",
        "namespace": "ml",
        "name": "fraud",
        "message": "it\nwaits",
        "do": str(KEY),
    }


def test_json_keeps_a_traceback_on_its_line_and_text_shows_it_below() -> None:
    failed = record("bug", fails=True, **about(KEY))
    line = Json().format(failed)
    assert "\n" not in line
    assert json.loads(line)["traceback"].endswith("ClusterError: no answer")
    first, *others = Text().format(failed).splitlines()
    assert first.endswith("bug namespace=ml name=fraud")
    assert others[-1].endswith("ClusterError: no answer")


@pytest.fixture
def root() -> Iterator[logging.Logger]:
    """Return the root logger; what was there comes back."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield root
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.mark.parametrize(("format_", "kind"), [("text", Text), ("json", Json)])
def test_setting_up_takes_the_level_and_the_format(
    root: logging.Logger, format_: Format, kind: type
) -> None:
    set_up("WARNING", format_)
    assert type(root.handlers[-1].formatter) is kind
    assert root.level == logging.WARNING
    assert logging.getLogger("kopf").level == logging.WARNING


async def test_each_action_and_each_phase_is_a_line_with_its_modeldeployment(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    world = await healthy_world()
    caplog.clear()
    world.apply(manifest("2.0.0"))
    await world.run_until(lambda: world.phase == "Probation")
    lines = [json.loads(Json().format(r)) for r in caplog.records]
    assert {(line["namespace"], line["name"]) for line in lines} == {("ml", "fraud")}
    phases = [(line["was"], line["phase"]) for line in lines if line["event"] == "phase"]
    assert phases == [
        ("Healthy", "Preparing"),
        ("Preparing", "Progressing"),
        ("Progressing", "Promoting"),
        ("Promoting", "Probation"),
    ]
    done = [line["do"].partition("(")[0] for line in lines if line["event"] == "action"]
    assert done.count("SetWeights") == 3
