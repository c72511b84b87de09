"""The bill of materials of an image for one platform: CycloneDX 1.6 as canonical JSON. Values in, bytes out.

It names what the image is made of and nothing that could differ between two equal builds: no serial number, no time, no
image name or version, no name under which the base was found. So equal builds have one bill, by digest.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import msgspec

from hedgerow.contracts.environment import EnvironmentLock, LockedPackage
from hedgerow.contracts.image import ImageKind, ModelRef
from hedgerow.contracts.platforms import MACHINES
from packager.environment.package_names import normal_name
from packager.environment.wheel_metadata import WheelMetadata
from packager.settings import RUNTIME_REQUIREMENTS

if TYPE_CHECKING:
    from packaging.requirements import Requirement

_SCHEMA = "http://cyclonedx.org/schema/bom-1.6.schema.json"
_IMAGE, _BASE, _RUNTIME = "image", "base", "hedgerow"
_LICENSE = "Apache-2.0"
# Packages by the packages that they need; a package whose own words are unknown is missing.
_Graph = dict[str, set[str]]


def sbom_document(
    kind: ImageKind,
    platform: str,
    tool_version: str,
    lock: EnvironmentLock | None,
    metadata: Mapping[str, WheelMetadata],
    models: Iterable[ModelRef],
    base_digest: str | None,
) -> bytes:
    """The document. ``metadata`` is by normalised package name; what it lacks is listed without licence and needs.

    ``lock`` is None for an image without an environment of ours, ``base_digest`` (``sha256:…``) for one that is no container.
    """
    packages = lock.packages if lock else []
    needs = package_graph(lock, metadata) if lock else {}
    model_parts = sorted((_model(model) for model in models), key=_reference)
    parts = [_package(package, metadata.get(package.name)) for package in packages]
    if base_digest is not None:
        # Only a container has a base, and only a container carries its runtime with it.
        parts += [_runtime(tool_version), _base(base_digest)]
    document: dict[str, Any] = {
        "$schema": _SCHEMA,
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": _image(kind, platform, lock, base_digest), "tools": {"components": [_tool(tool_version)]}},
        "components": sorted(parts, key=_reference) + model_parts,
        "dependencies": _dependencies(packages, needs, parts + model_parts, lock),
    }
    if base_digest is not None:
        document["compositions"] = [{"aggregate": "incomplete", "assemblies": [_BASE]}]
    return msgspec.json.encode(document, order="sorted")


def package_graph(lock: EnvironmentLock, metadata: Mapping[str, WheelMetadata]) -> dict[str, set[str]]:
    """Which packages of ``lock`` each one needs, on the lock's platform and Python, with the extras that are asked for.

    A package without metadata is missing: what it needs is not known.
    """
    locked = {package.name for package in lock.packages}
    where = _environment(lock)
    extras: dict[str, set[str]] = {name: set() for name in locked}
    graph: _Graph = {name: set() for name in locked if name in metadata}
    for asked in _parsed(lock.requirements):
        extras.get(normal_name(asked.name), set()).update(asked.extras)
    waiting = sorted(graph)
    while waiting:
        name = waiting.pop()
        for needed in _parsed(metadata[name].requires):
            target = normal_name(needed.name)
            if target not in locked or not _applies(needed, where, extras[name]):
                continue
            graph[name].add(target)
            if not needed.extras <= extras[target]:
                extras[target] |= needed.extras
                waiting += [target] if target in graph else []
    return graph


# --- components ----------------------------------------------------------------------------------------------------------


def _image(kind: ImageKind, platform: str, lock: EnvironmentLock | None, base_digest: str | None) -> dict[str, Any]:
    facts = {"kind": kind, "platform": platform}
    if lock is not None:
        facts |= {"lock": lock.digest, "python": lock.python_version}
    part_type = "machine-learning-model" if base_digest is None else "container"
    return {"type": part_type, "bom-ref": _IMAGE, "name": "image", "properties": _properties(facts.items())}


def _tool(tool_version: str) -> dict[str, Any]:
    return {"type": "application", "name": "hedgerow", "version": tool_version}


def _runtime(tool_version: str) -> dict[str, Any]:
    return {
        "type": "application",
        "bom-ref": _RUNTIME,
        "name": "hedgerow",
        "version": tool_version,
        "purl": _purl("hedgerow", tool_version),
        "licenses": [{"expression": _LICENSE, "acknowledgement": "declared"}],
    }


def _package(package: LockedPackage, said: WheelMetadata | None) -> dict[str, Any]:
    purl = _purl(package.name, package.version)
    part: dict[str, Any] = {
        "type": "library",
        "bom-ref": purl,
        "name": package.name,
        "version": package.version,
        "purl": purl,
    }
    if len(package.hashes) == 1:
        part["hashes"] = [{"alg": "SHA-256", "content": package.hashes[0].removeprefix("sha256:")}]
    elif package.hashes:
        # Of several wheels of one version the lock accepts any, and an installed one no longer says which it was.
        part["properties"] = _properties(("accepted-hash", value) for value in package.hashes)
    if said is not None and (licenses := _licenses(said)):
        part["licenses"] = licenses
    return part


def _licenses(said: WheelMetadata) -> list[dict[str, Any]]:
    if said.license_expression is not None:
        return [{"expression": said.license_expression, "acknowledgement": "declared"}]
    return [{"license": {"name": name, "acknowledgement": "declared"}} for name in said.licenses]


def _model(model: ModelRef) -> dict[str, Any]:
    # The digest is over a list of files, so it is no hash of any file that a reader could compute.
    return {
        "type": "machine-learning-model",
        "bom-ref": f"model:{model.name}:{model.version}",
        "name": model.name,
        "version": str(model.version),
        "properties": _properties([("content-digest", model.digest)]),
    }


def _base(digest: str) -> dict[str, Any]:
    contents = "not opened: the packages of the operating system inside are not listed here"
    return {
        "type": "container",
        "bom-ref": _BASE,
        "name": "base image",
        "version": digest,
        "hashes": [{"alg": "SHA-256", "content": digest.removeprefix("sha256:")}],
        "properties": _properties([("contents", contents)]),
    }


def _properties(facts: Iterable[tuple[str, str]]) -> list[dict[str, str]]:
    return [{"name": f"hedgerow:{name}", "value": value} for name, value in sorted(facts)]


def _purl(name: str, version: str) -> str:
    return f"pkg:pypi/{quote(name, safe='')}@{quote(version, safe='')}"


def _reference(part: Mapping[str, Any]) -> str:
    return str(part["bom-ref"])


# --- what needs what ------------------------------------------------------------------------------------------------------


def _dependencies(
    packages: Iterable[LockedPackage], needs: _Graph, parts: list[dict[str, Any]], lock: EnvironmentLock | None
) -> list[dict[str, Any]]:
    purls = {package.name: _purl(package.name, package.version) for package in packages}
    graph = {purls[name]: {purls[needed] for needed in found} for name, found in needs.items()}
    asked = {normal_name(one.name) for one in _parsed(lock.requirements if lock else [])}
    ours = {normal_name(one.name) for one in _parsed(RUNTIME_REQUIREMENTS)}
    graph[_IMAGE] = {purls[name] for name in asked - ours if name in purls}
    for reference in map(_reference, parts):
        if reference == _RUNTIME:
            graph[reference] = {purls[name] for name in ours if name in purls}
        if reference not in purls.values():
            graph[_IMAGE].add(reference)
        if reference.startswith("model:"):
            graph[reference] = set()
    return [{"ref": reference, "dependsOn": sorted(found)} for reference, found in sorted(graph.items())]


def _parsed(lines: Iterable[str]) -> list[Requirement]:
    """Those that can be read; old wheels have some that nobody can."""
    # Loaded when it is needed: an unchanged build, which has its bill already, takes no longer for it.
    from packaging.requirements import InvalidRequirement, Requirement

    found = []
    for line in lines:
        try:
            found.append(Requirement(line))
        except InvalidRequirement:
            continue
    return found


def _applies(requirement: Requirement, where: Mapping[str, str], extras: set[str]) -> bool:
    from packaging.markers import UndefinedComparison, UndefinedEnvironmentName

    if requirement.marker is None:
        return True
    try:
        return any(requirement.marker.evaluate({**where, "extra": extra}) for extra in ("", *sorted(extras)))
    except (UndefinedComparison, UndefinedEnvironmentName):
        return True  # it is in the lock, and nobody can say that this was not why


def _environment(lock: EnvironmentLock) -> dict[str, str]:
    """Every variable that a marker may ask for: one that is missing would be answered by the machine that builds."""
    full = lock.python_version if lock.python_version.count(".") > 1 else f"{lock.python_version}.0"
    return {
        "implementation_name": "cpython",
        "implementation_version": full,
        "os_name": "posix",
        "platform_machine": MACHINES.get(lock.platform, ""),
        "platform_python_implementation": "CPython",
        "platform_release": "",
        "platform_system": "Linux",
        "platform_version": "",
        "python_full_version": full,
        "python_version": ".".join(full.split(".")[:2]),
        "sys_platform": "linux",
    }
