"""Errors as the OCI distribution specification wants them: ``{"errors": [{code, message, detail}]}``."""

from __future__ import annotations

import msgspec
from flask import Response

from hedgerow.contracts.work import Problem

# https://github.com/opencontainers/distribution-spec/blob/main/spec.md#error-codes
_BY_STATUS = {
    400: "UNSUPPORTED",
    401: "UNAUTHORIZED",
    403: "DENIED",
    404: "NAME_UNKNOWN",
    405: "UNSUPPORTED",
    416: "SIZE_INVALID",
    429: "TOOMANYREQUESTS",
    503: "TOOMANYREQUESTS",
}
_BY_CODE = {
    "manifest_unknown": "MANIFEST_UNKNOWN",
    "model_manifest_unknown": "MANIFEST_UNKNOWN",
    "blob_unknown": "BLOB_UNKNOWN",
    "invalid_name": "NAME_INVALID",
    "invalid_reference": "MANIFEST_UNKNOWN",
}


def response(problem: Problem, status: int) -> Response:
    """``problem`` in OCI's words; the remedy goes into the detail, which clients print."""
    code = _BY_CODE.get(problem.code) or _BY_STATUS.get(status, "UNSUPPORTED")
    body = {"errors": [{"code": code, "message": problem.message, "detail": problem.remedy}]}
    return Response(msgspec.json.encode(body), status, mimetype="application/json")
