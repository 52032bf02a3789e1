"""The sidecar of a version: what it is told, and what is added to the pod for it."""

from __future__ import annotations

import json
import re
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from crossfade.api.inference import TensorContract
from crossfade.api.parse import parse_spec
from crossfade.api.v1alpha1 import ModelDeploymentSpec
from crossfade.core.actions import Manifest, Role
from crossfade.errors import InvalidSpecError
from crossfade.names import NamespacedName
from crossfade.sidecar.config import Config, Observed, read_config
from crossfade.sidecar.contract import Contract
from crossfade.sidecar.messages import Request
from crossfade.sidecar.recording import DIRECTORY
from crossfade.workload import render
from crossfade.workload.sidecar import (
    Injection,
    check,
    read_stable,
    target_port,
    target_port_of,
)
from crossfade.workload.sidecar_config import DEFAULT_BUCKETS, Stable, config_of

ROOT = Path(__file__).parents[2]
OWNER = render.Owner(name="fraud", namespace="ml", uid="u1")
KEY = NamespacedName("ml", "fraud")
MODEL = {"name": "model", "image": "fraud:1"}
NATIVE = Injection("crossfade:1")
ORDINARY = Injection("crossfade:1", is_native=False)
GATEWAY = {"gateway": {"parentRefs": [{"name": "public"}]}}
GOLDEN = {"goldenRequest": {"body": {"age": 30}}}
STABLE = Stable("bbbb")


def spec(**changes: Any) -> ModelDeploymentSpec:
    body: dict[str, Any] = {
        "model": {"name": "fraud", "version": "1.0"},
        "template": {"spec": {"containers": [deepcopy(MODEL)]}},
        "traffic": GATEWAY,
    }
    return parse_spec({"spec": body | changes})


def proxied(**changes: Any) -> ModelDeploymentSpec:
    return spec(**{"sidecar": {}, **changes})


def pod_of(spec: ModelDeploymentSpec, injection: Injection = NATIVE) -> Manifest:
    rendered: Manifest = render.render_template(OWNER, spec, "cccc", injection, STABLE)
    return rendered


def told_by(spec: ModelDeploymentSpec, stable: Stable | None = STABLE) -> Config:
    return config_of(KEY, spec, "cccc", stable)


def sidecar_of(template: Manifest) -> dict[str, Any]:
    pod = template["spec"]
    (found,) = (
        container
        for container in (*pod.get("initContainers", ()), *pod["containers"])
        if container["name"] == "crossfade-sidecar"
    )
    assert isinstance(found, dict)
    return found


def with_targets(*targets: dict[str, Any], **changes: Any) -> ModelDeploymentSpec:
    return spec(sidecar=GOLDEN, fallback={"targets": list(targets)}, **changes)


def addresses(spec: ModelDeploymentSpec, stable: Stable | None = STABLE) -> list[tuple[Any, ...]]:
    fallback = told_by(spec, stable).fallback
    assert fallback is not None
    return [(target.name, target.host, target.port) for target in fallback.targets]


# ── when there is one ─────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "part",
    [
        {"sidecar": {}},
        {"inputs": {"schema": {}}},
        {"predictions": [{"name": "score", "jsonPath": "$.score"}]},
        {"fallback": {"targets": [{"static": {}}]}},
        {"recording": {}},
    ],
    ids=lambda part: next(iter(part)),
)
def test_any_of_the_five_parts_adds_it(part: dict[str, Any]) -> None:
    assert sidecar_of(pod_of(spec(**part)))["image"] == "crossfade:1"


@given(
    labels=st.dictionaries(st.sampled_from(["a", "b"]), st.just("x")),
    protocol=st.sampled_from(["openInference", "http"]),
    port=st.integers(1, 65535),
    grace=st.none() | st.integers(0, 90),
    injection=st.sampled_from([NATIVE, ORDINARY, Injection()]),
    stable=st.sampled_from([None, STABLE]),
)
def test_without_them_nothing_is_different(
    labels: dict[str, str],
    protocol: str,
    port: int,
    grace: int | None,
    injection: Injection,
    stable: Stable | None,
) -> None:
    pod = {"containers": [deepcopy(MODEL)], "terminationGracePeriodSeconds": grace}
    given_spec = spec(
        template={"metadata": {"labels": labels}, "spec": pod},
        serving={"protocol": protocol, "port": port},
    )
    check(KEY, given_spec, injection)
    plain = render.render_deployment(OWNER, given_spec, "cccc", Role.CANARY, 1)
    assert plain == render.render_deployment(
        OWNER, given_spec, "cccc", Role.CANARY, 1, injection, stable
    )
    assert "crossfade-sidecar" not in json.dumps(plain)
    assert "prometheus.io" not in json.dumps(plain)
    assert target_port(given_spec) == port
    service = render.render_service(OWNER, given_spec, "cccc")
    assert service["spec"]["ports"][0]["targetPort"] == port


# ── what is added ─────────────────────────────────────────────────────────────────────────────


def test_a_native_one_starts_first_and_goes_on() -> None:
    pod = {"containers": [MODEL], "initContainers": [{**MODEL, "name": "fetch"}]}
    template = pod_of(proxied(template={"spec": pod}))
    assert [c["name"] for c in template["spec"]["initContainers"]] == ["crossfade-sidecar", "fetch"]
    assert sidecar_of(template)["restartPolicy"] == "Always"
    assert len(template["spec"]["containers"]) == 1


def test_a_native_one_learns_at_once_that_its_pod_ends() -> None:
    """Its SIGTERM comes after the model's end."""
    let_go = {"exec": {"command": ["sh", "-c", "kill -USR1 1"]}}
    assert sidecar_of(pod_of(proxied()))["lifecycle"] == {"preStop": let_go}


def test_without_native_ones_it_is_the_last_container_and_waits_as_the_others_do() -> None:
    template = pod_of(proxied(), ORDINARY)
    model, sidecar = template["spec"]["containers"]
    assert (model["name"], sidecar["name"]) == ("model", "crossfade-sidecar")
    assert "restartPolicy" not in sidecar
    assert sidecar["lifecycle"] == model["lifecycle"] == {"preStop": {"sleep": {"seconds": 5}}}
    assert "initContainers" not in template["spec"]


def test_it_may_do_nothing_and_knows_no_token() -> None:
    template = pod_of(proxied())
    sidecar = sidecar_of(template)
    assert sidecar["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": 65532,
        "runAsGroup": 65532,
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    (token,) = (m for m in sidecar["volumeMounts"] if "serviceaccount" in m["mountPath"])
    assert token["mountPath"] == "/var/run/secrets/kubernetes.io/serviceaccount"
    assert {"name": token["name"], "emptyDir": {}} in template["spec"]["volumes"]
    assert "env" not in sidecar


def test_its_user_is_that_of_the_image() -> None:
    (user,) = re.findall(r"^USER (\d+):\1$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert sidecar_of(pod_of(proxied()))["securityContext"]["runAsUser"] == int(user)


def test_its_configuration_is_an_annotation_that_comes_in_as_a_file() -> None:
    template = pod_of(proxied(recording={"percent": 5}))
    written = template["metadata"]["annotations"]["crossfade.dev/sidecar"]
    assert read_config(written.encode()) == told_by(proxied(recording={"percent": 5}))
    (mount,) = (m for m in sidecar_of(template)["volumeMounts"] if m["mountPath"][:5] == "/etc/")
    (volume,) = (v for v in template["spec"]["volumes"] if v["name"] == mount["name"])
    assert mount["mountPath"] == "/etc/crossfade"
    assert volume["downwardAPI"]["items"] == [
        {
            "path": "sidecar.json",
            "fieldRef": {"fieldPath": "metadata.annotations['crossfade.dev/sidecar']"},
        }
    ]


def test_it_tells_by_itself_whether_it_lives_and_whether_the_model_answers() -> None:
    template = pod_of(proxied(sidecar={"port": 9001, "adminPort": 9002}))
    sidecar = sidecar_of(template)
    ports = {port["name"]: port["containerPort"] for port in sidecar["ports"]}
    assert ports == {"crossfade": 9001, "crossfade-admin": 9002}
    ready, live = sidecar["readinessProbe"], sidecar["livenessProbe"]
    assert (ready["httpGet"]["path"], ready["httpGet"]["port"]) == ("/ready", "crossfade-admin")
    assert (ready["periodSeconds"], ready["timeoutSeconds"], ready["failureThreshold"]) == (1, 5, 3)
    assert (live["httpGet"]["path"], live["httpGet"]["port"]) == ("/live", "crossfade-admin")
    assert "readinessProbe" not in template["spec"]["containers"][0]


def test_a_probe_of_the_users_own_stays() -> None:
    probe = {"tcpSocket": {"port": 1}}
    template = pod_of(
        proxied(template={"spec": {"containers": [{**MODEL, "readinessProbe": probe}]}})
    )
    assert template["spec"]["containers"][0]["readinessProbe"] == probe


def test_its_resources_are_small_unless_the_user_says_otherwise() -> None:
    assert sidecar_of(pod_of(proxied()))["resources"] == {
        "requests": {"cpu": "50m", "memory": "64Mi"},
        "limits": {"memory": "256Mi"},
    }
    own = {"limits": {"cpu": "2"}}
    assert sidecar_of(pod_of(proxied(sidecar={"resources": own})))["resources"] == own
    assert sidecar_of(pod_of(proxied(sidecar={"resources": {}})))["resources"] == {}


def test_it_asks_to_be_scraped_where_nothing_else_of_the_pod_does() -> None:
    annotations = pod_of(proxied())["metadata"]["annotations"]
    assert annotations["prometheus.io/scrape"] == "true"
    assert annotations["prometheus.io/port"] == "8013"
    assert annotations["prometheus.io/path"] == "/metrics"
    own = {"metadata": {"annotations": {"prometheus.io/scrape": "false"}}}
    template = {**own, "spec": {"containers": [MODEL]}}
    annotations = pod_of(proxied(template=template))["metadata"]["annotations"]
    scraped = {k: v for k, v in annotations.items() if k.startswith("prometheus.io/")}
    assert scraped == {"prometheus.io/scrape": "false"}


def test_the_users_volumes_stay_and_the_spec_is_left_as_it_is() -> None:
    own = {"name": "cache", "emptyDir": {}}
    given_spec = proxied(template={"spec": {"containers": [MODEL], "volumes": [own]}})
    before = deepcopy(given_spec.template)
    volumes = pod_of(given_spec, ORDINARY)["spec"]["volumes"]
    assert volumes[0] == own
    assert len({volume["name"] for volume in volumes}) == len(volumes) == 3
    assert given_spec.template == before


# ── where requests go ─────────────────────────────────────────────────────────────────────────


def test_the_services_keep_their_port_and_lead_to_the_sidecar() -> None:
    given_spec = proxied(serving={"port": 9000})
    service = render.render_service(OWNER, given_spec, "cccc")
    assert service["spec"]["ports"] == [
        {"name": "http", "protocol": "TCP", "port": 9000, "targetPort": 8012}
    ]
    address = render.render_address(OWNER, given_spec, "cccc", 8012)
    assert address["spec"]["ports"] == service["spec"]["ports"]


@pytest.mark.parametrize("injection", [NATIVE, ORDINARY])
def test_the_port_of_a_version_is_known_from_its_deployment(injection: Injection) -> None:
    given_spec = proxied(sidecar={"port": 9001})
    deployment = render.render_deployment(OWNER, given_spec, "cccc", Role.CANARY, 1, injection)
    assert target_port_of(deployment, 8080) == target_port(given_spec) == 9001
    plain = render.render_deployment(OWNER, spec(), "cccc", Role.CANARY, 1)
    assert target_port_of(plain, 8080) == 8080
    assert target_port_of(None, 8080) == 8080


# ── what it is told ───────────────────────────────────────────────────────────────────────────


def test_it_is_told_who_it_stands_before() -> None:
    told = told_by(proxied(serving={"port": 9000}, sidecar={"maxBodyBytes": 2048}))
    assert (told.namespace, told.name, told.model) == ("ml", "fraud", "fraud")
    assert (told.version, told.revision, told.protocol) == ("1.0", "cccc", "openInference")
    assert (told.port, told.admin_port, told.model_port) == (8012, 8013, 9000)
    assert told.max_body_bytes == 2048
    assert (told.golden, told.inputs, told.fallback, told.recording) == (None, None, None, None)


def test_whoever_asks_for_none_cannot_be_told() -> None:
    with pytest.raises(ValueError, match="asks for no sidecar"):
        told_by(spec())


@pytest.mark.parametrize(("grace", "seconds"), [(None, 20), (300, 236), (10, 4), (0, 0)])
def test_requests_have_most_of_the_grace_period(grace: int | None, seconds: float) -> None:
    pod = {"containers": [MODEL], "terminationGracePeriodSeconds": grace}
    assert told_by(proxied(template={"spec": pod})).drain_seconds == seconds


@pytest.mark.parametrize(
    ("body", "sent"),
    [
        ({"a": [1, None, "é"]}, '{"a":[1,null,"é"]}'),
        ([], "[]"),
        ("a,b\n1,2", "a,b\n1,2"),
        (None, ""),
    ],
)
def test_a_golden_body_is_sent_as_json_or_as_it_is(body: object, sent: str) -> None:
    golden = told_by(proxied(sidecar={"goldenRequest": {"body": body}})).golden
    assert golden is not None
    assert golden.body == sent


def test_a_golden_request_goes_where_the_model_infers() -> None:
    named = {"name": "a/b", "version": "1"}
    golden = told_by(proxied(model=named, sidecar=GOLDEN)).golden
    assert golden is not None
    assert golden.path == "/v2/models/a%2Fb/infer"
    own = {"path": "/predict?x=1", "method": "PUT", "timeoutSeconds": 2, "contentType": "text/csv"}
    golden = told_by(proxied(sidecar={"goldenRequest": own})).golden
    assert golden is not None
    assert (golden.path, golden.method, golden.timeout_seconds) == ("/predict?x=1", "PUT", 2)
    assert golden.content_type == "text/csv"


NUMBERS = ["UINT8", "INT64", "FP32", "FP64"]


@st.composite
def tensors(draw: st.DrawFn) -> dict[str, Any]:
    datatype = draw(st.sampled_from([*NUMBERS, "BOOL", "BYTES"]))
    shape = draw(st.lists(st.sampled_from([-1, 1, 2, 3]), min_size=1, max_size=3))
    tensor: dict[str, Any] = {"name": "x", "datatype": datatype, "shape": shape}
    if datatype in NUMBERS:
        bounds = st.integers(0 if datatype == "UINT8" else -100, 100)
        low, high = sorted([draw(bounds), draw(bounds)])
        limits = {"min": low, "max": high}
        tensor |= {key: limits[key] for key in draw(st.sets(st.sampled_from(["min", "max"])))}
    if datatype == "BYTES" and draw(st.booleans()):
        tensor["allowed"] = ["cat", "dog"]
    return tensor


@given(tensors())
def test_a_golden_request_from_tensors_keeps_their_contract(tensor: dict[str, Any]) -> None:
    optional = {"name": "y", "datatype": "FP32", "shape": [9], "optional": True}
    given_spec = spec(inputs={"tensors": [tensor, optional]})
    check(KEY, given_spec, NATIVE)
    told = told_by(given_spec)
    assert told.golden is not None
    (sent,) = json.loads(told.golden.body)["inputs"]
    assert sent["shape"] == [abs(size) for size in tensor["shape"]]
    contract = Contract(told)
    assert contract.applies_to("POST", told.golden.path)
    request = Request("POST", told.golden.path, (), told.golden.body.encode())
    assert contract.check(request)[0] == ()


def test_a_contract_is_told_as_it_is_written() -> None:
    schema = {"type": "object", "required": ["age"]}
    inputs = told_by(
        spec(inputs={"schema": schema, "paths": ["/predict"], "onViolation": "log"})
    ).inputs
    assert inputs is not None
    assert (inputs.schema, inputs.paths, inputs.on_violation) == (schema, ("/predict",), "log")
    tensor: dict[str, Any] = {
        "name": "x",
        "datatype": "BYTES",
        "shape": [-1],
        "allowed": ["a"],
        "maxNullPercent": 5,
        "optional": True,
    }
    inputs = told_by(spec(inputs={"tensors": [tensor]})).inputs
    assert inputs is not None
    assert inputs.tensors is not None
    (told,) = inputs.tensors
    assert TensorContract.model_validate(tensor).model_dump() == {
        **{name: getattr(told, name) for name in told.__struct_fields__},
        "shape": [-1],
        "allowed": ["a"],
    }


def test_numbers_have_the_borders_of_stable_unless_the_spec_has_some() -> None:
    old = Observed(name="score", json_path="$.p", buckets=(0.25, 0.5))
    before = told_by(proxied(), None)
    known = Stable("bbbb", structs.replace(before, predictions=(old,)))
    predictions: list[dict[str, Any]] = [
        {"name": "score", "jsonPath": "$.score"},
        {"name": "other", "jsonPath": "$.other"},
        {"name": "class", "jsonPath": "$.class", "type": "label", "labels": ["a"]},
    ]
    score, other, label = told_by(spec(predictions=predictions), known).predictions
    assert (score.json_path, score.buckets) == ("$.score", (0.25, 0.5))
    assert other.buckets == DEFAULT_BUCKETS
    assert (label.buckets, label.labels) == ((), ("a",))
    own = [{**predictions[0], "buckets": [1, 2]}]
    assert told_by(spec(predictions=own), known).predictions[0].buckets == (1, 2)
    features = [{"name": "score", "tensor": "x", "column": 2}]
    told = told_by(spec(inputs={"schema": {}, "features": features}), known)
    assert (told.features[0].tensor, told.features[0].column) == ("x", 2)
    assert told.features[0].buckets == DEFAULT_BUCKETS


def test_the_default_borders_rise_are_symmetric_but_for_tenths_and_are_few() -> None:
    assert list(DEFAULT_BUCKETS) == sorted(set(DEFAULT_BUCKETS))
    assert len(DEFAULT_BUCKETS) == 63
    assert {0.001, 0.3, 0.9, 1e6, -1e6, -0.001, 0.0} <= set(DEFAULT_BUCKETS)


def test_who_answers_instead_is_a_fixed_address() -> None:
    targets: tuple[dict[str, Any], ...] = (
        {"stable": {}},
        {"previous": {}},
        {"service": {"name": "rules", "port": 80}},
        {"static": {"status": 503, "body": {"score": 0}}},
    )
    assert addresses(with_targets(*targets, serving={"port": 9000})) == [
        ("stable", "fraud.ml.svc", 9000),
        ("previous", "fraud-bbbb.ml.svc", 9000),
        ("service", "rules.ml.svc", 80),
        ("static", None, None),
    ]


def test_where_the_service_is_the_split_stable_is_the_version_of_now() -> None:
    given_spec = with_targets({"stable": {}}, traffic={"replicas": {}})
    assert addresses(given_spec) == [("stable", "fraud-bbbb.ml.svc", 8080)]


@pytest.mark.parametrize("stable", [None, Stable("cccc")], ids=["first", "again"])
def test_a_version_does_not_fall_back_to_versions_before_the_first(stable: Stable | None) -> None:
    given_spec = with_targets({"stable": {}}, {"previous": {}}, {"static": {}})
    assert addresses(given_spec, stable) == [("static", None, None)]
    alone = with_targets({"stable": {}}, {"previous": {}})
    assert told_by(alone, stable).fallback is None


def test_a_fallback_is_told_with_its_limits() -> None:
    given_spec = spec(
        sidecar=GOLDEN,
        fallback={
            "reasons": ["timeout"],
            "timeoutSeconds": 3,
            "targets": [
                {"stable": {}, "timeoutSeconds": 2, "budgetPercent": 20},
                {"static": {"status": 202, "contentType": "text/plain", "body": "later"}},
            ],
            "breaker": {"failurePercent": 10, "openSeconds": 9},
        },
    )
    fallback = told_by(given_spec).fallback
    assert fallback is not None
    assert (fallback.on, fallback.timeout_seconds) == (("timeout",), 3)
    stable, static = fallback.targets
    assert (stable.timeout_seconds, stable.budget_percent) == (2, 20)
    assert (static.timeout_seconds, static.budget_percent) == (5, 100)
    assert (static.status, static.content_type, static.body) == (202, "text/plain", "later")
    breaker = fallback.breaker
    assert (breaker.failure_percent, breaker.open_seconds, breaker.min_requests) == (10, 9, 20)


def test_every_reason_makes_it_fall_back_unless_some_are_named() -> None:
    fallback = told_by(with_targets({"static": {}})).fallback
    assert fallback is not None
    assert fallback.on == ("timeout", "connection", "serverError", "openCircuit")


def test_a_recording_is_told_as_it_is_written() -> None:
    written: dict[str, Any] = {"percent": 5, "keep": 10, "maxBytes": 65_536, "mask": ["$..email"]}
    recording = told_by(spec(recording={**written, "maskHeaders": ["X-User"]})).recording
    assert recording is not None
    assert (recording.percent, recording.keep, recording.max_bytes) == (5, 10, 65_536)
    assert (recording.mask, recording.mask_headers) == (("$..email",), ("X-User",))
    plain = told_by(spec(recording={})).recording
    assert plain is not None
    assert (plain.percent, plain.keep, plain.mask) == (1, 500, ())


def test_recordings_have_a_bounded_volume_over_restarts_of_the_container() -> None:
    template = pod_of(proxied(recording={"maxBytes": 65_536, "keep": 10}))
    (mount,) = (m for m in sidecar_of(template)["volumeMounts"] if m["mountPath"] == str(DIRECTORY))
    assert "readOnly" not in mount
    limit = str(2 * 65_536 + 10 * 4096)
    volume = {"name": mount["name"], "emptyDir": {"sizeLimit": limit}}
    assert volume in template["spec"]["volumes"]
    without = pod_of(proxied())
    assert mount not in sidecar_of(without)["volumeMounts"]
    assert mount["name"] not in [v["name"] for v in without["spec"]["volumes"]]


def test_what_stable_was_told_is_read_from_its_deployment() -> None:
    deployment = render.render_deployment(OWNER, proxied(), "bbbb", Role.STABLE, 1, NATIVE)
    assert read_stable("bbbb", deployment).config == config_of(KEY, proxied(), "bbbb", None)
    annotations = deployment["spec"]["template"]["metadata"]["annotations"]
    annotations["crossfade.dev/sidecar"] = '{"newer":true}'
    assert read_stable("bbbb", deployment) == Stable("bbbb")
    assert read_stable("bbbb", None) == Stable("bbbb")


# ── what is refused before anything is created ────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"inputs": {"schema": {"type": "nothing"}}}, r"spec\.inputs: the schema of inputs is"),
        ({"inputs": {"schema": {"$ref": "http://a/b"}}}, r"spec\.inputs: "),
        ({"inputs": {"schema": {}, "paths": ["/a/../b"]}}, r"spec\.inputs: the path"),
        ({"predictions": [{"name": "a", "jsonPath": "$["}]}, r"spec: \$\[ is no JSONPath"),
        ({"recording": {"mask": ["$.a b"]}}, r"spec: \$\.a b is no JSONPath"),
        (
            {"sidecar": GOLDEN, "inputs": {"schema": {"required": ["income"]}}},
            r"spec\.inputs refuses the golden request: .*income",
        ),
        (
            {"inputs": {"tensors": [{"name": "x", "datatype": "FP32", "shape": [3, 512, 512]}]}},
            "more than 200,000 bytes: shorten",
        ),
        (
            {
                "sidecar": {},
                "template": {
                    "spec": {"containers": [MODEL], "volumes": [{"name": "crossfade-sidecar"}]}
                },
            },
            "the name crossfade-sidecar is taken by the sidecar",
        ),
    ],
)
def test_what_the_sidecar_would_not_take_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidSpecError, match=message):
        check(KEY, spec(**changes), NATIVE)


def test_an_operator_without_the_image_says_which_setting_lacks() -> None:
    with pytest.raises(InvalidSpecError, match="CROSSFADE_SIDECAR_IMAGE"):
        check(KEY, proxied(), Injection())


def test_a_good_one_is_taken() -> None:
    schema = {"type": "object", "properties": {"age": {"minimum": 18}}}
    inputs = {"schema": schema, "features": [{"name": "age", "jsonPath": "$.age"}]}
    check(KEY, spec(sidecar=GOLDEN, inputs=inputs, recording={"mask": ["$..email"]}), NATIVE)
