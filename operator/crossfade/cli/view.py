"""One ModelDeployment as people look at it in a terminal. Pure: what was read in, lines out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Final

from crossfade.api.v1alpha1 import Condition, MetricStatus, Phase, StepForecast
from crossfade.cli.deployed import Deployed, Event
from crossfade.cli.evidence import gauge_of
from crossfade.cli.report import duration
from crossfade.cli.style import Style, clean, visible
from crossfade.core.news import lasting
from crossfade.core.phases import WITH_CANARY

COLOUR: Final = {
    Phase.INITIALIZING: "cyan",
    Phase.HEALTHY: "green",
    Phase.PREPARING: "cyan",
    Phase.PROGRESSING: "cyan",
    Phase.PAUSED: "yellow",
    Phase.PROMOTING: "cyan",
    Phase.PROBATION: "green",
    Phase.ROLLING_BACK: "red",
    Phase.ROLLED_BACK: "red",
}

VERDICT: Final = {
    "healthy": ("healthy", "green"),
    "harm": ("harm", "red"),
    "notEnoughData": ("needs data", "yellow"),
    "unavailable": ("unavailable", "yellow"),
}

EVENTS_SHOWN: Final = 6
BAR: Final = 40
"""Cells of the bar of weights."""
GAUGE: Final = 20
"""Cells of a metric's bar."""
INDENT: Final = 12
"""Columns of the headings at the left."""


def render(
    deployed: Deployed, events: Sequence[Event] | None, now: datetime, style: Style
) -> list[str]:
    """Return the lines of the view; ``events`` is None where they may not be read."""
    blocks = (
        _heading(deployed, style),
        _versions(deployed, now, style),
        _ladder(deployed, style),
        _metrics(deployed, style),
        _fallback(deployed, style),
        _gates(deployed, style),
        _notices(deployed, style),
        _conditions(deployed, now, style),
        _events(events, style),
    )
    lines: list[str] = []
    for block in blocks:
        found = list(block)
        if found:
            lines += [*([""] if lines else []), *found]
    return lines


def _heading(deployed: Deployed, style: Style) -> Iterator[str]:
    status = deployed.status
    phase = style.paint(status.phase, "bold", COLOUR[status.phase])
    parts = [style.paint(str(deployed.key), "bold"), phase]
    if status.step:
        parts.append(f"step {status.step}")
    if deployed.spec is not None and deployed.spec.rollout.paused:
        parts.append(style.paint("spec.rollout.paused", "yellow"))
    yield "  ".join(parts)
    if not deployed.is_current:
        yield from style.wrap("the operator has not seen this spec yet", INDENT)
    if deployed.problem:
        yield from style.wrap(deployed.problem, INDENT, "  spec")
    if deployed.command:
        yield from style.wrap(
            f"{deployed.command}, not taken by the operator yet", INDENT, "  order"
        )
    if status.message:
        yield from style.wrap(status.message, INDENT, "  now")


def _versions(deployed: Deployed, now: datetime, style: Style) -> Iterator[str]:
    status = deployed.status
    if status.stable is None:
        return
    ready = f"{status.ready_replicas} of {status.replicas} pods ready"
    rows = [("stable", status.stable, 100 - status.weight, "green", ready)]
    if status.canary is not None:
        since = status.rollout.in_force_at if status.rollout is not None else None
        told = f"for {duration(now - since)}" if since is not None else ""
        if status.rollout is not None and status.rollout.target_weight != status.weight:
            told = f"going to {status.rollout.target_weight} %"
        rows.append(("canary", status.canary, status.weight, "cyan", told))
    if status.previous is not None:
        rows.append(("previous", status.previous, 0, "dim", "kept ready"))
    width = min(max(len(version.version) for _, version, *_ in rows), 24)
    bar = min(BAR, max(style.width - INDENT - width - 38, 6))
    for role, version, weight, colour, told in rows:
        name = clean(version.version)[:width].ljust(width)
        drawn = style.bar(weight / 100, bar, colour)
        line = f"  {role.ljust(INDENT - 2)}{name} {version.revision} {drawn} {weight:3d} %  {told}"
        yield line.rstrip()


def _ladder(deployed: Deployed, style: Style) -> Iterator[str]:
    status = deployed.status
    if status.phase not in WITH_CANARY or status.rollout is None:
        return
    at = status.rollout.step if status.phase is not Phase.PROMOTING else len(deployed.steps)
    parts = []
    for index, step in enumerate(deployed.steps):
        pause = "" if step.pause is None else " (pause)"
        parts.append((f"{step.weight_percent} %{pause}", index))
    parts.append(("100 %", len(deployed.steps)))
    line, used = "  steps".ljust(INDENT), INDENT
    for words, index in parts:
        which = "passed" if index < at else "present" if index == at else "coming"
        colour = {"passed": ("green",), "present": ("bold", "cyan"), "coming": ("dim",)}[which]
        if used + len(words) + 5 > style.width:
            yield line.rstrip()
            line, used = " " * INDENT, INDENT
        line += style.paint(f"{style.mark(which)} {words}", *colour) + "   "
        used += len(words) + 5
    yield line.rstrip()


def _metrics(deployed: Deployed, style: Style) -> Iterator[str]:
    metrics = deployed.status.metrics
    if not metrics:
        return
    yield style.paint("  metrics", "bold")
    width = min(max(len(metric.name) for metric in metrics), 30)
    rollout = deployed.status.rollout if deployed.status.phase in WITH_CANARY else None
    for metric in metrics:
        yield from _metric(metric, rollout.target_weight if rollout else None, width, style)


def _metric(metric: MetricStatus, weight: int | None, width: int, style: Style) -> Iterator[str]:
    verdict, colour = VERDICT.get(metric.verdict, (metric.verdict, "yellow"))
    line = f"    {metric.name[:width].ljust(width)}  {style.paint(verdict.ljust(11), colour)}"
    gauge = gauge_of(metric.message)
    if gauge is not None:
        filled = ("red" if gauge.share >= 1 else "yellow") if gauge.towards_harm else "cyan"
        line += f"  {style.bar(gauge.share, GAUGE, filled)}"
        label = f"evidence of harm {gauge.label}" if gauge.towards_harm else gauge.label
        if visible(line) + 1 + len(label) <= style.width:
            line += f" {label}"
        else:
            line += f"\n      {label}"
    yield from line.split("\n")
    said = gauge.rest if gauge is not None else metric.message
    if said:
        yield from style.wrap(said, 6, "      ")
    if metric.alert:
        yield from style.wrap(f"alert: {metric.alert}", 6, "      ")
    forecast = _forecast(metric.forecast, weight)
    if forecast:
        yield from style.wrap(forecast, 6, "      ")
    elif metric.no_forecast and weight is not None:
        yield from style.wrap(f"no forecast: {metric.no_forecast}", 6, "      ")


def _forecast(forecast: Sequence[StepForecast], weight: int | None) -> str:
    """Say how long a doubling goes unnoticed at this weight; else at the first that is forecast."""
    if not forecast or weight is None:
        return ""
    one = next((f for f in forecast if f.weight_percent == weight), forecast[0])
    time = f"about {lasting(one.seconds)}" if one.seconds is not None else "unknown without traffic"
    return (
        f"a doubled rate would be seen after {one.requests:,} canary requests at "
        f"{one.weight_percent} %: {time}"
    )


def _fallback(deployed: Deployed, style: Style) -> Iterator[str]:
    first = "  fallback"
    for target in deployed.status.fallback:
        sign = (
            style.paint(style.mark("good"), "green")
            if target.ok
            else style.paint(style.mark("bad"), "red")
        )
        words = f"{target.target} answered the drill" if target.ok else target.target
        if target.message:
            words += f" {clean(target.message)}"
        yield f"{first.ljust(INDENT)}{sign} {words}"
        first = ""


def _gates(deployed: Deployed, style: Style) -> Iterator[str]:
    said = {"allowed": "says yes", "refused": "says no", "failed": "gives no answer"}
    first = "  gates"
    for gate in deployed.status.gates:
        mark, colour = ("good", "green") if gate.answer == "allowed" else ("bad", "red")
        words = f"{gate.name} {said[gate.answer]}"
        if gate.message:
            words += f": {gate.message}"
        sign = style.paint(style.mark(mark), colour)
        yield from style.wrap(words, INDENT + 2, f"{first.ljust(INDENT)}{sign}")
        first = ""


def _notices(deployed: Deployed, style: Style) -> Iterator[str]:
    waiting: dict[str, list[str]] = {}
    for notice in deployed.status.notices:
        for receiver in notice.receivers:
            waiting.setdefault(receiver, []).append(notice.reason)
    first = "  notices"
    for receiver, reasons in waiting.items():
        words = f"{receiver} is still to be told of {', '.join(reasons)}"
        yield from style.wrap(words, INDENT, first)
        first = ""


def _conditions(deployed: Deployed, now: datetime, style: Style) -> Iterator[str]:
    conditions = deployed.status.conditions
    if not conditions:
        return
    yield style.paint("  conditions", "bold")
    width = max(len(condition.type) for condition in conditions)
    for condition in conditions:
        first = f"    {condition.type.ljust(width)}  {_painted(condition, style)}"
        since = duration(max(now - condition.last_transition_time, timedelta(0)))
        said = f"{condition.reason}, for {since}"
        if condition.message and condition.message != deployed.status.message:
            said += f": {condition.message}"
        yield from style.wrap(said, width + 15, first)


def _painted(condition: Condition, style: Style) -> str:
    """Say the status; that nothing moves (Progressing is False) is neither good nor bad."""
    if condition.type == "Progressing" and condition.reason != "WriteFailed":
        return condition.status
    colour = {"True": "green", "False": "red", "Unknown": "yellow"}[condition.status]
    return style.paint(condition.status, colour)


def _events(events: Sequence[Event] | None, style: Style) -> Iterator[str]:
    if events is None:
        yield "  events".ljust(INDENT) + "you may not read them"
        return
    if not events:
        return
    yield style.paint("  events", "bold")
    for event in events[-EVENTS_SHOWN:]:
        at = event.at.astimezone().strftime("%H:%M:%S")
        reason = style.paint(event.reason, *(("yellow",) if event.is_warning else ()))
        yield from style.wrap(event.message, 6 + 10 + len(event.reason), f"    {at}  {reason}: ")


def summary(deployed: Deployed) -> str:
    """Say where it is in one line, for where lines cannot be redrawn."""
    status = deployed.status
    parts = [status.phase.value]
    if status.step:
        parts.append(f"step {status.step}")
    if status.stable is not None:
        parts.append(f"stable {clean(status.stable.version)} {100 - status.weight} %")
    if status.canary is not None:
        parts.append(f"canary {clean(status.canary.version)} {status.weight} %")
    line = "  ".join(parts)
    said = clean(status.message)
    return f"{line}  {said}" if said else line
