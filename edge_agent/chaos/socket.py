"""The chaos socket in the state folder: only there when the agent was started with ``--chaos-allowed``, only for its owner.

One order and one answer per connection, a line of JSON each.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import msgspec

from edge_agent.chaos.orders import Facts, Order
from edge_agent.errors import ChaosNotAllowed, ChaosUnanswered
from hedgerow.socket_path import reachable

NAME = "chaos.sock"
ANSWER_TIMEOUT_S = 20.0
_ORDER_BYTES_MAX = 4096
_ANSWER_BYTES_MAX = 1024 * 1024
log = logging.getLogger(__name__)


class ChaosSocket:
    """``carry_out`` is called on the socket's thread, one order at a time."""

    def __init__(self, folder: Path, carry_out: Callable[[Order], Facts]) -> None:
        self._path, self._carry_out = folder / NAME, carry_out
        self._socket: socket.socket | None = None

    def start(self) -> None:
        """Raises OSError."""
        self._path.unlink(missing_ok=True)
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        with reachable(self._path) as address:
            made.bind(address)
        # Nobody can connect before listen(), so there is no moment with other rights.
        self._path.chmod(0o600)
        made.listen(4)
        self._socket = made
        threading.Thread(target=self._serve, args=(made,), name="chaos", daemon=True).start()

    def close(self) -> None:
        made, self._socket = self._socket, None
        if made is not None:
            with contextlib.suppress(OSError):
                made.shutdown(socket.SHUT_RDWR)
            made.close()
            self._path.unlink(missing_ok=True)

    def _serve(self, listening: socket.socket) -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            with connection:
                try:
                    connection.settimeout(ANSWER_TIMEOUT_S)
                    order = msgspec.json.decode(_line(connection, _ORDER_BYTES_MAX), type=Order)
                    connection.sendall(msgspec.json.encode(self._carry_out(order)) + b"\n")
                except (OSError, msgspec.MsgspecError) as problem:
                    log.warning("a chaos order was dropped: %s", problem)
                except Exception:
                    log.exception("a chaos order could not be carried out")


def ask(folder: Path, order: Order) -> Facts:
    """Give an order to the agent of ``folder``. Raises ChaosNotAllowed (no socket), ChaosUnanswered."""
    if not (folder / NAME).exists():
        raise ChaosNotAllowed(folder=folder)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(ANSWER_TIMEOUT_S)
        try:
            with reachable(folder / NAME) as address:
                connection.connect(address)
            connection.sendall(msgspec.json.encode(order) + b"\n")
            return msgspec.json.decode(_line(connection, _ANSWER_BYTES_MAX), type=Facts)
        except (OSError, msgspec.MsgspecError) as problem:
            raise ChaosUnanswered(folder=folder, problem=problem) from None


def _line(connection: socket.socket, most: int) -> bytes:
    data = b""
    while not data.endswith(b"\n") and len(data) < most:
        part = connection.recv(65_536)
        if not part:
            break
        data += part
    return data
