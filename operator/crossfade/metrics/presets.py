"""The series of model servers, gateways and meshes that are known by name: ``source.preset``.

Names are those that the programs export, each with where that is written. docs/presets.md says for
users what each preset reads and does not see.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

Unit = Literal["seconds", "milliseconds", "microseconds"]


@dataclass(frozen=True, slots=True)
class Place:
    """Which label of a gateway's series names the Service of a revision, and how."""

    label: str
    mark: str
    """What the value has at its beginning, with {namespace} and {child} (``<name>-<revision>``) to
    fill in. It ends after the child's name, so that no other name begins like it."""
    before: str = ""
    """A regular expression of what may stand before the mark."""


@dataclass(frozen=True, slots=True)
class Preset:
    """The series of one program. Where a series is not there, the user is told what to write."""

    requests: tuple[str, ...]
    """Counters that add up to all requests, the failed ones among them."""
    errors: tuple[str, ...] = ()
    latency: str | None = None
    """A histogram's base name."""
    unit: Unit = "seconds"
    """Of the histogram."""
    place: Place | None = None
    """None: the series are of the model's own pods, and carry their names."""


_MLSERVER: Final = 'method="POST",path=~"/v2/models/.+/(infer|generate)(_stream)?"'
_TRITON_FAILURE: Final = 'nv_inference_request_failure{reason!="CANCELED"}'
_VLLM: Final = (
    'method="POST",handler=~"/v[12]/((chat/)?completions|responses|messages|embeddings|rerank|score'
    '|audio/(transcriptions|translations))|/(generate|invocations|pooling|classify|rerank|score)"'
)
_TENSORFLOW_FAULTS: Final = "UNKNOWN|DEADLINE_EXCEEDED|UNIMPLEMENTED|INTERNAL|UNAVAILABLE|DATA_LOSS"
_ISTIO: Final = 'reporter="destination"'

PRESETS: Final = {
    "mlserver": Preset(
        requests=(f"rest_server_requests_total{{{_MLSERVER}}}",),
        errors=(f'rest_server_requests_total{{{_MLSERVER},status_code=~"5.."}}',),
        latency=f"rest_server_request_duration_seconds{{{_MLSERVER}}}",
    ),
    "triton": Preset(
        requests=("nv_inference_request_success", _TRITON_FAILURE),
        errors=(_TRITON_FAILURE,),
    ),
    "vllm": Preset(
        requests=(f"http_requests_total{{{_VLLM}}}",),
        errors=(f'http_requests_total{{{_VLLM},status="5xx"}}',),
        latency="vllm:e2e_request_latency_seconds",
    ),
    "kserve": Preset(
        requests=("request_predict_seconds_count",),
        latency="request_predict_seconds",
    ),
    "torchserve": Preset(
        requests=("ts_inference_requests_total",),
        errors=("Requests5XX",),
    ),
    "tensorflowServing": Preset(
        requests=(":tensorflow:serving:request_count",),
        errors=(f':tensorflow:serving:request_count{{status=~"{_TENSORFLOW_FAULTS}"}}',),
        latency=':tensorflow:serving:request_latency{API=~"[Pp]redict|[Cc]lassify|[Rr]egress"}',
        unit="microseconds",
    ),
    "envoyGateway": Preset(
        requests=("envoy_cluster_upstream_rq_xx",),
        errors=('envoy_cluster_upstream_rq_xx{envoy_response_code_class="5"}',),
        latency="envoy_cluster_upstream_rq_time",
        unit="milliseconds",
        place=Place("envoy_cluster_name", "service/{namespace}/{child}/"),
    ),
    "istio": Preset(
        requests=(f"istio_requests_total{{{_ISTIO}}}",),
        errors=(f'istio_requests_total{{{_ISTIO},response_code=~"5.."}}',),
        latency=f"istio_request_duration_milliseconds{{{_ISTIO}}}",
        unit="milliseconds",
    ),
    "traefik": Preset(
        requests=("traefik_service_requests_total",),
        errors=('traefik_service_requests_total{code=~"5.."}',),
        latency="traefik_service_request_duration_seconds",
        place=Place("service", "{namespace}-{child}-", before="(.+-svc-)?"),
    ),
    "sidecar": Preset(
        requests=("crossfade_model_requests_total",),
        errors=('crossfade_model_requests_total{code=~"5.."}',),
        latency="crossfade_model_request_duration_seconds",
    ),
}
"""The presets, by the literals of the API.

mlserver
    MLServer 1.7.1 adds starlette_exporter's PrometheusMiddleware with the prefix ``rest_server``
    (mlserver/rest/app.py, create_app; ``metrics_rest_server_prefix`` in settings.py).
    starlette_exporter 0.23.0 (middleware.py) counts ``<prefix>_requests_total`` and observes
    ``<prefix>_request_duration_seconds``, both with the labels method, path, status_code and
    app_name. ``group_paths`` is on, so the path is the route's,
    ``/v2/models/{model_name}/infer`` and the like (app.py, APIRoute: infer, generate, infer_stream,
    generate_stream, each also with a version), and readiness probes and metadata, which are other
    paths, are not counted. Its buckets are prometheus_client's defaults: 5, 10, 25, 50, 75, 100,
    250, 500, 750 ms, 1, 2.5, 5, 7.5 and 10 s.

triton
    Triton Inference Server, docs/user_guide/metrics.md (commit e1db8a6): a success and a failure
    are two counters, the latter by reason REJECTED, CANCELED, BACKEND or OTHER (older releases:
    without a reason). What a client canceled is no answer, good or bad. Latencies are sums, no
    histogram; ``nv_inference_first_response_histogram_ms`` is experimental and off by default.

vllm
    vLLM, vllm/entrypoints/serve/instrumentator/metrics.py (commit 02a69ad) adds
    prometheus-fastapi-instrumentator 8.0.2, whose default metrics (metrics.py, ``default``) count
    ``http_requests_total`` by method, handler and status, the latter grouped to ``5xx``
    (instrumentation.py, ``should_group_status_codes``). ``vllm:request_success`` counts successes
    only, so it is not used. ``vllm:e2e_request_latency_seconds`` is in vllm/v1/metrics/loggers.py
    (commit 005a810, PrometheusStatLogger), observed for each finished request.

kserve
    KServe's Python model server, python/kserve/kserve/metrics.py (commit aaac4e2):
    ``request_predict_seconds`` by model_name, around ``predict`` whether or not it raises
    (model.py, Model.__call__). It counts no errors. Runtimes of KServe that are other servers have
    their own presets.

torchserve
    TorchServe 0.9.0 in metrics mode ``prometheus`` (docs/metrics.md, docs/metrics_api.md; its
    simpleclient 0.9.0 adds no ``_total`` to a name). ``ts_inference_requests_total`` counts where
    an inference is taken on (InferenceRequestHandler.java, predict), ``Requests5XX`` every HTTP
    answer that is not 2xx or 4xx (NettyUtils.java, sendHttpResponse). ``Requests2XX`` has pings and
    the management API in it, and is not used. Latencies are gauges and sums.

tensorflowServing
    TensorFlow Serving, tensorflow_serving/servables/tensorflow/util.cc (commit 9d981c5):
    ``/tensorflow/serving/request_count`` by model_name and status (the name of an absl code), and
    ``/tensorflow/serving/request_latency`` in microseconds by model_name, API and entrypoint, of
    successes only, in buckets of 10 x 1.8^n; util/prometheus_exporter.cc writes other characters
    than letters, digits and _ as colons. The errors are those that model_servers/http_server.cc
    (ToHTTPStatusCode) answers with 500 to 504. REST calls the API predict, gRPC Predict.

envoyGateway
    Envoy, cluster statistics (docs/root/configuration/upstream/cluster_manager/cluster_stats.rst):
    ``upstream_rq_<*xx>``, and ``upstream_rq_time`` in milliseconds. Seen with Envoy 1.40:
    timeouts and refused connections are class 5, active health checks are not counted, and the
    histogram lacks requests that timed out. Envoy Gateway 1.9 names a cluster
    ``service/<namespace>/<service>/<port>/<protocol>`` (internal/gatewayapi/helpers.go,
    irBackendClusterName) when the EnvoyProxy has ``mergeBackends``. Without it, and in every
    earlier release, a rule of a route is one cluster for both versions
    (``httproute/<namespace>/<route>/rule/<n>``, irRouteDestinationName), which no metric can tell
    apart: there are no series then, so nothing is promoted.

istio
    Istio, "Istio Standard Metrics" (istio.io, docs/reference/config/metrics): the sidecar of the
    model's pod reports as ``destination``.

traefik
    Traefik, pkg/observability/metrics/prometheus.go (v3.7): counters by code, method, protocol and
    service, in buckets of 0.1, 0.3, 1.2 and 5 s unless configured. Its Gateway API provider names
    the service of a backend ``<route>-svc-<namespace>-<service>-<index>`` since 3.7.6
    (pkg/provider/kubernetes/gateway/httproute.go, loadService) and
    ``<namespace>-<service>-http-<port>`` before.

sidecar
    Crossfade's own (``crossfade/sidecar/metrics.py``): what the model in the same pod answered,
    whoever answered the client in the end; 502 is no connection, 504 a time-out, 503 an open
    circuit. Inputs that were refused never came to the model, and are not counted.
"""
