"""Which of the named namespaces can be watched: those in which the Role is there.

A namespace that is gone took its Role with it. That must not keep the operator from the others, and
when the Role is there again, the operator starts anew: kopf gives up a watch that was forbidden.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol, Self

from crossfade.errors import ClusterError
from crossfade.kube.resources import MODEL_DEPLOYMENT, ResourceKind

_log = logging.getLogger(__name__)

PAUSE_SECONDS: Final = 60.0
"""Between two questions whether a namespace can be watched now."""


class Rights(Protocol):
    """What is asked of the API server."""

    async def may_list(self, kind: ResourceKind, namespace: str) -> bool:
        """Tell whether there is a right to list a kind in a namespace."""
        ...


@dataclass(frozen=True, slots=True)
class Scope:
    """The named namespaces as they were at the start; none are named where all are watched."""

    rights: Rights
    open: tuple[str, ...]
    closed: tuple[str, ...]

    @classmethod
    async def of(cls, rights: Rights, namespaces: Sequence[str]) -> Self:
        """Ask for each namespace.

        Raises:
            ClusterError: no answer.
        """
        may = {it: await rights.may_list(MODEL_DEPLOYMENT, it) for it in namespaces}
        closed = tuple(it for it in namespaces if not may[it])
        if closed:
            _log.warning("no right to watch %s; looking again", cls.names(closed))
        return cls(rights, tuple(it for it in namespaces if may[it]), closed)

    @staticmethod
    def names(namespaces: Sequence[str]) -> str:
        """Return the names for a message."""
        return f"{', '.join(namespaces)}: is the namespace there, and its Role?"

    async def restart_when_wider(
        self, stop: asyncio.Event, pause_seconds: float = PAUSE_SECONDS
    ) -> None:
        """Set ``stop`` once a namespace can be watched that could not at the start."""
        while self.closed:
            await asyncio.sleep(pause_seconds)
            try:
                opened = [it for it in self.closed if await self._may(it)]
            except ClusterError as e:
                _log.warning("rights: %s", e)
                continue
            if opened:
                _log.info("%s can be watched now; starting anew", ", ".join(opened))
                stop.set()
                return

    async def _may(self, namespace: str) -> bool:
        return await self.rights.may_list(MODEL_DEPLOYMENT, namespace)
