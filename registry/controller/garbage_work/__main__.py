"""``python -P -m registry.controller.garbage_work``: one garbage collection. Its last line on stdout is a ProgressLine.

Exit code 0: done, 1: not done (the line says why).
"""

from __future__ import annotations

import os
import sys
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import msgspec

from hedgerow.clock import SystemClock
from hedgerow.contracts.build import ProgressLine
from hedgerow.contracts.document import encode
from hedgerow.errors import HedgerowError
from hedgerow.settings import setting
from registry.blobs.choose import open_store
from registry.controller.errors import as_problem
from registry.controller.garbage_work.collect import Collection
from registry.settings import read_settings
from registry.store.database import open_database
from registry.workspace import open_workspace


@dataclass(frozen=True)
class CollectionSettings:
    """``python -P -m registry.controller.garbage_work``; the controller gives them."""

    workspace: Path = setting(Path("hedgerow-workspace"), "folder of the workspace")
    database: str | None = setting(None, "URL of a PostgreSQL database", secret=True)
    blobs: str | None = setting(None, "where contents are, if not in the workspace")
    blobs_endpoint: str | None = setting(None, "address of an S3 server that is not Amazon's")
    blob_lease_s: float = setting(86400.0, "how long content that no record knows is left alone")
    holder: str = setting("gc", "whose collection it is")
    dry_run: bool = setting(False, "only count")


def main(arguments: list[str]) -> int:
    """Run the command line; returns the exit code."""
    try:
        settings = read_settings(CollectionSettings, "python -P -m registry.controller.garbage_work", arguments, os.environ)
        workspace = open_workspace(settings.workspace)
        store = open_store(workspace.blobs, settings.blobs, settings.blobs_endpoint)
        with closing(open_database(settings.database, workspace.folder)) as database:
            freed = Collection(
                database,
                store,
                SystemClock(),
                holder=settings.holder,
                grace_s=settings.blob_lease_s,
                dry_run=settings.dry_run,
                pushes=workspace.pushes,
                report=lambda progress, step: _say(ProgressLine(progress=progress, step=step)),
            ).run()
    except HedgerowError as problem:
        _say(ProgressLine(problem=as_problem(problem)))
        return 1
    _say(ProgressLine(progress=1.0, result=msgspec.to_builtins(freed)))
    return 0


def _say(line: ProgressLine) -> None:
    sys.stdout.buffer.write(encode(line) + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
