"""Each preset against what its program exposes: ``expositions/*.txt`` say where they are from."""

from __future__ import annotations

import asyncio
import re
from datetime import timedelta
from pathlib import Path
from typing import Any, get_args

import pytest
from msgspec import structs

from crossfade.api import defaults
from crossfade.api.v1alpha1 import Analysis, Metric, Source
from crossfade.core.observation import UNSEEN
from crossfade.errors import InvalidSpecError
from crossfade.evidence.counters import Side
from crossfade.metrics.analyst import Arm
from crossfade.metrics.arms import Arms
from crossfade.metrics.batching import Batcher, marked
from crossfade.metrics.endpoints import Endpoint
from crossfade.metrics.presets import PRESETS
from crossfade.metrics.selectors import parse_selector
from crossfade.metrics.sources import plan_of
from crossfade.names import NamespacedName
from crossfade.sidecar.config import Config, Fallback, Observed, Target
from crossfade.sidecar.messages import Reason
from crossfade.sidecar.metrics import Metrics
from tests.unit.test_metrics_analyst import SINCE, START, FakeProm, World, subject_of

EXPOSITIONS = Path(__file__).parent / "expositions"
ENDPOINT = Endpoint("http://p:9090")
CANARY, STABLE = Arm("bbbbbbbb", "2"), Arm("aaaaaaaa", "1")
POD = {"namespace": "ml", "pod": "fraud-bbbbbbbb-7d9f-x2x4", "instance": "10.0.0.1:8080"}
GATEWAY = {"namespace": "gateways", "pod": "gateway-5d6c-q8q9", "instance": "10.0.0.2:9100"}
_SERIES = re.compile(r"(?P<name>[\w:]+)(?:\{(?P<labels>.*)\})? (?P<value>\S+)")
_LABEL = re.compile(r'(\w+)="([^"]*)"')


def scraped(preset: str, **target: str) -> FakeProm:
    """Return a Prometheus that scraped an exposition once."""
    prom = FakeProm()
    scrape(prom, preset, **target)
    return prom


def scrape(prom: FakeProm, preset: str, **target: str) -> None:
    scrape_text(prom, (EXPOSITIONS / f"{preset}.txt").read_text(), **target)


def scrape_text(prom: FakeProm, text: str, **target: str) -> None:
    for line in text.splitlines():
        found = None if line.startswith("#") else _SERIES.fullmatch(line)
        if found is not None:
            labels = dict(_LABEL.findall(found["labels"] or ""))
            prom.sample(10, float(found["value"]), found["name"], **labels, **target)


def analysis_of(preset: str, metric: dict[str, Any], **source: Any) -> Analysis:
    return Analysis.model_validate(
        {
            "prometheus": {"address": "http://p:9090"},
            "source": {"preset": preset, **source},
            "metrics": [{"name": "m", **metric}],
        }
    )


async def counted(prom: FakeProm, analysis: Analysis) -> dict[tuple[Side, str], tuple[int, int]]:
    """Return the requests and the bad ones of each side, by the process that counts."""
    plan = plan_of(analysis, analysis.metrics[0])
    arms = Arms(NamespacedName("ml", "fraud"), plan.join, CANARY, STABLE)
    batcher = Batcher(prom)
    counts: dict[tuple[Side, str], tuple[int, int]] = {}
    for term in plan.terms:
        question = arms.question(ENDPOINT, term.selector, START, START + 11)
        for series in await batcher.samples(question):
            owner = arms.owner(series)
            assert owner is not None
            requests, bad = counts.get(owner, (0, 0))
            value = int(float(series.values[-1][1]))
            counts[owner] = (requests + value * term.requests, bad + value * term.bad)
    return counts


ERRORS: dict[str, Any] = {"errorRate": {"maxPercent": 5}}
TOLD = Config(
    namespace="ml",
    name="fraud",
    model="fraud",
    version="2",
    revision="bbbbbbbb",
    port=8012,
    admin_port=8013,
    model_port=8080,
    features=(
        Observed(name="age", json_path="$.age", buckets=(1,)),
        Observed(name="city", json_path="$.city", type="label"),
    ),
    predictions=(
        Observed(name="score", json_path="$.score", buckets=(1,)),
        Observed(name="class", json_path="$.class", type="label"),
    ),
    fallback=Fallback(targets=(Target(name="static"),)),
)


def slower_than(milliseconds: float) -> dict[str, Any]:
    return {"latency": {"maxMilliseconds": milliseconds, "maxSlowPercent": 5}}


def test_there_is_a_row_for_each_literal() -> None:
    field = Source.model_fields["preset"].annotation
    literals = {one for part in get_args(field) for one in get_args(part)}
    assert literals == set(PRESETS)


@pytest.mark.parametrize("preset", PRESETS)
def test_names_selectors(preset: str) -> None:
    row = PRESETS[preset]
    for text in (*row.requests, *row.errors, *([row.latency] if row.latency else [])):
        assert str(parse_selector(text)) == text


@pytest.mark.parametrize(
    ("preset", "metric", "expected"),
    [
        ("mlserver", ERRORS, (11, 6)),
        ("mlserver", slower_than(10), (11, 2)),
        ("triton", ERRORS, (167, 6)),
        ("vllm", ERRORS, (300, 4)),
        ("vllm", slower_than(1000), (291, 10)),
        ("kserve", slower_than(500), (60, 3)),
        ("torchserve", ERRORS, (3, 1)),
        ("tensorflowServing", ERRORS, (100, 1)),
        ("tensorflowServing", slower_than(708.235), (96, 16)),
        ("tensorflowServing", slower_than(13382.6), (96, 1)),
        ("istio", ERRORS, (100, 10)),
        ("istio", slower_than(250), (90, 10)),
    ],
)
async def test_counts_what_a_pod_exposes(
    preset: str, metric: dict[str, Any], expected: tuple[int, int]
) -> None:
    prom = scraped(preset, **POD)
    scrape(prom, preset, **{**POD, "pod": "fraud-cccccccc-7d9f-x2x4"})
    scrape(prom, preset, **{**POD, "namespace": "others"})
    found = await counted(prom, analysis_of(preset, metric))
    assert found == {(Side.CANARY, POD["pod"]): expected}


@pytest.mark.parametrize(("metric", "expected"), [(ERRORS, (4, 2)), (slower_than(250), (4, 1))])
async def test_counts_what_the_sidecar_exposes(
    metric: dict[str, Any], expected: tuple[int, int]
) -> None:
    metrics = Metrics(structs.replace(TOLD, features=(), predictions=()))
    for code, seconds in ((200, 0.01), (422, 0.02), (504, 3), (500, 0.25)):
        metrics.model_answered(code, seconds)
    metrics.input_checked("rejected")
    metrics.fell_back("static", Reason.TIMEOUT)
    prom = FakeProm()
    scrape_text(prom, metrics.render().decode(), **POD)
    found = await counted(prom, analysis_of("sidecar", metric))
    assert found == {(Side.CANARY, POD["pod"]): expected}


def test_drift_reads_the_series_that_the_sidecar_exposes() -> None:
    metrics = Metrics(TOLD)
    for kind, number, label in (("predictions", "score", "class"), ("features", "age", "city")):
        metrics.observed_numbers(kind, number, [0.5])  # type: ignore[arg-type]  # a literal
        metrics.observed_labels(kind, label, ["a"])  # type: ignore[arg-type]  # likewise
    exposed = metrics.render().decode()
    assert f'{defaults.PREDICTIONS}_bucket{{le="1.0",name="score"}} 1.0' in exposed
    assert f'{defaults.FEATURES}_bucket{{le="1.0",name="age"}} 1.0' in exposed
    series = f'{{{defaults.LABEL}="a",name="%s"}} 1.0'
    assert defaults.PREDICTION_LABELS + series % "class" in exposed
    assert defaults.FEATURE_LABELS + series % "city" in exposed


@pytest.mark.parametrize(
    ("preset", "metric", "canary", "stable"),
    [
        ("envoyGateway", ERRORS, (6, 3), (5, 0)),
        ("envoyGateway", slower_than(25), (5, 4), (5, 4)),
        ("traefik", ERRORS, (22, 7), (198, 0)),
        ("traefik", slower_than(100), (22, 0), (198, 9)),
    ],
)
async def test_counts_what_a_gateway_exposes(
    preset: str, metric: dict[str, Any], canary: tuple[int, int], stable: tuple[int, int]
) -> None:
    found = await counted(scraped(preset, **GATEWAY), analysis_of(preset, metric))
    process = GATEWAY["pod"]
    assert found == {(Side.CANARY, process): canary, (Side.STABLE, process): stable}


async def test_a_gateway_outside_of_the_cluster_is_known_by_its_address() -> None:
    prom = scraped("envoyGateway", instance="10.0.0.9:19001")
    found = await counted(prom, analysis_of("envoyGateway", ERRORS))
    assert {process for _, process in found} == {"10.0.0.9:19001"}


@pytest.mark.parametrize(
    ("value", "is_ours"),
    [
        ("httproute-ml-fraud-gw-gw-public-ep-web-0-ea14-svc-ml-fraud-bbbbbbbb-0@x", True),
        ("ml-fraud-bbbbbbbb-http-8080@kubernetesgateway", True),
        ("httproute-ml-fraud-gw-gw-public-ep-web-0-ea14-svc-non-ml-fraud-bbbbbbbb-0@x", False),
        ("non-ml-fraud-bbbbbbbb-http-8080@kubernetesgateway", False),
        ("httproute-ml-fraud-gw-gw-public-ep-web-0-ea14-svc-ml-fraud-bbbbbbbbb-0@x", False),
        ("httproute-ml-fraud-gw-gw-public-ep-web-0-ea14-wrr@x", False),
    ],
)
def test_tells_the_services_of_traefik_apart(value: str, is_ours: bool) -> None:
    place = PRESETS["traefik"].place
    assert place is not None
    assert marked(value, "ml-fraud-bbbbbbbb-", place.before) is is_ours


@pytest.mark.parametrize("preset", ["envoyGateway", "traefik"])
async def test_asks_a_gateway_once_for_many_rollouts(preset: str) -> None:
    prom = scraped(preset, **GATEWAY)
    batcher = Batcher(prom)
    plan = plan_of(analysis_of(preset, ERRORS), Metric.model_validate({"name": "m", **ERRORS}))
    keys = [NamespacedName("ml", name) for name in ("fraud", "other")]
    arms = [Arms(key, plan.join, CANARY, STABLE) for key in keys]
    selector = plan.terms[-1].selector
    asked = (batcher.samples(one.question(ENDPOINT, selector, START, START + 11)) for one in arms)
    ours, others = await asyncio.gather(*asked)
    assert len(prom.queries) == 1
    assert ours
    assert not others


@pytest.mark.parametrize(
    ("preset", "metric", "message"),
    [
        ("triton", slower_than(100), "has no latency histogram: name one in source.latency, or "),
        ("torchserve", slower_than(100), "has no latency histogram: "),
        ("kserve", ERRORS, "has no counter of errors: name one in source.errors, or use latency"),
    ],
)
def test_says_what_to_write_where_a_program_has_no_such_series(
    preset: str, metric: dict[str, Any], message: str
) -> None:
    analysis = analysis_of(preset, metric)
    with pytest.raises(InvalidSpecError, match=f"^preset {preset} {message}"):
        plan_of(analysis, analysis.metrics[0])


def test_a_series_that_is_named_by_hand_goes_before_the_presets() -> None:
    latency = "nv_inference_first_response_histogram_ms"
    analysis = analysis_of("triton", slower_than(500), latency=latency, latencyUnit="milliseconds")
    plan = plan_of(analysis, analysis.metrics[0])
    assert plan.terms[0].selector.name == f"{latency}_count"
    assert plan.slowness is not None
    assert plan.slowness.border == 500


def test_a_unit_that_is_named_by_hand_goes_before_the_presets() -> None:
    analysis = analysis_of("istio", slower_than(500), latency="s", latencyUnit="seconds")
    slowness = plan_of(analysis, analysis.metrics[0]).slowness
    assert slowness is not None
    assert slowness.border == 0.5


async def test_names_the_nearest_borders_in_milliseconds() -> None:
    world = World()
    scrape(world.prom, "tensorflowServing", **POD)
    subject = subject_of({"name": "m", **slower_than(1000)}, source={"preset": "tensorflowServing"},
                         canary=CANARY, stable=STABLE)  # fmt: skip
    answer = await world.look(10.2, subject)
    assert answer.message == (
        "maxMilliseconds 1000 is no bucket border of canary; the nearest are 708.235 and 13382.6"
    )


async def test_a_service_that_a_gateway_forgot_is_not_seen() -> None:
    world = World()
    service = "x-svc-ml-fraud-bbbbbbbb-1@kubernetesgateway"
    labels = {"code": "200", "service": service, **GATEWAY}
    for second in (1, 2, 3, 4):
        world.prom.sample(second, 50, "traefik_service_requests_total", **labels)
    subject = subject_of(source={"preset": "traefik"})

    async def seen(second: float) -> object:
        now = SINCE + timedelta(seconds=second)
        return await world.analyst.arrivals(subject.key, subject.analysis, CANARY, SINCE, now)

    assert await seen(5) != UNSEEN
    assert await seen(25) == UNSEEN


async def test_says_where_a_gateway_should_name_the_version() -> None:
    subject = subject_of(source={"preset": "envoyGateway"}, canary=CANARY, stable=STABLE)
    answer = await World().look(10, subject)
    assert answer.message == (
        "no series of envoy_cluster_upstream_rq_xx whose envoy_cluster_name names "
        "service/ml/fraud-bbbbbbbb/*: is it scraped?"
    )
