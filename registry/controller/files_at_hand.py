"""Files of a job in and out of the store: where that is links and a little copying, in a thread instead of a process.

To start a process takes longer than to link a model. What grows with the size of models, or lies on the other side of a
network, is still left to the file worker, which can be ended at any moment.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec
from sqlalchemy import Connection

from registry.blobs import FolderStore
from registry.controller.effects import Part, aside, record
from registry.controller.file_work.lay_out import lay_out
from registry.controller.file_work.take_in import sizes_of, take_in
from registry.controller.file_work.tasks import Done, LaidFile, LayOut, Parts, TakeIn
from registry.controller.stories import Span, StoryTools, file_work
from registry.store import blobs

# Read and written in about 50 ms.
_LITTLE_BYTES = 32 << 20
_FEW_FILES = 1000


def laid_out(tools: StoryTools, folder: Path, task: LayOut, *, step: str, span: Span) -> Part[None]:
    """Raises what :func:`file_work` raises; BlobUnknown, BlobDamaged."""
    if not _is_quick(tools, task):
        yield from file_work(tools, folder, task, Done, step=step, span=span)
        return
    yield from aside(lambda: lay_out(task, tools.store), step, span[0])


def taken_in(
    tools: StoryTools, activity_id: str, folder: Path, task: TakeIn, *, anew: bool, step: str, span: Span
) -> Part[Parts]:
    """What the records know already is held for the activity and not read again, unless ``anew``: that mends damage.

    Raises what :func:`file_work` raises; LayoutBroken.
    """
    sizes: Mapping[str, int] = yield from aside(lambda: sizes_of(task), step, span[0])
    known: list[str] = []
    if not anew:

        def hold(connection: Connection, _lease: object) -> list[str]:
            return blobs.hold_known(connection, activity_id, sizes)

        known = yield from record(hold)
    task = msgspec.structs.replace(task, known=known)
    new_bytes = sum(sizes.values()) - sum(sizes[digest] for digest in known)
    if new_bytes > _LITTLE_BYTES or not isinstance(tools.store, FolderStore):
        return (yield from file_work(tools, folder, task, Parts, step=step, span=span))
    return (yield from aside(lambda: take_in(task, tools.store, lambda _progress: None)))


def _is_quick(tools: StoryTools, task: LayOut) -> bool:
    if not isinstance(tools.store, FolderStore) or len(task.files) > _FEW_FILES or task.owner is not None:
        return False
    try:
        device = tools.workspace.work.stat().st_dev
        return sum(_to_copy(file, tools.store, device) for file in task.files) <= _LITTLE_BYTES
    except OSError:  # the file worker says what it is
        return False


def _to_copy(file: LaidFile, store: FolderStore, device: int) -> int:
    """Bytes; none of a file that is linked."""
    found = store.path(file.digest).stat()
    return 0 if file.link and found.st_dev == device else found.st_size
