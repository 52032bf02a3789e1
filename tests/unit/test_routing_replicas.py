"""No gateway: the Service, its selector, and how many pods make a weight."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossfade.core.actions import Manifest, ObjectRef, Split
from crossfade.core.observation import RouteState
from crossfade.errors import RouteError
from crossfade.workload.render import Owner, render_address
from tests.unit.routing_builders import CANARY, REPLICAS, SPLIT, STABLE, router, spec_of, written

READY = {STABLE: 3, CANARY: 1}


def see(live: Manifest | None) -> RouteState:
    return router(REPLICAS).observe(live, READY)


def selector_of(service: Manifest) -> dict[str, str]:
    return dict(service["spec"]["selector"])


def test_the_target_is_the_service_named_like_the_model_deployment() -> None:
    assert router(REPLICAS).target == ObjectRef("v1", "Service", "ml", "fraud")


@pytest.mark.parametrize(
    ("split", "revision"),
    [
        (Split(STABLE), STABLE),
        (Split(STABLE, CANARY, 0), STABLE),
        (SPLIT, None),
        (Split(STABLE, CANARY, 100), CANARY),
        (Split(CANARY), CANARY),
    ],
)
def test_the_service_is_the_address_that_other_routers_have(
    split: Split, revision: str | None
) -> None:
    service = written(router(REPLICAS), split)
    del service["metadata"]["annotations"]
    owner = Owner("fraud", "ml", "uid-1")
    assert service == render_address(owner, spec_of(REPLICAS), revision)


@pytest.mark.parametrize(
    ("split", "ports", "leads_to"),
    [
        (Split(STABLE), {CANARY: 8012}, 8080),
        (Split(CANARY), {CANARY: 8012}, 8012),
        (Split(STABLE, CANARY, 100), {CANARY: 8012}, 8012),
        (SPLIT, {CANARY: 8012}, 8080),
        (SPLIT, {STABLE: 8012}, 8080),
        (SPLIT, {STABLE: 8012, CANARY: 8012}, 8012),
        (SPLIT, {STABLE: 8012, CANARY: 9001}, 8080),
        (SPLIT, {STABLE: 8012, CANARY: 8012, "dddddddd": 8080}, 8080),
        (SPLIT, {}, 8080),
    ],
)
def test_it_leads_to_sidecars_only_where_all_pods_have_one(
    split: Split, ports: dict[str, int], leads_to: int
) -> None:
    by = router(REPLICAS, target_ports=ports)
    service = written(by, split)
    assert [(p["port"], p["targetPort"]) for p in service["spec"]["ports"]] == [(8080, leads_to)]
    assert by.observe(service, READY).current


def test_it_is_written_again_once_all_pods_have_a_sidecar() -> None:
    before = written(router(REPLICAS, target_ports={CANARY: 8012}))
    after = router(REPLICAS, target_ports={STABLE: 8012, CANARY: 8012})
    assert not after.observe(before, READY).current


@given(st.integers(0, 100))
def test_what_is_written_is_what_is_seen(weight: int) -> None:
    split = Split(STABLE, CANARY, weight)
    state = see(written(router(REPLICAS), split))
    assert dict(state.weights) == {r: w for r, w in split.weights.items() if w}
    assert (state.current, state.in_force, state.problem) == (True, True, "")


def test_the_share_is_that_of_the_ready_pods_while_both_are_selected() -> None:
    assert see(written(router(REPLICAS))).share == {STABLE: 75, CANARY: 25}
    assert see(written(router(REPLICAS), Split(STABLE))).share is None


def test_a_missing_service_may_be_written() -> None:
    assert see(None) == RouteState(found=False)


def test_a_service_of_somebody_else_is_not_taken_over() -> None:
    live = written(router(REPLICAS))
    live["metadata"] = {"name": "fraud", "namespace": "ml"}
    assert not see(live).writable
    assert "hand it over with the labels" in see(live).problem
    with pytest.raises(RouteError, match="is not Crossfade's"):
        router(REPLICAS).render(SPLIT, live)


def test_a_service_that_was_handed_over_is_adopted() -> None:
    live = written(router(REPLICAS))
    del live["metadata"]["ownerReferences"]
    assert (see(live).writable, see(live).current) == (True, False)


def test_a_selector_edited_by_hand_counts_for_what_it_selects() -> None:
    live = written(router(REPLICAS))
    live["spec"]["selector"] = selector_of(written(router(REPLICAS), Split(CANARY)))
    state = see(live)
    assert (state.weights, state.current, state.in_force) == ({CANARY: 100}, False, False)
    assert "does not select what its weights ask for" in state.problem


@pytest.mark.parametrize(
    "annotation",
    [
        None,
        "",
        "bbbbbbbb",
        "bbbbbbbb=x",
        "=100",
        f"{STABLE}=90,{CANARY}=9",
        f"{STABLE}=100,{CANARY}=0",
    ],
)
def test_weights_that_cannot_be_read_are_those_of_the_pods(annotation: str | None) -> None:
    live = written(router(REPLICAS))
    live["metadata"]["annotations"] = (
        None if annotation is None else {"crossfade.dev/weights": annotation}
    )
    state = see(live)
    assert (state.weights, state.current) == ({STABLE: 75, CANARY: 25}, False)


def test_a_selector_of_something_else_carries_nothing() -> None:
    live = written(router(REPLICAS))
    live["spec"]["selector"] = {"app": "other"}
    assert (see(live).weights, see(live).in_force) == ({}, False)
    del live["spec"]["selector"]
    assert see(live).weights == {}


def test_a_port_that_others_added_stays_theirs_and_ours_is_put_right() -> None:
    live = written(router(REPLICAS))
    live["spec"]["ports"][0]["nodePort"] = 30000
    live["spec"]["ports"].append({"name": "grpc", "protocol": "TCP", "port": 9000})
    assert see(live).current
    live["spec"]["ports"][0]["targetPort"] = 1
    assert not see(live).current
    del live["spec"]["ports"]
    assert not see(live).current


@given(st.integers(1, 99), st.integers(1, 200))
def test_no_other_number_of_pods_comes_nearer_to_the_weight(weight: int, full: int) -> None:
    pods = router(REPLICAS).canary_replicas(weight, full)

    def distance(n: int) -> float:
        return abs(100 * n / (n + full) - weight)

    assert 1 <= pods <= full
    assert distance(pods) <= min(distance(n) for n in range(1, full + 1)) + 1e-9


@given(st.integers(1, 98), st.integers(1, 10_000))
def test_a_higher_weight_never_asks_for_fewer_pods(weight: int, full: int) -> None:
    asked = router(REPLICAS).canary_replicas
    assert asked(weight, full) <= asked(weight + 1, full)
