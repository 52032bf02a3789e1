"""What a sidecar counts, as Prometheus reads it.

The counts are kept here and prometheus_client writes them: its own histograms have the same
borders for every series of a name, its counters a lock for each, and both a ``_created`` beside.
All of it belongs to the event loop's thread.

Whatever clients send, the number of series has a bound: label values come from the configuration
or are at most so many, and then one that stands for the rest.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, pairwise
from math import isfinite
from typing import Final, Literal

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString
from typing_extensions import override

from crossfade.sidecar.config import Config, Observed
from crossfade.sidecar.messages import Reason, Violation

Kind = Literal["features", "predictions"]
"""Of requests, or of answers."""

Checked = Literal["accepted", "rejected", "fallback", "logged"]
"""What became of a request that a contract was asked about."""

Metric = CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily

DURATIONS: Final = (
    0.001, 0.0025, 0.005, 0.01, 0.02, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.75,
    1.0, 1.5, 2.0, 2.5, 3.0, 5.0, 7.5, 10.0, 20.0, 30.0, 60.0,
)  # fmt: skip
"""Seconds, from a small model's on loopback to a language model's. There are many, because the
evidence takes only a border as the limit of a latency: these are prometheus_client's own, and
what else people write into objectives."""

MAX_LABELS: Final = 50
"""Labels of a name that are told apart when the configuration lists none. Drift allows 100."""

MAX_PAIRS: Final = 100
"""Pairs, such as of a field and a rule, that are told apart."""

MAX_CHARACTERS: Final = 100
"""Of a label value that comes from outside."""

OTHER: Final = "other"
"""The label of all labels that are not told apart."""

OTHERS: Final = "(other)"
"""Stands for all pairs that are not told apart, in both places."""

EMPTY: Final = "(empty)"
"""Stands for the empty text: to Prometheus an empty label value is no label."""

FAILURES: Final = ("budget", "connection", "serverError", "timeout")
"""Why a fallback target did not answer."""

CODES: Final = ("200", "500", "502", "503", "504")
"""Outcomes that are there as 0 from the start: Prometheus does not see a first increase."""


class Metrics(Collector):
    """All counts of a sidecar."""

    def __init__(self, config: Config) -> None:
        """Start with 0 for every series whose labels are known.

        Raises:
            ValueError: the borders of a number do not rise.
        """
        targets = [target.name for target in config.fallback.targets] if config.fallback else []
        self._codes = _Counter(
            "crossfade_model_requests",
            "Requests by the model's own outcome: its status, or 502 no connection, 503 open "
            "circuit, 504 time-out; whoever answered in the end.",
            ("code",),
            [(code,) for code in CODES],
            most=1000,
        )
        self._durations = _Histogram(DURATIONS)
        self._inputs = _Counter(
            "crossfade_inputs",
            "Requests that the contract was asked about, by what became of them.",
            ("result",),
            [("accepted",), ("rejected",), ("fallback",), ("logged",)],
        )
        self._violations = _Counter(
            "crossfade_input_violations",
            "Violations of the contract by field and rule; a request may have several.",
            ("field", "rule"),
        )
        self._fallbacks = _Counter(
            "crossfade_fallbacks",
            "Answers that came from a fallback target, by why the model's was not sent.",
            ("target", "reason"),
            [(target, reason.value) for target in targets for reason in Reason],
        )
        self._failures = _Counter(
            "crossfade_fallback_failures",
            "Fallback targets that did not answer, by why.",
            ("target", "reason"),
            [(target, reason) for target in targets for reason in FAILURES],
        )
        self._recorded = _Counter(
            "crossfade_recorded", "Request and answer pairs that were recorded.", (), [()]
        )
        self._unobserved = _Counter(
            "crossfade_unobserved",
            "Values of a feature or a prediction that are in no distribution, by why.",
            ("what", "why"),
        )
        self._open = 0
        self._drills: dict[str, int] = dict.fromkeys(targets, 0)
        self._distributions = {
            "features": _Distributions(config.features),
            "predictions": _Distributions(config.predictions),
        }
        self._registry = CollectorRegistry()
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def model_answered(self, code: int, seconds: float) -> None:
        """Count a request by the model's outcome, and how long it took."""
        self._codes.add(str(code) if 100 <= code < 600 else OTHERS)  # noqa: PLR2004 - HTTP's codes
        self._durations.add((seconds,))

    def input_checked(self, result: Checked) -> None:
        """Count a request that the contract was asked about."""
        self._inputs.add(result)

    def violated(self, violation: Violation) -> None:
        """Count a violation by field and rule."""
        self._violations.add(_cleaned(violation.field), _cleaned(violation.rule))

    def fell_back(self, target: str, reason: Reason) -> None:
        """Count an answer that came from a fallback target."""
        self._fallbacks.add(target, reason.value)

    def fallback_failed(self, target: str, reason: str) -> None:
        """Count a fallback target that did not answer."""
        self._failures.add(target, reason)

    def circuit(self, is_open: bool) -> None:
        """Tell whether the model is asked at all."""
        self._open = int(is_open)

    def drilled(self, target: str, ok: bool) -> None:
        """Tell how a fallback target's latest drill went."""
        self._drills[target] = int(ok)

    def recorded(self) -> None:
        """Count a recorded pair."""
        self._recorded.add()

    def observed_numbers(self, kind: Kind, name: str, values: Sequence[float]) -> None:
        """Add finite numbers to the distribution of a configured name."""
        self._distributions[kind].numbers[name].add(values)

    def observed_labels(self, kind: Kind, name: str, labels: Iterable[str]) -> None:
        """Add labels to the distribution of a configured name."""
        self._distributions[kind].labels[name].add(labels)

    def unobserved(self, what: str, why: str, amount: int = 1) -> None:
        """Count values that could not be observed."""
        self._unobserved.add(_cleaned(what), _cleaned(why), amount=amount)

    def render(self) -> bytes:
        """Return everything in the text format, version 0.0.4."""
        return generate_latest(self._registry)

    @override
    def collect(self) -> Iterator[Metric]:
        """Yield what prometheus_client is to write."""
        yield self._codes.family()
        durations = HistogramMetricFamily(
            "crossfade_model_request_duration_seconds",
            "How long the model took to answer whole, in seconds.",
        )
        self._durations.write(durations, {})
        yield durations
        yield self._inputs.family()
        yield self._violations.family()
        for kind, distributions in self._distributions.items():
            yield from distributions.families(kind)
        yield self._fallbacks.family()
        yield self._failures.family()
        yield GaugeMetricFamily(
            "crossfade_circuit_open", "1 while the model is not asked.", self._open
        )
        drills = GaugeMetricFamily(
            "crossfade_fallback_drill_ok",
            "1 where a fallback target answered its latest drill.",
            labels=("target",),
        )
        for target, ok in self._drills.items():
            drills.add_metric((target,), ok)
        yield drills
        yield self._recorded.family()
        yield self._unobserved.family()


class _Counter:
    """A counter with at most so many series."""

    __slots__ = ("_counts", "_labels", "_most", "_name", "_text")

    def __init__(
        self,
        name: str,
        text: str,
        labels: tuple[str, ...],
        known: Iterable[tuple[str, ...]] = (),
        most: int = MAX_PAIRS,
    ) -> None:
        self._name = name
        self._text = text
        self._labels = labels
        self._counts = dict.fromkeys(known, 0)
        self._most = most

    def add(self, *values: str, amount: int = 1) -> None:
        """Count under these label values, or under what stands for the rest."""
        counts = self._counts
        if values not in counts and len(counts) >= self._most:
            values = (OTHERS,) * len(values)
        counts[values] = counts.get(values, 0) + amount

    def family(self) -> CounterMetricFamily:
        """Return all series."""
        family = CounterMetricFamily(self._name, self._text, labels=self._labels)
        for values, count in self._counts.items():
            family.add_metric(values, count)
        return family


class _Histogram:
    """Numbers by borders; one equal to a border is below it, as in Prometheus."""

    __slots__ = ("_borders", "_counts", "_sum")

    def __init__(self, borders: Sequence[float]) -> None:
        if not all(map(isfinite, borders)) or any(a >= b for a, b in pairwise(borders)):
            raise ValueError(f"buckets must rise and be finite: {', '.join(map(str, borders))}")
        self._borders = tuple(borders)
        self._counts = [0] * (len(borders) + 1)
        self._sum = 0.0

    def add(self, values: Sequence[float]) -> None:
        """Count numbers."""
        borders, counts = self._borders, self._counts
        for value in values:
            counts[bisect_left(borders, value)] += 1
        self._sum += sum(values)

    def write(self, family: HistogramMetricFamily, labels: dict[str, str]) -> None:
        """Add the series to a family.

        Not by its ``add_metric``, which leaves out sum and count where a border is negative, as
        OpenMetrics has it: in the text format they are allowed, and a count is always of use.
        """
        borders = [*map(floatToGoString, self._borders), "+Inf"]
        counts = list(accumulate(self._counts))
        for border, count in zip(borders, counts, strict=True):
            family.add_sample(f"{family.name}_bucket", {**labels, "le": border}, count)
        family.add_sample(f"{family.name}_count", labels, counts[-1])
        family.add_sample(f"{family.name}_sum", labels, self._sum)


class _Labels:
    """Labels of one name, each of those that are told apart, and the others."""

    __slots__ = ("_is_closed", "counts")

    def __init__(self, known: Sequence[str]) -> None:
        self._is_closed = bool(known)
        self.counts = {_cleaned(label): 0 for label in (*known, OTHER)}

    def add(self, labels: Iterable[str]) -> None:
        """Count labels."""
        counts = self.counts
        for text in labels:
            label = _cleaned(text)
            if label not in counts:
                if self._is_closed or len(counts) > MAX_LABELS:  # OTHER is one of them
                    label = OTHER
                else:
                    counts[label] = 0
            counts[label] += 1


class _Distributions:
    """What is observed of requests, or of answers: numbers and labels by name."""

    __slots__ = ("labels", "numbers")

    def __init__(self, observed: Sequence[Observed]) -> None:
        self.numbers = {
            one.name: _Histogram(one.buckets) for one in observed if one.type == "number"
        }
        self.labels = {one.name: _Labels(one.labels) for one in observed if one.type == "label"}

    def families(self, kind: str) -> Iterator[Metric]:
        """Yield a histogram and a counter; their names are the kind's."""
        numbers = HistogramMetricFamily(f"crossfade_{kind}", f"Numbers among {kind}, by name.")
        for name, histogram in self.numbers.items():
            histogram.write(numbers, {"name": name})
        yield numbers
        single = kind.removesuffix("s")
        labels = CounterMetricFamily(
            f"crossfade_{single}_labels",
            f"Labels among {kind}, by name; {OTHER} is all that are not told apart.",
            labels=("name", "label"),
        )
        for name, by_label in self.labels.items():
            for label, count in by_label.counts.items():
                labels.add_metric((name, label), count)
        yield labels


def _cleaned(text: str) -> str:
    """Return a label value that Prometheus takes: some valid UTF-8, not too long."""
    if len(text) > MAX_CHARACTERS:
        text = text[:MAX_CHARACTERS]
    if not text.isascii():
        text = text.encode(errors="replace").decode()  # JSON may hold half a surrogate pair
    return text or EMPTY
