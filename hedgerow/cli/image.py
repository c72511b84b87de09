"""``hedgerow image``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from hedgerow.cli import complete
from hedgerow.cli.deletion import delete_versions, version_options
from hedgerow.cli.options import FILTER, json_option, limit_option, tag_changes, tag_filter_option, tag_option, workspace
from hedgerow.cli.output import ago, follow, pairs, print_json, print_page, print_record, short, size

if TYPE_CHECKING:
    from collections.abc import Callable

    from hedgerow.contracts.image import ImageKind, ImageRecord, Verification


@click.group("image")
def command() -> None:
    """Build images from models and look at them."""


@command.command()
@click.argument("name")
@click.option(
    "--model",
    "-m",
    "models",
    multiple=True,
    required=True,
    metavar="REF",
    shell_complete=complete.models,
    help="Model to put in; repeatable.",
)
@click.option("--kind", type=click.Choice(["onnx", "docker"]), default="onnx", show_default=True, help="What to build.")
@click.option("--script", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="Scoring script (score.py).")
@click.option(
    "--source",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    show_default="the script's own",
    help="Folder that the script needs.",
)
@click.option("--env", "environment", metavar="REF", shell_complete=complete.environments, help="Environment of the script.")
@click.option("--platform", "platforms", default="linux/amd64", show_default=True, help="Platforms, separated by commas.")
@click.option("--base", metavar="REF", help="Base of a docker image: docker:TAG, oci:DIR or docker-archive:FILE.")
@click.option("--no-verify", is_flag=True, help="Do not test the image before it counts as built.")
@tag_option
@json_option
def build(
    name: str,
    models: tuple[str, ...],
    kind: str,
    script: Path | None,
    source: Path | None,
    environment: str | None,
    platforms: str,
    base: str | None,
    no_verify: bool,
    tags: dict[str, str],
    as_json: bool,
) -> None:
    """Build NAME's next version from registered models."""
    folder = source or (script.parent if script else None)
    with workspace() as client:
        activity = client.images.build(
            name,
            models,
            kind=cast("ImageKind", kind),
            script=script.resolve().relative_to(folder.resolve()).as_posix() if script and folder else None,
            source=folder,
            environment=environment,
            platforms=platforms.split(","),
            base=base,
            verify=not no_verify,
            tags=tags,
        )
        ended = follow(client, activity.id, f"building {name}", quiet=as_json)
        record = client.images.get(ended.result["image"])
    if as_json:
        print_json(record)
    else:
        click.echo(f"Built {record.name}:{record.version} ({record.kind}, {size(record.size_bytes)}, {record.digest})")
        click.echo(_verdict(record.verification))


def _verdict(verification: Verification | None) -> str:
    if verification is None or verification.state == "skipped":
        return f"Not verified: {verification.reason if verification else 'no record'}"
    return f"Verified: {verification.reason}"


@command.command("list")
@click.option(
    "--name",
    type=FILTER,
    shell_complete=complete.images,
    help="Only this image's versions; 'team-*': of names that begin so.",
)
@click.option("--kind", type=click.Choice(["onnx", "docker", "fpga"]), help="Only of this kind.")
@click.option("--model", metavar="REF", type=FILTER, shell_complete=complete.models, help="Only made of this model.")
@click.option("--digest", metavar="sha256:…", type=FILTER, help="Only with this content.")
@tag_filter_option
@limit_option
@json_option
def list_images(
    name: str | None,
    kind: str | None,
    model: str | None,
    digest: str | None,
    tags: dict[str, str | None],
    limit: int,
    as_json: bool,
) -> None:
    """Newest first."""
    with workspace() as client:
        wanted = cast("ImageKind | None", kind)
        page = client.images.list(limit, name=name, kind=wanted, model=model, digest=digest, tags=tags)
    columns: dict[str, Callable[[ImageRecord], object]] = {
        "image": lambda i: f"{i.name}:{i.version}",
        "kind": lambda i: i.kind,
        "size": lambda i: size(i.size_bytes),
        "models": lambda i: " ".join(f"{m.name}:{m.version}" for m in i.models),
        "digest": lambda i: short(i.digest),
        "built": lambda i: ago(i.created_at),
    }
    asked = name or kind or model or digest or tags
    empty = "No image fits." if asked else "No images yet: hedgerow image build NAME --model REF"
    print_page(page, limit, columns, empty=empty, as_json=as_json)


@command.command()
@click.argument("reference", shell_complete=complete.images)
@json_option
def show(reference: str, as_json: bool) -> None:
    """Everything about one version."""
    with workspace() as client:
        record = client.images.get(reference)
    if as_json:
        print_json(record)
        return
    print_record(
        {
            "image": f"{record.name}:{record.version}",
            "kind": record.kind,
            "digest": record.digest,
            "size": size(record.size_bytes),
            "models": ", ".join(f"{m.name}:{m.version} ({short(m.digest)})" for m in record.models),
            "platforms": ", ".join(p.platform for p in record.platforms),
            "base": record.base,
            "environment": record.environment,
            "tags": pairs(record.tags),
            "verification": _verdict(record.verification),
            "built": record.created_at.isoformat(),
        }
    )


@command.command()
@click.argument("reference", shell_complete=complete.images)
@tag_changes
@json_option
def tag(reference: str, changes: dict[str, str | None], as_json: bool) -> None:
    """Set tags, take tags away."""
    if not changes:
        raise click.UsageError("Give KEY=VALUE, or --remove KEY.")
    with workspace() as client:
        record = client.images.change_tags(reference, changes)
    if as_json:
        print_json(record)
    else:
        click.echo(f"{record.name}:{record.version}  {pairs(record.tags) or 'no tags'}")


@command.command()
@click.argument("reference", shell_complete=complete.images)
@version_options
def delete(reference: str, all_versions: bool, force: bool, yes: bool, as_json: bool) -> None:
    """Delete a version, or all. Refused while a deployment, a device or an edge deployment uses it.

    The version's number is never used again.
    """
    with workspace() as client:
        delete_versions(client.images, reference, all_versions=all_versions, force=force, yes=yes, as_json=as_json)
