"""The ModelDeployment as users write it and as the operator reports it.

These models are the single source of the CustomResourceDefinition (``api/schema.py``): a docstring
under a field becomes its description, followed by that of the field's model, so both are written
for the user. Rules over several fields are CEL (``api/rules.py``). Nothing here knows of clusters
or clocks.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, AwareDatetime, Field

from crossfade.api.base import ApiModel, PreservedObject, SecretKeyRef, StatusModel
from crossfade.api.inference import Fallback, Inputs, Observed, ObservedName, Recording, Sidecar
from crossfade.api.webhooks import Gate, GateAnswer, Notification, Occasion


def _with_containers(template: dict[str, Any]) -> dict[str, Any]:
    """Refuse a pod template without containers: everything else is for the API server to check."""
    spec = template.get("spec")
    containers = spec.get("containers") if isinstance(spec, dict) else None
    if not isinstance(containers, list) or not containers:
        raise ValueError("write at least one container under spec.containers")
    if not all(isinstance(container, dict) for container in containers):
        raise ValueError("every container must be an object with a name and an image")
    return template


PodTemplate = Annotated[PreservedObject, AfterValidator(_with_containers)]
"""A pod template whose ``spec.containers`` has at least one container."""

Hostname = Annotated[
    str,
    Field(
        min_length=1,
        max_length=253,
        pattern=r"^(\*\.)?[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$",
    ),
]
"""As in an HTTPRoute: a DNS name in lower case, whose first part may be a star."""


# ── spec ──────────────────────────────────────────────────────────────────────────────────────


class Model(ApiModel):
    """Which model version is served. A change of anything here is a new version to roll out."""

    name: Annotated[str, Field(min_length=1, max_length=253)]
    """The model's name, as the model server knows it."""
    version: Annotated[str, Field(min_length=1, max_length=63)]
    """The model's version, as people know it, for example "2.3.0". The containers of the template
    find it in the environment variable CROSSFADE_MODEL_VERSION, and the name in
    CROSSFADE_MODEL_NAME."""
    uri: Annotated[str, Field(max_length=1024)] | None = None
    """Where the model comes from. Crossfade fetches nothing from it: the containers of the template
    find it in the environment variable CROSSFADE_MODEL_URI."""
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = None
    """The SHA-256 of the model's artifact, 64 hex digits. It is recorded, and a change of it is a
    new version to roll out."""


class Serving(ApiModel):
    """How the model is served."""

    protocol: Literal["openInference", "http"] = "openInference"
    """openInference: a container without a readinessProbe gets one that asks the model itself
    (/v2/models/NAME/ready). http: give a container a readinessProbe of your own."""
    port: Annotated[int, Field(ge=1, le=65535)] = 8080
    """The port on which the model's pods answer requests, and the port of their Services. It cannot
    be changed later."""


class Autoscaling(ApiModel):
    """A HorizontalPodAutoscaler (autoscaling/v2) for each version, instead of replicas."""

    min_replicas: Annotated[int, Field(ge=1, le=10000)] = 1
    """The fewest pods of the stable version."""
    max_replicas: Annotated[int, Field(ge=1, le=10000)]
    """The most pods of one version."""
    metrics: list[PreservedObject] = Field(default_factory=list, max_length=16)
    """As spec.metrics of an autoscaling/v2 HorizontalPodAutoscaler; none means 80 % of the CPU that
    the pods request."""
    behavior: PreservedObject | None = None
    """As spec.behavior of an autoscaling/v2 HorizontalPodAutoscaler."""


class ParentRef(ApiModel):
    """A Gateway that carries the traffic."""

    name: Annotated[str, Field(min_length=1, max_length=253)]
    """The Gateway's name."""
    namespace: Annotated[str, Field(min_length=1, max_length=63)] | None = None
    """The Gateway's namespace; by default that of the ModelDeployment."""
    section_name: Annotated[str, Field(min_length=1, max_length=253)] | None = None
    """One listener of the Gateway; by default all that allow the route."""
    port: Annotated[int, Field(ge=1, le=65535)] | None = None
    """One port of the Gateway; by default all."""


class RouteRef(ApiModel):
    """A rule of an HTTPRoute that you own, in the ModelDeployment's namespace.

    The rule must send traffic to the Service named like the ModelDeployment; Crossfade replaces
    that one backend with its two versions, changes their weights, and touches nothing else.
    """

    name: Annotated[str, Field(min_length=1, max_length=253)]
    """The HTTPRoute's name. It cannot be changed later."""
    rule: Annotated[str, Field(min_length=1, max_length=253)] | None = None
    """The name of the rule to join. It may be left out when only one rule names the Service. It
    cannot be changed later."""


class GatewayTraffic(ApiModel):
    """Give parentRefs for a route of Crossfade's own, or routeRef. It cannot be changed later."""

    parent_refs: Annotated[list[ParentRef], Field(min_length=1, max_length=8)] | None = None
    """The Gateways for a route that Crossfade creates and owns."""
    hostnames: list[Hostname] = Field(default_factory=list, max_length=16)
    """The host names of that route; none means every host of the Gateway's listeners."""
    route_ref: RouteRef | None = None
    """Join an HTTPRoute that exists, instead of owning one."""


class IstioTraffic(ApiModel):
    """Crossfade creates and owns the VirtualService."""

    hosts: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=253)]],
        Field(min_length=1, max_length=16),
    ]
    """The hosts of the VirtualService."""
    gateways: list[Annotated[str, Field(min_length=1, max_length=253)]] = Field(
        default_factory=list, max_length=16
    )
    """The Istio gateways, as in a VirtualService; none means the mesh."""


class ReplicasTraffic(ApiModel):
    """The Service named like the ModelDeployment selects the pods of both versions.

    The share of a version is its share of the ready pods, so weights are met only roughly, and
    a canary gets at most half until it is promoted.
    """


class Traffic(ApiModel):
    """Exactly one of gateway, istio and replicas, for good: it cannot be changed later."""

    gateway: GatewayTraffic | None = None
    """Weights on a Gateway API HTTPRoute."""
    istio: IstioTraffic | None = None
    """Weights on an Istio VirtualService."""
    replicas: ReplicasTraffic | None = None
    """No gateway: the split follows the number of ready pods. Write "replicas: {}"."""


class Pause(ApiModel):
    """Write "pause: {}" to wait for a person: the annotation crossfade.dev/command=promote."""

    seconds: Annotated[int, Field(ge=1, le=2_592_000)] | None = None
    """How long to wait, in seconds; without it, until somebody says promote."""


class Step(ApiModel):
    """One weight of the ladder, and what the canary must show there before the next."""

    weight_percent: Annotated[int, Field(ge=1, le=100)]
    """The canary's share of the traffic, in percent. Weights must rise from step to step."""
    min_requests: Annotated[int, Field(ge=0, le=1_000_000_000)] = 50
    """The fewest requests that the canary must have answered at this weight."""
    min_seconds: Annotated[int, Field(ge=0, le=2_592_000)] = 60
    """The shortest time at this weight, in seconds, from when the weight is seen in force."""
    pause: Pause | None = None
    """Wait at this weight, for a time or for a person."""


DEFAULT_STEPS = (
    Step(weight_percent=5),
    Step(weight_percent=25),
    Step(weight_percent=50),
)
"""The ladder where the spec has none: a twentieth, a quarter, a half."""


class Rollout(ApiModel):
    """How a new version gets its traffic."""

    steps: Annotated[list[Step], Field(min_length=1, max_length=50)] | None = None
    """The ladder of weights; by default 5, 25 and 50 percent. After the last one the version is
    promoted: it gets everything and becomes stable."""
    paused: bool = False
    """Hold the weight where it is. A version that does harm is still rolled back."""
    ready_deadline_seconds: Annotated[int, Field(ge=1, le=604_800)] = 600
    """How long a new version may take until its pods are ready, in seconds; then it is rolled
    back."""
    deadline_seconds: Annotated[int, Field(ge=1, le=2_592_000)] = 86_400
    """How long the rollout may take from its start to its promotion, in seconds; the time in which
    it waits for a person does not count."""
    on_deadline: Literal["hold", "rollBack"] = "hold"
    """What happens at deadlineSeconds: hold the weight and say so, or roll back."""
    probation_seconds: Annotated[int, Field(ge=0, le=2_592_000)] = 300
    """How long the old version stays ready after the promotion, for an instant return, in
    seconds."""
    gates: Annotated[list[Gate], Field(min_length=1, max_length=8)] | None = None
    """Who must say yes before a weight, beside the metrics."""


class ConfigMapKeyRef(ApiModel):
    """A key of a ConfigMap in the ModelDeployment's namespace."""

    name: Annotated[str, Field(min_length=1, max_length=253)]
    """The ConfigMap's name."""
    key: Annotated[str, Field(min_length=1, max_length=253)]
    """The key in it."""


class SecretRef(ApiModel):
    """A Secret in the ModelDeployment's namespace."""

    name: Annotated[str, Field(min_length=1, max_length=253)]
    """The Secret's name."""


class Tls(ApiModel):
    """TLS towards Prometheus, beyond the certificate authorities that the image trusts."""

    ca: SecretKeyRef | None = None
    """A certificate authority, PEM."""
    client_certificate: SecretRef | None = None
    """A Secret of type kubernetes.io/tls: the certificate that Crossfade shows."""
    insecure_skip_verify: bool = False
    """Do not check Prometheus' certificate. For experiments only."""


class Prometheus(ApiModel):
    """Where the metrics are asked for."""

    address: Annotated[str, Field(pattern="^https?://[^ ]+$", max_length=1024)]
    """The base URL, for example "http://prometheus.monitoring:9090"."""
    bearer_token: SecretKeyRef | None = None
    """Sent as "Authorization: Bearer ..."."""
    basic_auth: SecretRef | None = None
    """A Secret of type kubernetes.io/basic-auth: its keys username and password are sent."""
    tls: Tls | None = None
    """TLS settings, for an https address only."""
    timeout_seconds: Annotated[int, Field(ge=1, le=60)] = 5
    """How long one query may take, in seconds."""


SeriesSelector = Annotated[str, Field(min_length=1, max_length=1024)]
"""A metric name, with label matchers if needed, for example: requests_total{code=~"5.."}"""


class Source(ApiModel):
    """Which series tell of requests, errors and latency.

    Name the series by hand, or name a preset. The operator adds the matchers for namespace and
    pods itself.
    """

    preset: (
        Literal[
            "mlserver",
            "triton",
            "vllm",
            "kserve",
            "torchserve",
            "tensorflowServing",
            "envoyGateway",
            "istio",
            "traefik",
            "sidecar",
        ]
        | None
    ) = None
    """The metrics of a model server, of the gateway or mesh in front of it, or of Crossfade's
    sidecar; docs/presets.md says which series each one reads."""
    requests: SeriesSelector | None = None
    """The counter of all requests."""
    errors: SeriesSelector | None = None
    """The counter of the requests that failed: a part of the requests."""
    latency: SeriesSelector | None = None
    """The histogram of how long requests took, classic or native, by its base name (without
    _bucket)."""
    latency_unit: Literal["seconds", "milliseconds", "microseconds"] | None = None
    """The unit of that histogram; by default seconds, or what the preset says."""
    namespace_label: Annotated[str, Field(pattern="^[a-zA-Z_][a-zA-Z0-9_]*$")] = "namespace"
    """The label that holds a pod's namespace."""
    pod_label: Annotated[str, Field(pattern="^[a-zA-Z_][a-zA-Z0-9_]*$")] = "pod"
    """The label that holds a pod's name: it tells the versions apart."""
    version_label: Annotated[str, Field(pattern="^[a-zA-Z_][a-zA-Z0-9_]*$")] | None = None
    """Tell the versions apart by this label instead, whose value is spec.model.version: for
    counters that the model's pods do not export, such as answers that turned out to be wrong.
    Name the model in the selectors, since no matcher is added."""


class WorseThanStable(ApiModel):
    """Harm is a rate above ratio x stable's + minIncreasePercent, over the same time."""

    ratio: Annotated[float, Field(ge=1, le=100)] = 1.1
    """How many times the stable version's rate is still tolerated."""
    min_increase_percent: Annotated[float, Field(ge=0, lt=100)] = 0.1
    """What is tolerated on top, in percentage points, so that a difference that nobody would notice
    takes no version back."""


class ErrorRate(ApiModel):
    """Give maxPercent, worseThanStable, or both."""

    max_percent: Annotated[float, Field(gt=0, lt=100)] | None = None
    """The highest tolerated share, in percent. The version is rolled back once it is practically
    certain to be over it, not when one look happens to be, and only while stable keeps it."""
    worse_than_stable: WorseThanStable | None = None
    """Compare with the stable version."""


class Latency(ApiModel):
    """Give maxMilliseconds, and maxSlowPercent, worseThanStable, or both."""

    max_milliseconds: Annotated[float, Field(gt=0, le=86_400_000)]
    """A request is slow when it takes longer. Must be a bucket border of the histogram."""
    max_slow_percent: Annotated[float, Field(gt=0, lt=100)] | None = None
    """The highest tolerated share of slow requests, in percent."""
    worse_than_stable: WorseThanStable | None = None
    """Compare with the stable version."""


class ShareOf(ApiModel):
    """What share of a reference distribution a bucket or a label's value has."""

    value: Annotated[str, Field(max_length=253)]
    """The label's value; for a histogram the bucket's upper border, such as "0.5" or "+Inf"."""
    weight: Annotated[float, Field(ge=0)]
    """Its share or its count; all weights together are taken as the whole."""


class DriftReference(ApiModel):
    """A distribution to compare with, beside the stable version: give exactly one."""

    shares: Annotated[list[ShareOf], Field(min_length=2, max_length=200)] | None = None
    """The distribution itself, for example of the training data."""
    config_map: ConfigMapKeyRef | None = None
    """A key of a ConfigMap in the ModelDeployment's namespace. Its text is YAML or JSON: a mapping
    from a label's value, or a bucket's upper border, to its share or count."""
    stable_before_seconds: Annotated[int, Field(ge=60, le=2_592_000)] | None = None
    """What the stable version showed in so many seconds before the canary had traffic."""


class Drift(ApiModel):
    """A distribution that moves away from that of the stable version over the same time.

    Of predictions, labels or inputs: a prediction or a feature that the sidecar looks at, a
    histogram, or a counter with a label. A version is rolled back when the difference is certain
    and at least minEffect large. With a reference, it must also have moved away from the
    reference; if stable has moved as well, the inputs moved: the weight holds, and no version is
    blamed.
    """

    prediction: ObservedName | None = None
    """The name of one of predictions."""
    feature: ObservedName | None = None
    """The name of one of inputs.features."""

    histogram: SeriesSelector | None = None
    """A histogram of numbers, classic or native, by its base name (without _bucket)."""
    counter: SeriesSelector | None = None
    """A counter with one series for each label's value. Give label, too."""
    label: Annotated[str, Field(pattern="^[a-zA-Z_][a-zA-Z0-9_]*$")] | None = None
    """The label of the counter whose values are the categories, at most 100 of them."""
    min_effect: Annotated[float, Field(gt=0, le=10)] = 0.1
    """The smallest difference that counts, as a population stability index (PSI): by a common rule
    of thumb less than 0.1 is little, and 0.25 is much."""
    reference: DriftReference | None = None
    """A distribution to compare with, beside the stable version."""


class Query(ApiModel):
    """It is looked at every interval. Give max, min, or both.

    A plain threshold on a noisy ratio takes healthy versions back: at 1 % errors, a limit of 2 %
    and little traffic more often than not. Prefer errorRate and latency where there are counters.
    """

    promql: Annotated[str, Field(min_length=1, max_length=4096)]
    """A query that gives one number. {{namespace}}, {{name}}, {{model}}, {{pods}} (a regular
    expression of the canary's pod names), {{stablePods}}, {{version}} and {{stableVersion}} are
    filled in."""
    min: float | None = None
    """Lower is a failure."""
    max: float | None = None
    """Higher is a failure."""
    failure_limit: Annotated[int, Field(ge=0, le=1000)] = 0
    """How many failures in a rollout are tolerated; one more rolls back."""


class Metric(ApiModel):
    """Tells good versions from bad by exactly one of errorRate, latency, drift and query."""

    name: Annotated[str, Field(pattern="^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=63)]
    """A name for messages, unique in the list."""
    error_rate: ErrorRate | None = None
    """A limit on the share of requests that fail."""
    latency: Latency | None = None
    """A limit on the share of requests that are slower than a time."""
    drift: Drift | None = None
    """Predictions, labels or inputs whose distribution must not move."""
    query: Query | None = None
    """A limit on the result of any PromQL."""
    source: Source | None = None
    """Where this metric's series come from, instead of analysis.source. Not for a query."""
    warmup_seconds: Annotated[int, Field(ge=0, le=300)] | None = None
    """What pods answer in so many seconds after their first sample is no evidence: caches fill,
    code is compiled. By default 30 for latency, else 0. Not for a query."""


class Analysis(ApiModel):
    """How a version is judged while it has traffic."""

    prometheus: Prometheus
    """The Prometheus to ask."""
    interval_seconds: Annotated[int, Field(ge=1, le=3600)] = 10
    """The time between two looks at the metrics, in seconds."""
    false_rollback_rate: Annotated[float, Field(gt=0, le=0.5)] = 0.01
    """How likely a healthy version may be rolled back in a whole rollout, over all its metrics but
    queries, however often they are looked at. Lower is slower."""
    source: Source | None = None
    """Where the counters and histograms of errorRate and latency come from; with a sidecar by
    default from it."""
    metrics: Annotated[list[Metric], Field(min_length=1, max_length=16)]
    """All must be healthy for the next step; one that shows harm rolls back, at once."""


class ModelDeploymentSpec(ApiModel):
    """What should be served, and how a new version gets there."""

    model: Model
    """Which model version is served."""
    serving: Serving = Serving()
    """How the model is served."""
    replicas: Annotated[int, Field(ge=1, le=10000)] | None = None
    """The pods of the stable version; by default 1. The canary gets its share of them. Once it is
    set, kubectl scale works too."""
    autoscaling: Autoscaling | None = None
    """An autoscaler for each version, instead of replicas."""
    template: PodTemplate
    """The pod template, as in a Deployment. A change of anything here is a new version to roll
    out. The first container is the model server."""
    sidecar: Sidecar | None = None
    """A proxy in the model's pods, in front of the model. It is there when any of sidecar, inputs,
    predictions, fallback and recording is given; a change in any of them is a new version to roll
    out."""
    inputs: Inputs | None = None
    """The contract of requests, which is checked before the model gets one."""
    predictions: Annotated[list[Observed], Field(min_length=1, max_length=32)] | None = None
    """What is looked at in answers."""
    fallback: Fallback | None = None
    """What happens when the model fails."""
    recording: Recording | None = None
    """A sample of the traffic."""
    traffic: Traffic
    """Who splits the traffic."""
    rollout: Rollout = Rollout()
    """How a new version gets its traffic."""
    analysis: Analysis | None = None
    """How a version is judged. Without it every step needs a pause: then people decide."""
    notifications: Annotated[list[Notification], Field(min_length=1, max_length=8)] | None = None
    """Who is told how rollouts go."""

    @property
    def proxy(self) -> Sidecar | None:
        """The sidecar with its defaults; None when nothing asks for one."""
        given = (self.inputs, self.predictions, self.fallback, self.recording)
        if self.sidecar is None and all(part is None for part in given):
            return None
        return self.sidecar or Sidecar()


# ── status ────────────────────────────────────────────────────────────────────────────────────


class Phase(StrEnum):
    """Where a ModelDeployment is; ``core/phases.py`` has the legal moves."""

    INITIALIZING = "Initializing"
    """The first version is being brought up; nothing serves yet."""
    HEALTHY = "Healthy"
    """The stable version is the one that the spec asks for."""
    PREPARING = "Preparing"
    """A canary exists, has no weight, and is getting ready."""
    PROGRESSING = "Progressing"
    """The canary has, or is about to have, the weight of its step."""
    PAUSED = "Paused"
    """The step waits for a time, for a person, or for spec.rollout.paused to end."""
    PROMOTING = "Promoting"
    """All steps are passed; the canary is getting everything."""
    PROBATION = "Probation"
    """The new version is stable; the old one is kept ready."""
    ROLLING_BACK = "RollingBack"
    """The canary's weight is zero or about to be; it is drained, then scaled down."""
    ROLLED_BACK = "RolledBack"
    """The stable version serves; the spec asks for a version that was rejected."""


class RevisionStatus(StatusModel):
    """One revision: a hash of what is served."""

    revision: str
    """The hash in the names of the revision's children."""
    version: str
    """The model version."""


class RolloutStatus(StatusModel):
    """Where the rollout of the canary is. Time stamps live here, never in memory."""

    started_at: AwareDatetime
    """When the canary was first seen in the spec."""
    step: int = -1
    """The index of the step in spec.rollout.steps, from 0; -1 before the first."""
    target_weight: int = 0
    """The weight that the canary is meant to have, in percent."""
    ready_at: AwareDatetime | None = None
    """When the canary's pods were first ready."""
    not_ready_since: AwareDatetime | None = None
    """Since when the canary's pods are not ready, while they should be."""
    weighted_at: AwareDatetime | None = None
    """When the canary was first given weight: evidence counts from here."""
    in_force_at: AwareDatetime | None = None
    """When targetWeight was seen in force; empty until then."""
    lost_capacity: int = 0
    """How often the canary had weight and lost its ready pods."""
    promoted_step: int | None = None
    """The step whose pause a person ended."""
    overruled: bool = False
    """A person ended the step before: targetWeight is written even while metrics are not seen."""
    paused_since: AwareDatetime | None = None
    """Since when the rollout waits for a person."""
    paused_seconds: int = 0
    """How long it waited for a person before; not counted towards deadlineSeconds."""
    deadline_passed: bool = False
    """deadlineSeconds is over, and onDeadline is hold."""
    warned_slow: bool = False
    """It was said that a doubling of a rate would be seen only after deadlineSeconds."""
    undrilled_since: AwareDatetime | None = None
    """Since when the drill of the canary's fallback fails, though its pods are ready."""


class RejectedRevision(StatusModel):
    """A revision that was rolled back. It is not rolled out again until a retry."""

    revision: str
    """The hash."""
    version: str
    """The model version."""
    reason: str
    """Why, as one CamelCase word."""
    message: str
    """Why, as a sentence."""
    at: AwareDatetime
    """When."""
    instead: str | None = None
    """The revision that is rolled out in its place, by the order undo, while the spec asks for this
    one."""


class Notice(StatusModel):
    """What somebody is still to be told of. Removed when all of them took it."""

    id: str
    """By which a receiver tells that it has seen it."""
    occasion: Occasion
    """What kind of news it is."""
    reason: str
    """What happened, as one CamelCase word: the reason of the Event that says the same."""
    message: str
    """What happened, as a sentence."""
    at: AwareDatetime
    """When."""
    phase: Phase
    """Where the ModelDeployment was then."""
    stable: RevisionStatus | None = None
    """The version that served then."""
    canary: RevisionStatus | None = None
    """The version that was rolled out, or taken back, then."""
    weight: int = 0
    """Its share of the traffic then, in percent."""
    receivers: list[str]
    """The names in spec.notifications that did not take it yet."""


class GateStatus(StatusModel):
    """What a gate said when it was asked last."""

    name: str
    """The gate's name."""
    answer: GateAnswer
    """allowed, refused or failed."""
    message: str = ""
    """What it said, or how the question failed."""


class FallbackTargetStatus(StatusModel):
    """What one target of the fallback did with the golden request in the last drill."""

    target: str
    """stable, previous, service or static."""
    ok: bool
    """It answered as a fallback must."""
    message: str | None = None
    """What it did instead, such as "answered 503"."""


class StepForecast(StatusModel):
    """What it takes to see twice the present error rate with 80 % probability at one weight."""

    weight_percent: int
    """The weight of the step."""
    requests: int
    """How many requests the canary must answer."""
    seconds: int | None = None
    """How long that takes at today's traffic; empty while there is none."""


class MetricStatus(StatusModel):
    """What the last look at one metric said."""

    name: str
    """The metric's name."""
    verdict: str
    """healthy, harm, notEnoughData or unavailable."""
    message: str
    """The verdict in words and numbers."""
    alert: str = ""
    """What people should know though no version is to blame: the inputs moved."""
    forecast: list[StepForecast] = Field(default_factory=list)
    """For each step of the ladder, how long a doubling of the rate goes unnoticed."""
    no_forecast: str | None = None
    """Why there is no forecast for any step."""


class Condition(StatusModel):
    """A condition, as everywhere in Kubernetes."""

    type: str
    """Ready, Progressing, RouteAccepted or InputsCompatible."""
    status: Literal["True", "False", "Unknown"]
    """True, False or Unknown."""
    observed_generation: int
    """The generation of the spec that this speaks of."""
    last_transition_time: AwareDatetime
    """When status last changed."""
    reason: str
    """Why, as one CamelCase word."""
    message: str
    """Why, as a sentence."""


class ModelDeploymentStatus(StatusModel):
    """What the operator sees and does."""

    observed_generation: int = 0
    """The generation of the spec that this speaks of."""
    phase: Phase = Phase.INITIALIZING
    """Where the ModelDeployment is."""
    stable: RevisionStatus | None = None
    """The version that serves."""
    canary: RevisionStatus | None = None
    """The version that is rolled out, or taken back."""
    previous: RevisionStatus | None = None
    """The version before stable, kept ready during probation."""
    weight: int = 0
    """The canary's share of the traffic, in percent, as observed in force."""
    step: str = ""
    """The step of the ladder, as "2/3"."""
    verdict: str = ""
    """The verdict of the last look, with the reason when it holds."""
    message: str = ""
    """What is going on, as a sentence."""
    rollout: RolloutStatus | None = None
    """Where the rollout is."""
    promoted_at: AwareDatetime | None = None
    """When stable was promoted; empty after probation."""
    drained_since: AwareDatetime | None = None
    """When the version that is leaving was seen without weight."""
    rejected: list[RejectedRevision] = Field(default_factory=list)
    """Versions that were rolled back, the latest first."""
    metrics: list[MetricStatus] = Field(default_factory=list)
    """The last look at each metric; numbers are refreshed on transitions and now and then."""
    joined_backend: PreservedObject | None = None
    """The backend of the joined route as it was; put back on deletion."""
    consumed_command: str = ""
    """A command that is done and whose annotation is about to be removed."""
    fallback: list[FallbackTargetStatus] = Field(default_factory=list)
    """The last drill of a fallback: each target, in the order of spec.fallback.targets."""
    gates: list[GateStatus] = Field(default_factory=list)
    """What the gates said that were asked for the next weight."""
    notices: list[Notice] = Field(default_factory=list)
    """What somebody is still to be told of, the oldest first."""
    conditions: list[Condition] = Field(default_factory=list)
    """Ready, Progressing and RouteAccepted; while a canary has a contract for its inputs, also
    InputsCompatible."""
    replicas: int = 0
    """The pods of the stable version."""
    ready_replicas: int = 0
    """The ready pods of the stable version."""
    selector: str = ""
    """A label selector of the stable version's pods, for the scale subresource."""
