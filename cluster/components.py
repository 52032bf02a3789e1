"""What the command line and configuration of each Kubernetes component is.

Only renders: starting, waiting and ending is the node's work. Flags follow the reference pages of
kube-apiserver, kube-controller-manager, kube-scheduler, kube-proxy and KubeletConfiguration.
"""

import json
from pathlib import Path
from typing import Final

from cluster.network import API_PORT, DNS_ADDRESS, NODE_ADDRESS, POD_RANGE, SERVICE_RANGE
from cluster.paths import Paths
from cluster.pki import node_name

ETCD: Final = "http://127.0.0.1:2379"
CLIENT_RATE: Final = ["--kube-api-qps=200", "--kube-api-burst=400"]
"""Requests a second of a component; the defaults (20-50) are the bottleneck of 100 pods."""
MAX_PODS: Final = 250


def etcd(paths: Paths) -> list[str | Path]:
    """Render etcd's command; without fsync, for its data is worth nothing after the cluster."""
    return [
        paths.bin / "etcd",
        f"--data-dir={paths.run / 'etcd'}",
        f"--listen-client-urls={ETCD}",
        f"--advertise-client-urls={ETCD}",
        "--listen-peer-urls=http://127.0.0.1:2380",
        "--unsafe-no-fsync",
        "--log-level=warn",
    ]


def api_server(paths: Paths) -> list[str | Path]:
    """Render the API server's command."""
    pki = paths.pki
    return [
        paths.bin / "kube-apiserver",
        f"--etcd-servers={ETCD}",
        f"--bind-address={NODE_ADDRESS}",
        f"--advertise-address={NODE_ADDRESS}",
        f"--secure-port={API_PORT}",
        f"--service-cluster-ip-range={SERVICE_RANGE}",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--allow-privileged=true",
        f"--client-ca-file={pki / 'ca.crt'}",
        f"--tls-cert-file={pki / 'apiserver.crt'}",
        f"--tls-private-key-file={pki / 'apiserver.key'}",
        f"--kubelet-client-certificate={pki / 'apiserver-kubelet-client.crt'}",
        f"--kubelet-client-key={pki / 'apiserver-kubelet-client.key'}",
        # Else `kubectl logs` and `exec` fail on looking up the node's name.
        "--kubelet-preferred-address-types=InternalIP",
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
        f"--service-account-key-file={pki / 'service-accounts.pub'}",
        f"--service-account-signing-key-file={pki / 'service-accounts.key'}",
        f"--audit-policy-file={paths.run / 'audit-policy.json'}",
        f"--audit-log-path={paths.audit_log}",
        # One file that never rotates: tests count requests in it. Megabytes.
        "--audit-log-maxsize=2000",
    ]


def audit_policy() -> dict[str, object]:
    """Render the audit policy: who asked for what, of every request, once it is answered.

    Without the RequestReceived stage a request is one event, a watch two (ResponseStarted when
    it opens, ResponseComplete when it ends).
    """
    return {
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "omitStages": ["RequestReceived"],
        "rules": [{"level": "Metadata"}],
    }


def controller_manager(paths: Paths) -> list[str | Path]:
    """Render the controller manager's command."""
    return [
        paths.bin / "kube-controller-manager",
        f"--kubeconfig={paths.pki / 'kube-controller-manager.kubeconfig'}",
        "--bind-address=127.0.0.1",
        "--leader-elect=false",
        # Without it the controllers lack their rights: RBAC binds them to their own accounts.
        "--use-service-account-credentials=true",
        f"--root-ca-file={paths.pki / 'ca.crt'}",
        f"--service-account-private-key-file={paths.pki / 'service-accounts.key'}",
        f"--cluster-cidr={POD_RANGE}",
        *CLIENT_RATE,
    ]


def scheduler(paths: Paths) -> list[str | Path]:
    """Render the scheduler's command."""
    return [
        paths.bin / "kube-scheduler",
        f"--kubeconfig={paths.pki / 'kube-scheduler.kubeconfig'}",
        "--bind-address=127.0.0.1",
        "--leader-elect=false",
        *CLIENT_RATE,
    ]


def proxy(paths: Paths) -> list[str | Path]:
    """Render kube-proxy's command."""
    return [
        paths.bin / "kube-proxy",
        f"--kubeconfig={paths.pki / 'kube-proxy.kubeconfig'}",
        f"--hostname-override={node_name()}",
        "--proxy-mode=iptables",
        f"--cluster-cidr={POD_RANGE}",
        # Raising the kernel's limits is not permitted inside a sandbox, nor needed.
        "--conntrack-max-per-core=0",
        "--conntrack-tcp-timeout-established=0",
        "--conntrack-tcp-timeout-close-wait=0",
        "--healthz-bind-address=127.0.0.1:10256",
        "--metrics-bind-address=127.0.0.1:10249",
        # Default 1 s: the least time between two writes of the rules, so the delay of an
        # endpoint's change under steady change.
        "--iptables-min-sync-period=200ms",
    ]


def kubelet(paths: Paths) -> list[str | Path]:
    """Render the kubelet's command."""
    return [
        paths.bin / "kubelet",
        f"--kubeconfig={paths.pki / 'kubelet.kubeconfig'}",
        f"--config={paths.run / 'kubelet.json'}",
        f"--root-dir={paths.run / 'kubelet'}",
        f"--cert-dir={paths.run / 'kubelet-pki'}",
        f"--hostname-override={node_name()}",
        f"--node-ip={NODE_ADDRESS}",
    ]


def kubelet_configuration(paths: Paths) -> dict[str, object]:
    """Render the kubelet's configuration for a sandboxed machine with cgroup v1."""
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "containerRuntimeEndpoint": f"unix://{paths.containerd_socket}",
        "address": NODE_ADDRESS,
        "authentication": {
            "anonymous": {"enabled": False},
            "x509": {"clientCAFile": str(paths.pki / "ca.crt")},
        },
        "clusterDNS": [DNS_ADDRESS],
        "clusterDomain": "cluster.local",
        "podLogsDir": str(paths.logs / "pods"),
        "maxPods": MAX_PODS,
        # cgroup v1, no systemd, no right to make cgroups for pods' classes, perhaps swap.
        "failCgroupV1": False,
        "cgroupDriver": "cgroupfs",
        "cgroupsPerQOS": False,
        "enforceNodeAllocatable": [],
        "failSwapOn": False,
        # There is no registry to get an image back from: never remove one, never evict for disk.
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "evictionHard": {
            "memory.available": "200Mi",
            "nodefs.available": "1%",
            "imagefs.available": "1%",
            "nodefs.inodesFree": "1%",
        },
        # Many pods at once: no limits by rate (0 = none) or by order.
        "serializeImagePulls": False,
        "registryPullQPS": 0,
        "kubeAPIQPS": 200,
        "kubeAPIBurst": 400,
        "eventRecordQPS": 0,
        # Changed ConfigMaps reach running pods within seconds, not a minute.
        "syncFrequency": "10s",
    }


def write_configuration(paths: Paths) -> None:
    """Write the files that the commands name."""
    (paths.run / "audit-policy.json").write_text(json.dumps(audit_policy(), indent=2))
    (paths.run / "kubelet.json").write_text(json.dumps(kubelet_configuration(paths), indent=2))
