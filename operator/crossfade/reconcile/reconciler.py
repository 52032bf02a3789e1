"""Observe, decide, act, and at most one status write: for one ModelDeployment at a time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final

from crossfade.api.parse import dump_status, parse_status
from crossfade.api.v1alpha1 import ModelDeploymentStatus
from crossfade.core.actions import Announcement, Apply, AskGates, Manifest, Write
from crossfade.core.conditions import with_failure, write_due_in
from crossfade.core.decide import decide
from crossfade.core.phases import SETTLED
from crossfade.core.turn import Decision
from crossfade.core.webhook_gates import gates_before
from crossfade.errors import ClusterError, ConflictError, CrossfadeError
from crossfade.kube.cluster import Cluster
from crossfade.kube.events import event_of
from crossfade.kube.resources import model_deployment_ref, ref_of
from crossfade.kube.store import Store
from crossfade.logs import about
from crossfade.names import NamespacedName
from crossfade.reconcile.act import writes_of
from crossfade.reconcile.drills import Drills
from crossfade.reconcile.gates import Gates, question_of
from crossfade.reconcile.looks import Looks
from crossfade.reconcile.notices import Notices
from crossfade.reconcile.observe import Memory, View, observe
from crossfade.reconcile.queue import WorkQueue
from crossfade.reconcile.records import Records
from crossfade.reconcile.settling import Settling
from crossfade.reconcile.targets import Targets
from crossfade.telemetry import Telemetry
from crossfade.workload.sidecar import NO_INJECTION, Injection

CONFLICT_RETRY_SECONDS: Final = 0.05
"""By then the watch has brought what was written meanwhile."""

_log = logging.getLogger(__name__)


class Reconciler:
    """Brings ModelDeployments, one at a time, from what is seen to what is wanted."""

    def __init__(
        self,
        cluster: Cluster,
        store: Store,
        looks: Looks,
        drills: Drills,
        targets: Targets,
        *,
        notices: Notices,
        gates: Gates,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        instance: str = "crossfade",
        injection: Injection = NO_INJECTION,
        telemetry: Telemetry | None = None,
    ) -> None:
        self.telemetry = telemetry or Telemetry()
        self._cluster = cluster
        self._store = store
        self._looks = looks
        self._memory = Memory(looks, drills, notices, gates, Settling())
        self._records = Records(self._write, clock)
        self._targets = targets
        self._clock = clock
        self._instance = instance
        self._injection = injection
        self._written_at: dict[NamespacedName, datetime] = {}
        self._posting: set[asyncio.Task[None]] = set()

    async def reconcile(self, key: NamespacedName) -> datetime | None:
        """Do what one look asks for; return when to look again, None for "when it changes".

        Raises:
            CrossfadeError: a request failed or the status cannot be read; try again later.
        """
        body = self._store.get(model_deployment_ref(key.namespace, key.name))
        if body is None:
            self._memory.forget(key)
            self._targets.note(key, None)
            self._written_at.pop(key, None)
            self._records.forget(key)
            self.telemetry.gone(key)
            return None
        now = self._clock()
        view = observe(body, self._store, self._memory, now, self._injection)
        if view.router is not None:
            self._targets.note(key, view.router.target)
        decision = decide(view.seen, now)
        await self._carry_out(view, decision)
        due = await self._write_status(key, view, decision, now)
        self.telemetry.seen(key, decision.status, view.seen.known_answers)
        if view.seen.answers is not None:
            self._looks.use(key)
        if decision.status.phase in SETTLED:
            self._looks.forget(key)
            self._memory.gates.forget(key)
        self._announce(view, *decision.announcements)
        later, news = await self._records.keep(key, view, decision)
        if news is not None:
            self._announce(view, news)
        times = [t for t in (decision.look_again_at, due, later) if t is not None]
        return min(times, default=None)

    async def _carry_out(self, view: View, decision: Decision) -> None:
        for action in decision.actions:
            key = NamespacedName(view.owner.namespace, view.owner.name)
            if isinstance(action, AskGates):
                self._ask_gates(view, decision.status, action.weight)
                continue
            _log.info("action", extra=about(key, phase=decision.status.phase, do=action))
            for write in writes_of(action, view, self._store, self._injection):
                await self._write(write)

    def _ask_gates(self, view: View, status: ModelDeploymentStatus, weight: int) -> None:
        if view.seen.spec is not None and status.canary is not None:
            question = question_of(view.owner, view.seen.spec, status, status.canary, weight)
            self._memory.gates.ask(question, gates_before(view.seen.spec, weight))

    async def _write(self, write: Write) -> None:
        """Write, and see the result at once instead of waiting for the watch."""
        if isinstance(write, Apply) and self._store.get(ref_of(write.manifest)) is None:
            write = Apply(write.manifest, force=False)
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
    ) -> datetime | None:
        """Write the status if that is due; return when it will be, None when it is stored."""
        before, after = view.seen.status, decision.status
        written_at = self._written_at.get(key)
        age = now - written_at if written_at is not None else timedelta(days=1)
        due_in = write_due_in(before, after, age)
        if view.seen.deleting or due_in is None:
            return None
        if due_in:
            return now + due_in
        await self._store_status(key, after)
        self._written_at[key] = now
        if before.phase != after.phase:
            self.telemetry.moved(key, before, after, view.seen.revision, now)
            words = about(key, phase=after.phase, was=before.phase, message=after.message)
            _log.info("phase", extra=words)
        return None

    async def _store_status(self, key: NamespacedName, status: ModelDeploymentStatus) -> None:
        ref = model_deployment_ref(key.namespace, key.name)
        stored = await self._cluster.write_status(ref, dump_status(status))
        if stored is not None:
            self._store.put(stored)

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
            await self._store_status(key, after)
            news = Announcement("Warning", "WriteFailed", str(error))
            await self._cluster.post_event(event_of(body, news, now, self._instance))
        except CrossfadeError as e:
            _log.warning("the failure could not be reported", extra=about(key, error=e))

    def _announce(self, view: View, *announcements: Announcement) -> None:
        """Post what happened beside the loop: an Event must not delay what is to be done."""
        events = [
            event_of(view.body, news, self._clock(), self._instance) for news in announcements
        ]
        if events:
            key = NamespacedName(view.owner.namespace, view.owner.name)
            task = asyncio.create_task(self._post(key, events))
            self._posting.add(task)
            task.add_done_callback(self._posting.discard)

    async def _post(self, key: NamespacedName, events: list[Manifest]) -> None:
        for event in events:
            try:
                await self._cluster.post_event(event)
            except ClusterError as e:
                _log.warning("an event was not posted", extra=about(key, error=e))


async def work(
    queue: WorkQueue[NamespacedName], reconciler: Reconciler, clock: Callable[[], datetime]
) -> None:
    """Take keys from the queue for ever; the one place where failures end."""
    while True:
        key = await queue.get()
        try:
            with reconciler.telemetry.turn(key):
                again = await reconciler.reconcile(key)
        except ConflictError as e:
            # Somebody wrote first, often a gateway that reports on a route: look again at once.
            reconciler.telemetry.failed("conflict")
            _log.debug("conflict", extra=about(key, error=e))
            queue.add_in(key, CONFLICT_RETRY_SECONDS)
        except CrossfadeError as e:
            reconciler.telemetry.failed("refused")
            backoff = queue.failed(key)
            _log.warning("failed", extra=about(key, again_in_seconds=round(backoff, 1), error=e))
            await reconciler.report_failure(key, e)
        except Exception:  # noqa: BLE001 - one broken object must not stop the others
            reconciler.telemetry.failed("bug")
            backoff = queue.failed(key)
            _log.exception("bug", extra=about(key, again_in_seconds=round(backoff, 1)))
        else:
            queue.succeeded(key)
            if again is not None:
                queue.add_in(key, (again - clock()).total_seconds())
        finally:
            queue.done(key)
