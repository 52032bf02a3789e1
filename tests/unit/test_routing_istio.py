"""The VirtualService of our own, also by Istio's own schema."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.istio_crd import ensure_istio_crd
from cluster.paths import Paths
from crossfade.core.actions import Manifest, ObjectRef, Split
from crossfade.core.observation import RouteState
from crossfade.errors import RouteError
from tests.unit.routing_builders import CANARY, ISTIO, SPLIT, STABLE, router, written

IN_MESH = {"istio": {"hosts": ["fraud.ml.svc.cluster.local"]}}


def live_of(
    split: Split = SPLIT, traffic: Manifest = ISTIO, status: Manifest | None = None
) -> Manifest:
    service = written(router(traffic), split)
    metadata = {**service["metadata"], "generation": 3}
    return {**service, "metadata": metadata, **({} if status is None else {"status": status})}


def see(live: Manifest | None) -> RouteState:
    return router(ISTIO).observe(live, {})


def strict(schema: Any) -> Any:
    """Forbid fields that the schema does not know: the API server would drop them silently."""
    if isinstance(schema, list):
        return [strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    inner = {key: strict(value) for key, value in schema.items()}
    known = isinstance(schema.get("properties"), dict) and schema.get("type") == "object"
    return {**inner, "additionalProperties": False} if known else inner


@pytest.fixture(scope="module")
def schema() -> jsonschema.Draft202012Validator:
    crd = json.loads(ensure_istio_crd(Paths.from_environment()).read_text())
    version = next(v for v in crd["spec"]["versions"] if v["name"] == "v1")
    spec = version["schema"]["openAPIV3Schema"]["properties"]["spec"]
    return jsonschema.Draft202012Validator(strict(spec))


@pytest.mark.parametrize("traffic", [ISTIO, IN_MESH])
@pytest.mark.parametrize("split", [SPLIT, Split(STABLE), Split(STABLE, CANARY, 0)])
def test_istios_own_schema_takes_what_we_write(
    schema: jsonschema.Draft202012Validator, traffic: Manifest, split: Split
) -> None:
    service = written(router(traffic), split)
    assert [error.message for error in schema.iter_errors(service["spec"])] == []


def test_istios_own_schema_refuses_what_it_does_not_know(
    schema: jsonschema.Draft202012Validator,
) -> None:
    service = written(router(ISTIO))
    service["spec"]["http"][0]["route"][0]["wieght"] = 1
    assert list(schema.iter_errors(service["spec"]))


def test_the_target_is_the_virtual_service_named_like_the_model_deployment() -> None:
    expected = ObjectRef("networking.istio.io/v1", "VirtualService", "ml", "fraud")
    assert router(ISTIO).target == expected


def test_each_revision_is_a_destination_of_its_own() -> None:
    assert written(router(ISTIO))["spec"] == {
        "hosts": ["fraud.example.com"],
        "gateways": ["istio-system/public"],
        "http": [
            {
                "route": [
                    {
                        "destination": {
                            "host": f"fraud-{revision}.ml.svc.cluster.local",
                            "port": {"number": 8080},
                        },
                        "weight": weight,
                    }
                    for revision, weight in ((STABLE, 90), (CANARY, 10))
                ]
            }
        ],
    }


def test_without_gateways_it_is_for_the_mesh() -> None:
    assert written(router(IN_MESH))["spec"]["gateways"] == ["mesh"]


@given(st.integers(0, 100))
def test_what_is_written_is_what_is_seen(weight: int) -> None:
    split = Split(STABLE, CANARY, weight)
    assert see(live_of(split)) == RouteState(found=True, weights=split.weights, in_force=True)


def test_a_missing_virtual_service_may_be_written() -> None:
    assert see(None) == RouteState(found=False)


def test_a_virtual_service_of_somebody_else_is_not_taken_over() -> None:
    live = live_of()
    live["metadata"] |= {"ownerReferences": None, "labels": None}
    assert not see(live).writable
    assert "rename the ModelDeployment" in see(live).problem
    with pytest.raises(RouteError, match="is not Crossfade's"):
        router(ISTIO).render(SPLIT, live)


def test_a_weight_edited_by_hand_is_seen_as_different() -> None:
    live = live_of()
    live["spec"]["http"][0]["route"][1]["weight"] = 37
    assert (see(live).weights, see(live).current) == ({STABLE: 71, CANARY: 29}, False)


def test_an_absent_weight_is_nothing_beside_others_and_everything_alone() -> None:
    live = live_of()
    del live["spec"]["http"][0]["route"][1]["weight"]
    assert see(live).weights == {STABLE: 100, CANARY: 0}
    alone = live_of(Split(STABLE))
    del alone["spec"]["http"][0]["route"][0]["weight"]
    assert see(alone).weights == {STABLE: 100}


def test_a_malformed_weight_is_a_problem_and_may_be_overwritten() -> None:
    live = live_of()
    live["spec"]["http"][0]["route"][0]["weight"] = "many"
    state = see(live)
    assert "no whole number" in state.problem
    assert (state.current, state.in_force, state.writable) == (False, False, True)


@pytest.mark.parametrize("host", ["other.ml.svc.cluster.local", f"fraud-{STABLE}", None])
def test_a_destination_of_others_is_seen_and_put_right(host: str | None) -> None:
    live = live_of()
    live["spec"]["http"][0]["route"][0]["destination"]["host"] = host
    assert (see(live).weights, see(live).current) == ({CANARY: 100}, False)


def test_a_fault_that_others_injected_is_seen_and_put_right() -> None:
    live = live_of()
    live["spec"]["http"][0]["fault"] = {"abort": {"httpStatus": 500}}
    assert not see(live).current
    assert written(router(ISTIO), SPLIT, live) == written(router(ISTIO))


def test_an_empty_virtual_service_carries_nothing() -> None:
    live = live_of()
    live["spec"] = {}
    assert (see(live).weights, see(live).current) == ({}, False)


@pytest.mark.parametrize("observed", [3, "3"])
def test_the_status_of_this_generation_is_in_force(observed: object) -> None:
    status = {
        "observedGeneration": observed,
        "conditions": [{"type": "Reconciled", "status": "True"}],
    }
    assert see(live_of(status=status)).in_force


def test_the_status_of_an_older_generation_is_not_in_force() -> None:
    state = see(live_of(status={"observedGeneration": "2"}))
    assert not state.in_force
    assert "newest generation" in state.problem


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"message": "1/2 proxies up to date"}, "1/2 proxies"),
        ({"reason": "Pushing"}, "Pushing"),
        ({}, "why"),
    ],
)
def test_what_is_not_reconciled_is_not_in_force(said: dict[str, str], words: str) -> None:
    status = {"conditions": [{"type": "Reconciled", "status": "False", **said}]}
    state = see(live_of(status=status))
    assert not state.in_force
    assert words in state.problem
