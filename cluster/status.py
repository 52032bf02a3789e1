"""Say what of the cluster runs and what does not."""

from typing import Any

from cluster import api, kind, node
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
    is_whole = kind.exists() or _report_daemons(paths)
    if not api.is_serving(paths):
        _line("API server", "NOT READY")
        return 1
    are_ready = _report_nodes(paths)
    waiting = _report_pods(paths)
    _line("gateway", f"http://{GATEWAY_ADDRESS}")
    _line("Prometheus", f"{PROMETHEUS}, status {api.http_status(f'{PROMETHEUS}/-/ready')}")
    for program in PROGRAMS:
        _line(f"version of {program.name}", program.version)
    _line("version of traefik", TRAEFIK_VERSION)
    return 0 if is_whole and are_ready and not waiting else 1


def _report_daemons(paths: Paths) -> bool:
    """Print the node's processes; return whether all run."""
    running = recorded(paths)
    alive = [name for name in node.DAEMONS if name in running and running[name].is_alive()]
    for name in node.DAEMONS:
        text = f"running, process {running[name].pid}" if name in alive else "NOT RUNNING"
        _line(name, text)
    return len(alive) == len(node.DAEMONS)


def _report_nodes(paths: Paths) -> bool:
    """Print the nodes; return whether all are Ready."""
    are_ready = True
    for item in api.get(paths, "nodes")["items"]:
        conditions = {it["type"]: it["status"] for it in item["status"]["conditions"]}
        info = item["status"]["nodeInfo"]
        is_ready = conditions.get("Ready") == "True"
        are_ready &= is_ready
        words = ["Ready" if is_ready else "NOT READY", f"kubelet {info['kubeletVersion']}"]
        text = ", ".join([*words, info["containerRuntimeVersion"]])
        _line(f"node {item['metadata']['name']}", text)
    return are_ready


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
