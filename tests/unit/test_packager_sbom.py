"""The bill of materials: valid CycloneDX, the same for equal inputs, and right about what needs what."""

from __future__ import annotations

import importlib.metadata
import json
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.model.bom import Bom
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from hypothesis import given
from hypothesis import strategies as st

from hedgerow.contracts.environment import EnvironmentLock, LockedPackage
from hedgerow.contracts.image import ModelRef
from packager.environment.wheel_metadata import WheelMetadata, wheel_metadata
from packager.sbom import package_graph, sbom_document
from packager.settings import RUNTIME_REQUIREMENTS

DIGEST, BASE = "sha256:" + "ab" * 32, "sha256:" + "cd" * 32
VALIDATOR = JsonStrictValidator(SchemaVersion.V1_6)
MODEL = ModelRef(name="churn", version=3, digest=DIGEST)


def lock_of(
    *names: str, requirements: list[str] | None = None, platform: str = "linux/amd64", hashes: int = 1
) -> EnvironmentLock:
    accepted = [f"sha256:{number:064x}" for number in range(hashes)]
    return EnvironmentLock(
        python_version="3.11",
        platform=platform,
        requirements=list(names) if requirements is None else requirements,
        packages=[LockedPackage(name=name, version="1.0", hashes=accepted) for name in sorted(names)],
        digest=DIGEST,
    )


def said(*wheels: WheelMetadata) -> dict[str, WheelMetadata]:
    return {wheel.name: wheel for wheel in wheels}


def wheel(name: str, *requires: str, **facts: Any) -> WheelMetadata:
    return WheelMetadata(name=name, version="1.0", requires=requires, **facts)


def container(lock: EnvironmentLock | None, metadata: dict[str, WheelMetadata], *models: ModelRef) -> dict[str, Any]:
    document = sbom_document("docker", "linux/amd64", "0.1.0", lock, metadata, models, BASE)
    assert VALIDATOR.validate_str(document.decode()) is None
    loaded = json.loads(document)
    assert isinstance(loaded, dict)
    return loaded


def part(document: dict[str, Any], name: str) -> dict[str, Any]:
    (found,) = [one for one in document["components"] if one["name"] == name]
    assert isinstance(found, dict)
    return found


def needs(document: dict[str, Any]) -> dict[str, list[str]]:
    return {one["ref"]: one["dependsOn"] for one in document["dependencies"]}


def test_this_very_environment_is_read_back_by_the_reference_parser() -> None:
    site = Path(str(importlib.metadata.distribution("msgspec").locate_file("")))
    found = said(*(wheel_metadata(folder) for folder in site.glob("*.dist-info")))
    found.pop("hedgerow", None)
    packages = [LockedPackage(name=one.name, version=one.version, hashes=[DIGEST]) for one in found.values()]
    lock = EnvironmentLock(
        python_version="3.11", platform="linux/arm64", requirements=["schemathesis"], packages=packages, digest=DIGEST
    )
    document = container(lock, found, MODEL)
    bom = Bom.from_json(json.loads(json.dumps(document)))  # type: ignore[attr-defined]  # added by its serialisation decorator
    assert bom.validate()
    assert {part.name for part in bom.components} == {*found, "hedgerow", "churn", "base image"}
    assert all(one["licenses"] for one in document["components"] if one["name"] in ("numpy", "flask", "click", "msgspec"))
    assert "pkg:pypi/werkzeug" in " ".join(needs(document)[next(ref for ref in needs(document) if "pypi/flask@" in ref)])


def test_a_container_names_runtime_packages_models_and_base() -> None:
    requirements = [*RUNTIME_REQUIREMENTS, "pandas>=2"]
    document = container(lock_of("flask", "pandas", "numpy", requirements=requirements), said(wheel("flask")), MODEL)
    assert part(document, "pandas")["hashes"] == [{"alg": "SHA-256", "content": f"{0:064x}"}]
    assert part(document, "hedgerow")["purl"] == "pkg:pypi/hedgerow@0.1.0"
    assert part(document, "churn")["type"] == "machine-learning-model"
    assert part(document, "churn")["properties"] == [{"name": "hedgerow:content-digest", "value": DIGEST}]
    base = part(document, "base image")
    assert (base["type"], base["version"]) == ("container", BASE)
    assert "not opened" in base["properties"][0]["value"]
    assert document["compositions"] == [{"aggregate": "incomplete", "assemblies": ["base"]}]
    graph = needs(document)
    assert graph["hedgerow"] == ["pkg:pypi/flask@1.0", "pkg:pypi/numpy@1.0"]
    assert graph["image"] == ["base", "hedgerow", "model:churn:3", "pkg:pypi/pandas@1.0"]
    assert graph["pkg:pypi/flask@1.0"] == []
    assert "pkg:pypi/pandas@1.0" not in graph, "what it needs is not known, which is not the same as nothing"


def test_an_artifact_has_neither_runtime_nor_base() -> None:
    document = json.loads(sbom_document("onnx", "any", "0.1.0", None, {}, [MODEL], None))
    assert [one["name"] for one in document["components"]] == ["churn"]
    assert "compositions" not in document
    assert VALIDATOR.validate_str(json.dumps(document)) is None


def test_of_several_accepted_wheels_none_is_said_to_be_the_one() -> None:
    found = part(container(lock_of("numpy", hashes=3), {}), "numpy")
    assert "hashes" not in found
    assert [one["value"][-1] for one in found["properties"]] == ["0", "1", "2"]


def test_a_local_version_is_escaped() -> None:
    lock = lock_of("torch")
    local = EnvironmentLock(
        python_version="3.11",
        platform="linux/amd64",
        requirements=[],
        packages=[LockedPackage(name="torch", version="2.4.0+cpu", hashes=[])],
        digest=lock.digest,
    )
    assert part(container(local, {}), "torch")["purl"] == "pkg:pypi/torch@2.4.0%2Bcpu"


@given(st.permutations(["a", "b", "c", "d"]), st.permutations([1, 2, 3]))
def test_the_order_of_inputs_does_not_matter(names: list[str], versions: list[int]) -> None:
    models = [ModelRef(name=f"m{version}", version=version, digest=DIGEST) for version in versions]
    wheels = [wheel(name, "a", "b") for name in names]
    shuffled = sbom_document("docker", "linux/amd64", "1", lock_of(*names), said(*wheels), models, BASE)
    wheels.sort(key=lambda one: one.name)
    models.sort(key=lambda one: one.version)
    assert shuffled == sbom_document("docker", "linux/amd64", "1", lock_of("a", "b", "c", "d"), said(*wheels), models, BASE)


def test_markers_are_answered_by_the_target_and_not_by_this_machine() -> None:
    wheels = said(wheel("a", "x; platform_machine == 'aarch64'", "y; python_version < '3.11'", "z; sys_platform == 'win32'"))
    locked = ("a", "x", "y", "z")
    assert package_graph(lock_of(*locked), wheels) == {"a": set()}
    assert package_graph(lock_of(*locked, platform="linux/arm64"), wheels) == {"a": {"x"}}


def test_extras_are_followed_from_package_to_package() -> None:
    wheels = said(
        wheel("a", "b[fast]"), wheel("b", "c[more] ; extra == 'fast'", "d ; extra == 'slow'"), wheel("c", "d; extra == 'more'")
    )
    graph = package_graph(lock_of("a", "b", "c", "d", requirements=["a"]), wheels)
    assert graph == {"a": {"b"}, "b": {"c"}, "c": {"d"}}
    assert package_graph(lock_of("b", "c", "d", requirements=["b[slow]"]), wheels | {"a": wheel("a")})["b"] == {"d"}


def test_what_nobody_can_read_is_left_out() -> None:
    assert package_graph(lock_of("a", "b"), said(wheel("a", "b (>=1.0.*, nonsense", "B>=1"))) == {"a": {"b"}}


@pytest.mark.parametrize(
    ("headers", "expression", "names"),
    [
        ("License-Expression: MIT OR Apache-2.0\nLicense: x", "MIT OR Apache-2.0", ()),
        ("License: BSD-3-Clause\nClassifier: License :: OSI Approved :: BSD License", None, ("BSD-3-Clause",)),
        ("License: UNKNOWN\nClassifier: License :: OSI Approved :: MIT License", None, ("MIT License",)),
        ("License: Copyright me\n  All rights\n  and so on\nClassifier: License :: Free", None, ("Free",)),
        ("License: Copyright me\n  All rights", None, ("Copyright me",)),
        ("License-Expression: what; ever {x}", None, ("what; ever {x}",)),
        ("Summary: no licence at all", None, ()),
    ],
)
def test_licences(tmp_path: Path, headers: str, expression: str | None, names: tuple[str, ...]) -> None:
    info = tmp_path / "Some_Wheel-2.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: Some.Wheel\nVersion: 2.0\n{headers}\n\nLicense: of the text\n")
    found = wheel_metadata(info)
    assert (found.name, found.version) == ("some-wheel", "2.0")
    assert (found.license_expression, found.licenses) == (expression, names)
    container(lock_of(found.name), said(found))


def test_a_wheel_without_metadata_is_known_by_its_folder(tmp_path: Path) -> None:
    (tmp_path / "some_wheel-2.0.dist-info").mkdir()
    assert wheel_metadata(tmp_path / "some_wheel-2.0.dist-info") == WheelMetadata(name="some-wheel", version="2.0")


@given(st.binary(max_size=300))
def test_metadata_that_is_no_text_breaks_nothing(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    info = tmp_path_factory.mktemp("hostile") / "w-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_bytes(b"Name: w\nLicense: " + data + b"\nRequires-Dist: " + data)
    found = wheel_metadata(info)
    document = sbom_document("docker", "linux/amd64", "0.1.0", lock_of("w"), {"w": found}, [], BASE)
    assert part(json.loads(document), "w")["version"] == "1.0"
