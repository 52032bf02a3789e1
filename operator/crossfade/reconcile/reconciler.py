"""Observe, decide, act, and at most one status write: for one ModelDeployment at a time."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final

from crossfade.api.parse import dump_status, parse_status
from crossfade.core.actions import Announcement, Apply, Write
from crossfade.core.conditions import is_worth_writing, with_failure
from crossfade.core.decide import decide
from crossfade.core.phases import SETTLED
from crossfade.core.turn import Decision
from crossfade.errors import ClusterError, ConflictError, CrossfadeError
from crossfade.kube.cluster import Cluster
from crossfade.kube.events import event_of
from crossfade.kube.resources import model_deployment_ref, ref_of
from crossfade.kube.store import Store
from crossfade.names import NamespacedName
from crossfade.reconcile.act import writes_of
from crossfade.reconcile.looks import Looks
from crossfade.reconcile.observe import View, observe
from crossfade.reconcile.queue import WorkQueue
from crossfade.reconcile.settling import Settling
from crossfade.reconcile.targets import Targets

NUMBERS_REFRESH: Final = timedelta(seconds=30)
"""How old the numbers in a status may get while nothing but numbers changes."""

_log = logging.getLogger(__name__)


class Reconciler:
    """Brings ModelDeployments, one at a time, from what is seen to what is wanted."""

    def __init__(
        self,
        cluster: Cluster,
        store: Store,
        looks: Looks,
        targets: Targets,
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        instance: str = "crossfade",
    ) -> None:
        self._cluster = cluster
        self._store = store
        self._looks = looks
        self._targets = targets
        self._settling = Settling()
        self._clock = clock
        self._instance = instance
        self._written_at: dict[NamespacedName, datetime] = {}

    async def reconcile(self, key: NamespacedName) -> datetime | None:
        """Do what one look asks for; return when to look again, None for "when it changes".

        Raises:
            CrossfadeError: a request failed or the status cannot be read; try again later.
        """
        body = self._store.get(model_deployment_ref(key.namespace, key.name))
        if body is None:
            self._looks.forget(key)
            self._targets.note(key, None)
            self._settling.forget(key)
            self._written_at.pop(key, None)
            return None
        now = self._clock()
        view = observe(body, self._store, self._looks, self._settling, now)
        if view.router is not None:
            self._targets.note(key, view.router.target)
        decision = decide(view.seen, now)
        await self._carry_out(view, decision)
        await self._write_status(key, view, decision, now)
        if view.seen.answers is not None:
            self._looks.use(key)
        if decision.status.phase in SETTLED:
            self._looks.forget(key)
        await self._announce(view, decision)
        return decision.look_again_at

    async def _carry_out(self, view: View, decision: Decision) -> None:
        for action in decision.actions:
            _log.info(
                "action namespace=%s name=%s phase=%s do=%s",
                view.owner.namespace,
                view.owner.name,
                decision.status.phase,
                action,
            )
            for write in writes_of(action, view, self._store):
                await self._write(write)

    async def _write(self, write: Write) -> None:
        """Write, and see the result at once instead of waiting for the watch."""
        after = await self._cluster.write(write)
        if after is not None:
            self._store.put(after)
        elif not isinstance(write, Apply):
            ref = getattr(write, "ref", None) or ref_of(write.manifest)  # type: ignore[union-attr]
            gone = self._store.get(ref)
            if gone is not None:
                self._store.drop(gone)

    async def _write_status(
        self, key: NamespacedName, view: View, decision: Decision, now: datetime
    ) -> None:
        before, after = view.seen.status, decision.status
        if before == after or view.seen.deleting:
            return
        aged = now - self._written_at.get(key, now - NUMBERS_REFRESH) >= NUMBERS_REFRESH
        if not is_worth_writing(before, after) and not aged:
            return
        ref = model_deployment_ref(key.namespace, key.name)
        stored = await self._cluster.write_status(ref, dump_status(after))
        if stored is not None:
            self._store.put(stored)
        self._written_at[key] = now
        if before.phase != after.phase:
            _log.info(
                "phase namespace=%s name=%s from=%s to=%s message=%r",
                key.namespace,
                key.name,
                before.phase,
                after.phase,
                after.message,
            )

    async def report_failure(self, key: NamespacedName, error: CrossfadeError) -> None:
        """Tell people that a request was refused: once, until something else is refused.

        A pod template that the API server does not take is found out only here.
        """
        body = self._store.get(model_deployment_ref(key.namespace, key.name))
        if body is None or isinstance(error, ConflictError):
            return
        now = self._clock()
        try:
            before = parse_status(body)
            after = with_failure(before, str(error), body["metadata"].get("generation", 0), now)
            if before.conditions == after.conditions:
                return
            ref = model_deployment_ref(key.namespace, key.name)
            stored = await self._cluster.write_status(ref, dump_status(after))
            if stored is not None:
                self._store.put(stored)
            news = Announcement("Warning", "WriteFailed", str(error))
            await self._cluster.post_event(event_of(body, news, now, self._instance))
        except CrossfadeError as e:
            _log.warning("the failure could not be reported: %s", e)

    async def _announce(self, view: View, decision: Decision) -> None:
        for news in decision.announcements:
            try:
                event = event_of(view.body, news, self._clock(), self._instance)
                await self._cluster.post_event(event)
            except ClusterError as e:
                _log.warning("an event was not posted: %s", e)


async def work(
    queue: WorkQueue[NamespacedName], reconciler: Reconciler, clock: Callable[[], datetime]
) -> None:
    """Take keys from the queue for ever; the one place where failures end."""
    while True:
        key = await queue.get()
        try:
            again = await reconciler.reconcile(key)
        except CrossfadeError as e:
            backoff = queue.failed(key)
            _log.warning(
                "failed namespace=%s name=%s again_in=%.1fs error=%s",
                key.namespace,
                key.name,
                backoff,
                e,
            )
            await reconciler.report_failure(key, e)
        except Exception:  # noqa: BLE001 - one broken object must not stop the others
            backoff = queue.failed(key)
            _log.exception("bug namespace=%s name=%s again_in=%.1fs", *_pair(key), backoff)
        else:
            queue.succeeded(key)
            if again is not None:
                queue.add_in(key, (again - clock()).total_seconds())
        finally:
            queue.done(key)


def _pair(key: NamespacedName) -> tuple[str, str]:
    return key.namespace, key.name
