"""What the agent collects by itself: lines that modules print, and their metrics pages."""

from __future__ import annotations

import json
import sqlite3
import sys
from collections.abc import Generator, Iterator
from contextlib import closing
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import msgspec
import pytest

from edge_agent.methods.log_lines import Line, Wanted
from edge_agent.methods.log_process import process_lines
from edge_agent.observing.metrics import Metrics
from edge_agent.telemetry.outbox import Limits, Outbox
from edge_agent.telemetry.reception import Reception
from edge_agent.telemetry.routing.router import Router, router_of
from edge_agent.telemetry.scraper import ScrapeFailed, fetch, scrape
from edge_agent.telemetry.stdout_lines import Place, StdoutLines
from hedgerow.contracts.edge import DesiredModule, ModuleSpec, Route, TelemetrySources
from tests.agent_builders import Workspace, desired
from tests.agent_process import AgentProcess, wait_for_or_show
from tests.waiting import free_port, wait_for

LIMIT = 4000
NOW = datetime(2026, 11, 22, 5, 30, tzinfo=UTC)


class Printed:
    """A module's log, a buffer, and what brings lines from one to the other."""

    def __init__(self, folder: Path, limits: Limits | None = None) -> None:
        self.log = folder / "log"
        self.outbox = Outbox(folder / "outbox.sqlite", limits or Limits(1_000_000, 0), lambda: None, lambda _problem: None)
        self.metrics = Metrics()
        self.reception = Reception(self.outbox, router_of(None, "porch"), self.metrics)
        self.lines = self.reader({})

    def reader(self, places: dict[str, Place]) -> StdoutLines:
        return StdoutLines(self._lines_of, self.reception, self.metrics, places, max_message_bytes=LIMIT)

    def write(self, text: str) -> None:
        with self.log.open("a") as file:
            file.write(text)

    def rotate(self) -> None:
        for number in (2, 1, 0):
            path = self.log if number == 0 else self.log.with_name(f"log.{number}")
            if path.exists():
                path.rename(self.log.with_name(f"log.{number + 1}"))

    def read(self) -> list[Any]:
        while self.lines.read("m", 1000):
            pass
        epoch, marks = self.outbox.streams()
        if "telemetry" not in marks:
            return []
        mark = self.outbox.settled("telemetry")
        portion = self.outbox.read_after(epoch, "telemetry", mark, max_messages=10_000, max_bytes=10**7)
        if portion is None:
            return []
        self.outbox.settle("telemetry", portion.end)
        return [json.loads(message.body) for message in portion.messages]

    def _lines_of(self, module: str, wanted: Wanted) -> Generator[Line, None, None]:
        return process_lines(self.log, module, wanted)


@pytest.fixture
def printed(tmp_path: Path) -> Iterator[Printed]:
    made = Printed(tmp_path)
    made.lines.follow({"m": "process"}, 0.0)
    yield made
    made.outbox.close()


def test_lines_that_are_objects_are_messages_and_no_others(printed: Printed) -> None:
    printed.write('starting\n{"t": 1}\n[1, 2]\n{"t": 2, "deep": {"a": []}}\n{broken}\n{"t": \n"half": 3')
    assert printed.read() == [{"t": 1}, {"t": 2, "deep": {"a": []}}]
    printed.write(', "now": "whole"}\n{"t": 4}')
    assert printed.read() == []
    printed.write("\n")
    assert printed.read() == [{"t": 4}]


def test_rotation_loses_and_repeats_nothing(printed: Printed) -> None:
    printed.write('{"n": 0}\n{"n": 1}\n')
    assert [one["n"] for one in printed.read()] == [0, 1]
    printed.write('{"n": 2}\n')
    printed.rotate()
    printed.write('{"n": 3}\n')
    printed.rotate()
    assert [one["n"] for one in printed.read()] == [2, 3]
    printed.write('{"n": 4}\n')
    assert [one["n"] for one in printed.read()] == [4]


def test_many_lines_come_in_several_commits_in_order(printed: Printed) -> None:
    printed.write("".join(f'{{"n": {number}}}\n' for number in range(1234)))
    assert [one["n"] for one in printed.read()] == list(range(1234))


def test_a_line_that_is_too_long_is_counted_and_the_next_one_taken(printed: Printed) -> None:
    printed.write('{"long": "' + "x" * LIMIT + '"}\n{"t": 1}\n')
    assert printed.read() == [{"t": 1}]
    refused = [one for one in printed.metrics.samples() if one.name == "hedgerow_agent_intake_refused_total"]
    assert [(one.value, one.labels["key"]) for one in refused] == [(1, "message_too_large")]


def test_old_lines_are_not_sent_when_a_module_is_followed_first(printed: Printed) -> None:
    printed.write('{"old": 1}\n')
    printed.lines.follow({}, 0.0)
    printed.lines.follow({"m": "process"}, 0.0)
    printed.write('{"new": 1}\n')
    assert printed.read() == [{"new": 1}]


def test_the_next_agent_goes_on_where_this_one_was(printed: Printed) -> None:
    printed.write('{"n": 1}\n')
    assert printed.read() == [{"n": 1}]
    places = dict(printed.lines.places)
    printed.write('{"n": 2}\n')
    printed.lines = printed.reader(places)
    printed.lines.follow({"m": "process"}, 0.0)
    assert printed.read() == [{"n": 2}]


def test_lines_wait_in_the_log_while_the_buffer_is_full(tmp_path: Path) -> None:
    printed = Printed(tmp_path, Limits(100_000, 0, "drop-newest"))
    try:
        printed.lines.follow({"m": "process"}, 0.0)
        lines = [json.dumps({"n": number, "fill": "x" * 2000}) for number in range(120)]
        printed.write("\n".join(lines) + "\n")
        found: list[int] = []
        for _ in range(50):
            printed.lines.read("m", 1000)
            found += [one["n"] for one in printed.read()]
            if len(found) == len(lines):
                break
        assert found == list(range(len(lines)))
    finally:
        printed.outbox.close()


class _Pages(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        status = {"/metrics": 200, "/huge": 200}.get(self.path, 404)
        self.send_response(status)
        self.end_headers()
        if self.path == "/metrics":
            self.wfile.write(b'shots_total{lane="1"} 3\n')
        elif self.path == "/huge":
            try:
                for _ in range(5000):
                    self.wfile.write(b"# " + b"x" * 1022 + b"\n")
            except OSError:
                return

    def log_message(self, *_arguments: object) -> None:
        """Quiet."""


@pytest.fixture
def pages() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), _Pages) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_page_is_read(pages: str) -> None:
    found = scrape(pages, "/metrics", NOW)
    assert [json.loads(body) for body in found.bodies] == [
        [{"TimeGeneratedUtc": "2026-11-22T05:30:00.000Z", "Name": "shots_total", "Value": 3.0, "Labels": {"lane": "1"}}]
    ]


def test_a_page_that_is_none_or_too_large_is_refused(pages: str) -> None:
    with pytest.raises(ScrapeFailed, match="answered 404"):
        fetch(pages, "/other", 30)
    with pytest.raises(ScrapeFailed, match="more than 4194304 bytes"):
        fetch(pages, "/huge", 60)
    with pytest.raises(ScrapeFailed):
        fetch(f"http://127.0.0.1:{free_port()}", "/metrics", 30)


PRINTER = """
import http.server, sys
class H(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(b"up 1\\n")
    def log_message(self, *arguments): pass
print('{"line": 1}', flush=True)
print("a word", flush=True)
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), H).serve_forever()
"""


def test_an_agent_collects_what_its_desired_state_names(tmp_path: Path) -> None:
    workspace = Workspace()
    agent = AgentProcess(workspace, tmp_path / "device")
    agent.state.mkdir()
    port = free_port()
    sources = TelemetrySources(stdout=True, scrape_path="/metrics", scrape_period_s=0.5)
    spec = ModuleSpec(command=[sys.executable, "-c", PRINTER, str(port)], port=port, telemetry=sources)
    routes = {
        "lines": Route(route="FROM /messages/modules/m/outputs/stdout INTO $upstream", priority=1),
        "pages": Route(route="FROM /messages/modules/m/outputs/metrics INTO $upstream", priority=2),
    }
    state = msgspec.structs.replace(desired({"m": DesiredModule(spec=spec)}), routes=routes)
    (agent.state / "desired.dsse.json").write_bytes(workspace.signed(state))
    with agent:
        wait_for_or_show(agent, lambda: stored(agent, "route.lines"), 60, "a line of the module in the buffer")
        wait_for_or_show(agent, lambda: stored(agent, "route.pages"), 60, "a page of the module in the buffer")
        agent.stop()
        assert stored(agent, "route.lines") == [{"line": 1}]
        assert {sample["Name"] for page in stored(agent, "route.pages") for sample in page} == {"up"}
        agent.start()
        wait_for(lambda: agent.metric("hedgerow_agent_scrapes_total") > 0, what="another page", timeout_s=60)
        agent.stop()
        assert stored(agent, "route.lines") == [{"line": 1}], "what was read is not read again"


def stored(agent: AgentProcess, stream: str) -> list[Any]:
    """Bodies in the buffer's file, read beside the agent."""
    outbox = agent.state / "outbox.sqlite"
    if not outbox.exists():
        return []
    with closing(sqlite3.connect(f"file:{outbox}?mode=ro", uri=True, timeout=20)) as db:
        rows = db.execute("SELECT body FROM messages WHERE stream = ? ORDER BY sequence", (stream,)).fetchall()
    return [json.loads(body) for (body,) in rows]


def test_routes_see_the_outputs(tmp_path: Path) -> None:
    """``stdout`` and ``metrics`` are outputs like any other."""
    printed = Printed(tmp_path)
    try:
        nobody = Route(route="FROM /messages/modules/m/outputs/other INTO $upstream")
        printed.reception.use(Router({"a": nobody}, {"m": None}, "porch"))
        printed.lines.follow({"m": "process"}, 0.0)
        printed.write('{"t": 1}\n')
        assert printed.read() == []
        dropped = [one.value for one in printed.metrics.samples() if one.name == "edgehub_messages_dropped_total"]
        assert dropped == [1]
    finally:
        printed.outbox.close()
