"""HAProxy's runtime socket: one command, one answer. The socket is reached through its open folder, so its path may be long.

Commands go to the process of now. The master's socket reaches those before it, too: after a reload they finish what they have.
"""

from __future__ import annotations

import csv
import io
import os
import socket
from pathlib import Path

from hedgerow.errors import UnavailableError
from registry.controller.balancer.haproxy_config import MAP_FILE, MASTER_FILE, SOCKET_FILE
from registry.controller.balancer.port import Slot, SlotState

_TIMEOUT_S = 2.0
_READ_BYTES = 1 << 16
_MAP_LINES_AT_ONCE = 200
# Of every proxy (-1) the backend's row (2) on every server (-1).
_BACKENDS = "show stat -1 2 -1"
# SRV_ADMF_MAINT and SRV_ADMF_DRAIN of HAProxy's management guide.
_MAINTENANCE, _DRAIN = 0x23, 0x18


class HaproxySilent(UnavailableError):
    """The process does not take commands now."""

    key = "haproxy_silent"
    message = "HAProxy does not take commands: {problem}"
    remedy = "It is being started or reloaded; otherwise see its log in run/processes/balancer."


class HaproxyRefused(UnavailableError):
    """The process understood a command and did not do it."""

    key = "haproxy_refused"
    message = "HAProxy refused {command!r}: {answer}"
    remedy = "It is configured anew by itself; if this persists, report it with the log in run/processes/balancer."


class HaproxySocket:
    """Talks to the process whose working folder is ``folder``. Raises HaproxySilent, HaproxyRefused."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def description(self) -> str:
        """The ``description`` of the configuration that the process runs."""
        for line in self.ask("show info").splitlines():
            name, _, value = line.partition(": ")
            if name == "description":
                return value.strip()
        return ""

    def slots(self) -> dict[str, Slot]:
        """How the servers of the process really are, by ``BACKEND/SERVER``."""
        lines = [line.split() for line in self.ask("show servers state").splitlines()]
        header = next((line[1:] for line in lines if line[:1] == ["#"]), [])
        found: dict[str, Slot] = {}
        for line in lines:
            if len(line) == len(header):
                row = dict(zip(header, line, strict=True))
                found[f"{row['be_name']}/{row['srv_name']}"] = Slot(_state(int(row["srv_admin_state"])), int(row["srv_port"]))
        return found

    def requests_inside(self) -> int:
        """How many requests are waiting or being answered, in the process of now and in those that end after a reload."""
        lines = [line.split() for line in self._ask(MASTER_FILE, "show proc").splitlines()]
        workers = [words[0] for words in lines if words[1:2] == ["worker"]]
        return sum(_requests(self._ask(MASTER_FILE, f"@!{pid} {_BACKENDS}")) for pid in workers)

    def do(self, command: str) -> None:
        """A command that answers nothing, or says how it changed an address."""
        answer = self.ask(command).strip()
        if answer and not answer.endswith("by 'stats socket command'"):
            raise HaproxyRefused(command=command, answer=answer)

    def replace_map(self, lines: list[str]) -> None:
        """Exchange the traffic map at one stroke: requests see the old one or the new one."""
        answer = self.ask(f"prepare map {MAP_FILE}").strip()
        version = answer.rpartition(" ")[2]
        if not version.isdigit():
            raise HaproxyRefused(command=f"prepare map {MAP_FILE}", answer=answer)
        for start in range(0, len(lines), _MAP_LINES_AT_ONCE):
            payload = "\n".join(lines[start : start + _MAP_LINES_AT_ONCE])
            self.do(f"add map @{version} {MAP_FILE} <<\n{payload}\n")
        self.do(f"commit map @{version} {MAP_FILE}")

    def ask(self, command: str) -> str:
        return self._ask(SOCKET_FILE, command)

    def _ask(self, file: str, command: str) -> str:
        try:
            folder = os.open(self._folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
                    connection.settimeout(_TIMEOUT_S)
                    connection.connect(f"/proc/self/fd/{folder}/{file}")
                    connection.sendall(f"{command}\n".encode())
                    # The master keeps the connection open for the next command otherwise.
                    connection.shutdown(socket.SHUT_WR)
                    return _read_all(connection)
            finally:
                os.close(folder)
        except OSError as problem:
            raise HaproxySilent(problem=problem.strerror or str(problem)) from problem


def _requests(stat: str) -> int:
    """Of ``show stat``; 0 for a process that has ended meanwhile."""
    found = 0
    for row in csv.DictReader(io.StringIO(stat.removeprefix("# "))):
        found += int(row.get("scur") or 0)
    return found


def _state(admin: int) -> SlotState:
    """From HAProxy's bits for what an operator (we) asked for."""
    if admin & _MAINTENANCE:
        return "off"
    return "drain" if admin & _DRAIN else "ready"


def _read_all(connection: socket.socket) -> str:
    parts: list[bytes] = []
    while part := connection.recv(_READ_BYTES):
        parts.append(part)
    return b"".join(parts).decode(errors="replace")
