"""Joining one rule of somebody else's HTTPRoute."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crossfade.core.actions import Manifest, ObjectRef, Replace, Split
from crossfade.core.observation import RouteState
from crossfade.errors import RouteError
from tests.unit.routing_builders import (
    CANARY,
    GATEWAY,
    JOINED,
    SPLIT,
    STABLE,
    accepted,
    backend,
    backends_of,
    condition,
    parent_status,
    router,
    shared_route,
    written,
)

UNNAMED = {"gateway": {"routeRef": {"name": "shared"}}}
S, C = f"fraud-{STABLE}", f"fraud-{CANARY}"
ALONE = shared_route(backend("fraud"))
BESIDE = shared_route(backend("before", 30), backend("fraud", 100), backend("after", 70))


def see(live: Manifest | None, traffic: Manifest = JOINED) -> RouteState:
    return router(traffic).observe(live, {})


def join(live: Manifest, split: Split = SPLIT, remembered: Manifest | None = None) -> Manifest:
    return written(router(JOINED, remembered), split, live)


def restore(live: Manifest, remembered: Manifest | None = None) -> Manifest:
    write = router(JOINED, remembered).restore(live)
    assert isinstance(write, Replace)
    return write.manifest


def edit(live: Manifest, name: str, **changes: Any) -> Manifest:
    """Return a route in which somebody changed a backend of the rule ``predict``."""
    edited = deepcopy(live)
    for entry in edited["spec"]["rules"][1]["backendRefs"]:
        if entry["name"] == name:
            entry.update(changes)
    return edited


# ── writing the split ─────────────────────────────────────────────────────────────────────────


def test_the_target_is_the_joined_route() -> None:
    expected = ObjectRef("gateway.networking.k8s.io/v1", "HTTPRoute", "ml", "shared")
    assert router(JOINED).target == expected


def test_the_one_backend_becomes_two_of_one_hundred() -> None:
    assert backends_of(join(ALONE)) == [(S, 90), (C, 10)]


def test_without_a_canary_the_one_backend_becomes_stables() -> None:
    assert backends_of(join(ALONE, Split(STABLE))) == [(S, 100)]


def test_the_shares_of_others_do_not_move() -> None:
    assert backends_of(join(BESIDE)) == [("before", 30), (S, 90), (C, 10), ("after", 70)]
    double = shared_route(backend("fraud", 200), backend("other", 1))
    assert backends_of(join(double)) == [(S, 180), (C, 20), ("other", 1)]


def test_a_weight_that_happens_to_divide_is_enough() -> None:
    ten = shared_route(backend("fraud", 10), backend("other", 1))
    assert backends_of(join(ten)) == [(S, 9), (C, 1), ("other", 1)]


def test_a_weight_that_does_not_divide_is_refused_with_what_to_write() -> None:
    one = shared_route(backend("fraud"), backend("other"))
    with pytest.raises(
        RouteError, match=r"weight of 1 beside others, and 10 %.*write a weight of 100"
    ):
        join(one)


def test_taking_back_works_at_any_weight() -> None:
    one = shared_route(backend("fraud"), backend("other"))
    assert backends_of(join(one, Split(STABLE))) == [(S, 1), ("other", None)]


def test_others_without_weight_do_not_count() -> None:
    live = shared_route(backend("fraud", 3), backend("other", 0))
    assert backends_of(join(live)) == [(S, 90), (C, 10), ("other", 0)]


def test_an_entry_keeps_its_filters_and_its_spelling() -> None:
    filters = [{"type": "RequestHeaderModifier", "requestHeaderModifier": {"remove": ["x"]}}]
    live = shared_route(backend("fraud", 100, group="", kind="Service", filters=filters))
    for entry in join(live)["spec"]["rules"][1]["backendRefs"]:
        assert (entry["group"], entry["kind"], entry["port"]) == ("", "Service", 8080)
        assert entry["filters"] == filters


def test_an_edit_of_one_of_our_entries_is_kept() -> None:
    live = edit(join(ALONE), S, port=9090)
    ports = [
        e["port"] for e in join(live, Split(STABLE, CANARY, 25))["spec"]["rules"][1]["backendRefs"]
    ]
    assert ports == [9090, 8080]


def test_a_promotion_replaces_both_by_the_new_one() -> None:
    assert backends_of(join(join(BESIDE), Split(CANARY))) == [
        ("before", 30),
        (C, 100),
        ("after", 70),
    ]


def test_a_new_revision_takes_over_the_entry() -> None:
    assert backends_of(join(join(ALONE), Split("dddddddd"))) == [("fraud-dddddddd", 100)]


def test_a_sum_that_a_hand_made_odd_is_made_what_it_was() -> None:
    live = edit(join(BESIDE), C, weight=37)
    with pytest.raises(RouteError, match="weight of 127"):
        join(live)
    assert backends_of(join(live, SPLIT, backend("fraud", 100)))[1:3] == [(S, 90), (C, 10)]


def test_git_putting_the_entry_back_beside_the_split_is_repaired() -> None:
    both = shared_route(backend(S, 90), backend("other", 0), backend("fraud", 1, port=7))
    route = join(both)
    assert backends_of(route) == [(S, 90), (C, 10), ("other", 0)]
    assert route["spec"]["rules"][1]["backendRefs"][0]["port"] == 7


def test_the_write_is_guarded_by_the_version_that_was_read_and_leaves_it_alone() -> None:
    before = deepcopy(ALONE)
    write = router(JOINED).render(SPLIT, ALONE)
    assert isinstance(write, Replace)
    assert write.manifest["metadata"]["resourceVersion"] == "7"
    assert before == ALONE


NAMES = st.sampled_from(["shop", "fraud-detector", "fraud2", "x"])
EXTRA = st.dictionaries(
    st.sampled_from(["filters", "annotations", "timeouts", "matches"]),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=4),
        lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner),
        max_leaves=4,
    ),
)
FOREIGN = st.lists(
    st.builds(
        lambda name, weight, extra: {**backend(name, weight), **extra},
        NAMES,
        st.none() | st.integers(0, 1000),
        EXTRA,
    ),
    max_size=3,
)
RULES = st.lists(
    st.builds(lambda refs, extra: {"backendRefs": refs, **extra}, FOREIGN, EXTRA), max_size=2
)


@st.composite
def foreign_routes(draw: st.DrawFn) -> tuple[Manifest, Manifest]:
    """A route of somebody else, and its original entry."""
    original = {**backend("fraud", draw(st.sampled_from([100, 200, 1000]))), **draw(EXTRA)}
    live = shared_route(*draw(FOREIGN), original, *draw(FOREIGN), **draw(EXTRA))
    live["spec"]["rules"] = [*draw(RULES), *live["spec"]["rules"], *draw(RULES)]
    live["metadata"]["annotations"] = draw(EXTRA)
    live["spec"]["more"] = draw(EXTRA)
    return live, original


def without_ours(route: Manifest) -> Manifest:
    rest = deepcopy(route)
    for rule in rest["spec"]["rules"]:
        rule["backendRefs"] = [e for e in rule["backendRefs"] if e["name"] not in {"fraud", S, C}]
    return rest


def foreign_weight(route: Manifest) -> int:
    rule = next(r for r in route["spec"]["rules"] if r.get("name") == "predict")
    ours = {"fraud", S, C}
    return sum(
        1 if e.get("weight") is None else e["weight"]
        for e in rule["backendRefs"]
        if e["name"] not in ours
    )


@settings(max_examples=30)
@given(foreign_routes(), st.integers(0, 100), st.integers(0, 100))
def test_only_our_entries_differ_and_restoring_leaves_no_trace(
    found: tuple[Manifest, Manifest], first: int, then: int
) -> None:
    live, original = found
    before = deepcopy(live)
    remembered = router(JOINED).original_backend(live)
    assert remembered == original
    once = join(live, Split(STABLE, CANARY, first), remembered)
    twice = join(once, Split(STABLE, CANARY, then), remembered)
    assert without_ours(once) == without_ours(twice) == without_ours(live)
    assert see(twice).weights == Split(STABLE, CANARY, then).weights
    assert see(twice).current
    assert restore(twice, remembered) == live == before


@settings(max_examples=30)
@given(foreign_routes(), st.integers(0, 100))
def test_writing_the_same_split_twice_changes_nothing(
    found: tuple[Manifest, Manifest], weight: int
) -> None:
    split = Split(STABLE, CANARY, weight)
    once = join(found[0], split)
    assert join(once, split) == once


@settings(max_examples=30)
@given(foreign_routes(), st.integers(0, 100))
def test_our_sum_is_what_it_was_where_others_have_weight(
    found: tuple[Manifest, Manifest], weight: int
) -> None:
    live, original = found
    rule = next(
        r
        for r in join(live, Split(STABLE, CANARY, weight))["spec"]["rules"]
        if r.get("name") == "predict"
    )
    ours = sum(e["weight"] for e in rule["backendRefs"] if e["name"] in {S, C})
    assert ours == (original["weight"] if foreign_weight(live) else 100)


# ── seeing it ─────────────────────────────────────────────────────────────────────────────────


def test_a_split_in_force_is_seen() -> None:
    expected = RouteState(found=True, weights={STABLE: 90, CANARY: 10}, in_force=True)
    assert see(join(ALONE)) == expected


def test_a_route_before_joining_carries_no_weights_and_is_not_current() -> None:
    expected = RouteState(found=True, current=False, in_force=False)
    assert see(ALONE) == expected
    assert see(shared_route(backend(S, 90), backend("fraud", 1))) == expected


def test_a_gateway_that_has_not_accepted_the_joined_route_is_named() -> None:
    live = accepted(join(ALONE), parent_status(parent={**GATEWAY, "name": "other"}))
    assert see(live).problem == "Gateway gateways/public has not accepted the route yet"
    assert not see(live).in_force


def test_a_joined_route_without_a_gateway_is_not_in_force() -> None:
    live = join(ALONE)
    live["spec"]["parentRefs"] = []
    assert see(live).problem == "HTTPRoute ml/shared names no Gateway in spec.parentRefs"


def test_a_weight_edited_by_hand_is_seen_as_different() -> None:
    state = see(edit(join(ALONE), C, weight=37))
    assert (state.weights, state.current) == ({STABLE: 71, CANARY: 29}, False)


def test_a_revision_that_is_named_twice_is_not_current() -> None:
    state = see(shared_route(backend(S, 45), backend(S, 45), backend(C, 10)))
    assert (state.weights, state.current) == ({STABLE: 90, CANARY: 10}, False)
    route = join(shared_route(backend(S, 45), backend(S, 45), backend(C, 10)))
    assert backends_of(route) == [(S, 90), (C, 10)]


def refused(live: Manifest | None, traffic: Manifest = JOINED) -> str:
    state = see(live, traffic)
    assert (state.writable, state.in_force, state.weights) == (False, False, {})
    assert state.found is (live is not None)
    with pytest.raises(RouteError) as e:
        router(traffic).render(SPLIT, live)
    assert str(e.value) == state.problem
    return state.problem


def test_a_missing_route_is_named() -> None:
    assert refused(None) == (
        "HTTPRoute ml/shared does not exist; create it or correct"
        " spec.traffic.gateway.routeRef.name"
    )


def test_a_missing_rule_is_named() -> None:
    live = deepcopy(ALONE)
    live["spec"]["rules"][1]["name"] = "infer"
    assert refused(live) == (
        'HTTPRoute ml/shared has no rule named "predict"; name the rule in the route or correct'
        " spec.traffic.gateway.routeRef.rule"
    )
    del live["spec"]["rules"]
    assert "has no rule named" in refused(live)


def test_a_rule_that_does_not_send_to_us_is_named() -> None:
    expected = (
        'rule "predict" of HTTPRoute ml/shared does not send to the Service fraud; add a backendRef'
        " of that name"
    )
    assert refused(shared_route(backend("other"))) == expected
    assert refused(shared_route()) == expected


def test_the_only_rule_that_names_us_needs_no_name() -> None:
    assert see(join(ALONE), UNNAMED).weights == {STABLE: 90, CANARY: 10}
    assert "HTTPRoute ml/shared does not send to the Service fraud" in refused(
        shared_route(backend("other")), UNNAMED
    )


def test_two_rules_that_name_us_need_the_name_of_one() -> None:
    live = deepcopy(ALONE)
    live["spec"]["rules"].append({"backendRefs": [backend("fraud")]})
    assert "several rules" in refused(live, UNNAMED)
    assert see(live).writable


def test_a_backend_that_is_named_twice_is_refused() -> None:
    assert "twice; merge the two" in refused(shared_route(backend("fraud"), backend("fraud")))


def test_a_backend_without_weight_has_nothing_to_split() -> None:
    assert "a weight of 0, so there is nothing to split" in refused(
        shared_route(backend("fraud", 0))
    )


@pytest.mark.parametrize("weight", ["10", -1, True])
def test_a_malformed_weight_is_a_problem(weight: object) -> None:
    live = edit(ALONE, "fraud", weight=weight)
    assert "weight is no whole number" in refused(live)


@pytest.mark.parametrize(
    "foreign",
    [{"namespace": "shop"}, {"kind": "ServiceImport"}, {"group": "multicluster.x-k8s.io"}],
)
def test_a_backend_of_our_name_that_is_something_else_is_not_ours(foreign: Manifest) -> None:
    assert "does not send to" in refused(
        shared_route(backend("fraud", **foreign), backend(S, **foreign))
    )


# ── remembering and putting back ──────────────────────────────────────────────────────────────


def test_the_entry_in_the_route_is_newer_than_what_was_remembered() -> None:
    old, new = backend("fraud", 1), backend("fraud", 50)
    assert router(JOINED, old).original_backend(shared_route(new)) == new


def test_what_was_remembered_counts_while_the_split_is_there() -> None:
    old = backend("fraud", 1)
    assert router(JOINED, old).original_backend(join(ALONE)) == old


def test_a_lost_memory_is_reconstructed_from_the_split() -> None:
    split = shared_route(backend(S, 90, kind="Service"), backend(C, 10))
    assert router(JOINED).original_backend(split) == backend("fraud", 100, kind="Service")
    assert backends_of(restore(split)) == [("fraud", 100)]


def test_a_route_that_cannot_be_read_leaves_the_memory_alone() -> None:
    assert router(JOINED).original_backend(None) is None
    assert router(JOINED, backend("fraud", 1)).original_backend(None) == backend("fraud", 1)


def test_an_original_without_a_weight_is_put_back_without_one() -> None:
    assert restore(join(ALONE), backend("fraud")) == ALONE


def test_a_share_that_others_were_given_since_is_kept() -> None:
    live = join(ALONE)
    live["spec"]["rules"][1]["backendRefs"].append(backend("late", 50))
    assert backends_of(restore(live, backend("fraud", 1))) == [("fraud", 100), ("late", 50)]


def test_nothing_is_put_back_where_nothing_of_ours_is() -> None:
    for live in (None, ALONE, shared_route(backend("other"))):
        assert router(JOINED, backend("fraud")).restore(live) is None


def test_what_to_put_back_must_be_clear() -> None:
    live = join(ALONE)
    live["spec"]["rules"].append({"backendRefs": [backend(S, 1)]})
    with pytest.raises(RouteError, match="several rules"):
        router(UNNAMED, backend("fraud")).restore(live)


def _unresolved(message: str) -> Manifest:
    """Return the joined route as a gateway reports it that misses a backend."""
    missing = condition("ResolvedRefs", "False", reason="BackendNotFound", message=message)
    return accepted(join(ALONE), parent_status(condition("Accepted"), missing))


def test_a_missing_service_of_somebody_else_does_not_hold_our_rollout() -> None:
    state = see(_unresolved('service "shop" not found'))
    assert state.in_force
    assert not state.problem


def test_a_missing_service_of_ours_does() -> None:
    state = see(_unresolved(f'service "{C}" not found'))
    assert not state.in_force
    assert C in state.problem
