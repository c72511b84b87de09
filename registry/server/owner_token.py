"""The owner token of this machine: a 0600 file in the workspace's run folder, read by the CLI of the same user."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection

from hedgerow.atomic_write import atomic_write
from registry.errors import TokenRefused
from registry.store import tokens
from registry.workspace import Workspace

NAME = "this-machine"
# Sets the token of this file apart from owner tokens that people made.
SUBJECT = "owner.token"


def ensure(connection: Connection, workspace: Workspace, now: datetime) -> None:
    """Keep the file if its token is good; otherwise write a new one and revoke what was there before."""
    if _is_good(connection, workspace, now):
        return
    tokens.revoke_for(connection, "owner", SUBJECT, now)
    made = tokens.create(connection, name=NAME, role="owner", subject=SUBJECT, now=now)
    # Written before the commit: a file without its row is replaced at the next start, a row without its file is lost.
    atomic_write(workspace.owner_token_file, f"{made.secret}\n".encode(), mode=0o600)


def _is_good(connection: Connection, workspace: Workspace, now: datetime) -> bool:
    path = workspace.owner_token_file
    if not path.is_file() or path.stat().st_mode & 0o077:
        return False
    try:
        found = tokens.verify(connection, path.read_text(encoding="utf-8", errors="replace").strip(), now)
    except TokenRefused:
        return False
    return found.role == "owner"
