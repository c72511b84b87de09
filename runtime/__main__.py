"""``python -P -m runtime``: settings from flags and environment, a plan, a server. The only file here that reads the environment.

Exit codes: 0 after SIGTERM, 2 wrong usage, 3 nothing could be served (one sentence says whose fault it is).
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Mapping, MutableMapping, Sequence
from pathlib import Path

from hedgerow.errors import HedgerowError, InvalidSetting, UserError
from hedgerow.logs import set_up_logs
from hedgerow.settings import rows
from runtime.aml.environment import aml_environment, of_image
from runtime.models.onnx_model import silence_telemetry
from runtime.observing.collected_files import collection_variables
from runtime.server import serve
from runtime.serving_plan import ServingPlan, image_variables, plan_serving
from runtime.settings import RuntimeSettings, load_runtime_settings, without_effect
from runtime.worker import EXIT_BOOT_FAILURE

EXIT_USAGE = 2
_log = logging.getLogger("hedgerow.runtime")


def main(arguments: Sequence[str], environment: MutableMapping[str, str]) -> int:
    """Serve until told to stop."""
    return run(vars(_parser().parse_args(arguments)), environment, {})


def run(flags: Mapping[str, str | None], environment: MutableMapping[str, str], defaults: Mapping[str, str]) -> int:
    """The same with flags that are parsed already. ``defaults`` are variables' values where nobody gives others."""
    silence_telemetry(environment)
    script, config_file = flags.get("script"), flags.get("config_file")
    try:
        aml = aml_environment(
            environment,
            script=Path(script) if script else None,
            config_file=Path(config_file) if config_file else None,
            defaults={**defaults, **of_image(image_variables(flags.get("image") or environment.get("HEDGEROW_IMAGE")))},
        )
        settings = load_runtime_settings(aml.values, flags)
    except UserError as problem:
        return _refuse(problem, EXIT_USAGE)
    set_up_logs(settings.log_level, settings.log_format)
    for note in (*aml.notes, *without_effect(settings)):
        _log.warning("%s", note)
    try:
        plan = plan_serving(settings)
        _prepare_environment(environment, plan, settings)
        serve(settings, plan)
    except InvalidSetting as problem:
        return _refuse(problem, EXIT_USAGE)
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


def _prepare_environment(environment: MutableMapping[str, str], plan: ServingPlan, settings: RuntimeSettings) -> None:
    """What the script may see. Workers inherit it."""
    for secret in (row.env for row in rows(RuntimeSettings) if row.secret):
        environment.pop(secret, None)
    if settings.collect:
        # ModelDataCollector in the script writes where the server does.
        environment.update(collection_variables(settings))
    environment.update(plan.variables)
    if plan.model_dir is not None:
        environment["AZUREML_MODEL_DIR"] = str(plan.model_dir)
    if plan.script is not None:
        environment["AML_APP_ROOT"] = str(plan.script.place.root)
        environment["AZUREML_ENTRY_SCRIPT"] = str(plan.script.file)
        # Its processes log as the server does, whoever said how.
        environment["AZUREML_LOG_LEVEL"], environment["HEDGEROW_LOG_FORMAT"] = settings.log_level, settings.log_format
    # The image's variables do not get to switch it on again.
    silence_telemetry(environment)


def _refuse(problem: HedgerowError, code: int) -> int:
    print(problem.sentence(), file=sys.stderr, flush=True)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
