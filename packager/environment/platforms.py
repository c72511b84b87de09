"""Names of platforms: as uv knows them, and the one that this machine is. Others: hedgerow/contracts/platforms.py."""

from __future__ import annotations

import platform
import sys

from hedgerow.contracts.platforms import normal_platform, of_machine

# What uv has no name for; `uv_command.py` knows what to do about it.
ARMV7 = "armv7l-manylinux_2_31"
# glibc 2.28 and newer: Debian 10+, Ubuntu 18.10+, RHEL 8+.
_UV_PLATFORMS = {
    "linux/amd64": "x86_64-manylinux_2_28",
    "linux/arm64": "aarch64-manylinux_2_28",
    "linux/arm/v7": ARMV7,
}


def this_platform() -> str | None:
    """What this machine runs without emulation; None where nothing is built for its kind."""
    return of_machine(platform.machine()) if sys.platform == "linux" else None


def uv_platform(name: str) -> str:
    """uv's name of a platform. Raises UnsupportedPlatform."""
    return _UV_PLATFORMS[normal_platform(name)]
