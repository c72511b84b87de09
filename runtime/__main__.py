"""``python -P -m runtime``: settings from flags and environment, a plan, a server. The only file here that reads the environment.

Exit codes: 0 after SIGTERM, 2 wrong usage, 3 nothing could be served (one sentence says whose fault it is).
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import MutableMapping, Sequence

from hedgerow.contracts.names import ENV_TELEMETRY_TOKEN
from hedgerow.errors import HedgerowError, UserError
from hedgerow.logs import set_up_logs
from hedgerow.settings import rows
from runtime.onnx_model import silence_telemetry
from runtime.server import serve
from runtime.serving_plan import ServingPlan, plan_serving
from runtime.settings import RuntimeSettings, load_runtime_settings
from runtime.worker import EXIT_BOOT_FAILURE

EXIT_USAGE = 2


def main(arguments: Sequence[str], environment: MutableMapping[str, str]) -> int:
    """Serve until told to stop."""
    silence_telemetry(environment)
    flags = vars(_parser().parse_args(arguments))
    try:
        settings = load_runtime_settings(environment, flags)
    except UserError as problem:
        return _refuse(problem, EXIT_USAGE)
    set_up_logs(settings.log_level, settings.log_format)
    try:
        plan = plan_serving(settings)
        _prepare_environment(environment, plan)
        serve(settings, plan)
    except HedgerowError as problem:
        return _refuse(problem, EXIT_BOOT_FAILURE)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="hedgerow serve", description="Serve models or a scoring script over HTTP.")
    for row in rows(RuntimeSettings):
        # A secret on a command line is seen by every user of the machine.
        if row.secret:
            continue
        shown = f"; {row.shown_default} unless given" if row.shown_default else ""
        text = f"{row.help} ({row.env}{shown})".replace("%", "%%")
        # Without a value a switch means yes.
        switch = row.type_name == "bool"
        flag = f"--{row.name.replace('_', '-')}"
        parser.add_argument(flag, help=text, metavar="VALUE", nargs="?" if switch else None, const="true" if switch else None)
    return parser


def _prepare_environment(environment: MutableMapping[str, str], plan: ServingPlan) -> None:
    """What the script may see. Workers inherit it."""
    environment.pop(ENV_TELEMETRY_TOKEN, None)
    environment.update(plan.variables)
    if plan.model_dir is not None:
        environment["AZUREML_MODEL_DIR"] = str(plan.model_dir)
    # The image's variables do not get to switch it on again.
    silence_telemetry(environment)


def _refuse(problem: HedgerowError, code: int) -> int:
    print(problem.sentence(), file=sys.stderr, flush=True)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
