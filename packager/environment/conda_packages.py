"""Conda packages of an environment become requirements that a package index of Python knows. Pure: text in, requirements out.

A conda match spec (`numpy=1.26`, `conda-forge::lightgbm`, `scikit-learn[version='>=1.2']`) says name, version and build; a
build means nothing to wheels. Shared libraries and conda's own machinery are left out with a note, because wheels bring what
they need; programs (git, ffmpeg, R) are what nothing here can supply, and are all named at once.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from packaging.requirements import InvalidRequirement, Requirement
from packaging.version import InvalidVersion, Version

from packager.environment.conda_names import (
    IN_STANDARD_LIBRARY,
    LONGER_VERSIONS,
    MACHINERY,
    ONLY_CONDA,
    RENAMED,
    is_library,
    is_only_conda,
)
from packager.environment.package_names import normal_name
from packager.errors import CondaOnly, CondaSpecRefused

# Channels whose packages have the names that the tables know. What another one calls `foo` may be something else.
_KNOWN_CHANNELS = frozenset(
    {"anaconda", "conda-forge", "defaults", "fastai", "huggingface", "intel", "main", "nvidia", "pytorch", "rapidsai"}
)
_SPEC = re.compile(r"(?:(?P<channel>[^\s:\[\]]+(?:://[^\s\[\]]+?)?)::)?(?P<name>[A-Za-z0-9_][A-Za-z0-9_.-]*)(?P<rest>.*)", re.S)
_BRACKETS = re.compile(r"\[(?P<inside>[^\]]*)\]$")
_KEY = re.compile(r"(?P<key>\w+)\s*=\s*(?P<quote>['\"]?)(?P<value>.*?)(?P=quote)\s*(?:,(?=\s*\w+\s*=)|$)")
_RELATION = re.compile(r"(?P<relation>===|==|!=|>=|<=|~=|=|>|<)?\s*(?P<version>[^\s=<>!~]+)")


@dataclass(frozen=True)
class RefusedPackage:
    """A conda package that no wheel stands for. ``debian``: the Debian package that has it, or empty."""

    name: str
    spec: str
    debian: str


@dataclass(frozen=True)
class CondaMapping:
    """``requirements`` in the order given; ``notes`` say what was left out and why, one sentence each."""

    requirements: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    refused: tuple[RefusedPackage, ...] = ()


@dataclass
class _Reading:
    requirements: list[str] = field(default_factory=list)
    libraries: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    refused: list[RefusedPackage] = field(default_factory=list)


def conda_requirements(conda_packages: Iterable[str], python_version: str) -> CondaMapping:
    """What ``conda_packages`` are on a package index. Raises CondaSpecRefused for what is no match spec.

    What cannot be had as a wheel is in ``refused``: raise :func:`conda_only` of it, unless an engine makes the image.
    """
    read = _Reading()
    for spec in conda_packages:
        _read_spec(spec.strip(), python_version, read)
    if read.libraries:
        names = ", ".join(sorted(set(read.libraries)))
        read.notes.append(f"Left out, because wheels bring the shared libraries that they need: {names}.")
    return CondaMapping(tuple(dict.fromkeys(read.requirements)), tuple(read.notes), tuple(read.refused))


def conda_only(refused: Iterable[RefusedPackage]) -> CondaOnly:
    """The error that names all of ``refused`` at once, and the Debian packages of those that have one."""
    packages = list(refused)
    debian = sorted({package.debian for package in packages if package.debian})
    own = (
        f"a base image of your own that has them (Debian: apt-get install {' '.join(debian)})"
        if debian
        else "a base image of your own"
    )
    return CondaOnly(packages=", ".join(package.spec for package in packages), base=own)


def _read_spec(spec: str, python_version: str, read: _Reading) -> None:
    match = _SPEC.fullmatch(spec)
    if match is None:
        raise CondaSpecRefused(spec=spec, problem="it is no conda package")
    name, version = normal_name(match["name"]), _version_part(match["rest"], spec)
    if name == "python":
        read.notes += _python_note(spec, version, python_version)
    elif name in MACHINERY:
        read.notes.append(f"{name} is left out: it means nothing in an image.")
    elif name in IN_STANDARD_LIBRARY:
        read.notes.append(f"{name} is left out: Python {python_version} has it.")
    elif is_only_conda(name):
        read.refused.append(RefusedPackage(name, spec, ONLY_CONDA.get(name, "")))
    elif is_library(name):
        read.libraries.append(match["name"])
    else:
        read.requirements.append(_requirement(name, version, spec))
        read.notes += _channel_note(name, match["channel"])


def _requirement(name: str, version: str, spec: str) -> str:
    wanted = RENAMED.get(name, name)
    requirement = wanted + _specifier(version, spec, as_prefix=wanted in LONGER_VERSIONS)
    try:
        Requirement(requirement)
    except InvalidRequirement as problem:
        raise CondaSpecRefused(spec=spec, problem=f"a package index has no such form ({str(problem).splitlines()[0]})") from None
    return requirement


def _version_part(rest: str, spec: str) -> str:
    """The version in what stands behind a name, in conda's words, without the build; an exact one begins with `==`."""
    rest = rest.strip()
    if brackets := _BRACKETS.search(rest):
        keys = {key["key"]: key["value"] for key in _KEY.finditer(brackets["inside"].strip())}
        rest = rest[: brackets.start()].strip()
        if "version" in keys:
            return _spaced(keys["version"].strip())
    if not rest:
        return ""
    # `name=1.2=build` and `name 1.2 build` say one exact build, so one exact version.
    if built := re.fullmatch(r"==?\s*([^=<>!~,|\s]+)=[^=,|\s]+", rest) or re.fullmatch(r"([^=<>!~,|\s]+)\s+\S+", rest):
        return _spaced(built[1])
    if re.fullmatch(r"=[<>!~=].*", rest) and not rest.startswith("=="):
        rest = rest[1:]  # `name=>=1.2`: what people write, and conda takes
    if re.search(r"[<>!~=,|]\s*$", rest):
        raise CondaSpecRefused(spec=spec, problem="its version ends in the middle")
    return _spaced(rest)


def _spaced(version: str) -> str:
    """`1.26` alone is exact where a space or a bracket stands before it; with a star it never is."""
    plain = re.fullmatch(r"[^=<>!~,|\s*]+", version)
    return f"=={version}" if plain else version


def _specifier(version: str, spec: str, *, as_prefix: bool) -> str:
    if "|" in version:
        raise CondaSpecRefused(spec=spec, problem="requirements have no 'or' between versions")
    parts = [part.strip() for part in version.split(",") if part.strip() not in ("", "*", "=*", "==*")]
    return ",".join(_relation(part, spec, as_prefix=as_prefix) for part in parts)


def _relation(part: str, spec: str, *, as_prefix: bool) -> str:
    match = _RELATION.fullmatch(part)
    if match is None:
        raise CondaSpecRefused(spec=spec, problem=f"{part!r} is no version")
    relation, star = match["relation"] or "=", match["version"].endswith("*")
    number = match["version"].rstrip("*").rstrip(".")
    try:
        known = Version(number)
    except InvalidVersion:
        raise CondaSpecRefused(spec=spec, problem=f"a package index knows no version like {number!r}") from None
    if relation in (">=", "<=", ">", "<", "~=", "==="):
        return f"{relation}{number}"
    # Only a plain release can be a prefix; of a release candidate there is but one.
    prefix = star or relation == "=" or (as_prefix and relation == "==")
    ending = ".*" if prefix and str(known) == known.base_version else ""
    return f"{'!=' if relation == '!=' else '=='}{number}{ending}"


def _python_note(spec: str, version: str, python_version: str) -> list[str]:
    asked = re.search(r"3\.\d+", version)
    if asked is None or asked.group() == ".".join(python_version.split(".")[:2]) or re.search(r"[<>!~|]", version):
        return []
    return [f"{spec} is left out: the image is built for Python {python_version}."]


def _channel_note(name: str, channel: str | None) -> list[str]:
    if channel is None or channel.rstrip("/").rsplit("/", 1)[-1].lower() in _KNOWN_CHANNELS:
        return []
    return [f"{channel}::{name} is taken from the package index, which may mean something else by {name}."]
