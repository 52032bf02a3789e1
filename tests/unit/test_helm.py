"""The chart's values agree with their schema, and what is generated is current.

The real helm renders and installs the chart in ``tests/e2e/test_helm.py``.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import yaml

from cluster import chart
from crossfade.api.inference import DEFAULT_ADMIN_PORT
from crossfade.settings import Settings

VALUES: dict[str, Any] = yaml.safe_load((chart.CHART / "values.yaml").read_text())
SCHEMA: dict[str, Any] = json.loads((chart.CHART / "values.schema.json").read_text())


def described(schema: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield every value that the schema knows, by its path."""
    for name, value in schema.get("properties", {}).items():
        yield f"{path}{name}", value
        yield from described(value, f"{path}{name}.")


def given(
    values: Mapping[str, Any], known: Mapping[str, Mapping[str, Any]], path: str = ""
) -> set[str]:
    """Return the paths of values, down to what the schema does not look into."""
    paths = set()
    for name, value in values.items():
        paths.add(f"{path}{name}")
        if isinstance(value, dict) and known.get(f"{path}{name}", {}).get("properties"):
            paths |= given(value, known, f"{path}{name}.")
    return paths


def test_the_defaults_are_valid() -> None:
    jsonschema_rs.validator_for(SCHEMA).validate(VALUES)


def test_every_value_is_described_and_has_a_default() -> None:
    known = dict(described(SCHEMA))
    assert all(value["description"].endswith(".") for value in known.values())
    # Helm sets it, and a chart need not have it.
    items = {"imagePullSecrets.name"}
    assert given(VALUES, known) == known.keys() - {"global"} - items


def test_every_object_refuses_what_it_does_not_know() -> None:
    objects = [SCHEMA, *(value for _, value in described(SCHEMA))]
    assert all(it["additionalProperties"] is False for it in objects if "properties" in it)


@pytest.mark.parametrize(
    "wrong",
    [
        {"replicas": 2},
        {"unknown": 1},
        {"image": {"name": "x"}},
        {"watch": {"namespaces": ["*"]}},
        {"watch": {"namespaces": ["a", "a"]}},
        {"prometheus": {"allowedAddresses": ["prometheus:9090"]}},
        {"prometheus": {"allowedAddresses": ["http://prometheus:9090/"]}},
        {"webhooks": {"allowedAddresses": ["https://user@hooks.example.com"]}},
        {"logLevel": "debug"},
        {"workers": 65},
        {"podDisruptionBudget": {"maxUnavailable": 2}},
    ],
)
def test_a_wrong_value_is_refused(wrong: dict[str, Any]) -> None:
    assert not jsonschema_rs.is_valid(SCHEMA, wrong)


def test_what_the_schema_takes_the_operator_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    values = {
        "watch": {"namespaces": ["ml", "0"]},
        "webhooks": {"allowedAddresses": ["https://hooks.slack.com/services"]},
        "prometheus": {"allowedAddresses": ["http://[::1]:9090", "https://a.b/c/d.e"]},
        "logLevel": "DEBUG",
        "workers": 64,
    }
    jsonschema_rs.validate(SCHEMA, values)
    monkeypatch.setenv("CROSSFADE_NAMESPACES", "ml,0")
    monkeypatch.setenv("CROSSFADE_PROMETHEUS_ADDRESSES", "http://[::1]:9090,https://a.b/c/d.e")
    monkeypatch.setenv("CROSSFADE_WEBHOOK_ADDRESSES", "https://hooks.slack.com/services")
    monkeypatch.setenv("CROSSFADE_LOG_LEVEL", "DEBUG")
    monkeypatch.setenv("CROSSFADE_WORKERS", "64")
    assert Settings().workers == 64


def test_every_setting_can_be_set_by_the_chart() -> None:
    """But for the port, which the probes name."""
    template = (chart.CHART / "templates" / "operator.yaml").read_text()
    known = {f"CROSSFADE_{name.upper()}" for name in Settings.model_fields}
    names = {line.split()[-1] for line in template.splitlines() if "- name: CROSSFADE_" in line}
    assert known - names == {"CROSSFADE_HEALTH_PORT"}


def test_sidecars_are_reached_where_they_are_by_default() -> None:
    assert VALUES["networkPolicy"]["sidecars"]["ports"] == [DEFAULT_ADMIN_PORT]


def test_the_chart_is_of_the_operators_version() -> None:
    project = (chart.ROOT / "pyproject.toml").read_text()
    version = yaml.safe_load((chart.CHART / "Chart.yaml").read_text())["appVersion"]
    assert f'\nversion = "{version}"\n' in project


def test_what_is_generated_is_current() -> None:
    assert chart.stale() == []


def test_the_charts_crd_is_kept_when_the_release_goes() -> None:
    copy, crd = (yaml.safe_load(it.read_text()) for it in (chart.CRD_COPY, chart.CRD))
    assert copy["metadata"].pop("annotations") == {"helm.sh/resource-policy": "keep"}
    assert copy == crd


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a copy of the chart and of what is generated, which may be spoilt."""
    for name in ("helm", "crds", "manifests"):
        shutil.copytree(chart.ROOT / name, tmp_path / name)
    for name in ("CHART", "CRD", "CRD_COPY", "MANIFESTS", "ROOT"):
        moved = tmp_path / getattr(chart, name).relative_to(chart.ROOT)
        monkeypatch.setattr(chart, name, moved)
    return tmp_path


@pytest.mark.parametrize(
    ("edited", "stale"),
    [
        ("manifests/operator.yaml", ["manifests/operator.yaml"]),
        ("helm/crossfade/files/crd.yaml", ["helm/crossfade/files/crd.yaml"]),
        ("crds/crossfade.dev_modeldeployments.yaml", ["helm/crossfade/files/crd.yaml"]),
        ("helm/crossfade/values.yaml", ["manifests/rbac.yaml", "manifests/operator.yaml"]),
        (
            "helm/crossfade/templates/_helpers.tpl",
            ["manifests/rbac.yaml", "manifests/operator.yaml"],
        ),
    ],
)
def test_an_edit_makes_what_depends_on_it_stale(
    checkout: Path, edited: str, stale: list[str]
) -> None:
    with (checkout / edited).open("a") as file:
        file.write("# edited\n")
    assert chart.stale() == stale


def test_a_manifest_that_is_gone_is_stale(checkout: Path) -> None:
    (checkout / "manifests" / "rbac.yaml").unlink()
    assert chart.stale() == ["manifests/rbac.yaml"]
