"""``/api/v1/backup``: the whole workspace as one tar, made while everything goes on (``registry/backup/write.py``)."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import cast

from flask import Blueprint, Response, current_app, request

from hedgerow.contracts.backup import BackupEnd
from hedgerow.contracts.events import Actor
from registry.backup.errors import BlobsBusy, KeysChanging
from registry.backup.keep import BlobKeeper
from registry.backup.write import Backup, Source, Wanted
from registry.blobs.errors import StorageUnavailable
from registry.server.arguments import QueryField, flag
from registry.server.context import ServerContext
from registry.server.errors import TooManyTransfers
from registry.server.http import actor, context
from registry.server.operation import operation
from registry.server.threads import budget
from registry.store import events

_LOG = logging.getLogger(__name__)
EXTENSION = "hedgerow.backup"
MEDIA_TYPE = "application/x-tar"


def routes() -> Blueprint:
    """The routes of this module."""
    blueprint = Blueprint("backup", __name__)
    blueprint.get("/api/v1/backup")(get_backup)
    return blueprint


@operation(
    "A backup of the whole workspace, made while everything goes on",
    "owner",
    scope="backup",
    result=MEDIA_TYPE,
    query=(
        QueryField("blobs", "false: only records and telemetry, for blobs that are kept otherwise", "boolean"),
        QueryField("keys", "true: also the workspace's keys; whoever has such a backup is the workspace", "boolean"),
    ),
    errors=(BlobsBusy, KeysChanging, TooManyTransfers),
)
def get_backup() -> Response:
    """One tar; whole only if its last member is ``end.json`` (``hedgerow/contracts/backup_archive.py``)."""
    here, who = context(), actor()
    wanted = Wanted(blobs=flag("blobs", otherwise=True), keys=flag("keys"))
    if request.method == "HEAD":
        return Response(mimetype=MEDIA_TYPE)
    done = budget().take_transfer(None)
    try:
        backup = Backup(Source(here.workspace, here.database, here.blobs), wanted, _keeper(here), here.clock.now())
    except OSError as problem:
        done()
        raise StorageUnavailable(problem=problem.strerror or str(problem)) from problem
    except BaseException:
        done()
        raise
    response = Response(_chunks(backup, here, who, wanted), mimetype=MEDIA_TYPE)
    response.call_on_close(backup.close)
    response.call_on_close(done)
    response.headers["Cache-Control"] = "no-store"
    name = f"{here.workspace.id}-{backup.header.created_at:%Y%m%dT%H%M%SZ}.tar"
    response.headers.set("Content-Disposition", "attachment", filename=name)
    return response


def _keeper(here: ServerContext) -> BlobKeeper:
    """One for the whole app: backups share the lease."""
    return cast(BlobKeeper, current_app.extensions.setdefault(EXTENSION, BlobKeeper(here.database, here.clock)))


def _chunks(backup: Backup, here: ServerContext, who: Actor, wanted: Wanted) -> Iterator[bytes]:
    def tell(end: BackupEnd) -> None:
        details = {
            "blobs": str(end.blobs) if wanted.blobs else "left out",
            "bytes": str(end.blob_bytes),
            "rows": str(sum(end.rows.values())),
            "keys": "included" if wanted.keys else "left out",
            "lost": str(len(end.lost)),
        }
        subject = f"workspace/{here.workspace.id}"
        with here.database.write() as connection:
            events.record(
                connection, kind="workspace.backed-up", subject=subject, actor=who, now=here.clock.now(), details=details
            )

    try:
        yield from backup.chunks(tell)
    except Exception:
        # The connection breaks before the end, and nobody takes what arrived for a backup.
        _LOG.exception("A backup was cut off")
        raise
