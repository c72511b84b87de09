"""What people and machines see: tables, records, JSON, and progress bars for long work."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

import click
import msgspec
from rich.cells import cell_len, set_cell_size

from hedgerow.clock import SystemClock

if TYPE_CHECKING:
    from hedgerow.contracts.api import Page
    from hedgerow.contracts.work import Activity, ActivityEvent
    from hedgerow.sdk.client import Client

T = TypeVar("T")

# How narrow a column becomes on a narrow terminal.
_NARROWEST = 6

# Control characters but tab and line feed, and those that turn the direction of writing.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def print_json(document: Any) -> None:  # noqa: ANN401 - anything msgspec can encode
    """One JSON value, indented on a terminal, compact in a pipe."""
    click.echo(as_shown(msgspec.json.encode(document)))


def as_shown(data: bytes) -> bytes:
    """JSON indented on a terminal; elsewhere byte for byte as it is."""
    return msgspec.json.format(data, indent=2) if sys.stdout.isatty() else data


def plain(value: object) -> str:
    """Text of others for a terminal: what would move its cursor, colour it or turn its text around is shown, not done."""
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), str(value))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], empty: str) -> None:
    """A table for people, or the sentence ``empty`` when there are no rows.

    On a terminal it is as wide as that: the widest columns are shortened, and end with an ellipsis. Elsewhere values are whole.
    """
    cells = [["" if cell is None else " ".join(plain(cell).split("\n")) for cell in row] for row in rows]
    if not cells:
        click.echo(empty)
        return
    lines = [[name.upper() for name in columns], *cells]
    widths = [max(cell_len(line[i]) for line in lines) for i in range(len(columns))]
    if sys.stdout.isatty():
        widths = fit(widths, shutil.get_terminal_size().columns)
    for line in lines:
        click.echo("  ".join(_filled(cell, width) for cell, width in zip(line, widths, strict=True)).rstrip())


def fit(widths: Sequence[int], room: int) -> list[int]:
    """Widths of columns that fit into ``room`` with two spaces between them.

    The widest are shortened first, and the first one, which names the row, only when that is not enough. None is made
    narrower than 6: on a terminal for which that is too wide, lines wrap.
    """
    left = room - 2 * (len(widths) - 1)
    first, *others = (min(width, max(room, _NARROWEST)) for width in widths)
    level = max(others, default=0)
    while level > _NARROWEST and first + sum(min(width, level) for width in others) > left:
        level -= 1
    others = [min(width, level) for width in others]
    return [max(min(first, _NARROWEST), min(first, left - sum(others))), *others]


def _filled(cell: str, width: int) -> str:
    if cell_len(cell) <= width:
        return set_cell_size(cell, width)
    dots = "…" if (sys.stdout.encoding or "").lower().startswith("utf") else "..."
    return set_cell_size(cell, width - len(dots)) + dots


def print_items(items: Sequence[T], columns: Mapping[str, Callable[[T], object]], *, empty: str, as_json: bool) -> None:
    """A list: its documents as JSON, or a table whose columns say how to show each item."""
    if as_json:
        print_json(items)
    else:
        print_table(list(columns), [[show(item) for show in columns.values()] for item in items], empty)


def print_page(page: Page[T], limit: int, columns: Mapping[str, Callable[[T], object]], *, empty: str, as_json: bool) -> None:
    """A page of at most ``limit``, and on standard error that there is more: nobody takes a part of a list for the whole."""
    print_items(page.items, columns, empty=empty, as_json=as_json)
    if page.next is not None:
        click.echo(f"There are more: --limit N (now {limit}), or narrow the list.", err=True)


def print_record(fields: Mapping[str, object]) -> None:
    """Name and value, one a line; empty values are left out."""
    width = max(map(len, fields), default=0)
    for name, value in fields.items():
        if value not in (None, "", {}, []):
            click.echo(f"{name.ljust(width)}  {plain(value)}")


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
    return plain(" ".join(f"{key}={value}" for key, value in values.items()))


def size(size_bytes: int) -> str:
    """``1.4 MB`` (powers of 1000)."""
    value = float(size_bytes)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def count(number: int, noun: str) -> str:
    """``1 file``, ``2 files``."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


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
    """Wait for an activity, with a progress bar on a terminal and plain lines elsewhere (on standard error).

    Ctrl-C ends the waiting, not the work, which others may wait for as well; what can be done about it is said.
    """
    try:
        return _awaited(client, activity_id, title, quiet=quiet)
    except KeyboardInterrupt:
        again, stop = f"hedgerow activity follow {activity_id}", f"hedgerow activity cancel {activity_id}"
        click.echo(f"The work goes on without you. Watch it again: {again}\nStop it: {stop}", err=True)
        raise


def _awaited(client: Client, activity_id: str, title: str, *, quiet: bool) -> Activity:
    if quiet:
        return client.activities.wait(activity_id)
    if not sys.stderr.isatty():
        return client.activities.wait(activity_id, _line_printer(title))
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[step]}", markup=False),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(title, total=1.0, step="")
        return client.activities.wait(
            activity_id, lambda event: progress.update(task, completed=event.progress, step=plain(event.step[:60]))
        )


def _line_printer(title: str) -> Any:  # noqa: ANN401 - a closure over the last step
    last = ""

    def show(event: ActivityEvent) -> None:
        nonlocal last
        if event.step and event.step != last:
            last = event.step
            click.echo(f"{title}: {event.progress:4.0%} {plain(event.step)}", err=True)

    return show
