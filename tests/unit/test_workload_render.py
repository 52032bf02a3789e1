"""The children of a revision are what its spec says, and safe where it says nothing."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest

from crossfade.api.parse import parse_spec
from crossfade.api.v1alpha1 import ModelDeploymentSpec
from crossfade.core.actions import Role
from crossfade.workload import render

OWNER = render.Owner(name="fraud", namespace="ml", uid="u1")
MODEL = {"name": "model", "image": "fraud:1"}


def spec(**changes: Any) -> ModelDeploymentSpec:
    body: dict[str, Any] = {
        "model": {"name": "fraud", "version": "1.0"},
        "template": {"spec": {"containers": [deepcopy(MODEL)]}},
        "traffic": {"replicas": {}},
    }
    return parse_spec({"spec": body | changes})


def with_container(**fields: Any) -> ModelDeploymentSpec:
    return spec(template={"spec": {"containers": [{**MODEL, **fields}]}})


def container(of: ModelDeploymentSpec, index: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = render.render_template(OWNER, of, "bcdf")["spec"]["containers"][index]
    return found


def deployment(of: ModelDeploymentSpec) -> dict[str, Any]:
    return render.render_deployment(OWNER, of, "bcdf", Role.CANARY, 3)


def test_a_deployment_is_named_owned_and_labelled() -> None:
    metadata = deployment(spec())["metadata"]
    assert (metadata["namespace"], metadata["name"]) == ("ml", "fraud-bcdf")
    assert metadata["labels"] == {
        "app.kubernetes.io/managed-by": "crossfade",
        "crossfade.dev/name": "fraud",
        "crossfade.dev/revision": "bcdf",
        "crossfade.dev/role": "canary",
    }
    assert metadata["annotations"] == {"crossfade.dev/model-version": "1.0"}
    assert metadata["ownerReferences"] == [
        {
            "apiVersion": "crossfade.dev/v1alpha1",
            "kind": "ModelDeployment",
            "name": "fraud",
            "uid": "u1",
            "controller": True,
            "blockOwnerDeletion": True,
        }
    ]


def test_the_role_is_no_label_of_pods_so_that_a_promotion_restarts_none() -> None:
    rendered = deployment(spec())["spec"]
    labels = rendered["template"]["metadata"]["labels"]
    assert "crossfade.dev/role" not in labels
    assert rendered["selector"]["matchLabels"].items() <= labels.items()


def test_a_restart_by_hand_keeps_the_capacity() -> None:
    strategy = deployment(spec())["spec"]["strategy"]
    assert strategy["rollingUpdate"] == {"maxUnavailable": 0}


def test_an_autoscaler_owns_the_number_of_pods() -> None:
    assert deployment(spec())["spec"]["replicas"] == 3
    assert "replicas" not in deployment(spec(autoscaling={"maxReplicas": 5}))["spec"]


def test_the_users_labels_and_annotations_stay_beside_ours() -> None:
    metadata = {"labels": {"team": "ml"}, "annotations": {"note": "x"}, "creationTimestamp": None}
    template = {"metadata": metadata, "spec": {"containers": [MODEL]}}
    rendered = render.render_template(OWNER, spec(template=template), "bcdf")["metadata"]
    assert rendered["labels"]["team"] == "ml"
    assert rendered["labels"]["crossfade.dev/revision"] == "bcdf"
    assert rendered["annotations"] == {"note": "x", "crossfade.dev/model-version": "1.0"}


def test_rendering_leaves_the_spec_as_it_is() -> None:
    given = spec(template={"metadata": None, "spec": {"containers": [deepcopy(MODEL)]}})
    before = deepcopy(given.template)
    deployment(given)
    assert given.template == before


def test_the_model_itself_is_asked_whether_it_is_ready() -> None:
    given = spec(model={"name": "a/b", "version": "1"}, serving={"port": 80})
    assert container(given)["readinessProbe"] == {
        "httpGet": {"path": "/v2/models/a%2Fb/ready", "port": 80},
        "periodSeconds": 1,
        "timeoutSeconds": 5,
        "failureThreshold": 3,
    }


def test_a_probe_of_the_user_is_kept() -> None:
    probe = {"tcpSocket": {"port": 1}}
    assert container(with_container(readinessProbe=probe))["readinessProbe"] == probe


def test_only_the_first_container_is_the_model() -> None:
    two = spec(template={"spec": {"containers": [MODEL, {**MODEL, "name": "log"}]}})
    assert "readinessProbe" not in container(two, 1)
    assert "lifecycle" in container(two, 1)


def test_a_server_of_another_protocol_is_not_asked() -> None:
    assert "readinessProbe" not in container(spec(serving={"protocol": "http"}))


@pytest.mark.parametrize(("grace", "seconds"), [(None, 5), (60, 5), (10, 5), (6, 3), (2, 1)])
def test_a_container_goes_on_while_gateways_forget_it(grace: int | None, seconds: int) -> None:
    pod = {"containers": [MODEL]} | (
        {} if grace is None else {"terminationGracePeriodSeconds": grace}
    )
    rendered = container(spec(template={"spec": pod}))
    assert rendered["lifecycle"]["preStop"] == {"sleep": {"seconds": seconds}}


@pytest.mark.parametrize("grace", [0, 1])
def test_a_pod_that_is_to_end_at_once_does(grace: int) -> None:
    pod = {"containers": [MODEL], "terminationGracePeriodSeconds": grace}
    assert "lifecycle" not in container(spec(template={"spec": pod}))


def test_a_hook_of_the_user_is_kept() -> None:
    hook = {"preStop": {"exec": {"command": ["drain"]}}}
    assert container(with_container(lifecycle=hook))["lifecycle"] == hook
    start = {"postStart": {"exec": {"command": ["warm"]}}}
    assert container(with_container(lifecycle=start))["lifecycle"].keys() == {
        "postStart",
        "preStop",
    }


def test_containers_are_told_the_model_before_their_own_environment() -> None:
    own = {"name": "URI", "value": "$(CROSSFADE_MODEL_URI)/x"}
    model = {"name": "fraud", "version": "1.0", "uri": "s3://fraud"}
    pod = {"containers": [{**MODEL, "env": [own]}], "initContainers": [MODEL]}
    rendered = render.render_template(OWNER, spec(model=model, template={"spec": pod}), "bcdf")
    told = [
        {"name": "CROSSFADE_MODEL_NAME", "value": "fraud"},
        {"name": "CROSSFADE_MODEL_VERSION", "value": "1.0"},
        {"name": "CROSSFADE_MODEL_URI", "value": "s3://fraud"},
    ]
    assert rendered["spec"]["containers"][0]["env"] == [*told, own]
    assert rendered["spec"]["initContainers"][0]["env"] == told


def test_a_variable_of_the_user_is_kept() -> None:
    own = {"name": "CROSSFADE_MODEL_VERSION", "value": "mine"}
    env = container(with_container(env=[own]))["env"]
    assert env == [{"name": "CROSSFADE_MODEL_NAME", "value": "fraud"}, own]


def test_a_service_selects_the_pods_of_its_revision() -> None:
    service = render.render_service(OWNER, spec(serving={"port": 9000}), "bcdf")
    assert service["metadata"]["name"] == "fraud-bcdf"
    assert service["spec"] == {
        "type": "ClusterIP",
        "selector": {"crossfade.dev/name": "fraud", "crossfade.dev/revision": "bcdf"},
        "ports": [{"name": "http", "protocol": "TCP", "port": 9000, "targetPort": 9000}],
    }


def test_the_address_selects_one_revision_or_all() -> None:
    one = render.render_address(OWNER, spec(), "bcdf")
    every = render.render_address(OWNER, spec(), None)
    assert one["metadata"]["name"] == every["metadata"]["name"] == "fraud"
    assert one["spec"]["selector"]["crossfade.dev/revision"] == "bcdf"
    assert every["spec"]["selector"] == {"crossfade.dev/name": "fraud"}
    assert "crossfade.dev/revision" not in one["metadata"]["labels"]


def test_an_autoscaler_is_as_the_spec_says() -> None:
    behavior = {"scaleDown": {"stabilizationWindowSeconds": 600}}
    metric = {"type": "Pods"}
    given = spec(autoscaling={"maxReplicas": 5, "metrics": [metric], "behavior": behavior})
    rendered = render.render_autoscaler(OWNER, given, "bcdf", 2)
    assert rendered["spec"] == {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "fraud-bcdf"},
        "minReplicas": 2,
        "maxReplicas": 5,
        "metrics": [metric],
        "behavior": behavior,
    }


def test_an_autoscaler_never_asks_for_more_than_its_maximum() -> None:
    given = spec(autoscaling={"maxReplicas": 5})
    rendered = render.render_autoscaler(OWNER, given, "bcdf", 9)["spec"]
    assert rendered["minReplicas"] == 5
    assert not {"metrics", "behavior"} & rendered.keys()


def test_there_is_no_autoscaler_where_none_is_asked_for() -> None:
    with pytest.raises(ValueError, match=r"spec\.autoscaling is not set"):
        render.render_autoscaler(OWNER, spec(), "bcdf", 1)


def test_patches_say_what_they_change_and_nothing_else() -> None:
    identity = {"namespace": "ml", "name": "fraud-bcdf"}
    apps = {"apiVersion": "apps/v1", "kind": "Deployment"}
    assert render.patch_scale(OWNER, "bcdf", 4).manifest == {
        **apps,
        "metadata": identity,
        "spec": {"replicas": 4},
    }
    assert render.patch_role(OWNER, "bcdf", Role.STABLE).manifest == {
        **apps,
        "metadata": {**identity, "labels": {"crossfade.dev/role": "stable"}},
    }
    assert render.patch_autoscaler(OWNER, "bcdf", 4).manifest == {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": identity,
        "spec": {"minReplicas": 4},
    }
