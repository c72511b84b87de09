"""``hedgerow model convert``: a trained model as ONNX, and what was measured of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from hedgerow.cli import complete
from hedgerow.cli.options import json_option, tag_option, workspace
from hedgerow.cli.output import follow, print_json, print_record, size

if TYPE_CHECKING:
    from hedgerow.contracts.model import ModelManifest

_PREFIX = "hedgerow."


@click.command()
@click.argument("reference", shell_complete=complete.models)
@click.option("--name", shell_complete=complete.models, help="Name of the converted model.  [default: the model's with -onnx]")
@click.option("--entry", metavar="PATH", shell_complete=complete.model_files, help="The file to convert, when several fit.")
@click.option(
    "--quantize",
    type=click.Choice(["none", "dynamic", "static"]),
    default="none",
    show_default=True,
    help="Make it compute in 8-bit integers: dynamic needs no data, static takes the sample input (nets, accelerators).",
)
@click.option("--opset", type=click.IntRange(1, 100), metavar="N", help="ONNX operator set to aim for.")
@click.option(
    "--max-loss",
    "accuracy_loss_max",
    type=click.FloatRange(min=0),
    default=0.01,
    show_default=True,
    help="What --quantize may cost: share of rows whose label changes, or relative error.",
)
@click.option("--atol", type=click.FloatRange(min=0), default=1e-4, show_default=True, help="Absolute error of the converter.")
@click.option("--rtol", type=click.FloatRange(min=0), default=1e-3, show_default=True, help="Relative error of the converter.")
@tag_option
@json_option
def convert(
    reference: str,
    as_json: bool,
    **wanted: Any,  # noqa: ANN401 - the options by the names that the SDK has for them
) -> None:
    """Convert a model to ONNX, check it against the original, and register it beside it.

    \b
    hedgerow model convert iris:1
    hedgerow model convert defects:3 --quantize static --name defects-int8
    """
    with workspace() as client:
        activity = client.models.convert(reference, **wanted)
        ended = follow(client, activity.id, f"converting {reference}", quiet=as_json)
        made = client.models.get(ended.result["model"])
    if as_json:
        print_json(made)
        return
    said = "was converted before:" if ended.result.get("reused") == "true" else "is now"
    click.echo(f"{made.properties.get(f'{_PREFIX}converted-from', reference)} {said} {made.name}:{made.version}")
    print_record(_measured(made))


def _measured(made: ModelManifest) -> dict[str, object]:
    """What the conversion left in the properties, in words."""
    known = {name.removeprefix(_PREFIX): value for name, value in made.properties.items() if name.startswith(_PREFIX)}
    memory, quantized = known.get("peak-memory-bytes"), known.get("quantized", "none")
    return {
        "size": size(sum(file.size_bytes for file in made.files if file.path == "model.onnx")),
        "opset": known.get("opset"),
        "against the original": _agreement(known, "agreement"),
        "quantised": quantized if quantized != "none" else "",
        "against full precision": _agreement(known, "quantization"),
        "one row": f"{known['latency-ms']} ms" if "latency-ms" in known else "",
        "peak memory": size(int(memory)) if memory else "",
        "batchable": known.get("batchable"),
        "tools": known.get("conversion-tools"),
        "notes": known.get("conversion-notes"),
    }


def _agreement(known: dict[str, str], what: str) -> str:
    rows = known.get(f"{what}.rows")
    if rows is None:
        return ""
    error, labels = known.get(f"{what}.max-abs-error", "?"), known.get(f"{what}.labels-changed", "0")
    tolerance = known.get(f"{what}.tolerance", "")
    return f"{rows} rows, largest error {error}, {labels} labels changed" + (f" (allowed: {tolerance})" if tolerance else "")
