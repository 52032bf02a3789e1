"""Install what the tests need inside the cluster: DNS, Gateway API with Traefik, Prometheus.

Idempotent: on a running cluster it changes what differs and nothing else.
"""

import hashlib
import re
import time
from string import Template
from typing import Any, Final

import yaml

from cluster import api
from cluster.binaries import GATEWAY_API_VERSION
from cluster.network import DNS_ADDRESS, GATEWAY_ADDRESS, PROMETHEUS_ADDRESS
from cluster.paths import PACKAGE, Paths
from cluster.process import ClusterError
from cluster.progress import Progress

DEPLOYMENTS: Final = (
    ("kube-system", "coredns"),
    ("gateways", "traefik"),
    ("monitoring", "prometheus"),
)
PROMETHEUS: Final = f"http://{PROMETHEUS_ADDRESS}:9090"
READY_SECONDS: Final = 90
"""Limit for each add-on; measured 2-6 s."""
RELOAD_SECONDS: Final = 90
"""Limit; the kubelet brings a changed ConfigMap into a pod within seconds."""


def ensure_addons(paths: Paths, scrape_interval: str, *, with_dns: bool = True) -> None:
    """Apply all add-ons and wait until each serves.

    Args:
        paths: The cluster's.
        scrape_interval: Prometheus's, such as ``1s`` or ``500ms``.
        with_dns: Whether CoreDNS is wanted; a kind cluster has its own.

    Raises:
        ClusterError: If the interval is no Prometheus duration, or an add-on does not serve.
    """
    if not re.fullmatch(r"[1-9]\d*(ms|s|m)", scrape_interval):
        message = f"--scrape-interval {scrape_interval}: write it like 500ms, 1s or 1m"
        raise ClusterError(message)
    progress = Progress("add-ons", 3)
    with progress.step("apply"):
        api.apply(paths, _gateway_crds(paths))
        names = ["coredns"] if with_dns else []
        for name in [*names, "traefik", "prometheus"]:
            api.apply(paths, render(name, scrape_interval))
    with progress.step("pods ready, gateway programmed"):
        for namespace, name in DEPLOYMENTS if with_dns else DEPLOYMENTS[1:]:
            _wait(paths, f"deployment/{name}", namespace, "Available")
        _wait(paths, "gateway/public", "gateways", "Programmed")
    with progress.step("Prometheus answers with its configuration"):
        _ensure_prometheus_configuration(paths, scrape_interval)


def render(name: str, scrape_interval: str) -> str:
    """Render an add-on's manifests."""
    template = Template((PACKAGE / "manifests" / f"{name}.yaml").read_text())
    return template.substitute(
        dns_address=DNS_ADDRESS,
        gateway_address=GATEWAY_ADDRESS,
        prometheus_address=PROMETHEUS_ADDRESS,
        scrape_interval=scrape_interval,
    )


def _wait(paths: Paths, target: str, namespace: str, condition: str) -> None:
    api.wait_for_condition(paths, target, namespace, condition, timeout_seconds=READY_SECONDS)


def _gateway_crds(paths: Paths) -> str:
    files = sorted((paths.crds / GATEWAY_API_VERSION).glob("*.yaml"))
    return "\n---\n".join(file.read_text() for file in files)


def _ensure_prometheus_configuration(paths: Paths, scrape_interval: str) -> None:
    """Make a running Prometheus read a changed configuration without a restart.

    The pod sees a changed ConfigMap at its next sync; a changed annotation makes the kubelet sync
    it at once. Only then does a reload find the new file.
    """
    manifests = render("prometheus", scrape_interval)
    wanted = (_canonical(scrape_interval), _jobs(_configuration_in(manifests)))
    deadline = time.monotonic() + RELOAD_SECONDS
    asked = False
    while (found := _observe_configuration()) != wanted:
        if found is not None:
            if not asked:
                _touch_prometheus(paths, manifests)
                asked = True
            api.http_status(f"{PROMETHEUS}/-/reload", method="POST")
        if time.monotonic() > deadline:
            message = f"Prometheus at {PROMETHEUS} works by {found}, not by {wanted}"
            raise ClusterError(message)
        time.sleep(0.3)


def _configuration_in(manifests: str) -> dict[str, Any]:
    maps = [m for m in yaml.safe_load_all(manifests) if m["kind"] == "ConfigMap"]
    configuration: dict[str, Any] = yaml.safe_load(maps[0]["data"]["prometheus.yml"])
    return configuration


def _jobs(configuration: dict[str, Any]) -> list[str]:
    return [job["job_name"] for job in configuration["scrape_configs"]]


def _observe_configuration() -> tuple[str, list[str]] | None:
    """Return the scrape interval and the jobs that Prometheus works by; None: no answer."""
    answer = api.http_json(f"{PROMETHEUS}/api/v1/status/config")
    if answer is None:
        return None
    configuration = yaml.safe_load(answer["data"]["yaml"])
    return str(configuration["global"]["scrape_interval"]), _jobs(configuration)


def _canonical(interval: str) -> str:
    """Write a duration as Prometheus prints it: 60s is 1m, 1000ms is 1s."""
    factors = {"ms": 1, "s": 1000, "m": 60_000}
    digits, unit = re.findall(r"\d+|[a-z]+", interval)
    left = int(digits) * factors[unit]
    text = ""
    for name, factor in (("m", 60_000), ("s", 1000), ("ms", 1)):
        count, left = divmod(left, factor)
        text += f"{count}{name}" if count else ""
    return text


def _touch_prometheus(paths: Paths, manifests: str) -> None:
    digest = hashlib.sha256(manifests.encode()).hexdigest()[:10]
    api.kubectl(
        paths,
        *("annotate", "pods", "--namespace=monitoring", "--selector=app=prometheus"),
        *("--overwrite", f"crossfade.dev/configuration={digest}"),
    )
