"""Run containerd for the cluster, load images into it, and clear it of containers.

The image store outlives a cluster; containers never do. Must not know Kubernetes beyond the name
of its containerd namespace.
"""

import json
import os
import signal
import tarfile
import time
from pathlib import Path
from typing import Final

from cluster.network import CNI_FOLDER
from cluster.paths import Paths
from cluster.process import ClusterError, run
from cluster.supervise import start, stop, wait_until

NAMESPACE: Final = "k8s.io"
"""containerd's namespace for what belongs to Kubernetes; fixed in its CRI plugin."""
PAUSE_IMAGE: Final = "crossfade.dev/cluster/pause:v1"
SOCKET_PATH_LIMIT: Final = 107
"""Longest path of a Unix socket in bytes: see unix(7)."""

CONFIG: Final = """\
version = 2
root = "{root}"
state = "{state}"
# The node has no containers but the cluster's; these plugins need file systems it lacks.
disabled_plugins = ["io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs"]

[grpc]
  address = "{socket}"

[plugins."io.containerd.internal.v1.opt"]
  path = "{state}/opt"

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  # Lowering oom_score_adj is not permitted inside many sandboxes; without this every pod fails
  # there with "can't get final child's PID from pipe".
  restrict_oom_score_adj = true

[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = "{cni_bin}"
  conf_dir = "{cni_conf}"
"""


def start_containerd(paths: Paths) -> None:
    """Start containerd and wait until it answers.

    Raises:
        ClusterError: If its socket's path would be too long, or it does not start.
    """
    if len(os.fsencode(paths.containerd_socket)) > SOCKET_PATH_LIMIT - len(".ttrpc"):
        message = f"CROSSFADE_CACHE={paths.cache} is too long for a socket's path: choose another."
        raise ClusterError(message)
    paths.containerd_root.mkdir(parents=True, exist_ok=True)
    config = paths.run / "containerd.toml"
    config.parent.mkdir(parents=True, exist_ok=True)
    config.write_text(
        CONFIG.format(
            root=paths.containerd_root,
            state=_state(paths),
            socket=paths.containerd_socket,
            pause=PAUSE_IMAGE,
            cni_bin=CNI_FOLDER,
            cni_conf=paths.run / "cni",
        )
    )
    start(paths, "containerd", ["/usr/bin/containerd", "--config", config])
    wait_until(
        paths, "containerd", lambda: is_answering(paths), timeout_seconds=30, daemon="containerd"
    )


def is_answering(paths: Paths) -> bool:
    """Tell whether the cluster's containerd answers."""
    if not paths.containerd_socket.exists():
        return False
    try:
        return "Server" in _ctr(paths, "version", timeout_seconds=5)
    except ClusterError:
        return False


def load(paths: Paths, archive: Path) -> bool:
    """Import an OCI archive; skip it if its very content is there under its name.

    Returns:
        Whether it was imported.

    Raises:
        ClusterError: If it is no OCI archive, or containerd is not running.
    """
    name, digest = read_index(archive)
    if _loaded(paths).get(name) == digest:
        return False
    # An image of hundreds of megabytes is unpacked as well: leave it time.
    _ctr(paths, "images", "import", str(archive), timeout_seconds=600)
    if name not in _loaded(paths):
        message = f"{archive}: containerd did not take it under the name {name}"
        raise ClusterError(message)
    return True


def read_index(archive: Path) -> tuple[str, str]:
    """Return an OCI archive's image name and manifest digest.

    Raises:
        ClusterError: If the file is not an OCI archive with exactly one named image.
    """
    try:
        with tarfile.open(archive) as tar:
            member = tar.extractfile("index.json")
            index = json.load(member) if member is not None else {}
        (manifest,) = index["manifests"]
        annotations = manifest["annotations"]
        name = annotations.get("io.containerd.image.name")
        return name or annotations["org.opencontainers.image.ref.name"], manifest["digest"]
    except (OSError, KeyError, ValueError, tarfile.TarError) as error:
        message = f"{archive} is not an OCI archive of one named image: {error!r}"
        raise ClusterError(message) from error


def clear_containers(paths: Paths, *, timeout_seconds: float = 15) -> None:
    """Kill and remove every container; containerd must be running."""
    deadline = time.monotonic() + timeout_seconds
    while containers := _ctr(paths, "containers", "list", "--quiet").split():
        tasks = _ctr(paths, "tasks", "list", "--quiet").split()
        for task in tasks:
            _ctr(paths, "tasks", "kill", "--all", "--signal", "SIGKILL", task, check=False)
        if tasks:
            _ctr(paths, "tasks", "delete", "--force", *tasks, check=False)
        _ctr(paths, "containers", "delete", *containers, check=False)
        if time.monotonic() > deadline:
            message = f"{len(containers)} containers cannot be removed"
            raise ClusterError(message)


def stop_containerd(paths: Paths) -> None:
    """End containerd, then its shims that are left, then unmount what pods had mounted."""
    stop(paths, ["containerd"], timeout_seconds=10)
    _kill_shims(paths)
    unmount_below(paths.run)


def unmount_below(folder: Path) -> None:
    """Unmount everything below a folder, innermost first."""
    mounted = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    ours = [it for it in mounted if it.startswith(f"{folder}/")]
    for point in sorted(ours, key=len, reverse=True):
        # mountinfo writes a space as \040.
        run(["umount", "--lazy", point.replace("\\040", " ")], check=False)


def _kill_shims(paths: Paths) -> None:
    """Kill the shims of our containerd, which name its socket, and the containers below them.

    A shim is not our child, and outlives a containerd that was killed; its command line names
    the socket of the containerd that it belongs to, so no other's is hit.
    """
    for bundle in _state(paths).glob("io.containerd.runtime.v2.task/*/*/init.pid"):
        pid = bundle.read_text().strip()
        if _is_in_container(pid, bundle.parent.name):
            _kill(int(pid))
    for process in Path("/proc").glob("[0-9]*"):
        words = _command_line(process)
        if words and "containerd-shim" in words[0] and str(paths.containerd_socket) in words:
            _kill(int(process.name))


def _is_in_container(pid: str, container: str) -> bool:
    try:
        return container in Path(f"/proc/{pid}/cgroup").read_text()
    except OSError:
        return False


def _command_line(process: Path) -> list[str]:
    try:
        return (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return []


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _loaded(paths: Paths) -> dict[str, str]:
    """Return the manifest digest of each image by its name."""
    lines = _ctr(paths, "images", "list").splitlines()[1:]
    fields = [line.split() for line in lines]
    return {it[0]: it[2] for it in fields if len(it) > 2}  # noqa: PLR2004 - REF TYPE DIGEST


def _ctr(paths: Paths, *words: str, timeout_seconds: float = 60, check: bool = True) -> str:
    command = ["ctr", "--address", str(paths.containerd_socket), "--namespace", NAMESPACE]
    return run([*command, *words], timeout_seconds=timeout_seconds, check=check)


def _state(paths: Paths) -> Path:
    return paths.run / "containerd"
