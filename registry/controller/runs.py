"""The story of a training run: copy the snapshot, run the script in it as foreign code, keep what it left in ``outputs/``.

The script runs in a copy of its own (never linked: it may write where it likes) under the sandbox's user, with a token that
can log to this run only. A run has effects of its own and is never repeated unasked: when its controller ends, it ends too.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import msgspec
from sqlalchemy import Connection

from hedgerow.contracts.document import decode
from hedgerow.contracts.model import FileEntry
from hedgerow.contracts.names import ENV_OUTPUTS, ENV_RUN_ID, ENV_TOKEN, ENV_URL, SECRET_PREFIX
from hedgerow.contracts.work import Activity, Run
from hedgerow.errors import HedgerowError
from hedgerow.process import ProcessSpec
from registry.controller.effects import Note, Part, RunProcess, Story, Verdict, record, run_process
from registry.controller.errors import Cancelled, ScriptFailed, as_problem
from registry.controller.file_work.tasks import Collect, Collected, Done, LaidFile, LayOut
from registry.controller.stories import StoryTools, file_work, last_words, make_folder
from registry.store import blobs, runs, secrets, tokens
from registry.store.leases import Lease
from registry.vault import Vault

_FILES, _SNAPSHOT, _HOME, _SCRATCH = "files", "snapshot", "home", "tmp"
_LOG_BYTES = 8_000_000


@dataclass
class _Findings:
    """What is known of the run's end so far."""

    exit_code: int | None = None
    outputs: list[FileEntry] = field(default_factory=list)
    chunk_hashes: dict[str, bytes] = field(default_factory=dict)


def run_script(tools: StoryTools, activity: Activity, request: bytes) -> Story:
    """Play a ``run`` activity; its result is {"run": ID}."""
    task = decode(request, runs.RunTask)
    found = _Findings()
    try:
        yield from _play(tools, activity, task, found)
    except HedgerowError as problem:
        state: Literal["failed", "cancelled"] = "cancelled" if isinstance(problem, Cancelled) else "failed"
        return _verdict(tools, task.run, found, state, None if state == "cancelled" else problem)
    return _verdict(tools, task.run, found, "succeeded", None)


def _play(tools: StoryTools, activity: Activity, task: runs.RunTask, found: _Findings) -> Part[None]:
    tools.sandbox.check()
    folder = make_folder(tools.workspace.work / "runs" / activity.id, mode=0o711)
    try:
        run, token, variables = yield from record(lambda connection, lease: _begin(tools, connection, lease, task))
        yield from file_work(tools, folder, _laid_out(tools, run, folder), Done, step="copying the snapshot", span=(0.0, 0.02))
        if note := tools.sandbox.note():
            yield Note(note)
        script = RunProcess(_spec(tools, run, variables, token, folder), f"running {run.script}", (0.02, 0.95), reads="text")
        ended = yield from run_process(script)
        found.exit_code = ended.exit.exit_code
        outputs = Collect(blobs=tools.blobs, folder=str(_outputs(folder)))
        collected = yield from file_work(tools, folder, outputs, Collected, step="keeping its outputs", span=(0.95, 0.99))
        for line in collected.left_out:
            yield Note(f"left out of the outputs: {line}")
        found.outputs, found.chunk_hashes = collected.files, collected.chunk_hashes
        if ended.exit.exit_code != 0:
            raise ScriptFailed(script=run.script, run=run.id, reason=ended.exit.reason, said=last_words(ended))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _begin(tools: StoryTools, connection: Connection, lease: Lease, task: runs.RunTask) -> tuple[Run, str, dict[str, str]]:
    now = tools.clock.now()
    variables = _revealed(connection, Vault(tools.workspace.keys), task.variables)
    run = runs.start(connection, lease, task.run, now)
    token = tokens.create(connection, name=f"run-{task.run}", role="run", subject=task.run, now=now)
    return run, token.secret or "", variables


def _revealed(connection: Connection, vault: Vault, variables: Mapping[str, str]) -> dict[str, str]:
    """With the values of secrets instead of their names; they are nowhere but here and in the script's environment."""
    return {
        name: secrets.reveal(connection, vault, value.removeprefix(SECRET_PREFIX)) if value.startswith(SECRET_PREFIX) else value
        for name, value in variables.items()
    }


def _laid_out(tools: StoryTools, run: Run, folder: Path) -> LayOut:
    return LayOut(
        blobs=tools.blobs,
        root=str(folder / _FILES),
        files=[LaidFile(path=f"{_SNAPSHOT}/{entry.path}", digest=entry.digest) for entry in run.snapshot],
        folders=[f"{_SNAPSHOT}/outputs", _HOME, _SCRATCH],
        owner=tools.sandbox.uid,
    )


def _outputs(folder: Path) -> Path:
    """``outputs`` in the script's working folder, where scripts written for other systems leave things, too."""
    return folder / _FILES / _SNAPSHOT / "outputs"


def _spec(tools: StoryTools, run: Run, variables: Mapping[str, str], token: str, folder: Path) -> ProcessSpec:
    snapshot, home = folder / _FILES / _SNAPSHOT, folder / _FILES / _HOME
    ours = {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), "/usr/local/bin", "/usr/bin", "/bin"]),
        "HOME": str(home),
        "TMPDIR": str(folder / _FILES / _SCRATCH),
        # What it prints is shown while it runs.
        "PYTHONUNBUFFERED": "1",
        ENV_RUN_ID: run.id,
        ENV_OUTPUTS: str(_outputs(folder)),
    }
    if url := tools.server_url():
        ours |= {ENV_URL: url, ENV_TOKEN: token}
    # Several runs share the machine; a library that takes all cores for itself makes each of them slower.
    threads = {name: str(tools.threads) for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
    # onnxruntime on Linux reports to its maker unless it is told not to before its import; a run may say otherwise.
    quiet = {"ORT_DISABLE_TELEMETRY": "1"}
    # Without -P: people expect `python script.py`, which finds the modules beside the script.
    # A name that looks like an option would be taken for one.
    script = f"./{run.script}" if run.script.startswith("-") else run.script
    argv = [sys.executable, script, *run.arguments]
    spec = tools.sandbox.spec(argv, snapshot, threads | quiet | dict(variables) | ours)
    return msgspec.structs.replace(spec, log_bytes_max=_LOG_BYTES)


def _verdict(
    tools: StoryTools,
    run_id: str,
    found: _Findings,
    state: Literal["succeeded", "failed", "cancelled"],
    error: HedgerowError | None,
) -> Verdict:
    problem = None if error is None else as_problem(error)

    def close(connection: Connection, lease: Lease) -> None:
        now = tools.clock.now()
        for entry in sorted(found.outputs, key=lambda entry: entry.digest):
            hashes = found.chunk_hashes.get(entry.digest, b"")
            blobs.record_stored(connection, tools.store, entry.digest, entry.size_bytes, now, chunk_hashes=hashes)
        runs.finish(
            connection,
            lease,
            run_id,
            state=state,
            now=now,
            exit_code=found.exit_code,
            problem=problem,
            outputs=found.outputs,
        )

    return Verdict(state, {"run": run_id} if state == "succeeded" else {}, problem, close)
