"""Judges versions by the counters and queries of a Prometheus.

Prometheus is the memory of the evidence: what is kept here is a fold over its samples that a
restarted operator finds again from ``Subject.since``. Rules are in ``evidence``, HTTP is in
``prometheus``; nothing here decides and nothing here speaks HTTP.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Final, TypeVar

import msgspec

from crossfade.access.secrets import SecretReader
from crossfade.api.v1alpha1 import Analysis, Metric
from crossfade.core.observation import UNSEEN, Arrivals
from crossfade.errors import InvalidSpecError, MetricSourceError
from crossfade.evidence.rules import Answer
from crossfade.evidence.verdicts import MetricAnswer, Verdict
from crossfade.metrics.analyst import Arm, Subject
from crossfade.metrics.arrivals import arrivals_of
from crossfade.metrics.batching import Batcher
from crossfade.metrics.counts import CountsFold, limits_of
from crossfade.metrics.distributions import DriftFold
from crossfade.metrics.endpoints import Endpoint, Endpoints
from crossfade.metrics.prometheus import Prom, RefusedError
from crossfade.metrics.queries import QueryFold, fill
from crossfade.metrics.references import ConfigMapReader, NoConfigMaps, Reference, References
from crossfade.metrics.sources import plan_of, requests_plan
from crossfade.names import NamespacedName

T = TypeVar("T")

MAX_MESSAGE: Final = 1000
"""Characters of a message; a status is no place for a proxy's error page."""


_Fold = CountsFold | DriftFold | QueryFold


@dataclass(slots=True)
class _Kept:
    """The folds of one ModelDeployment, and what they are folds of."""

    identity: object
    metrics: dict[str, tuple[object, _Fold]] = field(default_factory=dict)
    """Each with the metric, and the reference, that it is of."""
    before: dict[str, tuple[Metric, Reference]] = field(default_factory=dict)
    """What stable showed before the rollout."""


class PrometheusAnalyst:
    """The analyst of the operator. Looks at different ModelDeployments may run at once."""

    def __init__(
        self,
        prom: Prom,
        secrets: SecretReader,
        clock: Callable[[], float],
        batcher: Batcher | None = None,
        config_maps: ConfigMapReader | None = None,
    ) -> None:
        """Judge by what ``prom`` answers.

        Args:
            prom: the client edge, a :class:`~crossfade.metrics.prometheus.PrometheusClient`.
            secrets: reads credentials.
            clock: monotonic seconds, for the age of credentials; ``time.monotonic``.
            batcher: gets raw samples; by default one that asks ``prom``.
            config_maps: reads references; by default there are none.
        """
        self._prom = prom
        self._batcher = batcher if batcher is not None else Batcher(prom)
        self._endpoints = Endpoints(secrets, clock)
        self._references = References(prom, config_maps or NoConfigMaps(), clock)
        self._kept: dict[NamespacedName, _Kept] = {}

    async def look(self, subject: Subject, now: datetime) -> tuple[MetricAnswer, ...]:
        """See :class:`~crossfade.metrics.analyst.Analyst`."""
        kept = self._keep(subject)
        metrics = subject.analysis.metrics
        try:
            needed = log_needed(subject.analysis)
        except InvalidSpecError:
            needed = math.inf  # the metric that is wrong says so itself
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(self._answer(kept, subject, m, now, needed)) for m in metrics
            ]
        return tuple(task.result() for task in tasks)

    async def arrivals(
        self, key: NamespacedName, analysis: Analysis, arm: Arm, since: datetime, now: datetime
    ) -> Arrivals:
        """See :class:`~crossfade.metrics.analyst.Analyst`; unseen also when Prometheus fails.

        ``newest_sample_at`` is the oldest of the newest samples of the pods that are still
        scraped: up to then it is known of every pod what it received.
        """

        async def ask(endpoint: Endpoint) -> Arrivals:
            plan = requests_plan(analysis)
            if plan is None:
                return UNSEEN
            return await arrivals_of(self._batcher, endpoint, plan, key, arm, since, now)

        try:
            return await self._with_endpoint(key.namespace, analysis, ask)
        except (MetricSourceError, InvalidSpecError):
            return UNSEEN

    def forget(self, key: NamespacedName) -> None:
        """See :class:`~crossfade.metrics.analyst.Analyst`."""
        self._kept.pop(key, None)

    def _keep(self, subject: Subject) -> _Kept:
        """Return the folds that go on; new ones when anything that they are of has changed."""
        analysis = subject.analysis
        identity = (
            subject.since,
            subject.canary,
            subject.stable,
            subject.model,
            analysis.prometheus.address,
            analysis.source,
            analysis.interval_seconds,
        )
        kept = self._kept.get(subject.key)
        if kept is None or kept.identity != identity:
            kept = self._kept[subject.key] = _Kept(identity)
        return kept

    async def _answer(
        self, kept: _Kept, subject: Subject, metric: Metric, now: datetime, needed: float
    ) -> MetricAnswer:
        try:
            answer = await self._judge(kept, subject, metric, now, needed)
        except (MetricSourceError, InvalidSpecError) as e:
            answer = MetricAnswer(metric.name, Verdict.UNAVAILABLE, str(e))
        if len(answer.message) > MAX_MESSAGE:
            return msgspec.structs.replace(answer, message=answer.message[:MAX_MESSAGE])
        return answer

    async def _judge(
        self, kept: _Kept, subject: Subject, metric: Metric, now: datetime, needed: float
    ) -> MetricAnswer:
        of = (metric, await self._reference(kept, subject, metric))
        known, fold = kept.metrics.get(metric.name, (None, None))
        if fold is None or known != of:
            fold = _fold_of(subject, *of)
            kept.metrics[metric.name] = (of, fold)
        namespace, analysis = subject.key.namespace, subject.analysis
        if isinstance(fold, QueryFold):
            verdict, message = await self._judge_query(fold, subject, metric, now)
            return MetricAnswer(metric.name, verdict, message)
        read_on = partial(fold.catch_up, self._batcher, now=now, in_force_at=subject.in_force_at)
        await self._with_endpoint(namespace, analysis, read_on)
        return fold.judge(subject, now, needed)

    async def _reference(self, kept: _Kept, subject: Subject, metric: Metric) -> Reference | None:
        """Return what a drift is compared with, beside stable; None: nothing."""
        drift = metric.drift
        if drift is None or drift.reference is None:
            return None
        if drift.reference.stable_before_seconds is None:
            return await self._references.written(subject.key.namespace, drift)
        if subject.stable is None:
            return None
        known, reference = kept.before.get(metric.name, (None, None))
        if reference is None or known != metric:

            async def ask(endpoint: Endpoint) -> Reference:
                return await self._references.before(endpoint, subject, metric)

            reference = await self._with_endpoint(subject.key.namespace, subject.analysis, ask)
            kept.before[metric.name] = (metric, reference)
        return reference

    async def _judge_query(
        self, fold: QueryFold, subject: Subject, metric: Metric, now: datetime
    ) -> Answer:
        if metric.query is None:
            raise InvalidSpecError("a metric is one of errorRate, latency and query")
        promql = fill(metric.query.promql, subject)
        step = subject.analysis.interval_seconds
        while due := fold.due(now.timestamp()):
            first, last = due

            async def ask(endpoint: Endpoint, first: int = first, last: int = last) -> None:
                fold.add(last, await self._prom.steps(endpoint, promql, first, last, step))

            await self._with_endpoint(subject.key.namespace, subject.analysis, ask)
        in_force_at = subject.in_force_at
        return fold.judge(in_force_at.timestamp() if in_force_at else None)

    async def _with_endpoint(
        self,
        namespace: str,
        analysis: Analysis,
        ask: Callable[[Endpoint], Coroutine[None, None, T]],
    ) -> T:
        """Ask; when the credentials are refused, once more with what the Secrets say now."""
        spec = analysis.prometheus
        endpoint = await self._endpoints.resolve(namespace, spec)
        try:
            return await ask(endpoint)
        except RefusedError:
            self._endpoints.doubt(namespace, spec)
            again = await self._endpoints.resolve(namespace, spec)
            if again == endpoint:
                raise
            return await ask(again)


def log_needed(analysis: Analysis) -> float:
    """Return the threshold of every test, as a logarithm: the false rollback rate is split evenly.

    So the probability that any of them ever reaches its threshold on a healthy version is at most
    that rate, however the metrics depend on each other (Bonferroni).
    """
    tests = sum(_tests_of(metric) for metric in analysis.metrics)
    return math.log(max(tests, 1) / analysis.false_rollback_rate)


def _tests_of(metric: Metric) -> int:
    if metric.query is not None:
        return 0
    return 1 if metric.drift is not None else limits_of(metric).tests


def _fold_of(subject: Subject, metric: Metric, reference: Reference | None) -> _Fold:
    if metric.query is not None:
        since = subject.since.timestamp()
        return QueryFold(metric.query, subject.analysis.interval_seconds, since)
    if metric.drift is not None:
        return DriftFold(metric, subject, reference)
    return CountsFold(plan_of(subject.analysis, metric), metric, subject)
