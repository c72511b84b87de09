"""A gate before a real server: passes requests on, and does to answers what networks do to them."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal

import httpx

Mode = Literal["pass", "lose-answers", "hold-answers", "away"]


class Gate:
    """``mode`` is for requests from now on. ``passed`` counts those that reached the server, ``asked`` all."""

    def __init__(self, upstream: str, mode: Mode, tls: ssl.SSLContext | None) -> None:
        self.mode = mode
        self.asked = 0
        self.passed = 0
        self.closing = threading.Event()
        gate = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                mode = gate.mode
                gate.asked += 1
                self.close_connection = True
                if mode == "away":
                    self._answer(503, b"")
                    return
                kept = {name: self.headers[name] for name in ("authorization", "content-type")}
                answered = httpx.post(f"{upstream}{self.path}", content=body, headers=kept, timeout=60)
                gate.passed += 1
                if mode == "hold-answers":
                    gate.closing.wait(120)
                elif mode == "pass":
                    self._answer(answered.status_code, answered.content)

            def _answer(self, status: int, content: bytes) -> None:
                self.send_response(status)
                self.send_header("content-length", str(len(content)))
                self.send_header("connection", "close")
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                """Nothing: pytest's output is for pytest."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        if tls is not None:
            self.server.socket = tls.wrap_socket(self.server.socket, server_side=True)
        self.url = f"{'http' if tls is None else 'https'}://127.0.0.1:{self.server.server_address[1]}"


@contextmanager
def gate_before(upstream: str, mode: Mode = "pass", tls: ssl.SSLContext | None = None) -> Iterator[Gate]:
    """Open until the block ends."""
    gate = Gate(upstream, mode, tls)
    thread = threading.Thread(target=gate.server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield gate
    finally:
        gate.closing.set()
        gate.server.shutdown()
        gate.server.server_close()
        thread.join()
