"""The sidecar starts with little, and says in one line why it does not start."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from crossfade.sidecar.config import Config, Golden, Inputs, Recording, write_config

OPERATOR = Path(__file__).parents[2] / "operator"

HEAVY = {
    "aiohttp",
    "crossfade.api",
    "crossfade.core",
    "crossfade.main",
    "kopf",
    "kubernetes",
    "numpy",
    "prometheus_api_client",
    "pydantic",
    "requests",
}
"""What the operator or a command needs and the sidecar must not load: its memory is a promise."""


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=OPERATOR,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def configured(**more: Inputs | Recording | Golden) -> Config:
    return Config(
        namespace="ml",
        name="iris",
        model="iris",
        version="1",
        revision="rev1",
        port=0,
        admin_port=0,
        model_port=8080,
        **more,  # type: ignore[arg-type]  # fields by name
    )


def started_with(tmp_path: Path, text: str) -> tuple[int, str]:
    """Return the exit code of a sidecar that cannot start, and what it says."""
    path = tmp_path / "sidecar.json"
    path.write_text(text)
    ended = run("-m", "crossfade.sidecar", "--config", str(path))
    return ended.returncode, ended.stderr


def test_it_loads_nothing_of_the_operator() -> None:
    code = "import crossfade.sidecar.main, json, sys; print(json.dumps(sorted(sys.modules)))"
    ended = run("-c", code)
    assert ended.returncode == 0, ended.stderr
    loaded = set(json.loads(ended.stdout))
    assert "crossfade.sidecar.proxy" in loaded
    assert loaded & HEAVY == set()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("no JSON", "configuration is no JSON"),
        ("{}", "missing required field `namespace`"),
        (write_config(configured())[:-1] + ',"bogus":1}', "unknown field `bogus`"),
        (write_config(configured(inputs=Inputs(schema={"type": "strin"}))), "schema"),
        (write_config(configured(recording=Recording(mask=("name",)))), "name"),
    ],
)
def test_a_wrong_configuration_is_one_line_and_exit_2(
    tmp_path: Path, text: str, words: str
) -> None:
    code, said = started_with(tmp_path, text)
    assert code == 2
    (line,) = said.splitlines()
    assert line.startswith("crossfade-sidecar: ")
    assert words in line


def test_who_ends_it_before_it_has_begun_is_obeyed() -> None:
    """As a container's first process it would ignore a signal that it has no handler for."""
    code = """
import os, runpy, signal, sys

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "crossfade.sidecar.main":
            os.kill(os.getpid(), signal.SIGTERM)
            sys.exit("it goes on")

sys.meta_path.insert(0, Finder())
runpy.run_module("crossfade.sidecar", run_name="__main__")
"""
    ended = run("-c", code)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "nowhere.json"
    ended = run("-m", "crossfade.sidecar", "--config", str(path))
    assert ended.returncode == 2
    (line,) = ended.stderr.splitlines()
    assert str(path) in line
