"""The agent is killed at every step of the change of its key, and the hub with it: the next start goes on, nothing is lost."""

from __future__ import annotations

import http.client
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from tests.agent_process import AgentProcess, wait_for_or_show
from tests.fixtures.control_plane import ControlPlane
from tests.integration.test_device_key_rotation import (
    PATIENCE_S,
    Enrolled,
    a_plane,
    more_told,
    nothing_lost_nothing_twice,
    posting,
    rotated,
)

# Where a request is cut: before the control plane has it, or before the device has its answer.
CUTS = (("/key", "request"), ("/key", "answer"), ("/key/taken", "request"), ("/key/taken", "answer"))


class CutLine:
    """Between the agent and the control plane's REST: passes requests on, and cuts the one that ``cut`` names."""

    def __init__(self, upstream: str) -> None:
        self._upstream = urlsplit(upstream)
        self.cut: tuple[str, str] | None = None
        self.reached, self.go_on = threading.Event(), threading.Event()
        line = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                line.take(self)

            def log_message(self, *_: object) -> None:
                """Quiet."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def close(self) -> None:
        self.go_on.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def take(self, asked: BaseHTTPRequestHandler) -> None:
        body = asked.rfile.read(int(asked.headers["content-length"]))
        if self._cuts(asked.path, "request"):
            return
        upstream = http.client.HTTPConnection(self._upstream.hostname or "", self._upstream.port, timeout=PATIENCE_S)
        headers = {name: asked.headers[name] for name in ("authorization", "content-type")}
        upstream.request("POST", asked.path, body, headers)
        answer = upstream.getresponse()
        content = answer.read()
        upstream.close()
        if self._cuts(asked.path, "answer"):
            return
        asked.send_response(answer.status)
        asked.send_header("content-length", str(len(content)))
        asked.end_headers()
        asked.wfile.write(content)

    def _cuts(self, path: str, where: str) -> bool:
        if self.cut is None or not path.endswith(self.cut[0]) or where != self.cut[1]:
            return False
        self.reached.set()
        self.go_on.wait(PATIENCE_S)  # until whoever asked is gone
        return True


@contextmanager
def cut_line(upstream: str) -> Iterator[CutLine]:
    line = CutLine(upstream)
    try:
        yield line
    finally:
        line.close()


def kill_hub(plane: ControlPlane) -> None:
    pid = plane.role_pid("hub")
    assert pid is not None
    os.kill(pid, signal.SIGKILL)


def test_every_step_may_be_the_last(tmp_path: Path) -> None:
    with a_plane(tmp_path) as plane, plane.client() as client:
        enrolled = client.devices.enroll("porch").config
        with cut_line(enrolled.registry_url) as line:
            config = msgspec.structs.replace(enrolled, registry_url=line.url)
            with AgentProcess(Enrolled(config), tmp_path / "device") as agent:
                client.edge.deploy(posting(agent.folder))
                pid = agent.wait_pid("a")
                for generation, cut in enumerate(CUTS, start=2):
                    line.cut = cut
                    line.reached.clear()
                    line.go_on.clear()
                    client.devices.rotate_key("porch")
                    wait_for_or_show(agent, line.reached.is_set, PATIENCE_S, f"{cut} being reached")
                    agent.kill()
                    if generation % 2:
                        kill_hub(plane)
                    line.cut = None
                    line.go_on.set()
                    agent.start()
                    rotated(client, agent, generation)
                    more_told(agent)
                assert agent.pid_of("a") == pid, "the module was started again"
                nothing_lost_nothing_twice(client, agent)
