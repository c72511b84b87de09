"""Looks once through the layers of a base: whether each is what the config says, and which Python they bring."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import IO, cast

from hedgerow.safe_tar import UNPACKED_BYTES_MAX
from packager.bases.layer_content import damage, members, unpacked
from packager.errors import BaseUnreadable
from packager.oci.blobs import CHUNK_BYTES

# PATH order of the usual bases: what stands first is what `python3` means.
_PYTHONS = ("usr/local/bin/python3", "usr/bin/python3")
UNKNOWN_PYTHON = "an unknown Python"
NO_PYTHON = "no python3"


def find_python(layers: Sequence[Path], diff_ids: Sequence[str], where: str) -> str:
    """`Python 3.11`, UNKNOWN_PYTHON or NO_PYTHON. ``diff_ids`` are the digests of the layers unpacked, in the same order.

    Raises BaseUnreadable for a layer that is damaged or another one.
    """
    found: dict[str, str] = {}
    readable = True
    for path, diff_id in zip(layers, diff_ids, strict=True):
        try:
            readable &= _look_through(path, diff_id, found, where)
        except damage() as problem:
            raise BaseUnreadable(base=where, problem=f"a layer cannot be unpacked ({problem})") from problem
    if not readable:
        return UNKNOWN_PYTHON
    return next((found[path] for path in _PYTHONS if path in found), NO_PYTHON)


def _look_through(path: Path, diff_id: str, found: dict[str, str], where: str) -> bool:
    """Whether the layer is a tar that can be read."""
    with unpacked(path) as content:
        plain = _Hashing(content, where)
        try:
            for member in members(cast("IO[bytes]", plain)):
                if (name := member.name.removeprefix("./").removeprefix("/")) in _PYTHONS:
                    found[name] = _python_version(member)
            is_tar = True
        except tarfile.TarError:
            is_tar = False
        while plain.read(CHUNK_BYTES):
            pass
    if plain.digest != diff_id:
        raise BaseUnreadable(base=where, problem=f"a layer is not what its config says ({diff_id})")
    return is_tar


class _Hashing(io.RawIOBase):
    """Reads ``content`` through, and knows the digest of what was read. A layer without an end is not read to it."""

    def __init__(self, content: IO[bytes], where: str) -> None:
        self._content, self._where = content, where
        self._hasher, self._left = hashlib.sha256(), UNPACKED_BYTES_MAX

    def read(self, size: int = -1) -> bytes:
        data = self._content.read(size if size >= 0 else CHUNK_BYTES)
        self._left -= len(data)
        if self._left < 0:
            raise BaseUnreadable(base=self._where, problem=f"a layer unpacks to more than {UNPACKED_BYTES_MAX} bytes")
        self._hasher.update(data)
        return data

    @property
    def digest(self) -> str:
        return "sha256:" + self._hasher.hexdigest()


def _python_version(member: tarfile.TarInfo) -> str:
    target = PurePosixPath(member.linkname).name if member.issym() else ""
    version = target.removeprefix("python")
    return f"Python {version}" if version != target and version.startswith("3.") else UNKNOWN_PYTHON
