"""Why an image is as it is: two build reports become an Explanation. Pure; ``client.images.explain`` reads the reports.

Layers of two builds are the same when their digests are. Of the others those belong together that hold the same thing:
the wheel of one package, the model of one name, or, for all else, the same purpose in the same order.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Literal

import msgspec

from hedgerow.contracts.build_report import BuildReport, LayerFile, LayerReport, PlatformReport
from hedgerow.contracts.image import ImageKind
from hedgerow.contracts.names import Digest

LayerState = Literal["same", "new", "rebuilt", "dropped"]
FileState = Literal["same", "new", "changed", "moved", "removed"]

_WHEEL = re.compile(r"wheel (?P<name>\S+) (?P<version>\S+)")
_MODEL = re.compile(r"model (?P<name>[^:\s]+):(?P<version>\S+)")
_ORIGIN = re.compile(r"(?P<name>.+)[ :](?P<version>[^ :]+)")
_SMALL_WHEELS = re.compile(r"(?P<version>\d+) small wheels")
_SHORT = len("sha256:") + 12
_BASE_LAYER = re.compile(r"base layer \d+")
# Versions stand in paths too; a file is the same file of the next version. `models/churn/3/…`, `numpy-2.4.6.dist-info/…`.
_VERSION_FOLDER = re.compile(r"(?<=models/)(?P<name>[^/]+)/\d+/")
_WHEEL_FOLDER = re.compile(r"-[^/-]+\.(?P<kind>dist-info|data)/")


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """What decided something, by name, then and now; None where there was or is none."""

    name: str
    before: str | None
    now: str | None


class FileExplained(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One file. ``size_before`` and ``path_before`` are set where they differ, ``size_bytes`` is 0 of one that is gone."""

    path: str
    state: FileState
    size_bytes: int
    origin: str
    size_before: int | None = None
    path_before: str | None = None


class LayerExplained(msgspec.Struct, frozen=True, kw_only=True):
    """One layer. ``size_bytes`` is stored and transferred, ``unpacked_bytes`` the sum of its files (None: they are not known).

    ``number`` counts from the base, from 1; those dropped come last. ``was`` is the purpose of the layer that it stands for,
    where that differs. ``because`` is empty where nothing is compared. ``file_count`` is of files that are there.
    """

    number: int
    purpose: str
    state: LayerState
    digest: Digest
    size_bytes: int
    unpacked_bytes: int | None
    file_count: int
    was: str | None = None
    because: list[Change] = []
    files: list[FileExplained] = []


class PlatformExplained(msgspec.Struct, frozen=True, kw_only=True):
    """One platform's layers from the base upwards, those dropped last.

    ``shared_bytes`` are there for whoever has the older image of this platform, ``fetch_bytes`` are left to fetch. Manifest and
    configuration, a few kB, are not counted.
    """

    platform: str
    manifest: Digest
    shared_bytes: int
    fetch_bytes: int
    layers: list[LayerExplained]


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """An image, alone or (``against``) compared with another one; bytes are of layers, each counted once."""

    image: str = ""
    against: str | None = None
    kind: ImageKind
    tool_version: str
    identical: bool
    shared_bytes: int
    fetch_bytes: int
    inputs: list[Change]
    platforms: list[PlatformExplained]


def explain(new: BuildReport, old: BuildReport | None) -> Explanation:
    """What ``new`` weighs and, against ``old``, what of it is the same and why the rest is not."""
    before = {platform.platform: platform for platform in old.platforms} if old else {}
    known = {layer.digest for platform in before.values() for layer in platform.layers}
    sizes = {layer.digest: layer.size_bytes for platform in new.platforms for layer in platform.layers}
    shared = sum(size for digest, size in sizes.items() if digest in known)
    return Explanation(
        kind=new.kind,
        tool_version=new.tool_version,
        identical=old is not None and _manifests(new) == _manifests(old),
        shared_bytes=shared,
        fetch_bytes=sum(sizes.values()) - shared,
        inputs=_changes(old.inputs, new.inputs) if old else [],
        platforms=[_platform(platform, before.get(platform.platform)) for platform in new.platforms],
    )


def headline(layer: LayerExplained) -> str:
    """The layer's purpose, with the version before: ``wheel numpy 2.4.5 → 2.4.6``, ``12 → 13 small wheels``."""
    if layer.was is None or _BASE_LAYER.fullmatch(layer.purpose):
        return layer.purpose
    for pattern in (_WHEEL, _MODEL, _SMALL_WHEELS):
        now, then = pattern.fullmatch(layer.purpose), pattern.fullmatch(layer.was)
        if now and then and _identity(layer.purpose) == _identity(layer.was):
            return f"{layer.purpose[: now.start('version')]}{then['version']} → {layer.purpose[now.start('version') :]}"
    return f"{layer.was} → {layer.purpose}"


def _manifests(report: BuildReport) -> dict[str, str]:
    return {platform.platform: platform.manifest for platform in report.platforms}


def _platform(new: PlatformReport, old: PlatformReport | None) -> PlatformExplained:
    layers = list(_layers(new.layers, old.layers if old else []))
    weights = {layer.digest: layer for layer in layers if layer.state != "dropped"}
    shared = sum(layer.size_bytes for layer in weights.values() if layer.state == "same")
    return PlatformExplained(
        platform=new.platform,
        manifest=new.manifest,
        shared_bytes=shared,
        fetch_bytes=sum(layer.size_bytes for layer in weights.values()) - shared,
        layers=layers,
    )


# --- layers --------------------------------------------------------------------------------------------------------------


def _layers(new: list[LayerReport], old: list[LayerReport]) -> Iterator[LayerExplained]:
    pairs = match_layers(new, old)
    there = {layer.digest for layer in new}
    for number, (layer, before) in enumerate(zip(new, pairs, strict=True), start=1):
        yield _layer(number, layer, before)
    gone = [layer for layer in old if layer.digest not in there and not any(layer is mate for mate in pairs)]
    for number, layer in enumerate(gone, start=len(new) + 1):
        yield _dropped(number, layer)


def match_layers(new: list[LayerReport], old: list[LayerReport]) -> list[LayerReport | None]:
    """For each layer of ``new`` the one of ``old`` that it stands for: the same bytes, else the same thing, or None."""
    by_digest = {layer.digest: layer for layer in reversed(old)}
    there = {layer.digest for layer in new}
    waiting: dict[str, list[LayerReport]] = {}
    for layer in old:
        if layer.digest not in there:
            waiting.setdefault(_identity(layer.purpose), []).append(layer)
    mates: list[LayerReport | None] = []
    for layer in new:
        left = waiting.get(_identity(layer.purpose))
        same = by_digest.get(layer.digest)
        mates.append(same or (left.pop(0) if left else None))
    return mates


def _identity(purpose: str) -> str:
    """What a layer holds, whatever its version."""
    for title, pattern in (("wheel", _WHEEL), ("model", _MODEL)):
        if found := pattern.fullmatch(purpose):
            return f"{title} {found['name']}"
    if _BASE_LAYER.fullmatch(purpose):
        return "base layer"
    return "small wheels" if _SMALL_WHEELS.fullmatch(purpose) else purpose


def _layer(number: int, new: LayerReport, old: LayerReport | None) -> LayerExplained:
    same = old is not None and old.digest == new.digest
    because: list[Change] = []
    if old is not None and not same:
        because = _reasons(old, new)
    return LayerExplained(
        number=number,
        purpose=new.purpose,
        state="same" if same else "new" if old is None else "rebuilt",
        digest=new.digest,
        size_bytes=new.size_bytes,
        unpacked_bytes=sum(file.size_bytes for file in new.files) if new.files else None,
        file_count=len(new.files),
        was=old.purpose if old is not None and old.purpose != new.purpose else None,
        because=because,
        files=_files(new.files, old.files if old else []),
    )


def _reasons(old: LayerReport, new: LayerReport) -> list[Change]:
    """What decided the bytes and differs; where nothing of that is known, the versions of what is inside."""
    recorded = _changes(old.made_of, new.made_of) or _changes(_contents(old), _contents(new))
    packing = _changes({"packing": old.media_type}, {"packing": new.media_type})
    # Nothing that is written down differs: another compressor, or another order of files.
    return [*recorded, *packing] or _changes({"packing": old.digest[:_SHORT]}, {"packing": new.digest[:_SHORT]})


def _contents(layer: LayerReport) -> dict[str, str]:
    """Versions by name, out of where the files came from."""
    found = (_ORIGIN.fullmatch(origin) for origin in {file.origin for file in layer.files})
    return {origin["name"]: origin["version"] for origin in found if origin}


def _dropped(number: int, old: LayerReport) -> LayerExplained:
    return LayerExplained(
        number=number,
        purpose=old.purpose,
        state="dropped",
        digest=old.digest,
        size_bytes=old.size_bytes,
        unpacked_bytes=sum(file.size_bytes for file in old.files) if old.files else None,
        file_count=len(old.files),
        files=[_removed(file) for file in old.files],
    )


def _changes(before: Mapping[str, str], now: Mapping[str, str]) -> list[Change]:
    return [
        Change(name=name, before=before.get(name), now=now.get(name))
        for name in sorted(before.keys() | now.keys())
        if before.get(name) != now.get(name)
    ]


# --- files ---------------------------------------------------------------------------------------------------------------


def _files(new: Iterable[LayerFile], old: Iterable[LayerFile]) -> list[FileExplained]:
    """Every file of ``new``, in its order, then those of ``old`` that are gone."""
    left = {file.path: file for file in old}
    exact = {file.path: left.pop(file.path) for file in new if file.path in left}
    by_place: dict[str, list[LayerFile]] = {}
    for file in left.values():
        by_place.setdefault(_place(file.path), []).append(file)
    found = []
    for file in new:
        mates = by_place.get(_place(file.path))
        mate = exact.get(file.path) or (mates.pop(0) if mates else None)
        found.append(_file(file, mate))
    return found + [_removed(file) for mates in by_place.values() for file in mates]


def _place(path: str) -> str:
    """The path without the versions in it."""
    return _WHEEL_FOLDER.sub(r".\g<kind>/", _VERSION_FOLDER.sub(r"\g<name>/", path))


def _file(new: LayerFile, old: LayerFile | None) -> FileExplained:
    state: FileState = "new"
    if old is not None:
        state = "changed" if old.digest != new.digest else "same" if old.path == new.path else "moved"
    return FileExplained(
        path=new.path,
        state=state,
        size_bytes=new.size_bytes,
        origin=new.origin,
        size_before=old.size_bytes if old and old.size_bytes != new.size_bytes else None,
        path_before=old.path if old and old.path != new.path else None,
    )


def _removed(file: LayerFile) -> FileExplained:
    return FileExplained(path=file.path, state="removed", size_bytes=0, size_before=file.size_bytes, origin=file.origin)
