"""What one telemetry message holds, and that it stays small whatever a model answers."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass

import numpy as np
import pytest

from hedgerow.errors import InvalidSetting
from runtime.observing.telemetry import LAST_OUTPUT_BYTES, JsonText, Receiver, Tally, last_output


@dataclass
class Work:
    """What was done for one request, as far as a message tells of it."""

    rows: int
    took_ms: float
    asked_at: float = 0.0
    merged: int = 1
    started_at: float = 0.0
    finished_at: float = 0.0
    read_s: float = 0.0
    queued_s: float = 0.0

    @property
    def ran_s(self) -> float:
        return self.took_ms / 1000


def test_a_message_counts_what_was_asked_since_the_last() -> None:
    tally = Tally()
    assert tally.take() is None, "a second without a request has no message"
    for number in (3.0, 1.0, 2.0):
        tally.scored(Work(2, number), [number])
    tally.failed()
    message = tally.take()
    assert message is not None
    assert json.loads(message) == {
        "requests": 4,
        "rows": 6,
        "errors": 1,
        "latency_ms": {"p50": 2.0, "max": 3.0},
        "last_output": [2.0],
    }
    assert tally.take() is None


def test_a_second_of_failures_has_no_latency() -> None:
    tally = Tally()
    tally.failed()
    message = tally.take()
    assert message is not None
    assert json.loads(message)["latency_ms"] == {"p50": None, "max": None}


def test_the_longest_is_known_beyond_the_latencies_that_are_kept() -> None:
    tally = Tally()
    for number in range(5000):
        tally.scored(Work(1, float(number)), None)
    message = tally.take()
    assert message is not None
    assert json.loads(message)["latency_ms"]["max"] == 4999.0


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ({"label": np.array([7, 8]), "scores": np.array([[0.5, math.nan], [1, 2]])}, {"label": [7], "scores": [0.5, None]}),
        (np.float32(1.5), 1.5),
        (np.array(3), [3]),
        ([{0: 0.25, 1: math.inf}], [{"0": 0.25, "1": None}]),
        (JsonText(b'{"a": [1, NaN]}'), {"a": [1, None]}),
        (None, None),
        (True, True),
        (np.zeros((0, 4)), []),
        ({"t": np.array(["x"], dtype=object)}, {"t": ["x"]}),
    ],
)
def test_the_last_output_shows_first_values_as_strict_json(output: object, expected: object) -> None:
    shown = last_output(output)
    assert shown == expected
    json.dumps(shown, allow_nan=False)


@pytest.mark.parametrize(
    "output",
    [
        {f"output {number}": np.full((1, 100), 0.123456789) for number in range(100)},
        JsonText(b"[" + b"1, " * 10_000 + b"1]"),
        JsonText(b'["' + b"x" * 3000 + b'"]'),
        ["y" * 5000],
        [[[[[["deep"]]]]]] * 100,
    ],
)
def test_the_last_output_is_bounded(output: object) -> None:
    assert len(json.dumps(last_output(output))) <= LAST_OUTPUT_BYTES + 64


@pytest.mark.parametrize("url", ["ftp://h", "http://", "nonsense", "http://h:port", "http://h:99999", "http://[::1"])
def test_an_address_that_cannot_work_is_refused_at_start(url: str) -> None:
    with pytest.raises(InvalidSetting, match="telemetry_url"):
        Receiver.parse(url, None)


def test_a_token_that_no_header_carries_is_refused_and_not_shown() -> None:
    with pytest.raises(InvalidSetting) as refused:
        Receiver.parse("http://h", "secret\r\nx: y")
    assert "secret" not in refused.value.sentence()
