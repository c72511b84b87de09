"""``hedgerow serve``."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hedgerow.cli import complete
from hedgerow.cli.options import workspace
from hedgerow.cli.start import become, become_image

if TYPE_CHECKING:
    from hedgerow.sdk.served_image import ServedImage

_EXTRA = {"needs": "onnxruntime", "extra": "runtime", "what": "hedgerow serve"}


@click.command("serve", context_settings={"ignore_unknown_options": True, "help_option_names": []})
@click.option(
    "--image",
    metavar="REF|TAR|FOLDER",
    shell_complete=complete.images,
    help="An image: NAME[:VERSION], a tar of `image export`, an OCI layout, or a folder with hedgerow.json.",
)
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
def command(image: str | None, options: tuple[str, ...]) -> None:
    """Score one model, script or image on this machine. ``hedgerow serve --help`` lists the settings."""
    if image is None or {"-h", "--help"} & set(options):
        become("runtime", options, **_EXTRA)
    served = _ready(image)
    if served.batchable and not any(word.partition("=")[0] == "--batchable" for word in options):
        options = ("--batchable", ",".join(served.batchable), *options)
    words = ("--image", str(served.folder), *options)
    if served.python is None:
        become("runtime", words, **_EXTRA)
    become_image(served.python, words, served.environment)


def _ready(image: str) -> ServedImage:
    from hedgerow.sdk.image_sources import refused
    from hedgerow.sdk.served_image import ready_image

    cache = cache_folder(os.environ)
    if cache is None:
        raise refused(image, "there is no folder to unpack it into", "Set XDG_CACHE_HOME, or HOME.")
    return ready_image(image, cache, workspace)


def cache_folder(environment: Mapping[str, str]) -> Path | None:
    """Where images are unpacked, by digest. May be deleted while nothing is served from it."""
    if cache := environment.get("XDG_CACHE_HOME"):
        return Path(cache, "hedgerow", "images")
    if home := environment.get("HOME"):
        return Path(home, ".cache", "hedgerow", "images")
    return None
