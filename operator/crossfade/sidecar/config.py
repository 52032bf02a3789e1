"""What the operator tells a sidecar, once, in its pod's template.

The operator writes it as JSON into an annotation of the pod template, and the downward API brings
it into the container as a file. It is a part of the version: a change of it is a new version.
Types are msgspec's: the sidecar imports neither pydantic nor the API, for its memory's sake.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec


class Part(msgspec.Struct, rename="camel", forbid_unknown_fields=True, frozen=True, kw_only=True):
    """A part of the configuration: camelCase on the wire, and an unknown field is an error."""


class Golden(Part, frozen=True):
    """A request that the model must answer with 2xx before its pod is ready."""

    path: str
    body: str
    """As sent."""
    content_type: str = "application/json"
    method: str = "POST"
    timeout_seconds: float = 5.0


class Tensor(Part, frozen=True):
    """An input of the Open Inference Protocol."""

    name: str
    datatype: str
    """As in the protocol: BOOL, INT8 … FP64, BYTES."""
    shape: tuple[int, ...]
    """-1: any size."""
    min: float | None = None
    max: float | None = None
    allowed: tuple[str, ...] | None = None
    """The categories of a BYTES tensor."""
    max_null_percent: float = 0.0
    """The share of null, or of NaN in binary data, in percent."""
    optional: bool = False


class Inputs(Part, frozen=True):
    """What a request must be. Exactly one of schema and tensors."""

    schema: dict[str, Any] | None = None
    """JSON Schema, 2020-12 if it does not say otherwise."""
    tensors: tuple[Tensor, ...] | None = None
    on_violation: Literal["reject", "fallback", "log"] = "reject"
    paths: tuple[str, ...] | None = None
    """Only requests to these paths; None: with openInference those that infer, with http every
    request whose method carries a body (POST, PUT, PATCH)."""


class Observed(Part, frozen=True):
    """A number or a label whose distribution is exported. Exactly one of json_path and tensor."""

    name: str
    json_path: str | None = None
    """RFC 9535, in the JSON body; every match is a value."""
    tensor: str | None = None
    """An input or output tensor of the Open Inference Protocol; every element is a value."""
    column: int | None = None
    """Only this index of the tensor's last dimension."""
    type: Literal["number", "label"] = "number"
    buckets: tuple[float, ...] = ()
    """Upper borders, rising, without +Inf. Of numbers."""
    labels: tuple[str, ...] = ()
    """The values that are told apart, others being "other"; empty: the first 50 that come."""


class Target(Part, frozen=True):
    """Where a failed request goes next. Exactly one of address and static."""

    name: Literal["stable", "previous", "service", "static"]
    """For the response header, the metrics and people."""
    host: str | None = None
    port: int | None = None
    timeout_seconds: float = 5.0
    """Until the whole answer is there."""
    budget_percent: float = 100.0
    """The highest share of the requests of the last ten seconds that may go here; ten in ten
    seconds always may."""
    status: int = 200
    content_type: str = "application/json"
    body: str = ""
    """Of the static answer."""


class Breaker(Part, frozen=True):
    """When the model is not asked any more, for a while."""

    failure_percent: float = 50.0
    """Opens when more of the requests of the window failed."""
    min_requests: int = 20
    """Fewer in the window open nothing."""
    window_seconds: float = 10.0
    open_seconds: float = 5.0
    """Then one request at a time tries again; successes close it."""


class Fallback(Part, frozen=True, kw_only=True):
    """What happens when the model does not answer."""

    on: tuple[Literal["timeout", "connection", "serverError", "openCircuit"], ...] = (
        "timeout", "connection", "serverError", "openCircuit",
    )  # fmt: skip
    timeout_seconds: float = 10.0
    """How long the model may take to begin its answer."""
    targets: tuple[Target, ...]
    breaker: Breaker = Breaker()


class Recording(Part, frozen=True):
    """Request and answer pairs that are kept for later versions."""

    percent: float = 1.0
    keep: int = 500
    """The newest so many are kept."""
    max_bytes: int = 4 * 1024 * 1024
    """All of them together take at most so many bytes."""
    mask: tuple[str, ...] = ()
    """JSONPaths (RFC 9535), in request and answer: every match is replaced by "***"."""
    mask_headers: tuple[str, ...] = ()
    """Beside authorization, cookie, set-cookie, proxy-authorization and x-api-key."""


class Config(Part, frozen=True, kw_only=True):
    """Everything that a sidecar knows."""

    namespace: str
    name: str
    """Of the ModelDeployment."""
    model: str
    version: str
    revision: str
    protocol: Literal["openInference", "http"] = "openInference"
    port: int
    """Where it listens for requests."""
    admin_port: int
    """Metrics, readiness, drills, recordings."""
    model_port: int
    """Where the model listens, on loopback."""
    max_body_bytes: int = 10 * 1024 * 1024
    golden: Golden | None = None
    inputs: Inputs | None = None
    features: tuple[Observed, ...] = ()
    """Of requests."""
    predictions: tuple[Observed, ...] = ()
    """Of answers."""
    fallback: Fallback | None = None
    recording: Recording | None = None
    drain_seconds: float = 20.0
    """After SIGTERM: how long requests that are under way may take."""


def read_config(text: bytes) -> Config:
    """Return the configuration.

    Raises:
        ValueError: it is not one; the message names the field.
    """
    try:
        return msgspec.json.decode(text, type=Config)
    except msgspec.ValidationError as error:
        raise ValueError(f"the sidecar's configuration is wrong: {error}") from error
    except msgspec.DecodeError as error:
        raise ValueError(f"the sidecar's configuration is no JSON: {error}") from error


def write_config(config: Config) -> str:
    """Return the configuration as compact JSON with fields in one order; defaults are written."""
    return msgspec.json.encode(config).decode()
