"""Names of the platforms that docker images are built for: as people and Docker write them, and the one name of each. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from hedgerow.errors import UserError

PLATFORMS = ("linux/amd64", "linux/arm64", "linux/arm/v7")
# `platform.machine()` as Python there says it.
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


class UnsupportedPlatform(UserError):
    """A platform that no image is built for."""

    key = "unsupported_platform"
    message = "There is no way to build for platform {platform!r}"
    remedy = "Use one of: {supported}."


class PlatformRepeated(UserError):
    """One platform by two names, or twice by one."""

    key = "platform_repeated"
    message = "Platform {platform} was named twice ({names})"
    remedy = "Name each platform once."


def of_machine(machine: str) -> str | None:
    """The platform of a Linux machine that calls itself so; None where nothing is built for its kind."""
    return next((name for name, known in MACHINES.items() if known == machine), None)


def normal_platform(name: str) -> str:
    """The one name of a platform that has several: `linux/arm64` of `linux/arm64/v8`. Raises UnsupportedPlatform."""
    lower = name.strip().lower()
    normal = _SAME.get(lower, lower)
    if normal not in PLATFORMS:
        raise UnsupportedPlatform(platform=name[:80], supported=", ".join(PLATFORMS))
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
