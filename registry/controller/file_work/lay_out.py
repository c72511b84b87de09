"""Puts blobs where a build or a run expects files. Contents are checked, except those that are linked for a checking reader."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from registry.blobs import READ_BYTES, BlobStore, FolderStore
from registry.blobs.errors import BlobUnknown
from registry.controller.file_work.tasks import LaidFile, LayOut


def lay_out(task: LayOut, store: BlobStore) -> None:
    """Raises BlobUnknown, BlobDamaged, OSError. Paths of the task were checked when it was read; ``root`` is new."""
    root = Path(task.root)
    # What an owner is given is for the owner alone: other sandboxes may pass through the folders above.
    root.mkdir(parents=True, mode=0o755 if task.owner is None else 0o700)
    for folder in task.folders:
        (root / folder).mkdir(parents=True, exist_ok=True)
    for file in task.files:
        target = root / file.path
        target.parent.mkdir(parents=True, exist_ok=True)
        _put(file, target, store)
    if task.owner is not None:
        _give(root, task.owner)


def _put(file: LaidFile, target: Path, store: BlobStore) -> None:
    # Content that lies elsewhere is copied for the time of the build.
    if file.link and isinstance(store, FolderStore):
        try:
            os.link(store.path(file.digest), target)
        except FileNotFoundError:
            raise BlobUnknown(digest=file.digest) from None
        except OSError:  # another file system, or one without links
            pass
        else:
            return
    # A copy: whoever gets it may write to it, and the blob must never change.
    with store.open(file.digest) as content, target.open("xb") as copy:
        shutil.copyfileobj(content, copy, READ_BYTES)


def _give(root: Path, owner: int) -> None:
    os.chown(root, owner, owner)
    for folder, folders, files in os.walk(root):
        for name in folders + files:
            os.chown(Path(folder, name), owner, owner, follow_symlinks=False)
