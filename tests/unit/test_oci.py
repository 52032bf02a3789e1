"""Image archives are complete, named, and the same for the same input."""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest

from cluster.oci import image_digest, layer_from_folder, write_image

REF = "crossfade.dev/thing:dev"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    (root / "bin").mkdir(parents=True)
    (root / "bin" / "tool").write_text("#!/bin/sh\n")
    (root / "bin" / "tool").chmod(0o4755)
    (root / "bin" / "alias").symlink_to("tool")
    os.link(root / "bin" / "tool", root / "bin" / "twin")
    return root


def _read(archive: Path, name: str) -> Any:
    with tarfile.open(archive) as tar:
        member = tar.extractfile(name)
        assert member is not None
        return json.load(member)


def _blob(archive: Path, descriptor: dict[str, Any]) -> Any:
    return _read(archive, "blobs/" + descriptor["digest"].replace(":", "/"))


def test_layer_keeps_modes_and_links_and_sets_the_owner(tmp_path: Path, root: Path) -> None:
    with tarfile.open(layer_from_folder(tmp_path / "layer.tar", root, owner=7)) as tar:
        entries = {entry.name: entry for entry in tar}
    assert list(entries) == ["bin", "bin/alias", "bin/tool", "bin/twin"]
    assert entries["bin/tool"].mode == 0o4755
    assert entries["bin/alias"].linkname == "tool"
    assert entries["bin/twin"].islnk()
    assert {(entry.uid, entry.gid) for entry in entries.values()} == {(7, 7)}


def test_prefix_puts_the_content_into_a_folder(tmp_path: Path, root: Path) -> None:
    with tarfile.open(layer_from_folder(tmp_path / "layer.tar", root, prefix="/opt/app")) as tar:
        assert tar.getnames()[:3] == ["opt", "opt/app", "opt/app/bin"]


def test_layer_does_not_depend_on_time_stamps(tmp_path: Path, root: Path) -> None:
    before = layer_from_folder(tmp_path / "a.tar", root).read_bytes()
    os.utime(root / "bin" / "tool", (0, 0))
    assert layer_from_folder(tmp_path / "b.tar", root).read_bytes() == before


def test_archive_names_the_image_and_its_digests_are_true(tmp_path: Path, root: Path) -> None:
    layer = layer_from_folder(tmp_path / "layer.tar", root)
    archive = tmp_path / "new" / "image.tar"
    write_image(
        archive, REF, [layer, layer], entrypoint=["/bin/tool"], env={"A": "1"}, user="65532"
    )
    (entry,) = _read(archive, "index.json")["manifests"]
    manifest = _blob(archive, entry)
    config = _blob(archive, manifest["config"])
    digest = f"sha256:{hashlib.sha256(layer.read_bytes()).hexdigest()}"
    assert entry["annotations"]["io.containerd.image.name"] == REF
    assert entry["digest"] == image_digest(archive)
    assert [it["digest"] for it in manifest["layers"]] == [digest, digest]
    assert config["rootfs"]["diff_ids"] == [digest, digest]
    assert config["config"]["Entrypoint"] == ["/bin/tool"]
    assert config["config"]["User"] == "65532"
    assert "A=1" in config["config"]["Env"]


def test_nothing_is_left_when_a_layer_is_missing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_image(tmp_path / "image.tar", REF, [tmp_path / "missing.tar"])
    assert not list(tmp_path.iterdir())
