"""``images.export`` and ``images.load``: an image into a file of this disk, a stream, or an engine of this machine."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import BinaryIO

import msgspec

from hedgerow.atomic_write import publish
from hedgerow.contracts.image import ImageRecord
from hedgerow.contracts.names import Digest
from hedgerow.sdk.errors import ImageNotLoadable, NoSuchPlatform, OutputExists
from hedgerow.sdk.image_load import engine_at
from hedgerow.sdk.image_tar import Contents, Progress, contents_of, tar_of
from hedgerow.sdk.transport import Transport


class ExportedImage(msgspec.Struct, frozen=True, kw_only=True):
    """An image that is in a file now. ``file`` is empty for a stream."""

    image: str
    digest: Digest
    file: str
    size_bytes: int


class LoadedImage(msgspec.Struct, frozen=True, kw_only=True):
    """An image that an engine has now, under ``tag``; ``id`` is the engine's own for it."""

    image: str
    digest: Digest
    tag: str
    id: str


def export(
    transport: Transport,
    record: ImageRecord,
    target: Path | BinaryIO,
    *,
    platform: str | None = None,
    replace: bool = False,
    referrers: bool = True,
    on_progress: Progress | None = None,
) -> ExportedImage:
    """See :meth:`hedgerow.sdk.images.Images.export`."""
    if isinstance(target, Path) and (target.is_dir() or (target.exists() and not replace)):
        raise OutputExists(path=target)
    contents = contents_of(transport, record, platform, referrers=referrers)
    if not isinstance(target, Path):
        size = _write(transport, record, contents, target, on_progress)
        return _exported(record, "", size)
    descriptor, name = _beside(target)
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            size = _write(transport, record, contents, file, on_progress)
            file.flush()
            os.fchmod(file.fileno(), 0o644)
            os.fsync(file.fileno())
        _publish(temporary, target, replace=replace)
    finally:
        temporary.unlink(missing_ok=True)
    return _exported(record, str(target), size)


def _beside(target: Path) -> tuple[int, str]:
    """A temporary file that can take the name of ``target``. Raises OSError that names the folder, not the file in it."""
    try:
        return tempfile.mkstemp(dir=target.parent, prefix=f".{target.name[:100]}.", suffix=".part")
    except OSError as problem:
        raise type(problem)(problem.errno, problem.strerror, str(target.parent)) from None


def load(
    transport: Transport,
    record: ImageRecord,
    *,
    engine: str | None = None,
    platform: str | None = None,
    on_progress: Progress | None = None,
) -> LoadedImage:
    """See :meth:`hedgerow.sdk.images.Images.load`."""
    title = f"{record.name}:{record.version}"
    if record.kind == "onnx":
        raise ImageNotLoadable(image=title, kind=record.kind)
    with engine_at(engine) as taking:
        contents = contents_of(transport, record, platform or _platform_for(record, taking.platform()))
        if not contents.runs_in_engines:
            raise ImageNotLoadable(image=title, kind=record.kind)
        taking.load(tar_of(transport, record.name, contents, on_progress))
        return LoadedImage(image=title, digest=record.digest, tag=title, id=taking.image_id(title))


def _platform_for(record: ImageRecord, engine: str) -> str | None:
    """That of the engine; an image of one platform is its own choice (an engine may have an emulator). Raises NoSuchPlatform."""
    have = [one.platform for one in record.platforms]
    if len(have) == 1:
        return None
    if not any(f"{one}/".startswith(f"{engine}/") for one in have):
        raise NoSuchPlatform(image=f"{record.name}:{record.version}", platform=engine, have=", ".join(have))
    return engine


def _write(transport: Transport, record: ImageRecord, contents: Contents, target: BinaryIO, on_progress: Progress | None) -> int:
    size = 0
    for piece in tar_of(transport, record.name, contents, on_progress):
        target.write(piece)
        size += len(piece)
    return size


def _exported(record: ImageRecord, file: str, size: int) -> ExportedImage:
    return ExportedImage(image=f"{record.name}:{record.version}", digest=record.digest, file=file, size_bytes=size)


def _publish(temporary: Path, file: Path, *, replace: bool) -> None:
    try:
        publish(temporary, file, replace=replace)
    except FileExistsError:
        raise OutputExists(path=file) from None
