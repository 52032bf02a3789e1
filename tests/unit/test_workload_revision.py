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
