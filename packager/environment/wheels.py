"""A locked environment becomes layers: each large wheel its own, the small ones together, each built once per wheel ever.

Only files that a wheel's RECORD names are taken, and each must have the hash that RECORD says. Left out is what belongs to
the machine that installed them: `bin/` (scripts with its interpreter's path), RECORD, INSTALLER, REQUESTED, uv's notes.
"""

from __future__ import annotations

import base64
import binascii
import csv
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from hedgerow.contracts.build_report import LayerFile
from hedgerow.contracts.environment import EnvironmentLock, LockedPackage
from packager.cache.layers import LayerCache, cache_key
from packager.environment.lock import lock_text
from packager.environment.package_names import normal_name
from packager.environment.platforms import uv_platform
from packager.environment.uv_command import Uv
from packager.environment.wheel_metadata import WheelMetadata, wheel_metadata
from packager.errors import EnvironmentUnsolvable, PackedFileChanged, UnusableFileName, WheelsCollide
from packager.oci.blobs import disk_error
from packager.oci.compress import compressor_name
from packager.oci.tar_layer import TAR_GENERATION, DiskEntry, MadeLayer, tar_chunks, write_layer
from packager.source_files import RESERVED_MODULES

# Raise it when EnvironmentLayers learns to say more.
_RECORD_GENERATION = 1
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
    metadata: WheelMetadata

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
class EnvironmentLayers:
    """A lock as layers, in their order, and what each wheel says of itself. Also the cache's record of it."""

    layers: tuple[MadeLayer, ...]
    metadata: dict[str, WheelMetadata]


def environment_layers(lock: EnvironmentLock, prefix: str, media_type: str, cache: LayerCache, uv: Uv) -> EnvironmentLayers:
    """The layers that put ``lock`` under the folder ``prefix`` of an image; nothing is installed when all are cached.

    Raises EnvironmentUnsolvable, IndexUnreachable, WheelsCollide, UnusableFileName, PackedFileChanged, DiskFull.
    """
    key = cache_key("environment", _RECORD_GENERATION, lock.digest, prefix, TAR_GENERATION, compressor_name(media_type))
    known = cache.find("environment", key, EnvironmentLayers)
    if known and all(cache.holds(layer.stored.digest) for layer in known.layers):
        return known
    site = cache.scratch / f"site-{lock.digest[-12:]}"
    install_locked(lock, site, cache, uv)
    wheels = read_wheels(site, lock)
    groups = group_wheels(wheels)
    with ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as pool:
        layers = tuple(pool.map(lambda group: _layer(group, prefix, media_type, cache), groups))
    made = EnvironmentLayers(layers, {wheel.name: wheel.metadata for wheel in wheels})
    cache.keep("environment", key, made)
    return made


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
        wheels.append(Wheel(package.name, package.version, _wheel_key(package, lock), files, wheel_metadata(info)))
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
        if any(part.startswith(".wh.") for part in path.split("/")):
            raise UnusableFileName(path=path)  # in a layer it would delete what other wheels brought
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
    try:
        return "sha256:" + base64.urlsafe_b64decode(value + "=" * (-len(value) % 4)).hex()
    except binascii.Error:
        return "sha256:"  # what is no hash is the hash of nothing


def _check_collisions(wheels: list[Wheel]) -> None:
    claimed: dict[str, tuple[str, str | None]] = {}
    for wheel in wheels:
        for file in wheel.files:
            if file.path.split("/")[0] in RESERVED_MODULES:
                raise WheelsCollide(path=file.path, first=wheel.name, second="Hedgerow itself")
            first, digest = claimed.setdefault(file.path, (wheel.name, file.digest))
            if first != wheel.name and digest != file.digest:
                raise WheelsCollide(path=file.path, first=first, second=wheel.name)


def install_locked(lock: EnvironmentLock, site: Path, cache: LayerCache, uv: Uv) -> None:
    """Install the wheels of ``lock`` into the folder ``site``. Raises EnvironmentUnsolvable, IndexUnreachable, DiskFull."""
    locked = cache.scratch / f"install-{lock.digest[-12:]}.lock"
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


def _layer(group: WheelGroup, prefix: str, media_type: str, cache: LayerCache) -> MadeLayer:
    key = cache_key("layer", group.key, prefix, TAR_GENERATION, compressor_name(media_type))
    known = cache.find("layer", key, MadeLayer)
    if known and cache.holds(known.stored.digest):
        return known
    # Of files that two wheels have in common (equal ones: see _check_collisions) the first wheel counts as the origin.
    owners = {file.path: (wheel, file) for wheel in reversed(group.wheels) for file in wheel.files}
    entries = [DiskEntry(f"{prefix}/{path}", file.source, file.size_bytes, file.executable) for path, (_, file) in owners.items()]
    files: list[LayerFile] = []

    def check(path: str, digest: str, size_bytes: int) -> None:
        wheel, file = owners[path.removeprefix(prefix + "/")]
        if file.digest is not None and file.digest != digest:
            raise PackedFileChanged(path=path)
        files.append(LayerFile(path=path, size_bytes=size_bytes, digest=digest, origin=f"{wheel.name} {wheel.version}"))

    stored = write_layer(cache.blobs, group.purpose, media_type, tar_chunks(entries, check))
    layer = MadeLayer(stored, {wheel.name: wheel.version for wheel in group.wheels}, tuple(files))
    cache.keep("layer", key, layer)
    return layer
