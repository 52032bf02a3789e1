"""The composition root: builds the parts, connects them, and runs until told to stop."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime

import kopf
from pydantic import ValidationError

from crossfade import logs
from crossfade.kube.cluster import KubernetesCluster, connect
from crossfade.kube.resources import (
    CHILDREN,
    CONTROLLER_REVISION,
    MODEL_DEPLOYMENT,
    ROUTES,
    ResourceKind,
)
from crossfade.kube.scope import Scope
from crossfade.kube.sidecars import HttpSidecars
from crossfade.kube.store import Store
from crossfade.metrics.prometheus import PrometheusClient
from crossfade.metrics.prometheus_analyst import PrometheusAnalyst
from crossfade.names import MANAGED_SELECTOR, NamespacedName
from crossfade.probes import application_of, served
from crossfade.reconcile.drills import Drills
from crossfade.reconcile.gates import Gates
from crossfade.reconcile.looks import Looks
from crossfade.reconcile.notices import Notices
from crossfade.reconcile.queue import WorkQueue
from crossfade.reconcile.reconciler import Reconciler, work
from crossfade.reconcile.targets import Targets
from crossfade.settings import Settings
from crossfade.telemetry import Telemetry
from crossfade.tracing import Tracer, sent
from crossfade.watches import registry_of, settings_of
from crossfade.webhooks.client import HttpPosts
from crossfade.webhooks.sender import Sender
from crossfade.workload.sidecar import NATIVE_SIDECARS, Injection

_log = logging.getLogger(__name__)


def main() -> None:
    """Run the operator; exit with 2 when the settings are wrong."""
    try:
        settings = Settings()
    except ValidationError as e:
        sys.exit(f"crossfade: wrong settings: {e}")
    logs.set_up(settings.log_level, settings.log_format)
    asyncio.run(run(settings))


def collect_seldom() -> None:
    """Look for garbage in cycles more seldom than by default.

    A look at a thousand rollouts has some 110,000 objects at a time that die by themselves, so a
    round in its midst finds nothing and costs a tenth of the look, and each round over all the
    evidence that stays takes as long as the look (``bench/metrics_load.py``). The price: that
    much garbage in cycles, if there is any, may wait; a look leaves none.
    """
    gc.set_threshold(200_000, 50, 50)


async def run(settings: Settings) -> None:
    """Run until SIGTERM or SIGINT."""
    collect_seldom()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, stop.set)
    tracer = Tracer(on=bool(settings.traces_address))
    telemetry = Telemetry(tracer)
    async with connect(telemetry.api_request) as cluster:
        store = Store()
        if settings.namespaces and not await cluster.serves(MODEL_DEPLOYMENT):
            # Nothing would tell of it later: see settings_of().
            sys.exit("crossfade: the CustomResourceDefinition of ModelDeployments is not installed")
        scope = await Scope.of(cluster, settings.namespaces)
        if settings.namespaces and not scope.open:
            sys.exit(f"crossfade: no right to watch {scope.names(scope.closed)}")
        children = await readable_children(cluster, scope.open)
        await seed(store, cluster, scope.open, children)
        injection = Injection(
            settings.sidecar_image, is_native=await cluster.version() >= NATIVE_SIDECARS
        )
        async with sent(tracer, settings.traces_address, settings.instance):
            await _serve(settings, cluster, store, children, injection, telemetry, scope, stop)


async def readable_children(
    cluster: KubernetesCluster, namespaces: Sequence[str] = ()
) -> tuple[ResourceKind, ...]:
    """Return the kinds of children that are read; the history may lack its right.

    After an upgrade without the new Role everything else must go on, and kopf would not: a watch
    that is forbidden ends it.

    Raises:
        ClusterError: no answer.
    """
    for namespace in namespaces or ("",):
        if not await cluster.may_list(CONTROLLER_REVISION, namespace):
            _log.warning(
                "no right to list ControllerRevisions%s: no history is read, and no undo is "
                "possible, until the operator's Role is that of its version and it starts anew",
                f" in {namespace}" if namespace else "",
            )
            return tuple(kind for kind in CHILDREN if kind is not CONTROLLER_REVISION)
    return CHILDREN


async def seed(
    store: Store,
    cluster: KubernetesCluster,
    namespaces: Sequence[str] = (),
    children: Sequence[ResourceKind] = CHILDREN,
) -> None:
    """List everything but the ModelDeployments once, before anything is decided.

    The watches list them too, but in no order: a ModelDeployment that is seen before its
    Deployments would look as if it had none.
    """
    for namespace in namespaces or (None,):
        for kind in children:
            for manifest in await cluster.list_objects(kind, MANAGED_SELECTOR, namespace=namespace):
                store.put(manifest)
        for kind in ROUTES:
            for manifest in await cluster.list_objects(kind, namespace=namespace):
                store.put(manifest)


async def _serve(
    settings: Settings,
    cluster: KubernetesCluster,
    store: Store,
    children: Sequence[ResourceKind],
    injection: Injection,
    telemetry: Telemetry,
    scope: Scope,
    stop: asyncio.Event,
) -> None:
    queue: WorkQueue[NamespacedName] = WorkQueue()
    telemetry.watch_queue(queue)
    targets = Targets()
    prometheus = PrometheusClient(settings.prometheus_addresses, telemetry.prometheus_query)
    analyst = PrometheusAnalyst(prometheus, cluster, time.monotonic, config_maps=cluster)
    looks = Looks(analyst, queue.add, _now, telemetry.look)
    drills = Drills(HttpSidecars(), queue.add, _now)
    # Each with connections of its own: receivers that hang hold no gate.
    tell, ask = (Sender(HttpPosts(settings.webhook_addresses), cluster, _now) for _ in range(2))
    notices = Notices(tell, queue.add, _now, telemetry.notification)
    gates = Gates(ask, queue.add, _now, telemetry.gate_answer)
    reconciler = Reconciler(
        cluster,
        store,
        looks,
        drills,
        targets,
        notices=notices,
        gates=gates,
        clock=_now,
        instance=settings.instance,
        injection=injection,
        telemetry=telemetry,
    )
    probes = application_of(queue, telemetry)
    async with served(probes, settings.health_port), asyncio.TaskGroup() as tasks:
        workers = [
            tasks.create_task(work(queue, reconciler, _now)) for _ in range(settings.workers)
        ]
        workers.append(tasks.create_task(scope.restart_when_wider(stop)))
        await kopf.operator(
            registry=registry_of(store, queue, targets, children),
            settings=settings_of(clusterwide=not settings.namespaces),
            # kopf would ask the password database, which does not know an image's numeric user.
            identity=settings.instance,  # type: ignore[arg-type]  # a NewType, not exported
            clusterwide=not settings.namespaces,
            namespaces=scope.open,
            stop_flag=stop,
        )
        for worker in workers:
            worker.cancel()
    prometheus.close()


def _now() -> datetime:
    return datetime.now(UTC)
