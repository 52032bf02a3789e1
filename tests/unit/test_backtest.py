"""``crossfade backtest``: the command over a past of our own, and what it says of it."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from typing_extensions import override

from crossfade.cli import backtest, plot
from crossfade.cli.ahead import SamplesAhead, StepsAhead
from crossfade.cli.command import main
from crossfade.cli.outcome import Backtest, Look
from crossfade.cli.policy import read_policy
from crossfade.cli.report import duration, render_json, render_table
from crossfade.errors import CommandError, MetricSourceError
from crossfade.evidence.verdicts import Evidence, MetricAnswer, Verdict
from crossfade.metrics.batching import Pods, Question
from crossfade.metrics.endpoints import Endpoint
from crossfade.metrics.prometheus import RawSeries
from crossfade.metrics.prometheus_analyst import PrometheusAnalyst
from crossfade.metrics.selectors import Selector
from crossfade.workload.revision import revision_of
from tests.unit.test_metrics_analyst import SINCE, START, FakeProm, Secrets, subject_of

STABLE, CANARY, OTHER = "bcdfghjk", "lmnpqrst", "vwxz2456"


class Past(FakeProm):
    """A Prometheus that also tells which values a label had."""

    def __init__(self) -> None:
        super().__init__()
        self.down_after: int | None = None
        self.closed = False

    @override
    async def instant(self, endpoint: Endpoint, promql: str, at: float) -> list[RawSeries]:
        if self.down_after is not None and len(self.queries) >= self.down_after:
            raise MetricSourceError("Prometheus is not reached")
        return await super().instant(endpoint, promql, at)

    @override
    async def steps(
        self, endpoint: Endpoint, promql: str, start: int, end: int, step: int
    ) -> list[RawSeries]:
        grouped = re.fullmatch(r"group by \((\w+)\) \((.+)\)", promql)
        if grouped is None:
            return await super().steps(endpoint, promql, start, end, step)
        window = (end - start) * 1000
        found = []
        for selector in grouped[2].split(" or "):
            found += await super().instant(endpoint, f"{selector}[{window}ms]", end)
        return [RawSeries({grouped[1]: s.labels[grouped[1]]}, s.values) for s in found]

    def scrape(self, second: float, revision: str, good: int, bad: int = 0) -> None:
        at = {"namespace": "ml", "pod": f"fraud-{revision}-7d9f-x2x4"}
        self.sample(second, good, "total", code="200", **at)
        self.sample(second, bad, "total", code="500", **at)

    def close(self) -> None:
        self.closed = True


def rollout(past: Past, *, bad_from: float, seconds: int = 600) -> None:
    """Scrape a rollout each 5 s: 18 and 2 requests/s; half of the canary's fail from a time on."""
    past.scrape(-60, STABLE, 1000, 5)
    for second in range(-10, seconds + 1, 5):
        past.scrape(second, STABLE, 1000 + max(second, 0) * 18, 5)
        bad = max(second - bad_from, 0)
        past.scrape(second, CANARY, int(max(second, 0) * 2 - bad), int(bad))


Manifest = dict[str, Any]


def manifest_of(*metrics: dict[str, Any], **analysis: Any) -> Manifest:
    container = {"name": "model", "image": "fraud:2.3.0"}
    return {
        "apiVersion": "crossfade.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": "fraud", "namespace": "ml"},
        "spec": {
            "model": {"name": "fraud", "version": "2.3.0"},
            "template": {"spec": {"containers": [container]}},
            "traffic": {"replicas": {}},
            "rollout": {
                "steps": [
                    {"weightPercent": 10, "minRequests": 20, "minSeconds": 20},
                    {"weightPercent": 50, "minRequests": 40, "minSeconds": 40},
                ]
            },
            "analysis": {
                "prometheus": {"address": "http://p:9090"},
                "source": {"requests": "total", "errors": 'total{code="500"}'},
                "metrics": list(metrics) or [{"name": "errors", "errorRate": {"maxPercent": 5}}],
                **analysis,
            },
        },
    }


@dataclass
class Command:
    """The command, as a person runs it."""

    past: Past
    folder: Path
    capsys: pytest.CaptureFixture[str]

    def __call__(self, *more: str, manifest: Manifest | str | None = None) -> tuple[int, str, str]:
        """Return the exit code, the output and the error output."""
        file = self.folder / "fraud.yaml"
        text = manifest if isinstance(manifest, str) else json.dumps(manifest or manifest_of())
        file.write_text(text)
        flags = {
            "-f": str(file),
            "--canary": "2.3.0",
            "--stable": "2.2.0",
            "--from": "2026-11-24T12:00Z",
            "--to": "2026-11-24T12:10Z",
        } | dict(zip(more[::2], more[1::2], strict=True))
        words = [word for flag in flags.items() for word in flag]
        try:
            code = main(["backtest", *words])
        except SystemExit as e:
            code = int(str(e.code))
        out, err = self.capsys.readouterr()
        return code, out, err

    def json(self, *more: str, manifest: Manifest | None = None) -> dict[str, Any]:
        code, out, err = self(*more, "-o", "json", manifest=manifest)
        assert code == 0, err
        return dict(json.loads(out))


@pytest.fixture
def command(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Command:
    past = Past()
    monkeypatch.setattr(backtest, "PrometheusClient", lambda: past)
    return Command(past, tmp_path, capsys)


# ── the verdict ───────────────────────────────────────────────────────────────────────────────


def test_says_when_and_for_which_metric_it_fires(command: Command) -> None:
    rollout(command.past, bad_from=120)
    slow = {"name": "calm", "errorRate": {"maxPercent": 90}}
    errors = {"name": "errors", "errorRate": {"maxPercent": 5}}
    code, out, _ = command(manifest=manifest_of(slow, errors))
    assert code == 0
    assert command.past.closed
    head, calm, bad, last = out.strip().split("\n\n")
    assert head == (
        f"ml/fraud: 2.3.0 ({CANARY}) against 2.2.0 ({STABLE}), 2026-11-24 12:00:00 to 12:10:00 "
        "UTC, 60 looks"
    )
    assert "harm" not in calm
    assert calm.splitlines()[-1].startswith("  12:10:00  (last look)    canary 40.0 %")
    (harm,) = [line for line in bad.splitlines() if " harm " in line]
    assert harm == bad.splitlines()[-1], "what comes after harm is not told"
    found = re.match(r"  12:02:([1-4]0)  harm +after 2 min \1 s: canary \d", harm)
    assert found, harm
    assert last.startswith(f"fired: errors at 12:02:{found[1]}, after 2 min {found[1]} s: 2.3.0")
    assert "before that, all metrics were healthy at 12:01:00" in last


def test_a_healthy_version_is_ready_with_the_requests_and_the_time_of_all_steps(
    command: Command,
) -> None:
    rollout(command.past, bad_from=9999)
    found = command.json()
    assert (found["outcome"], found["readyAt"]) == ("ready", "2026-11-24T12:01:00Z")
    assert (found["firedAt"], found["firedBy"], found["looks"]) == (None, [], 60)
    assert [change["verdict"] for change in found["metrics"][0]["changes"]] == [
        "notEnoughData",
        "healthy",
    ]
    slower = manifest_of()
    slower["spec"]["rollout"]["steps"][1]["minRequests"] = 1100
    assert command.json(manifest=slower)["readyAt"] == "2026-11-24T12:09:20Z"


def test_holds_without_enough_requests_or_time(command: Command) -> None:
    rollout(command.past, bad_from=9999)
    greedy = manifest_of()
    greedy["spec"]["rollout"]["steps"][1]["minRequests"] = 10_000
    assert command(manifest=greedy)[1].splitlines()[-1] == (
        "held: 2.3.0 would have been neither promoted nor taken back; "
        "not healthy at the end: errors"
    )
    patient = manifest_of()
    patient["spec"]["rollout"]["steps"][1]["minSeconds"] = 3580
    assert (
        command(manifest=patient)[1]
        .splitlines()[-1]
        .endswith("the steps take 1 h, longer than this range")
    )


async def test_says_what_the_operator_says_at_every_look(command: Command) -> None:
    rollout(command.past, bad_from=300, seconds=4000)
    metrics = [
        {"name": "errors", "errorRate": {"maxPercent": 60, "worseThanStable": {"ratio": 100}}},
        {"name": "q", "query": {"promql": "revenue", "min": 5, "failureLimit": 3}},
    ]
    command.past.points["revenue"] = [
        RawSeries({}, [(START + s - 1, str(9 if s < 2000 else 1)) for s in range(0, 4001, 100)])
    ]
    file = command.folder / "long.yaml"
    file.write_text(json.dumps(manifest_of(*metrics, intervalSeconds=100)))
    options = backtest_options(str(file), "2026-11-24T13:06:40Z")
    past = await backtest.play(backtest.case_of(options, SINCE + timedelta(days=1)), command.past)
    operator = PrometheusAnalyst(command.past, Secrets(), lambda: 0.0)
    command.past.queries.clear()
    live = [Look(k.at, await operator.look(past.subject, k.at)) for k in past.looks]
    assert list(past.looks) == live
    assert len(past.looks) == 40
    assert {a.verdict for _, a in past.of("q")} >= {Verdict.HEALTHY, Verdict.HARM}


def backtest_options(file: str, end: str) -> Any:
    import argparse  # noqa: PLC0415

    parser = argparse.ArgumentParser()
    backtest.add_parser(parser.add_subparsers())
    return parser.parse_args(
        ["backtest", "-f", file, "--canary", "2.3.0", "--stable", "2.2.0",
         "--from", "2026-11-24T12:00Z", "--to", end]
    )  # fmt: skip


def test_a_version_that_does_harm_before_the_steps_are_over_is_never_ready(
    command: Command,
) -> None:
    rollout(command.past, bad_from=0)
    found = command.json()
    assert (found["outcome"], found["readyAt"], found["firedBy"]) == ("fired", None, ["errors"])


def test_reads_each_hour_of_a_series_once(command: Command) -> None:
    rollout(command.past, bad_from=9999)
    command("--interval", "1")
    raw = [query for query in command.past.queries if "group by" not in query]
    assert len(raw) == 5, "two series, each in the hour of the range and in the one before"


# ── who is who ────────────────────────────────────────────────────────────────────────────────


def test_the_younger_of_two_revisions_is_the_canary(command: Command) -> None:
    rollout(command.past, bad_from=9999)
    found = command.json()
    assert (found["canary"]["revision"], found["stable"]["revision"]) == (CANARY, STABLE)


def test_the_manifests_own_revision_is_its_versions(command: Command) -> None:
    policy = read_policy(_written(command, manifest_of()), None)
    own = revision_of(policy.spec)
    for second in range(-10, 601, 5):
        for revision in (own, OTHER):
            command.past.scrape(second, revision, 100 + second)
    assert command.json()["canary"]["revision"] == own
    swapped = command.json("--canary", "2.2.0", "--stable", "2.3.0")
    assert (swapped["canary"]["revision"], swapped["stable"]["revision"]) == (OTHER, own)


def _written(command: Command, manifest: Manifest) -> str:
    file = command.folder / "other.yaml"
    file.write_text(json.dumps(manifest))
    return str(file)


def test_says_which_revisions_there_are_when_it_is_not_clear(command: Command) -> None:
    rollout(command.past, bad_from=9999)
    command.past.scrape(30, OTHER, 1)
    code, _, err = command()
    assert code == 2
    assert err == (
        "crossfade: which revision is the canary and which the stable version is not clear; "
        "between 2026-11-24 12:00:00 and 12:10:00 UTC there are: "
        f"{STABLE} (seen 11:59:00 to 12:10:00), {CANARY} (seen 11:59:50 to "
        f"12:10:00), {OTHER} (seen 12:00:30 to 12:00:30); "
        "give --canary-revision and --stable-revision\n"
    )
    found = command.json("--canary-revision", OTHER, "--stable-revision", STABLE)
    assert found["canary"]["revision"] == OTHER
    half = command("--canary-revision", OTHER)
    assert half[0] == 2
    unknown = command("--canary-revision", "zzzzzzzz")
    assert unknown[2].startswith("crossfade: there are no series of revision zzzzzzzz; between")
    same = command("--canary-revision", OTHER, "--stable-revision", OTHER)
    assert "canary and stable are the same revision" in same[2]


def test_one_flag_is_enough_for_two_revisions(command: Command) -> None:
    rollout(command.past, bad_from=9999)
    found = command.json("--stable-revision", CANARY)
    assert (found["canary"]["revision"], found["stable"]["revision"]) == (STABLE, CANARY)


def test_one_revision_alone_is_not_compared(command: Command) -> None:
    for second in range(-10, 601, 5):
        command.past.scrape(second, STABLE, 100 + second)
    assert "there must be two revisions, a canary and a stable one; between" in command()[2]


def test_finds_the_revisions_in_what_a_gateway_calls_them(command: Command) -> None:
    for second in range(-10, 601, 5):
        for revision, rate, since in ((STABLE, 18, -10), (CANARY, 2, 0)):
            if second >= since:
                command.past.sample(
                    second, max(second, 0) * rate, "traefik_service_requests_total", code="200",
                    service=f"gw-ml-fraud-svc-ml-fraud-{revision}-http", instance="traefik",
                )  # fmt: skip
    found = command.json(manifest=manifest_of(source={"preset": "traefik"}))
    assert found["outcome"] == "ready"
    assert (found["canary"]["revision"], found["stable"]["revision"]) == (CANARY, STABLE)


def test_joins_by_a_version_label(command: Command) -> None:
    for second in range(-10, 601, 5):
        for version, rate in (("2.3.0", 2), ("2.2.0", 18)):
            command.past.sample(
                second, max(second, 0) * rate, "total", version=version, instance="feedback"
            )
    source = {"requests": "total", "errors": "wrong", "versionLabel": "version"}
    found = command.json(manifest=manifest_of(source=source))
    assert (found["outcome"], found["canary"]["revision"]) == ("ready", "")
    code, _, err = command("--stable", "2.1.0", manifest=manifest_of(source=source))
    assert code == 2
    assert err == (
        'crossfade: there are no series of total with version="2.1.0" between 2026-11-24 12:00:00 '
        "and 12:10:00 UTC; there are: 2.2.0, 2.3.0\n"
    )
    pods = {"name": "q", "query": {"promql": 'x{pod=~"{{ pods }}"}', "max": 1}}
    _, _, err = command(manifest=manifest_of(pods, source=source))
    assert err.endswith("give --canary-revision and --stable-revision\n")


def test_needs_no_revision_for_a_query_without_pods(command: Command) -> None:
    version = {"name": "q", "query": {"promql": 'x{v="{{version}}"}', "max": 1}}
    manifest = manifest_of(version)
    del manifest["spec"]["analysis"]["source"]
    command.past.points['x{v="2.3.0"}'] = [RawSeries({}, [(START + 99, "2")])]
    found = command.json(manifest=manifest)
    assert (found["canary"]["revision"], found["firedAt"]) == ("", "2026-11-24T12:01:40Z")


# ── what goes wrong ───────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["-f", "/no/such/file"], "/no/such/file cannot be read: No such file or directory"),
        (["--from", "yesterday"], "'yesterday' is no time; write one such as 2026-11-24T12:00Z"),
        (["--from", "2026-11-24T12:00"], "has no time zone; write 2026-11-24T12:00Z for UTC"),
        (["--to", "2026-11-24T11:00Z"], "there is no look between --from and --to"),
        (["--to", "2999-01-01T00:00Z"], "--to is in the future; now it is 2"),
        (["--interval", "0"], "write whole seconds from 1 to 3600"),
        (["--prometheus", "localhost:9090"], "write a URL such as http://localhost:9090"),
        (["-n", "other"], "no series of total for pods fraud-* in namespace other between"),
        (["--plot", "out.gif"], "write a name that ends in .svg or .png"),
        (["--bearer-token-file", "/no/such"], "/no/such cannot be read"),
    ],
)
def test_says_what_to_do_about_wrong_flags(command: Command, flags: list[str], says: str) -> None:
    rollout(command.past, bad_from=9999)
    code, out, err = command(*flags)
    assert (code, out) == (2, "")
    assert says in err


def _without(path: str) -> Manifest:
    manifest = manifest_of()
    *folders, last = path.split(".")
    there = manifest
    for folder in folders:
        there = there[folder]
    del there[last]
    return manifest


@pytest.mark.parametrize(
    ("manifest", "says"),
    [
        ("{", "is neither YAML nor JSON"),
        ("kind: Deployment", "has 0 ModelDeployments; give a file with one"),
        (_without("metadata.name"), "write metadata.name"),
        (_without("metadata"), "write metadata.name"),
        (_without("spec.model"), "spec.model: this field is required"),
        (_without("spec.analysis"), "has no spec.analysis, so nothing would be judged"),
        (_without("spec.analysis.source.errors"), "write analysis.source.errors, or a preset"),
        (
            manifest_of({"name": "q", "query": {"promql": "{{pod}}", "max": 1}}),
            "{{pod}} is not known",
        ),
    ],
)
def test_says_what_is_wrong_with_a_manifest(
    command: Command, manifest: Manifest | str, says: str
) -> None:
    rollout(command.past, bad_from=9999)
    code, out, err = command(manifest=manifest)
    assert (code, out) == (2, "")
    assert says in err


def test_says_that_prometheus_does_not_answer(command: Command) -> None:
    rollout(command.past, bad_from=9999)
    command.past.down_after = 1
    assert command() == (2, "", "crossfade: the past cannot be read: Prometheus is not reached\n")
    command.past.down = True
    code, out, err = command()
    assert (code, out) == (2, "")
    assert err.startswith("crossfade: Prometheus is not reached; --prometheus names another")


def test_says_how_to_show_credentials(command: Command) -> None:
    rollout(command.past, bad_from=9999)
    command.past.refuse = {None}  # type: ignore[arg-type]
    code, _, err = command()
    assert code == 2
    assert err.endswith("(HTTP 401); give --bearer-token-file or --basic-auth-file\n")


SECURED = [
    ({"bearerToken": {"name": "s", "key": "k"}}, "bearerToken", "--bearer-token-file", "t0ken\n"),
    ({"basicAuth": {"name": "s"}}, "basicAuth", "--basic-auth-file", "me:s3:cret\n"),
    ({"tls": {"ca": {"name": "s", "key": "k"}}}, "tls.ca", "--ca-file", "PEM"),
]


@pytest.mark.parametrize(("spec", "field", "flag", "content"), SECURED)
def test_credentials_come_from_files(
    command: Command, spec: dict[str, Any], field: str, flag: str, content: str
) -> None:
    rollout(command.past, bad_from=9999)
    endpoints: set[Endpoint] = set()
    command.past._check = endpoints.add  # type: ignore[method-assign, assignment]
    secured = manifest_of(prometheus={"address": "https://p", **spec})
    code, _, err = command(manifest=secured)
    assert code == 2
    assert err == (
        f"crossfade: spec.analysis.prometheus.{field} is in a Secret, which is not read here: "
        f"give {flag}\n"
    )
    assert command("--prometheus", "http://localhost:9090", manifest=secured)[0] == 0
    (plain,) = endpoints
    assert (plain.address, plain.credentials.bearer_token) == ("http://localhost:9090", None)
    endpoints.clear()
    file = command.folder / "secret"
    file.write_text(content)
    assert command(flag, str(file), manifest=secured)[0] == 0
    (endpoint,) = endpoints
    shown = endpoint.credentials
    known = (shown.bearer_token, shown.username, shown.password, shown.ca)
    assert (
        known
        == {
            "bearerToken": ("t0ken", None, None, None),
            "basicAuth": (None, "me", "s3:cret", None),
            "tls.ca": (None, None, None, "PEM"),
        }[field]
    )


def test_a_certificate_is_as_unchecked_as_the_manifest_says(command: Command) -> None:
    rollout(command.past, bad_from=9999)
    endpoints: set[Endpoint] = set()
    command.past._check = endpoints.add  # type: ignore[method-assign, assignment]
    unchecked = {"address": "https://p", "tls": {"insecureSkipVerify": True}}
    assert command(manifest=manifest_of(prometheus=unchecked))[0] == 0
    assert [one.insecure_skip_verify for one in endpoints] == [True]


def test_refuses_credentials_that_it_cannot_show(command: Command) -> None:
    certified = {"address": "https://p", "tls": {"clientCertificate": {"name": "s"}}}
    assert "forward a port" in command(manifest=manifest_of(prometheus=certified))[2]
    file = command.folder / "secret"
    file.write_text("me")
    assert "write USER:PASSWORD into it" in command("--basic-auth-file", str(file))[2]


# ── reading ahead ─────────────────────────────────────────────────────────────────────────────

ENDPOINT = Endpoint("http://p:9090")


async def test_samples_ahead_are_those_of_the_question() -> None:
    past = Past()
    for second in range(0, 9001, 50):
        past.scrape(second, CANARY, second)
    ahead = SamplesAhead(past, START + 7200)
    pods = Pods("pod", (f"fraud-{CANARY}-",), "", "namespace", "ml")
    for low, high in ((0, 7200), (3550, 3650), (100, 200), (7150, 7200)):
        question = Question(ENDPOINT, Selector("total"), pods, START + low, START + high)
        times = [[at - START for at, _ in s.values] for s in await ahead.samples(question)]
        assert times == [list(range(low + 50, high + 1, 50))] * 2


async def test_steps_ahead_ask_once_for_an_hour_and_remember_a_failure() -> None:
    past = Past()
    start = int(START)
    past.points["up"] = [RawSeries({}, [(start + s, str(s)) for s in range(0, 7201, 60)])]
    ahead = StepsAhead(past, START + 7200)
    for at in (0, 60, 3600, 3660, 7200):
        (series,) = await ahead.steps(ENDPOINT, "up", start + at, start + at, 60)
        assert series.values == [(start + at, str(at))]
    assert len(past.queries) == 2
    past.down = True
    for _ in range(2):
        with pytest.raises(MetricSourceError):
            await ahead.steps(ENDPOINT, "down", start, start, 60)
    assert len(past.queries) == 3
    with pytest.raises(MetricSourceError):
        await ahead.instant(ENDPOINT, "up[1s]", START)


# ── words and pictures ────────────────────────────────────────────────────────────────────────


def played(*logs: float, alert: str = "") -> Backtest:
    """Return looks at one metric, each 10 s, with the given evidence of 300 that are needed."""
    needed = math.log(300)
    looks = []
    for i, log in enumerate(logs, 1):
        verdict = Verdict.HARM if log >= needed else Verdict.HEALTHY
        answer = MetricAnswer("errors", verdict, "canary 4.9 %", Evidence(log, needed), alert)
        looks.append(Look(SINCE + timedelta(seconds=10 * i), (answer,)))
    end = SINCE + timedelta(seconds=10 * len(logs))
    return Backtest(subject_of(), end, timedelta(0), tuple(looks))


def test_tells_the_evidence() -> None:
    changes = json.loads(render_json(played(0, math.log(1000))))["metrics"][0]["changes"]
    assert [change["evidence"] for change in changes] == [
        {"log10": 0.0, "log10Needed": 2.477},
        {"log10": 3.0, "log10Needed": 2.477},
    ]


def test_tells_an_alert_that_comes() -> None:
    quiet, loud = played(0, 0, 0), played(0, 0, 0, alert="the inputs moved")
    past = replace(quiet, looks=(quiet.looks[0], *loud.looks[1:]))
    assert [at.second for at, _ in past.changes("errors")] == [10, 20]
    assert "canary 4.9 %; alert: the inputs moved" in render_table(past)


def test_tells_the_day_in_a_range_of_several() -> None:
    past = replace(played(0, 0), end=SINCE + timedelta(days=1))
    assert "\n  11-24 12:00:10  healthy" in render_table(past)


def test_writes_durations() -> None:
    said = [duration(timedelta(seconds=s)) for s in (0, 40, 460, 3600, 90_061)]
    assert said == ["0 s", "40 s", "7 min 40 s", "1 h", "25 h 1 min 1 s"]


def test_draws_evidence_threshold_and_the_moment_of_harm(tmp_path: Path) -> None:
    path = tmp_path / "out.svg"
    plot.draw(played(0, 1, 3, 8, 20), str(path))
    text = path.read_text()
    for words in ("errors: harm at 12:00:40", "needs 300 : 1", "100 : 1", "healthy", "fired: "):
        assert words in text
    plot.draw(played(0, 1), str(path))
    assert "harm at" not in path.read_text()
    again = path.read_bytes()
    plot.draw(played(0, 1), str(path))
    assert path.read_bytes() == again, "the same looks are the same file"


def test_draws_what_has_no_evidence(tmp_path: Path, command: Command) -> None:
    rollout(command.past, bad_from=9999)
    promql = {"name": "q", "query": {"promql": "revenue", "min": 5}}
    path = tmp_path / "out.png"
    assert command("--plot", str(path), manifest=manifest_of(promql))[0] == 0
    assert path.read_bytes().startswith(b"\x89PNG")
    code, _, err = command("--plot", str(tmp_path / "no" / "out.svg"))
    assert (code, "cannot be written: No such file" in err) == (2, True)


def test_says_how_to_get_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(CommandError, match=r"pip install 'crossfade\[plot\]'"):
        plot.expect_drawable("out.svg")


# ── the command itself ────────────────────────────────────────────────────────────────────────


def _imported(program: str) -> Callable[[str], bool]:
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; {program}; print(*sys.modules)"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return set(done.stdout.split()).__contains__


def test_a_command_does_not_import_the_operator_nor_the_operator_a_command() -> None:
    command = _imported("import crossfade.__main__, crossfade.cli.command")
    assert command("crossfade.metrics.prometheus_analyst")
    for module in ("crossfade.main", "kopf", "kubernetes", "aiohttp", "matplotlib"):
        assert not command(module), module
    operator = _imported("import crossfade.__main__, crossfade.main")
    assert operator("kopf")
    for module in ("crossfade.cli", "matplotlib"):
        assert not operator(module), module


@pytest.mark.parametrize("words", [[], ["run"]])
def test_no_verb_and_run_start_the_operator(words: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "crossfade", *words],
        env={"PYTHONPATH": ":".join(sys.path), "CROSSFADE_LOG_LEVEL": "none"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stderr.startswith("crossfade: wrong settings")


def test_help_names_the_verbs(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    out = capsys.readouterr().out
    assert "run the operator" in out
    assert "backtest" in out
    with pytest.raises(SystemExit) as wrong:
        main(["run", "faster"])
    assert wrong.value.code == 2
