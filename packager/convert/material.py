"""What goes into a conversion and what comes out of it as files: laid out, named by one key, kept in the cache, copied."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from hedgerow.contracts.convert import ConvertRequest, ConvertResult
from hedgerow.contracts.image import ModelRef
from hedgerow.contracts.model import FileEntry, digest_of_files
from packager.cache.layers import LayerCache, cache_key
from packager.errors import ModelChanged, OutNotEmpty
from packager.oci.blobs import disk_error, file_chunks
from packager.source_files import list_files

# Raise it whenever the same inputs give another conversion.
_GENERATION = 2
_CHECKERS = ("numpy", "onnx", "onnxruntime")


@dataclass(frozen=True)
class Material:
    """A model's files as copies of ours, readable by everybody; ``sample`` likewise."""

    folder: Path
    files: list[FileEntry]
    sample: Path | None
    sample_digest: str | None


def check_out(out: Path) -> None:
    """Raises OutNotEmpty, FolderNotWritable."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        if any(out.iterdir()):
            raise OutNotEmpty(out=out)
    except OSError as problem:
        raise disk_error(problem, out) from problem


def lay_out(request: ConvertRequest, target: Path) -> Material:
    """Copy model and sample below ``target``. Raises ModelChanged, UnreadableFile, LinkOutside, SpecialFile, DiskFull."""
    folder = target / "files"
    folder.mkdir(parents=True)
    entries = []
    for file in list_files(Path(request.folder)):
        digest, size = _copy(file.source, folder / file.path)
        entries.append(FileEntry(path=file.path, digest=digest, size_bytes=size))
    found = digest_of_files(entries)
    if found != request.model.digest:
        model = f"{request.model.name}:{request.model.version}"
        raise ModelChanged(folder=request.folder, model=model, expected=request.model.digest, found=found)
    sample, sample_digest = None, None
    if request.sample_input is not None:
        source = Path(request.sample_input)
        sample = target / f"sample{source.suffix.lower()}"
        sample_digest, _ = _copy(source, sample)
    for one in (target, *(path for path in folder.rglob("*") if path.is_dir()), folder):
        one.chmod(0o755)
    return Material(folder, entries, sample, sample_digest)


def conversion_key(request: ConvertRequest, material: Material, entry: str, libraries: str, tool_version: str) -> str:
    """The digest of everything that decides the conversion."""
    # Requirements count as the libraries that they led to.
    said = msgspec.structs.replace(request, out="", cache="", folder="", sample_input=None, requirements=[])
    # By its content alone: under another name or number it converts to the same.
    said = msgspec.structs.replace(said, model=ModelRef(name="model", version=1, digest=request.model.digest))
    checkers = {name: importlib.metadata.version(name) for name in _CHECKERS}
    return cache_key(
        "conversion", _GENERATION, tool_version, checkers, libraries, entry, material.sample_digest, msgspec.to_builtins(said)
    )


def listed(folder: Path, names: Iterable[str]) -> list[FileEntry]:
    """Entries of the named files that are there."""
    found = []
    for name in names:
        path = folder / name
        if path.is_file():
            digest = hashlib.sha256()
            for chunk in file_chunks(path):
                digest.update(chunk)
            found.append(FileEntry(path=name, digest=f"sha256:{digest.hexdigest()}", size_bytes=path.stat().st_size))
    return sorted(found, key=lambda entry: entry.path)


def keep_result(cache: LayerCache, result: ConvertResult, folder: Path) -> None:
    """Raises DiskFull."""
    for entry in result.files:
        cache.blobs.add(file_chunks(folder / entry.path), expected=entry.digest, where=folder)
    cache.keep("conversion", result.key, result)


def find_result(cache: LayerCache, key: str, out: Path) -> ConvertResult | None:
    """An equal conversion of earlier, its files copied into ``out``; None when there is none, or not all of it."""
    known = cache.find("conversion", key, ConvertResult)
    if known is None or not all(cache.blobs.holds(entry.digest) for entry in known.files):
        return None
    for entry in known.files:
        _copy(cache.blobs.path(entry.digest), out / entry.path)
    return msgspec.structs.replace(known, reused=True)


def take_files(folder: Path, out: Path, files: Iterable[FileEntry]) -> None:
    """Copy the named files into ``out``: all of them, or an error and none."""
    try:
        for entry in files:
            _copy(folder / entry.path, out / entry.path)
    except BaseException:
        for entry in files:
            (out / entry.path).unlink(missing_ok=True)
        raise


def _copy(source: Path, target: Path) -> tuple[str, int]:
    digest, size = hashlib.sha256(), 0
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("wb") as file:
            for chunk in file_chunks(source):
                digest.update(chunk)
                size += len(chunk)
                file.write(chunk)
            os.fchmod(file.fileno(), 0o644)
    except OSError as problem:
        target.unlink(missing_ok=True)
        raise disk_error(problem, target) from problem
    return f"sha256:{digest.hexdigest()}", size
