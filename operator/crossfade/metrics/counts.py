"""The evidence on an errorRate or latency metric: asks for samples and folds them."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from crossfade.api.v1alpha1 import Metric
from crossfade.errors import InvalidSpecError, MetricSourceError
from crossfade.evidence.counters import Series, Side
from crossfade.evidence.kernel import Tolerance
from crossfade.evidence.ledger import Ledger
from crossfade.evidence.rates import Limits, RateTests
from crossfade.evidence.rules import Asked, evidence_of, judge
from crossfade.evidence.verdicts import MetricAnswer, Verdict
from crossfade.metrics.analyst import Arm, Subject
from crossfade.metrics.batching import Batcher, Pods, Question, marked
from crossfade.metrics.endpoints import Endpoint
from crossfade.metrics.presets import Place
from crossfade.metrics.prometheus import RawSeries
from crossfade.metrics.selectors import Matcher, Selector, any_of
from crossfade.metrics.sources import Join, Plan, Term
from crossfade.names import NamespacedName, child_name

LOOK_BACK_SECONDS: Final = 300.0
"""How long before the evidence begins samples are read, for baselines and the scrape interval.
Always from the same time, so that a restarted operator reads the same samples."""

PORTION_SECONDS: Final = 3600.0
"""The most that one query reads; a long rollout is read again hour by hour."""


LATENCY_WARMUP_SECONDS: Final = 30
"""The default of ``warmupSeconds`` for latency: caches fill, and code is compiled."""


def milliseconds(at: datetime) -> int:
    """Return milliseconds since the epoch."""
    return round(at.timestamp() * 1000)


def parse_samples(values: list[tuple[float, str]]) -> list[tuple[int, float]]:
    """Return samples with times in milliseconds.

    Raises:
        MetricSourceError: a value is no number.
    """
    try:
        return [(round(at * 1000), float(text)) for at, text in values]
    except (TypeError, ValueError) as e:
        raise MetricSourceError("Prometheus gave a value that is no number") from e


class Arms:
    """Tells whose a series is, and asks for both versions' series at once."""

    def __init__(self, key: NamespacedName, join: Join, canary: Arm, stable: Arm | None) -> None:
        """Join by pod name, by a gateway's name for the version, or by the version's label.

        Raises:
            InvalidSpecError: both versions are called the same, and the label tells them apart.
        """
        self._key = key
        self._join = join
        arms = {Side.CANARY: canary} | ({Side.STABLE: stable} if stable else {})
        self._place = join.place or Place(join.pod_label, "{child}-")
        self._marks = {side: _mark(self._place, key, arm) for side, arm in arms.items()}
        self._versions = {arm.version: side for side, arm in arms.items()}
        if join.version_label is not None and len(self._versions) < len(arms):
            raise InvalidSpecError(
                f"both versions are called {canary.version}, so the label {join.version_label} "
                "cannot tell them apart; change spec.model.version"
            )

    def question(self, endpoint: Endpoint, of: Selector, start: float, end: float) -> Question:
        """Return the question for a selector's series of both versions."""
        join = self._join
        if join.version_label is not None:
            of = of.matching(Matcher(join.version_label, "=~", any_of(sorted(self._versions))))
            return Question(endpoint, of, None, start, end)
        pods = Pods(
            self._place.label,
            tuple(self._marks.values()),
            self._place.before,
            join.namespace_label if join.place is None else None,
            self._key.namespace,
        )
        return Question(endpoint, of, pods, start, end)

    def owner(self, series: RawSeries) -> tuple[Side, str] | None:
        """Return the side and the pod (or the exporter) that counts; None: it is nobody's."""
        labels = series.labels
        if self._join.version_label is not None:
            side = self._versions.get(labels.get(self._join.version_label, ""))
            return (side, labels.get("instance", "")) if side else None
        value = labels.get(self._place.label, "")
        for side, mark in self._marks.items():
            if marked(value, mark, self._place.before):
                return side, labels.get(self._join.pod_label) or labels.get("instance", "")
        return None

    def whose(self, side: Side) -> str:
        """Say where series of a side are looked for."""
        if self._join.version_label is not None:
            version = next(v for v, s in self._versions.items() if s is side)
            return f'with {self._join.version_label}="{version}"'
        if self._join.place is not None:
            return f"whose {self._place.label} names {self._marks[side]}*"
        return f"for pods {self._marks[side]}*"


def _mark(place: Place, key: NamespacedName, arm: Arm) -> str:
    child = child_name(key.name, arm.revision)
    return place.mark.format(namespace=key.namespace, child=child)


def identity(series: RawSeries) -> str:
    """Return a text that is the same for the same name and labels."""
    return "\0".join(f"{k}\0{v}" for k, v in sorted(series.labels.items()))


class CountsFold:
    """The evidence on one metric of one rollout, and how to bring it up to date."""

    def __init__(self, plan: Plan, metric: Metric, subject: Subject) -> None:
        """Start with no evidence.

        Raises:
            InvalidSpecError: the versions cannot be told apart.
        """
        self._name = metric.name
        self._plan = plan
        self._limits = limits_of(metric)
        self._arms = Arms(subject.key, plan.join, subject.canary, subject.stable)
        has_stable = subject.stable is not None
        self._ledger = Ledger(
            RateTests(self._limits, has_stable=has_stable),
            milliseconds(subject.since),
            has_stable=has_stable,
            warmup=1000 * _warmup_seconds(metric),
        )
        self._from = self._first = subject.since.timestamp() - LOOK_BACK_SECONDS
        self._what = ""
        if metric.latency is not None:
            self._what = f", slower than {metric.latency.max_milliseconds:g} ms"
        self._bordered: set[tuple[Side, str]] = set()
        self._counted: set[tuple[Side, str]] = set()

    async def catch_up(self, batcher: Batcher, endpoint: Endpoint, now: float) -> None:
        """Read what was not read yet. When a query fails nothing of its portion is taken in.

        Raises:
            MetricSourceError: there is no usable answer.
        """
        end = self._from
        while end < now:
            end = min(self._from + PORTION_SECONDS, now)
            taken: list[Series] = []
            for term in self._plan.terms:
                question = self._arms.question(endpoint, term.selector, self._from, end)
                taken += self._taken(term, await batcher.samples(question))
            self._ledger.add(taken)
            self._from = end
        resume = self._ledger.fold.resume_at()
        self._from = max(self._first, end - LOOK_BACK_SECONDS)
        if resume is not None:
            self._from = resume / 1000
        if self._plan.border is not None:
            await self._check_border(batcher, endpoint, now)

    def _taken(self, term: Term, answer: list[RawSeries]) -> list[Series]:
        taken = []
        for series in answer:
            owner = self._arms.owner(series)
            if owner is None:
                continue
            side, pod = owner
            (self._bordered if term.bad < 0 else self._counted).add(owner)
            samples = parse_samples(series.values)
            key = f"{term.selector}\0{identity(series)}"
            taken.append(Series(side, pod, key, term.adds, samples))
        return taken

    async def _check_border(self, batcher: Batcher, endpoint: Endpoint, now: float) -> None:
        """Refuse the evidence when a pod that has requests has no such bucket.

        Raises:
            MetricSourceError: the message names the borders next to it.
        """
        lacking = self._counted - self._bordered
        border, unit = self._plan.border, self._plan.unit_milliseconds
        if not lacking or border is None:
            return
        buckets = self._plan.terms[-1].selector
        every = Selector(buckets.name, buckets.matchers[:-1])
        question = self._arms.question(endpoint, every, now - LOOK_BACK_SECONDS, now)
        borders: set[float] = set()
        for series in await batcher.samples(question):
            owner = self._arms.owner(series)
            if owner in lacking:
                borders.add(_number(series.labels.get("le", "")) * unit)
        whose = " and ".join(sorted({side.value for side, _ in lacking}))
        raise MetricSourceError(
            f"maxMilliseconds {border * unit:g} is no bucket border of {whose}; "
            f"{_nearest(border * unit, borders)}"
        )

    def judge(self, subject: Subject, now: datetime, log_needed: float) -> MetricAnswer:
        """Give the answer on what was read."""
        in_force_at = subject.in_force_at
        seen = self._ledger.seen()
        if seen.newest is None:
            names = " and ".join(sorted({term.selector.name for term in self._plan.terms}))
            said = f"no series of {names} {self._arms.whose(Side.CANARY)}: is it scraped?"
            return MetricAnswer(self._name, Verdict.NOT_ENOUGH_DATA, said)
        asked = Asked(
            milliseconds(now),
            in_force=in_force_at is not None,
            answered=self._ledger.answered(milliseconds(in_force_at)) if in_force_at else 0,
            min_requests=subject.min_requests,
            log_needed=log_needed,
            in_probation=subject.stable is None,
        )
        tests = self._ledger.standing()
        tests.close()
        verdict, message = judge(tests, seen, self._limits, asked)
        if verdict in (Verdict.HARM, Verdict.HEALTHY):
            message += self._what
        return MetricAnswer(self._name, verdict, message, evidence_of(tests, asked))


def _warmup_seconds(metric: Metric) -> int:
    if metric.warmup_seconds is not None:
        return metric.warmup_seconds
    return LATENCY_WARMUP_SECONDS if metric.latency is not None else 0


def limits_of(metric: Metric) -> Limits:
    """Return the limits as shares.

    Raises:
        InvalidSpecError: there is none.
    """
    if metric.latency is not None:
        percent, worse = metric.latency.max_slow_percent, metric.latency.worse_than_stable
    elif metric.error_rate is not None:
        percent, worse = metric.error_rate.max_percent, metric.error_rate.worse_than_stable
    else:
        raise InvalidSpecError("a metric is one of errorRate, latency and query")
    if percent is None and worse is None:
        raise InvalidSpecError("write a limit in percent, or worseThanStable")
    tolerance = Tolerance(worse.ratio, worse.min_increase_percent / 100) if worse else None
    return Limits(percent / 100 if percent is not None else None, tolerance)


def _number(le: str) -> float:
    try:
        return float(le)
    except ValueError:
        return float("inf")


def _nearest(border: float, borders: set[float]) -> str:
    below = max((b for b in borders if b < border), default=None)
    above = min((b for b in borders if border < b < float("inf")), default=None)
    near = [f"{b:g}" for b in (below, above) if b is not None]
    return f"the nearest are {' and '.join(near)}" if near else "it has no buckets"
