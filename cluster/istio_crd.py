"""Istio's own definition of the VirtualService, taken out of its Go module into the cache.

Not committed: it is 100 KB of somebody else's text. The API server then checks what Crossfade
writes as it would in a cluster with Istio; nothing of Istio runs. ``python -m cluster.istio_crd``
prints the file's path, for ``kubectl apply --server-side -f``.
"""

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any, Final

import yaml

from cluster.binaries import download, ensure_go
from cluster.paths import Paths
from cluster.process import ClusterError

ISTIO_API_VERSION: Final = "v1.31.4"
CRD_NAME: Final = "virtualservices.networking.istio.io"


def ensure_istio_crd(paths: Paths) -> Path:
    """Return the CRD's file, JSON; fetch it if it is not in the cache.

    Raises:
        ClusterError: If the module cannot be fetched, or has no such CRD.
    """
    folder = paths.cache / "istio-crds"
    crd = folder / f"{CRD_NAME}-{ISTIO_API_VERSION}.json"
    if crd.exists():
        return crd
    folder.mkdir(parents=True, exist_ok=True)
    module = download(
        ensure_go(paths), "istio.io/api", ISTIO_API_VERSION, {"GOTOOLCHAIN": "auto", "GOFLAGS": ""}
    )
    bundle = Path(module["Dir"]) / "kubernetes" / "customresourcedefinitions.gen.yaml"
    with tempfile.NamedTemporaryFile("w", dir=folder, delete=False) as file:
        json.dump(_find(bundle.read_text()), file)
    shutil.move(file.name, crd)
    return crd


# A CustomResourceDefinition is free-form here: it is passed on.
def _find(bundle: str) -> dict[str, Any]:
    for text in bundle.split("\n---\n"):
        if f"name: {CRD_NAME}\n" in text:
            found: dict[str, Any] = yaml.safe_load(text)
            return found
    message = f"istio.io/api {ISTIO_API_VERSION} has no CRD {CRD_NAME}"
    raise ClusterError(message)


if __name__ == "__main__":
    print(ensure_istio_crd(Paths.from_environment()))
