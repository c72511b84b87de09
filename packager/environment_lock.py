"""What was asked for (requirements, Python, platform) becomes an EnvironmentLock: exact versions with hashes.

A lock is made once for what was asked and then kept in the cache, so that the same request gives the same image on any
later day, and an unchanged build needs no network.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import msgspec

from hedgerow.contracts.document import digest_of
from hedgerow.contracts.environment import EnvironmentLock, LockedPackage
from packager.blobs import disk_error
from packager.errors import RequirementRefused, UnsupportedPlatform
from packager.layer_cache import LayerCache, cache_key
from packager.uv_command import Uv

# glibc 2.28 and newer: Debian 10+, Ubuntu 18.10+, RHEL 8+.
_UV_PLATFORMS = {
    "linux/amd64": "x86_64-manylinux_2_28",
    "linux/arm64": "aarch64-manylinux_2_28",
    "linux/arm64/v8": "aarch64-manylinux_2_28",
}
_LOCK_GENERATION = 1
_PINNED = re.compile(r"^(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)==(?P<version>[^\s;\\]+)", re.M)
_HASH = re.compile(r"--hash=(sha256:[0-9a-f]{64})")
_NAME = re.compile(r"^[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?(?=$|[\s\[<>=!~;(])")


def lock_environment(requirements: list[str], python_version: str, platform: str, cache: LayerCache, uv: Uv) -> EnvironmentLock:
    """The lock of ``requirements``, from the cache or made now.

    Raises RequirementRefused, UnsupportedPlatform, EnvironmentUnsolvable, IndexUnreachable, DiskFull.
    """
    wanted = tidy_requirements(requirements)
    uv_name = uv_platform(platform)
    key = cache_key("lock", _LOCK_GENERATION, wanted, python_version, uv_name)
    if known := cache.find("lock", key, EnvironmentLock):
        return known
    try:
        text = _compile(wanted, python_version, uv_name, cache.scratch, uv)
    except OSError as problem:
        raise disk_error(problem, cache.scratch) from problem
    lock = make_lock(wanted, python_version, platform, text)
    cache.keep("lock", key, lock)
    return lock


def uv_platform(platform: str) -> str:
    """uv's name of ``platform``. Raises UnsupportedPlatform."""
    if platform not in _UV_PLATFORMS:
        raise UnsupportedPlatform(platform=platform, supported=", ".join(list(_UV_PLATFORMS)[:2]))
    return _UV_PLATFORMS[platform]


def tidy_requirements(lines: Iterable[str]) -> list[str]:
    """Sorted, without comments and repetitions, and without hedgerow itself, which every image has in a layer of its own.

    Raises RequirementRefused for options, paths and URLs: they would reach beyond the package index.
    """
    kept = set()
    for line in lines:
        requirement = re.sub(r"(^|\s)#.*$", "", line).strip()
        if not requirement:
            continue
        name = _NAME.match(requirement)
        if name is None or "://" in requirement or "@" in requirement or "\n" in requirement:
            raise RequirementRefused(requirement=line)
        if normal_name(name.group()) != "hedgerow":
            kept.add(requirement)
    return sorted(kept)


def normal_name(name: str) -> str:
    """A package's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def make_lock(requirements: list[str], python_version: str, platform: str, compiled: str) -> EnvironmentLock:
    """The lock in what `uv pip compile --generate-hashes` wrote. Its digest covers packages, Python and platform."""
    packages = []
    starts = list(_PINNED.finditer(compiled))
    ends = [match.start() for match in starts[1:]] + [len(compiled)]
    for match, end in zip(starts, ends, strict=True):
        hashes = sorted(set(_HASH.findall(compiled, match.end(), end)))
        packages.append(LockedPackage(name=normal_name(match["name"]), version=match["version"], hashes=hashes))
    packages.sort(key=lambda package: package.name)
    digest = digest_of(msgspec.json.encode([python_version, platform, packages], order="sorted"))
    return EnvironmentLock(
        python_version=python_version, platform=platform, requirements=requirements, packages=packages, digest=digest
    )


def lock_text(lock: EnvironmentLock) -> str:
    """The lock as a requirements file with hashes."""
    lines = (" ".join([f"{item.name}=={item.version}", *(f"--hash={value}" for value in item.hashes)]) for item in lock.packages)
    return "".join(line + "\n" for line in lines)


def _compile(requirements: list[str], python_version: str, uv_name: str, folder: Path, uv: Uv) -> str:
    asked, locked = folder / "requirements.in", folder / "requirements.lock"
    asked.write_text("".join(line + "\n" for line in requirements), encoding="utf-8")
    locked.unlink(missing_ok=True)  # uv would prefer the versions of an older answer
    options = ["--generate-hashes", "--no-header", "--no-annotate", "--only-binary", ":all:", "--output-file", locked.name]
    target = ["--python-platform", uv_name, "--python-version", python_version]
    uv.run(["pip", "compile", asked.name, *options, *target], folder, platform=uv_name, python_version=python_version)
    return locked.read_text(encoding="utf-8")
