"""What the operator tells Prometheus about itself; ``docs/metrics.md`` has each metric's meaning.

What is about one ModelDeployment is kept as it was at its last turn and written when somebody asks,
so that a ModelDeployment that is gone leaves nothing behind. Label values are names of objects that
exist, names of their metrics, or words of a short list. All of it belongs to the event loop's
thread.
"""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Protocol, get_args

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector
from typing_extensions import override

from crossfade.api.v1alpha1 import ModelDeploymentStatus, Phase
from crossfade.api.webhooks import GateAnswer
from crossfade.evidence.verdicts import Evidence, MetricAnswer
from crossfade.names import NamespacedName
from crossfade.tracing import Tracer

Family = CounterMetricFamily | GaugeMetricFamily

OF_ONE: Final = ("namespace", "name")
"""The labels of what is about one ModelDeployment."""

OF_METRIC: Final = (*OF_ONE, "metric")

PROMOTED: Final = "promoted"
ROLLED_BACK: Final = "rolledBack"
WITHDRAWN: Final = "withdrawn"
RESULTS: Final = (PROMOTED, ROLLED_BACK, WITHDRAWN)
"""How a rollout ends: probation is over; it was taken back; the spec asked for something else."""

CANCELLED: Final = "Cancelled"
SUPERSEDED: Final = "Superseded"
REASONS: Final = (
    "Aborted", CANCELLED, "DeadlineExceeded", "FallbackNotDrilled", "MetricHarm", "NotReady",
    SUPERSEDED, "Undone", "Unstable",
)  # fmt: skip
"""Why the core takes a version back. They are there as 0 from the start: Prometheus does not see a
first increase."""

FAILURES: Final = ("conflict", "refused", "bug")
"""Why a turn fails: somebody wrote first; a request failed or was refused; a mistake of ours."""

TAKEN: Final = "taken"
FAILED: Final = "failed"
GIVEN_UP: Final = "givenUp"
TRIES: Final = (TAKEN, FAILED, GIVEN_UP)
"""How a try to tell a receiver ends: it took the notice; there will be another try; there will be
none."""

TURN_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15, 60)
"""From a turn that writes nothing to one whose requests run into their time-outs of 15 s."""

QUERY_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
"""From one rollout's question to the longest time-out that the API takes; looks take as long."""

ROLLBACK_SECONDS: Final = (
    1, 2.5, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600, 4 * 3600, 24 * 3600,
)  # fmt: skip
"""From the quickest possible, with scrapes and looks each second, to the default deadline."""


class Work(Protocol):
    """What is asked of the queue."""

    def __len__(self) -> int: ...

    def waiting_seconds(self) -> float:
        """Return how long the key that waits longest has been ready."""
        ...

    @property
    def failures(self) -> Mapping[NamespacedName, int]:
        """How often each key failed since its last success; without those that did not."""
        ...


@dataclass(frozen=True, slots=True)
class _Judged:
    """One metric, as of the last look."""

    name: str
    verdict: str
    evidence: Evidence | None
    moved: bool


@dataclass(frozen=True, slots=True)
class _Seen:
    """One ModelDeployment, as of its last turn."""

    phase: Phase
    weight: int
    late: bool
    judged: tuple[_Judged, ...]


class Telemetry:
    """The operator's own metrics."""

    def __init__(self, tracer: Tracer | None = None) -> None:
        self._tracer = tracer or Tracer()
        # They are a second series for each counter, which nobody asks for.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._objects = _Objects()
        self.registry.register(self._objects)
        self._turn_seconds = Histogram(
            "crossfade_reconcile_seconds",
            "Seconds that a turn took, also one that failed.",
            buckets=TURN_SECONDS,
            registry=self.registry,
        )
        self._failures = self._counter(
            "crossfade_reconcile_errors", "Turns that failed, by kind.", "kind"
        )
        self._rollbacks = self._counter(
            "crossfade_rollbacks", "Versions that were taken back, by reason.", "reason"
        )
        self._rollback_seconds = Histogram(
            "crossfade_rollback_seconds",
            "Seconds from a version's first weight, or in probation from its promotion, to the "
            "decision to take it back.",
            ("reason",),
            buckets=ROLLBACK_SECONDS,
            registry=self.registry,
        )
        self._look_seconds = Histogram(
            "crossfade_look_seconds",
            "Seconds from the beginning of a look at a rollout's metrics to its answers.",
            buckets=QUERY_SECONDS,
            registry=self.registry,
        )
        self._requests = self._counter(
            "crossfade_api_requests",
            "Requests to the API server but those of watches, by HTTP status or error.",
            "verb", "resource", "code",
        )  # fmt: skip
        self._queries = self._counter(
            "crossfade_prometheus_queries", "Questions to Prometheus, by result.", "result"
        )
        self._query_seconds = Histogram(
            "crossfade_prometheus_query_seconds",
            "Seconds that a question to Prometheus took, also one that failed.",
            buckets=QUERY_SECONDS,
            registry=self.registry,
        )
        self._notifications = self._counter(
            "crossfade_notifications", "Tries to tell a receiver, by result.", "result"
        )
        self._gate_answers = self._counter(
            "crossfade_gate_answers", "Answers of gates, by what they were.", "answer"
        )
        for kind in FAILURES:
            self._failures.labels(kind)
        for reason in REASONS:
            self._rollbacks.labels(reason)
            self._rollback_seconds.labels(reason)
        for result in ("ok", "error"):
            self._queries.labels(result)
        for result in TRIES:
            self._notifications.labels(result)
        for answer in get_args(GateAnswer):
            self._gate_answers.labels(answer)

    def _counter(self, name: str, words: str, *labels: str) -> Counter:
        return Counter(name, words, labels, registry=self.registry)

    def text(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self.registry)

    # ── what happens ──────────────────────────────────────────────────────────────────────────

    def watch_queue(self, queue: Work) -> None:
        """Tell of this queue."""
        self._objects.queue = queue

    @contextmanager
    def turn(self, key: NamespacedName) -> Iterator[None]:
        """Time and trace a turn."""
        with (
            self._turn_seconds.time(),
            self._tracer.trace("turn", namespace=key.namespace, name=key.name),
        ):
            yield

    @contextmanager
    def look(self, key: NamespacedName) -> Iterator[None]:
        """Time and trace a look."""
        with (
            self._look_seconds.time(),
            self._tracer.trace("look", namespace=key.namespace, name=key.name),
        ):
            yield

    def failed(self, kind: str) -> None:
        """Count a turn that failed; ``kind`` is one of :data:`FAILURES`."""
        self._failures.labels(kind).inc()

    def api_request(self, verb: str, resource: str, code: str, seconds: float) -> None:
        """Count and trace a request to the API server."""
        self._tracer.done(f"{verb} {resource}", seconds, _failure(code), code=code)
        self._requests.labels(verb, resource, code).inc()

    def prometheus_query(self, result: str, seconds: float) -> None:
        """Count and trace a question to Prometheus; ``result`` is ok or error."""
        self._tracer.done("query", seconds, "" if result == "ok" else result)
        self._queries.labels(result).inc()
        self._query_seconds.observe(seconds)

    def notification(self, result: str) -> None:
        """Count a try to tell a receiver; ``result`` is one of :data:`TRIES`."""
        self._notifications.labels(result).inc()

    def gate_answer(self, answer: str) -> None:
        """Count what a gate said; ``answer`` is a :data:`~crossfade.api.webhooks.GateAnswer`."""
        self._gate_answers.labels(answer).inc()

    def seen(
        self,
        key: NamespacedName,
        status: ModelDeploymentStatus,
        answers: Iterable[MetricAnswer] | None,
    ) -> None:
        """Keep what a turn decided, and the newest answers about the version under judgement."""
        self._objects.seen[key] = _Seen(
            phase=status.phase,
            weight=status.weight,
            late=status.rollout is not None and status.rollout.deadline_passed,
            judged=tuple(
                _Judged(a.name, a.verdict.value, a.evidence, bool(a.alert)) for a in answers or ()
            ),
        )

    def gone(self, key: NamespacedName) -> None:
        """Forget a ModelDeployment; with the last of a namespace, the namespace's rollouts."""
        self._objects.forget(key)

    def moved(
        self,
        key: NamespacedName,
        before: ModelDeploymentStatus,
        after: ModelDeploymentStatus,
        revision: str,
        now: datetime,
    ) -> None:
        """Count what a change of the phase means, once it is stored.

        Args:
            key: whose phase changed.
            before: the status before.
            after: the status that was stored.
            revision: what the spec asks for.
            now: when it was decided.
        """
        if before.phase is Phase.PROBATION and after.phase is Phase.HEALTHY:
            self._objects.ended[key.namespace, PROMOTED] += 1
        if after.phase is not Phase.ROLLING_BACK or before.phase is Phase.ROLLING_BACK:
            return
        reason = why_taken_back(after, revision, now)
        result = WITHDRAWN if reason in (CANCELLED, SUPERSEDED) else ROLLED_BACK
        self._objects.ended[key.namespace, result] += 1
        self._rollbacks.labels(reason).inc()
        since = before.rollout.weighted_at if before.rollout is not None else before.promoted_at
        if since is not None:
            self._rollback_seconds.labels(reason).observe((now - since).total_seconds())


def _failure(code: str) -> str:
    """Return the problem of a request; not to be there (404) and to be late (409) are answers."""
    return "" if code.startswith("2") or code in ("404", "409") else code


def why_taken_back(status: ModelDeploymentStatus, revision: str, now: datetime) -> str:
    """Return the reason of a status that has just moved to RollingBack.

    A version that was rejected carries it; any other gave way to what the spec asks for.
    """
    leaving = status.canary.revision if status.canary is not None else ""
    for rejected in status.rejected:
        if rejected.revision == leaving and rejected.at == now:
            return rejected.reason
    stable = status.stable.revision if status.stable is not None else ""
    return CANCELLED if revision == stable else SUPERSEDED


class _Objects(Collector):
    """What is about ModelDeployments and the queue, written when it is asked for."""

    def __init__(self) -> None:
        self.seen: dict[NamespacedName, _Seen] = {}
        self.ended: Tally[tuple[str, str]] = Tally()
        """Rollouts by namespace and result."""
        self.queue: Work | None = None

    def forget(self, key: NamespacedName) -> None:
        self.seen.pop(key, None)
        if all(other.namespace != key.namespace for other in self.seen):
            for result in RESULTS:
                self.ended.pop((key.namespace, result), None)

    @override
    def collect(self) -> Iterator[Family]:
        yield from self._families_of_objects()
        yield from self._families_of_metrics()
        yield self._rollouts()
        if self.queue is not None:
            yield self._failures(self.queue)
            yield _gauge(
                "crossfade_queue_depth", "Keys that wait or are worked on.", len(self.queue)
            )
            yield _gauge(
                "crossfade_queue_age_seconds",
                "Seconds for which the key that waits longest has been waiting for a worker.",
                self.queue.waiting_seconds(),
            )

    def _families_of_objects(self) -> Iterator[Family]:
        phases = GaugeMetricFamily(
            "crossfade_modeldeployment_phase",
            "1 for the phase in which a ModelDeployment is; other phases have no series.",
            labels=(*OF_ONE, "phase"),
        )
        weights = GaugeMetricFamily(
            "crossfade_canary_weight",
            "The canary's share of the traffic in percent, as observed in force.",
            labels=OF_ONE,
        )
        late = GaugeMetricFamily(
            "crossfade_rollout_deadline_exceeded",
            "1 while a rollout is held longer than its deadlineSeconds.",
            labels=OF_ONE,
        )
        for key, seen in self.seen.items():
            labels = (key.namespace, key.name)
            phases.add_metric((*labels, seen.phase.value), 1)
            weights.add_metric(labels, seen.weight)
            late.add_metric(labels, seen.late)
        yield from (phases, weights, late)

    def _failures(self, queue: Work) -> Family:
        """Also of what never had a turn that went well."""
        failures = GaugeMetricFamily(
            "crossfade_reconcile_failures",
            "Turns that failed since the last one that did not.",
            labels=OF_ONE,
        )
        for key in self.seen.keys() | queue.failures.keys():
            failures.add_metric((key.namespace, key.name), queue.failures.get(key, 0))
        return failures

    def _families_of_metrics(self) -> Iterator[Family]:
        verdicts = GaugeMetricFamily(
            "crossfade_metric_verdict",
            "1 for what the last look at a metric said; other verdicts have no series.",
            labels=(*OF_METRIC, "verdict"),
        )
        moved = GaugeMetricFamily(
            "crossfade_inputs_moved",
            "1 while a metric alerts of inputs that moved, of which no version is to blame.",
            labels=OF_METRIC,
        )
        found = GaugeMetricFamily(
            "crossfade_evidence_log_e",
            "Evidence against the canary: the natural logarithm of the e-value.",
            labels=OF_METRIC,
        )
        needed = GaugeMetricFamily(
            "crossfade_evidence_log_e_needed",
            "What crossfade_evidence_log_e must reach for a rollback.",
            labels=OF_METRIC,
        )
        for key, seen in self.seen.items():
            for one in seen.judged:
                labels = (key.namespace, key.name, one.name)
                verdicts.add_metric((*labels, one.verdict), 1)
                moved.add_metric(labels, one.moved)
                if one.evidence is not None:
                    found.add_metric(labels, one.evidence.log_e)
                    needed.add_metric(labels, one.evidence.log_needed)
        yield from (verdicts, moved, found, needed)

    def _rollouts(self) -> Family:
        rollouts = CounterMetricFamily(
            "crossfade_rollouts",
            "Rollouts that ended, by result; of namespaces with a ModelDeployment.",
            labels=("namespace", "result"),
        )
        for namespace in sorted({key.namespace for key in self.seen}):
            for result in RESULTS:
                rollouts.add_metric((namespace, result), self.ended[namespace, result])
        return rollouts


def _gauge(name: str, words: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, words, value=value)
