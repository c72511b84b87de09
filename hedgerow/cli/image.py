"""``hedgerow image``."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import click

from hedgerow.cli import complete, image_build, image_built, image_explain, image_export, image_push
from hedgerow.cli.deletion import delete_versions, version_options
from hedgerow.cli.options import FILTER, json_option, limit_option, tag_changes, tag_filter_option, workspace
from hedgerow.cli.output import ago, pairs, print_json, print_page, print_record, short, size

if TYPE_CHECKING:
    from collections.abc import Callable

    from hedgerow.contracts.image import ImageKind, ImageRecord


@click.group("image")
def command() -> None:
    """Build images from models and look at them."""


command.add_command(image_build.build)
command.add_command(image_explain.explain)
command.add_command(image_explain.sbom)
command.add_command(image_push.push)
command.add_command(image_export.export)
command.add_command(image_export.load)


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
        beside = [] if as_json else client.images.referrers(f"{record.name}:{record.version}")
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
            "base": _base(record),
            "environment": record.environment,
            "notes": "; ".join(record.notes),
            "tags": pairs(record.tags),
            "beside": ", ".join(f"{one.artifact_type} ({short(one.digest)})" for one in beside),
            "verification": image_built.verdict(record.verification),
            "built": record.created_at.isoformat(),
        }
    )


def _base(record: ImageRecord) -> str | None:
    # Of several platforms the record holds one digest over all their bases', by which nobody finds anything.
    pinned = record.base_digest if len(record.platforms) == 1 else None
    return f"{record.base} ({short(pinned)})" if pinned else record.base


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
