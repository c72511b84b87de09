"""What was asked for (requirements, Python, platform) becomes an EnvironmentLock: exact versions with hashes.

A lock is made once for what was asked and then kept in the cache, so that the same request gives the same image on any
later day, and an unchanged build needs no network.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from hedgerow.contracts.document import digest_of
from hedgerow.contracts.environment import EnvironmentLock, LockedPackage
from packager.cache.layers import LayerCache, cache_key
from packager.environment.package_names import NAME, normal_name
from packager.environment.platforms import uv_platform
from packager.environment.uv_command import Uv
from packager.errors import EnvironmentUnsolvable, RequirementRefused
from packager.oci.blobs import disk_error

_LOCK_GENERATION = 1
_PINNED = re.compile(r"^(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)==(?P<version>[^\s;\\]+)", re.M)
_HASH = re.compile(r"--hash=(sha256:[0-9a-f]{64})")
# A name, or a name with plain versions: `numpy`, `numpy>=1.26,<3`.
_PLAIN_VERSION = r"(==|>=|<=|!=|~=|<|>)\s*\d+(\.\d+)*"
_USUAL = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._-]*[A-Za-z0-9](\s*{_PLAIN_VERSION}(,\s*{_PLAIN_VERSION})*)?")
_NAME = re.compile(rf"^{NAME}(?=$|[\s\[<>=!~;(])")


def lock_environment(
    requirements: list[str],
    python_version: str,
    platform: str,
    cache: LayerCache,
    uv: Uv,
    *,
    made: Sequence[str] = (),
    renew: bool = False,
) -> EnvironmentLock:
    """The lock of ``requirements``, from the cache or (also with ``renew``) made now.

    ``made``: digests of wheels that ``uv`` sees beside the index.
    Raises RequirementRefused, UnsupportedPlatform, EnvironmentUnsolvable, IndexUnreachable, DiskFull.
    """
    wanted = tidy_requirements(requirements)
    key = lock_key(wanted, python_version, platform, made)
    known = None if renew else cache.find("lock", key, EnvironmentLock)
    if known is not None:
        return known
    folder = cache.scratch / f"locking-{key[-12:]}"  # other platforms are locked at the same time
    try:
        folder.mkdir(exist_ok=True)
        text = _Compiling(python_version, platform, folder, uv).lock(wanted)
    except OSError as problem:
        raise disk_error(problem, cache.scratch) from problem
    lock = make_lock(wanted, python_version, platform, text)
    cache.keep("lock", key, lock)
    return lock


def lock_key(wanted: list[str], python_version: str, platform: str, made: Sequence[str] = ()) -> str:
    """The name of the lock's record in the cache. Raises UnsupportedPlatform."""
    # What no index has may be locked for those only who have it.
    own = [sorted(made)] if made else []
    return cache_key("lock", _LOCK_GENERATION, wanted, python_version, uv_platform(platform), *own)


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
        if name is None or "://" in requirement or "@" in requirement or "\n" in requirement or not _is_readable(requirement):
            raise RequirementRefused(requirement=line)
        if normal_name(name.group()) != "hedgerow":
            kept.add(requirement)
    return sorted(kept)


def _is_readable(requirement: str) -> bool:
    if _USUAL.fullmatch(requirement):
        return True
    # Its parser is a tenth of the time that an unchanged build takes, so it is loaded for the unusual only.
    from packaging.requirements import InvalidRequirement, Requirement

    try:
        Requirement(requirement.partition(" --hash=")[0].strip())
    except InvalidRequirement:
        return False
    return True


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


@dataclass(frozen=True)
class _Compiling:
    """`uv pip compile` for one Python and platform, in a folder of its own."""

    python_version: str
    platform: str
    folder: Path
    uv: Uv

    def lock(self, requirements: list[str]) -> str:
        """The lock as uv writes it. Raises EnvironmentUnsolvable with the versions that would do, IndexUnreachable, OSError."""
        try:
            return self.compile_pins(requirements, ["--generate-hashes"])
        except EnvironmentUnsolvable as problem:
            from packager.environment.nearest_versions import with_what_fits

            raise with_what_fits(problem, requirements, self._fitting) from None

    def _fitting(self, requirement: str, *, oldest: bool = False, python_version: str | None = None) -> str | None:
        """See :class:`packager.environment.nearest_versions.Ask`."""
        resolution = ["--resolution", "lowest"] if oldest else []
        asking = replace(self, python_version=python_version or self.python_version)
        try:
            found = _PINNED.search(asking.compile_pins([requirement], ["--no-deps", *resolution]))
        except EnvironmentUnsolvable:
            return None
        return found["version"] if found else None

    def compile_pins(self, requirements: list[str], options: list[str]) -> str:
        """`NAME==VERSION` lines as uv writes them. Raises EnvironmentUnsolvable, IndexUnreachable, OSError."""
        asked, locked = self.folder / "requirements.in", self.folder / "requirements.lock"
        asked.write_text("".join(line + "\n" for line in requirements), encoding="utf-8")
        locked.unlink(missing_ok=True)  # uv would prefer the versions of an older answer
        usual = ["--no-header", "--no-annotate", "--only-binary", ":all:", "--output-file", locked.name]
        target = ["--python-platform", uv_platform(self.platform), "--python-version", self.python_version]
        arguments = ["pip", "compile", asked.name, *options, *usual, *target]
        self.uv.run(arguments, self.folder, platform=self.platform, python_version=self.python_version)
        return locked.read_text(encoding="utf-8")
