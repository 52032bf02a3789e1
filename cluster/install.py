"""Install the operator into the cluster: its image, the CRD, and the manifests.

``python -m cluster.install [IMAGE ...]`` builds and loads the operator's image, and the other
images that are named, then applies ``manifests/`` as a user would and waits until it runs. A new
image under the same tag restarts the operator; an unchanged one does not.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from cluster.__main__ import load_archive
from cluster.api import kubectl
from cluster.images import build_image
from cluster.oci import image_digest
from cluster.paths import Paths
from cluster.process import ClusterError
from cluster.progress import say

MANIFESTS: Final = Path(__file__).parent.parent / "manifests"
NAMESPACE: Final = "crossfade-system"
DEPLOYMENT: Final = "deployment/crossfade-operator"
DIGEST_ANNOTATION: Final = "crossfade.dev/image-digest"


def install(paths: Paths, extra_images: list[str]) -> None:
    """Build, load, apply, and wait until the operator is rolled out.

    Raises:
        ClusterError: no cluster runs, or a step failed; says which.
    """
    archive = build_image("operator")
    for image in (archive, *(build_image(name) for name in extra_images)):
        load_archive(paths, image)
    kubectl(paths, "apply", "--server-side", "--force-conflicts", "-k", str(MANIFESTS))
    digest = image_digest(archive)
    patch = (
        '{"spec":{"template":{"metadata":{"annotations":'
        f'{{"{DIGEST_ANNOTATION}":"{digest}"}}}}}}}}}}'
    )
    kubectl(paths, "-n", NAMESPACE, "patch", DEPLOYMENT, "--type=merge", "-p", patch)
    words = ("-n", NAMESPACE, "rollout", "status", DEPLOYMENT, "--timeout=120s")
    kubectl(paths, *words, timeout_seconds=130)
    say("The operator runs.")


def main(extra_images: list[str]) -> int:
    """Install; return the exit code."""
    try:
        install(Paths.from_environment(), extra_images)
    except ClusterError as error:
        say(f"error: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
