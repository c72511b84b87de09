"""What the agent keeps in its state folder: the buffer, the desired state, what its last report says of modules and hub.

A warning is worth a look and fails nothing.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from edge_agent.checks.check import Check
from edge_agent.link.standing import words
from edge_agent.state_store import StateStore
from hedgerow.contracts.device import DeviceConfig
from hedgerow.contracts.document import decode
from hedgerow.contracts.edge import DesiredState
from hedgerow.contracts.status import LinkStatus, StatusReport
from hedgerow.errors import HedgerowError
from hedgerow.process.lock import lock_holder

TIMEOUT_S = 5.0
_UNWELL = ("unhealthy", "backoff", "failed")


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
