"""What the sidecar in a model's pods does: the parts of the spec that are about single requests.

The operator adds the sidecar when any of them is given. All of them are parts of the version.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from crossfade.api.base import ApiModel, PreservedObject, PreservedValue

DEFAULT_PORT = 8012
DEFAULT_ADMIN_PORT = 8013

Port = Annotated[int, Field(ge=1, le=65535)]

Path = Annotated[str, Field(pattern="^/[!-~]*$", max_length=1024)]
"""Of a URL, with a query if need be."""

JsonPath = Annotated[str, Field(pattern=r"^\$", max_length=253)]
"""RFC 9535; the operator tries to read it."""

MediaType = Annotated[str, Field(pattern="^[ -~]+$", max_length=127)]

HeaderName = Annotated[str, Field(pattern="^[!#$%&'*+.^_`|~0-9A-Za-z-]+$", max_length=127)]


class GoldenRequest(ApiModel):
    """A request that the model must answer with 2xx before its pod is ready.

    Each target of fallback is tried out with it, too, before a new version gets traffic.
    """

    path: Path | None = None
    """The path, with a query if need be; with openInference by default /v2/models/NAME/infer."""
    method: Literal["GET", "POST", "PUT"] = "POST"
    """The HTTP method."""
    body: PreservedValue = None
    """An object or a list is sent as JSON, a text as it is."""
    content_type: MediaType = "application/json"
    """What the body is."""
    timeout_seconds: Annotated[float, Field(gt=0, le=300)] = 5
    """How long the whole answer may take, in seconds."""


class Sidecar(ApiModel):
    """Write "sidecar: {}" for the proxy alone, which measures requests and checks readiness."""

    port: Port = DEFAULT_PORT
    """The port on which the sidecar takes the requests for the model. The Services lead here; their
    own port stays serving.port."""
    admin_port: Port = DEFAULT_ADMIN_PORT
    """The port of its metrics (/metrics), readiness and recordings."""
    max_body_bytes: Annotated[int, Field(ge=1024, le=1_073_741_824)] = 10 * 1024 * 1024
    """The largest body that is held in memory to be checked or repeated, and the largest that is
    accepted, in bytes; a larger one is refused with 413."""
    resources: PreservedObject | None = None
    """As in a container; by default requests of 50m CPU and 64Mi memory, and a limit of 256Mi."""
    golden_request: GoldenRequest | None = None
    """By default one is made from inputs.tensors, if they are given."""


class TensorContract(ApiModel):
    """An input tensor of the Open Inference Protocol."""

    name: Annotated[str, Field(min_length=1, max_length=253)]
    """The tensor's name."""
    datatype: Literal[
        "BOOL",
        "UINT8",
        "UINT16",
        "UINT32",
        "UINT64",
        "INT8",
        "INT16",
        "INT32",
        "INT64",
        "FP16",
        "FP32",
        "FP64",
        "BYTES",
    ]
    """The datatype."""
    shape: Annotated[list[Annotated[int, Field(ge=-1, le=2**31 - 1)]], Field(max_length=16)]
    """The size of each dimension; -1 is any size."""
    min: float | None = None
    """The smallest number allowed."""
    max: float | None = None
    """The largest number allowed."""
    allowed: (
        Annotated[list[Annotated[str, Field(max_length=253)]], Field(min_length=1, max_length=1000)]
        | None
    ) = None
    """The values that a BYTES tensor may hold."""
    max_null_percent: Annotated[float, Field(ge=0, le=100)] = 0
    """How many of its elements may be null, or NaN in binary data, in percent."""
    optional: bool = False
    """It may be missing."""


ObservedName = Annotated[str, Field(pattern="^[a-zA-Z_][a-zA-Z0-9_.-]*$", max_length=63)]
"""A label's value, which needs no escape."""


class Observed(ApiModel):
    """A number or a label whose distribution is exported. Give jsonPath or tensor."""

    name: ObservedName
    """A name for metrics, unique in the list."""
    json_path: JsonPath | None = None
    """Where it is in the JSON body (RFC 9535), such as $.score; every match is a value."""
    tensor: Annotated[str, Field(min_length=1, max_length=253)] | None = None
    """A tensor of the Open Inference Protocol; every element is a value."""
    column: Annotated[int, Field(ge=0, le=1_000_000)] | None = None
    """Only this index of the tensor's last dimension, from 0."""
    type: Literal["number", "label"] = "number"
    """A number is counted in buckets, a label by its value."""
    buckets: Annotated[list[float], Field(min_length=1, max_length=100)] | None = None
    """The upper borders of the buckets, rising. By default those of the stable version, else 1, 2
    and 5 times the powers of ten from 0.001 to 1000000, likewise below zero, and tenths up to
    1."""
    labels: (
        Annotated[list[Annotated[str, Field(max_length=253)]], Field(min_length=1, max_length=99)]
        | None
    ) = None
    """The values that are told apart, others being "other"; by default the first 50 that come."""


class Inputs(ApiModel):
    """What a request must be. Give schema or tensors."""

    json_schema: Annotated[PreservedObject | None, Field(alias="schema")] = None
    """JSON Schema of the body; 2020-12 if it does not say otherwise."""
    tensors: Annotated[list[TensorContract], Field(min_length=1, max_length=64)] | None = None
    """Its tensors, by the Open Inference Protocol."""
    on_violation: Literal["reject", "fallback", "log"] = "reject"
    """reject: answer 422 and name the field. fallback: ask the targets of fallback. log: count it,
    and ask the model all the same. It never counts against a version."""
    paths: Annotated[list[Path], Field(min_length=1, max_length=64)] | None = None
    """Only requests to these paths are checked; by default, with openInference, those that infer,
    and with http every POST, PUT and PATCH."""
    features: Annotated[list[Observed], Field(min_length=1, max_length=32)] | None = None
    """Inputs whose distribution is exported."""


class StableTarget(ApiModel):
    """The stable version. Left out for the first version, which has none."""


class PreviousTarget(ApiModel):
    """The version that was stable when this one was rolled out, while it is kept."""


class ServiceTarget(ApiModel):
    """A Service in the ModelDeployment's namespace."""

    name: Annotated[str, Field(pattern="^[a-z]([-a-z0-9]*[a-z0-9])?$", max_length=63)]
    """The Service's name."""
    port: Port
    """The Service's port."""


class StaticAnswer(ApiModel):
    """An answer that is always the same."""

    status: Annotated[int, Field(ge=200, le=599)] = 200
    """The HTTP status."""
    content_type: MediaType = "application/json"
    """What the body is."""
    body: PreservedValue = None
    """An object or a list is sent as JSON, a text as it is."""


class FallbackTarget(ApiModel):
    """Exactly one of stable, previous, service and static."""

    stable: StableTarget | None = None
    """Write "stable: {}"."""
    previous: PreviousTarget | None = None
    """Write "previous: {}"."""
    service: ServiceTarget | None = None
    """Another Service that answers such requests."""
    static: StaticAnswer | None = None
    """A fixed answer; only as the last target."""
    timeout_seconds: Annotated[float, Field(gt=0, le=300)] = 5
    """How long its whole answer may take, in seconds."""
    budget_percent: Annotated[float, Field(gt=0, le=100)] = 100
    """The highest share of the last ten seconds' requests that may be sent here, in percent, so
    that one failure does not overload what is left. Ten requests always may."""


class Breaker(ApiModel):
    """When the model is not asked any more, for a while."""

    failure_percent: Annotated[float, Field(gt=0, lt=100)] = 50
    """It opens when more of the requests in the window failed, in percent."""
    min_requests: Annotated[int, Field(ge=1, le=1_000_000)] = 20
    """With fewer requests in the window it does not open."""
    window_seconds: Annotated[float, Field(ge=1, le=3600)] = 10
    """The window, in seconds."""
    open_seconds: Annotated[float, Field(ge=1, le=3600)] = 5
    """How long it stays open before it lets one request at a time through, in seconds; when those
    succeed it closes."""


class Fallback(ApiModel):
    """Who answers when the model does not.

    The failure still counts against the version. Each target is tried out with the golden request
    before a new version gets traffic.
    """

    reasons: (
        Annotated[
            list[Literal["timeout", "connection", "serverError", "openCircuit"]],
            Field(min_length=1, max_length=4),
        ]
        | None
    ) = None
    """When to fall back; by default in all four cases: no answer in timeoutSeconds, no connection,
    an answer of 5xx, an open circuit breaker."""
    timeout_seconds: Annotated[float, Field(gt=0, le=3600)] = 10
    """How long the model may take to begin its answer, in seconds."""
    targets: Annotated[list[FallbackTarget], Field(min_length=1, max_length=8)]
    """Who is asked, one after the other, until one answers."""
    breaker: Breaker = Breaker()
    """When the model is not asked any more, for a while."""


class Recording(ApiModel):
    """Requests with their answers, kept by the pods to check later versions against them."""

    percent: Annotated[float, Field(gt=0, le=100)] = 1
    """The share of requests that are recorded, in percent."""
    keep: Annotated[int, Field(ge=1, le=100_000)] = 500
    """Each pod keeps the newest so many."""
    max_bytes: Annotated[int, Field(ge=65_536, le=1_073_741_824)] = 4 * 1024 * 1024
    """All that a pod keeps takes at most so many bytes of its memory."""
    mask: Annotated[list[JsonPath], Field(min_length=1, max_length=64)] | None = None
    """Where private values are in requests and answers (RFC 9535); each match is replaced by
    "***"."""
    mask_headers: Annotated[list[HeaderName], Field(min_length=1, max_length=64)] | None = None
    """Headers whose values are private, beside authorization, proxy-authorization, cookie,
    set-cookie and x-api-key."""
