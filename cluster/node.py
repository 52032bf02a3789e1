"""Bring a one-node Kubernetes up, and take it down so that the next one starts clean.

    up      sweep -> network, certificates -> etcd, containerd -> API server
            -> images, controller manager, scheduler, kube-proxy, kubelet -> node Ready
    down    kubelet, kube-proxy -> containers -> scheduler, controller manager -> API server
            -> etcd -> containerd -> mounts, network

The kubelet ends first, lest it start the containers again that are being removed.
"""

import shutil
from collections.abc import Callable
from http import HTTPStatus
from typing import Final

from cluster import api, components, containers, host, network
from cluster.images_static import ensure_images, static_archives
from cluster.paths import Paths
from cluster.pki import ensure_pki, node_name
from cluster.process import ClusterError
from cluster.progress import Progress, say
from cluster.supervise import recorded, start, stop, wait_until

DAEMONS: Final = (
    "etcd",
    "containerd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kube-proxy",
    "kubelet",
)
"""All that a healthy node runs."""
PART_READY_SECONDS: Final = 60
"""Limit for each part; measured 0.3 s for etcd, 3-4 s for the API server, 1-2 s for the node."""


def is_healthy(paths: Paths) -> bool:
    """Tell whether a whole cluster of this cache runs and its node is Ready."""
    running = recorded(paths)
    if not all(name in running and running[name].is_alive() for name in DAEMONS):
        return False
    return api.is_ready(paths) and _is_node_ready(paths)


def is_any_alive(paths: Paths) -> bool:
    """Tell whether any process of a cluster of this cache runs."""
    return any(daemon.is_alive() for daemon in recorded(paths).values())


def start_node(paths: Paths) -> None:
    """Start a cluster from nothing, up to a node that is Ready.

    Raises:
        ClusterError: If a part does not start; quotes its log. What did start is left for
            inspection, and swept by the next start.
    """
    progress = Progress("up", 6)
    with progress.step("clear what an earlier run left"):
        sweep(paths)
        host.refuse_foreign_cluster()
    with progress.step("network, certificates"):
        network.ensure_network(paths)
        ensure_pki(paths)
        components.write_configuration(paths)
    with progress.step("etcd, containerd"):
        start(paths, "etcd", components.etcd(paths))
        containers.start_containerd(paths)
        _wait(paths, "etcd", lambda: api.http_status(f"{components.ETCD}/readyz") == HTTPStatus.OK)
    with progress.step("API server"):
        start(paths, "kube-apiserver", components.api_server(paths))
        load_static_images(paths)
        _wait(paths, "kube-apiserver", lambda: api.is_ready(paths))
    with progress.step("controller manager, scheduler, kube-proxy, kubelet"):
        start(paths, "kube-controller-manager", components.controller_manager(paths))
        start(paths, "kube-scheduler", components.scheduler(paths))
        start(paths, "kube-proxy", components.proxy(paths))
        start(paths, "kubelet", components.kubelet(paths))
    with progress.step("node Ready"):
        _wait(paths, "kubelet", lambda: _is_node_ready(paths))


def load_static_images(paths: Paths) -> None:
    """Import the images of this package's own programs, where they are not loaded yet."""
    ensure_images(paths)
    for archive in static_archives(paths):
        containers.load(paths, archive)


def stop_node(paths: Paths) -> None:
    """End the cluster and remove what it left on the machine; the logs stay until the next start.

    Works just as well on what is left of a cluster that was killed.
    """
    progress = Progress("down", 5)
    with progress.step("kubelet, kube-proxy"):
        stop(paths, ["kubelet", "kube-proxy"], timeout_seconds=10)
    with progress.step("containers"):
        _clear_containers(paths)
    with progress.step("scheduler, controller manager, API server"):
        stop(paths, ["kube-scheduler", "kube-controller-manager"], timeout_seconds=5)
        # It takes up to 10 s to let go of its port if it has open watches and may end in peace;
        # nothing is lost by killing it sooner.
        stop(paths, ["kube-apiserver"], timeout_seconds=2)
    with progress.step("etcd, containerd"):
        stop(paths, ["etcd"], timeout_seconds=3)
        containers.stop_containerd(paths)
    with progress.step("mounts, network"):
        network.clear_rules(paths)
        network.clear_network()
    # Whoever looks for a cluster here finds none, rather than one that does not answer.
    paths.kubeconfig.unlink(missing_ok=True)
    host.release()


def sweep(paths: Paths) -> None:
    """Remove every trace of an earlier cluster of this cache, however it ended."""
    if paths.run.exists():
        stop(paths, ["kubelet", "kube-proxy"], timeout_seconds=5)
        _clear_containers(paths)
        stop(paths, [name for name in DAEMONS if name != "containerd"], timeout_seconds=3)
        containers.stop_containerd(paths)
    network.clear_rules(paths)
    network.clear_network()
    if paths.run.exists():
        shutil.rmtree(paths.run)


def _clear_containers(paths: Paths) -> None:
    """Remove all containers, starting containerd for it if it was killed; else forget its state.

    containerd finds a killed cluster's containers in its database and takes their shims over, so
    it is the one that can remove them in order. If it cannot, its whole store goes: images load
    again from their archives.
    """
    if not (paths.run / "containerd").exists() and not containers.is_answering(paths):
        return
    try:
        if not containers.is_answering(paths):
            stop(paths, ["containerd"], timeout_seconds=5)
            containers.start_containerd(paths)
        containers.clear_containers(paths)
    except ClusterError as error:
        say(f"containerd's store is not to be mended ({error}); starting it over.")
        containers.stop_containerd(paths)
        containers.unmount_below(paths.containerd_root)
        shutil.rmtree(paths.containerd_root, ignore_errors=True)


def _wait(paths: Paths, daemon: str, is_ready: Callable[[], bool]) -> None:
    wait_until(
        paths,
        f"{daemon} to be ready",
        is_ready,
        timeout_seconds=PART_READY_SECONDS,
        daemon=daemon,
    )


def _is_node_ready(paths: Paths) -> bool:
    path = "jsonpath={.status.conditions[?(@.type=='Ready')].status}"
    answer = api.kubectl(paths, "get", "node", node_name(), f"--output={path}", check=False)
    return answer == "True"
