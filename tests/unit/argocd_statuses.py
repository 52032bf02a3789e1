"""ModelDeployments in every phase, as the simulated world leaves them: what Argo CD will judge.

Argo CD's tests want them as files. ``python -m tests.unit.argocd_statuses`` writes the files anew;
a test says when they are not what the world does any more.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from crossfade.core.actions import Apply, Manifest, Write
from crossfade.evidence.verdicts import Verdict
from tests.unit.test_rollout_sidecar import ADULTS, ALL, guarded_world
from tests.unit.world import REF, World, guarded, healthy_world, manifest

CUSTOMIZATION: Final = (
    Path(__file__).parents[2]
    / "gitops/argocd/resource_customizations/crossfade.dev/ModelDeployment"
)
TESTDATA: Final = CUSTOMIZATION / "testdata"

KEPT_METADATA: Final = ("name", "namespace", "generation", "annotations")
"""What stays of an object's metadata; the rest says only in which order the world wrote."""


def rollout(**changes: Any) -> dict[str, Any]:
    """Return the rollout part of a spec with changes."""
    return {"rollout": {**manifest()["spec"]["rollout"], **changes}}


STEP_WITH_PERSON: Final = rollout(steps=[{"weightPercent": 10, "minSeconds": 10, "pause": {}}])
SHORT_DEADLINE: Final = rollout(deadlineSeconds=60)


async def started(**spec: Any) -> World:
    """Return a world in which version 2.0.0 was just applied beside 1.0.0."""
    world = await healthy_world()
    world.apply(manifest("2.0.0", **spec))
    return world


async def reached(phase: str, verdict: Verdict | None = None, **spec: Any) -> World:
    """Return a world that is in a phase of the rollout of 2.0.0."""
    world = await started(**spec)
    if verdict is not None:
        world.analyst.verdicts["2.0.0"] = verdict
    await world.run_until(lambda: world.phase == phase)
    return world


async def without_status() -> World:
    """No operator has seen it."""
    world = World()
    world.apply(manifest())
    return world


async def unseen() -> World:
    """The spec has changed, and the operator has not seen it."""
    return await started()


async def initializing() -> World:
    """The first version's pods are not ready."""
    world = World()
    world.cluster.unready = {"1.0.0"}
    world.apply(manifest())
    await world.run(30)
    return world


async def healthy() -> World:
    """The only version serves."""
    return await healthy_world()


async def healthy_paused() -> World:
    """The next rollout will be held."""
    return await healthy_world(**rollout(paused=True))


async def gateway_refuses() -> World:
    """A new version is asked for while the gateway does not accept the route."""
    world = await healthy_world()
    world.cluster.gateway_accepts = False
    assert world.route is not None
    world.cluster.apply(copy.deepcopy(world.route))
    world.apply(manifest("2.0.0"))
    await world.run(30)
    return world


async def preparing() -> World:
    """The canary's pods are not ready."""
    world = await healthy_world()
    world.cluster.unready = {"2.0.0"}
    world.apply(manifest("2.0.0"))
    await world.run(30)
    return world


async def preparing_paused() -> World:
    """The canary is ready and gets no weight, since the spec says so."""
    world = await started(**rollout(paused=True))
    await world.run(30)
    return world


async def preparing_narrowed() -> World:
    """The canary refuses inputs that stable accepts; nothing is held."""
    world = await guarded_world("1.0.0", inputs=ALL)
    world.cluster.unready = {"2.0.0"}
    world.apply(guarded("2.0.0", inputs=ADULTS))
    await world.run(30)
    return world


async def progressing() -> World:
    """Not enough requests yet."""
    world = await reached("Progressing", Verdict.NOT_ENOUGH_DATA)
    await world.run(30)
    return world


async def progressing_blind() -> World:
    """Prometheus went away in the middle."""
    world = await started()
    await world.run_until(lambda: world.weight == 10)
    world.analyst.unavailable = True
    await world.run(30)
    return world


async def progressing_late() -> World:
    """The deadline is over, and the weight holds."""
    world = await reached("Progressing", Verdict.NOT_ENOUGH_DATA, **SHORT_DEADLINE)
    await world.run(90)
    return world


async def progressing_late_overruled() -> World:
    """The deadline is over, a person passed the step, the pods for the next one are missing."""
    world = await reached("Progressing", Verdict.NOT_ENOUGH_DATA, replicas=4, **SHORT_DEADLINE)
    world.cluster.ready_at_most = 1
    await world.run(90)
    world.order("promote")
    await world.run(5)
    return world


async def paused_for_person() -> World:
    """A step waits for a person."""
    world = await reached("Paused", **STEP_WITH_PERSON)
    await world.run(30)
    return world


async def paused_for_time() -> World:
    """A step waits for a time."""
    steps = [{"weightPercent": 10, "minSeconds": 10, "pause": {"seconds": 1800}}]
    world = await reached("Paused", **rollout(steps=steps))
    await world.run(30)
    return world


async def paused_by_spec() -> World:
    """The spec holds the weight in the middle."""
    world = await reached("Progressing", Verdict.NOT_ENOUGH_DATA)
    world.apply(manifest("2.0.0", **rollout(paused=True)))
    await world.run(30)
    return world


async def promoting() -> World:
    """The canary is getting everything."""
    return await reached("Promoting")


async def probation() -> World:
    """The new version serves; the old one is kept ready."""
    world = await reached("Probation")
    await world.run(30)
    return world


async def probation_superseded() -> World:
    """A third version waits until the first one receives nothing."""
    world = await reached("Probation")
    world.analyst.still_arriving = True
    world.apply(manifest("3.0.0"))
    await world.run(10)
    return world


async def probation_harm() -> World:
    """The new version does harm, and the old one is not ready to take over."""
    world = await reached("Probation")
    world.cluster.unready = {"1.0.0"}
    world.cluster.revive("1.0.0")
    world.analyst.verdicts["2.0.0"] = Verdict.HARM
    await world.run(15)
    return world


async def rolling_back() -> World:
    """Harm was seen; the version is drained."""
    return await reached("RollingBack", Verdict.HARM)


async def rolling_back_cancelled() -> World:
    """The stable version is asked for again; nothing was wrong."""
    world = await reached("Progressing", Verdict.NOT_ENOUGH_DATA)
    world.apply(manifest("1.0.0"))
    await world.run_until(lambda: world.phase == "RollingBack")
    return world


async def rolling_back_superseded() -> World:
    """The same version is asked for with another image; nothing was wrong with this one."""
    world = await reached("Progressing", Verdict.NOT_ENOUGH_DATA)
    pod = {"containers": [{"name": "model", "image": "fraud:2.0.0-mended"}]}
    world.apply(manifest("2.0.0", template={"spec": pod}))
    await world.run_until(lambda: world.phase == "RollingBack")
    return world


async def rolled_back() -> World:
    """A version did harm, and Git still asks for it."""
    world = await reached("RolledBack", Verdict.HARM)
    await world.settle()
    return world


async def rolled_back_by_person() -> World:
    """A person took the version back."""
    world = await reached("Progressing", Verdict.NOT_ENOUGH_DATA)
    world.order("abort")
    await world.run_until(lambda: world.phase == "RolledBack")
    await world.settle()
    return world


async def rolled_back_not_ready() -> World:
    """A version's pods were not ready in time."""
    world = await preparing()
    await world.run_until(lambda: world.phase == "RolledBack")
    await world.settle()
    return world


async def rolled_back_left() -> World:
    """Git asks for another version after a rejected one, while the gateway refuses the route."""
    world = await rolled_back()
    world.cluster.gateway_accepts = False
    assert world.route is not None
    world.cluster.apply(copy.deepcopy(world.route))
    world.apply(manifest("3.0.0"))
    await world.run(30)
    return world


async def two_versions() -> World:
    """Return a world in which a second version serves, and the first is remembered."""
    world = await reached("Probation")
    await world.run_until(lambda: world.phase == "Healthy")
    await world.settle()
    return world


async def undoing() -> World:
    """A person ordered undo; the version before is rolled out, and Git asks for the present one."""
    world = await two_versions()
    world.analyst.verdicts["1.0.0"] = Verdict.NOT_ENOUGH_DATA
    world.order("undo")
    await world.run_until(lambda: world.phase == "Progressing")
    await world.run(30)
    return world


async def probation_undone() -> World:
    """The version before is stable again, and Git asks for the one after it."""
    world = await two_versions()
    world.order("undo")
    await world.run_until(lambda: world.phase == "Probation")
    await world.settle()
    return world


async def rolled_back_undone() -> World:
    """The version before serves again, and Git still asks for the one that was undone."""
    world = await probation_undone()
    await world.run_until(lambda: world.phase == "RolledBack")
    await world.settle()
    return world


async def stable_not_ready() -> World:
    """The only version lost its pods."""
    world = await healthy_world()
    world.cluster.unready = {"1.0.0"}
    world.cluster.revive("1.0.0")
    await world.run(30)
    return world


async def invalid_spec() -> World:
    """The spec cannot be read, in the middle of a rollout."""
    world = await reached("Progressing", Verdict.NOT_ENOUGH_DATA)
    world.apply(manifest("2.0.0", traffic={"gateway": {"parentRefs": "public"}}))
    await world.run(30)
    return world


async def write_failed() -> World:
    """The API server does not take the first version's pods."""

    def refuse(write: Write) -> str | None:
        is_deployment = isinstance(write, Apply) and write.manifest["kind"] == "Deployment"
        return "exceeded quota: pods" if is_deployment else None

    world = World()
    world.cluster.refuse = refuse
    world.apply(manifest())
    await world.run(30)
    return world


Scenario = Callable[[], Awaitable[World]]

SCENARIOS: Final[Mapping[str, Scenario]] = {
    scenario.__name__: scenario
    for scenario in (
        without_status,
        unseen,
        initializing,
        healthy,
        healthy_paused,
        gateway_refuses,
        preparing,
        preparing_paused,
        preparing_narrowed,
        progressing,
        progressing_blind,
        progressing_late,
        progressing_late_overruled,
        paused_for_person,
        paused_for_time,
        paused_by_spec,
        promoting,
        probation,
        probation_superseded,
        probation_harm,
        rolling_back,
        rolling_back_cancelled,
        rolling_back_superseded,
        rolled_back,
        rolled_back_by_person,
        rolled_back_not_ready,
        rolled_back_left,
        undoing,
        probation_undone,
        rolled_back_undone,
        stable_not_ready,
        invalid_spec,
        write_failed,
    )
}


def ordered(command: str) -> Callable[[Manifest], None]:
    """Return what a command does to a ModelDeployment."""

    def change(body: Manifest) -> None:
        body["metadata"].setdefault("annotations", {})["crossfade.dev/command"] = command

    return change


def held(*, paused: bool) -> Callable[[Manifest], None]:
    """Return what pausing, or going on, does to a ModelDeployment."""

    def change(body: Manifest) -> None:
        body["spec"]["rollout"]["paused"] = paused

    return change


ACTED: Final[Mapping[str, tuple[str, Scenario, Callable[[Manifest], None]]]] = {
    "promoted": ("promote", paused_for_person, ordered("promote")),
    "promoted_full": ("promote-full", progressing, ordered("promoteFull")),
    "aborted": ("abort", probation, ordered("abort")),
    "retried": ("retry", rolled_back, ordered("retry")),
    "undone": ("undo", probation, ordered("undo")),
    "paused": ("pause", paused_for_person, held(paused=True)),
    "resumed": ("resume", paused_by_spec, held(paused=False)),
}
"""What actions are to make of some of them: the action, on what, and what changes."""


def live(world: World) -> Manifest:
    """Return the ModelDeployment of a world without what only the world's order of writes made."""
    body = copy.deepcopy(world.cluster.objects[REF])
    body["metadata"] = {k: v for k, v in body["metadata"].items() if k in KEPT_METADATA}
    return body


def as_text(body: Manifest, comment: str) -> str:
    """Write an object as the test data have it."""
    text = yaml.safe_dump(body, sort_keys=True, width=100, allow_unicode=True)
    return f"# {comment}\n{text}"


async def texts() -> dict[Path, str]:
    """Return what the files should be."""
    written = {
        TESTDATA / f"{name}.yaml": as_text(live(await scenario()), str(scenario.__doc__))
        for name, scenario in SCENARIOS.items()
    }
    for name, (action, scenario, change) in ACTED.items():
        body = live(await scenario())
        change(body)
        file = CUSTOMIZATION / "actions" / "testdata" / f"{name}.yaml"
        written[file] = as_text(body, f"{scenario.__name__}.yaml after the action {action}.")
    return written


def main() -> None:
    """Write the files."""
    for file, text in asyncio.run(texts()).items():
        file.write_text(text)


if __name__ == "__main__":
    main()
