"""A support bundle: everything that helps to see what is wrong with a device, and nothing that is secret, as tar.gz.

State files, decisions, checks and versions, and the newest logs of the modules. Made by the agent (``UploadSupportBundle``) or
without one (``hedgerow agent support-bundle``).
"""

from __future__ import annotations

import io
import os
import platform
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO, Any

import msgspec

from edge_agent.link.keys import kept_secrets
from edge_agent.methods.log_lines import Wanted, chosen
from edge_agent.methods.logs import LinesOf
from edge_agent.methods.redaction import Redaction, secrets_of, shown_device, shown_state
from hedgerow.contracts.device import DeviceConfig
from hedgerow.contracts.edge import DesiredState
from hedgerow.errors import HedgerowError

LOG_LINES = 20_000
LOG_BYTES = 8 * 1024 * 1024
FILE_BYTES = 4 * 1024 * 1024
_STATE_FILES = ("report.json", "decisions.jsonl", "history.json", "starts.json", "intake.json", "docker.used")
_LIBRARIES = ("hedgerow", "msgspec", "paho-mqtt", "cryptography", "docker", "onnxruntime", "numpy")


@dataclass(frozen=True)
class BundleSource:
    """Of one device: its configuration, state folder and desired state, how logs are read, and what the checks say."""

    config: DeviceConfig
    folder: Path
    state: Callable[[], DesiredState | None]
    lines_of: LinesOf
    checks: Callable[[], list[dict[str, Any]]]
    version: str


def write_bundle(
    file: IO[bytes], source: BundleSource, now: datetime, *, since_s: float | None, until_s: float | None, with_logs: bool
) -> list[str]:
    """Write the archive; returns the names in it. What cannot be read is said in it, and stops nothing."""
    state = source.state()
    redaction = Redaction(secrets_of(source.config, state, kept_secrets(source.config, source.folder)))
    members = _members(source, state, redaction, now)
    names: list[str] = []
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        for name, text in members:
            _add(archive, name, io.BytesIO(text.encode(errors="replace")), now)
            names.append(name)
        for module in sorted(state.modules) if state and with_logs else ():
            with tempfile.TemporaryFile() as spool:
                _spool_log(spool, source.lines_of, module, Wanted(tail=LOG_LINES, since_s=since_s, until_s=until_s), redaction)
                _add(archive, f"logs/{module}.log", spool, now)
            names.append(f"logs/{module}.log")
    return names


def _members(source: BundleSource, state: DesiredState | None, redaction: Redaction, now: datetime) -> Iterator[tuple[str, str]]:
    yield "versions.json", _pretty(_versions(source, now))
    yield "device.json", redaction.text(_pretty(shown_device(source.config)))
    yield "checks.json", redaction.text(_pretty(_checks(source)))
    if state is not None:
        yield "desired.json", redaction.text(_pretty(shown_state(state)))
    yield "files.json", _pretty(_files(source.folder))
    for name in _STATE_FILES:
        path = source.folder / name
        if path.is_file():
            yield f"state/{name}", redaction.text(_newest(path))


def _checks(source: BundleSource) -> object:
    try:
        return source.checks()
    except (HedgerowError, OSError) as problem:
        return f"the checks could not be made: {problem}"


def _versions(source: BundleSource, now: datetime) -> dict[str, object]:
    return {
        "agent": source.version,
        "made_at": now.isoformat(),
        "python": sys.version,
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "libraries": {name: found for name in _LIBRARIES if (found := _version(name))},
        "left_out": "keys, tokens, passwords and the values of modules' variables",
    }


def _version(distribution: str) -> str | None:
    # Costs a megabyte, which only somebody who wants a bundle pays.
    from importlib import metadata

    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _files(folder: Path) -> dict[str, int]:
    """Name and size of what lies in the state folder itself."""
    return {path.name: path.stat().st_size for path in sorted(folder.iterdir()) if path.is_file()} if folder.is_dir() else {}


def _newest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - FILE_BYTES))
            return file.read(FILE_BYTES).decode(errors="replace")
    except OSError as problem:
        return f"cannot be read: {problem.strerror}"


def _spool_log(spool: IO[bytes], lines_of: LinesOf, module: str, wanted: Wanted, redaction: Redaction) -> None:
    try:
        with closing(lines_of(module, wanted)) as source:
            for line in chosen(source, wanted):
                spool.write(f"{redaction.text(line.text)}\n".encode(errors="replace"))
                if spool.tell() > LOG_BYTES:
                    spool.write(b"[hedgerow] the rest is left out\n")
                    break
    except HedgerowError as problem:
        spool.write(f"[hedgerow] {problem}\n".encode(errors="replace"))


def _add(archive: tarfile.TarFile, name: str, content: IO[bytes], now: datetime) -> None:
    member = tarfile.TarInfo(f"support-bundle/{name}")
    member.size = content.seek(0, os.SEEK_END)
    member.mtime = int(now.timestamp())
    member.mode = 0o600
    content.seek(0)
    archive.addfile(member, content)


def _pretty(value: object) -> str:
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode() + "\n"
