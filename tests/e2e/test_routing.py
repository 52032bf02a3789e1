"""The routers' writes on a real API server, and a real gateway's word on them."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path

import pytest

from cluster.__main__ import load_archive
from cluster.images import build_image
from cluster.istio_crd import CRD_NAME, ensure_istio_crd
from cluster.paths import Paths
from crossfade.api.v1alpha1 import ModelDeploymentSpec
from crossfade.core.actions import Manifest, Split, Write
from crossfade.core.observation import RouteState
from crossfade.routing.factory import router_for
from crossfade.routing.router import TrafficRouter
from tests.e2e.conftest import Kubectl
from tests.e2e.routing_support import (
    CANARY,
    STABLE,
    Caller,
    Cluster,
    RefusedError,
    eventually,
    service,
    spec_values,
    status_free,
    stub_pod,
)

CRD = Path(__file__).parents[2] / "crds" / "crossfade.dev_modeldeployments.yaml"
GATEWAY = {"name": "public", "namespace": "gateways"}
SPLIT = Split(STABLE, CANARY, 10)
JOIN = {"gateway": {"routeRef": {"name": "shared", "rule": "predict"}}}


@pytest.fixture
def space(kubectl: Kubectl) -> Iterator[Cluster]:
    """Return a namespace with the Services that the routes name."""
    kubectl("apply", "--server-side", "-f", str(CRD))
    name = f"e2e-routing-{secrets.token_hex(3)}"
    kubectl("create", "namespace", name)
    cluster = Cluster(kubectl, name)
    for child in ("fraud", f"fraud-{STABLE}", f"fraud-{CANARY}", "other", "shop"):
        cluster.create(service(child))
    yield cluster
    kubectl("delete", "namespace", name, "--wait=false")


def router_of(
    space: Cluster, traffic: Manifest, uid: str = "", joined_backend: Manifest | None = None
) -> TrafficRouter:
    spec = ModelDeploymentSpec.model_validate(spec_values(traffic))
    return router_for("fraud", space.namespace, uid, spec, joined_backend)


def own(space: Cluster, **gateway: object) -> TrafficRouter:
    hosts = [f"fraud.{space.namespace}.example"]
    traffic = {"gateway": {"parentRefs": [GATEWAY], "hostnames": hosts, **gateway}}
    return router_of(space, traffic, space.owner_uid())


def see(space: Cluster, router: TrafficRouter) -> RouteState:
    return router.observe(space.get(router.target), {STABLE: 3, CANARY: 1})


def settled(space: Cluster, router: TrafficRouter) -> RouteState:
    return eventually(lambda: see(space, router), lambda state: state.in_force)


def restored(router: TrafficRouter, live: Manifest) -> Write:
    write = router.restore(live)
    assert write is not None
    return write


def foreign_route(space: Cluster) -> Manifest:
    """Build a route of another team: filters, matches, other backends, annotations."""
    header = {"set": [{"name": "x-team", "value": "shop"}]}
    modifier = {"type": "RequestHeaderModifier", "requestHeaderModifier": header}
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {
            "name": "shared",
            "annotations": {"team": "shop"},
            "labels": {"argocd.argoproj.io/instance": "shop"},
        },
        "spec": {
            "parentRefs": [GATEWAY],
            "hostnames": [f"shared.{space.namespace}.example"],
            "rules": [
                {
                    "name": "shop",
                    "matches": [{"path": {"type": "PathPrefix", "value": "/shop"}}],
                    "filters": [modifier],
                    "backendRefs": [{"name": "shop", "port": 8080}],
                    "timeouts": {"request": "5s"},
                },
                {
                    "name": "predict",
                    "matches": [
                        {
                            "path": {"type": "Exact", "value": "/predict"},
                            "headers": [{"name": "x-tier", "value": "gold"}],
                        }
                    ],
                    "filters": [modifier],
                    "backendRefs": [
                        {"name": "other", "port": 8080, "weight": 30},
                        {"name": "fraud", "port": 8080, "weight": 100},
                    ],
                },
            ],
        },
    }


# ── a route of our own ────────────────────────────────────────────────────────────────────────


def test_our_own_route_is_accepted_and_read_back_as_it_was_written(space: Cluster) -> None:
    router = own(space)
    space.write(router.render(SPLIT, None))
    state = settled(space, router)
    assert state == RouteState(found=True, weights={STABLE: 90, CANARY: 10}, in_force=True)


def test_a_new_weight_is_in_force_only_in_its_own_generation(space: Cluster) -> None:
    router = own(space)
    space.write(router.render(SPLIT, None))
    before = settled(space, router)
    assert before.in_force
    written = space.write(router.render(Split(STABLE, CANARY, 50), None))
    assert not router.observe(written, {}).in_force
    assert settled(space, router).weights == {STABLE: 50, CANARY: 50}


def test_writing_the_same_split_again_changes_nothing(space: Cluster) -> None:
    router = own(space)
    space.write(router.render(SPLIT, None))
    settled(space, router)
    first = space.get(router.target)
    again = space.write(router.render(SPLIT, first))
    assert again["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]


def test_a_hand_edit_of_our_route_is_seen_and_put_right(space: Cluster) -> None:
    router = own(space)
    space.write(router.render(SPLIT, None))
    patch = (
        '[{"op":"replace","path":"/spec/rules/0/backendRefs/1/weight","value":37},'
        '{"op":"add","path":"/spec/rules/0/timeouts","value":{"request":"1s"}},'
        '{"op":"add","path":"/spec/hostnames/-","value":"more.example"}]'
    )
    space.run("patch", "httproute", "fraud", "--type=json", "-p", patch)
    assert (see(space, router).weights, see(space, router).current) == (
        {STABLE: 71, CANARY: 29},
        False,
    )
    space.write(router.render(SPLIT, space.get(router.target)))
    assert (see(space, router).weights, see(space, router).current) == (
        {STABLE: 90, CANARY: 10},
        True,
    )


def test_a_route_without_host_names_takes_back_one_that_others_added(space: Cluster) -> None:
    router = own(space, hostnames=[], parentRefs=[{"name": "absent"}])
    space.write(router.render(SPLIT, None))
    patch = '{"spec":{"hostnames":["more.example"]}}'
    space.run("patch", "httproute", "fraud", "--type=merge", "-p", patch)
    assert not see(space, router).current
    space.write(router.render(SPLIT, space.get(router.target)))
    assert see(space, router).current


def test_a_service_that_does_not_exist_keeps_the_route_out_of_force(space: Cluster) -> None:
    router = own(space)
    space.run("delete", "service", f"fraud-{CANARY}")
    space.write(router.render(Split(STABLE, CANARY, 0), None))
    state = eventually(lambda: see(space, router), lambda s: "BackendNotFound" in s.problem)
    assert not state.in_force
    space.create(service(f"fraud-{CANARY}"))
    assert settled(space, router).problem == ""


def test_a_gateway_that_does_not_exist_is_named(space: Cluster) -> None:
    router = own(space, parentRefs=[GATEWAY, {"name": "absent"}])
    space.write(router.render(SPLIT, None))
    words = f"Gateway {space.namespace}/absent has not accepted the route yet"
    state = eventually(lambda: see(space, router), lambda s: s.problem == words)
    assert not state.in_force


# ── what traffic does ─────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="session")
def model_stub() -> None:
    load_archive(Paths.from_environment(), build_image("model-stub"))


@pytest.fixture
def caller(space: Cluster, model_stub: None) -> Caller:
    """Return a caller of a host whose two revisions have a pod each."""
    for revision in (STABLE, CANARY):
        space.create(stub_pod(revision))
    space.run("wait", "--for=condition=Ready", "pod", STABLE, CANARY, "--timeout=50s")
    path = "jsonpath={.spec.clusterIP}"
    address = space.run("-n", "gateways", "get", "service", "gateway", "-o", path)
    return Caller(address, f"fraud.{space.namespace}.example")


def test_changing_weights_moves_traffic_and_drops_no_request(
    space: Cluster, caller: Caller
) -> None:
    router = own(space)
    space.write(router.render(Split(STABLE), None))
    settled(space, router)
    eventually(caller.send, lambda answer: answer == (200, STABLE))
    with caller:
        for weight in (5, 25, 50, 100, 0, 50, 100):
            space.write(router.render(Split(STABLE, CANARY, weight), None))
            settled(space, router)
        space.write(router.render(Split(CANARY), None))
        eventually(caller.send, lambda answer: answer == (200, CANARY))
    assert {status for status, _ in caller.answers} == {200}
    assert {version for _, version in caller.answers} == {STABLE, CANARY}
    eventually(lambda: {caller.send() for _ in range(20)}, lambda seen: seen == {(200, CANARY)})


def test_a_backend_of_weight_zero_without_pods_costs_nothing(
    space: Cluster, caller: Caller
) -> None:
    router = own(space)
    space.run("delete", "pod", CANARY)
    space.write(router.render(Split(STABLE, CANARY, 0), None))
    assert settled(space, router).weights == {STABLE: 100, CANARY: 0}
    eventually(caller.send, lambda answer: answer == (200, STABLE))
    assert {caller.send() for _ in range(40)} == {(200, STABLE)}


# ── a joined route ────────────────────────────────────────────────────────────────────────────


def test_joining_changes_our_entry_and_restoring_leaves_no_trace(space: Cluster) -> None:
    created = space.create(foreign_route(space))
    router = router_of(space, JOIN)
    original = router.original_backend(created)
    space.write_when_unchanged(router.target, lambda live: router.render(SPLIT, live))

    expected = deepcopy(created)
    entries = expected["spec"]["rules"][1]["backendRefs"]
    entries[1:] = [
        {**entries[1], "name": f"fraud-{STABLE}", "weight": 90},
        {**entries[1], "name": f"fraud-{CANARY}", "weight": 10},
    ]
    assert status_free(space.get(router.target)) == status_free(expected)
    assert settled(space, router).weights == {STABLE: 90, CANARY: 10}

    again = router_of(space, JOIN, joined_backend=original)
    space.write_when_unchanged(router.target, lambda live: restored(again, live))
    assert status_free(space.get(router.target)) == status_free(created)


def test_a_write_based_on_an_old_look_is_refused(space: Cluster) -> None:
    created = space.create(foreign_route(space))
    router = router_of(space, JOIN)
    space.run("annotate", "httproute", "shared", "team=other", "--overwrite")
    with pytest.raises(RefusedError, match="the object has been modified"):
        space.write(router.render(SPLIT, created))
    assert space.get(router.target)["spec"] == created["spec"]


def test_git_putting_the_original_back_is_seen_and_the_split_written_again(space: Cluster) -> None:
    manifest = foreign_route(space)
    git = ("apply", "--server-side", "--field-manager=argocd", "--force-conflicts", "-f", "-")
    space.run(*git, manifest=manifest)
    router = router_of(space, JOIN)
    space.write_when_unchanged(router.target, lambda live: router.render(SPLIT, live))
    space.run(*git, manifest=manifest)
    state = see(space, router)
    assert (state.weights, state.current, state.writable) == ({}, False, True)
    space.write_when_unchanged(router.target, lambda live: router.render(SPLIT, live))
    assert settled(space, router).weights == {STABLE: 90, CANARY: 10}


# ── Istio and replicas ────────────────────────────────────────────────────────────────────────


@pytest.fixture
def istio(kubectl: Kubectl) -> None:
    crd = ensure_istio_crd(Paths.from_environment())
    kubectl("apply", "--server-side", "-f", str(crd))
    kubectl("wait", "--for=condition=Established", f"crd/{CRD_NAME}")


@pytest.mark.usefixtures("istio")
@pytest.mark.parametrize("gateways", [[], ["istio-system/public"]])
def test_istios_own_crd_takes_our_virtual_service(space: Cluster, gateways: list[str]) -> None:
    traffic = {"istio": {"hosts": [f"fraud.{space.namespace}.example"], "gateways": gateways}}
    router = router_of(space, traffic, space.owner_uid())
    eventually(lambda: space.run("api-resources"), lambda kinds: "VirtualService" in kinds)
    for split in (Split(STABLE), SPLIT, Split(STABLE, CANARY, 0)):
        write = router.render(split, None)
        space.write(write)
        stored = space.get(router.target)
        assert stored["spec"] == router_spec(write)
        assert see(space, router).current


def router_spec(write: object) -> object:
    return getattr(write, "manifest", {})["spec"]


def test_the_service_follows_the_split_and_is_read_back(space: Cluster) -> None:
    router = router_of(space, {"replicas": {}}, space.owner_uid())
    space.run("delete", "service", "fraud")
    for split in (Split(STABLE), SPLIT, Split(CANARY)):
        space.write(router.render(split, None))
        assert see(space, router).current
        assert see(space, router).in_force
    assert see(space, router).weights == {CANARY: 100}


def test_a_service_of_a_user_is_left_alone(space: Cluster) -> None:
    router = router_of(space, {"replicas": {}}, space.owner_uid())
    assert not see(space, router).writable
