"""The users' way where Docker works: a kind cluster instead of a node made by hand.

Must not know add-ons. kind is looked for on PATH; it is not built, for who has Docker has kind.
"""

import shutil
from pathlib import Path
from typing import Final

from cluster.paths import PACKAGE, Paths
from cluster.process import ClusterError, run

CONFIG: Final = PACKAGE.parent / "kind-config.yaml"
NAME: Final = "crossfade"


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
    return NAME in run(["kind", "get", "clusters"]).split()


def ensure_cluster(paths: Paths) -> None:
    """Create the kind cluster unless it exists, and write its kubeconfig."""
    paths.run.mkdir(parents=True, exist_ok=True)
    if exists():
        kubeconfig = run(["kind", "get", "kubeconfig", f"--name={NAME}"])
        paths.kubeconfig.touch(mode=0o600)
        paths.kubeconfig.write_text(kubeconfig)
        return
    command = ["kind", "create", "cluster", f"--name={NAME}", f"--config={CONFIG}"]
    command += ["--wait=120s", f"--kubeconfig={paths.kubeconfig}"]
    run(command, timeout_seconds=900)


def load(archive: Path) -> None:
    """Import an image archive into the kind node."""
    run(["kind", "load", "image-archive", str(archive), f"--name={NAME}"], timeout_seconds=600)


def delete(paths: Paths) -> None:
    """Delete the kind cluster."""
    run(["kind", "delete", "cluster", f"--name={NAME}"], timeout_seconds=300)
    paths.kubeconfig.unlink(missing_ok=True)
