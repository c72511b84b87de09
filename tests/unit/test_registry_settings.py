"""Flags and environment of the server: one table."""

from __future__ import annotations

from pathlib import Path

import pytest

from hedgerow.errors import InvalidSetting
from hedgerow.settings import rows
from registry.settings import ServerSettings, read_settings


def read(*arguments: str, **environment: str) -> ServerSettings:
    return read_settings(ServerSettings, "server", arguments, environment)


def test_flags_come_before_the_environment_and_that_before_defaults() -> None:
    assert read() == ServerSettings()
    found = read("--port", "0", "--workspace", "/w", HEDGEROW_PORT="9", HEDGEROW_HOST="::1", HEDGEROW_BEHIND_PROXY="true")
    assert (found.port, found.host, found.workspace, found.behind_proxy) == (0, "::1", Path("/w"), True)
    assert read("--behind-proxy").behind_proxy is True
    assert read("--no-behind-proxy", HEDGEROW_BEHIND_PROXY="1").behind_proxy is False


def test_values_that_do_not_fit_are_named() -> None:
    with pytest.raises(InvalidSetting, match="port cannot be 'x'"):
        read("--port", "x")
    with pytest.raises(InvalidSetting, match="log_format"):
        read(HEDGEROW_LOG_FORMAT="xml")


def test_help_tells_every_setting_but_no_secret(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        read("--help", HEDGEROW_DATABASE="postgresql://u:s3cret@h/d")
    assert ended.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    for row in rows(ServerSettings):
        assert f"--{row.name.replace('_', '-')}" in text
        assert row.env in text
    assert "s3cret" not in text


@pytest.mark.parametrize("arguments", [["--nonsense"], ["--wor", "x"], ["stray"]])
def test_unknown_options_end_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        read(*arguments)
    assert ended.value.code == 2
    assert arguments[0] in capsys.readouterr().err
