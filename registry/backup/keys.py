"""The identity of a restored workspace: the keys of the one that was backed up, or new ones."""

from __future__ import annotations

from pathlib import Path

from hedgerow.atomic_write import atomic_write
from hedgerow.contracts.backup import BackupEnd, BackupHeader
from hedgerow.contracts.backup_archive import BackupDamaged, Readable, read_members
from hedgerow.contracts.document import encode
from hedgerow.errors import Bug, InvalidDocument
from registry.backup.errors import KeysUnusable
from registry.identity.signing_keys import FIRST, LIST, read_signing_keys
from registry.workspace import FORMAT, FormatFile, Workspace, open_workspace

_NEEDED = ("devices.key",)
_LARGEST_BYTES = 1 << 20


def keys_from(where: Path) -> dict[str, bytes]:
    """Key files by name, from a ``keys`` folder or from a backup that holds them. Raises KeysUnusable, OSError."""
    if where.is_dir():
        files = [path for path in sorted(where.iterdir()) if path.is_file() and not path.name.startswith(".")]
        return {path.name: path.read_bytes() for path in files if path.stat().st_size <= _LARGEST_BYTES}
    try:
        with where.open("rb") as file:
            return _from_backup(file, where)
    except BackupDamaged as problem:
        raise KeysUnusable(where=where, problem=f"it is neither a folder nor a backup ({problem})") from None


def take_identity(folder: Path, header: BackupHeader, keys: dict[str, bytes] | None, where: str) -> Workspace:
    """Make ``folder`` the workspace of the backup, with ``keys`` or (None) those that it has. Raises KeysUnusable, OSError."""
    if keys is not None:
        (folder / "keys").mkdir(mode=0o700)
        for name, content in keys.items():
            atomic_write(folder / "keys" / name, content, mode=0o600)
    atomic_write(folder / "format.json", encode(FormatFile(format=FORMAT, workspace_id=header.workspace_id)))
    workspace = open_workspace(folder)
    if keys is not None:
        _check(workspace, header, keys, where)
    return workspace


def _check(workspace: Workspace, header: BackupHeader, keys: dict[str, bytes], where: str) -> None:
    missing = [name for name in _NEEDED if name not in keys]
    # A workspace whose first key was retired or is kept elsewhere has the list only.
    missing += [FIRST] if FIRST not in keys and LIST not in keys else []
    if missing:
        raise KeysUnusable(where=where, problem=f"{', '.join(missing)} is not among them")
    try:
        signing, _ = read_signing_keys(workspace.keys), workspace.device_master
        signing.signers("desired")  # every private half that the list says to be there
    except (Bug, ValueError, OSError, InvalidDocument) as problem:
        raise KeysUnusable(where=where, problem=str(problem)) from None
    if header.keyid and not signing.was_ever(header.keyid):
        raise KeysUnusable(where=where, problem="they are of another workspace")


def _from_backup(file: Readable, where: Path) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for member in read_members(file, str(where)):
        if isinstance(member, BackupEnd) or member.kind not in ("header", "key"):
            break
        if member.kind == "key":
            found[member.name.removeprefix("keys/")] = member.read()
    return found
