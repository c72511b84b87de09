"""HTTP by Flask: every route of both contracts. Turns Flask's request into ours and our response into Flask's, nothing more.

The scoring routes end in AmlFace.score and OipFace.infer, which know no Flask: a faster HTTP front can call them directly
and leave the other routes here.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import flask
from gunicorn.http.errors import ParseException
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge

from runtime.aml import SCORE_METHODS, AmlFace
from runtime.errors import BadBody, BodyTooLarge
from runtime.exchange import Request, Response
from runtime.http_errors import Dialect, answer_error, answer_text
from runtime.metrics import Board
from runtime.oip import OipFace
from runtime.scoring import Scoring
from runtime.swagger import ServiceFacts, swagger

_access = logging.getLogger("hedgerow.runtime.access")
_METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def _nobody_waits(_connection: Any) -> None:  # noqa: ANN401 - a socket, or None without gunicorn
    """Where requests are whole before they get here."""


@dataclass(frozen=True)
class Faces:
    """What the routes need."""

    scoring: Scoring
    board: Board
    aml: AmlFace
    oip: OipFace
    received: Callable[[Any], None]


def create_app(
    scoring: Scoring,
    board: Board,
    *,
    version: str,
    max_body_bytes: int,
    access_log: bool = False,
    received: Callable[[Any], None] = _nobody_waits,
) -> flask.Flask:
    """The WSGI application of one worker. ``received`` is told the connection of each scoring request that has come in whole."""
    faces = Faces(scoring, board, AmlFace(scoring, board, f"hedgerow/{version}"), OipFace(scoring, board, version), received)
    app = flask.Flask("hedgerow.runtime", static_folder=None, root_path=str(Path(__file__).parent))
    # One more than allowed: werkzeug cuts a chunked body off at its limit without a word, and a cut body could still parse.
    app.config["MAX_CONTENT_LENGTH"] = max_body_bytes + 1
    _add_aml_routes(app, faces, version)
    _add_oip_routes(app, faces)
    app.add_url_rule("/metrics", "metrics", lambda: flask.Response(board.page(), content_type=_METRICS_TYPE))
    _add_error_answers(app, faces, max_body_bytes)
    if access_log:
        _add_access_log(app)
    return app


def _add_aml_routes(app: flask.Flask, faces: Faces, version: str) -> None:
    def healthy() -> flask.Response:
        # Upstream says Healthy even when nothing can be scored any more; a probe is there to find that out.
        state = faces.scoring.state
        fine = state in ("ready", "draining")
        answer = Response(200 if fine else 503, b"Healthy" if fine else state.encode(), "text/html; charset=utf-8")
        return _sent(faces.aml.identify(_headers(), answer))

    def document() -> flask.Response:
        try:
            facts = ServiceFacts(faces.scoring.title, version, faces.scoring.score_inputs())
            body = json.dumps(swagger(facts, flask.request.args.get("version", "2")))
            answer = Response(200, body.encode())
        except Exception as problem:  # noqa: BLE001 - mapped like every other
            answer = answer_error(problem, "message")
        return _sent(faces.aml.identify(_headers(), answer))

    app.add_url_rule("/", "healthy", healthy)
    app.add_url_rule("/swagger.json", "swagger", document)
    score = lambda: _sent(faces.aml.score(_taken(faces)))  # noqa: E731 - a view of one expression
    app.add_url_rule("/score", "score", score, methods=SCORE_METHODS, provide_automatic_options=False)


def _add_oip_routes(app: flask.Flask, faces: Faces) -> None:
    oip = faces.oip
    app.add_url_rule("/v2", "server", lambda: _sent(oip.server()))
    app.add_url_rule("/v2/health/live", "live", lambda: _sent(oip.health("live")))
    app.add_url_rule("/v2/health/ready", "ready", lambda: _sent(oip.health("ready")))

    def on_model(ending: str, answer: Callable[[str, str | None], Response], method: str = "GET") -> None:
        def view(model: str, version: str | None = None) -> flask.Response:
            return _sent(answer(model, version))

        for number, middle in enumerate(("", "/versions/<version>")):
            rule = f"/v2/models/<model>{middle}{ending}"
            app.add_url_rule(rule, f"{method}{ending}{number}", view, methods=[method])

    on_model("", oip.metadata)
    on_model("/ready", oip.ready)
    on_model("/infer", lambda model, version: oip.infer(_taken(faces), model, version), "POST")


def _add_error_answers(app: flask.Flask, faces: Faces, max_body_bytes: int) -> None:
    def from_http(problem: HTTPException) -> flask.Response:
        dialect: Dialect = "error" if flask.request.path.startswith("/v2") else "message"
        if isinstance(problem, RequestEntityTooLarge):
            answer = answer_error(BodyTooLarge(limit=max_body_bytes), dialect)
            # The faces never saw it, so it is counted here.
            faces.board.answered("infer" if dialect == "error" else "score", answer.status, 0.0)
        else:
            answer = answer_text(problem.code or 500, problem.description or problem.name, dialect)
        sent = _sent(answer if dialect == "error" else faces.aml.identify(_headers(), answer))
        if problem.code == 405 and "Allow" in (allowed := dict(problem.get_headers())):
            sent.headers["Allow"] = allowed["Allow"]
        return sent

    def from_anything(problem: Exception) -> flask.Response:
        if flask.request.path.startswith("/v2"):
            return _sent(answer_error(problem, "error"))
        return _sent(faces.aml.identify(_headers(), answer_error(problem, "message")))

    app.register_error_handler(HTTPException, from_http)
    app.register_error_handler(Exception, from_anything)


def _add_access_log(app: flask.Flask) -> None:
    """azmlinfsrv's line: ``POST /score 200 12.345ms 17``."""

    def begin() -> None:
        flask.g.started = perf_counter()

    def end(response: flask.Response) -> flask.Response:
        took_ms = (perf_counter() - flask.g.started) * 1000
        request, size = flask.request, response.content_length or 0
        fields = {"method": request.method, "path": request.path, "status": response.status_code, "bytes": size}
        fields |= {"duration_ms": round(took_ms, 3), "request_id": response.headers.get("x-request-id", "")}
        line = (request.method, request.path, response.status_code, took_ms, size)
        _access.info("%s %s %d %.3fms %d", *line, extra=fields)
        return response

    app.before_request(begin)
    app.after_request(end)


def _taken(faces: Faces) -> Request:
    """The request, whole. Raises RequestEntityTooLarge, or BadBody when the caller stopped half-way or sent no HTTP."""
    request = flask.request
    try:
        body = request.get_data(cache=False)
    except (OSError, ParseException) as problem:
        raise BadBody(problem=str(problem) or type(problem).__name__, hint="Send it whole, as HTTP/1.1 says.") from None
    faces.received(request.environ.get("gunicorn.socket"))
    if len(body) >= flask.current_app.config["MAX_CONTENT_LENGTH"]:
        raise RequestEntityTooLarge
    if request.content_length is not None and len(body) != request.content_length:
        raise BadBody(problem=f"it ended after {len(body)} of {request.content_length} bytes", hint="Send it whole.")
    return Request(request.method, request.query_string.decode("latin-1"), _headers(), body)


def _headers() -> dict[str, str]:
    return {name.lower(): value for name, value in flask.request.headers.items()}


def _sent(response: Response) -> flask.Response:
    sent = flask.Response(response.body, response.status, content_type=response.content_type)
    for name, value in response.headers.items():
        sent.headers[name] = value
    return sent
