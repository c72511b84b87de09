"""Which path below ``/v2`` is which part of the Open Inference Protocol and of Triton's extensions to it.

The scoring path itself is looked up in routes.py: this is for everything that is asked less often. A ``/`` at the end changes
nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from runtime.exchange import Exchange, Response, with_headers
from runtime.http_errors import answer_error, answer_text
from runtime.models.errors import NoSharedMemory
from runtime.oip.face import OipFace
from runtime.oip.repository import RepositoryFace

_MODEL: Final = re.compile(r"/v2/models/([^/]+)(?:/versions/([^/]+))?(?:/(infer|ready|config|stats))?")
_CHANGE: Final = re.compile(r"/v2/repository/models/([^/]+)/(load|unload)")
_SHARED_MEMORY: Final = re.compile(r"/v2/(?:system|cuda)sharedmemory(?:/.*)?")
_NO_SUCH_PATH: Final = "The path {path} was not found on this server. GET /v2 lists its extensions."
_NO_SUCH_METHOD: Final = "The method is not allowed for the requested URL."
_READING: Final = ("GET", "HEAD")


class OipRoutes:
    """The handler of everything below ``/v2``. ``infer`` answers a scoring request for a model and version."""

    def __init__(self, face: OipFace, repository: RepositoryFace, infer: Callable[[Exchange, str, str | None], None]) -> None:
        self._face, self._repository, self._infer = face, repository, infer
        self._pages: dict[str, Callable[[], Response]] = {
            "/v2": face.server,
            "/v2/health/live": lambda: face.health("live"),
            "/v2/health/ready": lambda: face.health("ready"),
            "/v2/models/stats": lambda: face.statistics(None, None),
        }

    def handle(self, exchange: Exchange) -> None:
        """Answer now or later; never raises."""
        try:
            self._handle(exchange, exchange.request.path.rstrip("/"))
        except Exception as problem:  # noqa: BLE001 - mapped like every other
            exchange.answer(answer_error(problem, "error"))

    def _handle(self, exchange: Exchange, path: str) -> None:
        if (page := self._pages.get(path)) is not None:
            self._read(exchange, page)
        elif match := _MODEL.fullmatch(path):
            self._model(exchange, match[1], match[2], match[3])
        elif path == "/v2/repository/index":
            self._change(exchange, self._repository.index)
        elif match := _CHANGE.fullmatch(path):
            name, change = match[1], self._repository.load if match[2] == "load" else self._repository.unload
            self._change(exchange, lambda exchange: change(exchange, name))
        elif _SHARED_MEMORY.fullmatch(path):
            raise NoSharedMemory
        else:
            exchange.answer(answer_text(404, _NO_SUCH_PATH.format(path=exchange.request.path[:200]), "error"))

    def _model(self, exchange: Exchange, model: str, version: str | None, ending: str | None) -> None:
        if ending == "infer":
            self._infer(exchange, model, version)
            return
        pages = {"ready": self._face.ready, "config": self._face.config, "stats": self._face.statistics}
        page = pages.get(ending or "", self._face.metadata)
        self._read(exchange, lambda: page(model, version))

    def _read(self, exchange: Exchange, page: Callable[[], Response]) -> None:
        if exchange.request.method in _READING:
            exchange.answer(page())
        else:
            _wrong_method(exchange, "GET, HEAD, OPTIONS")

    def _change(self, exchange: Exchange, change: Callable[[Exchange], None]) -> None:
        if exchange.request.method == "POST":
            change(exchange)
        else:
            _wrong_method(exchange, "POST, OPTIONS")


def _wrong_method(exchange: Exchange, allowed: str) -> None:
    exchange.answer(with_headers(answer_text(405, _NO_SUCH_METHOD, "error"), {"allow": allowed}))
