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
    413: "SIZE_INVALID",
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
    # No reason to try again at once, as "too many requests" is.
    "blob_damaged": "UNKNOWN",
    "storage_unavailable": "UNKNOWN",
    "object_store_unavailable": "UNKNOWN",
    "digest_mismatch": "DIGEST_INVALID",
    "digest_refused": "DIGEST_INVALID",
    "pushed_manifest_invalid": "MANIFEST_INVALID",
    "manifest_blob_unknown": "MANIFEST_BLOB_UNKNOWN",
    "tag_taken": "MANIFEST_INVALID",
    "upload_unknown": "BLOB_UPLOAD_UNKNOWN",
    "upload_out_of_order": "BLOB_UPLOAD_INVALID",
    "upload_busy": "BLOB_UPLOAD_INVALID",
}


def response(problem: Problem, status: int) -> Response:
    """``problem`` in OCI's words; the remedy goes into the detail, which clients print."""
    code = _BY_CODE.get(problem.code) or _BY_STATUS.get(status, "UNSUPPORTED")
    body = {"errors": [{"code": code, "message": problem.message, "detail": problem.remedy}]}
    return Response(msgspec.json.encode(body), status, mimetype="application/json")
