"""Write ``argocd-cm.yaml``: health and actions for an Argo CD that does not have them built in.

Argo CD reads them from its ConfigMap, with all the scripts of a kind in one entry. The scripts
themselves are in ``gitops/argocd``. Run ``python -m examples.argocd`` after a change of them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import yaml

CUSTOMIZATION: Final = (
    Path(__file__).parents[2]
    / "gitops/argocd/resource_customizations/crossfade.dev/ModelDeployment"
)
CONFIG_MAP: Final = Path(__file__).with_name("argocd-cm.yaml")

COMMENT: Final = """\
# Merge this into Argo CD's ConfigMap:
#   kubectl -n argocd patch configmap argocd-cm --patch-file argocd-cm.yaml
# Generated from gitops/argocd by python -m examples.argocd.
"""


class _Script(str):
    """A text that YAML writes as a block, so that people can read it."""

    __slots__ = ()


class _Dumper(yaml.SafeDumper):
    pass


_Dumper.add_representer(
    _Script, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|")
)


def render() -> str:
    """Return the ConfigMap's text."""
    actions = CUSTOMIZATION / "actions"
    definitions = [
        {"name": script.parent.name, "action.lua": _Script(script.read_text())}
        for script in sorted(actions.glob("*/action.lua"))
    ]
    discovery = _Script((actions / "discovery.lua").read_text())
    entry = _dump({"discovery.lua": discovery, "definitions": definitions})
    health = (CUSTOMIZATION / "health.lua").read_text()
    data = {
        "resource.customizations.health.crossfade.dev_ModelDeployment": _Script(health),
        "resource.customizations.actions.crossfade.dev_ModelDeployment": _Script(entry),
    }
    return COMMENT + _dump({"data": data})


def _dump(value: object) -> str:
    return str(yaml.dump(value, Dumper=_Dumper, sort_keys=False, width=1000))


if __name__ == "__main__":
    CONFIG_MAP.write_text(render())
