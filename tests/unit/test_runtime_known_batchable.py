"""What was measured when an image was built is not measured again, but wins over no proof."""

from __future__ import annotations

from pathlib import Path

from hedgerow.contracts.document import encode
from hedgerow.contracts.image import ScoringConfig, ServedModel
from runtime.models.onnx_model import OnnxModel
from runtime.models.warm_up import try_out
from runtime.serving_plan import plan_serving
from runtime.settings import load_runtime_settings
from tests import scoring_models


def image(root: Path, *names: str) -> Path:
    """An image of models that nobody opens."""
    digest = "sha256:" + "0" * 64
    models = [
        ServedModel(name=name, version=1, digest=digest, path=f"models/{name}", entry=f"models/{name}/model.onnx")
        for name in names
    ]
    for name in names:
        (root / "models" / name).mkdir(parents=True)
        (root / "models" / name / "model.onnx").touch()
    (root / "hedgerow.json").write_bytes(encode(ScoringConfig(models=models)))
    return root


def test_models_that_were_measured_are_named_and_others_are_measured_at_the_start(tmp_path: Path) -> None:
    root = image(tmp_path / "i", "a", "b", "c")
    plan = plan_serving(load_runtime_settings({}, {"image": str(root), "batchable": "a, c,gone"}))
    assert {model.name: model.batchable for model in plan.models} == {"a": True, "b": None, "c": True}


def test_nothing_is_known_unless_it_is_told(tmp_path: Path) -> None:
    root = image(tmp_path / "i", "a")
    for batchable in (None, "", " , "):
        plan = plan_serving(load_runtime_settings({}, {"image": str(root), "batchable": batchable}))
        assert [model.batchable for model in plan.models] == [None]


def test_a_proof_that_rows_mix_wins_over_what_was_measured() -> None:
    model = OnnxModel("m", scoring_models.across_rows())
    tried = try_out(model, True, "on")
    assert not tried.merges
    assert "takes the rows together" in tried.why_not
