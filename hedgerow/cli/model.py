"""``hedgerow model``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hedgerow.cli import complete, model_alias, model_convert
from hedgerow.cli.deletion import delete_versions, version_options
from hedgerow.cli.options import (
    FILTER,
    json_option,
    key_values,
    key_values_or_keys,
    limit_option,
    output_option,
    tag_changes,
    tag_filter_option,
    tag_option,
    workspace,
)
from hedgerow.cli.output import (
    ago,
    count,
    pairs,
    print_json,
    print_page,
    print_record,
    print_table,
    short,
    size,
    transfer,
)
from hedgerow.cli.times import since_option, until_option

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from hedgerow.contracts.model import ModelManifest, TensorSpec


@click.group("model")
def command() -> None:
    """Register and look at models."""


command.add_command(model_alias.command)
command.add_command(model_convert.convert)


@command.command()
@click.argument("name", shell_complete=complete.models)
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
    secrets: list[tuple[str, str]] = []
    with workspace() as client:
        if paths:
            with transfer(name) as progress:
                manifest = client.models.register(
                    name,
                    *paths,
                    sample_input=sample_input,
                    run_id=run_id,
                    progress=progress,
                    on_secret=lambda path, what: secrets.append((path, what)),
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
    for path, what in secrets:
        kept = "It is in the workspace now; an image with this model is refused unless you name it:"
        click.echo(f"{path} {what}. {kept} --allow-secret {name}/{path}", err=True)
    if commit and manifest.source is None:
        click.echo("No commit was recorded: the first PATH lies in no git repository with a commit, or git is missing.", err=True)


@command.command("list")
@click.option(
    "--name", type=FILTER, shell_complete=complete.models, help="Only this model's versions; 'pump*': of names that begin so."
)
@tag_filter_option
@click.option(
    "--property",
    "properties",
    multiple=True,
    callback=key_values_or_keys,
    metavar="KEY[=VALUE]",
    help="Only with this property, or with any value of it; repeatable.",
)
@click.option("--framework", type=FILTER, help="Only of this framework.")
@click.option(
    "--search",
    metavar="WORDS",
    type=FILTER,
    help="Words that all occur in name, framework, tags or description; 'vib*' begins so.",
)
@since_option
@until_option
@click.option("--run", metavar="ID", type=FILTER, shell_complete=complete.runs, help="Only what this run made.")
@click.option("--digest", metavar="sha256:…", type=FILTER, help="Only with this content.")
@click.option("--data", metavar="DIGEST", type=FILTER, help="Only what was made from this data set.")
@click.option("--alias", type=FILTER, help="Only versions that this alias names.")
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
    print_page(page, limit, columns, empty=empty, as_json=as_json)


@command.command()
@click.argument("reference", shell_complete=complete.models)
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
@click.argument("reference", shell_complete=complete.models)
@tag_changes
@click.option(
    "--property", "properties", multiple=True, callback=key_values, metavar="KEY=VALUE", help="Add a property; repeatable."
)
@click.option("--description", help="Replace the description.")
@json_option
def tag(
    reference: str,
    changes: Mapping[str, str | None],
    properties: Mapping[str, str],
    description: str | None,
    as_json: bool,
) -> None:
    """Set tags of a version, take tags away, add properties."""
    if not changes and not properties and description is None:
        raise click.UsageError("Give KEY=VALUE, --remove KEY, --property KEY=VALUE or --description TEXT.")
    with workspace() as client:
        manifest = client.models.update(reference, tags=changes, properties=properties, description=description)
    if as_json:
        print_json(manifest)
    else:
        click.echo(f"{manifest.name}:{manifest.version}  {pairs(manifest.tags) or 'no tags'}")


@command.command()
@click.argument("reference", shell_complete=complete.models)
@output_option
@click.option(
    "--file",
    "files",
    multiple=True,
    metavar="PATH",
    shell_complete=complete.model_files,
    help="Only this file, by its path in the model; repeatable.",
)
@json_option
def download(reference: str, folder: Path, files: tuple[str, ...], as_json: bool) -> None:
    """Write the model's files, verified."""
    with workspace() as client, transfer(reference) as progress:
        paths = client.models.download(reference, folder, files=files or None, progress=progress)
    if as_json:
        print_json([str(path) for path in paths])
        return
    for path in paths:
        click.echo(path)


@command.command()
@click.argument("reference", shell_complete=complete.models)
@version_options
def delete(reference: str, all_versions: bool, force: bool, yes: bool, as_json: bool) -> None:
    """Delete a version, or all. Refused while an image, an alias or a build uses it. The version's number is never used again."""
    with workspace() as client:
        delete_versions(client.models, reference, all_versions=all_versions, force=force, yes=yes, as_json=as_json)


@command.command()
@click.argument("reference", shell_complete=complete.models)
@json_option
def lineage(reference: str, as_json: bool) -> None:
    """What the version was made from, and what was made from it (`hedgerow lineage` has more)."""
    from hedgerow.cli.lineage import show_lineage

    show_lineage(f"model:{reference}", as_json=as_json)
