"""Addresses of the cluster, and what the machine's network must have for it.

All of it stays on this machine: the node's address is an additional one of the loopback
interface, so that nothing of the cluster listens on, or depends on, the machine's real network.
"""

import ipaddress
import json
from pathlib import Path
from typing import Final

from cluster.paths import Paths
from cluster.process import ClusterError, run

NODE_ADDRESS: Final = "10.250.0.1"
"""Node's and API server's address. Kubernetes refuses 127.0.0.0/8 for both."""
POD_RANGE: Final = "10.244.0.0/16"
SERVICE_RANGE: Final = "10.96.0.0/16"
API_SERVICE_ADDRESS: Final = "10.96.0.1"
"""Kubernetes gives its own Service the range's first address."""
DNS_ADDRESS: Final = "10.96.0.10"
GATEWAY_ADDRESS: Final = "10.96.0.80"
PROMETHEUS_ADDRESS: Final = "10.96.0.90"
"""Kept out of the way of addresses given at random, which come from the range's upper part."""
API_PORT: Final = 6443
SERVER: Final = f"https://{NODE_ADDRESS}:{API_PORT}"
BRIDGE: Final = "cni0"
NETWORK: Final = "crossfade"
"""Name of the pod network in CNI."""
CNI_FOLDER: Final = Path("/usr/lib/cni")
"""Where Debian's containernetworking-plugins puts the plugins."""
NAMESPACES: Final = Path("/run/netns")


def ensure_network(paths: Paths) -> None:
    """Give the machine the node's address, a route for services, forwarding and the CNI file.

    Raises:
        ClusterError: If the machine already uses one of the cluster's address ranges.
    """
    _refuse_overlap()
    run(["ip", "address", "replace", f"{NODE_ADDRESS}/32", "dev", "lo"])
    # Without this route a connection to a service that does not exist (yet) would leave the
    # machine by the default route; with it kube-proxy's rules apply just the same.
    run(["ip", "route", "replace", SERVICE_RANGE, "dev", "lo", "src", NODE_ADDRESS])
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
    # Lets pods reach a service whose endpoint is on the same bridge; absent until it is loaded.
    if Path("/sbin/modprobe").exists():
        run(["/sbin/modprobe", "br_netfilter"], check=False)
    bridged = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")
    if bridged.exists():
        bridged.write_text("1")
    folder = paths.run / "cni"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "10-crossfade.conflist").write_text(json.dumps(_render_cni(paths)))


def clear_network() -> None:
    """Remove all that pods and `ensure_network` left on the machine's network."""
    for namespace in sorted(NAMESPACES.glob("cni-*")) if NAMESPACES.is_dir() else []:
        run(["ip", "netns", "delete", namespace.name], check=False)
    if Path("/sys/class/net", BRIDGE).exists():
        run(["ip", "link", "delete", BRIDGE], check=False)
    # libcni's cache of results, whose place is fixed; a killed run's entries would pile up.
    for result in Path("/var/lib/cni/results").glob(f"{NETWORK}-*"):
        result.unlink(missing_ok=True)
    run(["ip", "route", "delete", SERVICE_RANGE, "dev", "lo"], check=False)
    run(["ip", "address", "delete", f"{NODE_ADDRESS}/32", "dev", "lo"], check=False)


def clear_rules(paths: Paths) -> None:
    """Remove the packet filter rules of kube-proxy, kubelet and the CNI plugin."""
    proxy = paths.bin / "kube-proxy"
    if proxy.exists():
        run([proxy, "--cleanup"], check=False)
    for table in ("nat", "filter", "mangle"):
        saved = run(["iptables-save", "-t", table], check=False)
        kept = [line for line in saved.splitlines() if not _is_ours(line)]
        if len(kept) != len(saved.splitlines()):
            run(["iptables-restore"], stdin="\n".join(kept) + "\n", check=False)


def _is_ours(rule: str) -> bool:
    return "KUBE-" in rule or ":CNI-" in rule or "-A CNI-" in rule or "-j CNI-" in rule


def _refuse_overlap() -> None:
    """Stop if the machine has a foreign route into the cluster's ranges."""
    ranges = [ipaddress.ip_network(it) for it in (POD_RANGE, SERVICE_RANGE, f"{NODE_ADDRESS}/32")]
    for route in json.loads(run(["ip", "-json", "route"]) or "[]"):
        if route["dst"] == "default" or route.get("dev") in (BRIDGE, "lo"):
            continue
        foreign = ipaddress.ip_network(route["dst"], strict=False)
        if any(foreign.overlaps(own) for own in ranges):
            message = (
                f"This machine has a route to {foreign} on {route.get('dev')}, which overlaps "
                f"the cluster's own ranges {', '.join(map(str, ranges))}: run this elsewhere."
            )
            raise ClusterError(message)


def _render_cni(paths: Paths) -> dict[str, object]:
    ipam = {
        "type": "host-local",
        "ranges": [[{"subnet": POD_RANGE}]],
        "routes": [{"dst": "0.0.0.0/0"}],
        "dataDir": str(paths.run / "cni-addresses"),
    }
    bridge = {
        "type": "bridge",
        "bridge": BRIDGE,
        # Not isDefaultGateway: it would add the default route of `routes` a second time.
        "isGateway": True,
        "ipMasq": True,
        # A pod may reach itself through its own service.
        "hairpinMode": True,
        "ipam": ipam,
    }
    return {"cniVersion": "1.0.0", "name": NETWORK, "plugins": [bridge]}
