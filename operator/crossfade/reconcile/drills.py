"""What the sidecars of a version say of it before it has traffic, asked beside the loop.

As looks are (``looks.py``): a pod that does not answer must not keep anything else from happening.
Every question ends: where there is no answer, the answer is that there is none.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from crossfade.core.observation import Drill, DrillResult
from crossfade.errors import SidecarError
from crossfade.kube.sidecars import Sidecars
from crossfade.logs import about
from crossfade.names import NamespacedName
from crossfade.reconcile.looks import Wake
from crossfade.sidecar.config import Golden

ASK_AGAIN: Final = timedelta(seconds=3)
"""How soon sidecars are asked again that said nothing good."""

BELIEVED: Final = timedelta(seconds=30)
"""How long what they said is true."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Asked:
    """Which sidecars are asked, and what."""

    key: NamespacedName
    revision: str
    pods: tuple[tuple[str, str], ...]
    """Name and address of each; at least one."""
    port: int
    targets: tuple[str, ...]
    """Of the version's fallback; empty: it has none, so no drill is asked for."""
    seconds: float
    """How long a drill may take: all targets' time-outs together."""
    golden: Golden | None
    """Stable's golden request, to be held against the version's contract; None: not to be."""


@dataclass(slots=True)
class _Drills:
    """What is known of one ModelDeployment."""

    asked: Asked
    task: asyncio.Task[None]
    answered_at: datetime | None = None
    drill: Drill | None = None


class Drills:
    """Asks sidecars in the background and keeps what they said last."""

    def __init__(self, sidecars: Sidecars, wake: Wake, clock: Callable[[], datetime]) -> None:
        self._sidecars = sidecars
        self._wake = wake
        self._clock = clock
        self._drills: dict[NamespacedName, _Drills] = {}

    def known(self, asked: Asked) -> Drill | None:
        """Return what they said last, None for nothing; ask them where that is due."""
        now = self._clock()
        drills = self._drills.get(asked.key)
        if drills is None or drills.asked != asked:
            self.forget(asked.key)
            self._drills[asked.key] = _Drills(asked, self._ask(asked))
            return None
        if drills.answered_at is None:
            return None
        age = now - drills.answered_at
        if drills.task.done() and age >= (BELIEVED if _is_good(drills.drill) else ASK_AGAIN):
            drills.task = self._ask(asked)
        return drills.drill if age < BELIEVED else None

    def forget(self, key: NamespacedName) -> None:
        """Drop what is known of a ModelDeployment that is gone, or asks nothing any more."""
        drills = self._drills.pop(key, None)
        if drills is not None:
            drills.task.cancel()

    def _ask(self, asked: Asked) -> asyncio.Task[None]:
        return asyncio.create_task(self._question(asked))

    async def _question(self, asked: Asked) -> None:
        try:
            drill = await self._answer(asked)
        except Exception:  # noqa: BLE001 - a question that never ends would hold for ever
            _log.exception("sidecars could not be asked", extra=about(asked.key))
            drill = _unknown(asked, "the sidecars could not be asked; the operator's log says why")
        drills = self._drills.get(asked.key)
        if drills is not None and drills.asked == asked:
            drills.drill, drills.answered_at = drill, self._clock()
            self._wake(asked.key, urgent=False)

    async def _answer(self, asked: Asked) -> Drill:
        refused = await self._refused(asked)
        if not asked.targets:
            return Drill(refused=refused)
        try:
            pods = await asyncio.gather(*(self._drill(asked, pod) for pod in asked.pods))
        except SidecarError as e:
            return _unknown(asked, str(e), refused)
        results = (
            _worst(target, [pod[i] for pod in pods if i < len(pod)])
            for i, target in enumerate(asked.targets)
        )
        return Drill(tuple(results), refused=refused)

    async def _drill(self, asked: Asked, pod: tuple[str, str]) -> tuple[DrillResult, ...]:
        name, address = pod
        try:
            return await self._sidecars.drill(address, asked.port, asked.seconds)
        except SidecarError as e:
            raise SidecarError(
                f"the sidecar of pod {name} gives no answer ({e}); if a NetworkPolicy protects "
                f"these pods, let the operator's namespace reach their port {asked.port}"
            ) from e

    async def _refused(self, asked: Asked) -> tuple[str, ...] | None:
        """Hold stable's golden request against the contract, which all pods have alike."""
        if asked.golden is None:
            return None
        _, address = asked.pods[0]
        try:
            found = await self._sidecars.check(address, asked.port, asked.golden)
        except SidecarError as e:
            words = about(asked.key, error=e)
            _log.warning("stable's golden request was not checked", extra=words)
            return None
        return tuple(f"stable's golden request: {words}" for words in found)


def _is_good(drill: Drill | None) -> bool:
    return drill is not None and not drill.problem and not drill.failed


def _worst(target: str, results: Sequence[DrillResult]) -> DrillResult:
    """Return the first that is bad; targets have places, since two may be a "service"."""
    bad = (result for result in results if not result.ok or result.target != target)
    worst = next(bad, None)
    if worst is None and results:
        return results[0]
    said = worst.message if worst is not None and worst.target == target else "was not tried"
    return DrillResult(target, ok=False, message=said)


def _unknown(asked: Asked, problem: str, refused: tuple[str, ...] | None = None) -> Drill:
    if not asked.targets:
        return Drill(refused=refused)
    words = "is not known to answer"
    results = tuple(DrillResult(target, ok=False, message=words) for target in asked.targets)
    return Drill(results, problem, refused)
