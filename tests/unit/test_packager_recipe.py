"""Plans: what goes into which layer, and what is refused before a byte is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hedgerow.contracts.build import BuildModel, BuildRequest
from hedgerow.contracts.document import decode
from hedgerow.contracts.image import ModelRef, ScoringConfig
from hedgerow.contracts.names import MEDIA_MODEL_WEIGHT_TAR, MEDIA_OCI_LAYER_GZIP, MEDIA_OCI_LAYER_TAR, MEDIA_SCORING_CONFIG
from hedgerow.contracts.oci import ImageConfig, Platform, RootFs
from hedgerow.errors import HedgerowError
from packager.bases.fetch import NO_PYTHON, UNKNOWN_PYTHON, BaseImage
from packager.errors import (
    BasePlatform,
    BasePython,
    DuplicateModel,
    NoOnnxFile,
    NothingToPack,
    OnnxImageTakesModelsOnly,
    PythonUnsupported,
    SeveralOnnxFiles,
)
from packager.oci.tar_layer import DataEntry
from packager.recipe import (
    ModelFacts,
    SourceFacts,
    check_base,
    check_request,
    docker_layers,
    image_python,
    onnx_entry,
    onnx_layers,
    scoring_config,
)
from packager.runtime_code import Code
from packager.source_files import FoundFile

DIGEST = "sha256:" + "0" * 64


def model(name: str = "m", version: int = 1) -> BuildModel:
    return BuildModel(ref=ModelRef(name=name, version=version, digest=DIGEST), folder="/models/" + name)


def facts(*files: str, name: str = "m", version: int = 1) -> ModelFacts:
    return ModelFacts(model(name, version), tuple(FoundFile(path, Path("/f") / path, 1) for path in files))


def source(*files: str) -> SourceFacts:
    return SourceFacts(files[0], tuple(FoundFile(path, Path("/s") / path, 1) for path in files), DIGEST)


def request(**changes: Any) -> BuildRequest:
    plain = {"name": "i", "version": 1, "kind": "onnx", "models": [model()], "out": "/o", "cache": "/c"}
    return BuildRequest(**{**plain, **changes})


def base(python: str = "Python 3.11", architecture: str = "amd64") -> BaseImage:
    return BaseImage(DIGEST, ImageConfig(architecture=architecture, os="linux", rootfs=RootFs(diff_ids=[])), (), python)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"kind": "fpga", "models": []}, NothingToPack),
        ({"kind": "fpga", "base": "docker:x"}, OnnxImageTakesModelsOnly),
        ({"models": []}, NothingToPack),
        ({"models": [], "script": "/s/score.py"}, NothingToPack),
        ({"kind": "docker", "models": []}, NothingToPack),
        ({"script": "/s/score.py"}, OnnxImageTakesModelsOnly),
        ({"requirements": ["numpy"]}, OnnxImageTakesModelsOnly),
        ({"base": "docker:x"}, OnnxImageTakesModelsOnly),
        ({"models": [model(), model()]}, DuplicateModel),
    ],
)
def test_what_cannot_be_built_is_refused(changes: dict[str, Any], error: type[HedgerowError]) -> None:
    with pytest.raises(error):
        check_request(request(**changes))


@pytest.mark.parametrize(
    "changes", [{}, {"models": [model(), model(version=2)]}, {"kind": "docker", "models": [], "script": "/s.py"}]
)
def test_what_can_be_built_is_let_through(changes: dict[str, Any]) -> None:
    check_request(request(**changes))


def test_the_only_onnx_file_is_the_entry_and_model_onnx_wins() -> None:
    assert onnx_entry(facts("a/b.onnx", "labels.txt")) == "a/b.onnx"
    assert onnx_entry(facts("model.onnx", "other.onnx")) == "model.onnx"


def test_no_entry_and_unclear_entry_are_refused() -> None:
    with pytest.raises(NoOnnxFile, match="m:1"):
        onnx_entry(facts("model.pkl"))
    with pytest.raises(SeveralOnnxFiles, match=r"a\.onnx, b\.onnx"):
        onnx_entry(facts("a.onnx", "b.onnx"))


def test_scoring_config_counts_paths_from_the_root_of_the_image() -> None:
    config = scoring_config([facts("model.onnx", name="b"), facts("net.onnx", name="a")], None, {"K": "v"})
    assert [(served.path, served.entry) for served in config.models] == [
        ("models/a/1", "models/a/1/net.onnx"),
        ("models/b/1", "models/b/1/model.onnx"),
    ]
    assert (config.script, config.source, config.variables) == (None, None, {"K": "v"})


def test_with_a_script_the_script_opens_the_models() -> None:
    config = scoring_config([facts("model.pkl")], source("sub/score.py"), {})
    assert config.models[0].entry is None
    assert (config.script, config.source) == ("source/sub/score.py", "source")


def test_what_is_measured_stays_out_of_the_image() -> None:
    assert not any(served.batchable for served in scoring_config([facts("model.onnx")], None, {}).models)


def test_onnx_artifact_has_a_layer_for_each_model_and_one_for_the_configuration() -> None:
    models = (facts("model.onnx", name="b"), facts("model.onnx", name="a"))
    layers = onnx_layers(models, scoring_config(models, None, {}))
    assert [(layer.purpose, layer.media_type) for layer in layers] == [
        ("model a:1", MEDIA_MODEL_WEIGHT_TAR),
        ("model b:1", MEDIA_MODEL_WEIGHT_TAR),
        ("scoring configuration", MEDIA_SCORING_CONFIG),
    ]
    assert [entry.path for entry in layers[0].entries] == ["models/a/1/model.onnx"]
    (config,) = layers[2].entries
    assert isinstance(config, DataEntry)
    assert decode(config.data, ScoringConfig) == scoring_config(models, None, {})


def test_docker_image_stands_below_opt_hedgerow() -> None:
    models, script = (facts("model.pkl"),), source("score.py", "lib/a.py")
    code = Code("hedgerow 9", "opt/hedgerow-site", DIGEST, (DataEntry("opt/hedgerow-site/x", b""),))
    layers = docker_layers(models, script, scoring_config(models, script, {}), code, MEDIA_OCI_LAYER_GZIP)
    assert [(layer.purpose, layer.media_type) for layer in layers] == [
        ("hedgerow runtime", MEDIA_OCI_LAYER_GZIP),
        ("model m:1", MEDIA_OCI_LAYER_TAR),
        ("script", MEDIA_OCI_LAYER_GZIP),
        ("scoring configuration", MEDIA_OCI_LAYER_GZIP),
    ]
    assert [entry.path for layer in layers[2:] for entry in layer.entries] == [
        "opt/hedgerow/source/score.py",
        "opt/hedgerow/source/lib/a.py",
        "opt/hedgerow/hedgerow.json",
    ]


def test_a_base_of_another_platform_is_refused() -> None:
    with pytest.raises(BasePlatform, match="for linux/arm64, the image is built for linux/amd64"):
        check_base(base(architecture="arm64"), "docker:b", Platform.parse("linux/amd64"), "3.11")


@pytest.mark.parametrize("python", ["Python 3.12", NO_PYTHON])
def test_a_base_with_the_wrong_python_is_refused(python: str) -> None:
    with pytest.raises(BasePython, match=r"Python 3\.11 was asked for"):
        check_base(base(python), "docker:b", Platform.parse("linux/amd64"), "3.11")


def test_a_base_whose_python_cannot_be_told_is_left_to_the_test_of_the_image() -> None:
    check_base(base(UNKNOWN_PYTHON), "docker:b", Platform.parse("linux/amd64"), "3.11")


def test_the_base_decides_the_patch_version_of_python() -> None:
    assert [image_python(asked) for asked in ("3.11", "3.11.9", "3.13.0")] == ["3.11", "3.11", "3.13"]


@pytest.mark.parametrize("asked", ["3.10", "3.8.10", "2.7", "3", "4.11", "abc", "3.11.x", ""])
def test_a_python_on_which_the_scoring_server_does_not_run(asked: str) -> None:
    with pytest.raises(PythonUnsupported, match=r"runs on Python 3\.11 and newer") as refused:
        image_python(asked)
    assert "--python 3.11" in refused.value.advice
