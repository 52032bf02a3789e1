"""Say what of the cluster runs and what does not."""

from typing import Any

from cluster import api, node
from cluster.addons import PROMETHEUS
from cluster.binaries import PROGRAMS, TRAEFIK_VERSION
from cluster.network import GATEWAY_ADDRESS
from cluster.paths import Paths
from cluster.supervise import recorded


def report(paths: Paths) -> int:
    """Print components, node, pods that do not run, and versions.

    Returns:
        0 for a healthy cluster, else 1.
    """
    running = recorded(paths)
    for name in node.DAEMONS:
        daemon = running.get(name)
        is_alive = daemon is not None and daemon.is_alive()
        _line(name, f"running, process {daemon.pid}" if daemon and is_alive else "NOT RUNNING")
    if not api.is_ready(paths):
        _line("API server", "NOT READY")
        return 1
    _report_nodes(paths)
    waiting = _report_pods(paths)
    _line("gateway", f"http://{GATEWAY_ADDRESS}")
    _line("Prometheus", f"{PROMETHEUS}, status {api.http_status(f'{PROMETHEUS}/-/ready')}")
    for program in PROGRAMS:
        _line(f"version of {program.name}", program.version)
    _line("version of traefik", TRAEFIK_VERSION)
    return 0 if node.is_healthy(paths) and not waiting else 1


def _report_nodes(paths: Paths) -> None:
    for item in api.get(paths, "nodes")["items"]:
        conditions = {it["type"]: it["status"] for it in item["status"]["conditions"]}
        info = item["status"]["nodeInfo"]
        ready = "Ready" if conditions.get("Ready") == "True" else "NOT READY"
        text = f"{ready}, kubelet {info['kubeletVersion']}, {info['containerRuntimeVersion']}"
        _line(f"node {item['metadata']['name']}", text)


def _report_pods(paths: Paths) -> int:
    """Print the pods that are neither ready nor finished; return how many."""
    pods = api.get(paths, "pods", "--all-namespaces")["items"]
    waiting = [pod for pod in pods if not _is_settled(pod)]
    _line("pods", f"{len(pods) - len(waiting)} of {len(pods)} ready or finished")
    for pod in waiting:
        _line(f"  {pod['metadata']['namespace']}/{pod['metadata']['name']}", pod["status"]["phase"])
    return len(waiting)


def _is_settled(pod: dict[str, Any]) -> bool:
    if pod["status"]["phase"] == "Succeeded":
        return True
    conditions = pod["status"].get("conditions", [])
    return any(it["type"] == "Ready" and it["status"] == "True" for it in conditions)


def _line(name: str, text: str) -> None:
    print(f"{name:<32} {text}")
