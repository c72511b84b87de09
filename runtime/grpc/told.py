"""What a caller is told when its call fails: the sentence that REST would give, with the status that gRPC has for it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Final

import grpc

from hedgerow.errors import Bug, HedgerowError
from runtime.http_errors import INTERNAL, status_of

_log = logging.getLogger("hedgerow.runtime.grpc")

_CODES: Final[Mapping[int, grpc.StatusCode]] = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    404: grpc.StatusCode.NOT_FOUND,
    409: grpc.StatusCode.ABORTED,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}


class Refusal(Exception):
    """A failure that was told and logged already: only the call is to be ended with it."""

    def __init__(self, status: int, code: grpc.StatusCode, text: str) -> None:
        super().__init__(text)
        self.status, self.code, self.text = status, code, text

    @classmethod
    def of(cls, problem: Exception) -> Refusal:
        """What we did not foresee is logged with its traceback and told to nobody."""
        if isinstance(problem, Refusal):
            return problem
        status = status_of(problem, "error")
        if not isinstance(problem, HedgerowError) or isinstance(problem, Bug):
            _log.error("a request failed inside Hedgerow", exc_info=problem)
            return cls(status, grpc.StatusCode.INTERNAL, INTERNAL)
        return cls(status, _CODES.get(status, grpc.StatusCode.INTERNAL), problem.sentence())
