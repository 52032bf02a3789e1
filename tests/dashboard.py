"""What the Grafana dashboard asks of Prometheus."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parents[1]
DASHBOARD: Final = ROOT / "helm" / "crossfade" / "files" / "dashboard.json"
ALERTS: Final = ROOT / "helm" / "crossfade" / "files" / "alerts.yaml"


def dashboard() -> dict[str, Any]:
    """Return the dashboard as Grafana reads it."""
    loaded: dict[str, Any] = json.loads(DASHBOARD.read_text())
    return loaded


def questions(namespace: str = ".*", name: str = ".*") -> list[tuple[str, str]]:
    """Return panel and expression of each query, with the variables filled in as Grafana does."""
    values = {
        "$__rate_interval": "1m",
        "$__range": "1h",
        "$namespace": namespace,
        "$name": name,
    }
    asked = []
    for panel in dashboard()["panels"]:
        for target in panel.get("targets", ()):
            expression = str(target["expr"])
            for variable, value in values.items():
                expression = expression.replace(variable, value)
            asked.append((str(panel["title"]), expression))
    return asked
