"""azmlinfsrv's variables and config file as settings."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from runtime.aml.environment import AmlEnvironment, aml_environment, of_image
from runtime.errors import ConfigFileUnusable
from runtime.settings import load_runtime_settings


def read(environment: dict[str, str], *, script: Path | None = None, file: Path | None = None, **defaults: str) -> AmlEnvironment:
    return aml_environment(environment, script=script, config_file=file, defaults=defaults)


def test_environment_goes_before_the_file_and_the_file_before_defaults(tmp_path: Path) -> None:
    file = tmp_path / "c.json"
    held = {"SERVICE_NAME": "file", "SERVICE_VERSION": "file", "SCORING_TIMEOUT_MS": 7, "AML_CORS_ORIGINS": None}
    file.write_text(json.dumps(held))
    values = read({"SERVICE_NAME": "env"}, file=file, SERVICE_VERSION="default", WORKER_COUNT="default").values
    wanted = {"SERVICE_NAME": "env", "SERVICE_VERSION": "file", "SCORING_TIMEOUT_MS": "7", "WORKER_COUNT": "default"}
    assert {name: values.get(name) for name in (*wanted, "AML_CORS_ORIGINS")} == {**wanted, "AML_CORS_ORIGINS": None}


def test_a_config_json_in_the_root_or_beside_the_script_is_found(tmp_path: Path) -> None:
    for place in ("root", "source"):
        (tmp_path / place).mkdir()
    (tmp_path / "source" / "config.json").write_text('{"SERVICE_NAME": "source"}')
    script = tmp_path / "source" / "score.py"
    environment = {"AML_APP_ROOT": str(tmp_path / "root")}
    assert read(environment, script=script).values["SERVICE_NAME"] == "source"
    (tmp_path / "root" / "config.json").write_text('{"SERVICE_NAME": "root"}')
    assert read(environment, script=script).values["SERVICE_NAME"] == "root"


def test_unknown_keys_are_named_unless_the_file_is_somebody_elses(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"architectures": ["Bert"], "hidden_size": 768}')
    found = read({"AML_APP_ROOT": str(tmp_path)})
    assert found.notes == ()
    assert "hidden_size" not in found.values
    file = tmp_path / "config.json"
    file.write_text('{"SERVICE_NAME": "s", "NOT_KNOWN": 1}')
    assert read({"AML_APP_ROOT": str(tmp_path)}).notes == (f"{file} has keys that are not supported: NOT_KNOWN",)


@pytest.mark.parametrize("text", ["{", "[]", "5", None])
def test_a_named_file_must_be_a_json_object(tmp_path: Path, text: str | None) -> None:
    file = tmp_path / "named.json"
    if text is not None:
        file.write_text(text)
    with pytest.raises(ConfigFileUnusable, match=r"named\.json cannot be used"):
        read({"AZUREML_CONFIG_FILE": str(file)})
    # Found by chance, the same text says nothing.
    if text is not None:
        file.rename(tmp_path / "config.json")
        assert read({"AML_APP_ROOT": str(tmp_path)}).notes == ()


def test_secrets_do_not_come_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text('{"HEDGEROW_TELEMETRY_TOKEN": "t"}')
    found = read({}, file=tmp_path / "c.json")
    assert "t" not in found.values.values()
    assert "not supported" in found.notes[0]


@pytest.mark.parametrize(
    ("environment", "port"),
    [
        ({}, None),
        ({"HEALTH_PORT": "5005"}, None),
        ({"HEALTH_PORT": "5005", "SEPERATE_HEALTH_ENDPOINT": "false"}, None),
        ({"HEALTH_PORT": "5005", "SEPERATE_HEALTH_ENDPOINT": "true"}, 5005),
        ({"SEPERATE_HEALTH_ENDPOINT": "true"}, 5000),
    ],
)
def test_the_second_port_needs_its_switch(environment: dict[str, str], port: int | None) -> None:
    settings = load_runtime_settings(read(environment).values, {"script": "s.py"})
    assert settings.health_port == port


@pytest.mark.parametrize(("value", "shown"), [("true", True), ("TRUE", True), ("false", False), ("anything", False)])
def test_the_servers_version_is_shown_unless_the_switch_says_something_else(value: str, shown: bool) -> None:
    values = read({"SERVER_VERSION_LOG_RESPONSE_ENABLED": value}).values
    assert load_runtime_settings(values, {"script": "s.py"}).show_server_version is shown


@pytest.mark.parametrize(("level", "meant"), [("WARN", "warning"), ("FATAL", "critical"), ("INFO", "INFO")])
def test_pythons_other_names_of_levels_are_known(level: str, meant: str) -> None:
    values = read({"AZUREML_LOG_LEVEL": level}).values
    assert load_runtime_settings(values, {"script": "s.py"}).log_level == meant


@pytest.mark.parametrize(
    ("environment", "timeout_ms"),
    [
        ({"SCORING_TIMEOUT_MS": "3600000", "WORKER_TIMEOUT": "300"}, 300_000),
        ({"SCORING_TIMEOUT_MS": "1000", "WORKER_TIMEOUT": "300"}, 1000),
        ({"SCORING_TIMEOUT_MS": "1000", "WORKER_TIMEOUT": "0"}, 1000),
    ],
)
def test_the_shorter_of_the_two_timeouts_counts(environment: dict[str, str], timeout_ms: int) -> None:
    assert load_runtime_settings(environment, {"script": "s.py"}).timeout_ms == timeout_ms


@pytest.mark.parametrize("name", ["AML_APP_INSIGHTS_ENABLED", "AML_APP_INSIGHTS_KEY", "WORKER_PRELOAD", "AZUREML_DEBUG_PORT"])
def test_what_has_no_effect_is_said_once_it_is_set(name: str) -> None:
    assert read({name: "false"}).notes == ()
    [note] = read({name: "12"}).notes
    assert note.startswith(f"{name} has no effect: ")


def test_the_environments_script_counts_from_the_root_and_a_flags_does_not(tmp_path: Path) -> None:
    environment = {"AML_APP_ROOT": str(tmp_path), "AZUREML_ENTRY_SCRIPT": "a/score.py"}
    assert read(environment).values["AZUREML_ENTRY_SCRIPT"] == str(tmp_path / "a" / "score.py")
    assert read({**environment, "AZUREML_ENTRY_SCRIPT": "/abs/score.py"}).values["AZUREML_ENTRY_SCRIPT"] == "/abs/score.py"
    assert read(environment, script=Path("other.py")).values["AZUREML_ENTRY_SCRIPT"] == "a/score.py"


def test_a_model_folder_that_is_not_there_is_said_and_left_to_the_script(tmp_path: Path) -> None:
    found = read({"AZUREML_MODEL_DIR": str(tmp_path / "none")})
    assert (found.notes, found.values) == ((f"AZUREML_MODEL_DIR names {tmp_path / 'none'}, which is no folder",), {})
    assert read({"AZUREML_MODEL_DIR": str(tmp_path)}).values == {"AZUREML_MODEL_DIR": str(tmp_path)}


def test_an_images_variables_say_only_what_was_the_servers_in_azure_ml() -> None:
    variables = {"WORKER_COUNT": "3", "AZUREML_DEBUG_PORT": "1", "HEDGEROW_HOST": "0.0.0.0", "PATH": "/x", "MY_OWN": "y"}
    assert of_image(variables) == {"WORKER_COUNT": "3", "AZUREML_DEBUG_PORT": "1"}


def test_main_py_is_looked_for_only_where_nothing_else_is_named(tmp_path: Path) -> None:
    (tmp_path / "main.py").touch()
    root = {"AML_APP_ROOT": str(tmp_path)}
    assert read(root).values["AZUREML_ENTRY_SCRIPT"] == str(tmp_path / "main.py")
    assert "AZUREML_ENTRY_SCRIPT" not in read({**root, "HEDGEROW_MODEL": "m.onnx"}).values
    assert "AZUREML_ENTRY_SCRIPT" not in read({}).values
