"""The Azure ML scoring contract (azmlinfsrv): ``/score``, its ids and headers, its errors ``{"message": …}``.

With a scoring script the request goes to one of its processes (scripts/). Without one ("no-code"), the body is JSON for the
ONNX model itself, in one of three forms:

    {"data": [[5.1, 3.5, 1.4, 0.2], …]}          rows for a model with one input
    [[5.1, 3.5, 1.4, 0.2], …]                     the same, bare
    {"inputs": {"input_ids": [[…]], "mask": …}}   by input name; for a model with one input also {"inputs": [[…]]}

The answer is a list when the model has one output, ``{"output name": …}`` otherwise; sequences of maps stay lists of
objects. JSON has stdlib semantics on this side: NaN and Infinity are read and written as such.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from time import perf_counter
from urllib.parse import parse_qsl

import msgspec

from hedgerow.errors import ScriptError
from runtime.aml.answers import json_answer
from runtime.aml.ids import new_id
from runtime.aml.rows import rows_from
from runtime.errors import BadBody, BodyNotJson, BodyNotText, IdTooLong, NotJsonType
from runtime.exchange import HTML_TYPE, Exchange, Headers, Response, with_headers
from runtime.http_errors import answer_error, answer_text, failure_of
from runtime.large_json.reading import read_document
from runtime.models.errors import ModelFailed
from runtime.models.jobs import Job, LargeJob, Run
from runtime.models.loaded_model import LoadedModel
from runtime.models.model_lane import INLINE_BYTES, ModelLane
from runtime.observing.metrics import Board, Failure
from runtime.observing.telemetry import JsonText
from runtime.observing.trace_context import trace_context
from runtime.scoring import Scoring
from runtime.scripts.frames import Answer, Head
from runtime.scripts.pool import ScriptCall
from runtime.tensors import Array, array_from_json

SCORE_METHODS = ("GET", "POST", "OPTIONS")
HEADER_FAILED = "x-ms-run-function-failed"
HEADER_RAN = "x-ms-run-fn-exec-ms"
_WENT_WELL = f"{HEADER_FAILED}: False\r\n{HEADER_RAN}: "
_FORMS = 'Send {"data": [rows]}, a bare list of rows, or {"inputs": {"name": values}}.'
# What numbers may be missing as, in this contract's JSON.
_HOLES = (b"null", b"NaN")
_LONGEST_ID = 100
_NOT_UTF8 = re.compile("[\udc80-\udcff]")
# Headers of a request that its answer repeats or builds upon.
_PASSED_ON = frozenset({"x-request-id", "x-ms-request-id", "x-ms-client-request-id", "traceid", "traceparent"})
# A script cannot overwrite these: whoever called relies on them.
_SERVERS_OWN = frozenset({"x-request-id", "x-ms-request-id", "x-ms-server-version", HEADER_RAN})


class AmlFace:
    """Answers ``/score``; everything else of the contract that needs ids takes them from :meth:`identify`."""

    def __init__(self, scoring: Scoring, board: Board, server_version: str | None) -> None:
        self._scoring, self._board = scoring, board
        self._always: Headers = {} if server_version is None else {"x-ms-server-version": server_version}
        # Line ends would begin headers of their own; a Response's lines are sent as they are.
        self._always_lines = "".join([f"{name}: {''.join(value.splitlines())}\r\n" for name, value in self._always.items()])
        self._counters = board.route("score")

    # A request --------------------------------------------------------------------------------------------------------

    def score(self, exchange: Exchange) -> None:
        """Answer now or later; never raises for what a caller, a script or a model did."""
        request = exchange.request
        try:
            # Before anything is scored: a refused id must not cost a run.
            if not _PASSED_ON.isdisjoint(request.headers):
                propagated_ids(request.headers, "")
            if not self._scoring.loaded:
                self._scoring.wait_until_loaded(exchange, self.score, self._refused)
            elif self._scoring.has_script:
                self._by_script(exchange)
            else:
                self._by_model(exchange)
        except Exception as problem:  # noqa: BLE001 - one request's failure is its own, whatever it is
            self._refused(exchange, problem)

    def identify(self, headers: Mapping[str, str], response: Response) -> Response:
        """Add the ids and the server's version, last: nothing else may set them. Ids that are too long make it a 431."""
        if _PASSED_ON.isdisjoint(headers):
            made = new_id()
            named = {**response.headers, **self._always, "x-request-id": made, "x-ms-request-id": made}
            return Response(response.status, response.body, response.content_type, named, response.repeated, response.lines)
        try:
            added = self._always | propagated_ids(headers, new_id())
        except IdTooLong as problem:
            own = headers.get("x-request-id") or new_id()
            added = self._always | {HEADER_FAILED: "False"} | ({"x-request-id": own} if len(own) <= _LONGEST_ID else {})
            return with_headers(answer_error(problem, "message"), added)
        return with_headers(response, added)

    def _send(self, exchange: Exchange, response: Response) -> None:
        exchange.answer(self.identify(exchange.request.headers, response))
        self._counters.answered(response.status, perf_counter() - exchange.started_at)

    def _refused(self, exchange: Exchange, problem: Exception) -> None:
        failed = isinstance(problem, ScriptError)
        self._send(exchange, with_headers(answer_error(problem, "message"), {HEADER_FAILED: str(failed)}))

    # By the model -----------------------------------------------------------------------------------------------------

    def _by_model(self, exchange: Exchange) -> None:
        request = exchange.request
        if request.method == "OPTIONS":
            self._send(exchange, Response(200, b"", HTML_TYPE, headers={HEADER_FAILED: "False"}))
            return
        lane = self._scoring.only_model()
        exchange.model = lane.key
        job = self._job(exchange, lane)
        try:
            lane.submit(job)
        except Exception as problem:  # noqa: BLE001 - told like every other failure of a job
            job.error = problem
            self._done(exchange, lane, job)

    def _job(self, exchange: Exchange, lane: ModelLane) -> Job:
        request, model = exchange.request, lane.model
        body = query_as_json(request.query).encode() if request.method == "GET" else request.body

        def done(job: Job) -> None:
            self._done(exchange, lane, job)

        if len(body) > INLINE_BYTES:

            def prepare(_job: Job) -> dict[str, Array]:
                feeds = feeds_from(model, body)
                exchange.release_body()
                return feeds

            return LargeJob(exchange, done, json_answer, prepare)
        job = Job(exchange, done, json_answer)
        form = model.row_form
        if form is not None and (found := rows_from(form, body)) is not None:
            job.bring(form, *found)
        else:
            job.feeds = feeds_from(model, body)
            job.may_share(model)
        return job

    def _done(self, exchange: Exchange, lane: ModelLane, job: Job) -> None:
        exchange.work = job
        recorder, share = self._scoring.recorder, job.outputs
        if job.error is None and share is not None and isinstance(job.result, bytes):
            recorder.scored(job, share.values)
            self._send_scored(exchange, job.result, job.run)
            return
        problem = job.error if isinstance(job.error, Exception) else ModelFailed(model=lane.model.name)
        lane.counters.failed(failure_of(problem))
        recorder.failed()
        self._refused(exchange, problem)

    def _send_scored(self, exchange: Exchange, answer: bytes, run: Run) -> None:
        if _PASSED_ON.isdisjoint(exchange.request.headers):
            exchange.request_id = made = new_id()
            lines = f"{_WENT_WELL}{run.took_ms}\r\n{self._always_lines}x-request-id: {made}\r\nx-ms-request-id: {made}\r\n"
            exchange.answer(Response(200, answer, lines=lines))
            self._counters.answered(200, perf_counter() - exchange.started_at)
            return
        headers = {HEADER_FAILED: "False", HEADER_RAN: run.took_ms}
        self._send(exchange, Response(200, answer, headers=headers))

    # By the script ----------------------------------------------------------------------------------------------------

    def _by_script(self, exchange: Exchange) -> None:
        request = exchange.request
        mode = self._scoring.script_mode
        if request.method == "OPTIONS" and mode != "raw":
            self._send(exchange, Response(200, b"", HTML_TYPE, headers={HEADER_FAILED: "False"}))
            return
        if mode == "schema" and request.method == "POST" and not is_json_type(request.headers.get("content-type", "")):
            raise NotJsonType
        body = query_as_json(request.query).encode() if request.method == "GET" and mode != "raw" else request.body
        if mode == "string" and not body.isascii():
            try:
                body.decode("utf-8")
            except UnicodeDecodeError as problem:
                raise BodyNotText(problem=problem) from None
        call = ScriptCall(exchange, self, body)
        try:
            self._scoring.score_script(call)
        except Exception as problem:  # noqa: BLE001 - told like every other failure of a call
            self.failed(call, problem)

    def answered(self, call: ScriptCall, answer: Answer) -> None:
        """A script's whole answer (scripts/pool.py)."""
        if answer.refusal:
            self._note(call, "OTHER")
            refused = answer_text(400, answer.refusal, "message")
            self._send(call.exchange, with_headers(refused, {HEADER_FAILED: "False"}))
            return
        failed = answer.failed or (answer.made_by_script and answer.status >= 500)
        self._note(call, "BACKEND" if failed else None)
        if failed:
            self._scoring.recorder.failed()
        else:
            shown = f"{answer.content_type}, {len(answer.body)} bytes" if answer.made_by_script else JsonText(answer.body)
            self._scoring.recorder.scored(call, shown)
        if answer.made_by_script:
            self._send(call.exchange, _made_by_script(answer, answer.body))
            return
        headers = {HEADER_FAILED: str(failed)}
        if not failed:
            headers[HEADER_RAN] = f"{answer.ran_s * 1000:.3f}"
        self._send(call.exchange, Response(answer.status, answer.body, answer.content_type, headers))

    def began(self, call: ScriptCall, head: Head) -> None:
        """The head of a script's streamed answer."""
        self._note(call, None)
        response = _made_by_script(head, b"")
        call.exchange.begin(self.identify(call.exchange.request.headers, response))
        self._counters.answered(head.status, perf_counter() - call.exchange.started_at)

    def failed(self, call: ScriptCall, problem: Exception) -> None:
        """A call without an answer: refused, late, or its process died."""
        self._note(call, failure_of(problem))
        self._scoring.recorder.failed()
        self._refused(call.exchange, problem)

    def _note(self, call: ScriptCall, failure: Failure | None) -> None:
        """What logs and traces tell of the call, and what it counts."""
        exchange, counters = call.exchange, self._scoring.script_counters
        exchange.model, exchange.work = self._scoring.script_key, call
        if counters is None:
            return
        if failure is not None:
            counters.failed(failure)
            return
        now = perf_counter()
        # A stream has no end yet.
        call.finished_at = call.finished_at or now
        counters.called(call, exchange.started_at, now)


def _made_by_script(answer: Answer | Head, body: bytes) -> Response:
    """A response that run() made itself: its headers, repeated names too, but for those that are the server's to set."""
    headers: Headers = {}
    repeated: list[tuple[str, str]] = []
    seen: set[str] = set()
    for name, value in answer.headers:
        lower = name.lower()
        if lower in _SERVERS_OWN:
            continue
        if lower in seen:
            repeated.append((name, value))
        else:
            seen.add(lower)
            headers[lower if lower.startswith("x-ms-") else name] = value
    headers[HEADER_RAN] = f"{answer.ran_s * 1000:.3f}"
    return Response(answer.status, body, answer.content_type, headers, tuple(repeated))


def is_json_type(content_type: str) -> bool:
    """application/json, and application/something+json."""
    kind = content_type.partition(";")[0].strip().lower()
    return kind == "application/json" or (kind.startswith("application/") and kind.endswith("+json"))


def propagated_ids(headers: Mapping[str, str], made: str) -> Headers:
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
    if "traceparent" in headers:
        ids |= trace_context(headers)
    return ids


def query_as_json(query: str) -> str:
    """``a=1&b=[1,2]&c=x&c=y`` as a JSON object; a value that is no JSON is text, a repeated name a list."""
    if not query.isascii():
        # Not percent-encoded, as it should be; then it is UTF-8.
        query = query.encode("latin-1", "replace").decode("utf-8", "replace")
    values: dict[str, list[object]] = {}
    for name, value in parse_qsl(query, keep_blank_values=True, errors="surrogateescape"):
        values.setdefault(_requoted(name), []).append(_json_or_text(_requoted(value)))
    return json.dumps({name: found if len(found) > 1 else found[0] for name, found in values.items()})


def feeds_from(model: LoadedModel, body: bytes) -> dict[str, Array]:
    """Arrays by input name from a no-code body. Raises BodyNotJson, BadBody, BadTensorNames or BadTensor."""
    if not body and model.inputs:
        raise BadBody(problem="it is empty", hint=_FORMS)
    named = _named(model, _read(model, body)) if body else {}
    model.check_names(named)
    specs = model.specs
    return {name: array_from_json(specs[name], values) for name, values in named.items()}


def _read(model: LoadedModel, body: bytes) -> object:
    if len(body) > INLINE_BYTES and (document := read_document(body, _HOLES if model.all_floats else ())) is not None:
        return document
    try:
        return msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        pass
    # Slower and more lenient: NaN, Infinity, other encodings than UTF-8; and the contract's words for what is wrong.
    try:
        return json.loads(body)
    except ValueError as problem:
        raise BodyNotJson(problem=problem) from None
    except RecursionError:
        raise BadBody(problem="it is nested too deep", hint=_FORMS) from None


def _named(model: LoadedModel, document: object) -> dict[str, object]:
    values = document
    if isinstance(document, dict):
        if "data" in document:
            values = document["data"]
            if "inputs" in document:
                raise BadBody(problem="it has both", hint=_FORMS)
        elif "inputs" in document:
            values = document["inputs"]
        else:
            raise BadBody(problem="it has neither 'data' nor 'inputs'", hint=_FORMS)
    if isinstance(values, dict):
        return values
    if len(model.inputs) != 1:
        names = ", ".join(repr(spec.name) for spec in model.inputs)
        hint = f'Send {{"inputs": {{name: values}}}} with {names}.'
        raise BadBody(problem=f"the model has {len(model.inputs)} inputs and the values have no names", hint=hint)
    return {model.inputs[0].name: values}


def _requoted(text: str) -> str:
    """Percent-encoded bytes that are no UTF-8 stay percent-encoded, as in Flask."""
    return text if text.isascii() else _NOT_UTF8.sub(lambda found: f"%{ord(found[0]) - 0xDC00:02X}", text)


def _json_or_text(value: str) -> object:
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value
