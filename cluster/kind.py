"""The users' way where Docker works: a kind cluster instead of a node made by hand.

Must not know add-ons. kind is looked for on PATH; it is not built, for who has Docker has kind.
"""

import shutil
from typing import Final

from cluster.network import POD_RANGE, SERVICE_RANGE
from cluster.paths import PACKAGE, Paths
from cluster.process import ClusterError, run

CONFIG: Final = PACKAGE.parent / "kind-config.yaml"
NAME: Final = "crossfade"
NODE: Final = f"{NAME}-control-plane"
"""Name of the node's Docker container: kind's own rule."""


def is_usable() -> bool:
    """Tell whether a Docker daemon answers and kind is there."""
    if shutil.which("docker") is None or shutil.which("kind") is None:
        return False
    try:
        run(["docker", "info"], timeout_seconds=15)
    except ClusterError:
        return False
    return True


def exists() -> bool:
    """Tell whether our kind cluster exists."""
    return is_usable() and NAME in run(["kind", "get", "clusters"]).split()


def ensure_cluster(paths: Paths) -> None:
    """Create the kind cluster unless it exists, write its kubeconfig, and make it reachable."""
    paths.run.mkdir(parents=True, exist_ok=True)
    if exists():
        kubeconfig = run(["kind", "get", "kubeconfig", f"--name={NAME}"])
        paths.kubeconfig.touch(mode=0o600)
        paths.kubeconfig.write_text(kubeconfig)
    else:
        command = ["kind", "create", "cluster", f"--name={NAME}", f"--config={CONFIG}"]
        command += ["--wait=120s", f"--kubeconfig={paths.kubeconfig}"]
        run(command, timeout_seconds=900)
    _ensure_routes()


def load(archive: str) -> None:
    """Import an image archive into the kind node."""
    run(["kind", "load", "image-archive", archive, f"--name={NAME}"], timeout_seconds=600)


def delete(paths: Paths) -> None:
    """Delete the kind cluster."""
    run(["kind", "delete", "cluster", f"--name={NAME}"], timeout_seconds=300)
    paths.kubeconfig.unlink(missing_ok=True)


def _ensure_routes() -> None:
    """Let this machine reach pods and services directly, as it does on a node made by hand.

    The node's container is a neighbour on Docker's bridge, and forwards. The ranges are kind's
    defaults, which the node made by hand shares.

    Raises:
        ClusterError: Without root, or where Docker runs in a virtual machine of its own.
    """
    template = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
    address = run(["docker", "inspect", "--format", template, NODE]).strip()
    for reachable in (POD_RANGE, SERVICE_RANGE):
        run(["ip", "route", "replace", reachable, "via", address])
