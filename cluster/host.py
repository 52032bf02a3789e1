"""What the machine itself must offer: Debian packages, root, and no second cluster.

Must not know what a cluster consists of.
"""

import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cluster.network import API_PORT
from cluster.paths import Paths
from cluster.process import ClusterError, run
from cluster.progress import say
from cluster.supervise import recorded

PACKAGES: Final = {
    "containerd": "/usr/bin/containerd",
    "runc": "/usr/sbin/runc",
    "containernetworking-plugins": "/usr/lib/cni/bridge",
    "iptables": "/usr/sbin/iptables",
    "conntrack": "/usr/sbin/conntrack",
    "iproute2": "/usr/sbin/ip",
    "mount": "/usr/bin/mount",
    "openssl": "/usr/bin/openssl",
}
"""Debian package for each file that is needed. With /usr merged, /sbin/ip is the same file."""
CLAIM: Final = Path("/run/crossfade-cluster.json")
"""Says which cache's cluster this machine runs; a machine has one bridge and one set of ports."""
LOCK: Final = Path("/run/crossfade-cluster.lock")
PORTS: Final = {API_PORT: "API server", 2379: "etcd", 10250: "kubelet", 10256: "kube-proxy"}
"""Ports of the cluster's components that a second cluster would use too."""
LISTENING: Final = "0A"
"""State of a listening socket in /proc/net/tcp: see proc(5)."""


@dataclass(frozen=True, slots=True)
class Claim:
    """Whose cluster uses this machine."""

    cache: str


def ensure_packages() -> None:
    """Install the Debian packages whose files are missing.

    Raises:
        ClusterError: If not root, or there is no apt-get, or it fails.
    """
    if os.geteuid() != 0:
        message = "A cluster needs root (containers, mounts, network): run this as root."
        raise ClusterError(message)
    wanted = [name for name, file in PACKAGES.items() if not Path(file).exists()]
    if not wanted:
        return
    if shutil.which("apt-get") is None:
        message = f"Missing: {' '.join(wanted)}. This machine has no apt-get: install them."
        raise ClusterError(message)
    say(f"Installing Debian packages: {' '.join(wanted)}")
    run(["apt-get", "update", "--quiet"], timeout_seconds=300)
    run(
        ["apt-get", "install", "--yes", "--quiet", "--no-install-recommends", *wanted],
        env={"DEBIAN_FRONTEND": "noninteractive"},
        timeout_seconds=600,
    )


def claim(paths: Paths) -> None:
    """Take this machine for this cache's cluster.

    Raises:
        ClusterError: If another cluster runs here.
    """
    holder = _observe_claim()
    if holder is not None and holder.cache != str(paths.cache):
        other = Paths(Path(holder.cache))
        if any(daemon.is_alive() for daemon in recorded(other).values()):
            message = (
                f"A cluster of the cache {holder.cache} runs on this machine, which has room for "
                f"one. Take it down first: CROSSFADE_CACHE={holder.cache} python -m cluster down"
            )
            raise ClusterError(message)
    CLAIM.write_text(json.dumps({"cache": str(paths.cache)}))


@contextmanager
def only_one() -> Iterator[None]:
    """Keep two starts or ends of a cluster on this machine from running at once.

    Raises:
        ClusterError: If another one is at it.
    """
    with LOCK.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            message = "Another `python -m cluster up` or `down` is at work here: wait for its end."
            raise ClusterError(message) from error
        yield


def refuse_foreign_cluster() -> None:
    """Stop if a program that is not ours listens where a component of the cluster would.

    Raises:
        ClusterError: If so.
    """
    taken = sorted(_listening_ports() & set(PORTS))
    if taken:
        message = (
            f"Something that this script did not start listens on port {taken[0]} "
            f"({PORTS[taken[0]]}), perhaps another Kubernetes cluster: end it, then run this again."
        )
        raise ClusterError(message)


def _listening_ports() -> set[int]:
    """Return the TCP ports that are listened on at any address of this machine.

    Read from /proc, not probed: before the node's address exists a connection to it would leave
    the machine.
    """
    ports = set()
    for table in ("tcp", "tcp6"):
        for line in Path("/proc/net", table).read_text().splitlines()[1:]:
            _, local, _, state, *_ = line.split()
            if state == LISTENING:
                ports.add(int(local.rpartition(":")[2], 16))
    return ports


def release() -> None:
    """Give the machine up."""
    CLAIM.unlink(missing_ok=True)


def _observe_claim() -> Claim | None:
    try:
        return Claim(json.loads(CLAIM.read_text())["cache"])
    except (OSError, ValueError, KeyError):
        return None
