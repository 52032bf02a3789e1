"""What a sidecar counts, read back by prometheus_client's own parser."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from crossfade.sidecar.config import Config, Fallback, Observed, Target
from crossfade.sidecar.messages import Reason, Violation
from crossfade.sidecar.metrics import DURATIONS, MAX_CHARACTERS, MAX_LABELS, MAX_PAIRS, Metrics

SCORE = Observed(name="score", json_path="$.score", buckets=(0.25, 0.5))
LOGIT = Observed(name="logit", json_path="$.logit", buckets=(-1.0, 0.0, 1.0))
LABEL = Observed(name="class", json_path="$.class", type="label")
KNOWN = Observed(name="colour", json_path="$.colour", type="label", labels=("red", "blue"))


def config(
    predictions: Sequence[Observed] = (),
    features: Sequence[Observed] = (),
    targets: Sequence[Target] = (),
) -> Config:
    return Config(
        namespace="shop",
        name="ranker",
        model="ranker",
        version="2",
        revision="abc12",
        port=8012,
        admin_port=8013,
        model_port=8080,
        predictions=tuple(predictions),
        features=tuple(features),
        fallback=Fallback(targets=tuple(targets)) if targets else None,
    )


def samples(metrics: Metrics) -> dict[tuple[str, tuple[str, ...]], float]:
    """Return each sample by its name and its label values, in the order of the labels' names."""
    families = text_string_to_metric_families(metrics.render().decode())
    return {
        (sample.name, tuple(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


def buckets(metrics: Metrics, name: str, of: str) -> dict[str, float]:
    """Return the cumulative counts of a name's histogram by border."""
    found = samples(metrics)
    return {
        labels[0]: value
        for (sample, labels), value in found.items()
        if sample == f"{name}_bucket" and labels[1:] == (of,)
    }


def test_what_evidence_needs_is_there_before_the_first_request() -> None:
    targets = [Target(name="stable", host="ranker", port=80), Target(name="static")]
    found = samples(Metrics(config([SCORE, KNOWN], [LABEL], targets)))
    zeros = [
        *(("crossfade_model_requests_total", (code,)) for code in ("200", "500", "502", "504")),
        ("crossfade_model_requests_total", ("503",)),
        ("crossfade_model_request_duration_seconds_count", ()),
        ("crossfade_inputs_total", ("rejected",)),
        ("crossfade_predictions_count", ("score",)),
        ("crossfade_predictions_bucket", ("+Inf", "score")),
        ("crossfade_prediction_labels_total", ("red", "colour")),
        ("crossfade_prediction_labels_total", ("other", "colour")),
        ("crossfade_feature_labels_total", ("other", "class")),
        *(("crossfade_fallbacks_total", (reason.value, "stable")) for reason in Reason),
        ("crossfade_fallback_failures_total", ("timeout", "static")),
        ("crossfade_fallback_drill_ok", ("stable",)),
        ("crossfade_circuit_open", ()),
        ("crossfade_recorded_total", ()),
    ]
    assert {key: found.get(key) for key in zeros} == dict.fromkeys(zeros, 0.0)


def test_a_request_counts_by_its_code_and_its_duration() -> None:
    metrics = Metrics(config())
    metrics.model_answered(200, 0.001)
    metrics.model_answered(200, 0.3)
    metrics.model_answered(418, 100)
    found = samples(metrics)
    assert found["crossfade_model_requests_total", ("200",)] == 2
    assert found["crossfade_model_requests_total", ("418",)] == 1
    name = "crossfade_model_request_duration_seconds"
    assert found[f"{name}_bucket", ("0.001",)] == 1  # a border is in its bucket
    assert found[f"{name}_bucket", ("0.25",)] == 1
    assert found[f"{name}_bucket", ("0.3",)] == 2
    assert found[f"{name}_bucket", ("60.0",)] == 2
    assert found[f"{name}_bucket", ("+Inf",)] == 3
    assert found[f"{name}_count", ()] == 3
    assert found[f"{name}_sum", ()] == pytest.approx(100.301)


def test_durations_are_told_apart_from_a_millisecond_to_a_minute() -> None:
    assert (DURATIONS[0], DURATIONS[-1]) == (0.001, 60.0)
    assert list(DURATIONS) == sorted(set(DURATIONS))


@pytest.mark.parametrize("code", [-1, 0, 99, 600, 100_000])
def test_a_code_that_is_none_is_not_a_series_of_its_own(code: int) -> None:
    metrics = Metrics(config())
    metrics.model_answered(code, 0.1)
    assert samples(metrics)["crossfade_model_requests_total", ("(other)",)] == 1


def test_what_happens_is_counted_where_it_belongs() -> None:
    metrics = Metrics(config(targets=[Target(name="stable", host="ranker", port=80)]))
    metrics.input_checked("logged")
    metrics.violated(Violation("age", "minimum", "must be at least 18"))
    metrics.fell_back("stable", Reason.OPEN_CIRCUIT)
    metrics.fallback_failed("stable", "budget")
    metrics.circuit(is_open=True)
    metrics.drilled("stable", ok=True)
    metrics.recorded()
    metrics.unobserved("predictions.score", "null", 3)
    found = samples(metrics)
    assert found["crossfade_inputs_total", ("logged",)] == 1
    assert found["crossfade_input_violations_total", ("age", "minimum")] == 1
    assert found["crossfade_fallbacks_total", ("openCircuit", "stable")] == 1
    assert found["crossfade_fallback_failures_total", ("budget", "stable")] == 1
    assert found["crossfade_circuit_open", ()] == 1
    assert found["crossfade_fallback_drill_ok", ("stable",)] == 1
    assert found["crossfade_recorded_total", ()] == 1
    assert found["crossfade_unobserved_total", ("predictions.score", "null")] == 3
    metrics.circuit(is_open=False)
    metrics.drilled("stable", ok=False)
    found = samples(metrics)
    assert found["crossfade_circuit_open", ()] == 0
    assert found["crossfade_fallback_drill_ok", ("stable",)] == 0


def test_names_have_borders_of_their_own_in_one_family() -> None:
    metrics = Metrics(config([SCORE, LOGIT]))
    metrics.observed_numbers("predictions", "score", [0.1, 0.25, 0.6])
    metrics.observed_numbers("predictions", "logit", [-2.0, -0.5])
    assert buckets(metrics, "crossfade_predictions", "score") == {"0.25": 2, "0.5": 2, "+Inf": 3}
    assert buckets(metrics, "crossfade_predictions", "logit") == {
        "-1.0": 1,
        "0.0": 2,
        "1.0": 2,
        "+Inf": 2,
    }
    assert metrics.render().count(b"# TYPE crossfade_predictions histogram\n") == 1
    # A negative border does not cost the count.
    assert samples(metrics)["crossfade_predictions_count", ("logit",)] == 2
    assert samples(metrics)["crossfade_predictions_sum", ("logit",)] == -2.5


def test_a_feature_and_a_prediction_of_one_name_are_two() -> None:
    metrics = Metrics(config([SCORE], [SCORE]))
    metrics.observed_numbers("features", "score", [0.1])
    assert samples(metrics)["crossfade_features_count", ("score",)] == 1
    assert samples(metrics)["crossfade_predictions_count", ("score",)] == 0


@given(values=st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=20))
def test_every_number_is_in_one_bucket(values: list[float]) -> None:
    metrics = Metrics(config([LOGIT]))
    metrics.observed_numbers("predictions", "logit", values)
    expected = {str(at): sum(value <= at for value in values) for at in LOGIT.buckets}
    found = buckets(metrics, "crossfade_predictions", "logit")
    assert found == {**expected, "+Inf": len(values)}


@pytest.mark.parametrize("borders", [(1.0, 1.0), (2.0, 1.0), (0.0, float("inf"))])
def test_borders_that_do_not_rise_are_refused(borders: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="must rise and be finite"):
        Metrics(config([Observed(name="score", json_path="$.score", buckets=borders)]))


def test_labels_that_are_listed_are_told_apart_and_no_others() -> None:
    metrics = Metrics(config([KNOWN]))
    metrics.observed_labels("predictions", "colour", ["red", "green", "violet", "red"])
    found = samples(metrics)
    of_colour = {labels[0]: value for (_, labels), value in found.items() if "colour" in labels}
    assert of_colour == {"red": 2, "blue": 0, "other": 2}


def test_of_labels_that_are_not_listed_the_first_fifty_are_told_apart() -> None:
    metrics = Metrics(config([LABEL]))
    names = [f"class {number}" for number in range(MAX_LABELS + 7)]
    metrics.observed_labels("predictions", "class", names + names)
    found = {
        labels[0]: value for (_, labels), value in samples(metrics).items() if "class" in labels
    }
    assert found == {**dict.fromkeys(names[:MAX_LABELS], 2), "other": 14}


def test_pairs_have_a_bound_whatever_comes() -> None:
    metrics = Metrics(config())
    for number in range(MAX_PAIRS + 20):
        metrics.violated(Violation(f"items[{number}]", "type", ""))
        metrics.violated(Violation(f"items[{number}]", "type", ""))
    violations = {
        labels: value
        for (name, labels), value in samples(metrics).items()
        if name == "crossfade_input_violations_total"
    }
    assert len(violations) == MAX_PAIRS + 1
    assert violations["items[0]", "type"] == 2
    assert violations["(other)", "(other)"] == 40


@given(
    labels=st.lists(st.text(st.characters(exclude_categories=[])), max_size=70),
    field=st.text(st.characters(exclude_categories=[])),
)
def test_whatever_clients_send_prometheus_can_read(labels: list[str], field: str) -> None:
    metrics = Metrics(config([LABEL]))
    metrics.observed_labels("predictions", "class", labels)
    metrics.violated(Violation(field, "type", ""))
    found = samples(metrics)
    observed = {
        key[0]: value
        for (name, key), value in found.items()
        if name == "crossfade_prediction_labels_total"
    }
    assert sum(observed.values()) == len(labels)
    assert len(observed) <= MAX_LABELS + 1
    assert all(0 < len(label) <= MAX_CHARACTERS for label in observed)


def test_an_empty_label_is_one_that_prometheus_keeps() -> None:
    metrics = Metrics(config([LABEL]))
    metrics.observed_labels("predictions", "class", [""])
    assert samples(metrics)["crossfade_prediction_labels_total", ("(empty)", "class")] == 1


def test_only_counts_and_the_process_are_exported() -> None:
    names = {name for name, _ in samples(Metrics(config([SCORE], [LABEL])))}
    assert not {name for name in names if name.endswith("_created")}
    assert {name.partition("_")[0] for name in names} == {"crossfade", "process"}


def test_two_sidecars_metrics_in_one_process_do_not_meet() -> None:
    first, second = Metrics(config()), Metrics(config())
    first.recorded()
    assert samples(second)["crossfade_recorded_total", ()] == 0
