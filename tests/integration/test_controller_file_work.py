"""The file worker as the process that it is: tasks in, files and answers out."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import msgspec
import pytest

from hedgerow.contracts.document import encode
from hedgerow.contracts.names import MEDIA_MODEL_MANIFEST, MEDIA_OCI_MANIFEST
from registry.blobs import FolderStore
from registry.controller.file_work.tasks import Collect, LaidFile, LayOut, TakeIn, Task, Unpack
from tests.process_folders import need_root
from tests.registry_stores import digest_of_text


def work(folder: Path, task: Task | bytes) -> dict[str, Any]:
    """The last line that the worker says about ``task``."""
    order = folder / "task.json"
    order.write_bytes(task if isinstance(task, bytes) else encode(task))
    argv = [sys.executable, "-P", "-m", "registry.controller.file_work", str(order)]
    done = subprocess.run(argv, cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    line: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert (done.returncode == 0) == ("result" in line), done.stderr
    return line


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "blobs")


def put(store: FolderStore, content: bytes) -> str:
    return store.put(io.BytesIO(content))[0]


def damage(store: FolderStore, digest: str) -> None:
    path = store.path(digest)
    path.chmod(0o644)
    path.write_bytes(b"?" + path.read_bytes()[1:])


def test_files_are_laid_out_linked_for_readers_copied_for_others(tmp_path: Path, store: FolderStore) -> None:
    digest = put(store, b"weights")
    files = [LaidFile(path="m/model.onnx", digest=digest, link=True), LaidFile(path="s/own.bin", digest=digest)]
    root = tmp_path / "root"
    assert (
        work(tmp_path, LayOut(blobs=str(tmp_path / "blobs"), root=str(root), files=files, folders=["s/outputs"]))["result"] == {}
    )
    assert (root / "m/model.onnx").samefile(store.path(digest))
    assert not (root / "s/own.bin").samefile(store.path(digest))
    assert (root / "s/own.bin").read_bytes() == b"weights"
    assert (root / "s/outputs").is_dir()
    assert root.stat().st_mode & 0o777 == 0o755


def test_what_is_laid_out_for_a_user_belongs_to_that_user(tmp_path: Path, store: FolderStore) -> None:
    need_root()
    digest = put(store, b"script")
    task = LayOut(
        blobs=str(tmp_path / "blobs"),
        root=str(tmp_path / "root"),
        files=[LaidFile(path="a/train.py", digest=digest)],
        folders=["out"],
        owner=54_321,
    )
    work(tmp_path, task)
    owners = {path.stat().st_uid for path in [tmp_path / "root", *(tmp_path / "root").rglob("*")]}
    assert owners == {54_321}
    assert (tmp_path / "root").stat().st_mode & 0o777 == 0o700, "other sandboxes stay out, though its files can be read"
    assert store.path(digest).stat().st_uid == 0, "the blob itself stays ours"


def test_content_that_is_damaged_or_missing_is_not_laid_out(tmp_path: Path, store: FolderStore) -> None:
    digest = put(store, b"script")
    damage(store, digest)
    for wanted, link, code in ((digest, False, "blob_damaged"), (digest_of_text("never"), True, "blob_unknown")):
        files = [LaidFile(path="x", digest=wanted, link=link)]
        found = work(tmp_path, LayOut(blobs=str(tmp_path / "blobs"), root=str(tmp_path / code), files=files))
        assert found["problem"]["code"] == code


@pytest.mark.parametrize("path", ["../x", "/x", "a/../../x", ""])
def test_a_task_with_a_path_that_leads_out_is_none(tmp_path: Path, path: str) -> None:
    task = {"type": "lay-out", "blobs": "b", "root": "r", "files": [{"path": path, "digest": digest_of_text("x")}]}
    assert work(tmp_path, json.dumps(task).encode())["problem"]["code"] == "internal"


def layout(folder: Path, *layers: bytes) -> tuple[str, list[str]]:
    """An OCI layout with an artifact of these layers; the digest of its manifest, and all digests."""
    blobs = folder / "blobs" / "sha256"
    blobs.mkdir(parents=True)

    def add(content: bytes) -> str:
        digest = hashlib.sha256(content).hexdigest()
        (blobs / digest).write_bytes(content)
        return f"sha256:{digest}"

    def descriptor(content: bytes, media_type: str) -> dict[str, Any]:
        return {"mediaType": media_type, "digest": add(content), "size": len(content)}

    manifest = {
        "schemaVersion": 2,
        "mediaType": MEDIA_OCI_MANIFEST,
        "artifactType": MEDIA_MODEL_MANIFEST,
        "config": descriptor(b"{}", "application/json"),
        "layers": [descriptor(layer, "application/x-tar") for layer in layers],
    }
    top = add(json.dumps(manifest).encode())
    return top, [f"sha256:{path.name}" for path in blobs.iterdir()]


def tar(**files: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name.replace("__", "/"))
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def test_a_layout_is_taken_in_and_unpacked_again(tmp_path: Path, store: FolderStore) -> None:
    top, digests = layout(tmp_path / "layout", tar(models__m=b"weights"), gzip.compress(tar(config=b"{}")))
    blobs = str(tmp_path / "blobs")
    parts = work(tmp_path, TakeIn(blobs=blobs, layout=str(tmp_path / "layout"), digest=top, media_type=MEDIA_OCI_MANIFEST))[
        "result"
    ]
    assert sorted(part["digest"] for part in parts["parts"]) == sorted(digests)
    assert all(store.has(digest) for digest in digests)
    target = tmp_path / "images" / "one"
    target.parent.mkdir()
    work(tmp_path, Unpack(blobs=blobs, digest=top, target=str(target)))
    assert ((target / "models/m").read_bytes(), (target / "config").read_bytes()) == (b"weights", b"{}")
    assert (target / "models").stat().st_mode & 0o777 == 0o755


def test_a_layout_that_lies_is_refused(tmp_path: Path, store: FolderStore) -> None:
    top, digests = layout(tmp_path / "layout", tar(a=b"1"))
    task = TakeIn(blobs=str(tmp_path / "blobs"), layout=str(tmp_path / "layout"), digest=top, media_type=MEDIA_OCI_MANIFEST)
    victim = next(digest for digest in digests if digest != top)
    path = tmp_path / "layout" / "blobs" / "sha256" / victim.removeprefix("sha256:")
    path.write_bytes(b"something else")
    assert work(tmp_path, task)["problem"]["code"] == "digest_mismatch"
    path.unlink()
    assert work(tmp_path, task)["problem"]["code"] == "layout_broken"


def test_what_the_records_know_is_not_read_again(tmp_path: Path, store: FolderStore) -> None:
    layer = tar(a=b"weights")
    top, _ = layout(tmp_path / "layout", layer)
    known = put(store, layer)
    task = TakeIn(blobs=str(tmp_path / "blobs"), layout=str(tmp_path / "layout"), digest=top, media_type=MEDIA_OCI_MANIFEST)
    task = msgspec.structs.replace(task, known=[known, top])
    blobs = tmp_path / "layout" / "blobs" / "sha256"
    (blobs / known.removeprefix("sha256:")).unlink()
    parts = {part["digest"]: part["size_bytes"] for part in work(tmp_path, task)["result"]["parts"]}
    assert (len(parts), parts[known]) == (3, len(layer))
    # What leads to other blobs is, whoever knows it; and what is not there after all is missed.
    (blobs / top.removeprefix("sha256:")).write_bytes((blobs / top.removeprefix("sha256:")).read_bytes() + b" ")
    assert work(tmp_path, task)["problem"]["code"] == "digest_mismatch"
    store.path(known).unlink()
    assert work(tmp_path, task)["problem"]["code"] in ("layout_broken", "digest_mismatch")


@pytest.mark.parametrize("how", ["damaged", "no artifact", "hostile"])
def test_an_image_that_cannot_be_unpacked_leaves_nothing(tmp_path: Path, store: FolderStore, how: str) -> None:
    layer = put(store, tar(**{"../up": b"x"}) if how == "hostile" else tar(a=b"x" * 5000))
    artifact = "" if how == "no artifact" else MEDIA_MODEL_MANIFEST
    manifest = {"artifactType": artifact, "layers": [{"digest": layer}]}
    top = put(store, json.dumps(manifest).encode())
    if how == "damaged":
        damage(store, layer)
    target = tmp_path / "images" / "one"
    target.parent.mkdir()
    problem = work(tmp_path, Unpack(blobs=str(tmp_path / "blobs"), digest=top, target=str(target)))["problem"]
    assert problem["code"] in ("image_not_runnable", "blob_damaged")
    assert list(target.parent.iterdir()) == []
    assert not (tmp_path / "up").exists()


def test_outputs_are_collected_without_following_anything(tmp_path: Path, store: FolderStore) -> None:
    outputs = tmp_path / "outputs"
    (outputs / "deep" / "er").mkdir(parents=True)
    (outputs / "deep" / "er" / "model.onnx").write_bytes(b"weights")
    (outputs / "empty").touch()
    (outputs / "shadow").symlink_to("/etc/shadow")
    (outputs / "dir").symlink_to("/etc", target_is_directory=True)
    os.mkfifo(outputs / "pipe")
    (outputs / b"\xff".decode(errors="surrogateescape")).touch()
    found = work(tmp_path, Collect(blobs=str(tmp_path / "blobs"), folder=str(outputs)))["result"]
    assert [(entry["path"], entry["size_bytes"]) for entry in found["files"]] == [("empty", 0), ("deep/er/model.onnx", 7)]
    assert len(found["left_out"]) == 4
    assert store.open(found["files"][1]["digest"]).read() == b"weights"
    nothing = work(tmp_path, Collect(blobs=str(tmp_path / "blobs"), folder=str(tmp_path / "absent")))["result"]
    assert (nothing["files"], nothing["left_out"]) == ([], [])
