"""Generate the CustomResourceDefinition from the API models and their rules.

    python -m crossfade.api.schema [--check]

pydantic's JSON schema is not what Kubernetes calls a structural schema: references, unions with
null, constants and numeric exclusive bounds are translated here, and the CEL of ``rules.py`` is
put in. Defaults are kept for the API server to apply, but not in lists: GitOps tools compare a
list as a whole, and would see a difference in every item that was filled up. Nor are there
defaults in the status, which only the operator writes.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import yaml
from typing_extensions import override

from crossfade.api.rules import RULES
from crossfade.api.v1alpha1 import ModelDeploymentSpec, ModelDeploymentStatus
from crossfade.names import GROUP, KIND, PLURAL, VERSION

Schema = dict[str, Any]

COMMAND: Final = "python -m crossfade.api.schema"

CRD_PATH: Final = Path("crds") / f"{GROUP}_{PLURAL}.yaml"
"""Where the generated file is, from the root of the repository."""

_MODEL: Final = "x-model"
_PRESERVE: Final = "x-kubernetes-preserve-unknown-fields"

_KEPT: Final = (
    "description",
    "type",
    "format",
    "default",
    "enum",
    "pattern",
    "minLength",
    "maxLength",
    "minimum",
    "maximum",
    "minItems",
    "maxItems",
    "required",
    _PRESERVE,
)
"""The keys that mean the same in pydantic's schema and in a structural one, in writing order."""

_LIST_KEYS: Final[Mapping[str, str]] = {
    "Condition": "type",
    "Gate": "name",
    "GateStatus": "name",
    "Metric": "name",
    "MetricStatus": "name",
    "Notice": "id",
    "Notification": "name",
    "Observed": "name",
    "TensorContract": "name",
}
"""The models whose lists are merged by a key; all other lists are atomic."""

_OBJECT: Final[Schema] = {"type": "object", _PRESERVE: True}

_CONTAINERS: Final[Schema] = {
    "type": "array",
    "maxItems": 64,
    "items": {
        "type": "object",
        "required": ["image", "name"],
        "properties": {
            "env": {"type": "array", "items": _OBJECT | {"required": ["name"]}},
            "image": {"type": "string", "minLength": 1},
            "lifecycle": _OBJECT,
            "name": {"type": "string", "minLength": 1, "maxLength": 63},
            "readinessProbe": _OBJECT,
        },
        _PRESERVE: True,
    },
    "x-kubernetes-list-type": "map",
    "x-kubernetes-list-map-keys": ["name"],
}

_LABELS: Final[Schema] = {"type": "object", "additionalProperties": {"type": "string"}}

_TEMPLATE: Final[Schema] = {
    "type": "object",
    "required": ["spec"],
    "properties": {
        "metadata": _OBJECT
        | {
            "description": "Labels and annotations of the pods.",
            "properties": {"annotations": _LABELS, "labels": _LABELS},
        },
        "spec": _OBJECT
        | {
            "description": "As spec of a Pod.",
            "required": ["containers"],
            "properties": {
                "containers": _CONTAINERS
                | {
                    "description": "As in a Pod. The first one is the model server.",
                    "minItems": 1,
                },
                "initContainers": _CONTAINERS,
                "terminationGracePeriodSeconds": {
                    "type": "integer",
                    "format": "int64",
                    "minimum": 0,
                },
            },
        },
    },
}
"""As much of a pod template as is read here; the rest is checked with the Deployment."""

_COLUMNS: Final = (
    ("Phase", "string", ".status.phase", 0),
    ("Stable", "string", ".status.stable.version", 0),
    ("Canary", "string", ".status.canary.version", 0),
    ("Weight", "integer", ".status.weight", 0),
    ("Step", "string", ".status.step", 0),
    ("Verdict", "string", ".status.verdict", 0),
    ("Age", "date", ".metadata.creationTimestamp", 0),
    ("Revision", "string", ".status.stable.revision", 1),
    ("Previous", "string", ".status.previous.version", 1),
    ("Message", "string", ".status.message", 1),
)
"""What ``kubectl get`` shows: name, type, path, and 1 for what only ``-o wide`` shows."""


class _Plain(yaml.SafeDumper):
    """Writes what occurs twice twice: an anchor would be read by machines only."""

    @override
    def ignore_aliases(self, data: Any) -> bool:
        return True


def crd() -> Schema:
    """Return the CustomResourceDefinition."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{PLURAL}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": KIND,
                "listKind": f"{KIND}List",
                "plural": PLURAL,
                "singular": KIND.lower(),
                "shortNames": ["mdep"],
                "categories": ["models"],
            },
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {
                        "status": {},
                        "scale": {
                            "specReplicasPath": ".spec.replicas",
                            "statusReplicasPath": ".status.replicas",
                            "labelSelectorPath": ".status.selector",
                        },
                    },
                    "additionalPrinterColumns": [_column(*column) for column in _COLUMNS],
                    "schema": {"openAPIV3Schema": root_schema()},
                }
            ],
        },
    }


def root_schema() -> Schema:
    """Return the structural schema of a ModelDeployment."""
    spec = _structural(_json_schema(ModelDeploymentSpec), defaults=True)
    spec["properties"]["template"] |= _TEMPLATE
    del spec["properties"]["template"][_PRESERVE]
    return {
        "description": "A model that is served, and how its next version gets the traffic.",
        "type": "object",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": spec,
            "status": _structural(
                _without_defaults(_json_schema(ModelDeploymentStatus)), defaults=False
            ),
        },
        **_validations(KIND),
    }


def render_crd() -> str:
    """Return the text of the generated file."""
    body = yaml.dump(crd(), Dumper=_Plain, sort_keys=False, width=160, allow_unicode=True)
    return f"# Generated from operator/crossfade/api by `{COMMAND}`: do not edit.\n{body}"


def _column(name: str, kind: str, path: str, priority: int) -> Schema:
    column = {"name": name, "type": kind, "jsonPath": path}
    return column | ({"priority": priority} if priority else {})


def _json_schema(model: type[ModelDeploymentSpec | ModelDeploymentStatus]) -> Schema:
    """Return pydantic's schema of a model, with every reference replaced by what it refers to."""
    schema = model.model_json_schema(by_alias=True)
    definitions = schema.pop("$defs")
    return _inlined(schema | {_MODEL: model.__name__}, definitions)


def _inlined(node: Schema, definitions: Mapping[str, Schema]) -> Schema:
    """Replace references and unions with null, all the way down."""
    if "anyOf" in node:
        (variant,) = (item for item in node["anyOf"] if item != {"type": "null"})
        rest = {key: value for key, value in node.items() if key not in {"anyOf", "default"}}
        return _inlined(variant | rest, definitions)
    if "$ref" in node:
        name = node["$ref"].rpartition("/")[2]
        target = definitions[name]
        rest = {key: value for key, value in node.items() if key != "$ref"}
        merged = target | rest | {_MODEL: name}
        if "enum" not in target:
            texts = (it["description"] for it in (rest, target) if "description" in it)
            merged["description"] = " ".join(dict.fromkeys(texts))
        return _inlined(merged, definitions)
    return _within(node, lambda it: _inlined(it, definitions))


def _without_defaults(node: Schema) -> Schema:
    rest = {key: value for key, value in node.items() if key != "default"}
    return _within(rest, _without_defaults)


def _within(node: Schema, change: Callable[[Schema], Schema]) -> Schema:
    """Change every object in a node, in lists too."""

    def changed(value: Any) -> Any:
        if isinstance(value, list):
            return [changed(item) for item in value]
        return change(value) if isinstance(value, dict) else value

    return {key: changed(value) for key, value in node.items()}


def _structural(node: Schema, *, defaults: bool) -> Schema:
    """Translate a node without references into a structural schema.

    Args:
        node: pydantic's schema.
        defaults: whether the API server is to apply defaults here; they are told in any case,
            since kubectl explain does not show them.
    """
    known = {**node, **_constant(node), **_bounds(node), **_described(node)}
    if not defaults or known.get("default") is None:
        known.pop("default", None)
    elif isinstance(known.get("default"), dict):
        # Written out, although {} would be filled up: the rules are tried on it as it is here.
        known["default"] = {key: it for key, it in known["default"].items() if it is not None}
    schema: Schema = {
        key: known[key] for key in (*_KEPT, "exclusiveMinimum", "exclusiveMaximum") if key in known
    }
    if "properties" in node:
        schema["properties"] = {
            name: _structural(field, defaults=defaults)
            for name, field in node["properties"].items()
        }
    if "items" in node:
        schema["items"] = _structural(node["items"], defaults=False)
        schema |= _list_type(node["items"].get(_MODEL))
    return schema | _validations(node.get(_MODEL))


def _constant(node: Schema) -> Schema:
    """Write a constant as an enumeration of one."""
    return {"enum": [node["const"]]} if "const" in node else {}


def _bounds(node: Schema) -> Schema:
    """Write formats, and exclusive bounds as a flag beside the bound, as JSON schema once did."""
    bounds: Schema = {}
    for exclusive, inclusive in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        if exclusive in node:
            bounds |= {inclusive: node[exclusive], exclusive: True}
    if node.get("type") == "integer":
        bounds["format"] = "int32" if node.get("maximum", 2**31) < 2**31 else "int64"
    elif node.get("type") == "number":
        bounds["format"] = "double"
    return bounds


def _described(node: Schema) -> Schema:
    """Write the description in one line, and the default as its last sentence."""
    if "description" not in node:
        return {}
    text = " ".join(node["description"].split())
    default = node.get("default")
    if isinstance(default, int | float | str) and default is not False:
        text = f"{text} The default is {default}."
    return {"description": text}


def _list_type(model: str | None) -> Schema:
    key = _LIST_KEYS.get(model or "")
    if key is None:
        return {"x-kubernetes-list-type": "atomic"}
    return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": [key]}


def _validations(model: str | None) -> Schema:
    rules = RULES.get(model or "", ())
    lines = [{"rule": rule.expression, "message": rule.message} for rule in rules]
    return {"x-kubernetes-validations": lines} if lines else {}


def main(arguments: list[str] | None = None) -> int:
    """Write the generated file, or check it; return 1 when the check finds it out of date."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__)
    parser.add_argument("--check", action="store_true", help="only tell whether it is current")
    options = parser.parse_args(arguments)
    text = render_crd()
    if not options.check:
        CRD_PATH.write_text(text, encoding="utf-8")
        return 0
    if CRD_PATH.exists() and CRD_PATH.read_text(encoding="utf-8") == text:
        return 0
    sys.stderr.write(f"{CRD_PATH} is out of date; write it with `{COMMAND}`\n")
    return 1


if __name__ == "__main__":  # pragma: no cover
    raise SystemExit(main())
