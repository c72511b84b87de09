"""How each kind of probe is asked: a GET, a connection, a command, or how long ago the module spoke by itself."""

from __future__ import annotations

import http.client
import socket
from collections.abc import Callable, Sequence
from urllib.parse import urlsplit

from edge_agent.engines.heartbeats import Heartbeats
from edge_agent.engines.probes import Target
from edge_agent.reconcile.situation import EngineKind, Wanted

OK = 200
# Docker's proxy takes every connection to a published port and closes it again when nobody listens behind it.
PROXY_CLOSES_WITHIN_S = 0.2

# By kind and name of a module that runs. And: run a command inside a module, for so many seconds at most; "" when it ended
# with 0, else what is wrong in a few words.
FindAddress = Callable[[EngineKind, str], str | None]
RunInside = Callable[[Wanted, Sequence[str], float], str]


class Asking:
    """``find_address`` gives the address of a module that runs, None while it is not known."""

    def __init__(self, find_address: FindAddress, run_inside: RunInside, heartbeats: Heartbeats) -> None:
        self._find_address = find_address
        self._run_inside = run_inside
        self._heartbeats = heartbeats

    def ask(self, target: Target, began_s: float) -> str:
        """One question; "" for a good answer, else what is wrong in a few words."""
        probe = target.probe
        match probe.kind:
            case "http":
                address = self._find_address(target.wanted.spec.kind, target.name)
                return ask_http(address, probe.path, probe.timeout_s) if address else "it does not listen yet"
            case "tcp":
                address = self._find_address(target.wanted.spec.kind, target.name)
                proxied = target.wanted.spec.kind == "docker"
                return ask_tcp(address, probe.timeout_s, proxied=proxied) if address else "it does not listen yet"
            case "exec":
                if not probe.command:
                    return "its exec probe has no command"
                return self._run_inside(target.wanted, probe.command, probe.timeout_s)
            case "heartbeat":
                return self._ask_heartbeat(target, began_s)

    def _ask_heartbeat(self, target: Target, began_s: float) -> str:
        since_s = self._heartbeats.since_s(target.name, began_s)
        if since_s is None:
            return "no heartbeat has come yet"
        # A module that speaks once in a period is a little early or late each time.
        late = since_s > target.probe.period_s + target.probe.timeout_s
        return f"its last heartbeat was {since_s:.1f} s ago" if late else ""


def ask_http(address: str, path: str, timeout_s: float) -> str:
    """GET ``path``; "" when the answer is 200, else what is wrong with it in a few words."""
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=timeout_s)
    try:
        connection.request("GET", path)
        status = connection.getresponse().status
    except TimeoutError:
        return f"GET {path} got no answer within {timeout_s:g} s"
    except (OSError, http.client.HTTPException) as problem:
        return f"GET {path} failed: {problem or type(problem).__name__}"
    finally:
        connection.close()
    return "" if status == OK else f"GET {path} answered {status}"


def ask_tcp(address: str, timeout_s: float, *, proxied: bool = False) -> str:
    """Connect; "" when the module's port takes it. Behind Docker's proxy the connection must also stay open for a moment."""
    parts = urlsplit(address)
    where = f"port {parts.port}"
    try:
        with socket.create_connection((parts.hostname or "", parts.port or 0), timeout_s) as connection:
            return _closed_at_once(connection, where) if proxied else ""
    except TimeoutError:
        return f"{where} took no connection within {timeout_s:g} s"
    except OSError as problem:
        return f"{where} took no connection: {problem.strerror or problem}"


def _closed_at_once(connection: socket.socket, where: str) -> str:
    connection.settimeout(PROXY_CLOSES_WITHIN_S)
    try:
        said = connection.recv(1)
    except TimeoutError:
        return ""
    return "" if said else f"{where} closed the connection at once"
