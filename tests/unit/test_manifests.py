"""The operator's manifests agree with themselves and with its settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from crossfade.errors import ClusterError
from crossfade.kube.cluster import KubernetesCluster
from crossfade.settings import Settings

MANIFESTS = Path(__file__).parents[2] / "manifests"


def operator() -> dict[str, Any]:
    deployment = yaml.safe_load((MANIFESTS / "operator.yaml").read_text())
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert isinstance(container, dict)
    return container


def test_sidecars_are_of_the_operators_image() -> None:
    variables = {it["name"]: it.get("value") for it in operator()["env"]}
    assert variables["CROSSFADE_SIDECAR_IMAGE"] == operator()["image"]


def test_the_operator_knows_what_it_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in operator()["env"]:
        monkeypatch.setenv(variable["name"], variable.get("value", "pod"))
    assert Settings().sidecar_image == operator()["image"]
    assert Settings().instance == "pod"


class Versioned:
    """A client whose API server has a version."""

    def __init__(self, answer: object) -> None:
        self.answer = answer
        self.status = 200

    async def request(self, method: str, path: str, **_options: Any) -> Versioned:
        assert (method, path) == ("get", "/version")
        return self

    async def json(self) -> object:
        return self.answer


@pytest.mark.parametrize(
    ("minor", "version"), [("36", (1, 36)), ("28+", (1, 28)), ("29.3-gke", (1, 29))]
)
async def test_the_version_of_kubernetes_is_read_as_vendors_write_it(
    minor: str, version: tuple[int, int]
) -> None:
    client: Any = Versioned({"major": "1", "minor": minor})
    assert await KubernetesCluster(client).version() == version


async def test_a_version_that_is_none_is_an_error() -> None:
    client: Any = Versioned({"major": "1"})
    with pytest.raises(ClusterError, match="GET /version: not understood"):
        await KubernetesCluster(client).version()
