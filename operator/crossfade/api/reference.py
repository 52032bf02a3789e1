"""Generate ``docs/reference.md``, every field of a ModelDeployment, from the API models.

    python -m crossfade.api.reference [--check]

It is read from the CustomResourceDefinition that ``schema.py`` generates, so what it says is what
the API server tries and what ``kubectl explain`` shows.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from crossfade.api.schema import Schema, root_schema
from crossfade.names import GROUP, KIND, VERSION

COMMAND: Final = "python -m crossfade.api.reference"

REFERENCE_PATH: Final = Path("docs") / "reference.md"
"""Where the generated file is, from the root of the repository."""

_HEAD: Final = f"""\
<!-- Generated from operator/crossfade/api by `{COMMAND}`: do not edit. -->
# Every field

Of a `{KIND}`, `apiVersion: {GROUP}/{VERSION}`. `kubectl explain mdep.spec --recursive` shows the \
same. A field in **bold** is required where the object that it is in is given; `[]` after a name \
means a list of such objects. What stands under "Rules" is tried by the API server when you apply \
a manifest, and by [`crossfade validate`](plugin.md#validate) without one; the rule's own words \
are its error message.

- [spec](#spec): what you write
- [status](#status): what the operator writes
"""

_RULES: Final = "x-kubernetes-validations"

_AS_IN_KUBERNETES: Final = frozenset({"spec.template"})
"""Objects whose fields are Kubernetes' own, and of which the schema has only what is tried."""


def render_reference() -> str:
    """Return the text of the generated file."""
    root = root_schema()
    spec, status = root["properties"]["spec"], root["properties"]["status"]
    rules = [*root[_RULES], *spec.get(_RULES, [])]
    parts = [_HEAD, *_sections("spec", spec | {_RULES: rules}), *_sections("status", status)]
    return "\n".join(parts)


def _sections(path: str, node: Schema) -> Iterator[str]:
    """Render an object, then the objects in it, in the order in which they are written."""
    yield _section(path, node)
    for name, field in node["properties"].items():
        inner = field.get("items", field)
        below = f"{path}.{name}" + ("[]" if "items" in field else "")
        if "properties" in inner and below not in _AS_IN_KUBERNETES:
            yield from _sections(below, inner)


def _section(path: str, node: Schema) -> str:
    level = "##" if "." not in path else "###"
    lines = [f"{level} {path}", "", _text(_once(node["description"])), ""]
    lines += ["| field | type | |", "|---|---|---|"]
    required = node.get("required", [])
    lines += [_row(path, name, it, name in required) for name, it in node["properties"].items()]
    rules = [f"- {_text(rule['message'])}" for rule in node.get(_RULES, [])]
    lines += ["", "Rules:", "", *rules] if rules else []
    return "\n".join(lines) + "\n"


def _row(path: str, name: str, field: Schema, is_required: bool) -> str:
    """Render a field; of one with a section of its own only the first sentence."""
    inner = field.get("items", field)
    below = f"{path}.{name}" + ("[]" if "items" in field else "")
    shown = f"**{name}**" if is_required else name
    description = _once(field.get("description", inner.get("description", "")))
    if "properties" in inner and below not in _AS_IN_KUBERNETES:
        shown = f"[{shown}](#{anchor(below)})"
        description = description.split(". ")[0].removesuffix(".") + "."
    return f"| {shown} | {_type(field)} | {_text(description)} |"


def _once(words: str) -> str:
    """Drop a first sentence that the second one repeats: a field's and its model's alike."""
    first, _, rest = words.partition(". ")
    return rest if rest.startswith(first) else words


def anchor(heading: str) -> str:
    """Return the anchor of a heading that is a path of fields, as GitHub and mkdocs make it."""
    return "".join(it for it in heading.lower() if it.isalnum() or it == "_")


def _type(field: Schema) -> str:
    """Say what values a field takes, with its bounds."""
    if "items" in field:
        most = f", at most {field['maxItems']}" if "maxItems" in field else ""
        return f"list of {_type(field['items'])}{most}"
    if "enum" in field:
        return " \\| ".join(f"`{it}`" for it in field["enum"])
    if "type" not in field:
        return "any value"
    words = {"object": "object", "string": "text", "boolean": "true or false"}
    kind = words.get(field["type"], field["type"])
    return " ".join(part for part in (kind, _range(field)) if part)


def _range(field: Schema) -> str:
    """Return a number's bounds, such as "1 to 100"; empty where a side has none."""
    low, high = field.get("minimum"), field.get("maximum")
    above, below = field.get("exclusiveMinimum", False), field.get("exclusiveMaximum", False)
    parts = []
    if low is not None:
        parts.append(f"above {low:,}" if above else f"from {low:,}")
    if high is not None:
        parts.append(f"below {high:,}" if below else f"to {high:,}")
    return " ".join(parts)


def _text(words: str) -> str:
    """Write a description so that a table keeps it: Markdown reads <, | and * for itself."""
    for sign in ("\\", "|", "<", "*", "_", "["):
        words = words.replace(sign, f"\\{sign}")
    return words


def main(arguments: list[str] | None = None) -> int:
    """Write the generated file, or check it; return 1 when the check finds it out of date."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__)
    parser.add_argument("--check", action="store_true", help="only tell whether it is current")
    options = parser.parse_args(arguments)
    text = render_reference()
    if not options.check:
        REFERENCE_PATH.write_text(text, encoding="utf-8")
        return 0
    if REFERENCE_PATH.exists() and REFERENCE_PATH.read_text(encoding="utf-8") == text:
        return 0
    sys.stderr.write(f"{REFERENCE_PATH} is out of date; write it with `{COMMAND}`\n")
    return 1


if __name__ == "__main__":  # pragma: no cover
    raise SystemExit(main())
