"""How run() wants to be called: read off its parameters and decorators once, when the script is loaded.

    string    undecorated           the body as text for the first parameter
    schema    @input_schema         JSON values by parameter name
    raw       @rawhttp              Flask's request object for the first parameter

A parameter called ``request_headers`` gets the headers in every mode and is none of these.
"""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from runtime.errors import ScriptUnusable

Mode = Literal["string", "schema", "raw"]
HEADERS_PARAMETER = "request_headers"
_RAW_MODULES = (
    "runtime.scripts.shims.raw_http",
    "azureml_inference_server_http.api.aml_request",
    "azureml.contrib.services.aml_request",
)


class Refused(ValueError):
    """The caller's body does not fit run()'s parameters; the text is the contract's."""


@dataclass(frozen=True)
class Calling:
    """``payload`` is the first parameter; ``parameters`` all but request_headers, with their defaults."""

    mode: Mode
    payload: str
    parameters: tuple[inspect.Parameter, ...]
    takes_headers: bool

    def arguments(self, body: bytes) -> dict[str, object]:
        """run()'s arguments from a JSON body (schema mode). Extra keys are ignored. Raises Refused."""
        try:
            values = json.loads(body)
        except ValueError as problem:
            text = (
                f"POST body could not be decoded as JSON: {problem}"
                if body
                else "POST body is empty. Expecting a JSON dictionary."
            )
            raise Refused(text) from None
        except RecursionError:
            raise Refused("POST body could not be decoded as JSON: it is nested too deep") from None
        if not isinstance(values, dict):
            raise Refused("POST body should be a JSON dictionary.")
        found: dict[str, object] = {}
        for parameter in self.parameters:
            value = values.get(parameter.name, parameter.default)
            if value is parameter.empty:
                raise Refused(f"A value is not provided for the {parameter.name!r} parameter.")
            found[parameter.name] = value
        return found


def calling_of(run: Callable[..., object], script: str) -> Calling:
    """Raises ScriptUnusable."""
    try:
        parameters = inspect.signature(run).parameters
    except (TypeError, ValueError):
        raise ScriptUnusable(script=script, problem="the parameters of run() cannot be read") from None
    for name, parameter in parameters.items():
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise ScriptUnusable(script=script, problem=f"run() has {parameter.kind.description} parameter {name!r}")
    wanted = tuple(parameter for name, parameter in parameters.items() if name != HEADERS_PARAMETER)
    if not wanted:
        raise ScriptUnusable(script=script, problem="run() has no parameter for the request's body")
    raw, schema = _asks_for_raw(), _schema_answer("is_schema_decorated", run) is True
    if raw and schema:
        raise ScriptUnusable(script=script, problem="run() cannot be decorated with both @rawhttp and @input_schema")
    mode: Mode = "raw" if raw else ("schema" if schema else "string")
    return Calling(mode, wanted[0].name, wanted, HEADERS_PARAMETER in parameters)


def headers_for_script(headers: Mapping[str, str]) -> dict[str, str]:
    """Header names in the case that Flask gives them."""
    return {name.title(): value for name, value in headers.items()}


def declared_schemas(run: Callable[..., object]) -> dict[str, Any]:
    """``input`` and ``output`` schema and the ``versions`` of swagger that can say them; empty where nothing was declared."""
    if _schema_answer("is_schema_decorated", run) is not True:
        return {}
    return {
        "input": _schema_answer("get_input_schema", run),
        "output": _schema_answer("get_output_schema", run),
        "versions": _schema_answer("get_supported_versions", run),
    }


def _asks_for_raw() -> bool:
    """Whichever package the script took @rawhttp from, its module keeps the wish."""
    return any(getattr(sys.modules.get(name), "_rawHttpRequested", False) for name in _RAW_MODULES)


def _schema_answer(question: str, run: Callable[..., object]) -> Any:  # noqa: ANN401 - what the installed package says
    """Asks the package that decorated run(): the real one where it is installed, else ours. None where neither was imported."""
    module = sys.modules.get("inference_schema.schema_util")
    if module is None:
        module = sys.modules.get("runtime.scripts.shims.schema")
    return getattr(module, question)(run) if module is not None else None
