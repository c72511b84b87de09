"""Settings of ``hedgerow restore``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hedgerow.settings import setting


@dataclass(frozen=True)
class RestoreSettings:
    """``python -P -m registry.backup FILE``: restores a backup into a folder that does not exist and an empty database."""

    workspace: Path = setting(Path("hedgerow-workspace"), "folder of the workspace to make; absent or empty")
    database: str | None = setting(
        None, "postgresql://… of an empty database instead of SQLite files in the workspace", secret=True
    )
    blobs: str | None = setting(
        None, "s3://bucket/prefix, or file:///folder, for contents; without it the workspace's own folder"
    )
    blobs_endpoint: str | None = setting(None, "address of an S3 server that is not Amazon's")
    keys: Path | None = setting(None, "keys folder of the old workspace, or a backup with keys", env="HEDGEROW_RESTORE_KEYS")
    new_identity: bool = setting(False, "begin with new keys: devices must enrol again", env="HEDGEROW_RESTORE_NEW_IDENTITY")
    revoke_tokens: bool = setting(False, "refuse every token of people from now on", env="HEDGEROW_RESTORE_REVOKE_TOKENS")
    accept_lost: bool = setting(False, "restore although the backup lacks content", env="HEDGEROW_RESTORE_ACCEPT_LOST")
    json: bool = setting(False, "print the report as JSON", env="HEDGEROW_RESTORE_JSON")
