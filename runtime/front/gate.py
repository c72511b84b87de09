"""The handler in front of all others where keys are set: who brings none gets 401 in the dialect of the path.

A large body is not read from whoever may not come in: connections ask when its head is there (connection.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from runtime.exchange import Exchange, Request, Response
from runtime.front.auth import Guard
from runtime.http_errors import Dialect, answer_error

Refusal = Callable[[int, Request, str], Response]


class Gate:
    """``refuse`` answers an exchange with an error (Routes.refuse), ``refusal`` a request that is not read (Routes.refusal)."""

    def __init__(
        self,
        guard: Guard,
        handle: Callable[[Exchange], None],
        refuse: Callable[[Exchange, Exception], None],
        refusal: Refusal,
    ) -> None:
        self._guard, self._handle, self._refuse, self._refusal = guard, handle, refuse, refusal
        self.lets_in: Callable[[str, Mapping[str, str], str], bool] = guard.lets_in

    def handle(self, exchange: Exchange) -> None:
        """Never raises."""
        request = exchange.request
        if self._guard.lets_in(request.path, request.headers, request.caller):
            self._handle(exchange)
        elif request.method == "OPTIONS" and "access-control-request-method" in request.headers:
            # A browser's question before the request; it cannot bring a key. cors.py says the rest.
            exchange.answer(Response(200, b""))
        else:
            self._refuse(exchange, self._guard.refusal(request.headers))

    def refusal(self, status: int, request: Request, problem: str) -> Response:
        """As Routes.refusal, for 401 too."""
        if status != 401:
            return self._refusal(status, request, problem)
        dialect: Dialect = "error" if request.path.startswith("/v2") else "message"
        return answer_error(self._guard.refusal(request.headers), dialect)
