"""azmlinfsrv's line for every answer: ``POST /score 200 12.345ms 17``."""

from __future__ import annotations

import logging
from time import perf_counter

from runtime.exchange import Exchange, Response

_access = logging.getLogger("hedgerow.runtime.access")


def log_answer(exchange: Exchange, response: Response) -> None:
    """A witness of front/door.py."""
    request = exchange.request
    took_ms = (perf_counter() - exchange.started_at) * 1000
    size = len(response.body)
    fields = {"method": request.method, "path": request.path, "status": response.status, "bytes": size}
    fields |= {"duration_ms": round(took_ms, 3), "request_id": response.headers.get("x-request-id", "")}
    _access.info("%s %s %d %.3fms %d", request.method, request.path, response.status, took_ms, size, extra=fields)
