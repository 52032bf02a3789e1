"""Distributions to compare with: written down, in a ConfigMap, or what stable showed before."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

import yaml

from crossfade.api.v1alpha1 import ConfigMapKeyRef, Drift, Metric
from crossfade.errors import ClusterError, InvalidSpecError, MetricSourceError
from crossfade.metrics.analyst import Subject
from crossfade.metrics.arms import Arms
from crossfade.metrics.batching import union
from crossfade.metrics.endpoints import Endpoint
from crossfade.metrics.histograms import Bucket, assemble_classic, parse_native
from crossfade.metrics.prometheus import Prom, RawSeries
from crossfade.metrics.queries import SETTLE_SECONDS
from crossfade.metrics.selectors import Selector, parse_selector
from crossfade.metrics.sources import drift_join

BELIEVED_SECONDS: Final = 60.0
"""How long a ConfigMap that was read is believed."""

MAX_CATEGORIES: Final = 200
"""As in the API for what is written there."""


class ConfigMapReader(Protocol):
    """Reads a ConfigMap's data."""

    async def read_config_map(self, namespace: str, name: str) -> Mapping[str, str] | None:
        """Return the data; None when there is no such ConfigMap."""
        ...


class NoConfigMaps:
    """For where there is no cluster to read one from."""

    async def read_config_map(self, namespace: str, name: str) -> Mapping[str, str] | None:
        """See :class:`ConfigMapReader`.

        Raises:
            ClusterError: always.
        """
        del namespace, name
        raise ClusterError("there is no cluster here; write the distribution in reference.shares")


@dataclass(frozen=True, slots=True)
class Reference:
    """A distribution, as it was given."""

    weights: tuple[tuple[str, float], ...] = ()
    """A share or a count for each value of a label, or upper border of a bucket."""
    buckets: tuple[tuple[Bucket, float], ...] = ()
    """Of a histogram that was counted: a count for each bucket."""


class References:
    """Finds the distribution that a drift is compared with."""

    def __init__(
        self, prom: Prom, config_maps: ConfigMapReader, clock: Callable[[], float]
    ) -> None:
        """Ask ``prom`` for what was before; ``clock`` gives monotonic seconds."""
        self._prom = prom
        self._config_maps = config_maps
        self._clock = clock
        self._known: dict[tuple[str, ConfigMapKeyRef], tuple[float, Reference]] = {}

    async def written(self, namespace: str, drift: Drift) -> Reference | None:
        """Return what is written down; None: nothing is.

        Raises:
            MetricSourceError: a ConfigMap cannot be read.
            InvalidSpecError: it is no distribution.
        """
        wanted = drift.reference
        if wanted is None:
            return None
        if wanted.shares is not None:
            weights = tuple((share.value, share.weight) for share in wanted.shares)
            return _checked("drift.reference.shares", weights)
        if wanted.config_map is not None:
            return await self._of_config_map(namespace, wanted.config_map)
        return None

    async def before(self, endpoint: Endpoint, subject: Subject, metric: Metric) -> Reference:
        """Return what stable counted in the time before the canary had traffic.

        One ``increase()`` up to just before it, whose answer is always the same. It extrapolates,
        and loses a series' first increment, which is no matter here: a reference is taken as
        shares, and all its series are scraped together. Raw samples of up to 30 days would be too
        many.

        Raises:
            MetricSourceError: there is no usable answer, or nothing was counted.
            InvalidSpecError: a selector is wrong.
        """
        drift, stable = metric.drift, subject.stable
        seconds = drift.reference.stable_before_seconds if drift and drift.reference else None
        if drift is None or seconds is None or stable is None:
            raise InvalidSpecError("there is no time before")
        arms = Arms(subject.key, drift_join(subject.analysis, metric), stable, None)
        at = math.floor(subject.since.timestamp()) - SETTLE_SECONDS

        async def ask(selector: Selector, by: str) -> list[RawSeries]:
            question = arms.question(endpoint, selector, at - seconds, at)
            promql = f"sum{by} (increase({union([question])}[{seconds}s]))"
            return await self._prom.steps(endpoint, promql, at, at, _STEP_SECONDS)

        if drift.histogram is not None:
            found = await _buckets_before(parse_selector(drift.histogram), ask)
        else:
            found = await _labels_before(parse_selector(drift.counter or ""), drift.label, ask)
        if not sum(n for _, n in found.weights) and not sum(n for _, n in found.buckets):
            raise MetricSourceError(
                f"stable counted nothing of {drift.histogram or drift.counter} in the {seconds} s "
                "before the canary had traffic; give another reference"
            )
        return found

    async def _of_config_map(self, namespace: str, ref: ConfigMapKeyRef) -> Reference:
        now = self._clock()
        for old in [k for k, (at, _) in self._known.items() if now - at >= BELIEVED_SECONDS]:
            del self._known[old]
        known = self._known.get((namespace, ref))
        if known is not None:
            return known[1]
        whose = f"ConfigMap {namespace}/{ref.name}"
        try:
            data = await self._config_maps.read_config_map(namespace, ref.name)
        except ClusterError as e:
            raise MetricSourceError(f"{whose} cannot be read: {e}") from e
        if data is None:
            raise MetricSourceError(f"there is no ConfigMap {ref.name} in namespace {namespace}")
        if ref.key not in data:
            raise MetricSourceError(f"{whose} has no key {ref.key}")
        reference = parse_reference(f"key {ref.key} of {whose}", data[ref.key])
        self._known[namespace, ref] = (now, reference)
        return reference


_STEP_SECONDS: Final = 3600
"""Only one point is asked for; a command that reads ahead is not to compute many."""

_Ask = Callable[[Selector, str], Awaitable[list[RawSeries]]]


async def _buckets_before(base: Selector, ask: _Ask) -> Reference:
    classic = await ask(base.suffixed("_bucket"), " by (le)")
    samples = assemble_classic(
        (one.labels["le"], [(0, value)]) for one, value in _values(classic) if "le" in one.labels
    )
    if not samples:
        native = await ask(base, "")
        samples = [sample for one in native for sample in parse_native(one.histograms)]
    return Reference(buckets=tuple(samples[-1][1].items()) if samples else ())


async def _labels_before(counter: Selector, label: str | None, ask: _Ask) -> Reference:
    answer = await ask(counter, f" by ({label})")
    return Reference(
        weights=tuple(
            sorted((one.labels.get(label or "", ""), value) for one, value in _values(answer))
        )
    )


def _values(answer: list[RawSeries]) -> list[tuple[RawSeries, float]]:
    """Return the last value of each series that has a number."""
    values = [(one, float(one.values[-1][1])) for one in answer if one.values]
    return [(one, value) for one, value in values if math.isfinite(value)]


def parse_reference(where: str, text: str) -> Reference:
    """Read a mapping from a label's value, or a bucket's upper border, to its share or count.

    Every scalar is taken as it is written: ``no`` is a label and not false, 1 is the text "1".

    Raises:
        InvalidSpecError: it is none; the message says where and what.
    """
    try:
        document = yaml.load(text, Loader=yaml.BaseLoader)  # noqa: S506 - it makes only texts
    except (yaml.YAMLError, RecursionError) as e:
        raise InvalidSpecError(f"{where} is no YAML: {' '.join(str(e).split())[:200]}") from e
    if not isinstance(document, dict):
        raise InvalidSpecError(
            f"{where} is no mapping; write each label's value or upper border with its share"
        )
    weights = []
    for name, weight in document.items():
        try:
            weights.append((str(name), float(weight)))
        except (TypeError, ValueError) as e:
            raise InvalidSpecError(f"{where} has no number for {name!s:.60}") from e
    return _checked(where, tuple(weights))


def _checked(where: str, weights: tuple[tuple[str, float], ...]) -> Reference:
    """Refuse what is no distribution.

    Raises:
        InvalidSpecError: the message says why not.
    """
    if not 2 <= len(weights) <= MAX_CATEGORIES:  # noqa: PLR2004 - one alone cannot move
        raise InvalidSpecError(f"{where} has {len(weights)} entries; write 2 to {MAX_CATEGORIES}")
    for name, weight in weights:
        if not math.isfinite(weight) or weight < 0:
            raise InvalidSpecError(f"{where} has {weight:g} for {name}; write a number from 0 on")
    if not sum(weight for _, weight in weights):
        raise InvalidSpecError(f"{where} has only zeros")
    if len({name for name, _ in weights}) < len(weights):
        raise InvalidSpecError(f"{where} names a value twice")
    return Reference(weights)
