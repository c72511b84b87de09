"""Images unpacked on the device: ``images/sha256-…/`` is there whole or not at all.

An image is unpacked into a folder of its own name plus ``.part``, synced, then renamed. Archives come from a registry
whose content was checked against digests, but they are still foreign: every member's path and kind is checked.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tarfile
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import IO, Literal

from edge_agent.errors import ImageRefused
from edge_agent.images.garbage import Leftover, StoredImage
from hedgerow.atomic_write import fsync_folder
from hedgerow.contracts.service import ImagePin
from hedgerow.safe_tar import BoundedTarInfo

Packing = Literal["", "gz"]
UNPACKED_BYTES_MAX = 32 << 30
PART = ".part"
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
        self._sizes: dict[str, int] = {}
        self._claims: dict[str, frozenset[str]] = {}

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

    def claim(self, image: ImagePin, blobs: Collection[str]) -> None:
        """These blobs (by digest) are being fetched for an image: clearing up leaves them alone as long as it is wanted."""
        self._claims[image.digest] = frozenset(digest.replace(":", "-") for digest in blobs)

    def stored(self) -> list[StoredImage]:
        """The images that are here, whole."""
        found = []
        for path in self._folder.glob("sha256-*"):
            if path.is_dir() and not path.name.endswith(PART):
                used_at = datetime.fromtimestamp(path.stat().st_mtime, UTC)
                found.append(StoredImage("process", path.name.replace("-", ":", 1), self._size(path), used_at))
        return found

    def touch(self, digests: Collection[str], now: datetime) -> None:
        """These images are in use."""
        for image in self.stored():
            if image.digest in digests:
                os.utime(self._folder / image.digest.replace(":", "-"), (now.timestamp(), now.timestamp()))

    def remove(self, digest: str) -> bool:
        """Take an image away; at no moment is there a part of it under its name. False when it was not there."""
        path = self._folder / digest.replace(":", "-")
        going = path.with_name(path.name + PART)
        shutil.rmtree(going, ignore_errors=True)
        try:
            path.rename(going)
        except FileNotFoundError:
            return False
        self._sizes.pop(path.name, None)
        shutil.rmtree(going)
        return True

    def leftovers(self, in_use: Collection[str]) -> list[Leftover]:
        """Blobs and unpacked parts of pulls that ended before they were done."""
        claimed = {name for digest, names in self._claims.items() if digest in in_use for name in names}
        found = []
        for path in [*self._folder.glob(f"sha256-*{PART}"), *self._folder.glob("downloads/*")]:
            image = path.name.removesuffix(PART).replace("-", ":", 1)
            mine = path.name in claimed if path.parent != self._folder else image in self._claims and image in in_use
            found.append(leftover(path, "partial", claimed=mine))
        return found

    def _size(self, path: Path) -> int:
        if path.name not in self._sizes:
            self._sizes[path.name] = size_on_disk(path)
        return self._sizes[path.name]

    def unpack(self, image: ImagePin, layers: Iterable[Layer]) -> None:
        """Make the image's folder out of its layers, in order. Raises ImageRefused; OSError when the disk is full."""
        part = self.path_of(image).with_name(self.path_of(image).name + PART)
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
        self._claims.pop(image.digest, None)


def leftover(path: Path, kind: Literal["partial", "damaged"], *, claimed: bool = False) -> Leftover:
    """What lies at ``path``, as clearing up wants to know it."""
    changed_at = datetime.fromtimestamp(path.lstat().st_mtime, UTC)
    return Leftover(path, size_on_disk(path), changed_at, kind, claimed)


def size_on_disk(path: Path) -> int:
    """Bytes that a file or a folder with everything in it takes; what vanishes meanwhile does not count."""
    total = 0
    for root, _, files in os.walk(path) if path.is_dir() and not path.is_symlink() else [(str(path.parent), [], [path.name])]:
        for name in files:
            with contextlib.suppress(FileNotFoundError):
                total += Path(root, name).lstat().st_blocks * 512
    return total


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
