"""Specs and statuses are read as they were written, and what cannot be read is told to people."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft4Validator, FormatChecker

from crossfade.api.base import ApiModel
from crossfade.api.parse import dump_status, parse_spec, parse_status
from crossfade.api.schema import root_schema
from crossfade.api.v1alpha1 import (
    Condition,
    MetricStatus,
    ModelDeploymentStatus,
    Phase,
    RejectedRevision,
    RevisionStatus,
    RolloutStatus,
    StepForecast,
)
from crossfade.errors import InvalidSpecError

SPEC: dict[str, Any] = {
    "model": {"name": "fraud", "version": "1"},
    "template": {"spec": {"containers": [{"name": "model", "image": "fraud:1"}]}},
    "traffic": {"replicas": {}},
}

Built = TypeVar("Built", bound=ApiModel)

text = st.text(st.characters(codec="utf-8"), max_size=20)
count = st.integers(-1, 2**40)
moment = st.datetimes(
    datetime(1971, 1, 1),  # noqa: DTZ001 - hypothesis wants naive bounds
    timezones=st.one_of(
        st.just(UTC), st.integers(-14, 14).map(lambda h: timezone(timedelta(hours=h)))
    ),
)


def models(model: type[Built], **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Built]:
    """As st.builds, which takes the aliases for the names of the arguments."""
    return st.fixed_dictionaries(fields).map(model.model_validate)


revision = models(RevisionStatus, revision=text, version=text)
rollout = models(
    RolloutStatus,
    started_at=moment,
    step=count,
    target_weight=st.integers(0, 100),
    ready_at=st.none() | moment,
    not_ready_since=st.none() | moment,
    weighted_at=st.none() | moment,
    in_force_at=st.none() | moment,
    lost_capacity=count,
    promoted_step=st.none() | count,
    overruled=st.booleans(),
    paused_since=st.none() | moment,
    paused_seconds=count,
    deadline_passed=st.booleans(),
    warned_slow=st.booleans(),
)
rejected = models(
    RejectedRevision, revision=text, version=text, reason=text, message=text, at=moment
)
condition = models(
    Condition,
    type=text,
    status=st.sampled_from(["True", "False", "Unknown"]),
    observed_generation=count,
    last_transition_time=moment,
    reason=text,
    message=text,
)
forecast = models(
    StepForecast, weight_percent=st.integers(0, 100), requests=count, seconds=st.none() | count
)
metric = models(
    MetricStatus,
    name=text,
    verdict=text,
    message=text,
    alert=text,
    forecast=st.lists(forecast, max_size=2),
)
json_object = st.dictionaries(
    text, st.recursive(st.booleans() | count | text, lambda inner: st.lists(inner, max_size=3))
)
statuses = models(
    ModelDeploymentStatus,
    observed_generation=count,
    phase=st.sampled_from(Phase),
    stable=st.none() | revision,
    canary=st.none() | revision,
    previous=st.none() | revision,
    weight=st.integers(0, 100),
    message=text,
    rollout=st.none() | rollout,
    promoted_at=st.none() | moment,
    drained_since=st.none() | moment,
    rejected=st.lists(rejected, max_size=2),
    metrics=st.lists(metric, max_size=2),
    joined_backend=st.none() | json_object,
    conditions=st.lists(condition, max_size=2),
)


def closed(node: dict[str, Any]) -> dict[str, Any]:
    """Refuse what the API server would drop without a word."""
    node = dict(node)
    if "properties" in node:
        node["properties"] = {name: closed(it) for name, it in node["properties"].items()}
        node["additionalProperties"] = "x-kubernetes-preserve-unknown-fields" in node
    if "items" in node:
        node["items"] = closed(node["items"])
    return node


STATUS_SCHEMA = Draft4Validator(
    closed(root_schema()["properties"]["status"]), format_checker=FormatChecker()
)


def with_spec(**changes: Any) -> dict[str, Any]:
    return {"spec": SPEC | changes}


@given(statuses)
def test_a_status_is_read_as_it_was_written(status: ModelDeploymentStatus) -> None:
    assert parse_status({"status": dump_status(status)}) == status


@given(statuses)
def test_the_schema_keeps_all_of_a_status(status: ModelDeploymentStatus) -> None:
    STATUS_SCHEMA.validate(dump_status(status))


def test_time_stamps_are_written_as_kubernetes_does() -> None:
    at = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
    dumped = dump_status(ModelDeploymentStatus(promoted_at=at))
    assert dumped["promotedAt"] == "2026-11-24T12:00:00Z"


@pytest.mark.parametrize("body", [{}, {"status": None}, {"status": {}}])
def test_an_object_without_status_is_new(body: dict[str, Any]) -> None:
    assert parse_status(body) == ModelDeploymentStatus()


def test_what_a_newer_operator_wrote_is_dropped() -> None:
    assert parse_status({"status": {"weight": 5, "mood": "good"}}).weight == 5


@pytest.mark.parametrize(
    ("status", "path"),
    [
        ({"phase": "Dreaming"}, "status.phase"),
        ({"stable": {"version": "1"}}, "status.stable.revision: this field is required"),
        ("Healthy", "status: write an object here"),
        ({"promotedAt": "2026-11-24T12:00:00"}, "status.promotedAt"),
    ],
)
def test_an_unreadable_status_is_not_taken_for_a_new_one(status: object, path: str) -> None:
    with pytest.raises(InvalidSpecError, match="Nothing is changed") as error:
        parse_status({"status": status})
    assert path in str(error.value)


def test_defaults_are_filled_in() -> None:
    spec = parse_spec(with_spec())
    assert (spec.serving.port, spec.rollout.probation_seconds, spec.replicas) == (8080, 300, None)


def with_metric(**fields: Any) -> dict[str, Any]:
    metric = {"name": "one", **fields}
    return with_spec(analysis={"prometheus": {"address": "http://p"}, "metrics": [metric]})


def test_a_comparison_tolerates_a_tenth_and_a_tenth_of_a_percent_more() -> None:
    analysis = parse_spec(with_metric(errorRate={"worseThanStable": {}})).analysis
    assert analysis is not None
    assert analysis.false_rollback_rate == 0.01
    rate = analysis.metrics[0].error_rate
    assert rate is not None
    assert rate.worse_than_stable is not None
    assert rate.worse_than_stable.ratio == 1.1
    assert rate.worse_than_stable.min_increase_percent == 0.1


def test_a_drift_is_read_with_its_reference() -> None:
    reference = {"configMap": {"name": "training", "key": "scores.yaml"}}
    analysis = parse_spec(with_metric(drift={"histogram": "s", "reference": reference})).analysis
    assert analysis is not None
    (metric,) = analysis.metrics
    assert metric.warmup_seconds is None
    drift = metric.drift
    assert drift is not None
    assert (drift.histogram, drift.min_effect) == ("s", 0.1)
    assert drift.reference is not None
    assert drift.reference.config_map is not None
    assert drift.reference.config_map.key == "scores.yaml"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            with_metric(drift={"histogram": "s", "minEffect": 0}),
            "spec.analysis.metrics[0].drift.minEffect: Input should be greater than 0",
        ),
        (
            with_metric(drift={"histogram": "s", "reference": {"stableBeforeSeconds": 59}}),
            "drift.reference.stableBeforeSeconds: Input should be greater than or equal to 60",
        ),
        (
            with_metric(drift={"counter": "c", "label": "9"}),
            "spec.analysis.metrics[0].drift.label: String should match pattern",
        ),
        ({}, "spec: write an object here"),
        ({"spec": []}, "spec: write an object here"),
        (with_spec(model={"name": "a"}), "spec.model.version: this field is required"),
        (with_spec(modle={}), "spec.modle: there is no such field; remove it or correct its name"),
        (
            with_spec(rollout={"steps": [{"weightPercent": 101}]}),
            "spec.rollout.steps[0].weightPercent: Input should be less than or equal to 100",
        ),
        (
            with_spec(notifications=[{"name": "Team", "webhook": {"address": "ftp://a"}}]),
            "spec.notifications[0].webhook.address: String should match pattern",
        ),
        (
            with_spec(rollout={"gates": [{"name": "freeze"}]}),
            "spec.rollout.gates[0].webhook: this field is required",
        ),
        (with_spec(template={}), "spec.template: write at least one container"),
        (with_spec(template={"spec": {"containers": []}}), "write at least one container"),
        (with_spec(template={"spec": {"containers": ["a"]}}), "every container must be an object"),
    ],
)
def test_a_wrong_spec_is_told_by_its_path(body: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidSpecError) as error:
        parse_spec(body)
    assert message in str(error.value)


def test_a_message_stays_short_when_much_is_wrong() -> None:
    with pytest.raises(InvalidSpecError) as error:
        parse_spec(with_spec(**{f"wrong{number}": 1 for number in range(8)}))
    assert str(error.value).count("there is no such field") == 5
    assert str(error.value).endswith("; and 3 more")
