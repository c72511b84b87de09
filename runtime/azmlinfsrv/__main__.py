"""``azmlinfsrv --entry_script score.py …``: azmlinfsrv's flags and defaults, then the scoring server as ever.

Exit codes are azmlinfsrv's: 1 for a wrong command line, 3 when nothing could be served. What differs: it listens on this machine
only unless HEDGEROW_HOST says otherwise.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import MutableMapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import NoReturn

from runtime.__main__ import EXIT_USAGE
from runtime.__main__ import run as serve
from runtime.worker import EXIT_BOOT_FAILURE

_EXIT_WRONG_COMMAND = 1


def main(arguments: Sequence[str], environment: MutableMapping[str, str]) -> int:
    """Serve until told to stop."""
    parser = _parser()
    given = parser.parse_args(arguments)
    if not (given.entry_script or given.config_file or environment.get("AZUREML_ENTRY_SCRIPT")):
        parser.error("give the scoring script with --entry_script, or a file that names it with --config_file")
    if given.appinsights_instrumentation_key:
        environment["AML_APP_INSIGHTS_ENABLED"] = "true"
    if given.health_port and environment.get("SEPERATE_HEALTH_ENDPOINT", "").lower() != "true":
        given.health_port = None
    flags = {
        "script": given.entry_script,
        "model_dir": given.model_dir,
        "port": given.port,
        "health_port": given.health_port,
        "workers": given.worker_count,
        "config_file": given.config_file,
        "cors_origins": given.access_control_allow_origins,
    }
    # Wrong values in the environment or the config file stop azmlinfsrv as a failed start does.
    code = serve(flags, environment, _defaults())
    return EXIT_BOOT_FAILURE if code == EXIT_USAGE else code


def _defaults() -> dict[str, str]:
    """Where azmlinfsrv's differ from ours."""
    return {
        "AML_APP_ROOT": str(Path.cwd()),
        "SCORING_TIMEOUT_MS": "3600000",
        "WORKER_TIMEOUT": "300",
        # There, callers wait in the listener's queue for as long as they like.
        "HEDGEROW_QUEUE_WAIT_MS": "300000",
        "HEDGEROW_ACCESS_LOG": "text",
        "HTTP_X_MS_SERVER_VERSION": f"azmlinfsrv/{metadata.version('hedgerow')}",
    }


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.print_help(sys.stderr)
        self.exit(_EXIT_WRONG_COMMAND, f"\nazmlinfsrv: {message}\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="azmlinfsrv", description="Serve a scoring script as Azure ML's inference server does.")
    parser.add_argument("--entry_script", help="the scoring script, with init() and run()")
    parser.add_argument("--model_dir", help="its model folder, AZUREML_MODEL_DIR for the script")
    parser.add_argument("--port", type=_port, help="port to listen on (5001 unless given)")
    parser.add_argument("--health_port", type=_port, help="second port for GET /, with SEPERATE_HEALTH_ENDPOINT=true (5000)")
    parser.add_argument("--worker_count", type=_count, help="processes that run the script (1 unless given)")
    parser.add_argument("--config_file", help="JSON file of settings, with the names of environment variables as keys")
    parser.add_argument("--appinsights_instrumentation_key", help="accepted and not used: there is no Application Insights here")
    parser.add_argument("--access_control_allow_origins", help='origins whose pages may call, such as "microsoft.com, bing.com"')
    return parser


def _port(text: str) -> str:
    if not text.isdecimal() or not 1 <= int(text) <= 65_535:
        raise argparse.ArgumentTypeError(f"{text!r} is no port; use 1 to 65535")
    return text


def _count(text: str) -> str:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of workers; use 1 or more")
    return text


def console() -> NoReturn:
    """The console script."""
    sys.exit(main(sys.argv[1:], os.environ))


if __name__ == "__main__":
    console()
