"""The HTTPRoute of our own, and what Gateways say about a route."""

from __future__ import annotations

from copy import deepcopy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossfade.core.actions import Manifest, ObjectRef, Split
from crossfade.core.observation import RouteState
from crossfade.errors import RouteError
from tests.unit.routing_builders import (
    CANARY,
    GATEWAY,
    OWN,
    SPLIT,
    STABLE,
    accepted,
    backends_of,
    condition,
    parent_status,
    router,
    written,
)

SECOND = {"name": "internal", "namespace": "gateways", "sectionName": "web", "port": 80}
TWO_GATEWAYS = {"gateway": {"parentRefs": [GATEWAY, SECOND]}}


def see(live: Manifest | None, traffic: Manifest = OWN) -> RouteState:
    return router(traffic).observe(live, {})


def test_the_target_is_the_route_named_like_the_model_deployment() -> None:
    expected = ObjectRef("gateway.networking.k8s.io/v1", "HTTPRoute", "ml", "fraud")
    assert router(OWN).target == expected


def test_the_route_lists_both_backends_also_at_weight_zero() -> None:
    route = written(router(OWN), Split(STABLE, CANARY, 0))
    assert backends_of(route, 0) == [(f"fraud-{STABLE}", 100), (f"fraud-{CANARY}", 0)]


def test_the_route_lists_only_stable_without_a_canary() -> None:
    assert backends_of(written(router(OWN), Split(STABLE)), 0) == [(f"fraud-{STABLE}", 100)]


def test_the_route_is_owned_labelled_and_without_timeouts_or_retries() -> None:
    route = written(router(OWN))
    owner = route["metadata"]["ownerReferences"][0]
    assert (owner["kind"], owner["uid"], owner["controller"]) == ("ModelDeployment", "uid-1", True)
    assert route["metadata"]["labels"]["crossfade.dev/name"] == "fraud"
    assert route["spec"]["hostnames"] == ["fraud.example.com"]
    assert route["spec"]["rules"][0].keys() == {"matches", "backendRefs"}


def test_a_parent_ref_keeps_its_listener_and_port() -> None:
    parents = written(router(TWO_GATEWAYS))["spec"]["parentRefs"]
    assert parents[1] == {
        "group": "gateway.networking.k8s.io",
        "kind": "Gateway",
        "name": "internal",
        "namespace": "gateways",
        "sectionName": "web",
        "port": 80,
    }


@given(st.integers(0, 100))
def test_what_is_written_is_what_is_seen(weight: int) -> None:
    split = Split(STABLE, CANARY, weight)
    state = see(accepted(written(router(OWN), split)))
    assert state == RouteState(found=True, weights=split.weights, in_force=True)


def test_a_missing_route_may_be_written() -> None:
    assert see(None) == RouteState(found=False)


def test_a_weight_edited_by_hand_is_seen_as_different() -> None:
    live = accepted(written(router(OWN)))
    live["spec"]["rules"][0]["backendRefs"][1]["weight"] = 37
    state = see(live)
    assert state.weights == {STABLE: 71, CANARY: 29}
    assert not state.current


def test_a_hand_made_split_that_only_rounds_to_ours_is_not_current() -> None:
    live = accepted(written(router(OWN)))
    for entry, weight in zip(live["spec"]["rules"][0]["backendRefs"], (901, 100), strict=True):
        entry["weight"] = weight
    state = see(live)
    assert state.weights == {STABLE: 90, CANARY: 10}
    assert not state.current


def test_an_absent_weight_counts_as_one() -> None:
    live = accepted(written(router(OWN)))
    for entry in live["spec"]["rules"][0]["backendRefs"]:
        del entry["weight"]
    state = see(live)
    assert state.weights == {STABLE: 50, CANARY: 50}
    assert not state.current


@pytest.mark.parametrize("weight", ["10", 1.5, -1, None])
def test_a_malformed_weight_is_a_problem_and_may_be_overwritten(weight: object) -> None:
    live = accepted(written(router(OWN)))
    live["spec"]["rules"][0]["backendRefs"][0]["weight"] = weight
    state = see(live)
    assert "no whole number" in state.problem
    assert (state.current, state.in_force, state.writable) == (False, False, True)


def test_a_route_without_rules_carries_nothing() -> None:
    live = accepted(written(router(OWN)))
    del live["spec"]["rules"]
    assert (see(live).weights, see(live).current) == ({}, False)


def _spoil_host(live: Manifest) -> None:
    live["spec"]["hostnames"] = ["other.example.com"]


def _spoil_filter(live: Manifest) -> None:
    live["spec"]["rules"][0]["filters"] = [{"type": "RequestHeaderModifier"}]


def _spoil_rule(live: Manifest) -> None:
    live["spec"]["rules"].append({"backendRefs": [{"name": "other", "port": 80}]})


def _spoil_backend(live: Manifest) -> None:
    live["spec"]["rules"][0]["backendRefs"].append({"name": "other", "port": 80, "weight": 0})


def _spoil_port(live: Manifest) -> None:
    live["spec"]["rules"][0]["backendRefs"][0]["port"] = 1


def _spoil_labels(live: Manifest) -> None:
    live["metadata"]["labels"] = {}


def _spoil_hash(live: Manifest) -> None:
    live["metadata"]["annotations"] = None


def _spoil_owner(live: Manifest) -> None:
    live["metadata"]["ownerReferences"] = None


@pytest.mark.parametrize(
    "spoil",
    [
        _spoil_host,
        _spoil_filter,
        _spoil_rule,
        _spoil_backend,
        _spoil_port,
        _spoil_labels,
        _spoil_hash,
        _spoil_owner,
    ],
)
def test_whatever_else_others_changed_is_seen_and_may_be_put_right(spoil: object) -> None:
    live = accepted(deepcopy(written(router(OWN))))
    assert callable(spoil)
    spoil(live)
    state = see(live)
    assert not state.current
    assert state.writable
    assert written(router(OWN), SPLIT, live) == written(router(OWN))


def test_another_spec_makes_the_route_outdated() -> None:
    live = accepted(written(router(OWN)))
    assert not see(live, TWO_GATEWAYS).current


def test_defaults_and_fields_of_others_beside_ours_do_not_count() -> None:
    live = accepted(written(router(OWN)))
    live["metadata"]["annotations"]["team"] = "fraud"
    live["spec"]["rules"][0]["backendRefs"][0]["newDefault"] = "x"
    live["spec"]["useDefaultGateways"] = "All"
    assert see(live).current


def test_a_route_of_somebody_else_is_not_taken_over() -> None:
    live = accepted(written(router(OWN)))
    live["metadata"] |= {"ownerReferences": [], "labels": {"team": "shop"}}
    state = see(live)
    assert (state.found, state.writable, state.in_force) == (True, False, False)
    assert "is not Crossfade's; delete it, or join it" in state.problem
    with pytest.raises(RouteError, match="is not Crossfade's"):
        router(OWN).render(SPLIT, live)


def test_a_route_of_another_controller_is_not_taken_over() -> None:
    live = accepted(written(router(OWN)))
    live["metadata"]["ownerReferences"][0] |= {"kind": "Service", "name": "knative", "uid": "x"}
    assert "belongs to Service knative" in see(live).problem


def test_the_route_of_a_deleted_namesake_is_waited_for() -> None:
    live = accepted(written(router(OWN, uid="uid-0")))
    assert "still belongs to an earlier ModelDeployment fraud" in see(live).problem


def test_a_route_that_was_orphaned_is_adopted() -> None:
    live = accepted(written(router(OWN, uid="uid-0")))
    live["metadata"]["ownerReferences"] = []
    assert (see(live).writable, see(live).current) == (True, False)


# ── what Gateways say ─────────────────────────────────────────────────────────────────────────


def problem(*parents: Manifest, generation: int = 1, traffic: Manifest = OWN) -> str:
    live = written(router(traffic))
    state = see(
        {
            **live,
            "metadata": {**live["metadata"], "generation": generation},
            "status": {"parents": list(parents)},
        },
        traffic,
    )
    assert state.in_force is not bool(state.problem)
    return state.problem


def test_a_gateway_that_said_nothing_has_not_accepted_the_route() -> None:
    words = "Gateway gateways/public has not accepted the route yet"
    assert problem() == words
    assert problem({"parentRef": GATEWAY, "controllerName": "x"}) == words


def test_an_older_generation_that_was_accepted_is_not_this_one() -> None:
    assert "not accepted the route yet" in problem(parent_status(), generation=2)


def test_a_condition_that_is_unknown_is_not_acceptance() -> None:
    said = parent_status(condition("Accepted", "Unknown", reason="Pending"))
    assert "not accepted the route yet" in problem(said)


def test_a_refusal_is_told_in_the_gateways_own_words() -> None:
    said = condition("Accepted", "False", reason="NotAllowedByListeners", message="no listener")
    assert problem(parent_status(said)) == (
        "Gateway gateways/public does not accept the route: NotAllowedByListeners: no listener"
    )
    silent = parent_status(condition("Accepted", "False"))
    assert problem(silent).endswith("it does not say why")


def test_a_backend_that_cannot_be_resolved_keeps_the_route_out_of_force() -> None:
    refs = condition("ResolvedRefs", "False", reason="BackendNotFound", message="no Service")
    assert problem(parent_status(condition("Accepted"), refs)) == (
        "Gateway gateways/public cannot resolve a reference of the route:"
        " BackendNotFound: no Service"
    )


def test_a_route_that_is_accepted_in_part_is_not_in_force() -> None:
    partial = condition("PartiallyInvalid", reason="UnsupportedValue", message="dropped rule 1")
    assert "accepts only a part of the route" in problem(
        parent_status(condition("Accepted"), condition("ResolvedRefs"), partial)
    )
    whole = condition("PartiallyInvalid", "False")
    assert problem(parent_status(condition("Accepted"), whole)) == ""


def test_a_controller_that_publishes_no_resolved_refs_is_believed() -> None:
    assert problem(parent_status(condition("Accepted"))) == ""


def test_every_gateway_must_have_accepted() -> None:
    first, second = parent_status(), parent_status(parent=SECOND)
    assert problem(first, second, traffic=TWO_GATEWAYS) == ""
    assert problem(first, traffic=TWO_GATEWAYS) == (
        "Gateway gateways/internal (listener web) has not accepted the route yet"
    )


def test_the_entry_of_another_listener_is_not_this_one() -> None:
    elsewhere = parent_status(parent={**SECOND, "port": 81})
    assert "internal" in problem(parent_status(), elsewhere, traffic=TWO_GATEWAYS)


def test_an_entry_that_a_former_controller_left_behind_does_not_matter() -> None:
    stale = parent_status(condition("Accepted", "False", 0), controller="former.example.com")
    refusal = parent_status(condition("Accepted", "False"), controller="former.example.com")
    assert problem(stale, parent_status()) == ""
    assert problem(refusal, parent_status()) == ""


def test_a_parent_ref_with_defaults_spelled_out_is_the_same_parent() -> None:
    spelled = {**GATEWAY, "group": "gateway.networking.k8s.io", "kind": "Gateway"}
    assert problem(parent_status(parent=spelled)) == ""


def test_the_namespace_of_a_gateway_defaults_to_that_of_the_route() -> None:
    traffic = {"gateway": {"parentRefs": [{"name": "public"}]}}
    assert problem(parent_status(), traffic=traffic).startswith("Gateway ml/public has not")
    here = parent_status(parent={"name": "public", "namespace": "ml"})
    assert problem(here, traffic=traffic) == ""
