"""Which request goes where: scoring to the two faces, everything else to a small page. Turns no bytes and knows no models.

    /score                                     AmlFace.score
    /v2/models/NAME[/versions/V]/infer         OipFace.infer
    /v2…                                       OipRoutes (oip/routes.py): everything else of that protocol
    /   /docs   /swagger.json   /metrics       answered at once, on the loop: none of them waits for anything

Unknown paths and methods get azmlinfsrv's words, in the dialect of their path.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Final
from urllib.parse import parse_qs

from runtime.aml.docs_page import PAGE_POLICY, docs_page
from runtime.aml.face import HEADER_FAILED, SCORE_METHODS, AmlFace
from runtime.aml.swagger import ServiceFacts, ServiceText, declared_by, swagger
from runtime.errors import BadRequest, BodyTooLarge, BuffersFull
from runtime.exchange import Exchange, Request, Response, with_headers
from runtime.http_errors import INTERNAL, Dialect, answer_error, answer_text
from runtime.models.model_words import model_declares
from runtime.observing.metrics import Board
from runtime.observing.tracing import Tracer
from runtime.oip.face import OipFace
from runtime.oip.facts import OipFacts
from runtime.oip.repository import RepositoryFace
from runtime.oip.routes import OipRoutes
from runtime.scoring import Scoring

_METRICS_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_HTML_TYPE: Final = "text/html; charset=utf-8"
_NO_SUCH_PATH: Final = (
    "The requested URL was not found on the server. If you entered the URL manually please check your spelling and try again."
)
_NO_SUCH_METHOD: Final = "The method is not allowed for the requested URL."
_KNOWN_PATHS = 1024

Page = Callable[[Request], Response]


class Routes:
    """The handler of every request of a worker."""

    def __init__(self, scoring: Scoring, board: Board, *, facts: OipFacts, max_body_bytes: int, service: ServiceText) -> None:
        self._scoring, self._board = scoring, board
        self._service, self._max_body_bytes = service, max_body_bytes
        self.aml = AmlFace(scoring, board, service.server_version)
        self.oip = OipFace(scoring, board, facts)
        self._oip_routes = OipRoutes(self.oip, RepositoryFace(scoring), self._infer_first)
        self._score_counters, self._infer_counters = board.route("score"), board.route("infer")
        self._pages: dict[str, Page] = {
            "/": self._healthy,
            "/swagger.json": self._swagger,
            "/docs": self._docs,
            "/metrics": self._metrics,
        }
        # Set where traces are sent.
        self.tracer: Tracer | None = None
        # Called before the metrics page is made, for what is only looked at now and then.
        self.look_first: Callable[[], None] = lambda: None
        # Paths that named a model and infer: a dictionary is quicker than the pattern, and model names are few.
        self._infer_paths: dict[str, tuple[str, str | None]] = {}

    def handle(self, exchange: Exchange) -> None:
        """Answer now or later; never raises."""
        request = exchange.request
        path = request.path
        if path == "/score":
            self._score(exchange)
        elif (known := self._infer_paths.get(path)) is not None:
            self._infer(exchange, *known)
        elif (page := self._pages.get(path)) is not None:
            self._page(exchange, page)
        elif path.startswith("/v2"):
            self._oip_routes.handle(exchange)
        else:
            exchange.answer(self._text(request, 404, _NO_SUCH_PATH))

    def health_only(self, exchange: Exchange) -> None:
        """The handler of the second port (HEALTH_PORT): GET / and nothing else."""
        if exchange.request.path == "/":
            self._page(exchange, self._healthy)
        else:
            exchange.answer(self._text(exchange.request, 404, _NO_SUCH_PATH))

    def refusal(self, status: int, request: Request, problem: str) -> Response:
        """The answer to what cannot be read as a request (front/connection.py)."""
        if status == 413:
            answer = answer_error(BodyTooLarge(limit=self._max_body_bytes), _dialect(request))
        elif status == 503:
            answer = answer_error(BuffersFull(), _dialect(request))
        elif status == 500:
            answer = answer_text(status, INTERNAL, _dialect(request))
        else:
            answer = answer_error(BadRequest(problem=problem), _dialect(request))
            answer = Response(status, answer.body, answer.content_type, answer.headers)
        if request.path == "/score":
            self._score_counters.answered(status, 0.0)
        elif request.path.endswith("/infer"):
            self._infer_counters.answered(status, 0.0)
        return answer if _dialect(request) == "error" else self.aml.identify(request.headers, answer)

    def refuse(self, exchange: Exchange, problem: Exception) -> None:
        """Answer a request that cannot be handled (front/compression.py)."""
        answer = answer_error(problem, _dialect(exchange.request))
        if exchange.request.path == "/score":
            self._score_counters.answered(answer.status, 0.0)
        elif exchange.request.path.endswith("/infer"):
            self._infer_counters.answered(answer.status, 0.0)
        error = _dialect(exchange.request) == "error"
        exchange.answer(answer if error else self.aml.identify(exchange.request.headers, answer))

    # The two that score -----------------------------------------------------------------------------------------------

    def _score(self, exchange: Exchange) -> None:
        exchange.route = "score"
        if self.tracer is not None:
            self.tracer.begin(exchange)
        if exchange.request.method in SCORE_METHODS:
            self.aml.score(exchange)
        else:
            exchange.answer(self._wrong_method(exchange.request, ", ".join(SCORE_METHODS)))

    def _infer(self, exchange: Exchange, model: str, version: str | None) -> None:
        exchange.route = "infer"
        if self.tracer is not None:
            self.tracer.begin(exchange)
        if exchange.request.method == "POST":
            self.oip.infer(exchange, model, version)
        else:
            exchange.answer(self._wrong_method(exchange.request, "POST, OPTIONS"))

    # The others -------------------------------------------------------------------------------------------------------

    def _infer_first(self, exchange: Exchange, model: str, version: str | None) -> None:
        """A scoring path that is not in the dictionary yet."""
        if len(self._infer_paths) < _KNOWN_PATHS and self._scoring.models.find(model, version) is not None:
            self._infer_paths[exchange.request.path] = (model, version)
        self._infer(exchange, model, version)

    def _page(self, exchange: Exchange, page: Page) -> None:
        request = exchange.request
        if request.method not in ("GET", "HEAD"):
            exchange.answer(self._wrong_method(request, "GET, HEAD, OPTIONS"))
            return
        try:
            answer = page(request)
        except Exception as problem:  # noqa: BLE001 - mapped like every other
            answer = answer_error(problem, _dialect(request))
        exchange.answer(answer)

    def _healthy(self, request: Request) -> Response:
        # Upstream says Healthy even when nothing can be scored any more; a probe is there to find that out.
        state = self._scoring.state
        fine = state == "ready"
        answer = Response(200 if fine else 503, b"Healthy" if fine else state.encode(), _HTML_TYPE)
        return self.aml.identify(request.headers, answer)

    def _metrics(self, _request: Request) -> Response:
        self.look_first()
        return Response(200, self._board.page().encode(), _METRICS_TYPE)

    def _swagger(self, request: Request) -> Response:
        try:
            service, scoring = self._service, self._scoring
            model = scoring.score_model()
            declared = model_declares(model) if model is not None else declared_by(scoring.script_declares())
            facts = ServiceFacts(service.title or scoring.title, service.version, service.prefix, declared)
            wanted = parse_qs(request.query, keep_blank_values=True).get("version", ["2"])[0]
            answer = Response(200, json.dumps(swagger(facts, wanted)).encode())
        except Exception as problem:  # noqa: BLE001 - mapped like every other
            answer = answer_error(problem, "message")
        return self.aml.identify(request.headers, with_headers(answer, {HEADER_FAILED: "False"}))

    def _docs(self, request: Request) -> Response:
        scoring = self._scoring
        declared = declared_by(scoring.script_declares())
        takes = declared.get("input")
        script = takes.get("example", {}) if isinstance(takes, dict) else {}
        page = docs_page(
            self._service.title or scoring.title,
            f"http://{request.headers.get('host', '127.0.0.1')}",
            [lane.model for lane in scoring.models.ready()],
            score=scoring.score_model(),
            script=script if scoring.has_script else None,
        )
        headers = {"content-security-policy": PAGE_POLICY, "x-content-type-options": "nosniff", "cache-control": "no-store"}
        return self.aml.identify(request.headers, Response(200, page.encode(), _HTML_TYPE, headers))

    def _wrong_method(self, request: Request, allowed: str) -> Response:
        return with_headers(self._text(request, 405, _NO_SUCH_METHOD), {"allow": allowed})

    def _text(self, request: Request, status: int, text: str) -> Response:
        answer = answer_text(status, text, _dialect(request))
        if _dialect(request) == "error":
            return answer
        return self.aml.identify(request.headers, with_headers(answer, {HEADER_FAILED: "False"}))


def _dialect(request: Request) -> Dialect:
    return "error" if request.path.startswith("/v2") else "message"
