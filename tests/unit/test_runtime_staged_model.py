"""A model in stages behaves as one: planned from an image, run, cancelled, judged and described."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hedgerow.contracts.document import encode
from hedgerow.contracts.image import ScoringConfig, ServedModel, Stage, StageName
from runtime.errors import BadBody, ImageUnusable
from runtime.models.errors import ModelFailed, ModelUnusable, ProvidersUnusable
from runtime.models.onnx_model import ModelRun
from runtime.models.providers import CPU, Engine, Wish
from runtime.models.staged_model import StagedModel, open_model
from runtime.serving_plan import PlannedModel, PlannedStage, image_models, plan_image
from tests import mixing_models, staged_models
from tests.staged_models import Folders, by_hand, pixels

VITIS = "VitisAIExecutionProvider"
DIGEST = "sha256:" + "0" * 64


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    return staged_models.write_stages(tmp_path_factory.mktemp("stages"))


def planned(folders: Folders) -> PlannedModel:
    stages = (
        PlannedStage("pre", folders.pre / "model.onnx", (Wish(CPU),)),
        PlannedStage("accelerated", folders.accelerated / "model.onnx", (Wish(VITIS), Wish(CPU)), {"scaled": "scaled"}),
        PlannedStage("post", folders.post / "model.onnx", (Wish(CPU),), {"logits": "logits"}),
    )
    return PlannedModel("net", "3", stages[1].file, stages=stages)


def image(folder: Path, *stages: Stage) -> Path:
    """An image's folder; entries of stages that exist are empty files."""
    folder.mkdir(parents=True, exist_ok=True)
    models = [
        ServedModel(name=stage.model, version=stage.version, digest=DIGEST, path=f"models/{stage.model}", entry=stage.entry)
        for stage in stages
    ]
    (folder / "hedgerow.json").write_bytes(encode(ScoringConfig(models=models, stages=list(stages))))
    return folder


def stage(name: StageName, model: str, **facts: Any) -> Stage:
    plain: dict[str, Any] = {"version": 2, "entry": f"models/{model}/model.onnx", "providers": ["cpu"]}
    return Stage(**{**plain, "name": name, "model": model, **facts})


@pytest.mark.parametrize("arena", ["on", "exact", "shrink", "off"])
def test_stages_answer_as_their_sessions_do_by_hand(folders: Folders, arena: str) -> None:
    model = open_model(planned(folders), engine=Engine(arena=arena))  # type: ignore[arg-type]  # one of Arena's words
    images = pixels(4)
    expected = by_hand(folders, images)
    for outputs in (model.run({"pixels": images}), ModelRun(model, {"pixels": images}, None).call()):
        for name, wanted in expected.items():
            np.testing.assert_array_equal(outputs[name], wanted)
    assert list(model.run({"pixels": images}, ["scores"])) == ["scores"]
    model.example = {"pixels": images[:1]}
    model.shrink()


def test_what_it_says_of_itself_is_of_all_stages(folders: Folders) -> None:
    model = open_model(planned(folders))
    assert (model.name, model.version, model.output_names) == ("net", "3", ["label", "scores"])
    assert [spec.name for spec in model.inputs] == ["pixels"]
    assert model.provider == CPU
    assert [str(refusal).split(" (")[0][:42] for refusal in model.refusals] == ["vitisai: stage accelerated: not in this bu"]
    assert model.facts.operators is not None
    assert {"Cast", "QuantizeLinear", "ArgMax"} <= model.facts.operators
    assert model.facts.opsets[""] == staged_models.OPSET
    assert model.files == tuple(folder / "model.onnx" for folder in (folders.pre, folders.accelerated, folders.post))


def test_rows_are_kept_apart_when_every_stage_does(folders: Folders, tmp_path: Path) -> None:
    assert open_model(planned(folders)).row_verdict().state == "proven"
    mixing = PlannedStage("post", mixing_models.loud_rows_count_double(), (Wish(CPU),), {})
    alone = StagedModel("m", [mixing], version="1", threads=1, engine=Engine())
    assert alone.row_verdict().state == "mixes"
    both = StagedModel("m", [*planned(folders).stages[:1], mixing], version="1", threads=1, engine=Engine())
    assert both.row_verdict().state == "mixes"


def test_only_what_the_image_names_is_tried(folders: Folders) -> None:
    engine = Engine(providers=(Wish(VITIS, {"config_file": "/etc/vaip.json"}), Wish("CUDAExecutionProvider")))
    model = open_model(planned(folders), engine=engine)
    assert {refusal.provider for refusal in model.refusals} == {VITIS}


def test_a_stage_that_fails_is_named_once_in_the_log(folders: Folders, caplog: pytest.LogCaptureFixture) -> None:
    model = open_model(planned(folders))
    cancelled = ModelRun(model, {"pixels": pixels(1)}, None)
    cancelled.cancel()
    with caplog.at_level(logging.ERROR), pytest.raises(ModelFailed, match="net"):
        cancelled.call()
    assert [one.getMessage().partition(" failed")[0] for one in caplog.records if one.levelno == logging.ERROR] == [
        "model net/pre"
    ]


def test_a_body_that_a_stage_refuses_says_which(folders: Folders) -> None:
    model = open_model(planned(folders))
    with pytest.raises(BadBody, match="stage pre refused it") as refused:
        model.run({"pixels": np.zeros((1, 5, 8, 3), dtype=np.uint8)})
    assert "See the inputs of model net" in refused.value.advice


def test_an_image_with_stages_is_one_model_after_its_accelerated_one(tmp_path: Path) -> None:
    one = stage("pre", "scale")
    two = stage("accelerated", "net", providers=["vitisai", "cpu"], feeds={"x": "y"})
    folder = image(tmp_path / "image", one, two)
    with pytest.raises(ModelUnusable, match="there is no such file"):
        plan_image(folder)
    for entry in (one.entry, two.entry):
        (folder / entry).parent.mkdir(parents=True)
        (folder / entry).touch()
    (model,) = plan_image(folder).models
    assert (model.name, model.version, [one.name for one in model.stages]) == ("net", "2", ["pre", "accelerated"])
    assert [wish.provider for wish in model.stages[1].providers] == [VITIS, CPU]
    assert model.stages[1].feeds == {"x": "y"}
    assert image_models(folder) == [(model, folder.resolve())]


def test_images_whose_stages_make_no_sense_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageUnusable, match="0 accelerated stages"):
        plan_image(image(tmp_path / "none", stage("pre", "scale")))
    with pytest.raises(ImageUnusable, match="2 accelerated stages"):
        plan_image(image(tmp_path / "two", stage("accelerated", "a"), stage("accelerated", "b")))
    outside = image(tmp_path / "link", stage("accelerated", "net"))
    (outside / "models").symlink_to(tmp_path)
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / "model.onnx").touch()
    with pytest.raises(ImageUnusable, match="leads out of it"):
        plan_image(outside)
    unknown = image(tmp_path / "unknown", stage("accelerated", "net", providers=["magic"]))
    (unknown / "models" / "net").mkdir(parents=True)
    (unknown / "models" / "net" / "model.onnx").touch()
    with pytest.raises(ProvidersUnusable, match="no provider 'magic'"):
        plan_image(unknown)
