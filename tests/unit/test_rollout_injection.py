"""Versions with and without a sidecar after each other, in the simulated world."""

from __future__ import annotations

from typing import Any

import pytest

from crossfade.core.actions import Manifest, ObjectRef
from crossfade.names import ANNOTATION_SIDECAR, ANNOTATION_VERSION, LABEL_REVISION
from crossfade.sidecar.config import Config, read_config
from crossfade.workload.sidecar import Injection
from tests.unit.world import World, guarded, healthy_world, manifest

REPLICAS: dict[str, Any] = {"traffic": {"replicas": {}}, "replicas": 4}


def service(world: World, name: str = "fraud") -> Manifest:
    return world.cluster.objects[ObjectRef("v1", "Service", "ml", name)]


def leads_to(world: World, name: str = "fraud") -> int:
    (port,) = service(world, name)["spec"]["ports"]
    assert port["port"] == 8080
    return int(port["targetPort"])


def selects(world: World) -> str | None:
    found = service(world)["spec"]["selector"].get(LABEL_REVISION)
    return None if found is None else str(found)


def deployment(world: World, version: str) -> Manifest:
    (found,) = (
        one
        for one in world.deployments.values()
        if one["metadata"]["annotations"][ANNOTATION_VERSION] == version
    )
    return found


def told(world: World, version: str) -> Config:
    annotations = deployment(world, version)["spec"]["template"]["metadata"]["annotations"]
    return read_config(annotations[ANNOTATION_SIDECAR].encode())


def revision(world: World, version: str) -> str:
    return str(deployment(world, version)["metadata"]["labels"][LABEL_REVISION])


def watched(world: World) -> list[tuple[str | None, int]]:
    """Record each selector and port that the address gets from now on."""
    seen = [(selects(world), leads_to(world))]
    before = world.cluster.on_change

    def note(verb: str, body: Manifest) -> None:
        before(verb, body)
        if body["kind"] == "Service" and body["metadata"]["name"] == "fraud":
            now = (selects(world), leads_to(world))
            if now != seen[-1]:
                seen.append(now)

    world.cluster.on_change = note
    return seen


@pytest.mark.parametrize("with_sidecar_first", [False, True])
async def test_the_address_changes_its_pods_and_their_port_in_one_write(
    with_sidecar_first: bool,
) -> None:
    plain, proxied = manifest, guarded
    first, second = (proxied, plain) if with_sidecar_first else (plain, proxied)
    ports = (8012, 8080) if with_sidecar_first else (8080, 8012)
    world = World()
    world.apply(first("1.0.0"))
    await world.run_until(lambda: world.phase == "Healthy")
    await world.settle()
    seen = watched(world)
    old = revision(world, "1.0.0")
    world.apply(second("2.0.0"))
    await world.run_until(lambda: world.phase == "Probation")
    await world.settle()
    new = revision(world, "2.0.0")
    assert seen == [(old, ports[0]), (new, ports[1])]
    assert leads_to(world, f"fraud-{old}") == ports[0]
    assert leads_to(world, f"fraud-{new}") == ports[1]


async def test_after_a_rollback_the_address_leads_where_stable_listens() -> None:
    world = await healthy_world()
    stable = revision(world, "1.0.0")
    world.apply(guarded("2.0.0"))
    await world.run_until(lambda: world.phase == "Progressing")
    world.cluster.delete(ObjectRef("v1", "Service", "ml", "fraud"))
    await world.settle()
    assert (selects(world), leads_to(world)) == (stable, 8080)


async def test_where_pods_are_the_split_requests_pass_by_until_all_have_a_sidecar() -> None:
    world = World()
    world.apply(manifest("1.0.0", **REPLICAS))
    await world.run_until(lambda: world.phase == "Healthy")
    await world.settle()
    seen = watched(world)
    first = revision(world, "1.0.0")
    world.apply(guarded("2.0.0", **REPLICAS))
    await world.run_until(lambda: world.phase == "Healthy" and world.stable == "2.0.0")
    await world.settle()
    second = revision(world, "2.0.0")
    assert seen == [(first, 8080), (None, 8080), (second, 8012)]

    world.apply(guarded("3.0.0", **REPLICAS))
    await world.run_until(lambda: world.phase == "Healthy" and world.stable == "3.0.0")
    await world.settle()
    third = revision(world, "3.0.0")
    assert seen[2:] == [(second, 8012), (None, 8012), (third, 8012)]


async def test_a_version_is_told_who_is_stable_and_keeps_the_borders() -> None:
    score = {"name": "score", "jsonPath": "$.score"}
    world = World()
    world.apply(guarded("1.0.0", "stable", predictions=[{**score, "buckets": [0.2, 0.4]}]))
    await world.run_until(lambda: world.phase == "Healthy")
    await world.settle()
    assert told(world, "1.0.0").fallback is None
    world.apply(guarded("2.0.0", "stable", "previous", predictions=[score]))
    await world.run_until(lambda: world.phase == "Progressing")
    config = told(world, "2.0.0")
    assert config.fallback is not None
    assert [target.host for target in config.fallback.targets] == [
        "fraud.ml.svc",
        f"fraud-{revision(world, '1.0.0')}.ml.svc",
    ]
    assert config.predictions[0].buckets == (0.2, 0.4)
    assert config.revision == revision(world, "2.0.0")


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"inputs": {"schema": {"type": "nothing"}}}, "spec.inputs: the schema of inputs is"),
        ({"predictions": [{"name": "a", "jsonPath": "$["}]}, "spec: $[ is no JSONPath"),
    ],
)
async def test_what_the_sidecar_would_not_take_is_told_and_stable_goes_on(
    spec: dict[str, Any], words: str
) -> None:
    world = await healthy_world()
    world.apply(guarded("2.0.0", **spec))
    await world.run(60)
    assert words in world.status["message"]
    assert world.versions == {"1.0.0"}
    assert world.shares == {"1.0.0": 100}
    world.apply(guarded("2.0.0"))
    await world.run_until(lambda: world.phase == "Progressing")


async def test_a_rollout_goes_on_under_an_operator_that_knows_no_image() -> None:
    world = await healthy_world()
    world.apply(guarded("2.0.0"))
    await world.run_until(lambda: world.phase == "Progressing")
    world.reconciler._injection = Injection()
    await world.run_until(lambda: world.phase == "Healthy")
    assert world.stable == "2.0.0"


async def test_an_operator_that_knows_no_image_says_so_and_adds_none() -> None:
    world = await healthy_world()
    world.reconciler._injection = Injection()
    world.apply(guarded("2.0.0"))
    await world.run(60)
    assert "CROSSFADE_SIDECAR_IMAGE" in world.status["message"]
    assert world.versions == {"1.0.0"}
    assert world.shares == {"1.0.0": 100}
