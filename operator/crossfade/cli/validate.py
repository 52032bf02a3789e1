"""``crossfade validate``: what is wrong with a manifest, and what its rollout could see."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from crossfade.api.parse import parse_spec
from crossfade.api.v1alpha1 import DEFAULT_STEPS, Analysis, ModelDeploymentSpec
from crossfade.cli import options as shared
from crossfade.cli.exits import FAILED, OK, FailedError
from crossfade.cli.policy import read_objects
from crossfade.cli.rules import broken
from crossfade.cli.table import columns
from crossfade.core.news import lasting
from crossfade.errors import CommandError, InvalidSpecError
from crossfade.evidence import power
from crossfade.evidence.verdicts import Counts, Forecast
from crossfade.metrics.analyst import Arm, Subject
from crossfade.metrics.counts import limits_of
from crossfade.metrics.prometheus_analyst import log_needed
from crossfade.metrics.queries import fill
from crossfade.metrics.sources import plan_of
from crossfade.names import API_VERSION, KIND, NamespacedName
from crossfade.workload.sidecar import Injection, check

COUNTED: Final = 1_000_000
"""Answers of stable that a forecast is made as if it had counted: its rate is taken as known."""

_ANY_IMAGE: Final = Injection("any")
"""The image of sidecars is the operator's setting and none of the manifest."""


@dataclass(frozen=True, slots=True)
class MetricForecast:
    """What one metric could see at each step."""

    metric: str
    steps: tuple[Forecast, ...]
    none: str = ""
    """Why there is no forecast; "" when there is one."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found out about one ModelDeployment."""

    name: str
    problems: tuple[str, ...]
    forecasts: tuple[MetricForecast, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Return it as ``-o json`` shows it."""
        return {
            "name": self.name,
            "valid": not self.problems,
            "problems": list(self.problems),
            "forecasts": [
                {
                    "metric": one.metric,
                    **({"none": one.none} if one.none else {}),
                    "steps": [
                        {
                            "weightPercent": step.weight_percent,
                            "requests": step.requests,
                            "seconds": step.seconds,
                        }
                        for step in one.steps
                    ],
                }
                for one in self.forecasts
            ],
        }


@dataclass(frozen=True, slots=True)
class Traffic:
    """What the forecast is about."""

    per_second: float
    """Requests of both versions together."""
    share: float
    """Of stable's answers that are bad."""


def add_parser(verbs: Any) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "validate",
        help="check a manifest offline, and forecast what its rollout could see",
        description="Check the ModelDeployments of a file without a cluster: every field, every "
        "rule over several fields, series and queries, and the sidecar's contract. With traffic "
        "and error rate given, say for each step how long a doubling of the rate goes unnoticed. "
        "Left to the API server (kubectl apply --dry-run=server) are pod templates beyond having "
        "containers, the metrics of autoscalers, and what may not change later.",
        epilog="Exit code: 0 valid; 1 not valid, or the file cannot be read; 2 asked wrongly.",
    )
    parser.add_argument(
        "-f", "--filename", required=True, metavar="FILE",
        help="YAML or JSON; - for the standard input",
    )  # fmt: skip
    parser.add_argument(
        "--requests-per-second", type=_positive, metavar="N",
        help="of both versions together, for the forecast",
    )  # fmt: skip
    parser.add_argument(
        "--error-percent", type=_percent, metavar="P",
        help="how many of stable's answers are bad (failed, or slow), for the forecast",
    )  # fmt: skip
    shared.add_output(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Check; return the exit code."""
    given = (options.requests_per_second, options.error_percent)
    if (given[0] is None) != (given[1] is None):
        raise CommandError("the forecast needs both --requests-per-second and --error-percent")
    traffic = Traffic(given[0], given[1] / 100) if given[0] is not None else None
    bodies = [body for body in _objects(options.filename) if body.get("kind") == KIND]
    if not bodies:
        raise FailedError(f"{options.filename} has no {KIND}")
    findings = [examine(body, traffic) for body in bodies]
    if options.output is not None:
        shared.say(shared.WRITERS[options.output]([one.as_json() for one in findings]))
    else:
        shared.say("\n".join(line for one in findings for line in render(one, traffic)))
    return FAILED if any(one.problems for one in findings) else OK


def _objects(path: str) -> list[dict[str, Any]]:
    """Read the objects of a file, those of Lists too."""
    try:
        found = read_objects(path)
    except CommandError as e:
        raise FailedError(str(e)) from e
    objects: list[dict[str, Any]] = []
    for body in found:
        items = body.get("items") if str(body.get("kind", "")).endswith("List") else None
        objects += [it for it in items if isinstance(it, dict)] if items else [body]
    return objects


def examine(body: dict[str, Any], traffic: Traffic | None) -> Finding:
    """Find out what is wrong with a ModelDeployment, and what its metrics could see."""
    meta = body.get("metadata")
    name = meta.get("name") if isinstance(meta, dict) else None
    if not isinstance(name, str):
        return Finding("(no name)", ("metadata.name: this field is required",))
    problems = list(_version_problems(body))
    try:
        spec = parse_spec(body)
    except InvalidSpecError as e:
        return Finding(name, (*problems, *str(e).split("; ")))
    problems += broken(body)
    if problems:
        return Finding(name, tuple(problems))
    key = NamespacedName(str(body["metadata"].get("namespace") or "default"), name)
    problems += _deeper_problems(key, spec)
    forecasts = tuple(_forecasts(spec, traffic)) if traffic is not None and not problems else ()
    return Finding(name, tuple(problems), forecasts)


def _version_problems(body: dict[str, Any]) -> Iterator[str]:
    if body.get("apiVersion") != API_VERSION:
        yield f"apiVersion: write {API_VERSION}"


def _deeper_problems(key: NamespacedName, spec: ModelDeploymentSpec) -> Iterator[str]:
    """Yield what the API server would take, and the operator would not."""
    try:
        check(key, spec, _ANY_IMAGE)
    except InvalidSpecError as e:
        yield str(e)
    if spec.analysis is None:
        return
    subject = _subject(key, spec, spec.analysis)
    for metric in spec.analysis.metrics:
        try:
            if metric.query is not None:
                fill(metric.query.promql, subject)
            elif metric.drift is None:
                plan_of(spec.analysis, metric)
        except InvalidSpecError as e:
            yield f"spec.analysis.metrics, {metric.name}: {e}"


def _subject(key: NamespacedName, spec: ModelDeploymentSpec, analysis: Analysis) -> Subject:
    """Return a rollout that nobody has begun."""
    return Subject(
        key=key,
        model=spec.model.name,
        analysis=analysis,
        canary=Arm("bbbbbbbb", spec.model.version),
        stable=Arm("cccccccc", f"not {spec.model.version}"),
        since=datetime.fromtimestamp(0, UTC),
        in_force_at=None,
        min_requests=0,
    )


def _forecasts(spec: ModelDeploymentSpec, traffic: Traffic) -> Iterator[MetricForecast]:
    analysis = spec.analysis
    if analysis is None:
        return
    ladder = [step.weight_percent for step in spec.rollout.steps or DEFAULT_STEPS]
    needed = log_needed(analysis)
    stable = Counts(COUNTED, round(COUNTED * traffic.share))
    for metric in analysis.metrics:
        if metric.error_rate is None and metric.latency is None:
            why = "only errorRate and latency have a rate that can double"
            yield MetricForecast(metric.name, (), why)
            continue
        limits = limits_of(metric)
        steps = power.forecast(limits, stable, ladder, traffic.per_second, needed)
        none = "" if steps else power.why_none(limits, stable)
        yield MetricForecast(metric.name, steps, none)


def render(finding: Finding, traffic: Traffic | None) -> list[str]:
    """Say it in words."""
    if finding.problems:
        return [f"{finding.name}: not valid", *(f"  {one}" for one in finding.problems)]
    lines = [f"{finding.name}: valid"]
    if traffic is None:
        return lines
    if not finding.forecasts:
        return [*lines, "  no forecast: there is no analysis, people decide"]
    lines.append(
        f"  at {traffic.per_second:g} requests/s, a doubling of {100 * traffic.share:g} % bad "
        "answers is seen with 80 % probability after"
    )
    for one in finding.forecasts:
        lines += _told(one)
    return lines


def _told(forecast: MetricForecast) -> Sequence[str]:
    if forecast.none:
        return [f"  {forecast.metric}: no forecast: {forecast.none}"]
    rows = [("weight", "canary requests", "time")]
    rows += [
        (
            f"{step.weight_percent} %",
            f"{step.requests:,}",
            lasting(step.seconds) if step.seconds is not None else "never at this traffic",
        )
        for step in forecast.steps
    ]
    return [f"  {forecast.metric}", *(f"    {line}" for line in columns(rows))]


def _positive(text: str) -> float:
    number = _number(text)
    if not 0 < number <= 1e9:  # noqa: PLR2004 - more than anybody has
        raise argparse.ArgumentTypeError("write a number above 0")
    return number


def _percent(text: str) -> float:
    number = _number(text)
    if not 0 <= number < 100:  # noqa: PLR2004 - percent
        raise argparse.ArgumentTypeError("write a number from 0 to below 100")
    return number


def _number(text: str) -> float:
    if re.fullmatch(r"\d+(\.\d+)?|\.\d+", text) is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no number")
    return float(text)
