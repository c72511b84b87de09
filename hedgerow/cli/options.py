"""Options and arguments that several commands share, and the connection they act on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from hedgerow.sdk.client import Client

F = Callable[..., Any]


def json_option(function: F) -> F:
    """``--json``: the documents of the API as they are, one JSON value on standard output."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")(function)


def limit_option(function: F) -> F:
    return click.option("--limit", default=50, show_default=True, type=click.IntRange(1, 1000), help="How many at most.")(
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


def tag_option(function: F) -> F:
    return click.option(
        "--tag", "-t", "tags", multiple=True, callback=key_values, metavar="KEY=VALUE", help="A tag; repeatable."
    )(function)
