"""Telemetry out of a real scoring server into a real HTTP receiver: one message a second, the same id until it is stored."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from email.message import Message
from pathlib import Path

import pytest

from runtime.models.jobs import Job
from runtime.observing.telemetry import Receiver, Telemetry
from tests import scoring_models as models
from tests.post_receiver import receiving
from tests.scoring_server import ScoringServer
from tests.waiting import wait_for

ROW = [5.1, 3.5, 1.4, 0.2]


@dataclass
class Hub:
    """Answers with ``status``; remembers each post as (id, authorization, document)."""

    status: int = 201
    posts: list[tuple[str, str, dict[str, object]]] = field(default_factory=list)
    url: str = ""


@pytest.fixture
def hub() -> Iterator[Hub]:
    found = Hub()

    def take(path: str, headers: Message, body: bytes) -> int:
        assert path == "/telemetry?module=m"
        assert headers["content-type"] == "application/json"
        found.posts.append((headers["idempotency-key"], headers["authorization"], json.loads(body)))
        return found.status

    with receiving(take) as address:
        found.url = f"{address}/telemetry?module=m"
        yield found


def environment(url: str) -> dict[str, str]:
    return {"HEDGEROW_TELEMETRY_URL": url, "HEDGEROW_TELEMETRY_TOKEN": "t0ken"}


def test_what_was_scored_arrives_once_a_second(tmp_path: Path, hub: Hub) -> None:
    with ScoringServer(tmp_path, "--model", models.iris(), env=environment(hub.url)) as server:
        for _ in range(5):
            assert server.score([ROW, ROW]).status_code == 200
        server.infer("iris", {"inputs": [{"name": "X", "datatype": "FP32", "shape": [1, 4], "data": ROW}]})
        wait_for(lambda: sum(int(str(body["requests"])) for _, _, body in hub.posts) == 6, what="all six requests")
        key, authorization, body = hub.posts[-1]
        assert len(key) == 36
        assert authorization == "Bearer t0ken"
        assert sum(int(str(body["rows"])) for _, _, body in hub.posts) == 11
        assert body["errors"] == 0
        latency = body["latency_ms"]
        assert isinstance(latency, dict)
        assert 0 < latency["p50"] <= latency["max"]
        output = body["last_output"]
        assert isinstance(output, dict)
        assert output["label"] == [0]
        wait_for(lambda: server.metric("hedgerow_telemetry_sent_total") == len(hub.posts), what="the count of stored messages")
        count = len(hub.posts)
        server.score([ROW])
        wait_for(lambda: len(hub.posts) == count + 1, what="the next message")
        assert "t0ken" not in server.process.log_text()


def test_the_last_second_is_sent_when_the_server_stops(tmp_path: Path, hub: Hub) -> None:
    with ScoringServer(tmp_path, "--model", models.iris(), env=environment(hub.url)) as server:
        server.score([ROW])
        server.process.stop()
    assert sum(int(str(body["requests"])) for _, _, body in hub.posts) == 1


@pytest.mark.alone
def test_a_message_keeps_its_id_until_it_is_stored_and_requests_do_not_wait(tmp_path: Path, hub: Hub) -> None:
    hub.status = 503
    with ScoringServer(tmp_path, "--model", models.iris(), env=environment(hub.url)) as server:
        server.score([ROW])
        wait_for(lambda: len(hub.posts) >= 2, what="a second attempt")
        assert server.score([ROW]).elapsed.total_seconds() < 0.5
        hub.status = 204
        wait_for(lambda: server.metric("hedgerow_telemetry_sent_total") >= 2, timeout_s=20, what="both messages stored")
        keys = [key for key, _, _ in hub.posts]
        assert keys[0] == keys[1]
        assert len(set(keys)) == 2
        assert server.metric("hedgerow_telemetry_failed_total") >= 2
        assert server.process.log_text().count("telemetry could not be sent") == 1, "said once per outage"


@pytest.mark.alone
def test_nobody_listening_costs_no_request_anything(tmp_path: Path) -> None:
    with ScoringServer(tmp_path, "--model", models.iris(), env=environment("http://127.0.0.1:1/x")) as server:
        assert server.score([ROW]).status_code == 200
        server.wait_for_log("telemetry could not be sent (")
        assert server.score([ROW]).elapsed.total_seconds() < 0.5


class Nobody:
    gone = False
    started_at = 0.0


class Counted:
    def __init__(self) -> None:
        self.counts: dict[str, float] = {}

    def add(self, name: str, amount: float = 1.0) -> None:
        self.counts[name] = self.counts.get(name, 0) + amount


def test_the_queue_is_bounded_and_the_oldest_goes_first(hub: Hub) -> None:
    hub.status = 500
    counted = Counted()
    telemetry = Telemetry(Receiver.parse(hub.url, None), counted, period_s=0.001, queue_length=3)
    telemetry.start()

    def scored_until_dropped() -> bool:
        telemetry.scored(Job(Nobody(), print, print), None)
        return counted.counts.get("hedgerow_telemetry_dropped_total", 0) >= 2

    wait_for(scored_until_dropped, what="messages to be dropped")
    first = hub.posts[0][0]
    hub.status = 200
    telemetry.stop()
    stored = counted.counts["hedgerow_telemetry_sent_total"]
    assert stored in (3, 4), "what fitted, and perhaps the second that was being counted"
    assert first not in [key for key, _, _ in hub.posts[-int(stored) :]], "the oldest was dropped"


def test_a_bad_address_is_said_at_start(tmp_path: Path) -> None:
    with ScoringServer(tmp_path, "--model", models.echo(), env=environment("ftp://x"), wait=False) as server:
        wait_for(lambda: not server.process.is_running, what="the server to give up")
        assert server.exit_code == 2
        assert "telemetry_url cannot be 'ftp://x'" in server.process.log_text()
