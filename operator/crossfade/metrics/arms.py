"""Whose a series is, and the samples of both versions in a span of time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from crossfade.errors import InvalidSpecError, MetricSourceError
from crossfade.evidence.counters import Side
from crossfade.metrics.analyst import Arm
from crossfade.metrics.batching import Batcher, Pods, Question, marked
from crossfade.metrics.endpoints import Endpoint
from crossfade.metrics.presets import Place
from crossfade.metrics.prometheus import Labels, RawSeries
from crossfade.metrics.selectors import Matcher, Selector, any_of
from crossfade.metrics.sources import Join
from crossfade.names import NamespacedName, child_name

Owner = tuple[Side, str]
"""The side, and the pod (or the exporter) that counts."""

_Labels = Labels | tuple[tuple[str, str], ...]
"""As they came, in whatever order."""

HISTOGRAM_WEIGHS: Final = 50
"""A native histogram is as large as so many samples of counters."""


Row = tuple[Owner, str, RawSeries]
"""A series that is one of the versions', whose it is, and what it is: selector, name and labels."""


class Arms:
    """Tells whose a series is, and asks for both versions' series at once."""

    def __init__(self, key: NamespacedName, join: Join, canary: Arm, stable: Arm | None) -> None:
        """Join by pod name, by a gateway's name for the version, or by the version's label.

        Raises:
            InvalidSpecError: both versions are called the same, and the label tells them apart.
        """
        self._join = join
        arms = {Side.CANARY: canary} | ({Side.STABLE: stable} if stable else {})
        self.sides = frozenset(arms)
        self._place = join.place or Place(join.pod_label, "{child}-")
        self._marks = {side: _mark(self._place, key, arm) for side, arm in arms.items()}
        self._pods = Pods(
            self._place.label,
            tuple(self._marks.values()),
            self._place.before,
            join.namespace_label if join.place is None else None,
            key.namespace,
        )
        self._versions = {arm.version: side for side, arm in arms.items()}
        self._known: dict[Selector, dict[_Labels, tuple[Owner, str] | None]] = {}
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
        return Question(endpoint, of, self._pods, start, end)

    def rows(self, of: Selector, answer: Sequence[RawSeries]) -> list[Row]:
        """Return the series of an answer that are one of the versions'.

        Whose one is, is found out once: a look sees the same labels as the look before it.
        """
        known = self._known.setdefault(of, {})
        rows = []
        for series in answer:
            own = series.labels
            labels = own if isinstance(own, Labels) else tuple(own.items())
            try:
                mine = known[labels]
            except KeyError:
                whose = self.owner(series)
                mine = known[labels] = (whose, f"{of}\0{identity(series)}") if whose else None
            if mine is not None:
                owner, key = mine
                rows.append((owner, key, series))
        return rows

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


def _nothing_known(owner: Owner, key: str) -> int:
    del owner, key
    return -1


class Portion(msgspec.Struct, gc=False):
    """A span of time of which the samples are read."""

    batcher: Batcher
    endpoint: Endpoint
    arms: Arms
    start: float
    """Samples after this are wanted, in seconds."""
    end: float
    known: Callable[[Owner, str], int] = _nothing_known
    """Gives the time in milliseconds up to which the samples of a series are known."""
    samples: int = 0
    """How many were read."""

    async def series(self, of: Selector) -> list[Row]:
        """Return the series of a selector that are one of the versions'.

        Raises:
            MetricSourceError: there is no usable answer.
        """
        question = self.arms.question(self.endpoint, of, self.start, self.end)
        return self.arms.rows(of, await self.batcher.samples(question))

    async def histograms(self, of: Selector) -> list[Row]:
        """Return the native histograms of a selector, as :meth:`series` does."""
        rows = [row for row in await self.series(of) if row[2].histograms]
        self.samples += HISTOGRAM_WEIGHS * sum(len(one.histograms) for _, _, one in rows)
        return rows

    def news(self, row: Row) -> list[tuple[int, float]]:
        """Return the samples that are not known yet, with times in milliseconds.

        Raises:
            MetricSourceError: a value is no number.
        """
        owner, key, series = row
        return self.since(series, self.known(owner, key))

    def since(self, series: RawSeries, after: int) -> list[tuple[int, float]]:
        """Return the samples after a time; see :meth:`news`."""
        values = series.values
        self.samples += len(values)
        return parse_samples(values, after)


def identity(series: RawSeries, but: str = "") -> str:
    """Return a text that is the same for the same name and labels, one of them left out."""
    return "\0".join(f"{k}\0{v}" for k, v in sorted(series.labels.items()) if k != but)


def parse_samples(values: Sequence[tuple[float, str]], after: int = -1) -> list[tuple[int, float]]:
    """Return samples with times in milliseconds, those after a time.

    Raises:
        MetricSourceError: a value is no number.
    """
    news = []
    try:
        for at, text in reversed(values):
            time = round(at * 1000)
            if time <= after:
                break
            news.append((time, float(text)))
    except (TypeError, ValueError) as e:
        raise MetricSourceError("Prometheus gave a value that is no number") from e
    news.reverse()
    return news


def names_of(owners: set[Owner]) -> str:
    """Say whose something is: the versions, in words."""
    return " and ".join(sorted({side.value for side, _ in owners}))
