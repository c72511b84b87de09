"""``hedgerow event``: what happened, and what happens."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click
import msgspec

from hedgerow.cli.options import FILTER, FilterText, json_option, limit_option, workspace
from hedgerow.cli.output import ago, pairs, plain, print_page, short
from hedgerow.cli.times import since_option, until_option
from hedgerow.contracts.events import EVENT_NOUNS

if TYPE_CHECKING:
    from collections.abc import Callable

    from hedgerow.contracts.events import Event


class KindText(FilterText):
    """A kind of events, or its beginning with a star. One that no event can have is refused: the answer would be nothing."""

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        text = super().convert(value, param, ctx)
        noun, dot, _ = text.partition(".")
        star = text.endswith("*") and not dot
        if not (any(known.startswith(text[:-1]) for known in EVENT_NOUNS) if star else dot and noun in EVENT_NOUNS):
            nouns = ", ".join(EVENT_NOUNS)
            self.fail(
                f"{text!r} is no kind: use NOUN.VERB or NOUN.*, for example model.registered. Nouns are {nouns}", param, ctx
            )
        return text


@click.group("event")
def command() -> None:
    """What happened in the workspace, and what happens now."""


def _filters(function: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        since_option,
        click.option("--actor", metavar="TOKEN|NAME", type=FILTER, help="Of this token (id or name), or of hub or controller."),
        click.option("--subject", metavar="SUBJECT", type=FILTER, help="About this: model/iris:3, model/iris:*, device/*."),
        click.option("--kind", metavar="KIND", type=KindText(), help="Of this kind: model.registered, model.*."),
    ):
        function = option(function)
    return function


@command.command("list")
@_filters
@until_option
@limit_option
@json_option
def list_events(
    limit: int,
    as_json: bool,
    **filters: Any,  # noqa: ANN401 - the options by the names that the SDK has for them
) -> None:
    """Newest first."""
    with workspace() as client:
        page = client.events.list(newest=True, limit=limit, **filters)
    columns: dict[str, Callable[[Event], object]] = {
        "event": lambda e: e.number,
        "when": lambda e: ago(e.at),
        "kind": lambda e: e.kind,
        "subject": lambda e: e.subject,
        "by": lambda e: e.actor.name,
        "details": _details,
    }
    print_page(page, limit, columns, empty="No such event.", as_json=as_json)


@command.command()
@_filters
@click.option("--after", metavar="CURSOR", type=FILTER, help="Begin after the event with this cursor (see --json).")
@json_option
def follow(
    kind: str | None, subject: str | None, actor: str | None, since: datetime | None, after: str | None, as_json: bool
) -> None:
    """Print events as they happen, until Ctrl-C; with --json one document a line. A broken connection is picked up again."""

    def restored(incarnation: str) -> None:
        click.echo(f"The workspace was restored from a backup (incarnation {incarnation}): from the beginning.", err=True)

    with workspace() as client:
        found = client.events.follow(kind=kind, subject=subject, actor=actor, since=since, after=after, on_restored=restored)
        for event in found:
            click.echo(msgspec.json.encode(event) if as_json else _line(event))


def _details(event: Event) -> str:
    return pairs({key: short(value) if value.startswith("sha256:") else value for key, value in event.details.items()})


def _line(event: Event) -> str:
    at = event.at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")
    return plain(f"{at}  {event.kind}  {event.subject}  by {event.actor.name}  {pairs(event.details)}".rstrip())
