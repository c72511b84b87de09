"""Serves a Flask app with gunicorn's threaded worker in this very process.

gunicorn usually keeps a parent process beside each worker. Here `hedgerow up` (or systemd) is that parent already, and
a second copy of everything imported would cost 30 MB. What remains: its HTTP parser, its event loop with threads, and
its graceful stop. One process also means that a kill -9 leaves nothing behind that holds the lock or the port.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Any

from flask import Flask, request
from gunicorn.app.base import BaseApplication
from gunicorn.glogging import Logger
from gunicorn.http.errors import ParseException
from gunicorn.workers.gthread import ThreadWorker

from hedgerow.receiving import Receiving
from registry.server.followers import Followers
from registry.server.unreadable import LONGEST_LINE, Unreadable

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

STOP_GRACE_S = 10
_KEEP_ALIVE_S = 5
# A caller has this long for the head of a request; bodies have their own limit (``guard.py``).
_HEAD_S = 10.0


@dataclass(frozen=True)
class Serving:
    """What gunicorn is given; ``on_ready`` is called when requests are about to be answered."""

    app: Flask
    news: Followers
    listeners: Sequence[socket.socket]
    threads: int
    watch_parent: bool
    on_ready: Callable[[], None]


def serve(serving: Serving) -> None:
    """Answer requests until SIGTERM, SIGINT or SIGHUP; those under way get ``STOP_GRACE_S`` to finish."""
    application = _Application(serving)
    worker = _Worker(1, os.getppid(), list(serving.listeners), application, 0, application.cfg, _RootLogger(application.cfg))
    worker.serving = serving
    worker.receiving = Receiving(_HEAD_S, serving.threads)
    worker.unreadable = Unreadable()
    serving.app.before_request(worker.head_is_whole)
    worker.init_process()


class _Application(BaseApplication):  # type: ignore[misc]  # gunicorn has no types
    def __init__(self, serving: Serving) -> None:
        self._serving = serving
        super().__init__()

    def load_config(self) -> None:
        options: dict[str, Any] = {
            "threads": self._serving.threads,
            "keepalive": _KEEP_ALIVE_S,
            "graceful_timeout": STOP_GRACE_S,
            "limit_request_line": LONGEST_LINE,
            # Proxies are handled by --behind-proxy alone.
            "forwarded_allow_ips": "",
            "forwarder_headers": "",
            "secure_scheme_headers": {},
            "post_worker_init": lambda _worker: _begin(self._serving),
        }
        for name, value in options.items():
            self.cfg.set(name, value)

    def load(self) -> WSGIApplication:
        return _closing_refused_uploads(self._serving.app)


class _Worker(ThreadWorker):  # type: ignore[misc]  # gunicorn has no types
    serving: Serving
    receiving: Receiving
    unreadable: Unreadable

    def notify(self) -> None:
        """The heartbeat, at every turn of the main loop: callers that dawdle over a request's head give their thread back."""
        super().notify()
        self.receiving.cut_late(monotonic())

    def handle(self, conn: Any) -> Any:  # noqa: ANN401 - gunicorn's connection and answer
        connection = conn.sock
        self.receiving.begin(connection, monotonic())
        try:
            return super().handle(conn)
        finally:
            self.receiving.done(connection)

    def handle_error(self, req: object, client: socket.socket, addr: Any, exc: BaseException) -> None:  # noqa: ANN401 - as gunicorn has it
        """What could not be read as a request is answered in the one error shape, not with gunicorn's page."""
        self.unreadable.refuse(client, str(addr[0]) if addr else "a Unix socket", exc)

    def _keepalive_after(self, conn: Any, keepalive: Any) -> bool:  # noqa: ANN401 - as gunicorn has it
        try:
            return bool(super()._keepalive_after(conn, keepalive))
        except ParseException:
            # The rest of a body that nobody read is no chunks; its request was answered, and a second answer would be wrong.
            return False

    def head_is_whole(self) -> None:
        """Before a request is answered: from now on it is not measured as one that is still being sent."""
        self.receiving.done(request.environ.get("gunicorn.socket"))

    def init_signals(self) -> None:
        super().init_signals()
        for number in (signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self.handle_exit)

    def handle_exit(self, number: int, frame: object) -> None:
        # Event streams would outlast any grace period.
        self.serving.news.close()
        super().handle_exit(number, frame)

    def is_parent_alive(self) -> bool:
        return True  # whose end matters is told by --watch-parent


class _RootLogger(Logger):  # type: ignore[misc]  # gunicorn has no types
    """gunicorn's messages go where all others go, in the same format."""

    def setup(self, cfg: object) -> None:
        super().setup(cfg)
        for handler in list(self.error_log.handlers):
            self.error_log.removeHandler(handler)
        self.error_log.propagate = True
        # Its "info" is about itself: booting, listening, shutting down.
        self.error_log.setLevel(logging.WARNING)


def _closing_refused_uploads(app: WSGIApplication) -> WSGIApplication:
    """Announce `Connection: close` when a request with a body is refused.

    The rest of such a body may never be read, and gunicorn then closes the connection; a client that was told
    "keep-alive" would lose its next request to that.
    """

    def wrapped(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        has_body = environ.get("CONTENT_LENGTH", "") not in ("", "0") or "HTTP_TRANSFER_ENCODING" in environ

        def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:  # noqa: ANN401 - WSGI's own types
            if has_body and status >= "400":
                # What gunicorn hands over is a method of its Response; the header itself it would throw away.
                start_response.__self__.force_close()  # type: ignore[attr-defined]  # WSGI's type says nothing of it
            return start_response(status, headers, exc_info)

        return app(environ, start)

    return wrapped


def _begin(serving: Serving) -> None:
    if serving.watch_parent:
        threading.Thread(target=_end_with_stdin, name="watch-parent", daemon=True).start()
    serving.on_ready()


def _end_with_stdin() -> None:
    while os.read(sys.stdin.fileno(), 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
