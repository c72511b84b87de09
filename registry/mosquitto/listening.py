"""Addresses: where to listen for devices, and by which names they come."""

from __future__ import annotations

import socket

from hedgerow.errors import InvalidSetting

_ANY = ("", "0.0.0.0", "::")  # noqa: S104 - compared, not bound
_CONNECT_TIMEOUT_S = 1.0


def parse_listen(text: str, setting: str = "listen") -> tuple[str, int]:
    """``HOST:PORT``; an IPv6 host stands in brackets. ``setting`` is where it was written. Raises InvalidSetting."""
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65_536 or len(port) > 5:
        problem = "write HOST:PORT, such as 0.0.0.0:8883"
        raise InvalidSetting(name=setting, value=text[:200], problem=problem, source=f"--{setting}")
    return host, int(port)


def server_names(names: str, host: str) -> list[str]:
    """What a certificate is for, the first being what devices are told: the names given, else where it listens."""
    given = [name.strip() for name in names.split(",") if name.strip()]
    if given:
        return given
    return [socket.gethostname(), "localhost", "127.0.0.1"] if host in _ANY else [host]


def device_url(listen: str, names: str) -> str:
    """What stands in device.toml. Raises InvalidSetting."""
    host, port = parse_listen(listen)
    name = server_names(names, host)[0]
    return f"mqtts://[{name}]:{port}" if ":" in name else f"mqtts://{name}:{port}"


def accepts_connections(port: int) -> bool:
    """Whether somebody listens on this loopback port."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=_CONNECT_TIMEOUT_S):
            return True
    except OSError:
        return False
