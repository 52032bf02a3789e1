"""A revision is what is served: no more, no less, and however it is written."""

from __future__ import annotations

import random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from crossfade.api.parse import parse_spec
from crossfade.names import REVISION_HASH_LENGTH
from crossfade.workload.revision import revision_of

SPEC: dict[str, Any] = {
    "model": {"name": "fraud", "version": "1"},
    "template": {
        "metadata": {"labels": {"a": "1", "b": "2"}},
        "spec": {"containers": [{"name": "model", "image": "fraud:1"}]},
    },
    "traffic": {"replicas": {}},
}


def revision(**changes: Any) -> str:
    return revision_of(parse_spec({"spec": SPEC | changes}))


def shuffled(value: Any, rng: random.Random) -> Any:
    match value:
        case dict():
            keys = list(value)
            rng.shuffle(keys)
            return {key: shuffled(value[key], rng) for key in keys}
        case list():
            return [shuffled(item, rng) for item in value]
        case _:
            return value


def test_a_known_spec_has_a_known_revision() -> None:
    """A change here restarts every model of every user: add fields so that it stays."""
    assert revision() == "cbrmkd86"


@given(st.randoms(use_true_random=False))
def test_the_order_of_keys_makes_no_difference(rng: random.Random) -> None:
    assert revision(**shuffled(SPEC, rng)) == revision()


def test_a_default_that_is_written_out_makes_no_difference() -> None:
    assert revision(serving={"port": 8080, "protocol": "openInference"}) == revision()
    assert revision(model={**SPEC["model"], "uri": None}) == revision()


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "replicas": st.integers(1, 9),
            "rollout": st.builds(lambda n: {"probationSeconds": n}, st.integers(0, 9)),
            "traffic": st.just({"istio": {"hosts": ["a"]}}),
            "autoscaling": st.just({"maxReplicas": 3}),
        },
    )
)
def test_how_it_is_reached_makes_no_difference(changes: dict[str, Any]) -> None:
    assert revision(**changes) == revision()


def test_each_thing_that_is_served_makes_a_difference() -> None:
    containers = [{"name": "model", "image": "fraud:2"}]
    revisions = [
        revision(),
        revision(model={"name": "fraud", "version": "2"}),
        revision(model={**SPEC["model"], "uri": "s3://fraud/1"}),
        revision(model={**SPEC["model"], "sha256": "0" * 64}),
        revision(serving={"port": 80}),
        revision(serving={"protocol": "http"}),
        revision(template={"spec": {"containers": containers}}),
    ]
    assert len(set(revisions)) == len(revisions)


@given(st.text(min_size=1, max_size=63))
def test_a_revision_spells_no_word_and_fits_into_a_name(version: str) -> None:
    hashed = revision(model={"name": "fraud", "version": version})
    assert len(hashed) == REVISION_HASH_LENGTH
    assert set(hashed) <= set("bcdfghjklmnpqrstvwxz2456789")


@given(
    st.fixed_dictionaries(
        {}, optional=dict.fromkeys(("sidecar", "inputs", "predictions"), st.none())
    )
)
def test_a_sidecar_that_is_not_there_makes_no_difference(absent: dict[str, None]) -> None:
    assert revision(**absent) == "cbrmkd86"


def test_each_part_of_the_sidecar_makes_a_difference() -> None:
    inputs = {"schema": {"type": "object"}}
    static: dict[str, Any] = {"targets": [{"static": {}}]}
    revisions = [
        revision(),
        revision(sidecar={}),
        revision(sidecar={"port": 9001}),
        revision(inputs=inputs),
        revision(inputs={**inputs, "onViolation": "log"}),
        revision(inputs={"schema": {"type": "array"}}),
        revision(predictions=[{"name": "score", "jsonPath": "$.score"}]),
        revision(fallback=static),
        revision(fallback={**static, "timeoutSeconds": 3}),
        revision(recording={}),
        revision(recording={"percent": 5}),
    ]
    assert len(set(revisions)) == len(revisions)


def test_a_default_of_the_sidecar_that_is_written_out_makes_no_difference() -> None:
    defaults = {"port": 8012, "adminPort": 8013, "maxBodyBytes": 10485760}
    assert revision(sidecar=defaults) == revision(sidecar={})
    breaker = {"failurePercent": 50, "minRequests": 20, "windowSeconds": 10, "openSeconds": 5}
    static: dict[str, Any] = {"targets": [{"static": {}}]}
    assert revision(fallback={**static, "breaker": breaker}) == revision(fallback=static)
