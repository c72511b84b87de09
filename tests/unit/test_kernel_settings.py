"""Settings: one table gives defaults, environment, options, texts and checks."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hedgerow.errors import InvalidSetting, UnknownSetting
from hedgerow.settings import load_settings, rows, setting


@dataclass(frozen=True)
class GateSettings:
    """What the tests configure."""

    port: int = setting(8080, "Port to listen on.")
    host: str = setting("127.0.0.1", "Address to listen on.", env="GATE_ADDRESS")
    folder: Path = setting(Path("/srv"), "Where things are.")
    verbose: bool = setting(False, "Say more.")
    level: Literal["low", "high"] = setting("low", "How high.")
    limit_s: float | None = setting(None, "Seconds, or nothing.")
    token_number: int = setting(0, "A secret number.", secret=True)
    rest_s: float = setting(5.0, "Seconds between two rounds; 0: none.", least=0)


def test_defaults_without_anything_else() -> None:
    assert load_settings(GateSettings, {}) == GateSettings()


def test_options_win_over_the_environment_and_that_over_defaults() -> None:
    environment = {"HEDGEROW_PORT": "1", "GATE_ADDRESS": "::1", "HEDGEROW_HOST": "ignored", "PORT": "9"}
    loaded = load_settings(GateSettings, environment, {"port": 2, "verbose": None})
    assert (loaded.port, loaded.host, loaded.verbose) == (2, "::1", False)


@pytest.mark.parametrize(
    ("text", "value"),
    [("1", True), ("TRUE", True), ("yes", True), ("on", True), ("0", False), ("false", False), ("", False), ("No", False)],
)
def test_truth_in_words(text: str, value: bool) -> None:
    assert load_settings(GateSettings, {"HEDGEROW_VERBOSE": text}).verbose is value


def test_texts_become_the_declared_types() -> None:
    environment = {"HEDGEROW_FOLDER": "/x y", "HEDGEROW_LEVEL": "high", "HEDGEROW_LIMIT_S": "2.5"}
    loaded = load_settings(GateSettings, environment)
    assert (loaded.folder, loaded.level, loaded.limit_s) == (Path("/x y"), "high", 2.5)
    assert load_settings(GateSettings, {"HEDGEROW_LIMIT_S": ""}).limit_s is None


@pytest.mark.parametrize(
    ("variable", "text", "words"),
    [
        (
            "HEDGEROW_PORT",
            "eighty",
            "Setting port cannot be 'eighty': use a whole number. Correct the environment variable HEDGEROW_PORT.",
        ),
        ("HEDGEROW_PORT", "", "Setting port cannot be '': use a whole number."),
        ("HEDGEROW_LIMIT_S", "nan", "Setting limit_s cannot be 'nan': use a finite number."),
        ("HEDGEROW_LIMIT_S", "soon", "use a number"),
        ("HEDGEROW_VERBOSE", "maybe", "use true or false"),
        ("HEDGEROW_LEVEL", "middle", "use one of low, high"),
        ("HEDGEROW_REST_S", "-1", "Setting rest_s cannot be '-1': it must be 0 or more."),
    ],
)
def test_a_wrong_value_is_named_with_its_source(variable: str, text: str, words: str) -> None:
    with pytest.raises(InvalidSetting) as caught:
        load_settings(GateSettings, {variable: text})
    assert words in caught.value.sentence()


def test_a_wrong_option_names_the_option() -> None:
    with pytest.raises(InvalidSetting, match="limit_s") as caught:
        load_settings(GateSettings, {}, {"limit_s": "soon"})
    assert caught.value.advice == "Correct the option --limit-s."


def test_a_wrong_secret_is_not_repeated() -> None:
    with pytest.raises(InvalidSetting) as caught:
        load_settings(GateSettings, {"HEDGEROW_TOKEN_NUMBER": "hunter2"})
    assert "hunter2" not in caught.value.sentence()
    assert "'***'" in caught.value.sentence()


def test_unknown_options_get_a_suggestion() -> None:
    with pytest.raises(UnknownSetting) as caught:
        load_settings(GateSettings, {}, {"prot": 1})
    assert caught.value.sentence() == "There is no setting 'prot' for GateSettings. Did you mean 'port'?"
    with pytest.raises(UnknownSetting) as caught:
        load_settings(GateSettings, {}, {"zzz": 1})
    assert caught.value.advice.startswith("Known are: port, host, folder")


def test_rows_are_what_help_and_docs_show() -> None:
    table = {row.name: row for row in rows(GateSettings)}
    assert list(table)[:3] == ["port", "host", "folder"]
    assert (table["port"].env, table["host"].env) == ("HEDGEROW_PORT", "GATE_ADDRESS")
    assert (table["port"].type_name, table["limit_s"].type_name, table["port"].default) == ("int", "float | None", 8080)
    assert table["token_number"].secret
    assert table["level"].type_name == "Literal['low', 'high']"


@given(st.dictionaries(st.sampled_from([row.env for row in rows(GateSettings)]), st.text(max_size=12)))
def test_any_environment_gives_settings_or_one_clear_error(environment: dict[str, str]) -> None:
    with contextlib.suppress(InvalidSetting):
        loaded = load_settings(GateSettings, environment)
        assert isinstance(loaded.port, int)
        assert loaded.level in ("low", "high")


@dataclass(frozen=True)
class ShownSettings:
    """Defaults of every kind, as help texts have them."""

    port: int = setting(0, "Port to listen on; 0 takes a free one.")
    url: str = setting("", "Address of another.")
    limit_s: float | None = setting(None, "Seconds, or nothing.")
    every_s: float = setting(86400.0, "Seconds.")
    share: float = setting(0.5, "Of one.")
    quiet: bool = setting(False, "Say less.")
    checks: bool = setting(True, "Look twice.")
    token: str = setting("known", "A secret.", secret=True)


def test_help_texts_show_defaults_that_there_are() -> None:
    shown = {row.name: row.shown_default for row in rows(ShownSettings)}
    assert shown == {
        "port": "0",
        "url": "",
        "limit_s": "",
        "every_s": "86400",
        "share": "0.5",
        "quiet": "",
        "checks": "on",
        "token": "",
    }
