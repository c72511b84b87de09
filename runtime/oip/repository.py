"""The model repository extension over REST: which models there are, load one, unload one.

POST /v2/repository/index                {"ready": true}: only those that can be scored
POST /v2/repository/models/NAME/load     {"parameters": {"config": "{…}", "file:1/model.onnx": "base64"}}, or no body
POST /v2/repository/models/NAME/unload   the parameter unload_dependents changes nothing: no model here has dependents
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from runtime.errors import BadBody
from runtime.exchange import Exchange, Response
from runtime.http_errors import answer_error
from runtime.models.model_control import LoadRequest
from runtime.models.served_models import Standing
from runtime.scoring import Scoring

T = TypeVar("T")
_HINT = 'Send {"parameters": {…}}, or nothing.'


class IndexRequest(msgspec.Struct):
    """The body of an index request."""

    ready: bool = False


class ChangeRequest(msgspec.Struct):
    """The body of a load or unload request."""

    parameters: dict[str, Any] = {}


class IndexEntry(msgspec.Struct):
    """One version of a model in the index; of a model that was never loaded it is empty."""

    name: str
    state: str
    version: str = ""
    reason: str = ""


class RepositoryFace:
    """Answers ``/v2/repository``. Its methods raise what a body makes them; what comes later is answered by themselves."""

    def __init__(self, scoring: Scoring) -> None:
        self._scoring = scoring

    def index(self, exchange: Exchange) -> None:
        only_ready = _read(exchange.request.body, IndexRequest).ready

        def done(found: list[Standing] | Exception) -> None:
            if isinstance(found, Exception):
                exchange.answer(answer_error(found, "error"))
                return
            entries = [IndexEntry(one.name, one.state, one.version, one.reason) for one in chosen(found, only_ready=only_ready)]
            exchange.answer(Response(200, msgspec.json.encode(entries)))

        if self._scoring.control is None:
            done(self._scoring.models.standings())
        else:
            self._scoring.control.index(done)

    def load(self, exchange: Exchange, name: str) -> None:
        asked = load_request(name, _read(exchange.request.body, ChangeRequest).parameters)
        self._scoring.loads(asked, lambda problem: _answer(exchange, problem))

    def unload(self, exchange: Exchange, name: str) -> None:
        _read(exchange.request.body, ChangeRequest)
        self._scoring.unloads(name, lambda problem: _answer(exchange, problem))


def chosen(found: list[Standing], *, only_ready: bool) -> list[Standing]:
    """What an index request asked for."""
    return [one for one in found if one.state == "READY" or not only_ready]


def load_request(name: str, parameters: dict[str, object]) -> LoadRequest:
    """Raises BadBody for a parameter that loading does not have, or of the wrong kind."""
    config: str | None = None
    files: dict[str, str | bytes] = {}
    for key, value in parameters.items():
        if key == "config" and isinstance(value, str):
            config = value
        # A configuration as an object is what people write by hand.
        elif key == "config" and isinstance(value, dict):
            config = msgspec.json.encode(value).decode()
        elif key.startswith("file:") and isinstance(value, str | bytes):
            files[key] = value
        else:
            hint = "Loading takes config (JSON as text) and file:<version>/<name> (base64)."
            raise BadBody(problem=f"parameter {key[:100]!r} is not one that loading has, or is of the wrong kind", hint=hint)
    return LoadRequest(name, config, files)


def _answer(exchange: Exchange, problem: Exception | None) -> None:
    exchange.answer(Response(200, b"{}") if problem is None else answer_error(problem, "error"))


def _read(body: bytes, kind: type[T]) -> T:
    """Raises BadBody. No body is one without wishes."""
    try:
        return msgspec.json.decode(body or b"{}", type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as problem:
        raise BadBody(problem=problem, hint=_HINT) from None
    except RecursionError:
        raise BadBody(problem="it is nested too deep", hint=_HINT) from None
