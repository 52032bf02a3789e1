"""``kubectl crossfade`` on real rollouts, by a user who may edit one namespace and no more."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from cluster.paths import Paths
from examples.demo.kubectl import Kubectl
from tests.e2e.rollouts import Rollout

SCRIPTS: Final = Path(sys.executable).parent
PAUSES: Final[dict[str, Any]] = {
    "rollout": {
        "steps": [
            {"weightPercent": 10, "minSeconds": 1, "minRequests": 2, "pause": {}},
            {"weightPercent": 50, "minSeconds": 1, "minRequests": 2, "pause": {}},
        ],
        "probationSeconds": 600,
    }
}


class Plugin:
    """kubectl with the plugin in its PATH, as somebody who has this kubeconfig."""

    def __init__(self, kubeconfig: Path, namespace: str) -> None:
        self._kubeconfig, self._namespace = kubeconfig, namespace

    def __call__(
        self, verb: str, *words: str, namespace: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        where = ["-n", namespace or self._namespace, "--kubeconfig", str(self._kubeconfig)]
        return run_kubectl("crossfade", verb, *words, *where)

    def ok(self, verb: str, *words: str) -> str:
        done = self(verb, *words)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def fails(self, code: int, verb: str, *words: str, namespace: str | None = None) -> str:
        done = self(verb, *words, namespace=namespace)
        assert done.returncode == code, done.stdout + done.stderr
        (line,) = done.stderr.splitlines()
        return line


def run_kubectl(*words: str) -> subprocess.CompletedProcess[str]:
    paths = Paths.from_environment()
    path = os.pathsep.join((str(SCRIPTS), str(paths.bin), os.environ["PATH"]))
    return subprocess.run(
        [str(paths.bin / "kubectl"), *words],
        env={**os.environ, "PATH": path}, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip


def plugin_of(cluster: Kubectl, namespace: str, role: str, folder: Path) -> Plugin:
    """Return the plugin of a user who has one of Kubernetes' own roles in a namespace."""
    where = ("-n", namespace)
    cluster.run(*where, "create", "serviceaccount", role)
    user = f"--serviceaccount={namespace}:{role}"
    cluster.run(*where, "create", "rolebinding", role, f"--clusterrole={role}", user)
    token = cluster.run(*where, "create", "token", role).strip()
    config = yaml.safe_load(cluster.run("config", "view", "--raw", "--minify"))
    config["users"] = [{"name": config["contexts"][0]["context"]["user"], "user": {"token": token}}]
    kubeconfig = folder / f"{role}.yaml"
    kubeconfig.write_text(yaml.safe_dump(config))
    return Plugin(kubeconfig, namespace)


@pytest.fixture
def editor(cluster: Kubectl, namespace: str, tmp_path: Path) -> Plugin:
    return plugin_of(cluster, namespace, "edit", tmp_path)


def test_kubectl_finds_the_plugin() -> None:
    done = run_kubectl("plugin", "list")
    assert str(SCRIPTS / "kubectl-crossfade") in done.stdout.splitlines()


def test_a_rollout_is_steered_by_somebody_who_may_edit_its_namespace(
    rollout: Rollout, gateway: str, editor: Plugin
) -> None:
    rollout.apply("1.0.0", **PAUSES)
    editor.ok("status", "fraud", "--wait-for", "healthy", "--timeout", "2m")
    assert "there is no step to pass in phase Healthy" in editor.fails(1, "promote", "fraud")
    with rollout.load(20, gateway) as stats:
        rollout.apply("2.0.0", **PAUSES)
        editor.ok("status", "fraud", "--wait-for", "paused", "--timeout", "2m")
        view = editor.ok("status", "fraud")
        for words in ("Paused  step 1/2", "▶ 10 % (pause)", "canary    2.0.0", "WeightInForce: "):
            assert words in view
        assert "crossfade promote fraud" in editor.ok("explain", "fraud")

        editor.ok("pause", "fraud")
        assert "spec.rollout.paused is true" in editor.fails(1, "promote", "fraud")
        editor.ok("resume", "fraud")
        editor.ok("promote", "fraud")
        rollout.wait_weight(50)
        editor.ok("status", "fraud", "--wait-for", "paused", "--timeout", "2m")
        assert "not promoted after 1s" in editor.fails(
            3, "status", "fraud", "--wait-for", "promoted", "--timeout", "1s", "-o", "name"
        )

        editor.ok("abort", "fraud")
        editor.ok("status", "fraud", "--wait-for", "rolledBack", "--timeout", "2m")
        assert "taken back (Aborted)" in editor.fails(
            1, "status", "fraud", "--wait-for", "promoted", "-o", "name"
        )

        editor.ok("retry", "fraud")
        editor.ok("status", "fraud", "--wait-for", "paused", "--timeout", "2m")
        editor.ok("promote", "fraud", "--full")
        editor.ok("status", "fraud", "--wait-for", "promoted", "--timeout", "2m")
    assert not stats.lost(), stats.lost()
    assert rollout.status["stable"]["version"] == "2.0.0"
    told = [event["message"] for event in history(editor)["events"]]
    assert told.count("version 2.0.0 gets 10 % of the traffic") == 2
    assert told.count("version 2.0.0 gets 50 % of the traffic") == 1, "the second time was skipped"
    row = editor.ok("list").splitlines()[1].split()
    assert row[:3] == ["fraud", "Probation", "2.0.0"]


def history(plugin: Plugin) -> dict[str, Any]:
    """Return what is remembered."""
    return dict(json.loads(plugin.ok("history", "fraud", "-o", "json")))


def revisions(plugin: Plugin) -> list[tuple[int, str, str]]:
    """Return number, version and end of each revision."""
    return [
        (it["number"], it["version"], it.get("reason", "")) for it in history(plugin)["revisions"]
    ]


def test_undo_goes_back_while_git_still_asks_for_the_new_version(
    rollout: Rollout, gateway: str, editor: Plugin
) -> None:
    rollout.apply("1.0.0")
    rollout.wait("Healthy", stable="1.0.0")
    with rollout.load(20, gateway) as stats:
        for version in ("2.0.0", "3.0.0"):
            rollout.apply(version)
            rollout.wait("Healthy", stable=version)
        replaced = [(1, "1.0.0", "Replaced"), (2, "2.0.0", "Replaced")]
        assert revisions(editor) == [*replaced, (3, "3.0.0", "")]
        for kept in rollout.objects("controllerrevisions"):
            assert kept["data"].keys() == {"model", "template"}

        assert "kept are 1 (version 1.0.0)" in editor.fails(
            1, "undo", "fraud", "--to-revision", "9"
        )
        editor.ok("undo", "fraud")
        rollout.wait_weight(10)
        rollout.apply("3.0.0")
        rollout.wait("RolledBack", stable="2.0.0")
        rollout.apply("3.0.0")
        (rejected,) = rollout.status["rejected"]
        assert (rejected["version"], rejected["reason"]) == ("3.0.0", "Undone")
        assert revisions(editor) == [
            (1, "1.0.0", "Replaced"), (3, "3.0.0", "Undone"), (4, "2.0.0", ""),
        ]  # fmt: skip
        assert rollout.status["phase"] == "RolledBack"
        table = editor.ok("history", "fraud").splitlines()
        assert table[0].split()[:3] == ["REVISION", "VERSION", "HASH"]
        assert table[3].endswith("serves")

        editor.ok("retry", "fraud")
        rollout.wait("Healthy", stable="3.0.0")
        assert revisions(editor)[1:] == [(4, "2.0.0", "Replaced"), (5, "3.0.0", "")]
    asked = rollout.get("modeldeployments.crossfade.dev", "fraud")["spec"]["model"]["version"]
    assert asked == "3.0.0"
    assert not rollout.status["rejected"]
    assert not stats.lost(), stats.lost()
    told = [reason for reason, _ in rollout.events()]
    assert told.count("Undone") == told.count("Retried") == 1
    assert "HistoryNotWritten" not in told


def test_who_may_not_is_told_so_in_one_line(
    rollout: Rollout, cluster: Kubectl, namespace: str, editor: Plugin, tmp_path: Path
) -> None:
    rollout.apply("1.0.0", **PAUSES)
    rollout.wait("Healthy", stable="1.0.0")
    rollout.apply("2.0.0", **PAUSES)
    rollout.wait_weight(10)
    viewer = plugin_of(cluster, namespace, "view", tmp_path)
    assert "fraud  Progressing" in viewer.ok("status", "fraud")
    for verb in ("abort", "pause"):
        assert "cannot patch resource" in viewer.fails(1, verb, "fraud")
    elsewhere = editor.fails(1, "status", "fraud", namespace="default")
    assert "cannot get resource" in elsewhere
    assert "cannot list resource" in editor.fails(1, "list", "--all-namespaces")
    assert 'there is no ModelDeployment "nobody"' in editor.fails(1, "status", "nobody")
    annotations = rollout.get("modeldeployments.crossfade.dev", "fraud")["metadata"]["annotations"]
    assert "crossfade.dev/command" not in annotations
