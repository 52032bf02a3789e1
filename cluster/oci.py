"""Container images without a daemon or a registry: OCI archives made from plain folders.

Knows the OCI image layout and nothing of what is inside the images. Everything written here is
deterministic: the same folders give the same bytes, so that a content hash names an image and a
second import of an unchanged image costs nothing.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import platform
import stat
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

LAYER_EPOCH_SECONDS: Final = 315_532_800
"""Time stamp of every entry: 1980-01-01, the oldest that zip files can hold.

Byte code that is checked against its source's time stamp goes stale by this; images therefore
compile with `compileall --invalidation-mode unchecked-hash`.
"""

_CREATED: Final = "1980-01-01T00:00:00Z"
_CHUNK_BYTES: Final = 1 << 20
_ARCHITECTURES: Final = {"x86_64": "amd64", "aarch64": "arm64"}

_INDEX_TYPE: Final = "application/vnd.oci.image.index.v1+json"
_MANIFEST_TYPE: Final = "application/vnd.oci.image.manifest.v1+json"
_CONFIG_TYPE: Final = "application/vnd.oci.image.config.v1+json"
_LAYER_TYPE: Final = "application/vnd.oci.image.layer.v1.tar"


def write_image(
    archive: Path,
    ref: str,
    layers: Sequence[Path],
    *,
    entrypoint: Sequence[str] = (),
    cmd: Sequence[str] = (),
    env: Mapping[str, str] = {},
    user: str = "",
    workdir: str = "/",
    labels: Mapping[str, str] = {},
) -> None:
    """Write an OCI archive that `ctr -n k8s.io images import` imports under the name `ref`.

    The archive appears at once and complete, or not at all.

    Args:
        archive: File to write; its folder is made if missing.
        ref: Full image name, such as `crossfade.dev/operator:dev`.
        layers: Uncompressed tar files, lowest first.
        entrypoint: Program and first arguments; a pod's `args` follow it.
        cmd: Default arguments, replaced by a pod's `args`.
        env: Environment variables; `PATH` gets Debian's default if absent.
        user: `uid[:gid]`, in numbers so that `runAsNonRoot` can be checked; empty means root.
        workdir: Working folder of the process.
        labels: Image labels.
    """
    descriptors = [_descriptor_of_file(layer) for layer in layers]
    config = _json(
        {
            "created": _CREATED,
            "architecture": _architecture(),
            "os": "linux",
            "config": _process_config(
                entrypoint=entrypoint, cmd=cmd, env=env, user=user, workdir=workdir, labels=labels
            ),
            "rootfs": {"type": "layers", "diff_ids": [d["digest"] for d in descriptors]},
            "history": [{"created": _CREATED, "created_by": "crossfade"} for _ in descriptors],
        }
    )
    manifest = _json(
        {
            "schemaVersion": 2,
            "mediaType": _MANIFEST_TYPE,
            "config": _descriptor(config, _CONFIG_TYPE),
            "layers": descriptors,
        }
    )
    archive.parent.mkdir(parents=True, exist_ok=True)
    partial = archive.with_name(f".{archive.name}.{os.getpid()}")
    try:
        with tarfile.open(partial, "w", format=tarfile.PAX_FORMAT) as tar:
            _add_bytes(tar, "oci-layout", _json({"imageLayoutVersion": "1.0.0"}))
            _add_bytes(tar, "index.json", _index(ref, manifest))
            _add_blob(tar, config)
            _add_blob(tar, manifest)
            _add_layers(tar, layers, descriptors)
        partial.replace(archive)
    finally:
        partial.unlink(missing_ok=True)


def layer_from_folder(tar: Path, root: Path, *, owner: int = 0, prefix: str = "") -> Path:
    """Pack a folder as an uncompressed, deterministic layer.

    Modes, symbolic links, hard links and device nodes are kept; sockets are left out (they have
    no meaning in a layer); user and group of every entry become `owner`.

    Args:
        tar: File to write; its folder is made if missing.
        root: Folder whose content becomes the layer.
        owner: User and group id of every entry.
        prefix: Folder of the image under which the content appears, such as `opt/app`.

    Returns:
        `tar`, for chaining.
    """
    tar.parent.mkdir(parents=True, exist_ok=True)
    partial = tar.with_name(f".{tar.name}.{os.getpid()}")
    try:
        with tarfile.open(partial, "w", format=tarfile.PAX_FORMAT) as out:
            for folder in _prefix_folders(prefix):
                out.addfile(_clean(_folder_entry(folder), owner))
            for path in _walk(root):
                _add_path(out, path, _name_in_layer(path, root, prefix), owner)
        partial.replace(tar)
    finally:
        partial.unlink(missing_ok=True)
    return tar


def image_digest(archive: Path) -> str:
    """Return the manifest digest (`sha256:…`) of an archive made by `write_image`."""
    with tarfile.open(archive) as tar:
        member = tar.extractfile("index.json")
        if member is None:  # pragma: no cover - a regular file always opens
            msg = f"{archive} has no index.json"
            raise ValueError(msg)
        digest: str = json.load(member)["manifests"][0]["digest"]
    return digest


def _process_config(
    *,
    entrypoint: Sequence[str],
    cmd: Sequence[str],
    env: Mapping[str, str],
    user: str,
    workdir: str,
    labels: Mapping[str, str],
) -> dict[str, Any]:
    path = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
    config: dict[str, Any] = {
        "Env": [f"{key}={value}" for key, value in sorted((path | dict(env)).items())],
        "WorkingDir": workdir,
    }
    optional = {"User": user, "Entrypoint": list(entrypoint), "Cmd": list(cmd)}
    config |= {key: value for key, value in optional.items() if value}
    if labels:
        config["Labels"] = dict(sorted(labels.items()))
    return config


def _index(ref: str, manifest: bytes) -> bytes:
    # containerd reads the first annotation, buildah, skopeo and podman the second.
    names = {"io.containerd.image.name": ref, "org.opencontainers.image.ref.name": ref}
    entry = _descriptor(manifest, _MANIFEST_TYPE) | {
        "annotations": names,
        "platform": {"architecture": _architecture(), "os": "linux"},
    }
    return _json({"schemaVersion": 2, "mediaType": _INDEX_TYPE, "manifests": [entry]})


def _architecture() -> str:
    machine = platform.machine()
    return _ARCHITECTURES.get(machine, machine)


def _json(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _descriptor(blob: bytes, media_type: str) -> dict[str, Any]:
    digest = f"sha256:{hashlib.sha256(blob).hexdigest()}"
    return {"mediaType": media_type, "digest": digest, "size": len(blob)}


def _descriptor_of_file(layer: Path) -> dict[str, Any]:
    with layer.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    size = layer.stat().st_size
    return {"mediaType": _LAYER_TYPE, "digest": f"sha256:{digest}", "size": size}


def _blob_name(digest: str) -> str:
    return "blobs/" + digest.replace(":", "/")


def _add_bytes(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode, entry.mtime = len(content), 0o644, LAYER_EPOCH_SECONDS
    tar.addfile(entry, io.BytesIO(content))


def _add_blob(tar: tarfile.TarFile, content: bytes) -> None:
    _add_bytes(tar, _blob_name(_descriptor(content, "")["digest"]), content)


def _add_layers(
    tar: tarfile.TarFile, layers: Sequence[Path], descriptors: Sequence[dict[str, Any]]
) -> None:
    written: set[str] = set()
    for layer, descriptor in zip(layers, descriptors, strict=True):
        name = _blob_name(descriptor["digest"])
        if name in written:
            continue
        written.add(name)
        entry = tarfile.TarInfo(name)
        entry.size, entry.mode, entry.mtime = descriptor["size"], 0o644, LAYER_EPOCH_SECONDS
        with layer.open("rb", buffering=_CHUNK_BYTES) as file:
            tar.addfile(entry, file)


def _prefix_folders(prefix: str) -> Iterator[str]:
    parts = [part for part in prefix.split("/") if part]
    for end in range(1, len(parts) + 1):
        yield "/".join(parts[:end])


def _folder_entry(name: str) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode = tarfile.DIRTYPE, 0o755
    return entry


def _walk(root: Path) -> Iterator[Path]:
    """Yield everything below `root`, parents first, in the order of names, following no link."""
    for child in sorted(root.iterdir()):
        yield child
        if child.is_dir() and not child.is_symlink():
            yield from _walk(child)


def _name_in_layer(path: Path, root: Path, prefix: str) -> str:
    return "/".join(part for part in (prefix.strip("/"), path.relative_to(root).as_posix()) if part)


def _add_path(out: tarfile.TarFile, path: Path, name: str, owner: int) -> None:
    if stat.S_ISSOCK(path.lstat().st_mode):
        return
    # gettarinfo() recognises hard links to files that this archive already holds.
    entry = _clean(out.gettarinfo(path, arcname=name), owner)
    if entry.isreg():
        with path.open("rb", buffering=_CHUNK_BYTES) as file:
            out.addfile(entry, file)
    else:
        out.addfile(entry)


def _clean(entry: tarfile.TarInfo, owner: int) -> tarfile.TarInfo:
    entry.uid = entry.gid = owner
    entry.uname = entry.gname = ""
    entry.mtime = LAYER_EPOCH_SECONDS
    return entry
