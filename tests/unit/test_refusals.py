"""Refused requests are all counted, and logged seldom."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest

from hedgerow.logs import QUIET_S
from registry.server.refusals import Refusals


@dataclass
class StoppedClock:
    """Time that moves only when it is told to."""

    seconds: float = 1000.0

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.seconds, UTC)

    def monotonic_s(self) -> float:
        return self.seconds


def test_counted_always_logged_seldom(caplog: pytest.LogCaptureFixture) -> None:
    clock = StoppedClock()
    refusals = Refusals(clock)
    with caplog.at_level(logging.WARNING):
        for _ in range(100):
            refusals.note("token_refused", "GET", "/api/v1/models", "192.0.2.1")
        clock.seconds += QUIET_S
        refusals.note("token_missing", "GET", "/", "192.0.2.2")
    assert refusals.counts() == {"token_refused": 100, "token_missing": 1}
    assert [record.getMessage() for record in caplog.records] == [
        "Refused 1 requests (token_refused); the last from 192.0.2.1: GET /api/v1/models",
        "Refused 100 requests (token_missing); the last from 192.0.2.2: GET /",
    ]
