"""A backtest in words and as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from crossfade.cli.outcome import Backtest
from crossfade.evidence.verdicts import MetricAnswer, Verdict


def render_table(past: Backtest) -> str:
    """Tell each metric's verdicts, and in the last line what would have happened."""
    blocks = [_heading(past)]
    for name in past.names:
        lines = [f"\n{name}"]
        fired_at = past.fired_at(name)
        for at, answer in past.changes(name):
            lines.append(f"  {clock(past, at)}  {answer.verdict:<13}  {_told(past, at, answer)}")
        last = past.looks[-1]
        answer = last.answers[past.names.index(name)]
        if fired_at is None and past.changes(name)[-1][0] != last.at:
            lines.append(f"  {clock(past, last.at)}  {'(last look)':<13}  {_said(answer)}")
        blocks.append("\n".join(lines))
    blocks.append(f"\n{summary(past)}")
    return "\n".join(blocks)


def render_json(past: Backtest) -> str:
    """Return the same as JSON, for programs."""
    fired, subject = past.fired, past.subject
    outcome = "fired" if fired else "ready" if past.ready_at else "held"
    stable = subject.stable
    body: dict[str, Any] = {
        "namespace": subject.key.namespace,
        "name": subject.key.name,
        "canary": {"version": subject.canary.version, "revision": subject.canary.revision},
        "stable": {"version": stable.version, "revision": stable.revision} if stable else None,
        "from": _iso(subject.since),
        "to": _iso(past.end),
        "intervalSeconds": subject.analysis.interval_seconds,
        "looks": len(past.looks),
        "outcome": outcome,
        "firedAt": _iso(fired[0]) if fired else None,
        "firedBy": fired[1] if fired else [],
        "readyAt": _iso(past.ready_at),
        "metrics": [
            {
                "name": name,
                "firedAt": _iso(past.fired_at(name)),
                "changes": [_change(at, answer) for at, answer in past.changes(name)],
            }
            for name in past.names
        ],
    }
    return json.dumps(body, indent=2, ensure_ascii=False)


RENDERERS: Final[Mapping[str, Callable[[Backtest], str]]] = {
    "table": render_table,
    "json": render_json,
}


def summary(past: Backtest) -> str:
    """Say in one line what the operator would have done, as far as metrics decide it."""
    canary, since = past.subject.canary.version, past.subject.since
    ready_at = past.ready_at
    ready = ""
    if ready_at is not None:
        ready = (
            f"all metrics were healthy at {clock(past, ready_at)}, after "
            f"{duration(ready_at - since)}, with the {past.subject.min_requests:,} requests and "
            "the time that the steps ask for"
        )
    if past.fired is not None:
        at, names = past.fired
        also = f"; before that, {ready}" if ready else ""
        return (
            f"fired: {' and '.join(names)} at {clock(past, at)}, after {duration(at - since)}: "
            f"{canary} would have been taken back{also}"
        )
    if ready:
        return f"ready: {ready}: {canary} would have been promoted"
    last = past.looks[-1].answers
    holding = [a.name for a in last if a.verdict is not Verdict.HEALTHY]
    why = (
        f"not healthy at the end: {' and '.join(holding)}"
        if holding
        else f"the steps take {duration(past.min_time)}, longer than this range"
    )
    return f"held: {canary} would have been neither promoted nor taken back; {why}"


def duration(time: timedelta) -> str:
    """Write a time: "7 min 40 s"."""
    minutes, seconds = divmod(round(time.total_seconds()), 60)
    hours, minutes = divmod(minutes, 60)
    parts = ((hours, "h"), (minutes, "min"), (seconds, "s"))
    return " ".join(f"{n} {unit}" for n, unit in parts if n) or "0 s"


def clock(past: Backtest, at: datetime) -> str:
    """Write when, with the day where there are several."""
    days = past.subject.since.date() != past.end.date()
    return f"{at:%m-%d %H:%M:%S}" if days else f"{at:%H:%M:%S}"


def _heading(past: Backtest) -> str:
    subject = past.subject
    versions = " against ".join(
        f"{arm.version} ({arm.revision})" if arm.revision else arm.version
        for arm in (subject.canary, subject.stable)
        if arm is not None
    )
    return (
        f"{subject.key}: {versions}, {subject.since:%Y-%m-%d %H:%M:%S} to "
        f"{clock(past, past.end)} UTC, {len(past.looks):,} looks"
    )


def _told(past: Backtest, at: datetime, answer: MetricAnswer) -> str:
    said = _said(answer)
    if answer.verdict is Verdict.HARM:
        said = f"after {duration(at - past.subject.since)}: {said}"
    return said


def _said(answer: MetricAnswer) -> str:
    return f"{answer.message}; alert: {answer.alert}" if answer.alert else answer.message


def _change(at: datetime, answer: MetricAnswer) -> dict[str, Any]:
    change: dict[str, Any] = {
        "at": _iso(at),
        "verdict": answer.verdict.value,
        "message": answer.message,
        "alert": answer.alert,
        "evidence": None,
    }
    if answer.evidence is not None:
        change["evidence"] = {
            "log10": round(answer.evidence.log_e / math.log(10), 3),
            "log10Needed": round(answer.evidence.log_needed / math.log(10), 3),
        }
    return change


def _iso(at: datetime | None) -> str | None:
    return at.isoformat().replace("+00:00", "Z") if at is not None else None
