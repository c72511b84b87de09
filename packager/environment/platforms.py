"""Names of platforms: as people and Docker write them, as uv knows them, and the one that this machine is."""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterable

from packager.errors import PlatformRepeated, UnsupportedPlatform

# What uv has no name for; `uv_command.py` knows what to do about it.
ARMV7 = "armv7l-manylinux_2_31"
# glibc 2.28 and newer: Debian 10+, Ubuntu 18.10+, RHEL 8+.
_UV_PLATFORMS = {
    "linux/amd64": "x86_64-manylinux_2_28",
    "linux/arm64": "aarch64-manylinux_2_28",
    "linux/arm/v7": ARMV7,
}
# `platform_machine` as Python there says it.
MACHINES = {"linux/amd64": "x86_64", "linux/arm64": "aarch64", "linux/arm/v7": "armv7l"}
_SAME = {
    "linux/x86_64": "linux/amd64",
    "linux/x86-64": "linux/amd64",
    "linux/amd64/v1": "linux/amd64",
    "linux/aarch64": "linux/arm64",
    "linux/arm64/v8": "linux/arm64",
    "linux/arm": "linux/arm/v7",
    "linux/armhf": "linux/arm/v7",
    "linux/armv7": "linux/arm/v7",
    "linux/armv7l": "linux/arm/v7",
}


def normal_platform(name: str) -> str:
    """The one name of a platform that has several: `linux/arm64` of `linux/arm64/v8`. Raises UnsupportedPlatform."""
    lower = name.strip().lower()
    normal = _SAME.get(lower, lower)
    if normal not in _UV_PLATFORMS:
        raise UnsupportedPlatform(platform=name, supported=", ".join(_UV_PLATFORMS))
    return normal


def normal_platforms(names: Iterable[str]) -> list[str]:
    """The platforms in the order given, by their one name. Raises UnsupportedPlatform, PlatformRepeated."""
    found: dict[str, str] = {}
    for name in names:
        normal = normal_platform(name)
        if normal in found:
            both = " and ".join(dict.fromkeys((found[normal], name)))
            raise PlatformRepeated(platform=normal, names=both)
        found[normal] = name
    return list(found)


def this_platform() -> str | None:
    """What this machine runs without emulation; None where nothing is built for its kind."""
    of_machines = {machine: name for name, machine in MACHINES.items()}
    return of_machines.get(platform.machine()) if sys.platform == "linux" else None


def uv_platform(name: str) -> str:
    """uv's name of a platform. Raises UnsupportedPlatform."""
    return _UV_PLATFORMS[normal_platform(name)]
