"""The story of a garbage collection: a process of its own does it (``garbage_work``), the activity says what was freed."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping

import msgspec
from sqlalchemy import Connection

from hedgerow.contracts.api import CollectedGarbage, CollectGarbage
from hedgerow.contracts.document import decode
from hedgerow.contracts.work import Activity
from registry.controller.effects import RunProcess, Story, Verdict, run_process
from registry.controller.stories import StoryTools, answer_of, make_folder
from registry.store import events
from registry.store.leases import Lease

_WORKER = "registry.controller.garbage_work"


def collect_garbage(
    tools: StoryTools, environment: Mapping[str, str], look_at_clock: Callable[[], None], activity: Activity, request: bytes
) -> Story:
    """Play a ``blobs.collect`` activity; its result is CollectedGarbage, each value as text.

    ``look_at_clock`` writes down whether the clock jumped a moment ago.

    ``environment`` tells the worker where database and contents are: URLs may hold passwords, command lines are for all to see.
    """
    wanted = decode(request, CollectGarbage)
    look_at_clock()
    folder = make_folder(tools.workspace.work / "gc" / activity.id)
    try:
        options = ["--workspace", str(tools.workspace.folder), "--holder", f"gc {activity.id}"]
        spec = tools.python.spec(_WORKER, [*options, *(["--dry-run"] if wanted.dry_run else [])], folder)
        spec = msgspec.structs.replace(spec, environment=dict(spec.environment) | dict(environment))
        ended = yield from run_process(RunProcess(spec, "looking for what nothing needs", (0.0, 0.99)))
        freed = answer_of(ended, CollectedGarbage, "collecting")
    finally:
        shutil.rmtree(folder, ignore_errors=True)

    def tell(connection: Connection, _lease: Lease) -> None:
        if not freed.dry_run:
            details = {"blobs": str(freed.blobs), "size_bytes": str(freed.size_bytes), "leftovers": str(freed.leftovers)}
            events.record(
                connection,
                kind="blobs.collected",
                subject="blobs",
                actor=events.system("controller"),
                now=tools.clock.now(),
                details=details,
            )

    return Verdict(result=_as_texts(freed), record=tell)


def _as_texts(freed: CollectedGarbage) -> dict[str, str]:
    values = msgspec.to_builtins(freed)
    return {name: msgspec.json.encode(value).decode() for name, value in values.items()}
