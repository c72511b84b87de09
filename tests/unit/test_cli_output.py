"""What people and machines see on a terminal."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, cast

import pytest
from click.testing import CliRunner

from hedgerow.cli import output
from hedgerow.cli.main import COMMANDS, cli
from hedgerow.clock import SystemClock

if TYPE_CHECKING:
    from hedgerow.sdk.client import Client


@pytest.mark.parametrize(
    ("size_bytes", "text"), [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (1_400_000, "1.4 MB"), (10**15, "1000.0 TB")]
)
def test_sizes(size_bytes: int, text: str) -> None:
    assert output.size(size_bytes) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(3, "3 s ago"), (200, "3 min ago"), (7300, "2 h ago"), (200_000, "2 d ago"), (-50, "0 s ago")]
)
def test_ages(seconds: int, text: str) -> None:
    assert output.ago(SystemClock().now() - timedelta(seconds=seconds)) == text
    assert output.ago(None) == ""


def test_ages_of_other_time_zones() -> None:
    assert output.ago(datetime(2020, 1, 1, tzinfo=UTC)).endswith("d ago")


def test_text_of_others_does_nothing_to_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    hostile = "\x1b]0;owned\x07\x1b[2J\x9b31mred\u202eexe.txt\rover"
    output.print_record({"description": f"one\ntwo {hostile}"})
    output.print_table(["tags", "run"], [[f"a={hostile}", "x\nforged row"]], "")
    print(output.pairs({"key": hostile}))
    told = capsys.readouterr().out
    assert all(line.isprintable() for line in told.splitlines()), ascii(told)
    assert "one\ntwo \\x1b]0;owned" in told
    assert "x forged row" in told
    assert "\\u202e" in told


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_of_the_table_exists_and_says_what_it_does(name: str) -> None:
    command = cli.get_command(CliRunner().invoke(cli, []), name)  # type: ignore[arg-type]  # any context will do
    assert command is not None
    assert command.help


def test_help_lists_every_command() -> None:
    answer = CliRunner().invoke(cli, ["--help"])
    assert answer.exit_code == 0
    assert all(f"\n  {name} " in answer.output for name in COMMANDS)


def test_an_unknown_command_is_wrong_usage() -> None:
    answer = CliRunner().invoke(cli, ["modle"])
    assert answer.exit_code == 2
    assert "modle" in answer.output


@pytest.mark.parametrize(
    ("widths", "room", "fitted"),
    [
        ([5, 10, 3], 80, [5, 10, 3]),
        ([5, 100, 3], 80, [5, 68, 3]),
        ([5, 100, 100], 80, [5, 35, 35]),
        ([60, 40, 40], 80, [60, 8, 8]),
        ([90, 40, 10], 80, [64, 6, 6]),
        ([100], 80, [80]),
        ([9, 9, 9, 9], 20, [6, 6, 6, 6]),
    ],
)
def test_columns_fit_a_terminal(widths: list[int], room: int, fitted: list[int]) -> None:
    assert output.fit(widths, room) == fitted


def test_elsewhere_than_on_a_terminal_values_are_whole(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_table(["name", "text"], [["a", "x" * 300], ["日本語", "y"]], "")
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == f"a       {'x' * 300}"
    assert lines[2] == "日本語  y", "a wide letter takes two cells"


class _Interrupted:
    """Stands for a client whose user presses Ctrl-C while it waits."""

    @property
    def activities(self) -> _Interrupted:
        return self

    def wait(self, *_: object) -> None:
        raise KeyboardInterrupt


@pytest.mark.parametrize("quiet", [False, True])
def test_who_stops_waiting_is_told_that_the_work_goes_on(capsys: pytest.CaptureFixture[str], quiet: bool) -> None:
    with pytest.raises(KeyboardInterrupt):
        output.follow(cast("Client", _Interrupted()), "01a2-3b4c", "building churn", quiet=quiet)
    told = capsys.readouterr()
    assert told.out == ""
    assert "hedgerow activity follow 01a2-3b4c\n" in told.err
    assert "hedgerow activity cancel 01a2-3b4c\n" in told.err
