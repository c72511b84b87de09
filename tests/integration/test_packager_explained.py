"""The reports that real builds leave beside their images, compared: what was made anew, and because of what."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from hedgerow.contracts.build import BuildModel, BuildResult
from hedgerow.contracts.build_report import BuildReport
from hedgerow.contracts.document import decode
from hedgerow.contracts.image import Referrer
from hedgerow.contracts.names import ARTIFACT_BUILD_REPORT, ARTIFACT_SBOM
from hedgerow.sdk.explain import Explanation, explain
from tests.packager_builders import (
    blob_path,
    model_of,
    read_json_blob,
    request_for,
    run_packager,
    write_base_archive,
    write_onnx_model,
    write_runtime_wheels,
    write_wheel,
)


class Factory:
    """Builds docker images one after another, with one cache."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._environment = write_runtime_wheels(folder / "wheels")
        self._base = write_base_archive(folder / "base.tar")
        self._count = 0

    def add_wheel(self, name: str, version: str) -> None:
        write_wheel(self._folder / "wheels", name, version)

    def report(self, model: BuildModel, *requirements: str) -> BuildReport:
        """Build, and read what was left beside the image."""
        layout, result = self.build(model, requirements=list(requirements))
        (beside,) = of_type(result, ARTIFACT_BUILD_REPORT)
        assert beside.subject == result.digest
        return decode(content_of(layout, beside), BuildReport)

    def build(self, model: BuildModel, **changes: Any) -> tuple[Path, BuildResult]:
        """The layout and the result."""
        self._count += 1
        folder = self._folder / f"build-{self._count}"
        wanted = {"base": f"docker-archive:{self._base}", "cache": str(self._folder / "cache"), "version": self._count}
        built = run_packager(request := request_for("docker", [model], folder, **wanted, **changes), folder, self._environment)
        assert built.exit_code == 0, built.stderr
        listed = {one["digest"] for one in json.loads((Path(request.out) / "index.json").read_bytes())["manifests"]}
        assert {one.digest for one in built.result.referrers} < listed, "any OCI tool finds them in the layout"
        return Path(request.out), built.result


def of_type(result: BuildResult, artifact_type: str) -> list[Referrer]:
    return [one for one in result.referrers if one.artifact_type == artifact_type]


def content_of(layout: Path, beside: Referrer) -> bytes:
    (content,) = read_json_blob(layout, beside.digest)["layers"]
    return blob_path(layout, content["digest"]).read_bytes()


@pytest.fixture
def factory(tmp_path: Path) -> Factory:
    return Factory(tmp_path)


def states(found: Explanation) -> dict[str, str]:
    return {layer.purpose: layer.state for layer in found.platforms[0].layers}


def test_another_model_rewrites_its_layer_and_what_names_it(factory: Factory, tmp_path: Path) -> None:
    old = factory.report(model_of(write_onnx_model(tmp_path / "m1"), version=1))
    new = factory.report(model_of(write_onnx_model(tmp_path / "m2", add=2.0), version=2))
    found = explain(new, old)
    anew = {purpose for purpose, state in states(found).items() if state != "same"}
    assert anew == {"model adder:2", "scoring configuration"}
    model = next(layer for layer in found.platforms[0].layers if layer.purpose == "model adder:2")
    assert model.was == "model adder:1"
    assert any("adder" in change.name or "adder" in str(change.now) for change in model.because)
    assert {file.path.rpartition("/")[2]: file.state for file in model.files}["model.onnx"] == "changed"
    assert any(change.name == "model adder" for change in found.inputs)
    assert 0 < found.fetch_bytes < 20_000 < found.shared_bytes


def test_another_wheel_is_named_with_both_versions(factory: Factory, tmp_path: Path) -> None:
    model = model_of(write_onnx_model(tmp_path / "m"))
    for version in ("1.0", "1.1"):
        factory.add_wheel("quill", version)
    old, new = factory.report(model, "quill==1.0"), factory.report(model, "quill==1.1")
    found = explain(new, old)
    assert [purpose for purpose, state in states(found).items() if state != "same"] == ["8 small wheels"]
    wheels = next(layer for layer in found.platforms[0].layers if layer.purpose == "8 small wheels")
    assert [(change.name, change.before, change.now) for change in wheels.because] == [("quill", "1.0", "1.1")]
    assert all(file.origin.startswith("quill ") for file in wheels.files if file.state != "same")


def test_the_same_again_is_the_same(factory: Factory, tmp_path: Path) -> None:
    model = model_of(write_onnx_model(tmp_path / "m"))
    found = explain(factory.report(model), factory.report(model))
    assert (found.identical, found.fetch_bytes, set(states(found).values())) == (True, 0, {"same"})


def test_every_build_has_its_bill_and_equal_builds_an_equal_one(factory: Factory, tmp_path: Path) -> None:
    factory.add_wheel("quill", "1.0")
    model = model_of(write_onnx_model(tmp_path / "m"))
    (first, made), (again, repeated) = (factory.build(model, requirements=["quill"], rebuild=True) for _ in range(2))
    (bill,), same = of_type(made, ARTIFACT_SBOM), of_type(repeated, ARTIFACT_SBOM)
    assert (bill.subject, [bill]) == (made.platforms[0].digest, same)
    document = content_of(first, bill)
    assert document == content_of(again, bill)
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(document.decode()) is None
    parts = {part["name"]: part for part in json.loads(document)["components"]}
    assert {"quill", "numpy", "hedgerow", "adder", "base image"} <= parts.keys()
    wheel = (tmp_path / "wheels" / "quill-1.0-py3-none-any.whl").read_bytes()
    assert parts["quill"]["hashes"] == [{"alg": "SHA-256", "content": hashlib.sha256(wheel).hexdigest()}]
    for word in (str(tmp_path), "build-1", "docker-archive"):
        assert word not in document.decode(), "nothing of the machine, the image or how the base was found"


def test_an_artifacts_bill_names_its_model(tmp_path: Path) -> None:
    model = model_of(write_onnx_model(tmp_path / "m"))
    built = run_packager(request_for("onnx", [model], tmp_path / "b"), tmp_path / "b")
    (bill,) = of_type(built.result, ARTIFACT_SBOM)
    (part,) = json.loads(content_of(tmp_path / "b" / "out", bill))["components"]
    assert (part["type"], part["name"]) == ("machine-learning-model", "adder")
