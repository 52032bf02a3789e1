"""Images of the programs that run inside the cluster: each one static program and nothing else.

Made from the store's programs as OCI archives, once for each version.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cluster.containers import PAUSE_IMAGE
from cluster.oci import layer_from_folder, write_image
from cluster.paths import Paths

PREFIX: Final = "crossfade.dev/cluster"


@dataclass(frozen=True, slots=True)
class StaticImage:
    """An image that holds one program as its entry point."""

    program: str
    ref: str


IMAGES: Final = (
    StaticImage("pause", PAUSE_IMAGE),
    StaticImage("coredns", f"{PREFIX}/coredns:v1"),
    StaticImage("traefik", f"{PREFIX}/traefik:v1"),
    StaticImage("prometheus", f"{PREFIX}/prometheus:v1"),
)
"""The tag is this package's, not the program's version: manifests stay the same."""


def static_archives(paths: Paths) -> list[Path]:
    """Return the archives' paths; the names hold the programs' fingerprints."""
    return [paths.images / f"{(paths.bin / image.program).resolve().name}.tar" for image in IMAGES]


def ensure_images(paths: Paths) -> None:
    """Write the archives that are missing, and remove those of earlier versions."""
    paths.images.mkdir(parents=True, exist_ok=True)
    for image, archive in zip(IMAGES, static_archives(paths), strict=True):
        if archive.exists():
            continue
        for old in paths.images.glob(f"{image.program}-*.tar"):
            old.unlink()
        with tempfile.TemporaryDirectory(dir=paths.images) as folder:
            root = Path(folder) / "root"
            root.mkdir()
            # Prometheus and Traefik want a folder for temporary files.
            (root / "tmp").mkdir(mode=0o1777)
            # A hard link: the programs are up to 185 MB.
            (root / image.program).hardlink_to((paths.bin / image.program).resolve())
            layer = layer_from_folder(Path(folder) / "layer.tar", root)
            write_image(archive, image.ref, [layer], entrypoint=[f"/{image.program}"])
