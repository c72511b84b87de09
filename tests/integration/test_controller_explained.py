"""What a build through the control plane leaves beside its image, asked for by a client."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.controller_process import Plane, add_model, ended, plane


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plane]:
    with plane(tmp_path_factory.mktemp("explained")) as started:
        yield started


def test_a_built_image_is_explained_and_has_its_bill(made: Plane, tmp_path: Path) -> None:
    client = made.client
    for version, factor in ((1, 2.0), (2, 3.0)):
        model = add_model(client, tmp_path / f"m{version}", name="scaler", factor=factor)
        built = ended(client, client.images.build("scaler-image", [model], verify=False).id)
        assert built.state == "succeeded", built.problem
    found = client.images.explain("scaler-image")
    assert (found.image, found.against, found.kind) == ("scaler-image:2", "scaler-image:1", "onnx")
    model_layer = found.platforms[0].layers[0]
    assert (model_layer.purpose, model_layer.was, model_layer.state) == ("model scaler:2", "model scaler:1", "rebuilt")
    assert "changed" in {file.state for file in model_layer.files}
    assert client.images.report("scaler-image:2").platforms[0].manifest == client.images.get("scaler-image:2").digest
    bill = json.loads(client.images.sbom("scaler-image:2"))
    assert [(part["name"], part["version"]) for part in bill["components"]] == [("scaler", "2")]
