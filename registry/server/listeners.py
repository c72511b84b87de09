"""The sockets a server listens on: TCP for everybody, a Unix socket in the workspace for this machine's user."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path

from registry.errors import PortTaken

BACKLOG = 1024


def bind_tcp(host: str, port: int) -> socket.socket:
    """Bound and listening, so that nobody else can take the port; port 0 takes a free one. Raises PortTaken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    # Connections of the server before us linger in TIME_WAIT; they must not keep us out.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        listener.bind((host, port))
        # With SO_REUSEADDR two sockets may bind one port as long as neither listens.
        listener.listen(BACKLOG)
    except OSError as problem:
        listener.close()
        if problem.errno in (errno.EADDRINUSE, errno.EACCES):
            raise PortTaken(port=port, host=host, option="--port") from None
        raise
    return listener


def bind_unix(path: Path) -> socket.socket:
    """``run/server.sock``, mode 0600, listening. The role lock makes sure that a file found there is a leftover."""
    path.unlink(missing_ok=True)
    # A socket's path has at most 107 bytes, a workspace may lie deeper: reach it through its open folder.
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(f"/proc/self/fd/{folder}/{path.name}")
        path.chmod(0o600)
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    finally:
        os.close(folder)
    return listener
