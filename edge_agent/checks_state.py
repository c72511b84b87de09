"""The second half of ``check``: what lies on the device (state folder, buffer, desired state, modules) and around it.

Each looks only: nothing is made, moved or repaired. A warning is worth a look and fails nothing.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import sqlite3
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from urllib.parse import urlsplit

from edge_agent.link.standing import words
from edge_agent.state_store import StateStore
from hedgerow.contracts.device import DeviceConfig
from hedgerow.contracts.document import decode
from hedgerow.contracts.edge import DesiredState
from hedgerow.contracts.status import LinkStatus, StatusReport
from hedgerow.errors import HedgerowError
from hedgerow.process.lock import lock_holder

TIMEOUT_S = 5.0
CLOCK_OFF_MOST_S = 60.0
CERTIFICATE_DAYS_MIN = 14
_DAY_S = 86_400
_TIME_ERROR = 5
_TIMEX_BYTES = 256
_TLS_PORTS = {"mqtts": 8883, "https": 443}
_UNWELL = ("unhealthy", "backoff", "failed")


@dataclass(frozen=True)
class Check:
    """One result. ``warning``: nothing is broken, but somebody should look; ``remedy`` says what to do."""

    name: str
    ok: bool
    detail: str
    remedy: str = ""
    warning: bool = False


def clock_of_registry(config: DeviceConfig, now: datetime) -> Iterator[Check]:
    """The registry's Date header beside this device's clock; nothing when it says none."""
    parts = urlsplit(config.registry_url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    with contextlib.closing(kind(parts.hostname or "localhost", parts.port, timeout=TIMEOUT_S)) as connection:
        try:
            connection.request("GET", f"{parts.path.rstrip('/')}/v2/")
            told = parsedate_to_datetime(connection.getresponse().headers["Date"])
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
    # Not for the agent, which imports this file and makes no checks by itself.
    import ctypes

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


def state_folder(folder: Path) -> Check:
    """Whether the agent can write there, or make it."""
    there = next(one for one in (folder.absolute(), *folder.absolute().parents) if one.exists())
    if os.access(there, os.W_OK | os.X_OK) and there.is_dir():
        return Check("state folder", ok=True, detail=f"{there} can be written to")
    remedy = "Give this user the right to write there, mount it read-write, or choose another with --state-dir."
    return Check("state folder", ok=False, detail=f"{there} cannot be written to by this user", remedy=remedy)


def state_files(config: DeviceConfig, folder: Path) -> Iterator[Check]:
    """The buffer, the desired state and what was moved aside; nothing for a device that has never run."""
    store = StateStore(folder)
    if not folder.is_dir():
        return
    if store.outbox.exists():
        yield _buffer(store.outbox)
    if store.desired.exists():
        yield _desired(config, store.desired)
    damaged = sorted(path.name for path in folder.glob("*.damaged*"))
    if damaged:
        remedy = "Look for a failing disk or sudden power cuts; remove the files when you have seen them."
        yield Check("damaged files", ok=True, warning=True, detail=f"moved aside: {', '.join(damaged)}", remedy=remedy)


def _buffer(path: Path) -> Check:
    try:
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=TIMEOUT_S)) as database:
            said = str(database.execute("PRAGMA quick_check(1)").fetchone()[0])
    except sqlite3.Error as problem:
        said = str(problem)
    if said == "ok":
        return Check("telemetry buffer", ok=True, detail=f"{path.name} is whole, {path.stat().st_size // 1_000_000} MB")
    remedy = "Restart the agent: it moves the file aside, keeps what can be read, and reports the rest as a gap."
    return Check("telemetry buffer", ok=False, detail=f"{path.name}: {said}", remedy=remedy)


def _desired(config: DeviceConfig, path: Path) -> Check:
    try:
        # Only here: without the extra `edge` the other checks still work.
        from edge_agent.link.trusted import trusted_in

        payload = trusted_in(config, path.parent).open_stored(path.read_bytes())
        state = decode(payload, DesiredState)
    except (HedgerowError, OSError, ImportError) as problem:
        remedy = "Restart the agent while it is connected: the hub sends it again."
        return Check("desired state", ok=False, detail=f"{path.name}: {problem}", remedy=remedy)
    return Check("desired state", ok=True, detail=f"version {state.version}, signed, modules: {len(state.modules)}")


def modules(folder: Path) -> Iterator[Check]:
    """What the agent's last report says of them."""
    store = StateStore(folder)
    if not store.report.exists():
        return
    pid = lock_holder(store.lock)
    if pid is None:
        remedy = "Start it: hedgerow agent run (or systemctl start hedgerow-agent)."
        yield Check("agent", ok=True, warning=True, detail="it ran here, but does not now", remedy=remedy)
        return
    yield Check("agent", ok=True, detail=f"it runs with pid {pid}")
    try:
        report = decode(store.report.read_bytes(), StatusReport)
    except (HedgerowError, OSError) as problem:
        yield Check(
            "modules", ok=True, warning=True, detail=f"the last report cannot be read: {problem}", remedy="Wait for the next."
        )
        return
    yield from _link(report.link)
    unwell = [f"{name} ({one.state}: {one.reason})" for name, one in sorted(report.modules.items()) if one.state in _UNWELL]
    if unwell:
        yield Check("modules", ok=False, detail="; ".join(unwell)[:1000], remedy="See why with: hedgerow agent events")
    else:
        yield Check("modules", ok=True, detail=f"{len(report.modules)} reported, none is unwell")


def _link(link: LinkStatus | None) -> Iterator[Check]:
    """What the running agent last heard of its hub; nothing from an agent that does not say."""
    if link is None:
        return
    if link.state == "session":
        yield Check("session", ok=True, detail="the hub grants one")
    elif link.state == "revoked":
        remedy = "If it is to work again, delete the device (hedgerow device delete) and enrol it anew, in another folder."
        yield Check("session", ok=False, detail=words(link), remedy=remedy)
    elif link.state == "refused":
        yield Check("session", ok=False, detail=words(link), remedy="Look at: hedgerow device events DEVICE")
    else:
        remedy = "See the checks of the broker above; the agent tries again by itself."
        yield Check("session", ok=True, warning=True, detail=words(link), remedy=remedy)


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
