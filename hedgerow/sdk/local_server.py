"""Folder mode: join the control plane that runs on a workspace folder, or start one that ends with this client."""

from __future__ import annotations

import importlib.util
import json
import selectors
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import BinaryIO

from hedgerow.errors import MissingExtra
from hedgerow.sdk.errors import ServerDidNotStart, ServerUnreachable
from hedgerow.sdk.transport import Transport

START_TIMEOUT_S = 30.0
# A Unix socket's address has room for 107 bytes; deeper folders are reached over TCP instead.
_MAX_SOCKET_PATH = 107


class LocalServer:
    """A control plane started by this process; it stops when :meth:`stop` is called or this process ends."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def stop(self) -> None:
        """Close its standard input, which is its signal to end, and wait."""
        if self._process.stdin:
            self._process.stdin.close()
        if self._process.stdout:
            self._process.stdout.close()
        self._process.wait()


def join_or_start(folder: Path, token: str | None, *, start: bool) -> tuple[Transport, LocalServer | None]:
    """Raises ServerUnreachable (``start`` is False and nothing runs), ServerDidNotStart, MissingExtra."""
    if transport := _join(folder, token):
        return transport, None
    if not start:
        raise ServerUnreachable(where=folder, problem="no server runs on this folder")
    if importlib.util.find_spec("sqlalchemy") is None:
        raise MissingExtra(what=f"Starting a control plane on {folder}", module="sqlalchemy", extra="server")
    server = _start(folder)
    if transport := _join(folder, token):
        return transport, server
    server.stop()
    raise ServerDidNotStart(folder=folder, problem="it is up but does not answer")


def _join(folder: Path, token: str | None) -> Transport | None:
    run = folder / "run"
    try:
        url = str(json.loads((run / "server.json").read_bytes())["url"])
        owner = token or (run / "owner.token").read_text(encoding="ascii").strip()
    except (FileNotFoundError, NotADirectoryError, ValueError, LookupError, TypeError):
        return None  # nothing runs, or what runs is just writing it
    except PermissionError as problem:
        raise ServerUnreachable(where=folder, problem=f"{problem.filename} belongs to another user") from problem
    path = run / "server.sock"
    if len(str(path).encode()) <= _MAX_SOCKET_PATH and path.exists():
        # A socket file whose server was killed refuses at once; httpx would leave the attempt's socket open.
        return Transport(url, owner, socket=path) if _listens(path) else None
    transport = Transport(url, owner)
    try:
        transport.exists("/healthz")
    except ServerUnreachable:
        transport.close()
        return None
    return transport


def _listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
        return True


def _start(folder: Path) -> LocalServer:
    ports = ["--port", "0", "--broker-port", "0", "--balancer-port", "0"]
    with tempfile.TemporaryFile() as complaints:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "registry.up", "--workspace", str(folder), *ports, "--watch-parent"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=complaints,
            start_new_session=True,
        )
        assert process.stdout is not None  # noqa: S101 - asked for one line above
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            came_up = bool(selector.select(START_TIMEOUT_S)) and bool(process.stdout.readline())
        if came_up:
            return LocalServer(process)
        LocalServer(process).stop()
        raise ServerDidNotStart(folder=folder, problem=_last_line(complaints))


def _last_line(file: BinaryIO) -> str:
    file.seek(0)
    lines = file.read()[-4000:].decode(errors="replace").strip().splitlines()
    return lines[-1].removeprefix("hedgerow up: ") if lines else "it ended without a word"
