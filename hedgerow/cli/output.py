"""What people and machines see: tables, records, JSON, and progress bars for long work."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

import click
import msgspec

from hedgerow.clock import SystemClock

if TYPE_CHECKING:
    from hedgerow.contracts.work import Activity, ActivityEvent
    from hedgerow.sdk.client import Client

T = TypeVar("T")


def print_json(document: Any) -> None:  # noqa: ANN401 - anything msgspec can encode
    """One JSON value, indented on a terminal, compact in a pipe."""
    data = msgspec.json.encode(document)
    click.echo(msgspec.json.format(data, indent=2) if sys.stdout.isatty() else data)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], empty: str) -> None:
    """A table for people, or the sentence ``empty`` when there are no rows."""
    cells = [["" if cell is None else str(cell) for cell in row] for row in rows]
    if not cells:
        click.echo(empty)
        return
    widths = [max(len(row[i]) for row in [list(columns), *cells]) for i in range(len(columns))]
    for row in [[name.upper() for name in columns], *cells]:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def print_items(items: Sequence[T], columns: Mapping[str, Callable[[T], object]], *, empty: str, as_json: bool) -> None:
    """A list: its documents as JSON, or a table whose columns say how to show each item."""
    if as_json:
        print_json(items)
    else:
        print_table(list(columns), [[show(item) for show in columns.values()] for item in items], empty)


def print_record(fields: Mapping[str, object]) -> None:
    """Name and value, one a line; empty values are left out."""
    width = max(map(len, fields), default=0)
    for name, value in fields.items():
        if value not in (None, "", {}, []):
            click.echo(f"{name.ljust(width)}  {value}")


def short(digest: str | None) -> str:
    """The first 12 hex digits of a digest."""
    return (digest or "").removeprefix("sha256:")[:12]


def ago(moment: datetime | None) -> str:
    """``3 min ago``; empty for never."""
    if moment is None:
        return ""
    seconds = max(0, int((SystemClock().now() - moment.astimezone(UTC)).total_seconds()))
    for size, name in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size} {name} ago"
    return f"{seconds} s ago"


def pairs(values: Mapping[str, object]) -> str:
    return " ".join(f"{key}={value}" for key, value in values.items())


def size(size_bytes: int) -> str:
    """``1.4 MB`` (powers of 1000)."""
    value = float(size_bytes)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


@contextmanager
def transfer(title: str) -> Iterator[Callable[[int, int], None] | None]:
    """A progress bar in bytes on a terminal (standard error), None elsewhere. Yields what a transfer calls with (done, all)."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(title, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def follow(client: Client, activity_id: str, title: str, *, quiet: bool = False) -> Activity:
    """Wait for an activity, with a progress bar on a terminal and plain lines elsewhere (on standard error)."""
    if quiet:
        return client.activities.wait(activity_id)
    if not sys.stderr.isatty():
        return client.activities.wait(activity_id, _line_printer(title))
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[step]}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(title, total=1.0, step="")
        return client.activities.wait(
            activity_id, lambda event: progress.update(task, completed=event.progress, step=event.step[:60])
        )


def _line_printer(title: str) -> Any:  # noqa: ANN401 - a closure over the last step
    last = ""

    def show(event: ActivityEvent) -> None:
        nonlocal last
        if event.step and event.step != last:
            last = event.step
            click.echo(f"{title}: {event.progress:4.0%} {event.step}", err=True)

    return show
