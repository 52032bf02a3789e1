"""A named namespace without its Role keeps the operator from no other one."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import pytest

from crossfade.errors import ClusterError
from crossfade.kube.cluster import KubernetesCluster
from crossfade.kube.resources import (
    CHILDREN,
    CONTROLLER_REVISION,
    MODEL_DEPLOYMENT,
    ResourceKind,
)
from crossfade.kube.scope import Scope
from crossfade.kube.store import Store
from crossfade.main import readable_children
from crossfade.reconcile.queue import WorkQueue
from crossfade.reconcile.targets import Targets
from crossfade.watches import registry_of


@dataclass
class Rights:
    """Says of each namespace what is next on its list; the last word stays."""

    answers: dict[str, list[bool | ClusterError]]
    asked: list[str] = field(default_factory=list)

    async def may_list(self, kind: ResourceKind, namespace: str) -> bool:
        assert kind is MODEL_DEPLOYMENT
        self.asked.append(namespace)
        said = self.answers[namespace]
        answer = said.pop(0) if len(said) > 1 else said[0]
        if isinstance(answer, ClusterError):
            raise answer
        return answer


async def test_only_namespaces_with_a_right_are_watched() -> None:
    scope = await Scope.of(Rights({"a": [True], "b": [False], "c": [True]}), ("a", "b", "c"))
    assert (scope.open, scope.closed) == (("a", "c"), ("b",))
    assert scope.names(scope.closed) == "b: is the namespace there, and its Role?"


async def test_no_answer_is_not_taken_for_no_right() -> None:
    with pytest.raises(ClusterError):
        await Scope.of(Rights({"a": [ClusterError("away")]}), ("a",))


async def test_it_starts_anew_when_a_namespace_can_be_watched_at_last() -> None:
    rights = Rights({"a": [True], "b": [False, False, ClusterError("away"), True]})
    scope, stop = await Scope.of(rights, ("a", "b")), asyncio.Event()
    await scope.restart_when_wider(stop, pause_seconds=0)
    assert stop.is_set()
    assert rights.asked == ["a", "b", "b", "b", "b"]


async def test_nothing_is_asked_where_nothing_is_missing() -> None:
    for names in ((), ("a",)):
        rights, stop = Rights({"a": [True]}), asyncio.Event()
        scope = await Scope.of(rights, names)
        await scope.restart_when_wider(stop, pause_seconds=0)
        assert rights.asked == list(names)
        assert not stop.is_set()


@dataclass
class Review:
    """An API server that answers access reviews, and its own answer."""

    allowed: bool
    body: Any = None
    status: int = 201

    async def request(self, method: str, path: str, *, body: Any, **_: Any) -> Review:
        assert (method, path) == (
            "post", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
        )  # fmt: skip
        self.body = body
        return self

    async def json(self) -> Any:
        return {"status": {"allowed": self.allowed}}


@pytest.mark.parametrize("allowed", [True, False])
async def test_the_api_server_is_asked_for_the_right_itself(allowed: bool) -> None:
    review = Review(allowed)
    client: Any = review
    assert await KubernetesCluster(client).may_list(MODEL_DEPLOYMENT, "ml") is allowed
    assert review.body["spec"]["resourceAttributes"] == {
        "group": "crossfade.dev",
        "resource": "modeldeployments",
        "verb": "list",
        "namespace": "ml",
    }


@pytest.mark.parametrize(("namespaces", "asked"), [((), ""), (("ml",), "ml")])
@pytest.mark.parametrize("allowed", [True, False])
async def test_history_is_read_where_that_is_allowed_and_everything_else_always(
    namespaces: tuple[str, ...], asked: str, *, allowed: bool
) -> None:
    """Without the Role of this version a watch of it would end all others."""
    review = Review(allowed)
    client: Any = review
    children = await readable_children(KubernetesCluster(client), namespaces)
    assert set(CHILDREN) - set(children) == (set() if allowed else {CONTROLLER_REVISION})
    attributes = review.body["spec"]["resourceAttributes"]
    assert (attributes["resource"], attributes["namespace"]) == ("controllerrevisions", asked)
    registry = registry_of(Store(), WorkQueue(), Targets(), children)
    watched = {it.id for it in registry._watching.get_all_handlers()}
    assert ("child-controllerrevisions" in watched) is allowed
    assert {"child-deployments", "child-pods"} <= watched
