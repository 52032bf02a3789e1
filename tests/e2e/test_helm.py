"""The Helm chart in the real helm's hands: checked, rendered, installed, upgraded, taken away."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

import pytest
import yaml

from cluster import chart
from cluster.paths import Paths
from cluster.process import ClusterError
from examples.demo.kubectl import Kubectl
from tests.e2e.conftest import Kubectl as AnyKubectl
from tests.e2e.rollouts import Rollout, eventually

RELEASE: Final = "blue"
OPERATOR: Final = f"{RELEASE}-operator"
OTHER_OPERATOR: Final = "system:serviceaccount:crossfade-system:crossfade-operator"
CRD: Final = "crd/modeldeployments.crossfade.dev"
MONITORING: Final = "monitoring.coreos.com/v1"
SWITCHES: Final = (
    "podDisruptionBudget.enabled=true",
    "networkPolicy.enabled=true",
    "serviceMonitor.enabled=true",
    "podMonitor.enabled=true",
    "prometheusRule.enabled=true",
    "dashboard.enabled=true",
)


def helm(*words: str) -> str:
    """Run helm on the chart's release; return what it prints."""
    return chart.helm(Paths.from_environment(), *words)


def rendered(namespace: str, *settings: str) -> list[dict[str, Any]]:
    """Render the chart for a release in a namespace."""
    words = [word for setting in settings for word in ("--set", setting)]
    out = helm("template", RELEASE, str(chart.CHART), "--namespace", namespace, *words)
    return [it for it in yaml.safe_load_all(out) if it]


def names(objects: list[dict[str, Any]], kind: str) -> list[tuple[str | None, str]]:
    """Return namespace and name of the objects of a kind."""
    found = [it["metadata"] for it in objects if it["kind"] == kind]
    return sorted((it.get("namespace"), it["name"]) for it in found)


def check(cluster: Kubectl, objects: list[dict[str, Any]]) -> None:
    """Have the API server check what it knows; the Prometheus Operator's kinds are not there."""
    known = [it for it in objects if it["apiVersion"] != MONITORING]
    listed = {"apiVersion": "v1", "kind": "List", "items": known}
    words = ("apply", "--server-side", "--force-conflicts", "--dry-run=server", "-f", "-")
    assert cluster.run(*words, stdin=json.dumps(listed)).count("serverside-applied") == len(known)


def test_helm_finds_nothing_wrong_with_the_chart() -> None:
    assert "1 chart(s) linted, 0 chart(s) failed" in helm("lint", "--strict", str(chart.CHART))


def test_the_manifests_are_what_helm_renders() -> None:
    for name, text in chart.render(Paths.from_environment()).items():
        assert (chart.MANIFESTS / name).read_text() == text


def test_by_default_it_watches_the_cluster(cluster: Kubectl, namespace: str) -> None:
    objects = rendered(namespace)
    assert names(objects, "ClusterRole") == [
        (None, "blue-edit"), (None, OPERATOR), (None, "blue-view"),
    ]  # fmt: skip
    assert names(objects, "Role") == []
    assert names(objects, "CustomResourceDefinition") == [(None, CRD.partition("/")[2])]
    assert len(objects) == 7
    check(cluster, objects)


def test_with_named_namespaces_it_has_no_right_over_the_cluster(
    cluster: Kubectl, namespace: str
) -> None:
    watched = f"watch.namespaces={{{namespace},default}}"
    objects = rendered(namespace, watched, "rbac.aggregate=false", "crds.install=false")
    both = [("default", OPERATOR), (namespace, OPERATOR)]
    assert names(objects, "Role") == names(objects, "RoleBinding") == both
    assert not [it for it in objects if it["kind"].startswith("Cluster")]
    assert {it["metadata"]["namespace"] for it in objects} == {"default", namespace}
    check(cluster, objects)


def test_everything_switched_on_is_taken(cluster: Kubectl, namespace: str) -> None:
    objects = rendered(namespace, *SWITCHES)
    check(cluster, objects)
    monitors = {it["kind"]: it["spec"] for it in objects if it["apiVersion"] == MONITORING}
    rules = yaml.safe_load((chart.CHART / "files" / "alerts.yaml").read_text())
    assert monitors["PrometheusRule"] == rules
    (dashboard,) = (it for it in objects if it["kind"] == "ConfigMap")
    text = (chart.CHART / "files" / "dashboard.json").read_text()
    assert dashboard["data"] == {"crossfade.json": text}
    assert monitors["PodMonitor"]["podMetricsEndpoints"][0]["port"] == "crossfade-admin"
    assert monitors["PodMonitor"]["namespaceSelector"] == {"any": True}
    (deployment,) = (it for it in objects if it["kind"] == "Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    ports = {it["name"] for it in container["ports"]}
    (service,) = (it for it in objects if it["kind"] == "Service")
    assert {it["targetPort"] for it in service["spec"]["ports"]} <= ports
    assert {it["port"] for it in monitors["ServiceMonitor"]["endpoints"]} == {
        it["name"] for it in service["spec"]["ports"]
    }
    labels = service["metadata"]["labels"].items()
    assert monitors["ServiceMonitor"]["selector"]["matchLabels"].items() <= labels
    for kind in ("PodDisruptionBudget", "NetworkPolicy"):
        assert names(objects, kind) == [(namespace, OPERATOR)]


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("replicas=2", "replicas"),
        ("image.digest=x", "digest"),
        ("watch.namespaces={A}", "namespaces"),
        ("rbac.secretNames=x", "secretNames"),
    ],
)
def test_a_wrong_value_is_refused(setting: str, words: str) -> None:
    with pytest.raises(ClusterError, match=words):
        rendered("default", setting)


MAY: Final = (
    ("get", "secrets/crossfade-prometheus"),
    ("patch", "modeldeployments.crossfade.dev/fraud --subresource=status"),
    ("create", "deployments.apps"),
)
MAY_NOT: Final = (
    ("get", "secrets/other"),
    ("list", "secrets"),
    ("watch", "secrets"),
    ("list", "configmaps"),
    ("create", "pods"),
    ("create", "pods --subresource=exec"),
    ("delete", "httproutes.gateway.networking.k8s.io"),
    ("update", "modeldeployments.crossfade.dev"),
    ("create", "rolebindings.rbac.authorization.k8s.io"),
    ("create", "serviceaccounts --subresource=token"),
)


@pytest.mark.parametrize(
    ("verb", "what", "answer"),
    [(*right, "yes") for right in MAY] + [(*right, "no") for right in MAY_NOT],
)
@pytest.mark.usefixtures("cluster")
def test_the_operator_of_the_manifests_may_do_its_work_and_no_more(
    kubectl: AnyKubectl, verb: str, what: str, answer: str
) -> None:
    asked = ("auth", "can-i", verb, *what.split(), "-n", "default", "--as", OTHER_OPERATOR)
    assert kubectl(*asked).stdout.strip() == answer


@pytest.mark.alone
@pytest.mark.usefixtures("cluster")
def test_no_right_was_missing_in_all_the_tests() -> None:
    """Those that run beside each other have run before; admission is another thing."""
    with Paths.from_environment().audit_log.open() as lines:
        entries = [json.loads(line) for line in lines if OTHER_OPERATOR in line]
    mine = [it for it in entries if it["user"]["username"] == OTHER_OPERATOR]
    decisions = {it["annotations"]["authorization.k8s.io/decision"] for it in mine}
    assert decisions == {"allow"}


@pytest.fixture
def no_other_operator(cluster: Kubectl) -> Iterator[None]:
    """Stop the operator of the other tests: two must not watch the same namespace."""
    there = ("-n", chart.NAMESPACE)
    cluster.run(*there, "scale", "deployment/crossfade-operator", "--replicas=0")
    cluster.run(*there, "wait", "pods", "--all", "--for=delete", "--timeout=60s", seconds=70)
    yield
    cluster.run(*there, "scale", "deployment/crossfade-operator", "--replicas=1")
    ready = ("rollout", "status", "deployment/crossfade-operator", "--timeout=120s")
    cluster.run(*there, *ready, seconds=130)


def test_a_namespace_that_is_gone_keeps_the_operator_from_no_other(
    cluster: Kubectl, namespace: str
) -> None:
    """Its Role went with it; the operator starts all the same, and looks again later."""
    gone = f"{namespace}-b"
    cluster.run("create", "namespace", gone)
    watched = f"watch.namespaces={{{namespace},{gone}}}"
    settings = ("--set", watched, "--set", "rbac.aggregate=false", "--set", "crds.install=false")
    there = ("--namespace", namespace)
    wait = ("--wait", "--timeout", "120s")
    helm("install", RELEASE, str(chart.CHART), *there, *settings, *wait)
    cluster.run("delete", "namespace", gone, seconds=120)
    cluster.run("-n", namespace, "delete", "pods", "--all", seconds=60)
    ready = ("rollout", "status", f"deployment/{OPERATOR}", "--timeout=60s")
    cluster.run("-n", namespace, *ready, seconds=70)
    log = cluster.run("-n", namespace, "logs", f"deployment/{OPERATOR}")
    assert f"no right to watch {gone}" in log
    assert f"no right to watch {namespace}:" not in log


def version(rollout: Rollout, version: str) -> dict[str, Any]:
    """Build a version whose two steps wait for a person, with an autoscaler and a credential."""
    steps: list[dict[str, Any]] = [
        {"weightPercent": weight, "minSeconds": 1, "minRequests": 5, "pause": {}}
        for weight in (10, 50)
    ]
    manifest = rollout.manifest(
        version,
        rollout={"steps": steps, "probationSeconds": 5},
        autoscaling={"minReplicas": 1, "maxReplicas": 2},
    )
    token = {"name": "crossfade-prometheus", "key": "token"}
    manifest["spec"]["analysis"]["prometheus"]["bearerToken"] = token
    return manifest


def touched(rollout: Rollout) -> dict[str, Any]:
    """Return what changes when anything of a rollout is written, or a pod of a model restarts."""
    mine = [it for it in rollout.objects("pods") if it["metadata"]["name"].startswith("fraud-")]
    restarts = {
        it["metadata"]["uid"]: [one["restartCount"] for one in it["status"]["containerStatuses"]]
        for it in mine
    }
    kinds = ("deployments", "services", "httproutes", "horizontalpodautoscalers")
    generations = {
        f"{kind}/{it['metadata']['name']}": (it["metadata"].get("generation"), it["spec"])
        for kind in kinds
        for it in rollout.objects(kind)
        if it["metadata"]["name"].startswith("fraud")
    }
    return {"restarts": restarts, **generations}


def log_level(rollout: Rollout) -> str:
    """Return how the operator that runs was set."""
    pods = [it for it in rollout.objects("pods") if it["metadata"]["name"].startswith(OPERATOR)]
    (pod,) = (it for it in pods if "deletionTimestamp" not in it["metadata"])
    variables = pod["spec"]["containers"][0]["env"]
    return next(str(it["value"]) for it in variables if it["name"] == "CROSSFADE_LOG_LEVEL")


@pytest.mark.alone
@pytest.mark.usefixtures("no_other_operator")
def test_a_release_comes_and_goes_while_a_rollout_goes_on(
    cluster: Kubectl, rollout: Rollout, gateway: str
) -> None:
    """Install, upgrade, roll back and uninstall, with a rollout under way and under load.

    It watches one namespace, by a Role. Each of the three operators does a part of the rollout.
    """
    space = rollout.namespace
    literal = ("create", "secret", "generic", "crossfade-prometheus", "--from-literal=token=t")
    cluster.run("-n", space, *literal)
    there = ("--namespace", space)
    wait = ("--wait", "--timeout", "120s")
    values = ("--set", f"watch.namespaces={{{space}}}", "--set", "rbac.aggregate=false")
    # The CRD is there already, of the other tests' operator: the release takes it over.
    helm("install", RELEASE, str(chart.CHART), *there, *values, "--take-ownership", *wait)

    rollout.apply_manifest(version(rollout, "1.0.0"))
    rollout.wait("Healthy", stable="1.0.0")
    with rollout.load(20, gateway) as stats:
        rollout.apply_manifest(version(rollout, "2.0.0"))
        rollout.wait("Paused", stable="1.0.0")
        before = touched(rollout)
        upgraded = ("--reuse-values", "--set", "logLevel=DEBUG", "--take-ownership")
        helm("upgrade", RELEASE, str(chart.CHART), *there, *upgraded, *wait)
        assert log_level(rollout) == "DEBUG"
        assert (rollout.status["phase"], rollout.status["weight"]) == ("Paused", 10)
        assert touched(rollout) == before

        rollout.order("promote")
        rollout.wait_weight(50)
        rollout.wait("Paused", stable="1.0.0")
        before = touched(rollout)
        helm("rollback", RELEASE, "1", *there, *wait)
        assert log_level(rollout) == "INFO"
        assert (rollout.status["phase"], rollout.status["weight"]) == ("Paused", 50)
        assert touched(rollout) == before

        rollout.order("promote")
        rollout.wait("Healthy", stable="2.0.0")
        before = touched(rollout)
        helm("uninstall", RELEASE, *there, "--wait", "--timeout", "120s")
        answered = len(stats)
        eventually(lambda: len(stats) > answered + 40 or None, 60, lambda: "no more answers")
        assert touched(rollout) == before
    assert not stats.lost(), stats.lost()
    assert set(stats.statuses()) == {200}
    assert set(stats.answers_by_version()) == {"1.0.0", "2.0.0"}

    assert rollout.status["stable"]["version"] == "2.0.0"
    assert cluster.run("get", CRD, "-o", "name").strip().endswith("modeldeployments.crossfade.dev")
    assert rollout.objects("roles") == rollout.objects("rolebindings") == []
    judge_rights(space)


EXPLAINED: Final = {
    # Server-side apply is logged as a patch, and asks for create as well where nothing is yet.
    ("apps", "deployments", "create"),
    ("apps", "controllerrevisions", "create"),
    ("", "services", "create"),
    ("autoscaling", "horizontalpodautoscalers", "create"),
    ("gateway.networking.k8s.io", "httproutes", "create"),
    # Only of more than ten.
    ("apps", "controllerrevisions", "delete"),
    # Asked for by an admission plugin only.
    ("crossfade.dev", "modeldeployments/finalizers", "update"),
    # Joined routes, references in ConfigMaps, and Istio are tested elsewhere.
    ("gateway.networking.k8s.io", "httproutes", "update"),
    ("", "configmaps", "get"),
    ("networking.istio.io", "virtualservices", "watch"),
    ("networking.istio.io", "virtualservices", "create"),
    ("networking.istio.io", "virtualservices", "patch"),
}
"""Rights that this rollout does not use, or not by their name."""


def judge_rights(namespace: str) -> None:
    """Compare what the API server's audit log saw with what was granted."""
    user = f"system:serviceaccount:{namespace}:{OPERATOR}"
    used, elsewhere, refused, others = set(), [], [], []
    with Paths.from_environment().audit_log.open() as lines:
        for line in lines:
            if namespace not in line:
                continue
            entry = json.loads(line)
            seen = entry.get("objectRef")
            if entry["user"]["username"] == OTHER_OPERATOR:
                others.append(entry["requestURI"])
            if entry["user"]["username"] != user or seen is None:
                continue
            if seen["resource"] == "selfsubjectaccessreviews":
                continue  # Everybody may ask what they may: system:basic-user.
            sub = f"/{seen['subresource']}" if "subresource" in seen else ""
            used.add((seen.get("apiGroup", ""), seen["resource"] + sub, entry["verb"]))
            if seen.get("namespace") != namespace:
                elsewhere.append(entry["requestURI"])
            if entry.get("responseStatus", {}).get("code") == 403:
                refused.append(entry["requestURI"])
    assert used, "nothing of it is in the audit log"
    assert elsewhere == refused == []
    assert others == [], "the operator of the other tests was not stopped"
    watched = f"watch.namespaces={{{namespace}}}"
    (role,) = (it for it in rendered(namespace, watched) if it["kind"] == "Role")
    granted = {
        (group, resource, verb)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    assert used <= granted
    assert granted - used <= EXPLAINED
