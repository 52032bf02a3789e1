"""``crossfade backtest``: what the operator would have said at every look of a past range.

The looks are the operator's own: the same analyst, asked at the same instants. Only where its
samples come from is another one: read once, then asked from memory (``ahead``).
"""

from __future__ import annotations

import argparse
import asyncio
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from crossfade.api.v1alpha1 import DEFAULT_STEPS
from crossfade.cli import plot, report
from crossfade.cli.ahead import SamplesAhead, StepsAhead
from crossfade.cli.credentials import Files, FileSecrets, prometheus_of
from crossfade.cli.outcome import Backtest, Look
from crossfade.cli.policy import Policy, read_policy
from crossfade.cli.versions import Asked, find_arms
from crossfade.errors import CommandError, MetricSourceError
from crossfade.evidence.verdicts import MetricAnswer
from crossfade.metrics.analyst import Subject
from crossfade.metrics.endpoints import Endpoints
from crossfade.metrics.prometheus import Prom, PrometheusClient, RefusedError
from crossfade.metrics.prometheus_analyst import PrometheusAnalyst
from crossfade.metrics.queries import fill
from crossfade.metrics.sources import plan_of

MAX_INTERVAL: Final = 3600
"""As in the API."""

HELP: Final = "judge a version by a past range of a Prometheus: when would it have been taken back"


def add_parser(verbs: Any) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "backtest",
        help=HELP,
        description="Say what spec.analysis of a manifest would have said about a version over a "
        "past range: when it would have taken the version back, and for which metric.",
        epilog="Exit code: 0 when it was judged, whatever the verdict; 2 when it could not be.",
    )
    parser.add_argument(
        "-f", "--filename", required=True, metavar="FILE",
        help="the ModelDeployment, YAML or JSON; - for the standard input",
    )  # fmt: skip
    parser.add_argument(
        "-n", "--namespace", help="where its pods were; by default the manifest's, else default"
    )
    parser.add_argument("--canary", required=True, metavar="VERSION", help="the judged version")
    parser.add_argument("--stable", required=True, metavar="VERSION", help="the one beside it")
    for side in ("canary", "stable"):
        parser.add_argument(
            f"--{side}-revision", metavar="HASH", help="its pods are NAME-HASH-*; by default found"
        )
    parser.add_argument(
        "--from", required=True, type=_instant, dest="start", metavar="TIME",
        help="when the canary got its first requests, such as 2026-11-24T12:00Z",
    )  # fmt: skip
    parser.add_argument("--to", required=True, type=_instant, dest="end", metavar="TIME",
                        help="when to end")  # fmt: skip
    parser.add_argument("--interval", type=_seconds, metavar="SECONDS",
                        help="between two looks; by default the manifest's")  # fmt: skip
    parser.add_argument(
        "--prometheus", type=_url, metavar="URL",
        help="by default the manifest's; another one is asked without the manifest's credentials",
    )  # fmt: skip
    parser.add_argument("--bearer-token-file", metavar="FILE", help="a token for Prometheus")
    parser.add_argument("--basic-auth-file", metavar="FILE", help="USER:PASSWORD for Prometheus")
    parser.add_argument("--ca-file", metavar="FILE", help="who signed its certificate, PEM")
    parser.add_argument("--plot", metavar="FILE", help="draw the evidence: a .svg or .png file")
    parser.add_argument("-o", "--output", choices=("table", "json"), default="table")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Judge, print, draw; return the exit code."""
    if options.plot is not None:
        plot.expect_drawable(options.plot)
    past = asyncio.run(_play(options))
    print(report.RENDERERS[options.output](past))  # noqa: T201 - what a command is for
    if options.plot is not None:
        plot.draw(past, options.plot)
    return 0


async def _play(options: argparse.Namespace) -> Backtest:
    prom = PrometheusClient()
    try:
        return await play(case_of(options, datetime.now(UTC)), prom)
    finally:
        prom.close()


@dataclass(frozen=True, slots=True)
class Case:
    """What is to be judged."""

    policy: Policy
    asked: Asked
    secrets: FileSecrets


def case_of(options: argparse.Namespace, now: datetime) -> Case:
    """Read everything that the command line names.

    Raises:
        CommandError: something of it is not there, or makes no sense.
        InvalidSpecError: the manifest is wrong.
    """
    policy = read_policy(options.filename, options.namespace)
    files = Files(options.bearer_token_file, options.basic_auth_file, options.ca_file)
    prometheus = prometheus_of(policy.analysis.prometheus, options.prometheus, files)
    update: dict[str, object] = {"prometheus": prometheus}
    if options.interval is not None:
        update["interval_seconds"] = options.interval
    analysis = policy.analysis.model_copy(update=update)
    start, end = options.start, options.end
    if end > now:
        raise CommandError(f"--to is in the future; now it is {now:%Y-%m-%dT%H:%M:%S}Z")
    if next(grid(start, end, analysis.interval_seconds), None) is None:
        raise CommandError(
            f"there is no look between --from and --to: they come every "
            f"{analysis.interval_seconds} s; give a longer range"
        )
    asked = Asked(
        options.canary, options.stable, options.canary_revision, options.stable_revision, start, end
    )
    return Case(Policy(policy.key, policy.spec, analysis), asked, FileSecrets(files))


async def play(case: Case, prom: Prom) -> Backtest:
    """Take all looks of the range.

    Raises:
        CrossfadeError: nothing can be judged; the message tells what to do.
    """
    asked, analysis, key = case.asked, case.policy.analysis, case.policy.key
    endpoint = await Endpoints(case.secrets, time.monotonic).resolve(
        key.namespace, analysis.prometheus
    )
    try:
        canary, stable = await find_arms(prom, endpoint, case.policy, asked)
    except RefusedError as e:
        raise CommandError(f"{e}; give --bearer-token-file or --basic-auth-file") from e
    except MetricSourceError as e:
        raise CommandError(f"{e}; --prometheus names another, such as a forwarded port") from e
    steps = case.policy.spec.rollout.steps or DEFAULT_STEPS
    subject = Subject(
        key=key,
        model=case.policy.spec.model.name,
        analysis=analysis,
        canary=canary,
        stable=stable,
        since=asked.start,
        in_force_at=asked.start,
        min_requests=sum(step.min_requests for step in steps),
    )
    _expect_readable(subject)
    end = asked.end.timestamp()
    analyst = PrometheusAnalyst(
        StepsAhead(prom, end), case.secrets, time.monotonic, SamplesAhead(prom, end)
    )
    looks = [
        Look(at, await _look(analyst, subject, at))
        for at in grid(asked.start, asked.end, analysis.interval_seconds)
    ]
    min_time = timedelta(seconds=sum(step.min_seconds for step in steps))
    return Backtest(subject, asked.end, min_time, tuple(looks))


def grid(start: datetime, end: datetime, interval: int) -> Iterator[datetime]:
    """Yield when the operator looks: at the multiples of the interval since 1970, after start."""
    first = math.floor(start.timestamp() / interval) + 1
    for i in range(first, math.floor(end.timestamp() / interval) + 1):
        yield datetime.fromtimestamp(i * interval, UTC)


async def _look(
    analyst: PrometheusAnalyst, subject: Subject, at: datetime
) -> tuple[MetricAnswer, ...]:
    try:
        return await analyst.look(subject, at)
    except ExceptionGroup as e:
        found = e.subgroup(CommandError)
        if found is None:
            raise
        raise found.exceptions[0] from e


def _expect_readable(subject: Subject) -> None:
    """Refuse at once what the operator would call unavailable at every look.

    Raises:
        InvalidSpecError: a metric cannot be read; the message tells what to write.
    """
    for metric in subject.analysis.metrics:
        if metric.query is not None:
            fill(metric.query.promql, subject)
        elif metric.drift is None:
            plan_of(subject.analysis, metric)


def _instant(text: str) -> datetime:
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no time; write one such as 2026-11-24T12:00Z"
        ) from None
    if at.tzinfo is None:
        raise argparse.ArgumentTypeError(f"{text!r} has no time zone; write {text}Z for UTC")
    return at.astimezone(UTC)


def _seconds(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= MAX_INTERVAL:
        raise argparse.ArgumentTypeError(f"write whole seconds from 1 to {MAX_INTERVAL}")
    return int(text)


def _url(text: str) -> str:
    if not text.startswith(("http://", "https://")) or " " in text:
        raise argparse.ArgumentTypeError("write a URL such as http://localhost:9090")
    return text
