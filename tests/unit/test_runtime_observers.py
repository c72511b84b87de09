"""Who is told of answered requests: none of them may cost a request its answer."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from hedgerow.clock import SystemClock
from runtime.exchange import Exchange, Request, Response
from runtime.models.jobs import Job
from runtime.observing.collected_files import CollectLimits, collected_files
from runtime.observing.collecting import Collecting, Origin
from runtime.observing.observers import together


class Nobody:
    """A channel to nowhere."""

    since = 0.0

    def send(self, exchange: Exchange, response: Response) -> None: ...

    send_head = send

    def send_part(self, part: bytes) -> bool:
        return True

    def send_end(self, exchange: Exchange, *, whole: bool) -> None: ...


def answered(**headers: str) -> Exchange:
    exchange = Exchange(Nobody(), Request("POST", "/score", headers=headers, body=b'{"a": 1}'), keep_alive=True)
    exchange.work = Job(exchange, lambda _job: None, lambda share: share)
    return exchange


@pytest.mark.parametrize("count", [1, 2])
def test_a_witness_that_fails_is_logged_and_the_others_are_told(count: int, caplog: pytest.LogCaptureFixture) -> None:
    told: list[int] = []

    def fails(_exchange: Exchange, _response: Response) -> None:
        raise ValueError("of its own")

    def tells(_exchange: Exchange, response: Response) -> None:
        told.append(response.status)

    with caplog.at_level(logging.ERROR):
        together([fails, *[tells] * count])(answered(), Response(200, b""))
        together([fails])(answered(), Response(200, b""))
    assert told == [200] * count
    assert len(caplog.records) == 2


def test_a_length_that_no_number_of_ours_can_be_is_no_length(tmp_path: Path) -> None:
    clock, counted = SystemClock(), list[tuple[str, int]]()
    limits = CollectLimits(tmp_path, "jsonl", 4096, 5, 100_000)
    files = collected_files(limits, "requests", clock)
    collecting = Collecting(
        files, Origin("w", "s", "c"), clock, lambda why, n: counted.append((why, n)), sample=1.0, file_bytes=4096
    )
    collecting.start()
    collecting.sent(answered(**{"inference-header-content-length": "9" * 5000}), Response(200, b"[1]"))
    collecting.stop()
    assert ("", 1) in counted
