"""Unpacks one foreign tar archive below a folder. Whatever the archive says, nothing outside of that folder is touched.

Taken are files, folders, and links that stay inside; refused are absolute paths, ``..``, members below a link, hard links
to anything but an unpacked file, devices and pipes, and archives that grow beyond a limit of bytes or of members. Owners,
times, set-uid bits and extended attributes are not taken over: of a file's mode only "may be executed" stays.
"""

from __future__ import annotations

import errno
import gzip
import io
import os
import shutil
import tarfile
import zlib
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING

from hedgerow.errors import UserError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer as Buffer

UNPACKED_BYTES_MAX = 64 << 30
MEMBERS_MAX = 1_000_000
# A long name or a pax header is read into memory whole, and says itself how long it is.
EXTRA_HEADER_BYTES_MAX = 1 << 20
_EXTRA_HEADERS = (*tarfile.GNU_TYPES[:2], tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE)
_COPY_BYTES = 1 << 20
_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"


class UnsafeArchive(UserError):
    """An archive that is damaged, or wants to write where it must not."""

    key = "unsafe_archive"
    message = "The archive {archive} is refused: {problem}"
    remedy = "It was damaged or made to do harm: build or fetch it again from a source that you trust."


class BoundedTarInfo(tarfile.TarInfo):
    """For ``tarfile.open(tarinfo=…)`` on foreign archives: refuses headers that would fill the memory, as a ReadError.

    So are sizes below zero (with which an archive buys room beyond any limit) and sparse files, whose maps have no end and
    which unpack to more than any archive holds.
    """

    def _proc_member(self, tar: tarfile.TarFile) -> tarfile.TarInfo:  # tarfile's own hook for subclasses
        if self.type in _EXTRA_HEADERS and self.size > EXTRA_HEADER_BYTES_MAX:
            raise tarfile.ReadError(f"a header of {self.size} bytes")
        if self.type == tarfile.XGLTYPE and self.size + _kept_bytes(tar) > EXTRA_HEADER_BYTES_MAX:
            raise tarfile.ReadError(f"global headers of more than {EXTRA_HEADER_BYTES_MAX} bytes")
        if self.type == tarfile.GNUTYPE_SPARSE:
            raise tarfile.ReadError("a sparse file")
        try:
            taken: tarfile.TarInfo = super()._proc_member(tar)  # type: ignore[misc]  # not in typeshed
        except (ValueError, OverflowError, RecursionError) as problem:
            # Numbers that are none, and headers about headers about headers.
            raise tarfile.ReadError(f"a header that cannot be read ({type(problem).__name__})") from None
        if taken.size < 0:
            raise tarfile.ReadError(f"a size of {taken.size} bytes")
        return taken

    def _refuse_sparse(self, *_: object) -> None:
        raise tarfile.ReadError("a sparse file")

    # tarfile's own names for the three forms that sparse files have in pax headers.
    _proc_gnusparse_00 = _proc_gnusparse_01 = _proc_gnusparse_10 = _refuse_sparse


def _kept_bytes(tar: tarfile.TarFile) -> int:
    """Global headers stay in memory until the end of the archive."""
    return sum(len(name) + len(value) for name, value in tar.pax_headers.items())


def unpack_tar(
    archive: IO[bytes], root: Path, *, name: str, max_bytes: int = UNPACKED_BYTES_MAX, max_members: int = MEMBERS_MAX
) -> int:
    """Write the members of ``archive`` (tar; plain, gzip or zstd) below the existing folder ``root``; returns the bytes written.

    ``archive`` is read to its end, so that a stream that checks itself has its say; ``name`` stands for it in errors. A later
    member replaces an earlier one of the same name. Raises UnsafeArchive (what was written so far stays: remove ``root``),
    OSError (full disk), and what reading ``archive`` raises.
    """
    left, members = max_bytes, 0
    try:
        # As a stream: a member can never point back into what was read before.
        with (
            _unpacked(archive, name) as plain,
            tarfile.open(fileobj=plain, mode="r|", bufsize=_COPY_BYTES, tarinfo=BoundedTarInfo) as tar,
        ):
            while (member := tar.next()) is not None:
                tar.members.clear()  # type: ignore[attr-defined]  # not in typeshed; it would keep them all
                left, members = left - member.size, members + 1
                if left < 0:
                    raise UnsafeArchive(archive=name, problem=f"it unpacks to more than {max_bytes} bytes")
                if members > max_members:
                    raise UnsafeArchive(archive=name, problem=f"it has more than {max_members} members")
                _Member(name, member, root).write(tar)
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as problem:
        raise UnsafeArchive(archive=name, problem=f"it is damaged ({problem})") from problem
    except OSError as problem:
        if problem.errno != errno.ENAMETOOLONG:
            raise
        raise UnsafeArchive(archive=name, problem="it has names that are too long") from problem
    while archive.read(_COPY_BYTES):
        pass
    return max_bytes - left


def _unpacked(archive: IO[bytes], name: str) -> io.BufferedIOBase:
    """The plain tar in ``archive``. tarfile's own reader of gzip streams stops after the first of several members."""
    joined = io.BufferedReader(_Raw(archive), _COPY_BYTES)
    head = joined.peek(len(_ZSTD))[: len(_ZSTD)]
    if head.startswith(_GZIP):
        return gzip.GzipFile(fileobj=joined, mode="rb")
    if head != _ZSTD:
        return joined
    try:
        import zstandard
    except ImportError:
        raise UnsafeArchive(archive=name, problem="it is packed with zstd, which needs the library zstandard here") from None
    frames = zstandard.ZstdDecompressor().stream_reader(joined, read_across_frames=True)
    return io.BufferedReader(_Raw(frames, zstandard.ZstdError), _COPY_BYTES)


class _Raw(io.RawIOBase):
    """``read`` of any object as a raw stream that does not close it; ``damage`` is what it raises for damaged bytes."""

    def __init__(self, archive: IO[bytes], damage: type[Exception] = zlib.error) -> None:
        self._archive, self._damage = archive, damage

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Buffer, /) -> int:
        view = memoryview(buffer)
        try:
            chunk = self._archive.read(len(view))
        except self._damage as problem:
            raise zlib.error(str(problem)) from problem
        view[: len(chunk)] = chunk
        return len(chunk)


class _Member:
    """One member on its way to disk."""

    def __init__(self, archive: str, member: tarfile.TarInfo, root: Path) -> None:
        self._archive, self._member, self._root = archive, member, root

    def write(self, tar: tarfile.TarFile) -> None:
        member = self._member
        parts = self._parts(member.name)
        if not parts:
            return
        target = self._parent(parts) / parts[-1]
        if member.isdir():
            self._make_folder(target)
        elif member.isreg():
            content = tar.extractfile(member)
            if content is None:
                raise self._bad("has no content")
            with content:
                self._make_file(target, content)
        elif member.issym():
            self._check_link(parts)
            _remove(target)
            # Written tidily: what follows links does not agree about odd spellings such as ``a//.``.
            target.symlink_to(PurePosixPath(member.linkname))
        elif member.islnk():
            self._make_hard_link(target)
        else:
            raise self._bad("is neither a file, a folder nor a link")

    def _parts(self, name: str) -> tuple[str, ...]:
        if name.startswith("/") or "\0" in name:
            raise self._bad("has an absolute path")
        parts = tuple(part for part in name.split("/") if part not in ("", "."))
        if ".." in parts:
            raise self._bad("leads out of the archive")
        return parts

    def _parent(self, parts: tuple[str, ...]) -> Path:
        folder = self._root
        for part in parts[:-1]:
            folder /= part
            if folder.is_symlink():
                raise self._bad("lies below a link")
            try:
                folder.mkdir(mode=0o755, exist_ok=True)
            except FileExistsError:
                raise self._bad("lies below a file") from None
        return folder

    def _make_folder(self, target: Path) -> None:
        if not target.is_dir() or target.is_symlink():
            _remove(target)
            target.mkdir(mode=0o755)

    def _make_file(self, target: Path, content: IO[bytes]) -> None:
        _remove(target)
        with target.open("xb") as file:
            shutil.copyfileobj(content, file, _COPY_BYTES)
            os.fchmod(file.fileno(), 0o755 if self._member.mode & 0o100 else 0o644)

    def _make_hard_link(self, target: Path) -> None:
        parts = self._parts(self._member.linkname)
        source = self._parent(parts) / parts[-1] if parts else self._root
        if source.is_symlink() or not source.is_file():
            raise self._bad(f"is a hard link to {self._member.linkname!r}, which is no file before it")
        if target in source.parents:
            raise self._bad(f"would replace the folder of {self._member.linkname!r}, which it is a hard link to")
        if source != target:
            _remove(target)
            target.hardlink_to(source)

    def _check_link(self, parts: tuple[str, ...]) -> None:
        """``..`` only in front and never above the root: then no chain of such links can lead out."""
        aim = PurePosixPath(self._member.linkname)
        if "\0" in self._member.linkname:
            raise self._bad("is a link to no name")
        ups = 0
        while ups < len(aim.parts) and aim.parts[ups] == "..":
            ups += 1
        if not aim.parts or aim.is_absolute() or ".." in aim.parts[ups:] or ups > len(parts) - 1:
            raise self._bad(f"is a link to {self._member.linkname!r}")

    def _bad(self, what: str) -> UnsafeArchive:
        return UnsafeArchive(archive=self._archive, problem=f"its member {self._member.name[:200]!r} {what}")


def _remove(target: Path) -> None:
    if target.is_dir() and not target.is_symlink():
        shutil.rmtree(target)
    else:
        target.unlink(missing_ok=True)
