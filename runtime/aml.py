"""The Azure ML scoring contract (azmlinfsrv): ``/score``, its ids and headers, its errors ``{"message": …}``.

With a scoring script the body goes to ``run()`` as text (GET: the query as JSON text; OPTIONS: empty 200, ``run()`` not called).

Without one ("no-code"), the body is JSON for the ONNX model itself, in one of three forms:

    {"data": [[5.1, 3.5, 1.4, 0.2], …]}          rows for a model with one input
    [[5.1, 3.5, 1.4, 0.2], …]                     the same, bare
    {"inputs": {"input_ids": [[…]], "mask": …}}   by input name; for a model with one input also {"inputs": [[…]]}

The answer is a list when the model has one output, ``{"output name": …}`` otherwise; sequences of maps stay lists of
objects. JSON has stdlib semantics on this side: NaN and Infinity are read and written as such.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from time import perf_counter
from urllib.parse import parse_qsl

from hedgerow.errors import ScriptError
from runtime.errors import BadBody, BodyNotJson, BodyNotText, IdTooLong
from runtime.exchange import Request, Response
from runtime.http_errors import answer_error
from runtime.metrics import Board
from runtime.onnx_model import OnnxModel
from runtime.scoring import Scoring
from runtime.tensors import Array, array_from_json, values_of

SCORE_METHODS = ("GET", "POST", "OPTIONS")
HEADER_FAILED = "x-ms-run-function-failed"
_FORMS = 'Send {"data": [rows]}, a bare list of rows, or {"inputs": {"name": values}}.'
_LONGEST_ID = 100


class AmlFace:
    """Answers ``/score``; everything else of the contract that needs ids takes them from :func:`identify`."""

    def __init__(self, scoring: Scoring, board: Board, server_version: str) -> None:
        self._scoring, self._board, self._server_version = scoring, board, server_version

    def score(self, request: Request) -> Response:
        """The whole answer, errors included; never raises for what a caller, a script or a model did."""
        started = perf_counter()
        try:
            response = self._answer(request)
        except Exception as problem:  # noqa: BLE001 - one request's failure is its own, whatever it is
            failed = isinstance(problem, ScriptError)
            response = with_headers(answer_error(problem, "message"), {HEADER_FAILED: str(failed)})
        response = self.identify(request.headers, response)
        self._board.answered("score", response.status, perf_counter() - started)
        return response

    def identify(self, headers: Mapping[str, str], response: Response) -> Response:
        """Add the ids and the server's version, last: nothing else may set them. Ids that are too long make it a 431."""
        added = {"x-ms-server-version": self._server_version}
        try:
            added |= propagated_ids(headers, str(uuid.uuid4()))
        except IdTooLong as problem:
            response = answer_error(problem, "message")
        return with_headers(response, added)

    def _answer(self, request: Request) -> Response:
        # Before anything is scored: a refused id must not cost a run.
        propagated_ids(request.headers, "")
        if request.method == "OPTIONS":
            return Response(200, b"", headers={HEADER_FAILED: "False"})
        text = query_as_json(request.query).encode() if request.method == "GET" else request.body
        body, ran_s = self._by_script(text, request.headers) if self._scoring.has_script else self._by_model(text)
        return Response(200, body, headers={HEADER_FAILED: "False", "x-ms-run-fn-exec-ms": f"{ran_s * 1000:.3f}"})

    def _by_script(self, body: bytes, headers: Mapping[str, str]) -> tuple[bytes, float]:
        try:
            text = body.decode("utf-8")
        except UnicodeDecodeError as problem:
            raise BodyNotText(problem=problem) from None
        outcome = self._scoring.score_script(text, headers)
        return outcome.value.encode(), outcome.ran_s

    def _by_model(self, body: bytes) -> tuple[bytes, float]:
        model = self._scoring.only_model()
        outcome = self._scoring.score_model(model, feeds_from(model, body))
        values = {name: values_of(value) for name, value in outcome.value.items()}
        answer = next(iter(values.values())) if len(values) == 1 else values
        return json.dumps(answer).encode(), outcome.ran_s


def with_headers(response: Response, added: Mapping[str, str]) -> Response:
    """The same response with more headers."""
    return Response(response.status, response.body, response.content_type, {**response.headers, **added})


def propagated_ids(headers: Mapping[str, str], made: str) -> dict[str, str]:
    """The id headers of the answer; ``made`` stands in for a missing x-request-id. Raises IdTooLong."""
    request_id = headers.get("x-request-id", made)
    legacy, client = headers.get("x-ms-request-id"), headers.get("x-ms-client-request-id")
    if len(request_id) > _LONGEST_ID:
        raise IdTooLong(names="x-request-id")
    if max(len(legacy or ""), len(client or "")) > _LONGEST_ID:
        raise IdTooLong(names="x-ms-request-id and x-ms-client-request-id")
    ids = {"x-request-id": request_id, "x-ms-request-id": legacy or client or request_id}
    if client or legacy:
        ids["x-ms-client-request-id"] = client or legacy or ""
    if "traceid" in headers:
        ids["TraceId"] = headers["traceid"]
    return ids


def query_as_json(query: str) -> str:
    """``a=1&b=[1,2]&c=x&c=y`` as a JSON object; a value that is no JSON is text, a repeated name a list."""
    values: dict[str, list[object]] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        values.setdefault(name, []).append(_json_or_text(value))
    return json.dumps({name: found if len(found) > 1 else found[0] for name, found in values.items()})


def feeds_from(model: OnnxModel, body: bytes) -> dict[str, Array]:
    """Arrays by input name from a no-code body. Raises BodyNotJson, BadBody, BadTensorNames or BadTensor."""
    if not body:
        raise BadBody(problem="it is empty", hint=_FORMS)
    try:
        document = json.loads(body)
    except ValueError as problem:
        raise BodyNotJson(problem=problem) from None
    except RecursionError:
        raise BadBody(problem="it is nested too deep", hint=_FORMS) from None
    named = _named(model, document)
    model.check_names(named)
    return {spec.name: array_from_json(spec, named[spec.name]) for spec in model.inputs}


def _named(model: OnnxModel, document: object) -> dict[str, object]:
    values = document
    if isinstance(document, dict):
        keys = document.keys() & {"data", "inputs"}
        if len(keys) != 1:
            raise BadBody(problem="it has neither 'data' nor 'inputs'" if not keys else "it has both", hint=_FORMS)
        values = document[keys.pop()]
    if isinstance(values, dict):
        return values
    if len(model.inputs) != 1:
        names = ", ".join(repr(spec.name) for spec in model.inputs)
        hint = f'Send {{"inputs": {{name: values}}}} with {names}.'
        raise BadBody(problem=f"the model has {len(model.inputs)} inputs and the values have no names", hint=hint)
    return {model.inputs[0].name: values}


def _json_or_text(value: str) -> object:
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value
