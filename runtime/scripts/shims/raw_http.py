"""``AMLRequest``, ``AMLResponse`` and ``@rawhttp``: a script that wants the HTTP request itself, as Flask's object."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import flask

_F = TypeVar("_F", bound=Callable[..., object])
# Set by the decorator; read by runtime.scripts.calling, which looks for the same name in the real packages.
_rawHttpRequested = False


def rawhttp(func: _F) -> _F:
    """Ask for the request itself instead of its body."""
    global _rawHttpRequested
    _rawHttpRequested = True
    return func


class AMLRequest(flask.Request):
    """The request that run() gets under ``@rawhttp``."""


class AMLResponse(flask.Response):
    """An answer that run() makes itself.

    A message of None is an empty JSON object; ``json_str`` makes JSON of the message; anything else is the body: text, bytes
    or a generator of them. Header values are split at commas into headers of the same name.
    """

    def __init__(
        self,
        message: Any,  # noqa: ANN401 - anything JSON can say
        status_code: int,
        response_headers: Mapping[str, str] | None = None,
        json_str: bool = False,
        run_function_failed: bool = False,
    ) -> None:
        headers = response_headers or {}
        if message is None or json_str:
            text = json.dumps({} if message is None else message)
            super().__init__(text, status=status_code, mimetype="application/json")
        else:
            super().__init__(message, status=status_code)
            if "Content-Type" in headers:
                self.headers.remove("Content-Type")
        self.headers["x-ms-run-function-failed"] = str(run_function_failed)
        for name, values in headers.items():
            for value in values.split(","):
                self.headers.add(name, value.strip())
