"""What an analysis leaves out because the sidecar's metrics are known: their names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from crossfade.api.inference import Observed
from crossfade.api.v1alpha1 import Analysis, Drift, Metric, ModelDeploymentSpec, Source
from crossfade.errors import InvalidSpecError

PREDICTIONS: Final = "crossfade_predictions"
PREDICTION_LABELS: Final = "crossfade_prediction_labels_total"
FEATURES: Final = "crossfade_features"
FEATURE_LABELS: Final = "crossfade_feature_labels_total"
"""Histograms by name, and counters by name and label (``sidecar/metrics.py``)."""

LABEL: Final = "label"
"""The label that holds a label's value."""

_OURS: Final = Source(preset="sidecar")


def with_sources(spec: ModelDeploymentSpec) -> ModelDeploymentSpec:
    """Write out where metrics come from: the sidecar where nothing else is named.

    Raises:
        InvalidSpecError: a drift is of a prediction or a feature that is not declared.
    """
    analysis = spec.analysis
    if analysis is None:
        return spec
    metrics = [_written_out(metric, spec, analysis) for metric in analysis.metrics]
    source = _OURS if spec.proxy is not None and _lacks_source(analysis) else analysis.source
    if source == analysis.source and metrics == analysis.metrics:
        return spec
    changed = analysis.model_copy(update={"metrics": metrics, "source": source})
    return spec.model_copy(update={"analysis": changed})


def _lacks_source(analysis: Analysis) -> bool:
    """Tell whether a rate has no source, or whether there is none at all to count requests."""
    if analysis.source is not None:
        return False
    rates = [m for m in analysis.metrics if m.error_rate is not None or m.latency is not None]
    return any(m.source is None for m in rates) or all(m.source is None for m in analysis.metrics)


def _written_out(metric: Metric, spec: ModelDeploymentSpec, analysis: Analysis) -> Metric:
    """Return a metric whose drift names series, and whose source finds the pods they are of."""
    drift = metric.drift
    if drift is None:
        return metric
    if drift.prediction is not None:
        declared = _find(drift.prediction, spec.predictions or (), "predictions")
        series = (PREDICTIONS, PREDICTION_LABELS)
    elif drift.feature is not None:
        features = spec.inputs.features if spec.inputs is not None else None
        declared = _find(drift.feature, features or (), "inputs.features")
        series = (FEATURES, FEATURE_LABELS)
    else:
        return metric
    labelled = metric.source or analysis.source or Source()
    source = _OURS.model_copy(
        update={
            "namespace_label": labelled.namespace_label,
            "pod_label": labelled.pod_label,
        }
    )
    return metric.model_copy(update={"drift": _named(drift, declared, *series), "source": source})


def _named(drift: Drift, declared: Observed, histogram: str, counter: str) -> Drift:
    matcher = f'{{name="{declared.name}"}}'
    found = (
        {"histogram": histogram + matcher}
        if declared.type == "number"
        else {"counter": counter + matcher, "label": LABEL}
    )
    return drift.model_copy(update={"prediction": None, "feature": None, **found})


def _find(name: str, declared: Sequence[Observed], field: str) -> Observed:
    for one in declared:
        if one.name == name:
            return one
    names = ", ".join(one.name for one in declared) or "there is none"
    raise InvalidSpecError(
        f'spec.analysis: a drift of "{name}" needs a name in spec.{field}: {names}'
    )
