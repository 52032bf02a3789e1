"""Keep what is generated for and from the Helm chart: its copy of the CRD, and ``manifests/``.

``python -m cluster.chart`` writes both, with the real helm, which is built into the cache when it
is not there. ``--check`` says whether they are current, and needs no helm: each file of
``manifests/`` names a fingerprint of the chart that it was rendered from, and of its own text. The
end-to-end tests render them anew and compare.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from cluster.binaries import HELM, ensure_built
from cluster.paths import Paths
from cluster.process import ClusterError, run
from cluster.progress import say

ROOT: Final = Path(__file__).parent.parent
CHART: Final = ROOT / "helm" / "crossfade"
CRD: Final = ROOT / "crds" / "crossfade.dev_modeldeployments.yaml"
CRD_COPY: Final = CHART / "files" / "crd.yaml"
MANIFESTS: Final = ROOT / "manifests"
RENDERED: Final = ("rbac.yaml", "operator.yaml")
"""The chart's templates that the defaults render anything of, but for the CRD."""

RELEASE: Final = "crossfade"
NAMESPACE: Final = "crossfade-system"
COMMAND: Final = "make generate"

KEPT: Final = "metadata:\n  annotations:\n    helm.sh/resource-policy: keep\n"
"""Tells Helm to leave the CRD, and with it every ModelDeployment, when a release goes."""


def helm(paths: Paths, *words: str | Path, timeout_seconds: float = 300) -> str:
    """Run the real helm against the cluster of the cache, and return what it prints.

    Raises:
        ClusterError: it cannot be built, or it failed.
    """
    ensure_built(paths, [HELM])
    home = {
        f"HELM_{name}_HOME": str(paths.cache / "helm" / name.lower())
        for name in ("CACHE", "CONFIG", "DATA")
    }
    env = {"KUBECONFIG": str(paths.kubeconfig), **home}
    return run([paths.bin / "helm", *words], env=env, timeout_seconds=timeout_seconds)


def render(paths: Paths) -> dict[str, str]:
    """Render the chart with its defaults; return the manifests by file name.

    Raises:
        ClusterError: helm refuses the chart.
    """
    words = ("template", RELEASE, CHART, "--namespace", NAMESPACE, "--set", "crds.install=false")
    texts: dict[str, str] = dict.fromkeys(RENDERED, "")
    for document in helm(paths, *words).split("---\n# Source: crossfade/templates/")[1:]:
        name, _, text = document.partition("\n")
        texts[name] += ("---\n" if texts[name] else "") + text.strip() + "\n"
    return {name: head(text) + text for name, text in texts.items()}


def head(text: str) -> str:
    """Return the first lines of a file of ``manifests/`` with this text."""
    return (
        f"# Generated from helm/crossfade by `{COMMAND}`: do not edit.\n"
        f"# Fingerprint: {fingerprint(text)}\n"
    )


def fingerprint(text: str) -> str:
    """Return a short hash of what decides about a rendered file, and of the file's text."""
    sources = [CHART / "Chart.yaml", CHART / "values.yaml", *sorted(CHART.glob("templates/*"))]
    digest = hashlib.sha256(text.encode())
    for source in sources:
        digest.update(f"\0{source.name}\0".encode() + source.read_bytes())
    return digest.hexdigest()[:16]


def crd_copy() -> str:
    """Return the chart's copy of the CRD."""
    return CRD.read_text().replace("metadata:\n", KEPT, 1)


def stale() -> list[str]:
    """Name the generated files that are not what they should be."""
    found = [] if _text(CRD_COPY) == crd_copy() else [CRD_COPY]
    for name in RENDERED:
        text = _text(MANIFESTS / name)
        body = "".join(text.splitlines(keepends=True)[2:])
        if text != head(body) + body:
            found.append(MANIFESTS / name)
    return [str(it.relative_to(ROOT)) for it in found]


def _text(file: Path) -> str:
    return file.read_text() if file.exists() else ""


def write(texts: Mapping[str, str]) -> None:
    """Write the generated files."""
    CRD_COPY.write_text(crd_copy())
    for name, text in texts.items():
        (MANIFESTS / name).write_text(text)


def main(arguments: list[str]) -> int:
    """Generate, or check; return the exit code."""
    if arguments == ["--check"]:
        for name in stale():
            say(f"{name} is not current: edit helm/crossfade or crds/, then `{COMMAND}`")
        return 1 if stale() else 0
    try:
        write(render(Paths.from_environment()))
    except ClusterError as error:
        say(f"error: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
