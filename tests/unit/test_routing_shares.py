"""Shares: raw weights, percent, pods."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossfade.api.v1alpha1 import Traffic
from crossfade.errors import InvalidSpecError
from crossfade.names import REVISION_ALPHABET
from crossfade.routing.factory import router_for
from crossfade.routing.gateway_api import OwnRouteRouter
from crossfade.routing.istio import IstioRouter
from crossfade.routing.joined import JoinedRouteRouter
from crossfade.routing.replicas import ReplicasRouter
from crossfade.routing.shares import (
    are_whole_percents,
    percents,
    replicas_for_weight,
    revision_of,
    whole_number,
)
from crossfade.workload.revision import revision_of as revision_of_spec
from tests.unit.routing_builders import ISTIO, JOINED, OWN, REPLICAS, router, spec_of

RAW = st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 1_000_000))


@given(RAW)
def test_percents_sum_to_100_and_are_within_one_of_the_exact_share(raw: dict[str, int]) -> None:
    total = sum(raw.values())
    shares = percents(raw)
    if total == 0:
        assert shares == {}
        return
    assert sum(shares.values()) == 100
    assert all(abs(shares[key] - 100 * raw[key] / total) < 1 for key in raw)


@given(RAW, st.integers(1, 50))
def test_percents_do_not_depend_on_the_total(raw: dict[str, int], factor: int) -> None:
    assert percents({key: weight * factor for key, weight in raw.items()}) == percents(raw)


@given(RAW)
def test_whole_percents_are_those_that_need_no_rounding(raw: dict[str, int]) -> None:
    total = sum(raw.values())
    exact = total > 0 and all(percents(raw)[key] * total == raw[key] * 100 for key in raw)
    assert are_whole_percents(raw) is exact


@pytest.mark.parametrize("value", [None, True, "1", 1.5, -1, [], {}])
def test_a_weight_that_cannot_be_counted_with_is_no_number(value: object) -> None:
    assert whole_number(value) is None


@pytest.mark.parametrize(
    "service",
    [
        "fraud",
        "fraud-",
        "fraud-detector",
        "fraud-bbbbbbb",
        "fraud-bbbbbbbbb",
        "x-bbbbbbbb",
        None,
        1,
    ],
)
def test_a_service_of_another_name_is_no_revision(service: object) -> None:
    assert revision_of(service, "fraud") is None


def test_the_revisions_of_specs_are_recognised() -> None:
    revision = revision_of_spec(spec_of(OWN))
    assert revision_of(f"fraud-{revision}", "fraud") == revision
    assert set(revision) <= set(REVISION_ALPHABET)


@given(st.integers(1, 99), st.integers(1, 10_000))
def test_replicas_carry_at_least_the_weight_and_one_less_would_not(weight: int, full: int) -> None:
    pods = replicas_for_weight(weight, full)
    assert pods * 100 >= full * weight
    assert pods == 1 or (pods - 1) * 100 < full * weight


def test_the_spec_decides_who_splits() -> None:
    assert isinstance(router(OWN), OwnRouteRouter)
    assert isinstance(router(JOINED), JoinedRouteRouter)
    assert isinstance(router(ISTIO), IstioRouter)
    assert isinstance(router(REPLICAS), ReplicasRouter)


def test_a_spec_without_anybody_who_splits_says_what_to_give() -> None:
    spec = spec_of(OWN).model_copy(update={"traffic": Traffic()})
    with pytest.raises(InvalidSpecError, match="give gateway"):
        router_for("fraud", "ml", "uid-1", spec, None)


def test_only_a_joined_route_is_somebody_elses() -> None:
    joins = [router(traffic).joins for traffic in (OWN, JOINED, ISTIO, REPLICAS)]
    assert joins == [False, True, False, False]


@pytest.mark.parametrize("traffic", [OWN, ISTIO, REPLICAS])
def test_a_route_of_our_own_is_not_restored(traffic: dict[str, object]) -> None:
    assert router(traffic).restore({}) is None
    assert router(traffic).original_backend({}) is None


@pytest.mark.parametrize("traffic", [OWN, JOINED, ISTIO])
def test_a_gateway_asks_for_as_many_pods_as_the_weight_needs(traffic: dict[str, object]) -> None:
    asked = [router(traffic).canary_replicas(weight, 3) for weight in (1, 33, 34, 67, 100)]
    assert asked == [1, 1, 2, 3, 3]
