"""``hedgerow image explain`` and ``hedgerow image sbom``: what an image is made of, and why it differs from another."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hedgerow.atomic_write import atomic_write
from hedgerow.cli import complete
from hedgerow.cli.options import json_option, workspace
from hedgerow.cli.output import as_shown, plain, print_json, print_table, size

if TYPE_CHECKING:
    from hedgerow.sdk.explain import Change, Explanation, FileExplained, LayerExplained, PlatformExplained

# How many reasons fit behind a layer; --layer shows all.
_REASONS = 3
_DIGEST = re.compile(r"sha256:([0-9a-f]{12})[0-9a-f]{52}")
_FILE_STATES = ("changed", "new", "moved", "removed")


@click.command("explain")
@click.argument("reference", shell_complete=complete.images)
@click.option("--against", metavar="REF", shell_complete=complete.images, show_default="the version before", help="Compare with.")
@click.option("--layer", "wanted", metavar="N|PURPOSE", help="Only this layer, with its files that differ.")
@click.option("--files", "all_files", is_flag=True, help="Every file: its size, and where it came from.")
@json_option
def explain(reference: str, against: str | None, wanted: str | None, all_files: bool, as_json: bool) -> None:
    """What each layer weighs, where each file came from, and why a layer was made anew."""
    with workspace() as client:
        found = client.images.explain(reference, against)
    shown = chosen(found, wanted, all_files=all_files)
    if as_json:
        print_json(shown)
        return
    print_explanation(shown, with_files=all_files or wanted is not None)


@click.command("sbom")
@click.argument("reference", shell_complete=complete.images)
@click.option("--platform", metavar="OS/ARCH", help="Which one's, where the image has several.")
@click.option("-o", "--output", "file", type=click.Path(path_type=Path, dir_okay=False), help="File to write to.")
@click.option("--force", is_flag=True, help="Overwrite that file.")
def sbom(reference: str, platform: str | None, file: Path | None, force: bool) -> None:
    """The bill of materials (CycloneDX, JSON): packages with hashes and licences, models, base."""
    from hedgerow.sdk.errors import OutputExists

    if file is not None and file.exists() and not force:
        raise OutputExists(path=file)
    with workspace() as client:
        document = client.images.sbom(reference, platform)
    if file is None:
        click.echo(as_shown(document))
        return
    try:
        atomic_write(file, document, replace=force)
    except FileExistsError:  # it came there meanwhile
        raise OutputExists(path=file) from None
    except OSError as problem:
        raise click.ClickException(f"{file} cannot be written: {problem.strerror}. Choose another place.") from None


def print_explanation(found: Explanation, *, with_files: bool) -> None:
    """For people: a table of layers for each platform, below it (``with_files``) one of files for each layer."""
    _print_heading(found)
    for platform in found.platforms:
        _print_platform(platform, compared=found.against is not None, with_files=with_files)


def chosen(found: Explanation, wanted: str | None, *, all_files: bool) -> Explanation:
    """The part that was asked for: one layer (by its number or words of its purpose), all files or those that differ."""
    import msgspec

    def kept(layer: LayerExplained) -> LayerExplained:
        differing = [file for file in layer.files if file.state != "same"]
        return layer if all_files else msgspec.structs.replace(layer, files=differing)

    def asked(layer: LayerExplained) -> bool:
        return wanted is None or wanted == str(layer.number) or (not wanted.isdigit() and wanted in layer.purpose)

    platforms = [
        msgspec.structs.replace(platform, layers=[kept(layer) for layer in platform.layers if asked(layer)])
        for platform in found.platforms
    ]
    if wanted is not None and not any(platform.layers for platform in platforms):
        known = ", ".join(f"{layer.number} ({layer.purpose})" for layer in found.platforms[0].layers)
        raise click.UsageError(f"There is no layer {plain(wanted)!r}. There are: {plain(known)}")
    return msgspec.structs.replace(found, platforms=platforms)


def layer_row(layer: LayerExplained, *, compared: bool) -> list[object]:
    """Number, what it holds, bytes stored and unpacked, files; compared with another image also its state."""
    from hedgerow.sdk.explain import headline

    unpacked = "" if layer.unpacked_bytes is None else size(layer.unpacked_bytes)
    row: list[object] = [layer.number, headline(layer), size(layer.size_bytes), unpacked, layer.file_count or ""]
    return [*row, layer.state] if compared else row


def why(layer: LayerExplained, *, at_length: bool = False) -> str:
    """Why a layer was made anew, in words; the first reasons, or (``at_length``) all."""
    reasons = [change_words(change) for change in layer.because]
    if len(reasons) > _REASONS and not at_length:
        reasons = [*reasons[:_REASONS], f"and {len(reasons) - _REASONS} more"]
    states: Counter[str] = Counter(file.state for file in layer.files)
    files = ", ".join(f"{states[state]} {state}" for state in _FILE_STATES if states[state])
    if files:
        reasons.append(f"files: {files}")
    return "; ".join(reasons) or "packed in another way"


def change_words(change: Change) -> str:
    """``numpy 2.4.5 → 2.4.6``; digests are shortened."""
    before, now = (None if value is None else _DIGEST.sub(r"\1", value) for value in (change.before, change.now))
    if before is None:
        return f"{change.name} {now} added"
    return f"{change.name} {before} gone" if now is None else f"{change.name} {before} → {now}"


def _print_heading(found: Explanation) -> None:
    told = f"{found.image} ({found.kind}, built by Hedgerow {found.tool_version})"
    if found.against is None:
        click.echo(plain(f"{told}. There is nothing to compare it with."))
        return
    click.echo(plain(f"{told} against {found.against}"))
    if found.identical:
        click.echo("They are the same, byte for byte.")
    for change in found.inputs:
        click.echo(plain(f"  {change_words(change)}"))


def _print_platform(platform: PlatformExplained, *, compared: bool, with_files: bool) -> None:
    weight = f"{size(platform.shared_bytes + platform.fetch_bytes)} in layers"
    told = f"{size(platform.fetch_bytes)} to fetch, {size(platform.shared_bytes)} shared" if compared else weight
    click.echo(plain(f"\n{platform.platform}: {told}"))
    columns = ["#", "layer", "stored", "unpacked", "files", *(["state"] if compared else [])]
    print_table(columns, [layer_row(layer, compared=compared) for layer in platform.layers], "No layers.")
    # Not a column: a terminal that is too narrow for a table cuts it, and wraps a sentence.
    for layer in platform.layers:
        if layer.state == "rebuilt":
            click.echo(plain(f"{layer.number}  {why(layer, at_length=with_files)}"))
    for layer in platform.layers if with_files else []:
        if layer.files:
            click.echo(plain(f"\n{layer.purpose}"))
            print_table(["file", "size", *(["state"] if compared else []), "from"], _file_rows(layer.files, compared), "")


def _file_rows(files: Iterable[FileExplained], compared: bool) -> list[list[object]]:
    rows: list[list[object]] = []
    for file in files:
        weight = size(file.size_bytes) if file.state != "removed" else ""
        if file.size_before is not None:
            weight = f"{size(file.size_before)} → {weight or 'gone'}"
        rows.append([file.path, weight, *([file.state] if compared else []), file.origin])
    return rows
