"""The packager as a process, with folders, bases and requests that mean it no good: a problem in JSON, no crash, no wait."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from hedgerow.contracts.document import digest_of
from hedgerow.contracts.names import MEDIA_OCI_INDEX
from hedgerow.contracts.oci import ImageConfig, Platform
from packager.bases.base_archive import from_archive
from packager.bases.base_layout import from_layout
from packager.cache.layers import LayerCache
from packager.errors import BaseUnreadable, BlobCorrupt
from packager.oci.blobs import DOCUMENT_BYTES_MAX, BlobFolder
from packager.oci.documents import read_foreign
from packager.oci.layout import find_manifest
from tests.packager_builders import (
    model_of,
    read_json_blob,
    request_for,
    run_packager,
    write_base_archive,
    write_base_layout,
    write_onnx_model,
)


def test_a_file_name_that_is_no_utf8_is_told_and_not_stumbled_over(tmp_path: Path) -> None:
    folder = write_onnx_model(tmp_path / "model")
    model = model_of(folder)
    Path(os.fsdecode(os.fsencode(folder) + b"/a\xff")).write_bytes(b"")
    done = run_packager(request_for("onnx", [model], tmp_path), tmp_path)
    assert done.problem_code == "unusable_file_name"
    assert "udcff" in done.problem_text


def test_a_cache_that_can_be_no_folder_is_not_called_our_own_fault(tmp_path: Path) -> None:
    model = model_of(write_onnx_model(tmp_path / "model"))
    (tmp_path / "file").write_bytes(b"")
    done = run_packager(request_for("onnx", [model], tmp_path, cache=str(tmp_path / "file" / "cache")), tmp_path)
    assert done.problem_code == "folder_not_writable"


def test_no_platform_is_no_platform(tmp_path: Path) -> None:
    model = model_of(write_onnx_model(tmp_path / "model"))
    done = run_packager(request_for("docker", [model], tmp_path, base="oci:/nowhere", platforms=[]), tmp_path)
    assert done.problem_code == "unsupported_platform"


@pytest.mark.parametrize("scheme", ["docker-archive", "oci"])
def test_a_base_that_is_a_pipe_is_not_waited_for(tmp_path: Path, scheme: str) -> None:
    model = model_of(write_onnx_model(tmp_path / "model"))
    (tmp_path / "base").mkdir()
    os.mkfifo(tmp_path / "base" / "index.json")
    place = tmp_path / "base" / ("index.json" if scheme == "docker-archive" else "")
    done = run_packager(request_for("docker", [model], tmp_path, base=f"{scheme}:{place}"), tmp_path)
    assert done.problem_code == "base_unreadable"


def test_indexes_that_name_each_other_twice_are_each_read_once(tmp_path: Path) -> None:
    layout = tmp_path / "layout"
    blobs = BlobFolder(layout)
    inner = json.dumps({"schemaVersion": 2, "manifests": []}).encode()
    for _ in range(40):
        named = {"mediaType": MEDIA_OCI_INDEX, "digest": blobs.add([inner]).digest, "size": len(inner)}
        inner = json.dumps({"schemaVersion": 2, "manifests": [named, named]}).encode()
    (layout / "index.json").write_bytes(inner)
    with pytest.raises(BaseUnreadable, match="it has no image"):
        find_manifest(layout, Platform.parse("linux/amd64"))


def test_a_document_that_would_fill_the_memory_is_refused(tmp_path: Path) -> None:
    blobs = BlobFolder(tmp_path)
    large = b" " * (DOCUMENT_BYTES_MAX + 1)
    blobs.add([large])
    with pytest.raises(BlobCorrupt):
        blobs.read(digest_of(large))
    (tmp_path / "index.json").write_bytes(large)
    with pytest.raises(BaseUnreadable, match="File too large"):
        find_manifest(tmp_path, None)


def test_a_document_that_is_deeper_than_any_stack_is_refused() -> None:
    with pytest.raises(BaseUnreadable, match="recursion"):
        read_foreign(b'{"config":{"x":' + b"[" * 5000 + b"]" * 5000 + b"}}", ImageConfig, "base")


@pytest.mark.parametrize("settings", [{"Env": 5}, {"Env": ["PATH=/", None]}, {"Labels": ["a"]}], ids=str)
def test_a_base_whose_settings_are_none(tmp_path: Path, settings: dict[str, object]) -> None:
    archive = write_base_archive(tmp_path / "base.tar", settings=settings)
    (tmp_path / "cache").mkdir()
    with pytest.raises(BaseUnreadable, match="its config is none of an image"):
        from_archive(archive, LayerCache(tmp_path / "cache", tmp_path))


def test_a_layer_of_another_size_than_its_manifest_says(tmp_path: Path) -> None:
    root = tmp_path / "root.tar"
    root.write_bytes(bytes(1024))
    layout = write_base_layout(tmp_path / "layout", root, "amd64")
    index = json.loads((layout / "index.json").read_bytes())
    manifest = read_json_blob(layout, index["manifests"][0]["digest"])
    manifest["layers"][0]["size"] = 7
    data = json.dumps(manifest).encode()
    index["manifests"][0] |= {"digest": BlobFolder(layout).add([data]).digest, "size": len(data)}
    (layout / "index.json").write_text(json.dumps(index))
    with pytest.raises(BaseUnreadable, match="has 1024 bytes, not 7"):
        from_layout(layout, Platform.parse("linux/amd64"), LayerCache(tmp_path / "cache", tmp_path))


def test_nobody_else_reads_what_was_made_for_other_images(tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    (folder / "blobs").mkdir(parents=True, mode=0o755)
    cache = LayerCache(folder, tmp_path)
    cache.blobs.add([b"weights"])
    cache.keep("layer", "key", {})
    assert [(folder / name).stat().st_mode & 0o777 for name in ("blobs", "records")] == [0o700, 0o700]
