"""The gRPC port as the master has it. Imports no gRPC: its threads do not survive the fork of a worker."""

from __future__ import annotations

import importlib.util
import socket

from hedgerow.errors import MissingExtra
from runtime.errors import PortTaken


def check_installed() -> None:
    """Raises MissingExtra."""
    for module in ("grpc", "google.protobuf"):
        try:
            there = importlib.util.find_spec(module) is not None
        except ModuleNotFoundError:
            there = False
        if not there:
            raise MissingExtra(what="--grpc-port", module=module, extra="grpc")


def hold_port(host: str, port: int) -> socket.socket:
    """Bind the port in the master, without listening: it chooses a free one, and keeps it while workers come and go.

    Raises PortTaken.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    _check_free(family, host, port)
    held = socket.socket(family, socket.SOCK_STREAM)
    try:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        held.bind((host, port))
    except OSError as problem:
        held.close()
        raise PortTaken(host=host, port=port, problem=problem.strerror or str(problem)) from None
    return held


def _check_free(family: socket.AddressFamily, host: str, port: int) -> None:
    """A port that is shared on purpose could be shared by accident, too: with another server of the same user."""
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
            probe.listen(1)
    except OSError as problem:
        raise PortTaken(host=host, port=port, problem=problem.strerror or str(problem)) from None
