"""Log set-up for every process: one line of text for people, or one JSON object a line for machines."""

from __future__ import annotations

import json
import logging
import sys
import threading
from datetime import UTC, datetime
from typing import Literal

LogFormat = Literal["text", "json"]
# Between two lines about what anybody can bring about as often as they like.
QUIET_S = 10.0
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "pid": record.process,
            "message": record.getMessage(),
        }
        entry |= {name: value for name, value in vars(record).items() if name not in _STANDARD}
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return json.dumps(entry, default=str)


# What strangers send ends up in messages: no line of theirs may look like one of ours, nor command the terminal.
_CONTROL = {code: repr(chr(code))[1:-1] for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) != "\t"}


class _TextLines(logging.Formatter):
    def __init__(self) -> None:
        super().__init__("%(asctime)s.%(msecs)03d %(levelname).1s [%(process)d] %(name)s - %(message)s", "%Y-%m-%d %H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        # ``extra={"traceback": text}``: a traceback that was cut to size. Indented, so that no line of it looks like one of ours.
        lines = str(getattr(record, "traceback", "")).splitlines()
        return "\n    ".join([super().format(record), *(line.translate(_CONTROL) for line in lines)])

    def formatMessage(self, record: logging.LogRecord) -> str:
        record.message = record.message.translate(_CONTROL)
        return super().formatMessage(record)


class Seldom:
    """Says when a line is due about something that strangers can cause at will: nobody fills the disk with what is said of it.

    The first is due at once; then one every ``QUIET_S`` tells of all that came since. What comes after the last line is told
    by the next. For any thread.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._untold = 0
        self._quiet_until_s = float("-inf")

    def due(self, now_s: float) -> int:
        """Note one more. How many a line is to tell of, this one included; 0 when there is to be none."""
        with self._lock:
            self._untold += 1
            if now_s < self._quiet_until_s:
                return 0
            told, self._untold = self._untold, 0
            self._quiet_until_s = now_s + QUIET_S
            return told


def log_handler(log_format: LogFormat = "text") -> logging.Handler:
    """A handler that writes to stderr in one of the two formats."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonLines() if log_format == "json" else _TextLines())
    return handler


def set_up_logs(level: str = "info", log_format: LogFormat = "text") -> None:
    """Send this process's log to stderr; called once, by a composition root."""
    logging.basicConfig(level=level.upper(), handlers=[log_handler(log_format)], force=True)
