"""Images unpacked on the device: ``images/sha256-…/`` is there whole or not at all.

An image is unpacked into a folder of its own name plus ``.part``, synced, then renamed. Archives come from a registry
whose content was checked against digests, but they are still foreign: every member's path and kind is checked.
"""

from __future__ import annotations

import os
import shutil
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Literal

from edge_agent.errors import ImageRefused
from hedgerow.atomic_write import fsync_folder
from hedgerow.contracts.service import ImagePin
from hedgerow.safe_tar import BoundedTarInfo

Packing = Literal["", "gz"]
UNPACKED_BYTES_MAX = 32 << 30
_COPY_BYTES = 1 << 18


@dataclass(frozen=True)
class Layer:
    """A verified layer file on the disk."""

    path: Path
    packing: Packing


class ImageStore:
    """Folders of unpacked images, and ``downloads/`` with blobs on their way."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def path_of(self, image: ImagePin) -> Path:
        """Where the image is when it is here."""
        return self._folder / image.digest.replace(":", "-")

    def has(self, image: ImagePin) -> bool:
        """True when the image is here, whole."""
        return self.path_of(image).is_dir()

    def downloads(self) -> Path:
        """Folder for blobs that are being fetched; made when missing."""
        folder = self._folder / "downloads"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def unpack(self, image: ImagePin, layers: Iterable[Layer]) -> None:
        """Make the image's folder out of its layers, in order. Raises ImageRefused; OSError when the disk is full."""
        part = self.path_of(image).with_name(self.path_of(image).name + ".part")
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        try:
            for layer in layers:
                mode: Literal["r:gz", "r:"] = "r:gz" if layer.packing == "gz" else "r:"
                with tarfile.open(layer.path, mode, tarinfo=BoundedTarInfo) as archive:
                    unpack_archive(archive, part, image.digest)
        except tarfile.TarError as problem:
            shutil.rmtree(part, ignore_errors=True)
            raise ImageRefused(image=image.digest, problem=f"a layer is no tar archive: {problem}") from problem
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            raise
        _sync_tree(part)
        part.rename(self.path_of(image))
        fsync_folder(self._folder)


def unpack_archive(archive: tarfile.TarFile, target: Path, image: str) -> None:
    """Write an archive's members below ``target``: files, folders and links that stay inside. Owners are not taken over."""
    left = UNPACKED_BYTES_MAX
    for member in archive:
        left -= member.size
        if left < 0:
            raise ImageRefused(image=image, problem=f"it unpacks to more than {UNPACKED_BYTES_MAX} bytes")
        path = _inside(member.name, target, image)
        if member.isdir():
            path.mkdir(parents=True, exist_ok=True)
        elif member.isreg():
            content = archive.extractfile(member)
            if content is not None:
                _write_file(path, content, executable=bool(member.mode & 0o100))
        elif member.issym():
            _link(path, member, target, image)
        else:
            raise ImageRefused(image=image, problem=f"member {member.name!r} is neither a file, a folder nor a symbolic link")


def _inside(name: str, target: Path, image: str) -> Path:
    parts = PurePosixPath(name).parts
    if not parts and name in (".", "./"):
        return target
    if name.startswith("/") or ".." in parts or not parts or "\0" in name:
        raise ImageRefused(image=image, problem=f"member {name!r} points out of the image")
    path = target.joinpath(*parts)
    # A link written by an earlier member must not carry this one outside.
    if not path.parent.resolve().is_relative_to(target.resolve()):
        raise ImageRefused(image=image, problem=f"member {name!r} leaves the image through a link")
    return path


def _write_file(path: Path, content: IO[bytes], *, executable: bool) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    with path.open("xb") as file:
        shutil.copyfileobj(content, file, _COPY_BYTES)
        os.fchmod(file.fileno(), 0o755 if executable else 0o644)


def _link(path: Path, member: tarfile.TarInfo, target: Path, image: str) -> None:
    aim = (path.parent / member.linkname).resolve()
    if member.linkname.startswith("/") or not aim.is_relative_to(target.resolve()):
        raise ImageRefused(image=image, problem=f"link {member.name!r} points out of the image")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.symlink_to(member.linkname)


def _sync_tree(folder: Path) -> None:
    for root, _, files in os.walk(folder):
        for name in files:
            path = Path(root, name)
            if not path.is_symlink():
                fd = os.open(path, os.O_RDONLY)
                try:
                    os.fsync(fd)
                finally:
                    os.close(fd)
        fsync_folder(Path(root))
