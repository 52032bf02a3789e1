"""What an administrator sets, and what the operator does with named namespaces."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
from pydantic import ValidationError

from crossfade.kube.cluster import KubernetesCluster
from crossfade.kube.resources import CHILDREN, MODEL_DEPLOYMENT, ROUTES
from crossfade.kube.store import Store
from crossfade.main import seed
from crossfade.settings import Settings
from crossfade.watches import settings_of


def test_lists_are_separated_by_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CROSSFADE_NAMESPACES", "ml,fraud")
    monkeypatch.setenv("CROSSFADE_PROMETHEUS_ADDRESSES", "http://a:9090,https://b/tenant")
    settings = Settings()
    assert settings.namespaces == ("ml", "fraud")
    assert settings.prometheus_addresses == ("http://a:9090", "https://b/tenant")


def test_an_empty_list_means_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CROSSFADE_NAMESPACES", "")
    assert (Settings().namespaces, Settings().prometheus_addresses) == ((), ())


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("NAMESPACES", "ml,"),
        ("NAMESPACES", "ml, fraud"),
        ("NAMESPACES", "*"),
        ("PROMETHEUS_ADDRESSES", "prometheus:9090"),
        ("PROMETHEUS_ADDRESSES", "http://a/"),
        ("PROMETHEUS_ADDRESSES", "http://user@a"),
        ("PROMETHEUS_ADDRESSES", "http://a?x=y"),
    ],
)
def test_a_list_that_would_mean_something_else_stops_the_start(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(f"CROSSFADE_{variable}", value)
    with pytest.raises(ValidationError, match=variable.lower()):
        Settings()


@dataclass
class ApiServer:
    """Answers every GET with what it has, and remembers the paths."""

    answers: dict[str, Any] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    async def request(self, method: str, path: str, **_: Any) -> Answer:
        assert method == "get"
        self.asked.append(path)
        return Answer(self.answers.get(path, {}))


@dataclass
class Answer:
    content: Any
    status: int = 200

    async def json(self) -> Any:
        return self.content


async def test_only_named_namespaces_are_listed() -> None:
    path = "/apis/apps/v1/namespaces/{}/deployments"
    deployment = {"metadata": {"namespace": "ml", "name": "a", "resourceVersion": "1"}}
    server = ApiServer({path.format("ml"): {"items": [deployment]}})
    client: Any = server
    store = Store()
    await seed(store, KubernetesCluster(client), ("ml", "fraud"))
    assert len(server.asked) == 2 * len(CHILDREN + ROUTES)
    assert all("/namespaces/ml/" in it or "/namespaces/fraud/" in it for it in server.asked)
    assert {path.format("ml"), path.format("fraud")} < set(server.asked)
    assert settings_of(clusterwide=False).scanning.disabled


async def test_without_names_all_namespaces_are_listed() -> None:
    server = ApiServer()
    client: Any = server
    await seed(Store(), KubernetesCluster(client))
    assert len(server.asked) == len(CHILDREN + ROUTES)
    assert not any("/namespaces/" in it for it in server.asked)
    assert not settings_of(clusterwide=True).scanning.disabled


@pytest.mark.parametrize(("plural", "served"), [("modeldeployments", True), ("others", False)])
async def test_a_kind_is_served_when_the_api_server_says_so(plural: str, served: bool) -> None:
    client: Any = ApiServer({"/apis/crossfade.dev/v1alpha1": {"resources": [{"name": plural}]}})
    assert await KubernetesCluster(client).serves(MODEL_DEPLOYMENT) is served
