"""A workspace's folder: where everything lies, who it is (keys, incarnation), and its format version.

workspace/
  format.json          format version and workspace id; written last when a workspace is made
  records.db series.db SQLite (absent with a PostgreSQL URL)
  blobs/sha256/ab/…    content by digest
  keys/                signing.key (Ed25519; later ones: registry/identity/signing_keys.py), devices.key (master of all device
                       keys), vault.keys (seal secrets; made when first needed, registry/vault.py), 0600, in a backup only
                       when asked
  run/                 locks, sockets, the owner token, state of supervised processes; gone after a clean stop
  work/                scratch space of builds and runs
  cache/               what can be made again: wheel layers, locks, which image a request led to
"""

from __future__ import annotations

import base64
import os
import secrets
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from hedgerow.atomic_write import atomic_write
from hedgerow.contracts.device import TrustedKey
from hedgerow.contracts.document import decode, encode
from hedgerow.contracts.seal import DEVICE_KEY_BYTES
from hedgerow.errors import Bug
from registry.errors import NotAWorkspace, WorkspaceTooNew
from registry.identity.signing_keys import read_signing_keys

FORMAT = 1
ROLES = ("server", "hub", "controller", "broker")
VAULT_KEYS = "vault.keys"


class FormatFile(msgspec.Struct, frozen=True, kw_only=True):
    """``format.json``."""

    format: int
    workspace_id: str


@dataclass(frozen=True)
class Workspace:
    """Paths and identity of one workspace folder. Making the object reads and writes nothing."""

    folder: Path

    @property
    def blobs(self) -> Path:
        return self.folder / "blobs"

    @property
    def keys(self) -> Path:
        return self.folder / "keys"

    @property
    def run(self) -> Path:
        return self.folder / "run"

    @property
    def work(self) -> Path:
        return self.folder / "work"

    @property
    def pushes(self) -> Path:
        """Unfinished uploads of ``/v2/`` (registry/server/push_files.py)."""
        return self.work / "pushes"

    @property
    def cache(self) -> Path:
        return self.folder / "cache"

    @property
    def owner_token_file(self) -> Path:
        return self.run / "owner.token"

    @property
    def server_socket(self) -> Path:
        return self.run / "server.sock"

    @property
    def processes(self) -> Path:
        """State folders of supervised processes (replicas, runs, builds)."""
        return self.run / "processes"

    def role_lock(self, role: str) -> Path:
        return self.run / f"{role}.lock"

    @cached_property
    def format(self) -> FormatFile:
        """Raises NotAWorkspace or WorkspaceTooNew."""
        path = self.folder / "format.json"
        if not path.is_file():
            raise NotAWorkspace(folder=self.folder)
        found = decode(path.read_bytes(), FormatFile)
        if found.format > FORMAT:
            raise WorkspaceTooNew(folder=self.folder, found=found.format, supported=FORMAT)
        return found

    @property
    def id(self) -> str:
        return self.format.workspace_id

    @property
    def topic_prefix(self) -> str:
        return f"hedgerow/{self.id}"

    @property
    def trusted_key(self) -> TrustedKey:
        """By which a backup knows this workspace: the first of its signing keys (``registry/identity/signing_keys.py``)."""
        return read_signing_keys(self.keys).identity

    @cached_property
    def device_master(self) -> bytes:
        """32 bytes from which every device key is derived (``hedgerow.contracts.seal.device_key``)."""
        return _read_key(self.keys / "devices.key")


def open_workspace(folder: Path) -> Workspace:
    """Open ``folder`` as a workspace, making it when it is empty or absent. Safe to call at once from several processes."""
    workspace = Workspace(folder.absolute())
    if not (workspace.folder / "format.json").exists():
        _create(workspace)
    _ = workspace.format
    for path in (workspace.run, workspace.processes, workspace.work, workspace.cache, workspace.blobs):
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return workspace


def _create(workspace: Workspace) -> None:
    """Every step can be repeated, and ``format.json`` comes last: a folder cut off half-way is simply finished."""
    made_by_us = {"keys", "run", "work", "cache", "blobs", "format.json"}
    workspace.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    # Temporaries of whoever is about to write it, also those of atomic_write, which puts a dot of its own before the name.
    found = {entry.name for entry in workspace.folder.iterdir() if not entry.name.lstrip(".").startswith("format.json.")}
    # Looked at after the listing: another process may have made the whole workspace, and a database in it, meanwhile.
    if found - made_by_us and not (workspace.folder / "format.json").exists():
        raise NotAWorkspace(folder=workspace.folder)
    workspace.keys.mkdir(mode=0o700, exist_ok=True)
    signing = Ed25519PrivateKey.generate().private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())
    _write_key_once(workspace.keys / "signing.key", signing)
    _write_key_once(workspace.keys / "devices.key", secrets.token_bytes(DEVICE_KEY_BYTES))
    link_once(workspace.folder / "format.json", encode(FormatFile(format=FORMAT, workspace_id=secrets.token_hex(8))), 0o644)


def _write_key_once(path: Path, raw: bytes) -> None:
    link_once(path, base64.b64encode(raw) + b"\n", 0o600)


def link_once(path: Path, data: bytes, mode: int) -> None:
    """Like atomic_write, but the first writer wins: two processes that make one workspace end with one identity."""
    if path.exists():
        return
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    atomic_write(temporary, data, mode=mode)
    try:
        os.link(temporary, path)
    except FileExistsError:
        pass
    finally:
        temporary.unlink()


def _read_key(path: Path) -> bytes:
    raw = base64.b64decode(path.read_bytes().strip(), validate=True)
    if len(raw) != DEVICE_KEY_BYTES:
        raise Bug(what=f"{path.name} holds {len(raw)} bytes instead of {DEVICE_KEY_BYTES}")
    return raw
