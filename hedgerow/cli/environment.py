"""``hedgerow env``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from hedgerow.cli import complete
from hedgerow.cli.deletion import delete_versions, version_options
from hedgerow.cli.options import FILTER, json_option, key_values, limit_option, workspace
from hedgerow.cli.output import ago, count, pairs, print_json, print_page, print_record, short

if TYPE_CHECKING:
    from collections.abc import Callable

    from hedgerow.contracts.environment import Environment
    from hedgerow.sdk.client import Client

_FILE = click.Path(path_type=Path, exists=True, dir_okay=False)


@click.group("env")
def command() -> None:
    """Environments for scoring scripts."""


def _no_files(_context: click.Context, _parameter: click.Parameter, value: tuple[str, ...]) -> tuple[str, ...]:
    # "env.yml" is also a good name for a package.
    for package in value:
        if package.endswith((".yml", ".yaml", ".txt")) and Path(package).is_file():
            raise click.BadParameter(f"{package!r} is a file; give it with --conda or --requirements")
    return value


@command.command()
@click.argument("name")
@click.argument("packages", nargs=-1, callback=_no_files, metavar="[PACKAGE]...")
@click.option("--conda", type=_FILE, help="A conda YAML file; files that it names by -r below pip are read with it.")
@click.option("--requirements", type=_FILE, help="A requirements.txt; files that it names by -r are read with it.")
@click.option(
    "--from-model", metavar="REF", shell_complete=complete.models, help="What this model's files ask for (MLflow folders say it)."
)
@click.option("--python", "python_version", metavar="3.N", show_default="the file's, else 3.11", help="The Python version.")
@click.option(
    "--variable",
    "variables",
    multiple=True,
    callback=key_values,
    metavar="KEY=VALUE",
    help="An environment variable; repeatable.",
)
@json_option
def create(
    name: str,
    packages: tuple[str, ...],
    conda: Path | None,
    requirements: Path | None,
    from_model: str | None,
    python_version: str | None,
    variables: dict[str, str],
    as_json: bool,
) -> None:
    """A version of NAME; if one has just this content already, nothing is made and that one is the answer."""
    if sum(map(bool, (packages, conda, requirements, from_model))) != 1:
        raise click.UsageError("Give PACKAGEs, --conda FILE, --requirements FILE or --from-model REF: one of them.")
    from hedgerow.sdk.requirement_files import read_lines

    with workspace() as client:
        before = _newest(client, name)
        if conda is not None:
            environment = client.environments.create_from_conda(name, conda, python_version=python_version, variables=variables)
        elif from_model is not None:
            environment = client.environments.create_from_model(
                name, from_model, python_version=python_version, variables=variables
            )
        else:
            lines = packages if requirements is None else read_lines(requirements)
            environment = client.environments.create(name, lines, python_version=python_version, variables=variables)
    exact, exists = f"{environment.name}:{environment.version}", environment.version <= before
    if as_json:
        print_json(environment)
    if exists:
        click.echo(f"It already exists as {exact}, nothing was created.", err=as_json)
    elif not as_json:
        asked = count(len(environment.requirements) + len(environment.conda_packages), "requirement")
        click.echo(f"Created {exact} (Python {environment.python_version}, {asked})")


def _newest(client: Client, name: str) -> int:
    """The highest version that there is, 0 for none: numbers only count up, so a higher one is new."""
    found = client.environments.list(1, name=name).items if name.strip("* ") else []
    return max((one.version for one in found if one.name == name), default=0)


@command.command("list")
@click.option(
    "--name",
    type=FILTER,
    shell_complete=complete.environments,
    help="Only this environment's versions; 'team-*': of names that begin so.",
)
@click.option("--python", metavar="3.N", type=FILTER, help="Only with this Python.")
@click.option("--digest", metavar="sha256:…", type=FILTER, help="Only with this content.")
@click.option("--package", type=FILTER, help="Only those that ask for this package.")
@limit_option
@json_option
def list_environments(
    name: str | None, python: str | None, digest: str | None, package: str | None, limit: int, as_json: bool
) -> None:
    """Newest first."""
    with workspace() as client:
        page = client.environments.list(limit, name=name, python=python, digest=digest, package=package)
    columns: dict[str, Callable[[Environment], object]] = {
        "environment": lambda e: f"{e.name}:{e.version}",
        "python": lambda e: e.python_version,
        "packages": lambda e: len(e.requirements) + len(e.conda_packages),
        "digest": lambda e: short(e.digest),
        "created": lambda e: ago(e.created_at),
    }
    asked = name or python or digest or package
    empty = "No environment fits." if asked else "No environments yet: hedgerow env create NAME --requirements F"
    print_page(page, limit, columns, empty=empty, as_json=as_json)


@command.command()
@click.argument("reference", shell_complete=complete.environments)
@json_option
def show(reference: str, as_json: bool) -> None:
    """Everything about one version."""
    with workspace() as client:
        environment = client.environments.get(reference)
    if as_json:
        print_json(environment)
        return
    print_record(
        {
            "environment": f"{environment.name}:{environment.version}",
            "python": environment.python_version,
            "digest": environment.digest,
            "requirements": ", ".join(environment.requirements),
            "conda packages": ", ".join(environment.conda_packages),
            "channels": ", ".join(environment.channels),
            "variables": pairs(environment.variables),
            "created": environment.created_at.isoformat(),
        }
    )


@command.command()
@click.argument("reference", shell_complete=complete.environments)
@version_options
def delete(reference: str, all_versions: bool, force: bool, yes: bool, as_json: bool) -> None:
    """Delete a version, or all. Refused while an image was built in it. The version's number is never used again."""
    with workspace() as client:
        delete_versions(client.environments, reference, all_versions=all_versions, force=force, yes=yes, as_json=as_json)
