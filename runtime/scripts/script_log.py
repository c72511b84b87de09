"""The log of a script's process: ours, the user's prints and loggers, and a ``logging.json`` of the user's own.

print()                      logger ``azmlinfsrv.print``, level INFO
logging.getLogger(…)         our format, until the script configures logging itself (basicConfig still works)
logging.json                 in the app's root or beside the script: applied with dictConfig
"""

from __future__ import annotations

import builtins
import functools
import json
import logging
import logging.config
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hedgerow.logs import LogFormat, log_handler
from runtime.errors import LoggingFileUnusable

_OURS = ("hedgerow", "azmlinfsrv")
# Options of basicConfig that say where a script's records go and how they look.
_FORMS = frozenset({"filename", "stream", "handlers", "format", "datefmt", "style"})
_real_basic_config = logging.basicConfig
_print = builtins.print
_printed = logging.getLogger("azmlinfsrv.print")


def set_up_script_log(level: str, log_format: LogFormat, folders: Sequence[Path]) -> None:
    """Called once per process, before the script is imported. Raises LoggingFileUnusable."""
    handler = log_handler(log_format)
    for name in _OURS:
        logger = logging.getLogger(name)
        logger.addHandler(handler)
        logger.propagate = False
        logger.setLevel(level.upper())
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(level.upper())
    logging.basicConfig = functools.partial(_basic_config, handler)
    _apply_logging_file(folders)
    builtins.print = print_to_log


def _basic_config(ours: logging.Handler, **options: Any) -> None:  # noqa: ANN401 - as the standard library's
    """``logging.basicConfig`` of a script: it would do nothing, since the root logger has our handler already."""
    root = logging.getLogger()
    if ours in root.handlers and _FORMS & options.keys():
        root.removeHandler(ours)
    elif ours in root.handlers and options.get("level") is not None:
        root.setLevel(options["level"])
    _real_basic_config(**options)


def _apply_logging_file(folders: Sequence[Path]) -> None:
    file = next((place for folder in folders if (place := folder / "logging.json").is_file()), None)
    if file is None:
        return
    try:
        logging.config.dictConfig(json.loads(file.read_text(encoding="utf-8")))
    # dictConfig raises whatever the classes raise that the file names.
    except Exception as problem:  # noqa: BLE001 - the user's file
        text = f"{problem} ({problem.__cause__})" if problem.__cause__ else str(problem)
        raise LoggingFileUnusable(file=file, problem=text) from None
    # It switches off every logger that it does not name; what goes wrong in a script must be told all the same.
    for name in list(logging.root.manager.loggerDict):
        if name.partition(".")[0] == "hedgerow":
            logging.getLogger(name).disabled = False
    logging.getLogger("azmlinfsrv").info("Loaded logging config from %s", file)


@functools.wraps(print)
def print_to_log(*objects: object, sep: str | None = " ", end: str | None = "\n", file: Any = None, flush: bool = False) -> None:  # noqa: ANN401 - anything with write()
    """What goes to stdout becomes a log line; other files get what they always got."""
    if file is None or file is sys.stdout:
        _printed.info((" " if sep is None else sep).join(map(str, objects)))
    else:
        _print(*objects, sep=sep, end=end, file=file, flush=flush)
