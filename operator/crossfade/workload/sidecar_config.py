"""What a version's sidecar is told, from the spec that asks for the version."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, floor, prod
from typing import Any, Final, Literal
from urllib.parse import quote

from msgspec import structs

from crossfade.api import inference
from crossfade.api.v1alpha1 import ModelDeploymentSpec
from crossfade.names import NamespacedName, child_name
from crossfade.sidecar import config
from crossfade.sidecar.config import Config
from crossfade.workload.drain import grace_seconds, pause_seconds

MOST_BYTES: Final = 200_000
"""Of a configuration: all annotations of an object together may take 256 KiB."""

DRAINING_SHARE: Final = 0.8
"""How much of the time that is left to a pod its requests may take; the rest is for the process to
end by itself. Of the default grace period it is 20 s."""

_ONE_TWO_FIVE: Final = tuple(
    float(f"{digit}e{power}") for power in range(-3, 6) for digit in (1, 2, 5)
)
_ABOVE_ZERO: Final = sorted({*_ONE_TWO_FIVE, 1e6, *(tenth / 10 for tenth in range(1, 10))})
DEFAULT_BUCKETS: Final = (
    *(-border for border in (1e6, *reversed(_ONE_TWO_FIVE))),
    0.0,
    *_ABOVE_ZERO,
)
"""The borders of a number of which nothing is known: 1, 2 and 5 times the powers of ten from 0.001
to 1000000, likewise below zero, and tenths up to 1 for probabilities."""


@dataclass(frozen=True, slots=True)
class Stable:
    """The version that is stable while another one is rendered."""

    revision: str
    config: Config | None = None
    """Its sidecar's; None: it has none."""


def config_of(
    owner: NamespacedName, spec: ModelDeploymentSpec, revision: str, stable: Stable | None
) -> Config:
    """Return what the sidecar of a revision is told.

    Args:
        owner: the ModelDeployment.
        spec: what asks for the revision.
        revision: its hash.
        stable: the version that is stable now; None: this one is the first.

    Raises:
        ValueError: the spec asks for no sidecar.
    """
    proxy = spec.proxy
    if proxy is None:
        raise ValueError("the spec asks for no sidecar")
    if stable is not None and stable.revision == revision:
        stable = None
    known = stable.config if stable is not None else None
    features = spec.inputs.features if spec.inputs is not None else None
    return Config(
        namespace=owner.namespace,
        name=owner.name,
        model=spec.model.name,
        version=spec.model.version,
        revision=revision,
        protocol=spec.serving.protocol,
        port=proxy.port,
        admin_port=proxy.admin_port,
        model_port=spec.serving.port,
        max_body_bytes=proxy.max_body_bytes,
        golden=_golden(spec, proxy),
        inputs=inputs_of(spec),
        features=_observed(features or (), known.features if known is not None else ()),
        predictions=_observed(
            spec.predictions or (), known.predictions if known is not None else ()
        ),
        fallback=_fallback(owner, spec, stable),
        recording=_recording(spec.recording),
        drain_seconds=_drain_seconds(spec),
    )


def inputs_of(spec: ModelDeploymentSpec) -> config.Inputs | None:
    """Return the contract of requests; None where there is none."""
    inputs = spec.inputs
    if inputs is None:
        return None
    tensors = None
    if inputs.tensors is not None:
        tensors = tuple(_tensor(tensor) for tensor in inputs.tensors)
    return config.Inputs(
        schema=inputs.json_schema,
        tensors=tensors,
        on_violation=inputs.on_violation,
        paths=_maybe(inputs.paths),
    )


def _golden(spec: ModelDeploymentSpec, proxy: inference.Sidecar) -> config.Golden | None:
    """Return the golden request: the user's, or one made from the tensors, or none."""
    path = f"/v2/models/{quote(spec.model.name, safe='')}/infer"
    given = proxy.golden_request
    if given is not None:
        return config.Golden(
            path=given.path or path,
            body=_text(given.body),
            content_type=given.content_type,
            method=given.method,
            timeout_seconds=given.timeout_seconds,
        )
    if spec.inputs is None or spec.inputs.tensors is None:
        return None
    tensors = [_example(tensor) for tensor in spec.inputs.tensors if not tensor.optional]
    return config.Golden(path=path, body=_text({"inputs": tensors}))


def _example(tensor: inference.TensorContract) -> dict[str, Any]:
    """Return the smallest tensor of the contract."""
    shape = [1 if size < 0 else size for size in tensor.shape]
    data = [_example_value(tensor)] * min(prod(shape), MOST_BYTES)
    return {"name": tensor.name, "datatype": tensor.datatype, "shape": shape, "data": data}


def _example_value(tensor: inference.TensorContract) -> bool | str | float:
    if tensor.datatype == "BOOL":
        return False
    if tensor.datatype == "BYTES":
        return tensor.allowed[0] if tensor.allowed else ""
    value = 0.0 if tensor.min is None else max(0.0, tensor.min)
    if tensor.max is not None:
        value = min(value, tensor.max)
    if tensor.datatype.startswith("FP"):
        return value
    return ceil(value) if value > 0 else floor(value)


def _tensor(tensor: inference.TensorContract) -> config.Tensor:
    return config.Tensor(
        name=tensor.name,
        datatype=tensor.datatype,
        shape=tuple(tensor.shape),
        min=tensor.min,
        max=tensor.max,
        allowed=_maybe(tensor.allowed),
        max_null_percent=tensor.max_null_percent,
        optional=tensor.optional,
    )


def _observed(
    given: Sequence[inference.Observed], known: Sequence[config.Observed]
) -> tuple[config.Observed, ...]:
    """Two distributions can be compared when they have the same borders: those of stable."""
    borders = {one.name: one.buckets for one in known if one.type == "number"}
    return tuple(
        config.Observed(
            name=one.name,
            json_path=one.json_path,
            tensor=one.tensor,
            column=one.column,
            type=one.type,
            buckets=_borders(one, borders),
            labels=tuple(one.labels or ()),
        )
        for one in given
    )


def _borders(one: inference.Observed, known: Mapping[str, tuple[float, ...]]) -> tuple[float, ...]:
    if one.type == "label":
        return ()
    return tuple(one.buckets or known.get(one.name) or DEFAULT_BUCKETS)


def _fallback(
    owner: NamespacedName, spec: ModelDeploymentSpec, stable: Stable | None
) -> config.Fallback | None:
    """Return the fallback; None also where nobody is left to ask, as for a first version."""
    fallback = spec.fallback
    if fallback is None:
        return None
    targets = tuple(
        structs.replace(
            found, timeout_seconds=target.timeout_seconds, budget_percent=target.budget_percent
        )
        for target in fallback.targets
        if (found := _target(target, owner, spec, stable)) is not None
    )
    if not targets:
        return None
    breaker = fallback.breaker
    rules = config.Breaker(
        failure_percent=breaker.failure_percent,
        min_requests=breaker.min_requests,
        window_seconds=breaker.window_seconds,
        open_seconds=breaker.open_seconds,
    )
    reasons = {} if fallback.reasons is None else {"on": tuple(fallback.reasons)}
    return config.Fallback(
        targets=targets, timeout_seconds=fallback.timeout_seconds, breaker=rules, **reasons
    )


def _target(
    target: inference.FallbackTarget,
    owner: NamespacedName,
    spec: ModelDeploymentSpec,
    stable: Stable | None,
) -> config.Target | None:
    """Return a target; None when it is a version and there is none.

    The Service named like the ModelDeployment is stable's, whoever that is by then; where it is the
    split itself, the Service of the version that is stable now is meant.
    """
    addressed = spec.traffic.replicas is None
    match target:
        case inference.FallbackTarget(static=inference.StaticAnswer() as answer):
            return config.Target(
                name="static",
                status=answer.status,
                content_type=answer.content_type,
                body=_text(answer.body),
            )
        case inference.FallbackTarget(service=inference.ServiceTarget() as other):
            return config.Target(name="service", host=_host(other.name, owner), port=other.port)
        case inference.FallbackTarget(stable=inference.StableTarget()) if stable and addressed:
            return _version("stable", owner.name, owner, spec)
        case inference.FallbackTarget(stable=inference.StableTarget()) if stable:
            return _version("stable", child_name(owner.name, stable.revision), owner, spec)
        case inference.FallbackTarget(previous=inference.PreviousTarget()) if stable:
            return _version("previous", child_name(owner.name, stable.revision), owner, spec)
        case _:
            return None


def _version(
    name: Literal["stable", "previous"],
    service: str,
    owner: NamespacedName,
    spec: ModelDeploymentSpec,
) -> config.Target:
    return config.Target(name=name, host=_host(service, owner), port=spec.serving.port)


def _host(service: str, owner: NamespacedName) -> str:
    return f"{service}.{owner.namespace}.svc"


def _recording(recording: inference.Recording | None) -> config.Recording | None:
    if recording is None:
        return None
    return config.Recording(
        percent=recording.percent,
        keep=recording.keep,
        max_bytes=recording.max_bytes,
        mask=tuple(recording.mask or ()),
        mask_headers=tuple(recording.mask_headers or ()),
    )


def _drain_seconds(spec: ModelDeploymentSpec) -> float:
    left = grace_seconds(spec.template["spec"]) - pause_seconds(spec.template["spec"])
    return left * DRAINING_SHARE


def _text(body: Any) -> str:
    """Return a body as it is sent: nothing, a text as it is, and anything else as JSON."""
    if body is None:
        return ""
    if isinstance(body, str):
        return body
    return json.dumps(body, separators=(",", ":"), ensure_ascii=False)


def _maybe(items: Sequence[str] | None) -> tuple[str, ...] | None:
    return None if items is None else tuple(items)
