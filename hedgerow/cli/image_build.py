"""``hedgerow image build``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from hedgerow.cli import complete
from hedgerow.cli.image_built import tell
from hedgerow.cli.options import json_option, key_values, tag_option, workspace
from hedgerow.contracts.platforms import normal_platform

if TYPE_CHECKING:
    from hedgerow.contracts.image import ImageKind, StageName


@click.command()
@click.argument("name", shell_complete=complete.images)
@click.option(
    "--model",
    "-m",
    "models",
    multiple=True,
    metavar="REF",
    shell_complete=complete.models,
    help="Model to put in; repeatable. Kind onnx converts those that are not ONNX yet.",
)
@click.option(
    "--stage",
    "stages",
    multiple=True,
    metavar="STAGE=REF",
    callback=key_values,
    shell_complete=complete.stage_pairs,
    help="Of kind fpga: the model of stage pre, accelerated or post.",
)
@click.option("--kind", type=click.Choice(["onnx", "docker", "fpga"]), default="onnx", show_default=True, help="What to build.")
@click.option("--script", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="Scoring script (score.py).")
@click.option(
    "--source",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    show_default="the script's own",
    help="Folder that the script needs.",
)
@click.option("--env", "environment", metavar="REF", shell_complete=complete.environments, help="Environment of the script.")
@click.option("--platform", "platforms", default="linux/amd64", show_default=True, help="Platforms, separated by commas.")
@click.option(
    "--base",
    "bases",
    metavar="[PLATFORM=]REF",
    multiple=True,
    help="Base of a docker image (of one platform): registry:HOST/NAME:TAG, docker:TAG, oci:DIR or docker-archive:FILE.",
)
@click.option(
    "--compression",
    type=click.Choice(["gzip", "zstd"]),
    default="gzip",
    show_default=True,
    help="How layers of a docker image are packed; zstd is smaller and faster, and read by Docker 23 and newer.",
)
@click.option("--dockerfile", is_flag=True, help="Let a container engine make what has no wheel; not reproducible.")
@click.option(
    "--allow-secret",
    "allowed_secrets",
    multiple=True,
    metavar="PATH",
    help="File of the source (of a model: MODEL/PATH) that only looks like one.",
)
@click.option("--no-verify", is_flag=True, help="Do not test the image before it counts as built.")
@click.option("--upgrade", is_flag=True, help="Lock the newest packages that fit, instead of those of the last build.")
@click.option("--rebuild", is_flag=True, help="Make everything anew, though nothing changed.")
@tag_option
@json_option
def build(
    name: str,
    models: tuple[str, ...],
    stages: dict[str, str],
    kind: str,
    script: Path | None,
    source: Path | None,
    platforms: str,
    bases: tuple[str, ...],
    dockerfile: bool,
    no_verify: bool,
    as_json: bool,
    **same: Any,  # noqa: ANN401 - the options that the SDK has under the same names and types
) -> None:
    """Build NAME's next version from registered models."""
    everywhere, of_platforms = _bases(bases, platforms.split(","))
    _check_models(kind, models, stages)
    _check_parts(kind, {"--script": script, "--base": bases, "--dockerfile": dockerfile})
    folder = source or (script.parent if script else None)
    entry = _path_in(folder, script) if script and folder else None
    with workspace() as client:
        activity = client.images.build(
            name,
            models,
            stages=cast("dict[StageName, str]", stages),
            kind=cast("ImageKind", kind),
            script=entry,
            source=folder,
            platforms=platforms.split(","),
            base=everywhere,
            bases=of_platforms,
            dockerfile=dockerfile,
            verify=not no_verify,
            **same,
        )
        tell(client, activity, as_json=as_json)


def _check_models(kind: str, models: tuple[str, ...], stages: dict[str, str]) -> None:
    if unknown := sorted(stages.keys() - complete.STAGES):
        raise click.UsageError(f"There is no stage {unknown[0]!r}; there are {', '.join(complete.STAGES)}.")
    if kind == "fpga" and (models or not stages):
        raise click.UsageError("An image of kind fpga is made of --stage accelerated=REF, and pre=REF and post=REF if needed.")
    if kind != "fpga" and stages:
        raise click.UsageError("--stage goes with --kind fpga.")
    if kind != "fpga" and not models:
        raise click.UsageError("Give at least one --model REF.")


def _check_parts(kind: str, given: dict[str, object]) -> None:
    """Said here already: the packager would say so only after the models were converted."""
    for option, value in given.items():
        if value and kind != "docker":
            raise click.UsageError(f"{option} goes with --kind docker: an image of kind {kind} holds models only.")


def _path_in(folder: Path, script: Path) -> str:
    """The script by its '/'-separated path in the source folder."""
    found, root = script.resolve(), folder.resolve()
    if not found.is_relative_to(root):
        raise click.UsageError(f"The script {script} is not in the source folder {folder}. Put it there, or leave --source out.")
    return found.relative_to(root).as_posix()


def _bases(given: tuple[str, ...], platforms: list[str]) -> tuple[str | None, dict[str, str]]:
    """The base of all platforms, and those of single ones (`linux/arm64=oci:DIR`)."""
    everywhere: str | None = None
    of_platforms: dict[str, str] = {}
    for text in given:
        platform, equals, reference = text.partition("=")
        if equals and platform.startswith("linux/"):
            _check_built(text, platform, platforms)
            of_platforms[platform] = _base(reference)
        elif everywhere is None:
            everywhere = _base(text)
        else:
            raise click.UsageError(
                f"--base was given twice: {everywhere} and {text}. Write PLATFORM=REF for bases of single platforms."
            )
    return everywhere, of_platforms


def _check_built(text: str, platform: str, platforms: list[str]) -> None:
    """Said here: a base that no platform is built on would be passed over in silence. Raises UnsupportedPlatform."""
    if normal_platform(platform) not in map(normal_platform, platforms):
        raise click.UsageError(f"--base {text}: {platform} is not built. Add it to --platform, or leave this base out.")


def _base(reference: str) -> str:
    """A path as it is meant here: the control plane, which opens it, works in another folder."""
    scheme, colon, path = reference.partition(":")
    if scheme not in ("oci", "docker-archive") or not path:
        return reference
    return f"{scheme}{colon}{Path(path).expanduser().absolute()}"
