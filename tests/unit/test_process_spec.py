"""The pure parts of hedgerow/process: messages, records, sandbox."""

from __future__ import annotations

import ast
from datetime import UTC, datetime
from pathlib import Path

import pytest

from hedgerow.process import Absent, Exited, ProcessSpec, ProcessStartFailed, ResourceLimits, Running
from hedgerow.process.launch import spec_message
from hedgerow.process.records import ExitRecord, StateRecord, Unreadable, observation
from hedgerow.process.sandbox import SANDBOX_LIMITS, SANDBOX_UID, sandboxed
from hedgerow.process.shim_child import Spec

STARTED, ENDED = datetime(2026, 1, 2, tzinfo=UTC), datetime(2026, 1, 3, tzinfo=UTC)
STATE = StateRecord(
    boot_id="this", shim_pid=10, shim_start_time_ticks=1000, pid=11, start_time_ticks=1001, started_at=STARTED.timestamp()
)


def exit_record(exit_code: int | None, signal: int | None, cause: str = "self", boot_id: str = "this") -> ExitRecord:
    return ExitRecord(
        boot_id=boot_id,
        shim_pid=10,
        shim_start_time_ticks=1000,
        pid=11,
        start_time_ticks=1001,
        started_at=STARTED.timestamp(),
        exit_code=exit_code,
        signal=signal,
        ended_at=ENDED.timestamp(),
        cause=cause,
    )


def test_the_shim_reads_what_the_starter_writes() -> None:
    spec = ProcessSpec(
        argv=["/bin/prog", "", "two words", "ünï\n"],
        cwd="/a b",
        environment={"A": "x=y=z", "EMPTY": "", "ODD": "\udcff"},
        uid=5,
        limits=ResourceLimits(memory_bytes=1 << 40, open_files=0),
        log_bytes_max=77,
        log_files=2,
    )
    read = Spec(spec_message(spec))
    assert read.argv == [b"/bin/prog", b"", b"two words", "ünï\n".encode()]
    assert read.environment == {b"A": b"x=y=z", b"EMPTY": b"", b"ODD": b"\xff"}
    assert read.limits == {"RLIMIT_DATA": 1 << 40, "RLIMIT_NOFILE": 0, "RLIMIT_CORE": 0}
    assert read.single[b"program"] == b"/bin/prog"
    assert read.single[b"cwd"] == b"/a b"
    assert [read.number(tag) for tag in (b"uid", b"gid", b"log_bytes_max", b"log_files")] == [5, 5, 77, 2]


def test_user_and_group_stay_the_starters_unless_given() -> None:
    read = Spec(spec_message(ProcessSpec(argv=["/p"], cwd="/", environment={})))
    assert (read.number(b"uid"), read.number(b"gid")) == (None, None)
    read = Spec(spec_message(ProcessSpec(argv=["/p"], cwd="/", environment={}, uid=5, gid=6)))
    assert (read.number(b"uid"), read.number(b"gid")) == (5, 6)


@pytest.mark.parametrize("environment", [{"": "x"}, {"A=": "x"}, {"A\0": "x"}, {"A": "\0"}])
def test_environment_that_no_kernel_takes_is_refused(environment: dict[str, str]) -> None:
    with pytest.raises(ProcessStartFailed) as refused:
        spec_message(ProcessSpec(argv=["/p"], cwd="/", environment=environment))
    assert refused.value.sentence().endswith("start it again.")


@pytest.mark.parametrize(
    ("ended", "state", "shim_alive", "expected"),
    [
        (None, None, False, Absent()),
        (None, STATE, True, Running(11, 1001, STARTED)),
        (None, STATE, False, Exited(None, None, STARTED, None, True, "the supervising process was killed")),
        (exit_record(0, None), STATE, True, Exited(0, None, STARTED, ENDED, False, "exit code 0")),
        (exit_record(3, None), None, False, Exited(3, None, STARTED, ENDED, False, "exit code 3")),
        (exit_record(None, 15), STATE, False, Exited(None, 15, STARTED, ENDED, False, "killed by signal 15 (SIGTERM)")),
        (exit_record(None, 40), STATE, False, Exited(None, 40, STARTED, ENDED, False, "killed by signal 40 (real-time)")),
        # An end that was recorded stays one, whatever happened to the machine afterwards.
        (exit_record(0, None, boot_id="before"), STATE, False, Exited(0, None, STARTED, ENDED, False, "exit code 0")),
        (
            exit_record(1, None, cause="starter-ended"),
            STATE,
            False,
            Exited(1, None, STARTED, ENDED, False, "exit code 1 after the process that started it had ended"),
        ),
        (Unreadable(STARTED.timestamp()), STATE, False, Exited(None, None, STARTED, None, True, "its record is damaged")),
        (None, Unreadable(STARTED.timestamp()), False, Exited(None, None, STARTED, None, True, "its record is damaged")),
    ],
)
def test_what_records_mean(
    ended: ExitRecord | Unreadable | None,
    state: StateRecord | Unreadable | None,
    shim_alive: bool,
    expected: Absent | Running | Exited,
) -> None:
    assert observation(ended, state, boot_id="this", shim_alive=shim_alive) == expected


def test_records_of_another_boot_are_lost_even_if_the_numbers_fit() -> None:
    seen = observation(None, STATE, boot_id="next", shim_alive=True)
    assert seen == Exited(None, None, STARTED, None, True, "the machine was restarted")


def test_sandbox_takes_environment_user_and_fills_limits() -> None:
    spec = ProcessSpec(
        argv=["p"],
        cwd="/c",
        environment={"PATH": "/opt/bin", "HOME": "/h"},
        limits=ResourceLimits(memory_bytes=100),
        log_files=9,
        exit_with_starter=True,
    )
    safe = sandboxed(spec, uid=SANDBOX_UID)
    assert safe.environment == {"PATH": "/opt/bin", "LANG": "C.UTF-8", "HOME": "/h"}
    assert (safe.uid, safe.gid) == (64999, 64999)
    assert safe.limits.memory_bytes == 100
    assert safe.limits.processes == SANDBOX_LIMITS.processes
    assert (safe.argv, safe.cwd, safe.log_files, safe.exit_with_starter) == (["p"], "/c", 9, True)
    assert (sandboxed(spec, uid=7).uid, sandboxed(spec, uid=7).gid) == (7, 64999), "the group is that of all sandboxes"
    assert (sandboxed(spec, uid=None).uid, sandboxed(spec, uid=None).gid) == (None, None)


def test_a_shim_imports_only_what_costs_no_memory() -> None:
    package = Path(spec_message.__code__.co_filename).parent
    allowed = {"os", "sys", "select", "time", "_signal", "_collections_abc"}
    ours = {"raw_signal", "procfs", *(path.stem for path in package.glob("shim_*.py"))}
    for name in ours | {"shim"}:
        tree = ast.parse((package / f"{name}.py").read_text())
        for node in tree.body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            foreign = {name for name in names if name not in allowed and name.removeprefix("hedgerow.process.") not in ours}
            assert not foreign, f"{name}.py imports {foreign} into every shim"
