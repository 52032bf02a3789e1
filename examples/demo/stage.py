"""Set the demo's stage: its namespace, the trained models as ConfigMaps, the application.

Everything is made anew, so that a second run starts like the first.
"""

from __future__ import annotations

import json
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Final

import yaml

from examples.demo.kubectl import Kubectl, KubectlError, Manifest, NotFoundError

if TYPE_CHECKING:
    from examples.demo.train import Artifacts

FOLDER: Final = Path(__file__).resolve().parent
NAMESPACE: Final = "demo"
NAME: Final = "digits"
CODE: Final = ("app.py", "http1.py", "load.py", "stats.py", "tally.py", "train.py")
"""What runs inside the cluster."""

TRAIN_SECONDS: Final = 120
START_SECONDS: Final = 60


class Stage:
    """The namespace `demo` of one cluster."""

    def __init__(self, kubectl: Kubectl) -> None:
        self._kubectl = kubectl
        manifests = list(yaml.safe_load_all((FOLDER / "app.yaml").read_text()))
        self._job = [it for it in manifests if it["kind"] == "Job"]
        self._application = [it for it in manifests if it["kind"] != "Job"]

    def clear(self) -> None:
        """Delete the namespace and make it again.

        Raises:
            KubectlError: The cluster cannot be reached, or keeps the old one.
        """
        # What makes pods goes first: a namespace that still has pods when it is deleted looks for
        # their end only now and then.
        owners = "modeldeployments.crossfade.dev,deployments,jobs"
        everything = ("--all", "--cascade=foreground", "--timeout=60s", "--namespace", NAMESPACE)
        self._kubectl.run("delete", owners, *everything, seconds=70)
        words = ("delete", "namespace", NAMESPACE, "--ignore-not-found", "--timeout=90s")
        self._kubectl.run(*words, seconds=100)
        self._kubectl.apply(
            [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}]
        )

    def train(self) -> Artifacts:
        """Train the models in a Job and return what it made.

        Raises:
            KubectlError: The Job failed or did not end in time.
        """
        code = {name: (FOLDER / name).read_text() for name in CODE}
        self._kubectl.apply([_config_map("code", data=code), *self._job])
        wait = ("wait", "--namespace", NAMESPACE, f"--timeout={TRAIN_SECONDS}s")
        try:
            condition = "--for=condition=complete"
            self._kubectl.run(*wait, condition, "job/train", seconds=TRAIN_SECONDS + 10)
        except KubectlError as error:
            raise KubectlError(f"{error}\n{self._explain('app=train')}") from error
        printed = self._kubectl.run("logs", "--namespace", NAMESPACE, "job/train")
        artifacts: Artifacts = json.loads(printed.strip().rpartition("\n")[2])
        return artifacts

    def publish(self, artifacts: Artifacts) -> None:
        """Make a ConfigMap of every model version, in the layout that MLServer reads.

        Raises:
            KubectlError: The API server refuses it.
        """
        self._kubectl.apply(
            [
                _config_map(
                    f"{NAME}-{version}",
                    data={"model-settings.json": json.dumps(_model_settings(version))},
                    binary={"model.joblib": made["joblib"]},
                )
                for version, made in artifacts["versions"].items()
            ]
        )

    def start_application(self, artifacts: Artifacts) -> None:
        """Start the application with the held-out images as its traffic, and wait until it runs.

        Raises:
            KubectlError: It does not come up in time.
        """
        traffic = {"images": artifacts["images"], "labels": artifacts["labels"]}
        document = json.dumps(traffic, separators=(",", ":"))
        data = {"traffic.json": document}
        self._kubectl.apply([_config_map("traffic", data=data), *self._application])
        words = ("rollout", "status", "deployment/app", "--namespace", NAMESPACE)
        limit = f"--timeout={START_SECONDS}s"
        try:
            self._kubectl.run(*words, limit, seconds=START_SECONDS + 10)
        except KubectlError as error:
            raise KubectlError(f"{error}\n{self._explain('app=app')}") from error

    def release(self, version: str) -> None:
        """Ask for a model version, as a user does: apply the ModelDeployment.

        Raises:
            KubectlError: The API server refuses it.
        """
        self._kubectl.apply([render_release(version)])

    def _explain(self, selector: str) -> str:
        """Return what pods and their logs say, for an error message."""
        space = ("--namespace", NAMESPACE, "--selector", selector)
        try:
            pods = self._kubectl.run("get", "pods", *space, "--output=wide")
            return pods + self._kubectl.run("logs", *space, "--tail=20")
        except KubectlError as error:
            return str(error)


def render_release(version: str) -> Manifest:
    """Render the ModelDeployment that asks for a version."""
    template = Template((FOLDER / "digits.yaml").read_text())
    manifest: Manifest = yaml.safe_load(template.substitute(version=version))
    return manifest


def _model_settings(version: str) -> Manifest:
    return {
        "name": NAME,
        "implementation": "mlserver_sklearn.SKLearnModel",
        "parameters": {"uri": "/mnt/models/model.joblib", "version": version},
    }


def _config_map(
    name: str, *, data: dict[str, str], binary: dict[str, str] | None = None
) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "data": data,
        "binaryData": binary or {},
    }


def check_cluster(kubectl: Kubectl) -> None:
    """See that the cluster has what the demo needs.

    Raises:
        KubectlError: Something is missing; the message says how to get it.
    """
    needed = {
        "/apis/crossfade.dev/v1alpha1": "Crossfade is not installed there",
        "/apis/gateway.networking.k8s.io/v1/namespaces/gateways/gateways/public": (
            "there is no Gateway `public` in the namespace `gateways`"
        ),
        "/api/v1/namespaces/monitoring/services/prometheus": (
            "there is no Prometheus in the namespace `monitoring`"
        ),
    }
    for path, problem in needed.items():
        try:
            kubectl.read(path)
        except NotFoundError as error:
            raise KubectlError(f"{problem}; `make demo` sets all of it up") from error
