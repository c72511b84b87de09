"""Which request goes where: scoring to the two faces, everything else to a small page. Turns no bytes and knows no models.

    /score                                     AmlFace.score
    /v2/models/NAME[/versions/V]/infer         OipFace.infer
    /   /swagger.json   /metrics   /v2…        answered at once, on the loop: none of them waits for anything

Unknown paths and methods get azmlinfsrv's words, in the dialect of their path.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Final
from urllib.parse import parse_qs

from runtime.aml import SCORE_METHODS, AmlFace
from runtime.errors import BadBody, BodyTooLarge
from runtime.exchange import Exchange, Request, Response, with_headers
from runtime.http_errors import Dialect, answer_error, answer_text
from runtime.metrics import Board
from runtime.oip import OipFace
from runtime.scoring import Scoring
from runtime.swagger import ServiceFacts, swagger

_METRICS_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_HTML_TYPE: Final = "text/html; charset=utf-8"
_NO_SUCH_PATH: Final = (
    "The requested URL was not found on the server. If you entered the URL manually please check your spelling and try again."
)
_NO_SUCH_METHOD: Final = "The method is not allowed for the requested URL."
_MODEL_PATH = re.compile(r"/v2/models/([^/]+)(?:/versions/([^/]+))?(?:/(infer|ready))?")
_KNOWN_PATHS = 1024

Page = Callable[[Request], Response]


class Routes:
    """The handler of every request of a worker."""

    def __init__(self, scoring: Scoring, board: Board, *, version: str, max_body_bytes: int) -> None:
        self._scoring, self._board = scoring, board
        self._version, self._max_body_bytes = version, max_body_bytes
        self.aml = AmlFace(scoring, board, f"hedgerow/{version}")
        self.oip = OipFace(scoring, board, version)
        self._score_counters, self._infer_counters = board.route("score"), board.route("infer")
        self._pages: dict[str, Page] = {
            "/": self._healthy,
            "/swagger.json": self._swagger,
            "/metrics": lambda _: Response(200, board.page().encode(), _METRICS_TYPE),
            "/v2": lambda _: self.oip.server(),
            "/v2/health/live": lambda _: self.oip.health("live"),
            "/v2/health/ready": lambda _: self.oip.health("ready"),
        }
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
        elif match := _MODEL_PATH.fullmatch(path):
            self._model(exchange, match[1], match[2], match[3])
        else:
            exchange.answer(self._text(request, 404, _NO_SUCH_PATH))

    def refusal(self, status: int, request: Request, problem: str) -> Response:
        """The answer to what cannot be read as a request (front/connection.py)."""
        if status == 413:
            answer = answer_error(BodyTooLarge(limit=self._max_body_bytes), _dialect(request))
        else:
            answer = answer_error(BadBody(problem=problem, hint="Send it whole, as HTTP/1.1 says."), _dialect(request))
            answer = Response(status, answer.body, answer.content_type, answer.headers)
        if request.path == "/score":
            self._score_counters.answered(status, 0.0)
        elif request.path.endswith("/infer"):
            self._infer_counters.answered(status, 0.0)
        return answer if _dialect(request) == "error" else self.aml.identify(request.headers, answer)

    # The two that score -----------------------------------------------------------------------------------------------

    def _score(self, exchange: Exchange) -> None:
        exchange.route = "score"
        if exchange.request.method in SCORE_METHODS:
            self.aml.score(exchange)
        else:
            exchange.answer(self._wrong_method(exchange.request, ", ".join(SCORE_METHODS)))

    def _infer(self, exchange: Exchange, model: str, version: str | None) -> None:
        exchange.route = "infer"
        if exchange.request.method == "POST":
            self.oip.infer(exchange, model, version)
        else:
            exchange.answer(self._wrong_method(exchange.request, "POST, OPTIONS"))

    # The others -------------------------------------------------------------------------------------------------------

    def _model(self, exchange: Exchange, model: str, version: str | None, ending: str | None) -> None:
        if ending == "infer":
            if len(self._infer_paths) < _KNOWN_PATHS:
                self._infer_paths[exchange.request.path] = (model, version)
            self._infer(exchange, model, version)
        elif ending == "ready":
            self._page(exchange, lambda _: self.oip.ready(model, version))
        else:
            self._page(exchange, lambda _: self.oip.metadata(model, version))

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
        fine = state in ("ready", "draining")
        answer = Response(200 if fine else 503, b"Healthy" if fine else state.encode(), _HTML_TYPE)
        return self.aml.identify(request.headers, answer)

    def _swagger(self, request: Request) -> Response:
        try:
            facts = ServiceFacts(self._scoring.title, self._version, self._scoring.score_inputs())
            wanted = parse_qs(request.query).get("version", ["2"])[0]
            answer = Response(200, json.dumps(swagger(facts, wanted)).encode())
        except Exception as problem:  # noqa: BLE001 - mapped like every other
            answer = answer_error(problem, "message")
        return self.aml.identify(request.headers, answer)

    def _wrong_method(self, request: Request, allowed: str) -> Response:
        return with_headers(self._text(request, 405, _NO_SUCH_METHOD), {"allow": allowed})

    def _text(self, request: Request, status: int, text: str) -> Response:
        answer = answer_text(status, text, _dialect(request))
        return answer if _dialect(request) == "error" else self.aml.identify(request.headers, answer)


def _dialect(request: Request) -> Dialect:
    return "error" if request.path.startswith("/v2") else "message"
