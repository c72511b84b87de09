"""Ports of a control plane: free ones where 0 was asked for, and an early, clear "taken" for the others."""

from __future__ import annotations

import errno
import socket
from dataclasses import replace

from registry.errors import PortTaken
from registry.up.roles import UpSettings

_OPTIONS = {"port": "--port", "broker_port": "--broker-port", "balancer_port": "--balancer-port"}


def settle_ports(settings: UpSettings) -> UpSettings:
    """Replace 0 by free ports; raise PortTaken for one that somebody listens on."""
    chosen: dict[str, int] = {}
    probes: list[socket.socket] = []
    try:
        for name, option in _OPTIONS.items():
            host = settings.host if name == "port" else "127.0.0.1"
            if name == "broker_port" and settings.broker:
                continue
            probe = _probe(host, getattr(settings, name), option)
            probes.append(probe)
            chosen[name] = probe.getsockname()[1]
    finally:
        # Held until all are chosen, so that no port is given out twice.
        for probe in probes:
            probe.close()
    return replace(settings, **chosen)  # type: ignore[arg-type]  # the keys are the three int fields above


def _probe(host: str, port: int, option: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    probe = socket.socket(family, socket.SOCK_STREAM)
    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        probe.bind((host, port))
        probe.listen(1)
    except OSError as problem:
        probe.close()
        if problem.errno in (errno.EADDRINUSE, errno.EACCES):
            raise PortTaken(port=port, host=host, option=option) from None
        raise
    return probe
