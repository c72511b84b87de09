"""``hedgerow image``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from hedgerow.cli.options import json_option, limit_option, tag_option, workspace
from hedgerow.cli.output import ago, follow, pairs, print_items, print_json, print_record, say_more, short, size

if TYPE_CHECKING:
    from collections.abc import Callable

    from hedgerow.contracts.image import ImageKind, ImageRecord, Verification


@click.group("image")
def command() -> None:
    """Build images from models and look at them."""


@command.command()
@click.argument("name")
@click.option("--model", "-m", "models", multiple=True, required=True, metavar="REF", help="Model to put in; repeatable.")
@click.option("--kind", type=click.Choice(["onnx", "docker"]), default="onnx", show_default=True)
@click.option("--script", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="Scoring script (score.py).")
@click.option("--source", type=click.Path(path_type=Path, exists=True, file_okay=False), help="Folder of the script [its own].")
@click.option("--env", "environment", metavar="REF", help="Environment of the script.")
@click.option("--platform", "platforms", default="linux/amd64", show_default=True, help="Platforms, separated by commas.")
@click.option("--base", metavar="REF", help="docker:TAG, oci:DIR or docker-archive:FILE")
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
@click.option("--name", help="Only this image's versions; with a star at the end, of images whose names begin so.")
@click.option("--kind", type=click.Choice(["onnx", "docker", "fpga"]), help="Only of this kind.")
@click.option("--model", metavar="REF", help="Only made of this model.")
@click.option("--digest", help="Only with this content.")
@tag_option
@limit_option
@json_option
def list_images(
    name: str | None,
    kind: str | None,
    model: str | None,
    digest: str | None,
    tags: dict[str, str],
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
    print_items(page.items, columns, empty=empty, as_json=as_json)
    say_more(page.next, limit)


@command.command()
@click.argument("reference")
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
@click.argument("reference")
@tag_option
@click.option("--remove", "removed", multiple=True, metavar="KEY", help="A tag to take away; repeatable.")
@json_option
def tag(reference: str, tags: dict[str, str], removed: tuple[str, ...], as_json: bool) -> None:
    """Set tags, take tags away."""
    if not tags and not removed:
        raise click.UsageError("Give --tag KEY=VALUE, or --remove KEY.")
    with workspace() as client:
        record = client.images.change_tags(reference, {**dict.fromkeys(removed), **tags})
    if as_json:
        print_json(record)
    else:
        click.echo(f"{record.name}:{record.version} {pairs(record.tags)}".rstrip())


@command.command()
@click.argument("reference")
@click.option("--force", is_flag=True, help="Also while something uses it; needs the role owner.")
@json_option
def delete(reference: str, force: bool, as_json: bool) -> None:
    """Refused while a deployment, a device or an edge deployment uses it."""
    with workspace() as client:
        record = client.images.get(reference)
        exact = f"{record.name}:{record.version}"
        client.images.delete(exact, force=force)
    if as_json:
        print_json({"deleted": exact})
    else:
        click.echo(f"Deleted {exact}")
