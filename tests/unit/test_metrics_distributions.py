"""Drift by labelled counters and by histograms of every kind, and what it is compared with."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from typing_extensions import override

from crossfade.errors import ClusterError
from crossfade.evidence.verdicts import MetricAnswer, Verdict
from crossfade.metrics.analyst import Arm, Subject
from crossfade.metrics.arms import HISTOGRAM_WEIGHS
from crossfade.metrics.endpoints import Endpoint
from crossfade.metrics.folds import PORTION_SAMPLES
from crossfade.metrics.prometheus import RawSeries
from crossfade.metrics.prometheus_analyst import PrometheusAnalyst
from tests.unit.test_metrics_analyst import CANARY, SINCE, STABLE, START, FakeProm, Secrets
from tests.unit.test_metrics_analyst import subject_of as a_subject

EXAMPLE = Path(__file__).parents[2] / "examples" / "drift.yaml"
LABELS: dict[str, Any] = {"counter": "predictions", "label": "outcome"}
SCORES: dict[str, Any] = {"histogram": "score"}
BORDERS = (0.25, 0.5, 0.75, math.inf)
EVEN, SHIFTED = (5, 5, 5, 5), (1, 2, 5, 12)
"""Observations a second in each bucket."""

Rates = tuple[int, ...] | Mapping[str, int]


@dataclass
class Prom(FakeProm):
    """The fake, with native histograms."""

    natives: dict[tuple[tuple[str, str], ...], list[tuple[float, dict[str, Any]]]] = field(
        default_factory=dict
    )

    def native(self, second: float, buckets: list[list[Any]], name: str, **labels: str) -> None:
        key = tuple(sorted({"__name__": name, **labels}.items()))
        count = str(sum(float(b[3]) for b in buckets))
        # As util/jsonutil/marshal.go writes it: numbers as texts, and no empty buckets.
        texts = [[rule, f"{a!r}", f"{b!r}", f"{n}"] for rule, a, b, n in buckets if n]
        histogram = {"count": count, "sum": "1"} | ({"buckets": texts} if texts else {})
        self.natives.setdefault(key, []).append((START + second, histogram))

    @override
    async def instant(self, endpoint: Endpoint, promql: str, at: float) -> list[RawSeries]:
        found = await super().instant(endpoint, promql, at)
        numbers = {key: [(t, i) for i, (t, _) in enumerate(v)] for key, v in self.natives.items()}
        for series in await FakeProm(series=numbers).instant(endpoint, promql, at):  # type: ignore[arg-type]
            samples = self.natives[tuple(sorted(series.labels.items()))]
            found.append(
                RawSeries(series.labels, [], [samples[int(float(i))] for _, i in series.values])
            )
        return found


@dataclass
class ConfigMaps:
    """ConfigMaps by name."""

    maps: dict[str, dict[str, str] | ClusterError] = field(default_factory=dict)
    reads: int = 0

    async def read_config_map(self, namespace: str, name: str) -> Mapping[str, str] | None:
        self.reads += 1
        found = self.maps.get(name)
        if isinstance(found, ClusterError):
            raise found
        return found


@dataclass
class World:
    prom: Prom = field(default_factory=Prom)
    config_maps: ConfigMaps = field(default_factory=ConfigMaps)
    clock: float = 0.0
    total: dict[tuple[str, str], int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.analyst = self.fresh()

    def fresh(self) -> PrometheusAnalyst:
        return PrometheusAnalyst(
            self.prom, Secrets(), lambda: self.clock, config_maps=self.config_maps
        )

    async def look(
        self, second: float, subject: Subject, analyst: PrometheusAnalyst | None = None
    ) -> MetricAnswer:
        now = SINCE + timedelta(seconds=second)
        return (await (analyst or self.analyst).look(subject, now))[0]

    def count(self, pod: str, part: str, seen: int) -> int:
        self.total[pod, part] = self.total.get((pod, part), 0) + seen
        return self.total[pod, part]

    def labels(self, second: int, pod: str, rates: Mapping[str, int]) -> None:
        """Scrape a labelled counter after one more second."""
        for value, rate in rates.items():
            at = {"namespace": "ml", "pod": pod, "outcome": value}
            self.prom.sample(second, self.count(pod, value, rate), "predictions", **at)

    def classic(
        self, second: int, pod: str, rates: tuple[int, ...], borders: tuple[float, ...] = BORDERS
    ) -> None:
        """Scrape a classic histogram after one more second."""
        below = 0
        for border, rate in zip(borders, rates, strict=True):
            below += self.count(pod, f"{border}", rate)
            le = "+Inf" if math.isinf(border) else f"{border}"
            self.prom.sample(second, below, "score_bucket", namespace="ml", pod=pod, le=le)

    def native(
        self, second: int, pod: str, rates: Mapping[tuple[float, float], int], name: str = "score"
    ) -> None:
        """Scrape a native histogram after one more second."""
        buckets = [
            [0, left, right, self.count(pod, f"{left}-{right}", rate)]
            for (left, right), rate in rates.items()
        ]
        self.prom.native(second, buckets, name, namespace="ml", pod=pod)


def subject_of(
    drift: dict[str, Any], metric: dict[str, Any] | None = None, **changes: Any
) -> Subject:
    return a_subject({"name": "drift", "drift": drift, **(metric or {})}, **changes)


def custom(rates: tuple[int, ...]) -> dict[tuple[float, float], int]:
    """Return custom buckets, as classic histograms become when they are converted."""
    return dict(zip(zip((-math.inf, *BORDERS), BORDERS, strict=False), rates, strict=True))


def exponential(schema: int, rates: Mapping[float, int]) -> dict[tuple[float, float], int]:
    """Return buckets of a schema with observations: those that numbers fall into."""
    growth = 2.0**-schema
    out: dict[tuple[float, float], int] = {}
    for number, rate in rates.items():
        index = math.ceil(math.log2(number) / growth)
        bucket = (2 ** ((index - 1) * growth), 2 ** (index * growth))
        out[bucket] = out.get(bucket, 0) + rate
    return out


GOOD, BAD = {"spam": 2, "ham": 18}, {"spam": 12, "ham": 8}


def play_labels(world: World, canary: Mapping[str, int], stable: Mapping[str, int]) -> None:
    """Scrape a minute of each version, and two of what stable did before."""
    for second in range(-120, 61):
        world.labels(second, STABLE, {k: 9 * n for k, n in stable.items()})
        if second >= 0:
            world.labels(second, CANARY, canary)


def play_scores(world: World, canary: tuple[int, ...], stable: tuple[int, ...]) -> None:
    for second in range(-120, 61):
        world.classic(second, STABLE, tuple(9 * n for n in stable))
        if second >= 0:
            world.classic(second, CANARY, canary)


# ── labels ────────────────────────────────────────────────────────────────────────────────────


async def test_a_canary_that_predicts_like_stable_is_healthy() -> None:
    world = World()
    play_labels(world, GOOD, GOOD)
    answer = await world.look(60.2, subject_of(LABELS))
    assert answer.verdict is Verdict.HEALTHY
    assert answer.message.startswith("PSI 0 from stable; 1,200 observations of the canary, 10,800 ")


async def test_a_canary_that_predicts_otherwise_is_harm_and_says_where_it_moved() -> None:
    world = World()
    play_labels(world, BAD, GOOD)
    answer = await world.look(60.2, subject_of(LABELS))
    assert answer.verdict is Verdict.HARM
    assert "most by spam: 60.0 %" in answer.message
    assert answer.evidence is not None
    assert answer.evidence.log_e > answer.evidence.log_needed


async def test_looks_and_a_restart_give_the_same_evidence() -> None:
    world = World()
    play_labels(world, BAD, GOOD)
    subject = subject_of(LABELS)
    for second in range(5, 60, 5):
        await world.look(second + 0.2, subject)
    assert await world.look(60.2, subject) == await world.look(60.2, subject, world.fresh())


async def test_a_step_counts_observations() -> None:
    world = World()
    play_labels(world, GOOD, GOOD)
    answer = await world.look(60.2, subject_of(LABELS, min_requests=5000))
    assert answer.verdict is Verdict.NOT_ENOUGH_DATA
    assert "of the 5,000 requests" in answer.message


async def test_no_series_of_the_canary_is_no_data_and_none_of_stable_is_trouble() -> None:
    world = World()
    empty = await world.look(1, subject_of(LABELS))
    assert empty == MetricAnswer(
        "drift",
        Verdict.NOT_ENOUGH_DATA,
        "no series of predictions for pods fraud-bbb-*: is it scraped?",
    )
    for second in range(20):
        world.labels(second, CANARY, GOOD)
    alone = await world.look(20, subject_of(LABELS))
    assert alone == MetricAnswer(
        "drift",
        Verdict.UNAVAILABLE,
        "no series of predictions for pods fraud-aaa-*: is it scraped?",
    )


async def test_series_without_the_label_are_named() -> None:
    world = World()
    for pod in (CANARY, STABLE):
        world.prom.sample(1, 3, "predictions", namespace="ml", pod=pod, other="x")
    answer = await world.look(2, subject_of(LABELS))
    assert answer.verdict is Verdict.UNAVAILABLE
    assert answer.message == (
        "series of predictions of canary and stable lack the label outcome; "
        "drift.label names the label that holds the categories"
    )


async def test_a_label_with_more_than_100_values_is_no_set_of_categories() -> None:
    world = World()
    world.labels(1, CANARY, {f"user-{i}": 1 for i in range(60)})
    world.labels(1, STABLE, {f"user-{i}": 1 for i in range(40, 101)})
    answer = await world.look(2, subject_of(LABELS))
    assert answer.verdict is Verdict.UNAVAILABLE
    assert answer.message.startswith("the label outcome of predictions has 101 values;")


async def test_the_series_of_a_drift_are_the_models_though_a_gateway_counts_requests() -> None:
    world = World()
    play_labels(world, BAD, GOOD)
    gateway = subject_of(LABELS, source={"preset": "envoyGateway"})
    assert (await world.look(60.2, gateway)).verdict is Verdict.HARM


# ── histograms ────────────────────────────────────────────────────────────────────────────────


async def test_scores_that_move_are_harm_by_a_classic_histogram() -> None:
    world = World()
    play_scores(world, SHIFTED, EVEN)
    subject = subject_of(SCORES)
    answer = await world.look(60.2, subject)
    assert answer.verdict is Verdict.HARM
    assert "most by 0.25: 5.0 % [3.1, 7.4] of the canary's 1,200, 25.0 %" in answer.message
    assert answer == await world.look(60.2, subject, world.fresh())


async def test_scores_that_do_not_move_are_healthy() -> None:
    world = World()
    play_scores(world, EVEN, EVEN)
    assert (await world.look(60.2, subject_of(SCORES))).verdict is Verdict.HEALTHY


async def test_borders_that_differ_are_named_and_whose_they_are() -> None:
    world = World()
    for second in range(11):
        world.classic(second, STABLE, EVEN)
        world.classic(second, CANARY, EVEN, (0.3, 0.5, 0.8, math.inf))
    answer = await world.look(10.2, subject_of(SCORES))
    assert answer.verdict is Verdict.UNAVAILABLE
    assert answer.message == (
        "the histograms' bucket borders differ: 0.25, 0.75 of stable but not of canary; 0.3, 0.8 "
        "of canary but not of stable; give both versions the same buckets, or name borders that "
        "all have in drift.reference"
    )


async def test_borders_that_differ_between_pods_of_a_version_are_named_with_the_pods() -> None:
    world = World()
    for second in range(11):
        world.classic(second, STABLE, EVEN)
        world.classic(second, CANARY, EVEN)
        world.classic(second, f"{CANARY}-2", EVEN, (0.25, 0.4, 0.75, math.inf))
    message = (await world.look(10.2, subject_of(SCORES))).message
    assert f"0.4 of {CANARY}-2 but not of {STABLE} and 1 more;" in message
    assert f"0.5 of {STABLE} and 1 more but not of {CANARY}-2;" in message


async def test_borders_are_equal_however_they_are_written() -> None:
    world = World()
    for second in range(-120, 61):
        world.classic(second, STABLE, (45, 45, 90), (0.5, 1.0, math.inf))
        if second >= 0:
            for le, n in (("0.5", 5), ("1", 10), ("+Inf", 20)):
                at = {"namespace": "ml", "pod": CANARY, "le": le}
                self_count = world.count(CANARY, le, n)
                world.prom.sample(second, self_count, "score_bucket", **at)
    assert (await world.look(60.2, subject_of(SCORES))).verdict is Verdict.HEALTHY


@pytest.mark.parametrize(
    ("canary", "verdict"), [(custom(SHIFTED), Verdict.HARM), (custom(EVEN), Verdict.HEALTHY)]
)
async def test_a_native_histogram_with_custom_buckets_is_as_good_as_a_classic_one(
    canary: dict[tuple[float, float], int], verdict: Verdict
) -> None:
    world = World()
    for second in range(-120, 61):
        world.native(second, STABLE, {k: 9 * n for k, n in custom(EVEN).items()})
        if second >= 0:
            world.native(second, CANARY, canary)
    native = await world.look(60.2, subject_of(SCORES))
    assert native.verdict is verdict
    same = World()
    play_scores(same, tuple(canary.values()), EVEN)
    assert native == await same.look(60.2, subject_of(SCORES))


async def test_only_the_kind_that_is_there_is_asked_for_once_it_is_known() -> None:
    world = World()
    subject = subject_of(SCORES)
    for second in range(21):
        world.native(second, STABLE, custom(EVEN))
    await world.look(5, subject)
    names = [query.partition("{")[0] for query in world.prom.queries]
    assert names == ["score", "score_bucket"] * 3, "in each portion"
    for second in range(6, 21):
        world.native(second, CANARY, custom(EVEN))
    await world.look(10, subject)
    world.prom.queries.clear()
    await world.look(15, subject)
    assert [query.partition("{")[0] for query in world.prom.queries] == ["score"]


async def test_the_past_of_native_histograms_is_asked_for_in_shorter_portions() -> None:
    """Each is as large as many samples."""
    world = World()
    subject = subject_of(SCORES)
    for second in range(-300, 1501):
        world.native(second, STABLE, custom(EVEN))
        if second >= 0:
            world.native(second, CANARY, custom(EVEN))
    for second in range(20, 1500, 100):
        await world.look(second, subject)
    answer = await world.look(1500.2, subject)
    assert answer.message.startswith("PSI 0 from stable")
    world.prom.queries.clear()
    assert await world.look(1500.2, subject, world.fresh()) == answer
    seconds = [
        int(query.rpartition("[")[2].removesuffix("ms]")) / 1000
        for query in world.prom.queries
        if query.startswith("score{")
    ]
    assert sum(seconds) == pytest.approx(1800.2)
    assert max(seconds[3:]) * 2 * HISTOGRAM_WEIGHS <= 1.1 * PORTION_SAMPLES


async def test_one_pod_with_the_one_kind_and_one_with_the_other_are_refused() -> None:
    world = World()
    for second in range(11):
        world.native(second, STABLE, custom(EVEN))
        world.classic(second, CANARY, EVEN)
    answer = await world.look(10.2, subject_of(SCORES))
    assert answer.verdict is Verdict.UNAVAILABLE
    assert answer.message.startswith(
        f"pod {CANARY} has a classic histogram and pod {STABLE} a native one"
    )


NUMBERS = {0.3: 4, 0.6: 6, 1.3: 8, 2.5: 2}
HIGHER = {0.3: 1, 0.6: 2, 1.3: 5, 2.5: 12}


@pytest.mark.parametrize(("canary", "verdict"), [(NUMBERS, "healthy"), (HIGHER, "harm")])
async def test_exponential_histograms_of_two_schemas_are_compared_by_the_coarser(
    canary: dict[float, int], verdict: str
) -> None:
    world = World()
    subject = subject_of(SCORES)
    for second in range(-120, 61):
        world.native(second, STABLE, exponential(0, {k: 9 * n for k, n in NUMBERS.items()}))
        if second >= 0:
            world.native(second, CANARY, exponential(3, canary))
        if second >= 0 and second % 5 == 0:
            await world.look(second + 0.2, subject)
    answer = await world.look(60.2, subject)
    assert answer.verdict == verdict
    assert answer == await world.look(60.2, subject, world.fresh())


async def test_a_schema_that_gets_coarser_in_the_middle_counts_from_the_beginning() -> None:
    """A client library halves the resolution when it has too many buckets."""
    world, coarse = World(), World()
    subject = subject_of(SCORES)
    for second in range(-120, 61):
        world.native(second, STABLE, exponential(3, {k: 9 * n for k, n in NUMBERS.items()}))
        coarse.native(second, STABLE, exponential(0, {k: 9 * n for k, n in NUMBERS.items()}))
        if second >= 0:
            if second == 30:
                for part in [key for key in world.total if key[0] == CANARY]:
                    del world.total[part]
                for bucket, n in exponential(0, {k: 30 * n for k, n in NUMBERS.items()}).items():
                    world.count(CANARY, f"{bucket[0]}-{bucket[1]}", n)
            world.native(second, CANARY, exponential(3 if second < 30 else 0, NUMBERS))
            coarse.native(second, CANARY, exponential(0, NUMBERS))
            await world.look(second + 0.2, subject)
    expected = await coarse.look(60.2, subject)
    assert await world.look(60.2, subject) == expected
    assert expected.verdict is Verdict.HEALTHY


async def test_a_reset_is_one_of_the_whole_histogram() -> None:
    """After it one bucket has more than before and another less; both count from 0."""
    world = World()
    subject = subject_of(SCORES, {"warmupSeconds": 0})
    before, after = {(1.0, 2.0): 10, (2.0, 4.0): 90}, {(1.0, 2.0): 60, (2.0, 4.0): 10}
    for second in range(61):
        world.native(second, STABLE, {(1.0, 2.0): 90, (2.0, 4.0): 90})
    for second, buckets in ((5, {}), (10, before), (15, after)):
        rows = [[0, *bucket, n] for bucket, n in buckets.items()]
        world.prom.native(second, rows, "score", namespace="ml", pod=CANARY)
    answer = await world.look(20, subject)
    # 10 + 60 and 90 + 10: taken bucket by bucket it were 10 + 50 and 90 + 10.
    assert "of the canary's 170" in answer.message


async def test_zeros_and_negative_numbers_are_categories_of_their_own() -> None:
    world = World()
    tiny = 2.938735877055719e-39
    for second in range(-120, 61):
        for pod, zeros in ((STABLE, 9), (CANARY, 27)):
            if pod == CANARY and second < 0:
                continue
            rows = [
                [1, -2.0, -1.0, world.count(pod, "below", 10)],
                [3, -tiny, tiny, world.count(pod, "zero", zeros)],
                [0, 1.0, 2.0, world.count(pod, "above", 10)],
            ]
            world.prom.native(second, rows, "score", namespace="ml", pod=pod)
    answer = await world.look(60.2, subject_of(SCORES))
    assert answer.verdict is Verdict.HARM
    assert "most by 0: " in answer.message


async def test_an_answer_that_is_no_histogram_is_refused() -> None:
    world = World()
    key = (("__name__", "score"), ("namespace", "ml"), ("pod", CANARY))
    world.prom.natives[key] = [(START + 1, {"buckets": [["x"]]})]
    answer = await world.look(2, subject_of(SCORES))
    assert answer.verdict is Verdict.UNAVAILABLE
    assert answer.message == "Prometheus gave a histogram that is not understood"


# ── references ────────────────────────────────────────────────────────────────────────────────


def with_shares(drift: dict[str, Any], **shares: float) -> dict[str, Any]:
    listed = [{"value": value, "weight": weight} for value, weight in shares.items()]
    return {**drift, "reference": {"shares": listed}}


def with_config_map(drift: dict[str, Any]) -> dict[str, Any]:
    return {**drift, "reference": {"configMap": {"name": "training", "key": "shares"}}}


async def test_a_canary_that_left_the_reference_alone_is_harm() -> None:
    world = World()
    play_labels(world, BAD, GOOD)
    answer = await world.look(60.2, subject_of(with_shares(LABELS, spam=10, ham=90)))
    assert answer.verdict is Verdict.HARM
    assert "from the reference" in answer.message
    assert answer.alert == ""


async def test_when_stable_left_the_reference_too_the_inputs_moved_and_nobody_is_blamed() -> None:
    world = World()
    play_labels(world, BAD, BAD)
    answer = await world.look(60.2, subject_of(with_shares(LABELS, spam=10, ham=90)))
    assert answer.verdict is Verdict.UNAVAILABLE
    assert answer.alert.startswith("the inputs moved: ")


async def test_a_label_of_stable_that_the_reference_lacks_is_named() -> None:
    world = World()
    play_labels(world, GOOD, GOOD)
    answer = await world.look(60.2, subject_of(with_shares(LABELS, Spam=10, Ham=90)))
    assert answer.verdict is Verdict.UNAVAILABLE
    assert answer.message == (
        "stable has outcome ham, spam, which the reference lacks; it has Spam, Ham: write what is "
        "missing, with 0 if it is not expected"
    )


async def test_a_label_that_only_the_canary_has_is_no_mistake_of_the_reference() -> None:
    world = World()
    play_labels(world, {"ham": 8, "eggs": 12}, {"ham": 18, "spam": 2})
    answer = await world.look(60.2, subject_of(with_shares(LABELS, spam=10, ham=90)))
    assert answer.verdict is Verdict.HARM


async def test_a_reference_may_have_fewer_borders_than_the_histogram() -> None:
    world = World()
    play_scores(world, SHIFTED, EVEN)
    coarse = with_shares(SCORES, **{"0.50": 1, "Inf": 1})
    answer = await world.look(60.2, subject_of(coarse))
    assert answer.verdict is Verdict.HARM
    assert "most by 0.5: 15.0 %" in answer.message


async def test_a_reference_makes_histograms_of_unlike_borders_comparable() -> None:
    world = World()
    for second in range(-120, 61):
        world.classic(second, STABLE, (45, 45, 90), (0.25, 0.5, math.inf))
        if second >= 0:
            world.classic(second, CANARY, (10, 5, 5), (0.5, 0.75, math.inf))
    both = with_shares(SCORES, **{"0.5": 1, "+Inf": 1})
    assert (await world.look(60.2, subject_of(both))).verdict is Verdict.HEALTHY


async def test_a_border_of_the_reference_inside_of_a_bucket_is_named() -> None:
    world = World()
    play_scores(world, EVEN, EVEN)
    answer = await world.look(60.2, subject_of(with_shares(SCORES, **{"0.4": 1, "+Inf": 1})))
    assert answer.verdict is Verdict.UNAVAILABLE
    assert answer.message == (
        "the reference has the border 0.4, which is inside of the bucket from 0.25 to 0.5 of "
        "score; the nearest borders are 0.25, 0.5, 0.75"
    )


@pytest.mark.parametrize(
    ("shares", "message"),
    [
        ({"low": 1, "high": 2}, "the reference names low, which is no bucket border; write the"),
        ({"1": 1, "1.0": 2}, "the reference names the border 1 twice"),
        ({"1": 0, "2": 0}, "drift.reference.shares has only zeros"),
    ],
)
async def test_a_reference_that_is_none_of_a_histogram_is_refused(
    shares: dict[str, float], message: str
) -> None:
    answer = await World().look(1, subject_of(with_shares(SCORES, **shares)))
    assert answer.verdict is Verdict.UNAVAILABLE
    assert answer.message.startswith(message)


async def test_a_config_map_is_read_once_a_minute_and_a_changed_one_starts_anew() -> None:
    world = World()
    play_labels(world, BAD, GOOD)
    subject = subject_of(with_config_map(LABELS))
    world.config_maps.maps["training"] = {"shares": "spam: 10\nham: 90\n"}
    assert (await world.look(60.2, subject)).verdict is Verdict.HARM
    world.config_maps.maps["training"] = {"shares": '{"spam": 0.6, "ham": 0.4}'}
    assert (await world.look(60.3, subject)).verdict is Verdict.HARM
    assert world.config_maps.reads == 1
    world.clock = 60
    answer = await world.look(60.4, subject)
    assert world.config_maps.reads == 2
    assert answer.alert.startswith("the inputs moved: stable is at")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "is no YAML: "),
        ("[" * 5000, "is no YAML: "),
        ("- spam\n- ham", "is no mapping; write each label's value"),
        ("spam: lots\nham: 1", "has no number for spam"),
        ("spam: {}\nham: 1", "has no number for spam"),
        ("spam: -1\nham: 1", "has -1 for spam; write a number from 0 on"),
        ("spam: .inf\nham: 1", "has no number for spam"),
        ("spam: inf\nham: 1", "has inf for spam; write a number from 0 on"),
        ("spam: 1", "has 1 entries; write 2 to 200"),
        ("", "is no mapping; write each label's value"),
        ("spam: 0\nham: 0", "has only zeros"),
    ],
)
async def test_a_config_map_that_is_no_distribution_is_refused(text: str, message: str) -> None:
    world = World()
    world.config_maps.maps["training"] = {"shares": text}
    answer = await world.look(1, subject_of(with_config_map(LABELS)))
    assert answer.verdict is Verdict.UNAVAILABLE
    assert answer.message.startswith(f"key shares of ConfigMap ml/training {message}")


async def test_the_example_is_read_as_it_is_meant() -> None:
    config_map, deployment = yaml.safe_load_all(EXAMPLE.read_text())
    drift = deployment["spec"]["analysis"]["metrics"][2]["drift"]
    name = drift["reference"]["configMap"]["name"]
    world = World(config_maps=ConfigMaps({name: config_map["data"]}))
    for second in range(-120, 61):
        rates = (8145, 1421, 312, 122)
        world.classic(second, STABLE, rates, (0.1, 0.5, 0.9, math.inf))
        if second >= 0:
            world.classic(second, CANARY, rates, (0.1, 0.5, 0.9, math.inf))
    subject = subject_of({**drift, "histogram": "score"})
    answer = await world.look(60.2, subject)
    assert (answer.verdict, answer.alert) == (Verdict.HEALTHY, "")


async def test_texts_of_a_config_map_are_taken_as_they_are_written() -> None:
    world = World()
    play_labels(world, {"no": 2, "1": 18}, {"no": 2, "1": 18})
    world.config_maps.maps["training"] = {"shares": "no: 1\n1: 9\n"}
    answer = await world.look(60.2, subject_of(with_config_map(LABELS)))
    assert answer.verdict is Verdict.HEALTHY


@pytest.mark.parametrize(
    ("maps", "message"),
    [
        ({}, "there is no ConfigMap training in namespace ml"),
        ({"training": {"other": ""}}, "ConfigMap ml/training has no key shares"),
        (
            {"training": ClusterError("configmaps is forbidden")},
            "ConfigMap ml/training cannot be read: configmaps is forbidden",
        ),
    ],
)
async def test_a_config_map_that_is_not_there_is_named(maps: dict[str, Any], message: str) -> None:
    world = World(config_maps=ConfigMaps(maps))
    answer = await world.look(1, subject_of(with_config_map(LABELS)))
    assert answer == MetricAnswer("drift", Verdict.UNAVAILABLE, message)


async def test_without_a_cluster_no_config_map_is_read() -> None:
    world = World()
    analyst = PrometheusAnalyst(world.prom, Secrets(), lambda: 0.0)
    answer = await world.look(1, subject_of(with_config_map(LABELS)), analyst)
    assert answer.message == (
        "ConfigMap ml/training cannot be read: there is no cluster here; write the distribution "
        "in reference.shares"
    )


def before(drift: dict[str, Any]) -> dict[str, Any]:
    return {**drift, "reference": {"stableBeforeSeconds": 600}}


PODS = 'namespace=~"ml",pod=~"(fraud-aaa-).*"'
AT = START - 1


async def test_what_stable_showed_before_is_asked_for_once() -> None:
    world = World()
    play_labels(world, BAD, GOOD)
    world.prom.points[f"sum by (outcome) (increase(predictions{{{PODS}}}[600s]))"] = [
        RawSeries({"outcome": "spam"}, [(AT, "1000.5")]),
        RawSeries({"outcome": "ham"}, [(AT, "9003.1")]),
    ]
    subject = subject_of(before(LABELS))
    answer = await world.look(60.2, subject)
    assert answer.verdict is Verdict.HARM
    assert "from the reference" in answer.message
    world.prom.queries.clear()
    await world.look(60.3, subject)
    assert not any("increase" in query for query in world.prom.queries)
    assert answer == await world.look(60.2, subject, world.fresh())


async def test_the_inputs_moved_when_stable_left_its_own_past() -> None:
    world = World()
    play_scores(world, SHIFTED, SHIFTED)
    cumulative = (("0.25", 100), ("0.5", 200), ("0.75", 300), ("+Inf", 400))
    world.prom.points[f"sum by (le) (increase(score_bucket{{{PODS}}}[600s]))"] = [
        RawSeries({"le": le}, [(AT, str(n))]) for le, n in cumulative
    ]
    answer = await world.look(60.2, subject_of(before(SCORES)))
    assert answer.verdict is Verdict.UNAVAILABLE
    assert answer.alert.startswith("the inputs moved: ")


async def test_the_past_of_a_native_histogram_is_merged_like_what_follows() -> None:
    world = World()
    for second in range(-120, 61):
        world.native(second, STABLE, exponential(0, {k: 9 * n for k, n in HIGHER.items()}))
        if second >= 0:
            world.native(second, CANARY, exponential(0, HIGHER))
    past = [
        [0, str(left), str(right), str(1000 * n)]
        for (left, right), n in exponential(2, NUMBERS).items()
    ]
    world.prom.points[f"sum (increase(score{{{PODS}}}[600s]))"] = [
        RawSeries({}, [], [(AT, {"count": "1", "sum": "1", "buckets": past})])
    ]
    answer = await world.look(60.2, subject_of(before(SCORES)))
    assert answer.alert.startswith("the inputs moved: stable is at PSI")
    world.prom.points.clear()
    fresh = await world.look(60.2, subject_of(before(SCORES)), world.fresh())
    assert fresh.message == (
        "stable counted nothing of score in the 600 s before the canary had traffic; "
        "give another reference"
    )


async def test_in_probation_there_is_nothing_to_compare_with_but_a_reference() -> None:
    world = World()
    play_labels(world, GOOD, GOOD)
    alone = {"stable": None}
    for drift in (LABELS, before(LABELS)):
        answer = await world.look(60.2, subject_of(drift, **alone))
        assert answer.verdict is Verdict.NOT_ENOUGH_DATA
        assert answer.message.startswith("nothing to compare with")
    shares = with_shares(LABELS, spam=10, ham=90)
    assert (await world.look(60.2, subject_of(shares, **alone))).verdict is Verdict.HEALTHY


async def test_versions_may_be_told_apart_by_a_label() -> None:
    world = World()
    for second in range(-120, 61):
        for version, rates in (("1", GOOD), ("2", BAD)):
            for value, rate in rates.items():
                at = {"model_version": version, "outcome": value, "instance": "evaluator"}
                total = world.count(version, value, rate)
                world.prom.sample(second, total, "predictions", **at)
    source = {"requests": "total", "versionLabel": "model_version"}
    subject = subject_of(LABELS, source=source, canary=Arm("bbb", "2"), stable=Arm("aaa", "1"))
    assert (await world.look(60.2, subject)).verdict is Verdict.HARM
