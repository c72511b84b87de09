"""Config documents: inherited from the base where that is meant, ours where it matters, the same on any day."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hedgerow.contracts.build import BuildModel
from hedgerow.contracts.image import ModelRef
from hedgerow.contracts.oci import History, ImageConfig, Platform, RootFs
from packager.image_config import container_config, model_config
from packager.oci.documents import CREATED
from packager.oci.tar_layer import StoredLayer
from packager.recipe import ModelFacts
from packager.source_files import FoundFile

BASE_LAYER, OUR_LAYER = "sha256:" + "b" * 64, "sha256:" + "a" * 64
LAYERS = [StoredLayer("small wheels", "application/vnd.oci.image.layer.v1.tar+gzip", "sha256:" + "c" * 64, OUR_LAYER, 5)]


def facts(name: str, version: int = 1) -> ModelFacts:
    ref = ModelRef(name=name, version=version, digest="sha256:" + "0" * 64)
    return ModelFacts(BuildModel(ref=ref, folder="/m"), (FoundFile("model.onnx", Path("/m/model.onnx"), 1),))


def base(**changes: Any) -> ImageConfig:
    config = {"Env": ["PATH=/base/bin", "PYTHONPATH=/base"], "Cmd": ["bash"], "Labels": {"from": "base"}, "OnBuild": ["RUN x"]}
    plain: dict[str, Any] = {"architecture": "arm64", "os": "linux", "variant": "v8", "config": config}
    return ImageConfig(**{**plain, "rootfs": RootFs(diff_ids=[BASE_LAYER]), **changes})


def made(of: ImageConfig) -> dict[str, Any]:
    document = json.loads(container_config(of, "sha256:" + "d" * 64, LAYERS, [facts("m", 3)], "1.2"))
    assert isinstance(document, dict)
    return document


def test_platform_and_layers_of_the_base_come_first() -> None:
    document = made(base())
    assert (document["architecture"], document["os"], document["variant"]) == ("arm64", "linux", "v8")
    assert document["rootfs"] == {"type": "layers", "diff_ids": [BASE_LAYER, OUR_LAYER]}


def test_program_user_and_path_are_ours() -> None:
    run = made(base())["config"]
    assert run["Entrypoint"][:4] == ["python3", "-P", "-m", "runtime"]
    assert run["Entrypoint"][4:] == ["--image", "/opt/hedgerow", "--host", "0.0.0.0", "--port", "5001"]
    assert run["User"] == "65534:65534"
    assert run["ExposedPorts"] == {"5001/tcp": {}}
    assert "Cmd" not in run
    assert "OnBuild" not in run
    assert run["Env"].count("PYTHONPATH=/opt/hedgerow-site") == 1
    assert "PATH=/base/bin" in run["Env"]
    assert "ORT_DISABLE_TELEMETRY=1" in run["Env"]
    assert "PYTHONPATH=/base" not in run["Env"]


def test_labels_keep_those_of_the_base() -> None:
    labels = made(base())["config"]["Labels"]
    assert labels["from"] == "base"
    assert labels["hedgerow.models"] == "m:3"
    assert labels["hedgerow.image.kind"] == "docker"


def test_what_predefined_labels_say_of_the_base_is_not_said_of_the_image() -> None:
    of_base = {"org.opencontainers.image.title": "python", "org.opencontainers.image.source": "https://example.com", "team": "ml"}
    labels = made(base(config={"Labels": of_base}))["config"]["Labels"]
    assert labels["team"] == "ml"
    assert [name for name in labels if name.startswith("org.opencontainers.")] == ["org.opencontainers.image.base.digest"]


def test_history_has_a_line_for_each_layer_even_when_the_base_has_none() -> None:
    for history in (None, [], [History(created_by="x", empty_layer=True)]):
        lines = made(base(history=history))["history"]
        assert [line["created_by"] for line in lines if not line.get("empty_layer")] == ["base image", "hedgerow: small wheels"]


def test_history_of_the_base_is_kept_when_it_fits() -> None:
    kept = [History(created="2024-01-01T00:00:00Z", created_by="debootstrap"), History(created_by="CMD", empty_layer=True)]
    assert [line["created_by"] for line in made(base(history=kept))["history"]] == [
        "debootstrap",
        "CMD",
        "hedgerow: small wheels",
    ]


def test_a_base_without_run_configuration_gets_a_path() -> None:
    assert any(line.startswith("PATH=") for line in made(base(config=None))["config"]["Env"])


def test_nothing_tells_the_day() -> None:
    assert made(base())["created"] == CREATED


def test_model_config_is_a_modelpack_document() -> None:
    document = json.loads(model_config([facts("b", 2), facts("c")], LAYERS))
    assert document == {
        "config": {"format": "onnx"},
        "descriptor": {"createdAt": CREATED, "description": "also holds c:1", "name": "b", "version": "2"},
        "modelfs": {"diffIds": [OUR_LAYER], "type": "layers"},
    }


def test_platforms_suit_each_other_with_and_without_variant() -> None:
    arm = Platform.parse("linux/arm64")
    assert Platform.parse("linux/arm64/v8").suits(arm)
    assert arm.suits(Platform.parse("linux/arm64/v8"))
    assert not arm.suits(Platform.parse("linux/amd64"))
    assert not Platform.parse("linux/arm/v6").suits(Platform.parse("linux/arm/v7"))
    assert str(Platform.parse("linux/arm/v7")) == "linux/arm/v7"
