"""Settings and the plan made from them: one source, ranges, names, paths that stay inside."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hedgerow.contracts.document import encode
from hedgerow.contracts.image import ScoringConfig, ServedModel
from hedgerow.errors import InvalidName, InvalidSetting, UnknownSetting
from runtime.errors import ImageUnusable, NothingToServe, ScriptUnusable, TooMuchToServe
from runtime.models.errors import ModelUnusable
from runtime.serving_plan import name_from, plan_image, plan_model, plan_script
from runtime.settings import load_runtime_settings, without_effect


def test_azmlinfsrv_names_in_the_environment_are_understood() -> None:
    environment = {
        "AZUREML_ENTRY_SCRIPT": "score.py",
        "AZUREML_MODEL_DIR": "/m",
        "WORKER_COUNT": "3",
        "SCORING_TIMEOUT_MS": "250",
    }
    settings = load_runtime_settings(environment, {})
    assert (settings.script, settings.model_dir, settings.workers, settings.timeout_ms) == (Path("score.py"), Path("/m"), 3, 250)


def test_a_source_on_the_command_line_replaces_the_one_in_the_environment() -> None:
    settings = load_runtime_settings({"AZUREML_ENTRY_SCRIPT": "score.py"}, {"model": "m.onnx"})
    assert (settings.model, settings.script) == (Path("m.onnx"), None)


def test_exactly_one_source() -> None:
    with pytest.raises(NothingToServe):
        load_runtime_settings({}, {})
    with pytest.raises(TooMuchToServe, match="--image and --script"):
        load_runtime_settings({}, {"image": "i", "script": "s"})


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("port", "70000", "between 0 and 65535"),
        ("port", "many", "port cannot be 'many'"),
        ("workers", "0", "between 1 and 512"),
        ("log_level", "loud", "use one of debug"),
        ("log_format", "xml", "use one of text, json"),
        ("timeout_ms", "0", "between 1"),
    ],
)
def test_values_out_of_range_are_refused_with_the_range(name: str, value: str, says: str) -> None:
    with pytest.raises(InvalidSetting, match=says):
        load_runtime_settings({}, {"model": "m.onnx", name: value})


def test_an_empty_name_is_refused_where_it_is_an_option() -> None:
    with pytest.raises(InvalidSetting) as refused:
        load_runtime_settings({}, {"model": "m.onnx", "name": ""})
    wanted = "Setting name cannot be '': a model's name cannot be empty. Correct --name, or leave it out."
    assert refused.value.sentence() == wanted
    assert load_runtime_settings({"HEDGEROW_MODEL_NAME": ""}, {"model": "m.onnx"}).name is None


def test_unknown_settings_get_a_suggestion() -> None:
    with pytest.raises(UnknownSetting) as refused:
        load_runtime_settings({}, {"model": "m.onnx", "worker": "2"})
    assert "workers" in refused.value.advice


@pytest.mark.parametrize(
    ("file", "name"),
    [("My Model (v2).onnx", "my-model-v2"), ("___.onnx", "model"), ("größe.onnx", "gr-e"), ("a.b_c.onnx", "a.b_c")],
)
def test_a_file_name_becomes_a_name(file: str, name: str) -> None:
    assert name_from(Path(file)) == name


def test_what_was_asked_for_in_vain_is_said() -> None:
    def idle(**flags: str) -> list[str]:
        return without_effect(load_runtime_settings({}, flags))

    assert idle(model="m.onnx", name="m") == []
    assert idle(model="m.onnx", load_models="a", model_control="explicit") == [
        "--model-control has no effect without --model-repository",
        "--load-models has no effect without --model-repository",
    ]
    assert idle(model_repository="models", load_models="a", model_control="explicit") == []
    assert idle(script="score.py", name="m") == ["--name has no effect without --model"]
    assert idle(image="image") == []


def test_plain_sources_are_checked(tmp_path: Path) -> None:
    with pytest.raises(ModelUnusable, match="there is no such file"):
        plan_model(tmp_path / "none.onnx", None)
    with pytest.raises(ModelUnusable, match="that is a folder, not a file"):
        plan_model(tmp_path, "a")
    with pytest.raises(InvalidName):
        plan_model(tmp_path / "none.onnx", "Not A Name")
    with pytest.raises(ScriptUnusable, match="there is no such file"):
        plan_script(tmp_path / "score.py", None)
    (tmp_path / "score.py").touch()
    with pytest.raises(InvalidSetting, match=r"model_dir cannot be '.*none': there is no such folder"):
        plan_script(tmp_path / "score.py", tmp_path / "none")
    with pytest.raises(InvalidSetting, match=r"app_root cannot be '.*none': there is no such folder"):
        plan_script(tmp_path / "score.py", None, tmp_path / "none")
    plan = plan_script(tmp_path / "score.py", tmp_path)
    assert plan.script is not None
    assert (plan.script.source, plan.model_dir) == (tmp_path.resolve(), tmp_path.resolve())


def served(name: str, version: int = 1, entry: str | None = "model.onnx") -> ServedModel:
    folder = f"models/{name}/{version}"
    return ServedModel(
        name=name, version=version, digest="sha256:" + "0" * 64, path=folder, entry=f"{folder}/{entry}" if entry else None
    )


def image(root: Path, config: ScoringConfig) -> Path:
    root.mkdir(exist_ok=True)
    (root / "hedgerow.json").write_bytes(encode(config))
    for model in config.models:
        (root / model.path).mkdir(parents=True, exist_ok=True)
        if model.entry:
            (root / model.entry).touch()
    return root


def test_an_image_of_models(tmp_path: Path) -> None:
    root = image(tmp_path / "i", ScoringConfig(models=[served("a"), served("b", 7)], variables={"K": "v"}))
    plan = plan_image(root)
    assert [(model.name, model.version) for model in plan.models] == [("a", "1"), ("b", "7")]
    assert plan.model_dir == root / "models"
    assert dict(plan.variables) == {"K": "v"}


def test_an_image_of_a_script_and_its_model(tmp_path: Path) -> None:
    root = tmp_path / "i"
    (root / "source").mkdir(parents=True)
    (root / "source" / "score.py").touch()
    image(root, ScoringConfig(models=[served("a", 2, None)], script="source/score.py", source="source"))
    plan = plan_image(root)
    assert plan.script is not None
    assert (plan.script.file, plan.script.source, plan.model_dir) == (
        root / "source" / "score.py",
        root / "source",
        root / "models" / "a" / "2",
    )
    assert plan.models == ()


def test_what_is_no_image_is_said(tmp_path: Path) -> None:
    with pytest.raises(ImageUnusable, match=r"hedgerow\.json: No such file"):
        plan_image(tmp_path)
    (tmp_path / "hedgerow.json").write_text("{")
    with pytest.raises(ImageUnusable, match="ScoringConfig is not valid"):
        plan_image(tmp_path)
    (tmp_path / "hedgerow.json").write_text(json.dumps({"models": []}))
    with pytest.raises(ImageUnusable, match="neither an ONNX model nor a script"):
        plan_image(tmp_path)
    (tmp_path / "hedgerow.json").write_text(json.dumps({"models": [], "script": "../score.py"}))
    with pytest.raises(ImageUnusable, match="ScoringConfig is not valid"):
        plan_image(tmp_path)


def test_a_link_out_of_the_image_is_refused(tmp_path: Path) -> None:
    root = image(tmp_path / "i", ScoringConfig(models=[served("a")]))
    entry = root / "models" / "a" / "1" / "model.onnx"
    entry.unlink()
    (tmp_path / "outside.onnx").touch()
    entry.symlink_to(tmp_path / "outside.onnx")
    with pytest.raises(ImageUnusable, match="leads out of it"):
        plan_image(root)
