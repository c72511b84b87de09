"""W3C Trace Context: what is a traceparent, and what is said again of it."""

from __future__ import annotations

import pytest

from runtime.observing.trace_context import LONGEST_ID, echoed_ids, trace_context

GOOD = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.mark.parametrize(
    "parent",
    [
        GOOD,
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-ff",
        "cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-what-the-future-brings",
    ],
)
def test_valid_ones_pass_as_they_came(parent: str) -> None:
    assert trace_context({"traceparent": parent, "tracestate": "a=1,b=2"}) == {"traceparent": parent, "tracestate": "a=1,b=2"}


@pytest.mark.parametrize(
    "parent",
    [
        "",
        "00",
        "00-00000000000000000000000000000000-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
        "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "00-0AF7651916CD43DD8448EB211C80319C-B7AD6B7169203331-01",
        f"{GOOD}-more",
        f"{GOOD}.",
        f"{GOOD}, {GOOD}",
        f"cc{GOOD[2:]}-{'x' * 200}",
    ],
)
def test_anything_else_is_as_if_it_had_not_come_and_takes_the_state_along(parent: str) -> None:
    assert trace_context({"traceparent": parent, "tracestate": "a=1"}) == {}


def test_state_that_is_too_long_is_left_out() -> None:
    assert trace_context({"traceparent": GOOD, "tracestate": "a=" + "x" * 511}) == {"traceparent": GOOD}


def test_ids_are_said_again_unless_they_are_too_long() -> None:
    assert echoed_ids({"x-request-id": "r", "traceparent": GOOD}) == {"x-request-id": "r", "traceparent": GOOD}
    assert echoed_ids({"x-request-id": "r" * (LONGEST_ID + 1)}) == {}
