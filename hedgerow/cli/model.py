"""``hedgerow model``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hedgerow.cli.complete import models as model_names
from hedgerow.cli.options import json_option, key_values, limit_option, tag_option, workspace
from hedgerow.cli.output import (
    ago,
    count,
    pairs,
    print_items,
    print_json,
    print_record,
    print_table,
    say_more,
    short,
    size,
    transfer,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from hedgerow.contracts.api import ModelAlias
    from hedgerow.contracts.model import ModelManifest, TensorSpec

_TIMES = ["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%S%z"]


@click.group("model")
def command() -> None:
    """Register and look at models."""


@command.command()
@click.argument("name", shell_complete=model_names)
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path))
@click.option("--run", "run_id", metavar="ID", help="Register outputs of this run; or, with PATHs, the run that they came from.")
@click.option("--path", "inside", default="", metavar="FOLDER", help="With --run alone: only this folder of the outputs.")
@click.option("--framework", default="custom", show_default=True, help="What made it: onnx, sklearn, … An MLmodel file says it.")
@click.option("--framework-version", metavar="VERSION", help="Its version.")
@click.option("--description", default="", help="A sentence about it.")
@tag_option
@click.option(
    "--property",
    "properties",
    multiple=True,
    callback=key_values,
    metavar="KEY=VALUE",
    help="A tag for ever; repeatable.",
)
@click.option("--alias", "aliases", multiple=True, help="Put this alias on the new version; repeatable.")
@click.option("--sample-input", type=click.Path(path_type=Path), metavar="FILE", help="An input that the model takes.")
@click.option(
    "--data",
    multiple=True,
    callback=key_values,
    metavar="NAME=PATH",
    help="A data set that it was made from, or NAME=sha256:…; recorded by digest, not sent; repeatable.",
)
@click.option("--commit/--no-commit", default=False, help="Record the git commit of the folder that the first PATH lies in.")
@json_option
def register(
    name: str,
    paths: tuple[Path, ...],
    run_id: str | None,
    inside: str,
    sample_input: Path | None,
    commit: bool,
    as_json: bool,
    **facts: Any,  # noqa: ANN401 - the options that are facts of the model, by the names that the SDK has for them
) -> None:
    """Register files, folders or a run's outputs as the next version of NAME."""
    if not paths and not run_id:
        raise click.UsageError("Give PATHs, or --run ID to register what that run left.")
    if not paths and (commit or sample_input):
        raise click.UsageError("--commit and --sample-input go with PATHs; a run has its own commit.")
    with workspace() as client:
        if paths:
            with transfer(name) as progress:
                manifest = client.models.register(
                    name,
                    *paths,
                    sample_input=sample_input,
                    run_id=run_id,
                    progress=progress,
                    commit="git" if commit else None,
                    **facts,
                )
        else:
            manifest = client.models.register_outputs(name, client.runs.get(run_id or ""), inside, **facts)
    if as_json:
        print_json(manifest)
    else:
        files = count(len(manifest.files), "file")
        click.echo(f"Registered {manifest.name}:{manifest.version} ({files}, {short(manifest.digest)})")
    if commit and manifest.source is None:
        click.echo("No commit was recorded: the first PATH lies in no git repository with a commit, or git is missing.", err=True)


def _key_values_or_keys(_context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for value in values:
        key, equals, rest = value.partition("=")
        if not key:
            raise click.BadParameter(f"{value!r} is neither KEY=VALUE nor KEY", param=parameter)
        found[key] = rest if equals else None
    return found


@command.command("list")
@click.option("--name", shell_complete=model_names, help="Only this model's versions; 'pump*': names that begin so.")
@click.option(
    "--tag",
    "-t",
    "tags",
    multiple=True,
    callback=_key_values_or_keys,
    metavar="KEY[=VALUE]",
    help="Only with this tag; repeatable.",
)
@click.option(
    "--property",
    "properties",
    multiple=True,
    callback=_key_values_or_keys,
    metavar="KEY[=VALUE]",
    help="Only with this property.",
)
@click.option("--framework", help="Only of this framework.")
@click.option("--search", metavar="WORDS", help="Words that all occur in name, framework, tags or description; 'vib*' begins so.")
@click.option("--since", type=click.DateTime(_TIMES), help="Registered at this time or later (local time if it has no offset).")
@click.option("--until", type=click.DateTime(_TIMES), help="Registered before this time.")
@click.option("--run", metavar="ID", help="Only what this run made.")
@click.option("--data", metavar="DIGEST", help="Only what was made from this data set.")
@click.option("--alias", help="Only versions that this alias names.")
@click.option("--newest", is_flag=True, help="Of each name only the newest version.")
@limit_option
@json_option
def list_models(
    name: str | None,
    limit: int,
    as_json: bool,
    **filters: Any,  # noqa: ANN401 - the options by the names that the SDK has for them
) -> None:
    """Newest first."""
    with workspace() as client:
        page = client.models.list(name, limit, **filters)
    columns: dict[str, Callable[[ModelManifest], object]] = {
        "model": lambda m: f"{m.name}:{m.version}",
        "aliases": lambda m: " ".join(m.aliases),
        "framework": lambda m: m.framework,
        "size": lambda m: size(sum(file.size_bytes for file in m.files)),
        "tags": lambda m: pairs(m.tags),
        "digest": lambda m: short(m.digest),
        "registered": lambda m: ago(m.created_at),
    }
    asked = name or any(filters.values())
    empty = "No model fits." if asked else "No models yet: hedgerow model register NAME PATH"
    print_items(page.items, columns, empty=empty, as_json=as_json)
    say_more(page.next, limit)


@command.command()
@click.argument("reference", shell_complete=model_names)
@json_option
def show(reference: str, as_json: bool) -> None:
    """Everything about one version."""
    with workspace() as client:
        manifest = client.models.get(reference)
    if as_json:
        print_json(manifest)
        return
    print_record(_fields(manifest))
    print_table(("file", "size", "digest"), [(f.path, size(f.size_bytes), f.digest) for f in manifest.files], "")


def _fields(manifest: ModelManifest) -> dict[str, object]:
    sample = manifest.sample_input
    return {
        "model": f"{manifest.name}:{manifest.version}",
        "aliases": ", ".join(manifest.aliases),
        "digest": manifest.digest,
        "framework": " ".join(filter(None, (manifest.framework, manifest.framework_version))),
        "description": manifest.description,
        "tags": pairs(manifest.tags),
        "properties": pairs(manifest.properties),
        "inputs": _tensors(manifest.inputs),
        "outputs": _tensors(manifest.outputs),
        "sample input": f"{sample.path} ({size(sample.size_bytes)})" if sample else "",
        "mlflow": _mlflow(manifest),
        "environment": _asked_environment(manifest),
        "run": manifest.run_id,
        "commit": _commit(manifest),
        "data": ", ".join(f"{data.name} ({data.digest})" for data in manifest.data),
        "revision": manifest.revision,
        "registered": manifest.created_at.isoformat(),
    }


def _commit(manifest: ModelManifest) -> str:
    source = manifest.source
    if source is None:
        return ""
    return " ".join(filter(None, (source.commit, "with changes beside it" if source.dirty else "", source.repository)))


def _tensors(tensors: list[TensorSpec]) -> str:
    return ", ".join(f"{one.name} {one.datatype}[{','.join(map(str, one.shape))}]" for one in tensors)


def _mlflow(manifest: ModelManifest) -> str:
    facts = manifest.mlflow
    if facts is None:
        return ""
    known = {"run": facts.run_id, "model": facts.model_uuid, "mlflow": facts.mlflow_version}
    return " ".join([", ".join(facts.flavors), pairs({key: value for key, value in known.items() if value})])


def _asked_environment(manifest: ModelManifest) -> str:
    asked = manifest.environment
    if asked is None:
        return ""
    python = f"Python {asked.python_version}, " if asked.python_version else ""
    requirements, packages = count(len(asked.requirements), "requirement"), count(len(asked.conda_packages), "conda package")
    return f"{python}{requirements}, {packages} (not registered)"


@command.command()
@click.argument("reference", shell_complete=model_names)
@click.argument("pairs_given", nargs=-1, metavar="[KEY=VALUE]...", callback=key_values)
@click.option("--remove", multiple=True, metavar="KEY", help="Take this tag away; repeatable.")
@click.option(
    "--property", "properties", multiple=True, callback=key_values, metavar="KEY=VALUE", help="Add a property; repeatable."
)
@click.option("--description", help="Replace the description.")
@json_option
def tag(
    reference: str,
    pairs_given: Mapping[str, str],
    remove: tuple[str, ...],
    properties: Mapping[str, str],
    description: str | None,
    as_json: bool,
) -> None:
    """Set tags of a version, take tags away, add properties."""
    if not pairs_given and not remove and not properties and description is None:
        raise click.UsageError("Give KEY=VALUE, --remove KEY, --property KEY=VALUE or --description TEXT.")
    with workspace() as client:
        manifest = client.models.update(
            reference, tags=pairs_given, remove_tags=remove, properties=properties, description=description
        )
    if as_json:
        print_json(manifest)
    else:
        click.echo(f"{manifest.name}:{manifest.version}  {pairs(manifest.tags) or 'no tags'}")


@command.group()
def alias() -> None:
    """Names for single versions that can be moved (NAME@ALIAS)."""


@alias.command("set")
@click.argument("reference", shell_complete=model_names)
@click.argument("alias_name", metavar="ALIAS")
@click.option("--protect/--unprotect", "protected", default=None, help="Whether only owners may move or remove it.")
@json_option
def set_alias(reference: str, alias_name: str, protected: bool | None, as_json: bool) -> None:
    """Put ALIAS on the version that REFERENCE names, or move it there."""
    with workspace() as client:
        manifest = client.models.get(reference)
        found = client.models.set_alias(manifest.name, alias_name, manifest.version, protected=protected)
    if as_json:
        print_json(found)
    else:
        kept = ", protected" if found.protected else ""
        click.echo(f"{found.name}@{found.alias} is {found.name}:{found.version}{kept}")


@alias.command("list")
@click.argument("name", shell_complete=model_names)
@json_option
def list_aliases(name: str, as_json: bool) -> None:
    """The aliases of a model."""
    with workspace() as client:
        found = client.models.aliases(name)
    columns: dict[str, Callable[[ModelAlias], object]] = {
        "alias": lambda a: f"{a.name}@{a.alias}",
        "version": lambda a: a.version,
        "protected": lambda a: "yes" if a.protected else "",
        "set": lambda a: ago(a.updated_at),
        "by": lambda a: a.updated_by,
    }
    print_items(found, columns, empty=f"No aliases yet: hedgerow model alias set {name} ALIAS", as_json=as_json)


@alias.command("delete")
@click.argument("name", shell_complete=model_names)
@click.argument("alias_name", metavar="ALIAS")
@json_option
def delete_alias(name: str, alias_name: str, as_json: bool) -> None:
    """Take ALIAS away; the version that it names stays."""
    with workspace() as client:
        client.models.delete_alias(name, alias_name)
    if as_json:
        print_json({"deleted": f"{name}@{alias_name}"})
    else:
        click.echo(f"Deleted {name}@{alias_name}")


@command.command()
@click.argument("reference", shell_complete=model_names)
@click.option(
    "-o", "--output", "folder", default=".", type=click.Path(path_type=Path, file_okay=False), help="Folder to write to."
)
@json_option
def download(reference: str, folder: Path, as_json: bool) -> None:
    """Write the model's files, verified."""
    with workspace() as client, transfer(reference) as progress:
        paths = client.models.download(reference, folder, progress=progress)
    if as_json:
        print_json([str(path) for path in paths])
        return
    for path in paths:
        click.echo(path)


@command.command()
@click.argument("reference", shell_complete=model_names)
@click.option("--force", is_flag=True, help="Also while something uses it. Needs the role owner; lineage still shows it.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@json_option
def delete(reference: str, force: bool, yes: bool, as_json: bool) -> None:
    """Refused while an image, an alias or a build uses it. The version's number is never used again."""
    with workspace() as client:
        manifest = client.models.get(reference)
        # What is deleted and said is one version, also when the newest or an alias was asked for.
        exact = f"{manifest.name}:{manifest.version}"
        if force and not yes:
            click.confirm(f"Delete {exact} whatever uses it, and free its files?", abort=True, err=True)
        client.models.delete(exact, force=force)
    if as_json:
        print_json({"deleted": exact})
    else:
        click.echo(f"Deleted {exact}")


@command.command()
@click.argument("reference", shell_complete=model_names)
@json_option
def lineage(reference: str, as_json: bool) -> None:
    """What the version was made from, and what was made from it (`hedgerow lineage` has more)."""
    from hedgerow.cli.lineage import show_lineage

    show_lineage(f"model:{reference}", as_json=as_json)
