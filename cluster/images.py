"""Build the images that tests and the demo run, where there is neither Docker nor a registry.

The Dockerfiles are the users': buildah builds them here, on a base image that debootstrap makes
from Debian's packages in place of `python:3.11-slim-bookworm`. An archive is named by a hash of
all that went into it, so unchanged inputs cost nothing.

    python -m cluster.images [NAME...]      prints the archives' paths

Must not know containerd or the cluster.
"""

import ast
import fcntl
import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cluster.oci import LAYER_EPOCH_SECONDS, layer_from_folder, write_image
from cluster.paths import PACKAGE, Paths
from cluster.process import ClusterError, run
from cluster.progress import Progress

REPOSITORY: Final = PACKAGE.parent

RECIPE: Final = "1"
"""Part of every key; to be raised when this module builds something else from the same inputs."""

SUITE: Final = "bookworm"
BASE_PACKAGES: Final = ("ca-certificates", "python3", "python3-pip", "python3-venv")
BASE_TRIM: Final = (
    "usr/share/doc",
    "usr/share/info",
    "usr/share/locale",
    "usr/share/man",
    "usr/share/bash-completion",
    "usr/share/lintian",
    "var/cache/apt",
    "var/cache/debconf",
    "var/lib/apt/lists",
    "var/log",
)
"""Folders of the base image that are emptied."""

KEPT_ARCHIVES: Final = 3
"""How many archives of one image stay, for checkouts that share the cache."""


@dataclass(frozen=True, slots=True)
class Image:
    """An image and where it comes from."""

    ref: str
    """Name that containerd knows it by."""
    context: str = "."
    """Folder of its Dockerfile, relative to the repository's root."""
    inputs: tuple[str, ...] = ()
    """Files and folders that its Dockerfile copies, relative to `context`."""


IMAGES: Final[Mapping[str, Image]] = {
    "operator": Image(
        "crossfade.dev/operator:dev", inputs=("operator/crossfade", "requirements/operator.txt")
    ),
    "mlserver": Image(
        "crossfade.dev/mlserver:1.7.1", context="examples/mlserver", inputs=("requirements.txt",)
    ),
    "model-stub": Image(
        "crossfade.dev/model-stub:dev", context="tests/images/model-stub", inputs=("server.py",)
    ),
}
"""The images that can be built, by name."""


def build_image(name: str) -> Path:
    """Return the OCI archive of an image, building what is not in the cache.

    Progress goes to standard error. Processes that want the same image at once wait for one
    another.

    Args:
        name: One of `IMAGES`.

    Raises:
        ClusterError: If there is no such image, or a step of its build fails.
    """
    if name not in IMAGES:
        raise ClusterError(f"no image {name!r}; there are: {', '.join(IMAGES)}")
    paths = Paths.from_environment()
    paths.images.mkdir(parents=True, exist_ok=True)
    # Built from a copy: a file that is edited meanwhile must not end up under the old hash.
    with tempfile.TemporaryDirectory(dir=paths.images, prefix=f".{name}-") as scratch:
        context = _snapshot(IMAGES[name], Path(scratch) / "context")
        key = _key(IMAGES[name].ref, _base_key(), _hash_of_folder(context))
        archive = paths.images / f"{name}-{key}.tar"
        if not archive.exists():
            with _lock(paths.images / ".lock"):
                if not archive.exists():
                    _build(paths, name, context, archive)
    archive.touch()
    _forget_old(paths.images, name)
    return archive


def _build(paths: Paths, name: str, context: Path, archive: Path) -> None:
    base = paths.images / f"python-{_base_key()}.tar"
    progress = Progress(f"image {name}", 2 if base.exists() else 3)
    _ensure_tools()
    if not base.exists():
        with progress.step("base image: Debian and Python"):
            _make_base(base)
    with progress.step("Dockerfile"):
        built = _buildah_build(paths, base, context)
    with progress.step("archive"):
        _export(paths, built, IMAGES[name].ref, archive)


def _ensure_tools() -> None:
    missing = [tool for tool in ("buildah", "debootstrap") if shutil.which(tool) is None]
    if not missing:
        return
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise ClusterError(f"install {' and '.join(missing)}; building images also needs root")
    install = ["apt-get", "install", "--yes", "--no-install-recommends"]
    wait_for_lock = ["-o", "DPkg::Lock::Timeout=300"]
    quiet = {"DEBIAN_FRONTEND": "noninteractive"}
    command = [*install, *wait_for_lock, *missing]
    try:
        run(command, env=quiet, timeout_seconds=900)
    except ClusterError:
        # The package lists may be absent or stale.
        run(["apt-get", "update"], timeout_seconds=300)
        run(command, env=quiet, timeout_seconds=900)


# --- inputs and keys -----------------------------------------------------------------------------


def _snapshot(image: Image, context: Path) -> Path:
    """Copy what an image is built from, with time stamps that never change: buildah hashes them."""
    source = REPOSITORY / image.context
    for name in ("Dockerfile", *image.inputs):
        target = context / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if (source / name).is_dir():
            ignore = shutil.ignore_patterns("__pycache__", "*.pyc")
            shutil.copytree(source / name, target, ignore=ignore, symlinks=True)
        elif (source / name).exists():
            shutil.copy2(source / name, target)
        else:
            raise ClusterError(f"{source / name} is missing")
    for path in (context, *context.rglob("*")):
        if not path.is_symlink():
            # Whatever the umask of the checkout was, the container's user can read it.
            path.chmod(0o755 if path.is_dir() or os.access(path, os.X_OK) else 0o644)
        stamp = (LAYER_EPOCH_SECONDS, LAYER_EPOCH_SECONDS)
        os.utime(path, stamp, follow_symlinks=False)
    return context


def _hash_of_folder(root: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*")):
        if path.is_symlink():
            content = os.fsencode(path.readlink())
        elif path.is_file():
            content = path.read_bytes()
        else:
            continue
        mode = path.lstat().st_mode
        digest.update(f"{path.relative_to(root)}\0{mode:o}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()


def _key(*parts: str) -> str:
    return hashlib.sha256("\0".join((RECIPE, *parts)).encode()).hexdigest()[:16]


def _base_key() -> str:
    return _key(SUITE, *BASE_PACKAGES, *BASE_TRIM)


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _forget_old(folder: Path, name: str) -> None:
    prefix = f"{name}-"
    ours = [it for it in folder.glob(f"{prefix}*.tar") if "-" not in it.name[len(prefix) :]]
    ours.sort(key=lambda it: it.stat().st_mtime, reverse=True)
    for archive in ours[KEPT_ARCHIVES:]:
        archive.unlink(missing_ok=True)


# --- base image ----------------------------------------------------------------------------------


def _make_base(archive: Path) -> None:
    """Make Debian with Python by debootstrap, from the mirror that it uses of its own accord."""
    with tempfile.TemporaryDirectory(dir=archive.parent, prefix=".python-") as scratch:
        root = Path(scratch) / "root"
        command: list[str | Path] = ["debootstrap", "--variant=minbase"]
        command += [f"--include={','.join(BASE_PACKAGES)}", SUITE, root]
        run(command, log=archive.parent / "python.log", timeout_seconds=1800)
        for folder in BASE_TRIM:
            _empty(root / folder)
        # What pip installs here belongs to nobody else.
        for marker in root.glob("usr/lib/python3*/EXTERNALLY-MANAGED"):
            marker.unlink()
        # The packages' byte code is checked against time stamps that a layer does not keep.
        compile_all = "python3 -m compileall -q -f -j 0 --invalidation-mode unchecked-hash"
        library = ["/usr/lib/python3", "/usr/lib/python3.11"]
        # Python 2 templates among the libraries do not compile: not an error.
        command = ["chroot", root, *compile_all.split(), *library]
        run(command, timeout_seconds=600, check=False)
        layer = layer_from_folder(Path(scratch) / "layer.tar", root)
        write_image(archive, f"crossfade.dev/python:{_base_key()}", [layer], cmd=["python3"])


def _empty(folder: Path) -> None:
    for child in folder.iterdir() if folder.is_dir() else ():
        if child.is_dir() and not child.is_symlink():
            shutil.rmtree(child)
        else:
            child.unlink()


# --- buildah -------------------------------------------------------------------------------------


def _buildah(paths: Paths, *words: str | Path, timeout_seconds: float = 300) -> str:
    storage = paths.cache / "buildah"
    command: list[str | Path] = ["buildah", "--root", storage / "root"]
    command += ["--runroot", storage / "run", "--storage-driver", _storage_driver(paths)]
    log = paths.images / "buildah.log"
    return run([*command, *words], log=log, timeout_seconds=timeout_seconds)


def _storage_driver(paths: Paths) -> str:
    # An overlay on an overlay, as inside a container, is refused; vfs copies, and always works.
    below = run(["stat", "--file-system", "--format=%T", paths.cache]).strip()
    return "vfs" if below == "overlayfs" else "overlay"


def _buildah_build(paths: Paths, base: Path, context: Path) -> str:
    """Build a context's Dockerfile and return the image's id."""
    base_ref = f"crossfade.dev/python:{_base_key()}"
    try:
        _buildah(paths, "inspect", "--type", "image", base_ref)
    except ClusterError:
        _buildah(paths, "pull", f"oci-archive:{base}")
    id_file = context.parent / "image-id"
    # With fixed time stamps a rebuilt layer is mostly the same, and then is not imported again.
    steps = ["--isolation", "chroot", "--layers", "--timestamp", str(LAYER_EPOCH_SECONDS)]
    words = ["--build-arg", f"BASE_IMAGE={base_ref}", "--iidfile", str(id_file)]
    mounts = _pip_mounts(context.parent)
    _buildah(paths, "bud", *steps, *words, *mounts, context, timeout_seconds=1800)
    return id_file.read_text().strip().removeprefix("sha256:")


def _pip_mounts(scratch: Path) -> list[str]:
    """Give pip in the build the host's configuration, by mounts that no layer keeps."""
    settings = _pip_settings()
    mounts = []
    certificates = [
        settings.pop("cert", ""),
        *map(_variable, ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE")),
    ]
    if found := next((it for it in certificates if it and Path(it).is_file()), None):
        mounts.append(f"{found}:/etc/pip-certificates.pem:ro")
        settings["cert"] = "/etc/pip-certificates.pem"
    for folder in settings.pop("find-links", "").split():
        if Path(folder).is_dir():
            mounts.append(f"{folder}:{folder}:ro")
            settings["find-links"] = f"{settings.get('find-links', '')} {folder}".strip()
    lines = [f"{key} = {value}" for key, value in settings.items()]
    config = scratch / "pip.conf"
    config.write_text("\n".join(["[global]", *lines, ""]))
    mounts.append(f"{config}:/etc/pip.conf:ro")
    return [word for mount in mounts for word in ("--volume", mount)]


def _variable(name: str) -> str:
    return os.environ.get(name, "")


def _pip_settings() -> dict[str, str]:
    """Read pip's configuration, from its files and then from its variables, which win."""
    try:
        lines = run([sys.executable, "-m", "pip", "config", "list"]).splitlines()
    except ClusterError:
        return {}
    settings: dict[str, dict[str, str]] = {"global": {}, ":env:": {}}
    for line in lines:
        name, _, value = line.partition("=")
        section, _, key = name.rpartition(".")
        if section in settings:
            settings[section][key] = str(ast.literal_eval(value))
    return settings["global"] | settings[":env:"]


# --- export --------------------------------------------------------------------------------------


def _export(paths: Paths, image_id: str, ref: str, archive: Path) -> None:
    """Write an image of buildah's as an OCI archive with uncompressed layers.

    buildah itself compresses an OCI archive's layers, which costs more than the import of the
    larger file; what it writes into a plain folder it does not.
    """
    with tempfile.TemporaryDirectory(dir=archive.parent, prefix=".export-") as scratch:
        _buildah(paths, "push", "--disable-compression", image_id, f"dir:{scratch}")
        blobs = Path(scratch)
        manifest: dict[str, Any] = json.loads((blobs / "manifest.json").read_text())
        config: dict[str, Any] = json.loads(_blob(blobs, manifest["config"]).read_text())
        layers = [_blob(blobs, layer) for layer in manifest["layers"]]
        _write(archive, ref, layers, config["config"])


def _blob(blobs: Path, descriptor: Mapping[str, Any]) -> Path:
    return blobs / str(descriptor["digest"]).removeprefix("sha256:")


def _write(archive: Path, ref: str, layers: Sequence[Path], process: Mapping[str, Any]) -> None:
    variables = dict(it.split("=", 1) for it in process.get("Env") or ())
    write_image(
        archive,
        ref,
        layers,
        entrypoint=process.get("Entrypoint") or (),
        cmd=process.get("Cmd") or (),
        env=variables,
        user=process.get("User", ""),
        workdir=process.get("WorkingDir") or "/",
    )


def main(names: Sequence[str]) -> int:
    """Build the named images, or all, and print the paths of their archives."""
    try:
        for name in names or tuple(IMAGES):
            print(build_image(name))
    except ClusterError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
