"""The generated CRD is structural, small, current, and says something about every field."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft4Validator

from crossfade.api import rules, schema, v1alpha1

ROOT = Path(__file__).parents[2]
FORBIDDEN = {
    "$ref",
    "$defs",
    "anyOf",
    "allOf",
    "oneOf",
    "const",
    "title",
    "discriminator",
    "x-model",
}
PRESERVE = "x-kubernetes-preserve-unknown-fields"


def nodes(node: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, node
    for name, field in node.get("properties", {}).items():
        yield from nodes(field, f"{path}.{name}")
    if "items" in node:
        yield from nodes(node["items"], f"{path}[]")


ALL = dict(nodes(schema.root_schema()))
SPEC = ALL[".spec"]


def test_the_file_in_the_repository_is_current(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert schema.main(["--check"]) == 0


def test_check_tells_how_to_write_a_file_that_is_out_of_date(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "crds").mkdir()
    assert schema.main(["--check"]) == 1
    assert "write it with `python -m crossfade.api.schema`" in capsys.readouterr().err
    assert schema.main([]) == 0
    assert schema.main(["--check"]) == 0
    first_line = (tmp_path / schema.CRD_PATH).read_text().splitlines()[0]
    assert "Generated" in first_line
    assert schema.COMMAND in first_line


def test_the_crd_fits_into_the_annotation_of_client_side_apply() -> None:
    """The annotation holds it as JSON; all annotations together may have 256 KiB."""
    crd = yaml.safe_load(schema.render_crd())
    assert len(json.dumps(crd, separators=(",", ":")).encode()) < 100_000


def test_the_schema_is_structural() -> None:
    for path, node in ALL.items():
        assert "type" in node or node[PRESERVE], path
        assert not FORBIDDEN & node.keys(), path
        assert not ("properties" in node and "additionalProperties" in node), path
        assert isinstance(node.get("exclusiveMinimum", True), bool), path
        if node.get("type") in {"integer", "number"}:
            assert "format" in node, path
    Draft4Validator.check_schema(schema.root_schema())


def test_every_field_of_ours_has_a_description_in_one_line() -> None:
    for path, node in ALL.items():
        if path.startswith((".spec.", ".status.")) and not path.endswith("[]"):
            inside_a_pod = path.startswith((".spec.template.spec.", ".spec.template.metadata."))
            assert inside_a_pod or node["description"].endswith((".", '"')), path
            assert "\n" not in node.get("description", "")
            assert "``" not in node.get("description", ""), path


def test_the_api_server_applies_scalar_defaults_but_none_in_lists_or_in_the_status() -> None:
    defaults = {path for path, node in ALL.items() if "default" in node}
    assert ".spec.rollout.deadlineSeconds" in defaults
    assert ".spec.rollout.steps" not in defaults
    assert not any("[]" in path or path.startswith(".status") for path in defaults)
    assert SPEC["properties"]["serving"]["default"] == {"port": 8080, "protocol": "openInference"}


def test_a_default_that_is_not_applied_is_told() -> None:
    described = ALL[".spec.rollout.steps[].minRequests"]["description"]
    assert described.endswith("The default is 50.")


def test_the_defaults_are_those_of_the_models() -> None:
    rollout = SPEC["properties"]["rollout"]
    told = {name: it["default"] for name, it in rollout["properties"].items() if "default" in it}
    assert told == rollout["default"]
    assert v1alpha1.Rollout.model_validate(told) == v1alpha1.Rollout()


def test_lists_with_names_are_merged_by_name_and_all_others_are_atomic() -> None:
    keys = {
        path: tuple(node.get("x-kubernetes-list-map-keys", ()))
        for path, node in ALL.items()
        if node.get("x-kubernetes-list-type") == "map"
    }
    assert keys == {
        ".spec.analysis.metrics": ("name",),
        ".spec.inputs.features": ("name",),
        ".spec.inputs.tensors": ("name",),
        ".spec.notifications": ("name",),
        ".spec.predictions": ("name",),
        ".spec.rollout.gates": ("name",),
        ".spec.template.spec.containers": ("name",),
        ".spec.template.spec.initContainers": ("name",),
        ".status.conditions": ("type",),
        ".status.gates": ("name",),
        ".status.metrics": ("name",),
        ".status.notices": ("id",),
    }


def test_integers_are_as_wide_as_they_need_be() -> None:
    assert ALL[".spec.replicas"]["format"] == "int32"
    assert ALL[".status.observedGeneration"]["format"] == "int64"


def test_exclusive_bounds_are_flags_beside_the_bound() -> None:
    percent = ALL[".spec.analysis.metrics[].errorRate.maxPercent"]
    bounds = {key: percent[key] for key in percent if "imum" in key}
    assert bounds == {
        "minimum": 0,
        "maximum": 100,
        "exclusiveMinimum": True,
        "exclusiveMaximum": True,
    }


def test_the_false_rollback_rate_is_a_probability_with_a_default() -> None:
    rate = ALL[".spec.analysis.falseRollbackRate"]
    assert (rate["default"], rate["minimum"], rate["exclusiveMinimum"]) == (0.01, 0, True)
    assert rate["maximum"] == 0.5
    assert "exclusiveMaximum" not in rate


def test_every_rule_is_in_the_schema() -> None:
    written = [
        line["message"]
        for node in ALL.values()
        for line in node.get("x-kubernetes-validations", ())
    ]
    assert set(written) == {rule.message for some in rules.RULES.values() for rule in some}


def test_what_is_not_ours_is_passed_on() -> None:
    assert all(
        ALL[path][PRESERVE]
        for path in (
            ".spec.template.spec",
            ".spec.template.metadata",
            ".spec.template.spec.containers[]",
            ".spec.autoscaling.metrics[]",
            ".spec.autoscaling.behavior",
            ".spec.sidecar.resources",
            ".spec.sidecar.goldenRequest.body",
            ".spec.inputs.schema",
            ".status.joinedBackend",
        )
    )


def test_any_json_has_no_type() -> None:
    body = ALL[".spec.sidecar.goldenRequest.body"]
    assert body.keys() == {"description", PRESERVE}


def test_the_columns_and_subresources_are_what_users_are_promised() -> None:
    (version,) = schema.crd()["spec"]["versions"]
    columns = version["additionalPrinterColumns"]
    short = [column["name"] for column in columns if not column.get("priority")]
    assert short == ["Phase", "Stable", "Canary", "Weight", "Step", "Verdict", "Age"]
    assert version["subresources"]["scale"]["labelSelectorPath"] == ".status.selector"
    for column in columns:
        assert column["jsonPath"] in ALL or column["name"] == "Age"


def test_the_generated_file_has_no_anchors() -> None:
    text = schema.render_crd()
    assert yaml.safe_load(text) == schema.crd()
    assert "&id" not in text


def test_each_example_has_the_shape_of_the_schema() -> None:
    validator = Draft4Validator(schema.root_schema())
    for path in sorted((ROOT / "examples").glob("*.yaml")):
        for manifest in yaml.safe_load_all(path.read_text()):
            if manifest["kind"] == "ModelDeployment":
                validator.validate(manifest)
