"""Before anything is taken away for good, somebody is asked; here for every command that does so.

Left alone are aliases and deliveries, which can be put back as they were.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any, Protocol, TypeVar

import click

from hedgerow.cli.options import json_option
from hedgerow.cli.output import count, plain, print_json
from hedgerow.sdk.errors import ApiError

F = Callable[..., Any]
# Deleted by somebody else in the meantime: what was asked for is so.
_GONE = frozenset({"not_found", "record_deleted"})


class NotConfirmed(click.ClickException):
    """Nobody is there to be asked."""

    exit_code = 2


class Version(Protocol):
    """A model, an environment or an image."""

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> int: ...


V_co = TypeVar("V_co", bound=Version, covariant=True)


class Versions(Protocol[V_co]):
    """Those of a workspace: ``client.models`` and its like."""

    def get(self, reference: str) -> V_co: ...

    def iterate(self, *, name: str) -> Iterator[V_co]: ...

    def delete(self, reference: str, *, force: bool) -> None: ...


def yes_option(function: F) -> F:
    return click.option("--yes", "-y", is_flag=True, help="Do not ask.")(function)


def version_options(function: F) -> F:
    """The options of a command that deletes versions: those of :func:`delete_versions`."""
    for option in (
        json_option,
        yes_option,
        click.option("--force", is_flag=True, help="Also while something uses it. Needs the role owner; lineage still shows it."),
        click.option("--all-versions", is_flag=True, help="Every version of NAME."),
    ):
        function = option(function)
    return function


def make_sure(what: str, *, yes: bool) -> None:
    """Ask whether to do ``what`` ("delete iris:3"), unless ``yes``. Raises NotConfirmed, ClickException for a "no"."""
    if yes:
        return
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise NotConfirmed(f"There is no terminal to ask whether to {plain(what)}; say so with --yes.")
    if not click.confirm(f"{what[0].upper()}{plain(what[1:])}?", err=True):
        raise click.ClickException("Nothing was done.")


def take_away(
    name: str, do: Callable[[], object], *, meaning: str, yes: bool, as_json: bool, verb: str = "delete", done: str = "deleted"
) -> None:
    """Ask, ``do`` it and say so. ``meaning`` is what the question adds to the name: ", and stop its replicas"."""
    make_sure(f"{verb} {name}{meaning}", yes=yes)
    do()
    if as_json:
        print_json({done: name})
    else:
        click.echo(f"{done.capitalize()} {name}")


def delete_versions(
    versions: Versions[Version], reference: str, *, all_versions: bool, force: bool, yes: bool, as_json: bool
) -> None:
    """Delete the one version that ``reference`` names, or all of them. A name alone is refused, not taken for the newest."""
    bare = ":" not in reference and "@" not in reference
    if all_versions and not bare:
        raise click.UsageError(f"{reference} names one version; with --all-versions give the name alone.")
    if all_versions:
        _delete_all(versions, reference, force=force, yes=yes, as_json=as_json)
        return
    if bare:
        raise click.UsageError(f"{plain(reference)!r} names no version. Name one ({plain(reference)}:3), or say --all-versions.")
    found = versions.get(reference)
    exact = f"{found.name}:{found.version}"
    take_away(exact, lambda: versions.delete(exact, force=force), meaning=_meaning(force=force), yes=yes, as_json=as_json)


def _meaning(*, force: bool) -> str:
    return " whatever uses it, and free its content" if force else ""


def _delete_all(versions: Versions[Version], name: str, *, force: bool, yes: bool, as_json: bool) -> None:
    # Compared, because a star at the end of a filter stands for every name that begins so.
    found = [f"{one.name}:{one.version}" for one in versions.iterate(name=name) if one.name == name]
    if not found:
        versions.get(name)  # says that there is none
    make_sure(f"delete {count(len(found), 'version')} of {name} ({_some(found)}){_meaning(force=force)}", yes=yes)
    deleted: list[str] = []
    refused: list[str] = []
    try:
        for exact in found:
            try:
                versions.delete(exact, force=force)
                deleted.append(exact)
            except ApiError as problem:
                if problem.problem.code in _GONE:
                    continue
                if problem.problem.code != "in_use":
                    raise
                refused.append(exact)
                click.echo(f"hedgerow: {plain(problem.sentence())}", err=True)
    finally:
        if as_json:
            print_json({"deleted": deleted, "refused": refused})
        else:
            for exact in deleted:
                click.echo(f"Deleted {exact}")
    if refused:
        raise click.ClickException(f"{count(len(refused), 'version')} of {name} stayed: {_some(refused)}.")


def _some(names: list[str]) -> str:
    return ", ".join(names) if len(names) <= 4 else f"{names[0]}, {names[1]}, … {names[-1]}"
