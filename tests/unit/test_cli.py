"""The command line: kubectl as it is run, what is drawn, manifests that are checked, completion."""

from __future__ import annotations

import argparse
import io
import json
import math
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from crossfade.api.rules import RULES
from crossfade.cli import options as shared
from crossfade.cli import validate
from crossfade.cli.cel import CelError, compile_rule
from crossfade.cli.command import main
from crossfade.cli.deployed import Deployed, Event, read, read_events
from crossfade.cli.evidence import gauge_of
from crossfade.cli.exits import FailedError
from crossfade.cli.kubectl import Kubectl, NotThereError
from crossfade.cli.rules import broken
from crossfade.cli.status import fitted
from crossfade.cli.style import Style, style_of, visible
from crossfade.cli.view import render, summary
from crossfade.evidence.rules import said_odds
from crossfade.evidence.verdicts import Evidence
from tests.e2e import test_api as api

# ── kubectl ───────────────────────────────────────────────────────────────────────────────────

FOUND = {"metadata": {"name": "fraud", "namespace": "ml", "resourceVersion": "7"}}

FakeKubectl = Callable[..., Path]


@pytest.fixture
def kubectl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeKubectl:
    """Return what puts a kubectl into the PATH; it writes its arguments into a file."""

    def make(out: str = "", err: str = "", code: int = 0) -> Path:
        log = tmp_path / "arguments"
        program = tmp_path / "kubectl"
        program.write_text(
            f"#!{sys.executable}\nimport json, sys\n"
            f"open({str(log)!r}, 'w').write(json.dumps(sys.argv[1:]))\n"
            f"sys.stdout.write({out!r})\nsys.stderr.write({err!r})\nsys.exit({code})\n"
        )
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("PATH", str(tmp_path))
        return log

    return make


def asked(**given: str) -> Kubectl:
    flags = {"namespace": None, "context": None, "kubeconfig": None, **given}
    return Kubectl(argparse.Namespace(**flags))


def test_cluster_user_and_namespace_are_passed_on(kubectl: FakeKubectl) -> None:
    log = kubectl(json.dumps(FOUND))
    assert asked(namespace="ml", context="prod", kubeconfig="/k").deployment("fraud") == FOUND
    words = json.loads(log.read_text())
    assert words[:3] == ["get", "modeldeployments.crossfade.dev", "fraud"]
    assert {"--namespace=ml", "--context=prod", "--kubeconfig=/k"} <= set(words)


def test_what_is_not_given_is_left_to_kubectl(kubectl: FakeKubectl) -> None:
    log = kubectl(json.dumps(FOUND))
    asked().deployment("fraud")
    words = json.loads(log.read_text())
    assert not [w for w in words if w.startswith(("--namespace", "--context", "--kubeconfig"))]


def test_an_order_is_an_annotation_of_the_object_as_it_was_seen(kubectl: FakeKubectl) -> None:
    log = kubectl()
    assert asked().order(FOUND, "promoteFull")
    words = json.loads(log.read_text())
    assert words[0] == "annotate"
    assert {"--namespace=ml", "--resource-version=7", "crossfade.dev/command=promoteFull"} <= {
        *words
    }
    assert "--overwrite" not in words, "an order that stands there is not replaced"
    assert "--field-manager=crossfade-cli" in words, "Flux takes back what kubectl's own has"


def test_an_order_to_an_object_that_has_changed_is_not_given(kubectl: FakeKubectl) -> None:
    kubectl(err="Error from server (Conflict): the object has been modified\n", code=1)
    assert not asked().order(FOUND, "abort")


def test_revisions_are_asked_for_by_label(kubectl: FakeKubectl) -> None:
    log = kubectl(json.dumps({"items": [FOUND]}))
    assert asked().revisions(FOUND) == [FOUND]
    words = json.loads(log.read_text())
    assert words[:2] == ["get", "controllerrevisions.apps"]
    assert {"--namespace=ml", "--selector=crossfade.dev/name=fraud"} <= {*words}


@pytest.mark.parametrize("number", ["0", "-1", "x", "1.5", ""])
def test_what_is_no_number_of_a_revision_is_asked_wrongly(
    number: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["undo", "fraud", f"--to-revision={number}"])
    assert ended.value.code == 2
    assert "is no number of a revision; write one such as 7" in capsys.readouterr().err


def test_a_pause_changes_one_field(kubectl: FakeKubectl) -> None:
    log = kubectl()
    asked().set_paused(FOUND, paused=True)
    words = json.loads(log.read_text())
    assert '--patch={"spec": {"rollout": {"paused": true}}}' in words


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (
            'Error from server (NotFound): modeldeployments.crossfade.dev "fraud" not found',
            'there is no ModelDeployment "fraud" here: crossfade list --all-namespaces',
        ),
        (
            'error: the server doesn\'t have a resource type "modeldeployments"',
            "this cluster has no ModelDeployments: install Crossfade",
        ),
        (
            (
                'Error from server (Forbidden): modeldeployments.crossfade.dev "fraud" is forbidden'
                ': User "eve" cannot get resource'
            ),
            'User "eve" cannot get resource; the role edit of this namespace allows',
        ),
        ("noise\nUnable to connect to the server: dial tcp", "kubectl: Unable to connect"),
        ("", "kubectl get failed and said nothing"),
    ],
)
def test_what_kubectl_refuses_is_one_line_that_says_what_to_do(
    kubectl: FakeKubectl, said: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    kubectl(err=said, code=1)
    assert main(["status", "fraud"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = err.splitlines()
    assert told in line


def test_no_kubectl_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FailedError, match="kubectl is not in the PATH: install it"):
        asked().deployment("fraud")


def test_an_answer_that_is_no_json_is_told(kubectl: FakeKubectl) -> None:
    kubectl("<html>")
    with pytest.raises(FailedError, match="did not answer in JSON"):
        asked().deployment("fraud")


def test_only_a_missing_object_is_called_missing(kubectl: FakeKubectl) -> None:
    kubectl(err="Unable to connect", code=1)
    with pytest.raises(FailedError) as failed:
        asked().deployment("fraud")
    assert not isinstance(failed.value, NotThereError)


@pytest.mark.parametrize("everywhere", [True, False])
def test_an_empty_list_is_no_failure(
    kubectl: FakeKubectl, capsys: pytest.CaptureFixture[str], everywhere: bool
) -> None:
    log = kubectl(json.dumps({"items": []}))
    assert main(["list", *(["-A"] if everywhere else ["-n", "ml"])]) == 0
    out, err = capsys.readouterr()
    assert (out, "there is no ModelDeployment" in err) == ("", True)
    assert ("--all-namespaces" in json.loads(log.read_text())) == everywhere


@pytest.mark.parametrize(
    ("words", "code"),
    [(["bogus"], 2), (["status"], 2), (["status", "a", "--timeout", "soon"], 2), (["version"], 0)],
)
def test_exit_codes_of_how_it_is_asked(
    words: list[str], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        found = main(words)
    except SystemExit as e:
        found = int(str(e.code))
    assert found == code


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("10m", 600), ("1h30m", 5400), ("0s", 0)]
)
def test_durations_are_written_as_kubectl_does(text: str, seconds: int) -> None:
    assert shared.duration(text) == timedelta(seconds=seconds)


def test_both_names_run_the_same_program() -> None:
    scripts = Path(sys.executable).parent
    for name in ("crossfade", "kubectl-crossfade"):
        done = subprocess.run(
            [str(scripts / name), "version"], capture_output=True, text=True, check=True, timeout=60
        )
        assert done.stdout.startswith("crossfade 0.")


@pytest.mark.parametrize("name", ["crossfade", "kubectl-crossfade"])
def test_no_verb_shows_the_verbs_and_runs_no_operator(name: str) -> None:
    done = subprocess.run(
        [str(Path(sys.executable).parent / name)],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert "verbs:" in done.stdout


def test_output_that_nobody_reads_is_no_failure() -> None:
    script = Path(sys.executable).parent / "crossfade"
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [str(script), "version"], stdout=writing, stderr=subprocess.PIPE, check=False, timeout=60
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, b"")


def test_version_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["version", "-o", "yaml"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["apiVersion"] == "crossfade.dev/v1alpha1"


# ── the view ──────────────────────────────────────────────────────────────────────────────────

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
AT = "2026-11-24T11:58:00Z"

HARMLESS = "canary 1.0 % of 96, stable 1.4 % of 2,094; limit 2 %; evidence 10 : 1, needs 100 : 1"
FEW = "canary answered 8 of the 50 requests that this step asks for"


def deployed(**status: Any) -> Deployed:
    body = api.changed(
        {
            "metadata": {"name": "fraud", "namespace": "ml", "generation": 3},
            "spec.rollout.steps": [
                {"weightPercent": 5},
                {"weightPercent": 20, "pause": {}},
                {"weightPercent": 50},
            ],
        }
    )
    body["status"] = {
        "observedGeneration": 3,
        "phase": "Progressing",
        "stable": {"revision": "bcdfghjk", "version": "1.0.0"},
        "canary": {"revision": "lmnpqrst", "version": "2.0.0"},
        "weight": 20,
        "step": "2/3",
        "message": f"slow: {FEW}",
        "replicas": 3,
        "readyReplicas": 2,
        "rollout": {
            "startedAt": AT, "step": 1, "targetWeight": 20, "inForceAt": AT, "weightedAt": AT,
        },
        "metrics": [
            {
                "name": "errors", "verdict": "healthy", "message": HARMLESS,
                "forecast": [{"weightPercent": 20, "requests": 4744, "seconds": 840}],
            },
            {"name": "slow", "verdict": "notEnoughData", "message": FEW, "alert": "inputs moved"},
        ],
        "fallback": [
            {"target": "stable", "ok": True},
            {"target": "service", "ok": False, "message": "answered 503"},
        ],
        "gates": [
            {"name": "freeze", "answer": "refused", "message": "nothing moves before Monday, " * 5},
            {"name": "smoke", "answer": "allowed"},
        ],
        "notices": [
            {
                "id": "a", "occasion": "held", "reason": reason, "message": "", "at": AT,
                "phase": "Progressing", "receivers": ["hook", "team"],
            }
            for reason in ("RolloutStarted", "GateClosed")
        ],
        "conditions": [
            {
                "type": "RouteAccepted", "status": "False", "observedGeneration": 3,
                "lastTransitionTime": AT, "reason": "RouteProblem", "message": "no such Gateway",
            }
        ],
        **status,
    }  # fmt: skip
    return read(body)


EVENTS = [Event(NOW, "Paused", "waits for a person", is_warning=False)]


def drawn(subject: Deployed, **style: Any) -> str:
    return "\n".join(render(subject, EVENTS, NOW, Style(**style)))


def test_the_view_tells_everything_that_the_status_does() -> None:
    text = drawn(deployed())
    for words in (
        "ml/fraud  Progressing  step 2/3",
        "2 of 3 pods ready",
        "✓ 5 %   ▶ 20 % (pause)   · 50 %   · 100 %",
        "evidence of harm 10 : 1, needs 100 : 1",
        "8 of 50 requests",
        "a doubled rate would be seen after 4,744 canary requests at 20 %: about 14 min",
        "alert: inputs moved",
        "✓ stable answered the drill",
        "✗ service answered 503",
        "gates     ✗ freeze says no: nothing moves before Monday",
        "✓ smoke says yes",
        "notices   hook is still to be told of RolloutStarted, GateClosed",
        "team is still to be told of RolloutStarted, GateClosed",
        "False    RouteProblem, for 2 min: no such Gateway",
        "Paused: waits for a person",
    ):
        assert words in text


def test_the_bar_of_weights_shows_the_share() -> None:
    (canary,) = [line for line in drawn(deployed()).splitlines() if line.startswith("  canary")]
    assert (canary.count("█"), canary.count("░")) == (8, 32)


def test_a_terminal_without_unicode_gets_ascii() -> None:
    drawn(deployed(), unicode=False).encode("ascii")


def test_there_is_no_escape_without_colour_and_its_columns_count_for_nothing() -> None:
    plain, coloured = drawn(deployed()), drawn(deployed(), colour=True)
    assert "\x1b" not in plain
    assert [visible(line) for line in coloured.splitlines()] == list(map(len, plain.splitlines()))


@pytest.mark.parametrize("width", [60, 80, 100, 120])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    assert max(map(len, drawn(deployed(), width=width).splitlines())) <= width


def test_words_of_the_cluster_cannot_steer_the_terminal() -> None:
    evil = deployed(message="\x1b[2J gone", canary={"revision": "l", "version": "2\x1b]0;x\x07"})
    assert "\x1b" not in drawn(evil)
    assert "\x07" not in drawn(evil)
    assert "\x1b" not in summary(evil)


def test_a_weight_on_its_way_is_told() -> None:
    rollout = {"startedAt": AT, "step": 2, "targetWeight": 50}
    assert "going to 50 %" in drawn(deployed(rollout=rollout))


def test_a_version_that_is_taken_back_has_no_forecast() -> None:
    assert "doubled rate" not in drawn(deployed(phase="RollingBack"))


def test_a_spec_that_the_operator_has_not_seen_is_told() -> None:
    assert "the operator has not seen this spec yet" in drawn(deployed(observedGeneration=2))


def test_a_view_is_cut_to_the_height_and_says_so() -> None:
    assert fitted(list("abcdef"), 4, Style()) == ["a", "b", "c", "  (3 more lines)"]
    assert fitted(list("abc"), 3, Style()) == list("abc")


def test_no_color_is_heeded(monkeypatch: pytest.MonkeyPatch) -> None:
    class Tty(io.StringIO):
        isatty = staticmethod(lambda: True)

    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert style_of(Tty()).colour
    monkeypatch.setenv("NO_COLOR", "1")
    assert not style_of(Tty()).colour
    assert not style_of(io.StringIO()).colour


@pytest.mark.parametrize(("log_e", "share"), [(-3.0, 0.0), (0.0, 0.0), (2.3, 0.5), (4.61, 1.0)])
def test_the_bar_of_evidence_reads_the_words_of_the_operator(log_e: float, share: float) -> None:
    message = f"canary 1 %; {said_odds(Evidence(log_e, math.log(100)))}"
    gauge = gauge_of(message)
    assert gauge is not None
    assert gauge.towards_harm
    assert gauge.share == pytest.approx(share, abs=0.01)
    assert gauge.rest == "canary 1 %"


def test_overwhelming_evidence_fills_the_bar() -> None:
    gauge = gauge_of(said_odds(Evidence(1000.0, math.log(100))))
    assert gauge is not None
    assert gauge.share == 1
    assert gauge.label == "over 1,000,000,000 : 1, needs 100 : 1"


def test_words_without_a_way_have_no_bar() -> None:
    assert gauge_of("the canary has no series yet") is None


def test_events_come_in_order_and_those_without_a_time_are_left_out() -> None:
    bodies = [
        {"reason": "B", "message": "b", "lastTimestamp": "2026-11-24T12:00:02Z"},
        {"reason": "A", "message": "two\nlines", "eventTime": "2026-11-24T12:00:01.5Z"},
        {"reason": "C", "message": "c"},
    ]
    assert [(e.reason, e.message) for e in read_events(bodies)] == [("A", "two lines"), ("B", "b")]


def test_a_status_of_a_newer_operator_is_told() -> None:
    with pytest.raises(FailedError, match="use the crossfade of the operator's version"):
        deployed(phase="Dreaming")


# ── validate ──────────────────────────────────────────────────────────────────────────────────

KUBERNETES_OWN = {
    "a container without image",
    "two containers of one name",
    "an environment that is an object",
}
"""What is wrong by the schema of pods and of other kinds, which only the API server has."""


@pytest.mark.parametrize("case", sorted(set(api.WRONG) - KUBERNETES_OWN))
def test_what_the_api_server_refuses_is_refused_offline(case: str) -> None:
    manifest = api.changed(api.WRONG[case][0])
    assert validate.examine(manifest, None).problems


@pytest.mark.parametrize("case", sorted(api.RIGHT))
def test_what_the_api_server_takes_is_taken_offline(case: str) -> None:
    assert validate.examine(api.changed(api.RIGHT[case]), None).problems == ()


@pytest.mark.parametrize("case", sorted(api.WRONG))
def test_rules_say_offline_what_they_say_on_the_api_server(case: str) -> None:
    changes, message = api.WRONG[case]
    messages = [rule.message for rules in RULES.values() for rule in rules]
    if any(message in known for known in messages):
        (said,) = [p for p in broken(api.changed(changes)) if message in p]
        assert said


@pytest.mark.parametrize("example", api.EXAMPLES, ids=lambda path: path.name)
def test_examples_are_valid(example: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", "-f", str(example)]) == 0
    assert "valid" in capsys.readouterr().out


def test_every_rule_can_be_read() -> None:
    for rules in RULES.values():
        for rule in rules:
            compile_rule(rule.expression)


@pytest.mark.parametrize("text", ["self.a.nope()", "has(1)", "a b", "(a", "'open", "a &&", "#"])
def test_what_is_no_rule_here_is_an_error(text: str) -> None:
    with pytest.raises(CelError):
        compile_rule(text)


def written(tmp_path: Path, body: Any) -> str:
    path = tmp_path / "manifest.yaml"
    path.write_text(yaml.safe_dump(body))
    return str(path)


TRAFFIC = ["--requests-per-second", "100", "--error-percent", "1"]


def test_the_forecast_is_longer_at_a_smaller_weight_and_with_less_traffic(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    worse = {"name": "errors", "errorRate": {"worseThanStable": {}}}
    path = written(tmp_path, api.changed({"spec.analysis.metrics": [worse]}))

    def seconds(per_second: str) -> list[int]:
        words = ["--requests-per-second", per_second, "--error-percent", "1", "-o", "json"]
        assert main(["validate", "-f", path, *words]) == 0
        (finding,) = json.loads(capsys.readouterr().out)
        return [step["seconds"] for step in finding["forecasts"][0]["steps"]]

    fast, slow = seconds("100"), seconds("10")
    assert len(fast) == 2
    assert fast[0] > fast[1]
    assert slow[0] == pytest.approx(10 * fast[0], abs=10)


def test_the_forecast_says_why_there_is_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path, api.GOOD)
    assert main(["validate", "-f", path, *TRAFFIC]) == 0
    assert "errors: no forecast: twice stable's rate (2 %) is tolerated" in capsys.readouterr().out


def test_the_forecast_needs_both_figures(tmp_path: Path) -> None:
    path = written(tmp_path, api.GOOD)
    assert main(["validate", "-f", path, "--error-percent", "1"]) == 2


def test_every_problem_is_told_on_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = api.changed({"spec.replicas": 2, "spec.autoscaling": api.AUTOSCALING})
    manifest["apiVersion"] = "crossfade.dev/v2"
    assert main(["validate", "-f", written(tmp_path, manifest)]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "good: not valid",
        "  apiVersion: write crossfade.dev/v1alpha1",
        "  spec: give replicas or autoscaling, not both",
    ]


def test_what_only_the_operator_finds_is_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = {"spec.inputs": {"schema": {"type": "nothing"}}}
    assert main(["validate", "-f", written(tmp_path, api.changed(spec))]) == 1
    assert "the schema of inputs is invalid" in capsys.readouterr().out
    query = api.metric(query={"promql": "up{a='{{nope}}'}", "max": 1})
    assert main(["validate", "-f", written(tmp_path, api.changed(query))]) == 1
    assert "spec.analysis.metrics, one: " in capsys.readouterr().out


def test_lists_and_several_documents_are_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = api.changed({"metadata.name": "other"})
    body = {"kind": "List", "apiVersion": "v1", "items": [api.GOOD, {"kind": "Service"}, other]}
    assert main(["validate", "-f", written(tmp_path, body)]) == 0
    assert capsys.readouterr().out.splitlines() == ["good: valid", "other: valid"]


@pytest.mark.parametrize("text", ["{", "kind: Service", ""])
def test_a_file_without_a_model_deployment_is_told(
    tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(text)
    assert main(["validate", "-f", str(path)]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_standard_input_is_read(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(json.dumps(api.GOOD)))
    assert main(["validate", "-f", "-"]) == 0
    assert capsys.readouterr().out == "good: valid\n"


# ── completion ────────────────────────────────────────────────────────────────────────────────


def completed(capsys: pytest.CaptureFixture[str], *words: str) -> list[str]:
    assert main(["__complete", *words]) == 0
    return capsys.readouterr().out.splitlines()


def test_verbs_options_choices_and_names_are_completed(
    kubectl: FakeKubectl, capsys: pytest.CaptureFixture[str]
) -> None:
    log = kubectl(json.dumps({"items": [FOUND]}))
    assert completed(capsys, "pro") == ["promote"]
    assert completed(capsys, "promote", "--f") == ["--full"]
    assert completed(capsys, "status", "--wait-for", "roll") == ["rollingBack", "rolledBack"]
    assert completed(capsys, "completion", "") == ["bash", "zsh", "fish"]
    assert completed(capsys, "status", "-n", "ml", "fr") == ["fraud"]
    assert "--namespace=ml" in json.loads(log.read_text())
    assert completed(capsys, "bogus", "") == []


def test_names_that_cannot_be_read_complete_to_nothing(
    kubectl: FakeKubectl, capsys: pytest.CaptureFixture[str]
) -> None:
    kubectl(err="Unable to connect", code=1)
    assert completed(capsys, "status", "") == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_gets_a_script(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    assert "crossfade __complete" in capsys.readouterr().out


def test_bash_completes_a_verb() -> None:
    scripts = Path(sys.executable).parent
    script = (
        "source <(crossfade completion bash); COMP_WORDS=(crossfade prom); COMP_CWORD=1; "
        '_crossfade; echo "${COMPREPLY[@]}"'
    )
    done = subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, check=True, timeout=60,
        env={**os.environ, "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}"},
    )  # fmt: skip
    assert done.stdout == "promote\n"
