"""The ids of a request that go on to others: W3C Trace Context (https://www.w3.org/TR/trace-context) and x-request-id. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping

LONGEST_ID = 100
_LONGEST_STATE = 512
_REST = r"-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
_PARENT = re.compile(f"00{_REST}")
# Later versions may have more behind, which is not ours to understand.
_LATER = re.compile(f"(?!00|ff)[0-9a-f]{{2}}{_REST}(?:-.{{0,100}})?")


def trace_context(headers: Mapping[str, str]) -> dict[str, str]:
    """``traceparent`` and ``tracestate`` as they came; nothing where the first is no such thing, as the specification says."""
    parent = headers.get("traceparent", "")
    if _PARENT.fullmatch(parent) is None and _LATER.fullmatch(parent) is None:
        return {}
    state = headers.get("tracestate", "")
    return {"traceparent": parent, "tracestate": state} if 0 < len(state) <= _LONGEST_STATE else {"traceparent": parent}


def echoed_ids(headers: Mapping[str, str]) -> dict[str, str]:
    """What an answer outside the AML contract says again of the request's ids."""
    ids = trace_context(headers)
    request_id = headers.get("x-request-id", "")
    if 0 < len(request_id) <= LONGEST_ID:
        ids["x-request-id"] = request_id
    return ids
