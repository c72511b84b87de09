"""What all commands have in common, read off the tree of the parser: nothing here knows a single command but the exceptions."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator
from functools import cache

import click
import pytest
from click.testing import CliRunner

from hedgerow.cli.main import cli
from hedgerow.cli.options import FilterText
from hedgerow.sdk.client import Client
from hedgerow.sdk.transport import Transport
from scripts.inventory import TOP

# They become another program, which has a help of its own, or print a document: a shell's script, a CycloneDX file.
_NO_JSON = {"up", "serve", "agent", "completion", "image sbom"}
# Text that may be empty, and means something then.
_MAY_BE_EMPTY = {("model register", "--description"), ("model register", "--path"), ("model tag", "--description")}
# Read whole, one page after the other, or by `--all` of something else.
_LEFT_TO_THE_SDK = {"after"}
# Every command that takes something away which cannot be put back as it was.
_TAKES_AWAY = {"delete", "revoke"}
# `model alias set` puts it back.
_NOT_ASKED = {"model alias delete"}
_LISTS = {
    "activities": "activity list",
    "devices": "device list",
    "edge-deployments": "edge list",
    "endpoints": "service list",
    "environments": "env list",
    "events": "event list",
    "fleet/events": "device events",
    "images": "image list",
    "models": "model list",
    "runs": "run list",
    "secrets": "secret list",
    "telemetry": "telemetry tail",
    "telemetry/gaps": "telemetry gaps",
    "tokens": "token list",
    "webhooks": "webhook list",
    "webhooks/{name}/deliveries": "webhook deliveries",
    "backup": "backup",
    "lineage": "lineage",
}
# What a filter of the API is called on the command line, where the word is another, or None with the reason beside it.
_OTHER_NAMES: dict[tuple[str, str], str | None] = {
    ("models", "q"): "search",
    ("backup", "blobs"): "without-blobs",
    ("backup", "keys"): "with-keys",
    ("events", "newest"): None,  # always: people look at the end
    ("lineage", "of"): None,  # an argument
    ("lineage", "direction"): None,  # --up, --down
    ("fleet/events", "device"): None,  # an argument
}


def leaves(command: click.Command = cli, path: tuple[str, ...] = ()) -> Iterator[tuple[str, click.Command]]:
    """Every command that is no group, by its words."""
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            yield from leaves(below, (*path, name))
    else:
        yield " ".join(path), command


COMMANDS = dict(leaves())


def options(command: click.Command) -> list[click.Option]:
    return [parameter for parameter in command.params if isinstance(parameter, click.Option)]


def option_names(command: click.Command) -> set[str]:
    return {name for option in options(command) for name in option.opts}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_answers_machines(name: str) -> None:
    assert ("--json" in option_names(COMMANDS[name])) is (name not in _NO_JSON)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_says_what_it_does(name: str) -> None:
    silent = [option.opts for option in options(COMMANDS[name]) if not option.hidden and not option.help]
    assert not silent


@pytest.mark.parametrize("name", COMMANDS)
def test_help_shows_real_defaults(name: str) -> None:
    # click keeps the names of the first help option that it made: they must be the command line's own.
    top = click.Context(cli, **cli.context_settings)
    words = COMMANDS[name].get_help(click.Context(COMMANDS[name], info_name=name, parent=top, max_content_width=200))
    # An option in brackets is how defaults are shown; its own prose leaves them out.
    assert not re.search(r"default:? ?(None|\]|\()?\]|default None|default ,", words), words
    assert "[default: ('" not in words


@pytest.mark.parametrize("name", [name for name in COMMANDS if name.split()[-1] in _TAKES_AWAY])
def test_whatever_takes_something_away_asks(name: str) -> None:
    names = option_names(COMMANDS[name])
    assert ({"--yes", "-y"} <= names) is (name not in _NOT_ASKED)
    assert ("--force" in names) is ("--all-versions" in names)


def test_there_are_commands_that_take_something_away() -> None:
    assert {"model delete", "image delete", "env delete", "service delete", "device delete", "device revoke"} <= COMMANDS.keys()
    assert {"edge delete", "webhook delete", "secret delete", "token revoke", "workspace delete"} <= COMMANDS.keys()


@pytest.mark.parametrize("name", sorted({"service delete", "device delete", "device revoke", "webhook delete", "token revoke"}))
def test_without_a_terminal_nobody_is_asked_and_nothing_is_done(name: str) -> None:
    answer = CliRunner().invoke(cli, ["-w", "http://127.0.0.1:9", *name.split(), "press-1"], input="y\n")
    assert answer.exit_code == 2, answer.output
    assert answer.output.count("\n") == 1
    assert "press-1" in answer.output
    assert "--yes" in answer.output


def _filters(name: str) -> list[click.Option]:
    """Options of a list that take one text or several, and are no choice or number."""
    text = [option for option in options(COMMANDS[name]) if not option.is_flag and not option.hidden]
    return [option for option in text if not isinstance(option.type, click.Choice | click.IntRange | click.types.IntParamType)]


@pytest.mark.parametrize(
    ("name", "option"), [(name, option.opts[0]) for name in _LISTS.values() for option in _filters(name) if "list" in name]
)
def test_an_empty_filter_is_refused(name: str, option: str) -> None:
    answer = CliRunner().invoke(cli, ["-w", "http://127.0.0.1:9", *name.split(), option, ""])
    assert answer.exit_code == 2, answer.output
    assert option in answer.output


def test_text_that_narrows_is_of_one_kind() -> None:
    plain = [
        (name, option.opts[0])
        for name in _LISTS.values()
        for option in _filters(name)
        if option.callback is None and not isinstance(option.type, FilterText | click.Path)
    ]
    assert not [one for one in plain if one not in _MAY_BE_EMPTY]


@cache
def _queries() -> dict[str, list[str]]:
    """The arguments of every GET of a list, as the API documents them."""
    document = json.loads((TOP / "docs" / "reference" / "openapi.json").read_text(encoding="utf-8"))
    found = {}
    for path, operations in document["paths"].items():
        asked = [one["name"] for one in operations.get("get", {}).get("parameters", []) if one.get("in") == "query"]
        noun = path.removeprefix("/api/v1/")
        if asked and noun in _LISTS:
            found[noun] = asked
    return found


@pytest.mark.parametrize("noun", _LISTS)
def test_whatever_the_api_can_filter_the_command_line_can(noun: str) -> None:
    names = {name.removeprefix("--") for name in option_names(COMMANDS[_LISTS[noun]])}
    asked = [(field, _OTHER_NAMES.get((noun, field), field.replace("_", "-"))) for field in _queries()[noun]]
    assert not [field for field, name in asked if name is not None and name not in names and field not in _LEFT_TO_THE_SDK]


def test_lists_by_time_take_the_same_words() -> None:
    by_time = {name: command for name, command in COMMANDS.items() if "--since" in option_names(command)}
    assert {"model list", "event list"} <= by_time.keys()
    texts = {option.help for command in by_time.values() for option in options(command) if "--since" in option.opts}
    assert len(texts) == 1
    assert all("--until" in option_names(command) for name, command in by_time.items() if name.endswith("list"))


@pytest.mark.parametrize("name", [name for name in COMMANDS if name.split()[-1] == "tag"])
def test_tags_are_changed_in_one_form(name: str) -> None:
    metavars = [parameter.metavar for parameter in COMMANDS[name].params if isinstance(parameter, click.Argument)]
    assert "[KEY=VALUE]..." in metavars
    assert {"--remove", "--tag"} <= option_names(COMMANDS[name])
    both = CliRunner().invoke(cli, ["-w", "http://127.0.0.1:9", *name.split(), "x", "a=1", "--remove", "a"])
    assert (both.exit_code, "both set and taken away" in both.output) == (2, True)
    assert CliRunner().invoke(cli, ["-w", "http://127.0.0.1:9", *name.split(), "x"]).exit_code == 2


def test_there_are_three_commands_tag() -> None:
    assert {"model tag", "image tag", "device tag"} <= COMMANDS.keys()


def _nouns() -> dict[str, object]:
    client = Client(Transport("http://127.0.0.1:9", None))
    try:
        return {name: noun for name, noun in vars(client).items() if not name.startswith("_") and name != "transport"}
    finally:
        client.close()


def _page_methods() -> list[tuple[str, str]]:
    found = []
    for name, noun in _nouns().items():
        for method, function in inspect.getmembers(type(noun), inspect.isfunction):
            if str(inspect.signature(function).return_annotation).startswith("Page["):
                found.append((name, method))
    return found


@pytest.mark.parametrize(("noun", "method"), _page_methods())
def test_every_list_of_the_sdk_can_be_walked_and_has_the_same_defaults(noun: str, method: str) -> None:
    kind = type(_nouns()[noun])
    walked = "iterate" if method == "list" else f"iterate_{method}"
    listed = inspect.signature(getattr(kind, method)).parameters
    assert listed["limit"].default == 100
    assert listed["after"].default is None
    narrowed = {name for name, one in listed.items() if one.kind is not inspect.Parameter.VAR_KEYWORD} - {
        "limit",
        "after",
        "newest",
    }
    assert narrowed <= set(inspect.signature(getattr(kind, walked)).parameters)


def test_there_are_lists_in_the_sdk() -> None:
    assert len(_page_methods()) >= 14
