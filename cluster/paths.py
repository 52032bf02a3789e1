"""Where everything that a cluster needs or leaves is kept on disk.

The only module that reads CROSSFADE_CACHE. Nothing is ever written into the checkout.
"""

import os
from dataclasses import dataclass
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent


@dataclass(frozen=True, slots=True)
class Paths:
    """The folders and files of one cache, and so of one cluster."""

    cache: Path
    """Root of all of it: ``$CROSSFADE_CACHE``, else ``~/.cache/crossfade``."""

    @classmethod
    def from_environment(cls) -> "Paths":
        """Read the cache's place from the environment."""
        configured = os.environ.get("CROSSFADE_CACHE")
        return cls(Path(configured) if configured else Path.home() / ".cache" / "crossfade")

    @property
    def bin(self) -> Path:
        """Programs under their plain names, for PATH."""
        return self.cache / "bin"

    @property
    def store(self) -> Path:
        """Programs under their names with version and build options."""
        return self.cache / "store"

    @property
    def build(self) -> Path:
        """Scratch modules, and logs of builds."""
        return self.cache / "build"

    @property
    def crds(self) -> Path:
        """Gateway API custom resource definitions."""
        return self.cache / "gateway-api-crds"

    @property
    def images(self) -> Path:
        """OCI archives of the images that this package makes."""
        return self.cache / "images"

    @property
    def containerd_root(self) -> Path:
        """Image store of containerd; kept between clusters, so that images load once."""
        return self.cache / "containerd"

    @property
    def run(self) -> Path:
        """All that one running cluster has; gone after the next start, logs included."""
        return self.cache / "run"

    @property
    def logs(self) -> Path:
        """One log for each component, and the audit log."""
        return self.run / "logs"

    @property
    def pki(self) -> Path:
        """Keys and certificates."""
        return self.run / "pki"

    @property
    def kubeconfig(self) -> Path:
        """Cluster administrator's kubeconfig."""
        return self.run / "kubeconfig"

    @property
    def audit_log(self) -> Path:
        """API server's audit log, one JSON event a line."""
        return self.logs / "audit.log"

    @property
    def containerd_socket(self) -> Path:
        """Address of containerd."""
        return self.run / "containerd.sock"
