"""Make the cluster's certificates and kubeconfigs.

One authority for everything, ten days of validity: a cluster of this kind lives for hours. Each
component has its own identity, so that the audit log can tell them apart. Uses the openssl
program because the standard library cannot sign certificates.
"""

import base64
import json
import socket
from pathlib import Path
from typing import Final

from cluster.network import API_SERVICE_ADDRESS, NODE_ADDRESS, SERVER
from cluster.paths import Paths
from cluster.process import run

VALID_DAYS: Final = 10
SERVER_NAMES: Final = (
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
    "localhost",
)
"""Names under which pods and people reach the API server."""


def node_name() -> str:
    """Return the node's name: the machine's, in the form that Kubernetes accepts."""
    return socket.gethostname().lower()


def identities() -> dict[str, str]:
    """Return the certificate subject of each client, by the name of its kubeconfig.

    Users and groups are Kubernetes's own for bootstrap RBAC and the Node authorizer.
    """
    return {
        "admin": "/O=system:masters/CN=crossfade-admin",
        "kube-controller-manager": "/CN=system:kube-controller-manager",
        "kube-scheduler": "/CN=system:kube-scheduler",
        "kube-proxy": "/CN=system:kube-proxy",
        "kubelet": f"/O=system:nodes/CN=system:node:{node_name()}",
        "apiserver-kubelet-client": "/O=system:masters/CN=kube-apiserver-kubelet-client",
    }


def ensure_pki(paths: Paths) -> None:
    """Write authority, certificates, the service account key and all kubeconfigs."""
    pki = paths.pki
    pki.mkdir(parents=True, exist_ok=True)
    pki.chmod(0o700)
    _key(pki / "ca.key")
    authority: list[str | Path] = ["openssl", "req", "-x509", "-new", "-key", pki / "ca.key"]
    authority += ["-days", str(VALID_DAYS), "-subj", "/CN=crossfade-cluster-ca"]
    run([*authority, "-out", pki / "ca.crt"])
    accounts = pki / "service-accounts.key"
    _key(accounts)
    run(["openssl", "pkey", "-in", accounts, "-pubout", "-out", accounts.with_suffix(".pub")])
    names = ",".join(f"DNS:{name}" for name in SERVER_NAMES)
    addresses = f"IP:{NODE_ADDRESS},IP:127.0.0.1,IP:{API_SERVICE_ADDRESS}"
    _certificate(pki, "apiserver", "/CN=kube-apiserver", f"subjectAltName={names},{addresses}")
    for name, subject in identities().items():
        _certificate(pki, name, subject, "extendedKeyUsage=clientAuth")
        target = paths.kubeconfig if name == "admin" else pki / f"{name}.kubeconfig"
        _kubeconfig(pki, name, target)


def _key(file: Path) -> None:
    # Elliptic keys: an RSA key takes up to a second to find, and nine are needed.
    curve = ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"]
    run(["openssl", "genpkey", *curve, "-out", file])
    file.chmod(0o600)


def _certificate(pki: Path, name: str, subject: str, extension: str) -> None:
    key, request, extensions = (pki / f"{name}.{it}" for it in ("key", "csr", "ext"))
    _key(key)
    extensions.write_text(extension + "\n")
    run(["openssl", "req", "-new", "-key", key, "-subj", subject, "-out", request])
    command: list[str | Path] = ["openssl", "x509", "-req", "-in", request, "-CAcreateserial"]
    command += ["-CA", pki / "ca.crt", "-CAkey", pki / "ca.key", "-days", str(VALID_DAYS)]
    run([*command, "-extfile", extensions, "-out", pki / f"{name}.crt"])
    request.unlink()
    extensions.unlink()


def _kubeconfig(pki: Path, name: str, target: Path) -> None:
    """Write a kubeconfig that holds its certificates, so that the file can be copied."""

    def data(file: str) -> str:
        return base64.b64encode((pki / file).read_bytes()).decode()

    user = {
        "client-certificate-data": data(f"{name}.crt"),
        "client-key-data": data(f"{name}.key"),
    }
    cluster = {"server": SERVER, "certificate-authority-data": data("ca.crt")}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "crossfade", "cluster": cluster}],
        "users": [{"name": name, "user": user}],
        "contexts": [{"name": "crossfade", "context": {"cluster": "crossfade", "user": name}}],
        "current-context": "crossfade",
    }
    # JSON is YAML, and needs no library.
    target.touch(mode=0o600)
    target.write_text(json.dumps(config, indent=2) + "\n")
