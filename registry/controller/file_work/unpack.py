"""Unpacks an image for a process to run it: layers in order, contents checked while they are read, all or nothing."""

from __future__ import annotations

import shutil
from pathlib import Path

from hedgerow.contracts.names import MEDIA_MODEL_MANIFEST
from hedgerow.contracts.oci import ImageDocument, read_image_document
from hedgerow.safe_tar import UnsafeArchive, unpack_tar
from registry.blobs import BlobStore
from registry.controller.errors import ImageNotRunnable
from registry.controller.file_work.tasks import Unpack


def unpack(task: Unpack, store: BlobStore) -> None:
    """Raises ImageNotRunnable, BlobDamaged, BlobUnknown, OSError (full disk); ``target`` is not there then."""
    target = Path(task.target)
    part = target.with_name(f"{target.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True, mode=0o755)
    try:
        for layer in _manifest(task.digest, store).layers or ():
            with store.open(layer.digest) as archive:
                unpack_tar(archive, part, name=layer.digest)
        part.rename(target)
    except UnsafeArchive as problem:
        raise ImageNotRunnable(digest=task.digest, problem=str(problem)) from problem
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _manifest(digest: str, store: BlobStore) -> ImageDocument:
    with store.open(digest) as content:
        data = content.read()
    try:
        manifest = read_image_document(data)
    except ValueError as problem:
        raise ImageNotRunnable(digest=digest, problem=f"its manifest is not one ({problem})") from problem
    if manifest.artifact_type != MEDIA_MODEL_MANIFEST or manifest.layers is None:
        raise ImageNotRunnable(digest=digest, problem="it is no model artifact")
    return manifest
