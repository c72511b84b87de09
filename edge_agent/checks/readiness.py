"""``check``: is this device ready to run an agent? Each check says ok or what is wrong, with a remedy; none changes anything."""

from __future__ import annotations

import http.client
import importlib.util
import shutil
import socket
import ssl
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

from edge_agent.checks.check import Check
from edge_agent.checks.own_certificate import own_certificate
from edge_agent.checks.state_folder import modules, state_files, state_folder
from edge_agent.checks.surroundings import certificates, clock_of_registry, docker, time_synchronisation
from edge_agent.device_config import others_can_read, read_device_config
from edge_agent.registry_http import connection_to
from hedgerow.contracts.device import DeviceConfig
from hedgerow.errors import HedgerowError

CONNECT_TIMEOUT_S = 5.0
FREE_BYTES_MIN = 200_000_000
EARLIEST = datetime(2026, 1, 1, tzinfo=UTC)
KEY_BYTES = 32
SERVER_ERROR = 500
_PORTS = {"mqtt": 1883, "mqtts": 8883}
_MODULES = {
    "paho.mqtt": "the link to the hub",
    "cryptography": "the signature of desired states",
    "runtime": "onnx modules",
    "onnxruntime": "onnx modules",
    "docker": "docker modules",
}


def run_checks(config_path: Path, state_dir: Path, now: datetime, docker_host: str | None = None) -> Iterator[Check]:
    """All checks, in the order in which a problem hides the following ones."""
    try:
        config = read_device_config(config_path)
    except HedgerowError as problem:
        yield Check("configuration", ok=False, detail=str(problem), remedy=problem.advice)
        return
    yield _configuration(config, config_path)
    yield _file_mode(config_path)
    yield _clock(now)
    yield _disk(state_dir)
    yield from _libraries()
    yield _reached("broker", config.broker_url, lambda: _connect(config.broker_url, config.broker_ca))
    registry = _reached("registry", config.registry_url, lambda: _ask_registry(config.registry_url))
    yield registry
    if registry.ok:
        yield from clock_of_registry(config, now)
    yield time_synchronisation()
    yield from certificates(config, now)
    yield from own_certificate(config, state_dir, now)
    yield state_folder(state_dir)
    yield from state_files(config, state_dir)
    yield from modules(state_dir)
    yield from docker(state_dir, docker_host)


def _configuration(config: DeviceConfig, path: Path) -> Check:
    try:
        length = len(config.key_bytes())
    except ValueError:
        length = 0
    if length != KEY_BYTES:
        return Check(
            "configuration",
            ok=False,
            detail=f"device_key in {path} is not {KEY_BYTES} bytes of base64",
            remedy="Enrol the device again.",
        )
    return Check(
        "configuration", ok=True, detail=f"device {config.name} ({config.device_uuid}) of workspace {config.workspace_id}"
    )


def _file_mode(path: Path) -> Check:
    if others_can_read(path):
        return Check(
            "key file",
            ok=False,
            detail=f"other users can read {path}, which holds the device's key",
            remedy=f"Run: chmod 600 {path}",
        )
    return Check("key file", ok=True, detail=f"only its owner can read {path}")


def _clock(now: datetime) -> Check:
    if now < EARLIEST:
        return Check(
            "clock",
            ok=False,
            detail=f"it is {now:%Y-%m-%d %H:%M}",
            remedy="Set the clock (for example: systemctl enable --now systemd-timesyncd).",
        )
    return Check("clock", ok=True, detail=f"{now:%Y-%m-%d %H:%M:%S} UTC")


def _disk(state_dir: Path) -> Check:
    there = next(folder for folder in (state_dir.absolute(), *state_dir.absolute().parents) if folder.exists())
    free = shutil.disk_usage(there).free
    if free < FREE_BYTES_MIN:
        return Check(
            "disk",
            ok=False,
            detail=f"{free // 1_000_000} MB are free in {there}",
            remedy="Free some space, or use --state-dir on another disk.",
        )
    return Check("disk", ok=True, detail=f"{free // 1_000_000} MB are free in {there}")


def _libraries() -> Iterator[Check]:
    for module, what in _MODULES.items():
        found = _is_there(module)
        remedy = "" if found else "Install them with: pip install 'hedgerow[edge]'"
        yield Check(f"python: {module}", ok=found, detail=f"{'found' if found else 'missing'}, for {what}", remedy=remedy)


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def _reached(name: str, url: str, reach: Callable[[], str]) -> Check:
    try:
        return Check(name, ok=True, detail=reach())
    except (OSError, http.client.HTTPException, ValueError) as problem:
        remedy = f"See that {_without_password(url)} can be reached from this device (address, firewall, is it running?)."
        return Check(name, ok=False, detail=f"{_without_password(url)}: {problem or type(problem).__name__}", remedy=remedy)


def _connect(url: str, trusted: str) -> str:
    parts = urlsplit(url)
    host, port = parts.hostname or "localhost", parts.port or _PORTS.get(parts.scheme, 1883)
    with socket.create_connection((host, port), timeout=CONNECT_TIMEOUT_S) as connection:
        if parts.scheme == "mqtts":
            with ssl.create_default_context(cadata=trusted or None).wrap_socket(connection, server_hostname=host):
                return f"{host}:{port} takes TLS connections"
    return f"{host}:{port} takes connections"


def _ask_registry(url: str) -> str:
    parts = urlsplit(url)
    connection = connection_to(parts, timeout_s=CONNECT_TIMEOUT_S)
    try:
        connection.request("GET", f"{parts.path.rstrip('/')}/v2/")
        with connection.getresponse() as answer:
            status = answer.status
    finally:
        connection.close()
    if status >= SERVER_ERROR:
        raise ValueError(f"it answered {status}")
    return f"{url} answers"


def _without_password(url: str) -> str:
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
