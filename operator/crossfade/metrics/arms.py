"""Whose a series is, and the samples of both versions in a span of time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from crossfade.errors import InvalidSpecError, MetricSourceError
from crossfade.evidence.counters import Side
from crossfade.metrics.analyst import Arm
from crossfade.metrics.batching import Batcher, Pods, Question, marked
from crossfade.metrics.endpoints import Endpoint
from crossfade.metrics.presets import Place
from crossfade.metrics.prometheus import RawSeries
from crossfade.metrics.selectors import Matcher, Selector, any_of
from crossfade.metrics.sources import Join
from crossfade.names import NamespacedName, child_name

Owner = tuple[Side, str]
"""The side, and the pod (or the exporter) that counts."""


PIECE_SECONDS: Final = 600.0
"""The most of a native histogram that one query reads. At a scrape each second and 60 buckets, as
measured, an hour of two pods is 32 MB of JSON, which may take longer than ``timeoutSeconds``."""


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
        self.sides = frozenset(arms)
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

    def owner(self, series: RawSeries) -> Owner | None:
        """Return who counts a series; None: it is nobody's."""
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


@dataclass(frozen=True, slots=True)
class Portion:
    """A span of time of which the samples are read."""

    batcher: Batcher
    endpoint: Endpoint
    arms: Arms
    start: float
    """Samples after this are wanted, in seconds."""
    end: float

    async def series(self, of: Selector) -> list[tuple[Owner, RawSeries]]:
        """Return the series of a selector that are one of the versions', and whose each is.

        Raises:
            MetricSourceError: there is no usable answer.
        """
        return await self._between(of, self.start, self.end)

    async def histograms(self, of: Selector) -> list[tuple[Owner, RawSeries]]:
        """Return the native histograms of a selector, as :meth:`series` does.

        One sample may be as large as a hundred counters, so a long portion is asked for in pieces,
        and a series may come in several, one after another in the order of time.

        Raises:
            MetricSourceError: there is no usable answer.
        """
        rows: list[tuple[Owner, RawSeries]] = []
        start = self.start
        while start < self.end:
            end = min(start + PIECE_SECONDS, self.end)
            rows += [row for row in await self._between(of, start, end) if row[1].histograms]
            start = end
        return rows

    async def _between(
        self, of: Selector, start: float, end: float
    ) -> list[tuple[Owner, RawSeries]]:
        question = self.arms.question(self.endpoint, of, start, end)
        answer = await self.batcher.samples(question)
        owned = ((self.arms.owner(one), one) for one in answer)
        return [(owner, one) for owner, one in owned if owner is not None]


def identity(series: RawSeries, but: str = "") -> str:
    """Return a text that is the same for the same name and labels, one of them left out."""
    return "\0".join(f"{k}\0{v}" for k, v in sorted(series.labels.items()) if k != but)


def parse_samples(values: Sequence[tuple[float, str]]) -> list[tuple[int, float]]:
    """Return samples with times in milliseconds.

    Raises:
        MetricSourceError: a value is no number.
    """
    try:
        return [(round(at * 1000), float(text)) for at, text in values]
    except (TypeError, ValueError) as e:
        raise MetricSourceError("Prometheus gave a value that is no number") from e


def names_of(owners: set[Owner]) -> str:
    """Say whose something is: the versions, in words."""
    return " and ".join(sorted({side.value for side, _ in owners}))
