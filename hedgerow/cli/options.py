"""Options and arguments that several commands share, and the connection they act on."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from hedgerow.sdk.client import Client

F = Callable[..., Any]


class FilterText(click.types.StringParamType):
    """Text that narrows a list. An empty one (``--name "$UNSET"``) is refused: it would stand for everything."""

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        text = super().convert(value, param, ctx)
        if not text.strip():
            self.fail("it is empty; give it a value, or leave the option out to get everything", param, ctx)
        return text


FILTER = FilterText()


def json_option(function: F) -> F:
    """``--json``: the documents of the API as they are, one JSON value on standard output."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")(function)


def limit_option(function: F) -> F:
    return click.option("--limit", default=50, show_default=True, type=click.IntRange(1, 1000), help="How many at most.")(
        function
    )


def output_option(function: F) -> F:
    kind = click.Path(path_type=Path, file_okay=False)
    return click.option("-o", "--output", "folder", default=".", show_default=True, type=kind, help="Folder to write to.")(
        function
    )


@contextmanager
def workspace() -> Iterator[Client]:
    """The client for the workspace that this invocation is about."""
    from hedgerow.sdk.connect import connect

    with connect(click.get_current_context().find_root().obj, start=False) as client:
        yield client


def key_values(_context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    """``-t key=value`` options as a dictionary."""
    pairs = {}
    for value in values:
        key, equals, rest = value.partition("=")
        if not equals or not key:
            raise click.BadParameter(f"{value!r} is not KEY=VALUE", param=parameter)
        pairs[key] = rest
    return pairs


def key_values_or_keys(_context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, str | None]:
    """``-t key=value`` and ``-t key`` options as a dictionary; None stands for any value."""
    found: dict[str, str | None] = {}
    for value in values:
        key, equals, rest = value.partition("=")
        if not key:
            raise click.BadParameter(f"{value!r} is neither KEY=VALUE nor KEY", param=parameter)
        found[key] = rest if equals else None
    return found


def tag_option(function: F) -> F:
    """``--tag`` of commands that make something."""
    return click.option(
        "--tag", "-t", "tags", multiple=True, callback=key_values, metavar="KEY=VALUE", help="A tag; repeatable."
    )(function)


def tag_filter_option(function: F) -> F:
    """``--tag`` of lists."""
    text = "Only with this tag, or with any value of it; repeatable."
    return click.option("--tag", "-t", "tags", multiple=True, callback=key_values_or_keys, metavar="KEY[=VALUE]", help=text)(
        function
    )


def tag_changes(function: F) -> F:
    """``KEY=VALUE… --remove KEY``, the one form of every command ``tag``: ``changes`` has None for tags to take away.

    ``--tag KEY=VALUE`` is understood too: until 0.2 it was the form of ``image tag``.
    """

    @click.argument("given", nargs=-1, metavar="[KEY=VALUE]...", callback=key_values)
    @click.option("--tag", "-t", "tags", multiple=True, callback=key_values, hidden=True)
    @click.option("--remove", "removed", multiple=True, metavar="KEY", type=FILTER, help="Take this tag away; repeatable.")
    @functools.wraps(function)
    def changing(*, given: dict[str, str], tags: dict[str, str], removed: tuple[str, ...], **others: object) -> object:
        wanted = {**tags, **given}
        if both := sorted(wanted.keys() & set(removed)):
            raise click.UsageError(f"The tag {both[0]!r} is both set and taken away; leave one of them out.")
        return function(changes={**wanted, **dict.fromkeys(removed)}, **others)

    return changing
