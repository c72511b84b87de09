"""A locked environment becomes layers: each large wheel its own, the small ones together, each built once per wheel ever.

Only files that a wheel's RECORD names are taken, and each must have the hash that RECORD says. Left out is what belongs to
the machine that installed them: `bin/` (scripts with its interpreter's path), RECORD, INSTALLER, REQUESTED, uv's notes.
"""

from __future__ import annotations

import base64
import csv
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from hedgerow.contracts.environment import EnvironmentLock, LockedPackage
from hedgerow.contracts.names import MEDIA_OCI_LAYER_GZIP
from packager.blobs import disk_error
from packager.environment_lock import lock_text, normal_name, uv_platform
from packager.errors import EnvironmentUnsolvable, PackedFileChanged, WheelsCollide
from packager.layer_cache import LayerCache, cache_key
from packager.source_files import RESERVED_MODULES
from packager.tar_layer import TAR_GENERATION, DiskEntry, StoredLayer, compressor_name, tar_chunks, write_layer
from packager.uv_command import Uv

LARGE_WHEEL_BYTES = 5_000_000
# OCI engines stop at 127 layers; base, runtime, models and configuration need some of them.
LARGE_WHEELS_AT_MOST = 64
_HOST_FILES = frozenset({"RECORD", "INSTALLER", "REQUESTED", "direct_url.json", "uv_cache.json", "uv_build.json"})


@dataclass(frozen=True)
class WheelFile:
    """A file of an installed wheel, as RECORD names it. ``digest`` is None where RECORD has none."""

    path: str
    source: Path
    size_bytes: int
    executable: bool
    digest: str | None


@dataclass(frozen=True)
class Wheel:
    """One installed wheel. ``key`` stands for its content: name, version and the hashes that the lock accepts."""

    name: str
    version: str
    key: str
    files: tuple[WheelFile, ...]

    @property
    def size_bytes(self) -> int:
        return sum(file.size_bytes for file in self.files)


@dataclass(frozen=True)
class WheelGroup:
    """The wheels of one layer."""

    purpose: str
    key: str
    wheels: tuple[Wheel, ...]


@dataclass(frozen=True)
class _EnvironmentLayers:
    """Cache record: the layers of an environment in their order."""

    layers: tuple[StoredLayer, ...]


def environment_layers(lock: EnvironmentLock, prefix: str, cache: LayerCache, uv: Uv) -> tuple[StoredLayer, ...]:
    """The layers that put ``lock`` under the folder ``prefix`` of an image; nothing is installed when all are cached.

    Raises EnvironmentUnsolvable, IndexUnreachable, WheelsCollide, DiskFull.
    """
    key = cache_key("environment", lock.digest, prefix, TAR_GENERATION, compressor_name())
    known = cache.find("environment", key, _EnvironmentLayers)
    if known and all(cache.blobs.holds(layer.digest) for layer in known.layers):
        return known.layers
    site = cache.scratch / "site"
    _install(lock, site, cache, uv)
    groups = group_wheels(read_wheels(site, lock))
    with ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as pool:
        layers = tuple(pool.map(lambda group: _layer(group, prefix, cache), groups))
    cache.keep("environment", key, _EnvironmentLayers(layers))
    return layers


def group_wheels(wheels: Iterable[Wheel]) -> list[WheelGroup]:
    """Large wheels by name, then the small ones in one group. Raises WheelsCollide."""
    ordered = sorted(wheels, key=lambda wheel: wheel.name)
    _check_collisions(ordered)
    by_size = sorted(ordered, key=lambda wheel: (-wheel.size_bytes, wheel.name))
    large = {wheel.name for wheel in by_size[:LARGE_WHEELS_AT_MOST] if wheel.size_bytes > LARGE_WHEEL_BYTES}
    groups = [WheelGroup(f"wheel {wheel.name} {wheel.version}", wheel.key, (wheel,)) for wheel in ordered if wheel.name in large]
    small = tuple(wheel for wheel in ordered if wheel.name not in large)
    if small:
        groups.append(WheelGroup(f"{len(small)} small wheels", cache_key("small", [wheel.key for wheel in small]), small))
    return groups


def read_wheels(site: Path, lock: EnvironmentLock) -> list[Wheel]:
    """The wheels that stand in ``site``, one for each package of ``lock``. Raises EnvironmentUnsolvable if one is missing."""
    folders = {_package_of(folder): folder for folder in site.glob("*-*.dist-info")}
    wheels = []
    for package in lock.packages:
        info = folders.get(package.name)
        if info is None:
            problem = f"{package.name} {package.version} was locked but is not there after the installation"
            raise EnvironmentUnsolvable(problem=problem, platform=lock.platform, python_version=lock.python_version)
        files = tuple(_recorded_files(site, info))
        wheels.append(Wheel(package.name, package.version, _wheel_key(package, lock), files))
    return wheels


def _package_of(info: Path) -> str:
    return normal_name(info.name.removesuffix(".dist-info").rsplit("-", 1)[0])


def _wheel_key(package: LockedPackage, lock: EnvironmentLock) -> str:
    return cache_key("wheel", package.name, package.version, package.hashes, lock.python_version, uv_platform(lock.platform))


def _recorded_files(site: Path, info: Path) -> Iterable[WheelFile]:
    with (info / "RECORD").open(newline="", encoding="utf-8") as record:
        rows = [row for row in csv.reader(record) if row]
    for path, recorded, *_ in rows:
        if is_host_file(path, info.name):
            continue
        source = site / path
        facts = source.lstat()
        yield WheelFile(path, source, facts.st_size, bool(facts.st_mode & 0o100), _sha256(recorded))


def is_host_file(path: str, info_name: str) -> bool:
    """Whether a file of a wheel belongs to the machine that installed it (or would stand outside the target)."""
    folder, _, name = path.rpartition("/")
    if folder == info_name and name in _HOST_FILES:
        return True
    outside = path.startswith(("/", "../")) or "/../" in path
    return outside or path.startswith("bin/") or path.endswith(".pyc")


def _sha256(recorded: str) -> str | None:
    algorithm, _, value = recorded.partition("=")
    if algorithm != "sha256":
        return None
    return "sha256:" + base64.urlsafe_b64decode(value + "=" * (-len(value) % 4)).hex()


def _check_collisions(wheels: list[Wheel]) -> None:
    claimed: dict[str, tuple[str, str | None]] = {}
    for wheel in wheels:
        for file in wheel.files:
            if file.path.split("/")[0] in RESERVED_MODULES:
                raise WheelsCollide(path=file.path, first=wheel.name, second="Hedgerow itself")
            first, digest = claimed.setdefault(file.path, (wheel.name, file.digest))
            if first != wheel.name and digest != file.digest:
                raise WheelsCollide(path=file.path, first=first, second=wheel.name)


def _install(lock: EnvironmentLock, site: Path, cache: LayerCache, uv: Uv) -> None:
    locked = cache.scratch / "install.lock"
    options = ["--no-deps", "--require-hashes", "--no-compile", "--only-binary", ":all:", "--link-mode", "hardlink"]
    target = ["--python-platform", uv_platform(lock.platform), "--python-version", lock.python_version]
    try:
        locked.write_text(lock_text(lock), encoding="utf-8")
        uv.run(
            ["pip", "install", "-r", str(locked), "--target", str(site), *options, *target],
            cache.scratch,
            platform=lock.platform,
            python_version=lock.python_version,
        )
    except OSError as problem:
        raise disk_error(problem, site) from problem


def _layer(group: WheelGroup, prefix: str, cache: LayerCache) -> StoredLayer:
    key = cache_key("layer", group.key, prefix, TAR_GENERATION, compressor_name())
    known = cache.find("layer", key, StoredLayer)
    if known and cache.blobs.holds(known.digest):
        return known
    files = {file.path: file for wheel in reversed(group.wheels) for file in wheel.files}
    entries = [DiskEntry(f"{prefix}/{file.path}", file.source, file.size_bytes, file.executable) for file in files.values()]

    def check(path: str, digest: str, _: int) -> None:
        recorded = files[path.removeprefix(prefix + "/")].digest
        if recorded is not None and recorded != digest:
            raise PackedFileChanged(path=path)

    layer = write_layer(cache.blobs, group.purpose, MEDIA_OCI_LAYER_GZIP, tar_chunks(entries, check))
    cache.keep("layer", key, layer)
    return layer
