"""The two classes that a user's ``logging.json`` names by azmlinfsrv's module."""

from __future__ import annotations

import logging
import time


class AMLLogFormatter(logging.Formatter):
    """``2026-01-31 12:00:00,123 I [17] azmlinfsrv.print - text``, in UTC."""

    converter = staticmethod(time.gmtime)

    def __init__(
        self,
        fmt: str = "%(asctime)s %(levelname).1s [%(process)d] %(name)s - %(message)s",
        datefmt: str | None = None,
        style: str = "%",
    ) -> None:
        super().__init__(fmt=fmt, datefmt=datefmt, style=style)  # type: ignore[arg-type]  # dictConfig gives any text


class RootAccessFilter(logging.Filter):
    """Drops the health probes from an access log."""

    def filter(self, record: logging.LogRecord) -> bool:
        return "GET / HTTP/1.1" not in record.getMessage()
