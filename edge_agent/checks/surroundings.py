"""What is around the agent: clocks, the certificates of broker and registry, the Docker engine.

A warning is worth a look and fails nothing.
"""

from __future__ import annotations

import contextlib
import ctypes
import http.client
import json
import socket
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from urllib.parse import urlsplit

from edge_agent.checks.check import Check
from edge_agent.registry_http import connection_to
from hedgerow.contracts.device import DeviceConfig

TIMEOUT_S = 5.0
CLOCK_OFF_MOST_S = 60.0
CERTIFICATE_DAYS_MIN = 14
_DAY_S = 86_400
_TIME_ERROR = 5
_TIMEX_BYTES = 256
_TLS_PORTS = {"mqtts": 8883, "https": 443}


def clock_of_registry(config: DeviceConfig, now: datetime) -> Iterator[Check]:
    """The registry's Date header beside this device's clock; nothing when it says none."""
    parts = urlsplit(config.registry_url)
    with contextlib.closing(connection_to(parts, timeout_s=TIMEOUT_S)) as connection:
        try:
            connection.request("GET", f"{parts.path.rstrip('/')}/v2/")
            with connection.getresponse() as answer:
                told = parsedate_to_datetime(answer.headers["Date"])
        except (OSError, http.client.HTTPException, TypeError, ValueError):
            return
    off_s = abs((told - now).total_seconds()) if told.tzinfo else 0.0
    if off_s <= CLOCK_OFF_MOST_S:
        yield Check("clock of the registry", ok=True, detail=f"this device's differs by {off_s:.0f} s")
        return
    detail = f"it says {told:%Y-%m-%d %H:%M:%S}, this device {now:%Y-%m-%d %H:%M:%S} UTC"
    remedy = "Set the clock (for example: systemctl enable --now systemd-timesyncd); methods expire by it."
    yield Check("clock of the registry", ok=False, detail=detail, remedy=remedy)


def time_synchronisation() -> Check:
    """What the kernel says of its clock (adjtimex)."""
    name = "time synchronisation"
    try:
        state = ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES))
    except (OSError, AttributeError):
        return Check(name, ok=True, detail="this system does not tell")
    if state != _TIME_ERROR:
        return Check(name, ok=True, detail="the kernel says that the clock is synchronised")
    remedy = "Start a time service (systemctl enable --now systemd-timesyncd), or ignore this in a container."
    return Check(name, ok=True, warning=True, detail="no service keeps this machine's clock right", remedy=remedy)


def certificates(config: DeviceConfig, now: datetime) -> Iterator[Check]:
    """How long those of broker and registry are good; only where TLS is used and answers."""
    for name, url, trusted in (("broker", config.broker_url, config.broker_ca), ("registry", config.registry_url, "")):
        parts = urlsplit(url)
        if parts.scheme not in _TLS_PORTS:
            continue
        address = (parts.hostname or "localhost", parts.port or _TLS_PORTS[parts.scheme])
        try:
            ends_at = _certificate_end(address, trusted)
        except (OSError, ValueError) as problem:
            yield Check(
                f"certificate of the {name}",
                ok=False,
                detail=str(problem) or type(problem).__name__,
                remedy="Renew the certificate, or give the device the right authority (enrol it again).",
            )
            continue
        days = int((ends_at - now).total_seconds() // _DAY_S)
        soon = days < CERTIFICATE_DAYS_MIN
        remedy = "Renew it before it ends." if soon else ""
        yield Check(f"certificate of the {name}", ok=True, warning=soon, detail=f"good for {days} more days", remedy=remedy)


def _certificate_end(address: tuple[str, int], trusted: str) -> datetime:
    context = ssl.create_default_context(cadata=trusted or None)
    with (
        socket.create_connection(address, timeout=TIMEOUT_S) as plain,
        context.wrap_socket(plain, server_hostname=address[0]) as tls,
    ):
        found = tls.getpeercert() or {}
    return datetime.fromtimestamp(ssl.cert_time_to_seconds(str(found["notAfter"])), UTC)


def docker(folder: Path, host: str | None, options: Path = Path("/etc/docker/daemon.json")) -> Iterator[Check]:
    """The engine that Docker modules need, and whether its logs are bounded; nothing on a device without such modules."""
    if not (folder / "docker.used").exists():
        return
    try:
        # Megabytes that only a device with docker modules has.
        import docker as sdk
    except ModuleNotFoundError:
        return  # among the libraries already
    try:
        with contextlib.closing(sdk.APIClient(base_url=host, version="auto", timeout=int(TIMEOUT_S))) as client:
            version, driver = client.version()["Version"], client.info().get("LoggingDriver", "")
    except (sdk.errors.DockerException, OSError) as problem:
        yield Check("docker engine", ok=False, detail=str(problem), remedy="Start it: systemctl start docker")
        return
    yield Check("docker engine", ok=True, detail=f"version {version}, logs by {driver}")
    if driver == "json-file" and not _log_size(options):
        detail = f"{options} sets no max-size for logs: a talkative module fills the disk"
        remedy = 'Put {"log-driver": "local"} there, or "log-opts": {"max-size": "10m", "max-file": "3"}, and restart Docker.'
        yield Check("docker logs", ok=True, warning=True, detail=detail, remedy=remedy)


def _log_size(options: Path) -> str:
    try:
        found = json.loads(options.read_text(encoding="utf-8"))
        return str(found.get("log-opts", {}).get("max-size", ""))
    except (OSError, ValueError, AttributeError):
        return ""
