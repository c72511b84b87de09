"""``python -P -m runtime.prove``: flags to a proof or a description, JSON on stdout.

Exit codes: 0 every model passed, 1 one did not, 2 wrong usage.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import MutableMapping, Sequence
from pathlib import Path
from typing import get_args

import msgspec

from hedgerow.errors import HedgerowError
from hedgerow.logs import set_up_logs
from runtime.models.onnx_model import OnnxModel, silence_telemetry
from runtime.models.providers import Arena, Engine, parse_providers
from runtime.models.warm_up import Wishes
from runtime.prove.measure import prove
from runtime.prove.quantization import node_facts
from runtime.serving_plan import PlannedModel, image_models, plan_model

EXIT_FAILED, EXIT_USAGE = 1, 2


def main(arguments: Sequence[str], environment: MutableMapping[str, str]) -> int:
    """Print a JSON list of ProofReports, or with --describe one object."""
    silence_telemetry(environment)
    set_up_logs("warning")
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.describe and not options.model:
        parser.error("--describe needs --model")
    try:
        wanted = _wanted(options)
        if options.describe:
            return _print(_description(wanted[0][0]))
        wishes = Wishes(threads=options.threads, engine=Engine(parse_providers(options.providers), options.arena))
    except HedgerowError as problem:
        print(problem.sentence(), file=sys.stderr)
        return EXIT_USAGE
    reports = [prove(model, folders, wishes) for model, folders in wanted]
    _print(reports)
    return 0 if all(report.passed for report in reports) else EXIT_FAILED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -P -m runtime.prove", description="Measure a model; the answer is JSON.")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--image", type=Path, help="folder of an image (it holds hedgerow.json)")
    source.add_argument("--model", type=Path, help="an ONNX file")
    parser.add_argument("--name", help="name of --model in the report")
    parser.add_argument("--parity", type=Path, help="folder with parity.json and parity.npz, instead of those beside the model")
    parser.add_argument(
        "--providers", default="cpu", help="execution providers in order of preference, as in cuda:device_id=0,cpu"
    )
    parser.add_argument("--threads", type=int, default=1, help="threads inside one run")
    parser.add_argument("--arena", choices=get_args(Arena), default="on", help="memory that is kept between runs")
    parser.add_argument("--describe", action="store_true", help="tell what --model takes, answers and has in it; measure nothing")
    return parser


def _wanted(options: argparse.Namespace) -> list[tuple[PlannedModel, list[Path]]]:
    """The models and, for each, the folders that may hold its vectors."""
    given = [options.parity] if options.parity else None
    if options.model:
        model = plan_model(options.model, options.name).models[0]
        return [(model, given or [model.file.parent])]
    found = image_models(options.image)
    # The image's root holds the vectors of its only model; those of several lie with each.
    root = [options.image] if len(found) == 1 else []
    return [(model, given or [folder, *root]) for model, folder in found]


def _description(planned: PlannedModel) -> dict[str, object]:
    model = OnnxModel(planned.name, planned.file)
    facts, nodes = model.facts, node_facts(planned.file)
    return {
        "inputs": model.inputs,
        "outputs": model.outputs,
        "opsets": facts.opsets,
        "ir_version": facts.ir_version,
        "operators": nodes.operators,
        "compute": nodes.compute,
        "not_quantized": nodes.not_quantized,
    }


def _print(answer: object) -> int:
    sys.stdout.buffer.write(msgspec.json.encode(answer) + b"\n")
    sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
