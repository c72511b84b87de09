"""What may be killed, filled up, forged or restarted around a supervised process, and what is left then."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest

from hedgerow.errors import HedgerowError
from hedgerow.process import (
    Absent,
    AlreadyRunning,
    Exited,
    ProcessSpec,
    ProcessStartFailed,
    Running,
    Supervised,
    SupervisionFailed,
)
from hedgerow.process.identity import start_time_ticks
from tests.process_folders import REPOSITORY, Folders, alive, ended, need_root, pids_in, process_folders, shell
from tests.small_disk import small_disk
from tests.waiting import wait_for

STARTER = """
import sys, time, msgspec
from pathlib import Path
from hedgerow.process import ProcessSpec, Supervised
spec = msgspec.json.decode(sys.argv[2], type=ProcessSpec)
print("starting", flush=True)
print(Supervised(Path(sys.argv[1])).start(spec).pid, flush=True)
time.sleep(60)
"""


@pytest.fixture
def folders(tmp_path: Path) -> Iterator[Folders]:
    with process_folders(tmp_path) as made:
        yield made


def starter(folder: Path, spec: ProcessSpec) -> subprocess.Popen[str]:
    """A process that starts ``spec`` and then waits to be killed; it says that it begins, and then the pid."""
    command = [sys.executable, "-c", STARTER, str(folder), msgspec.json.encode(spec).decode()]
    return subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)


def kill(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


def lines(process: subprocess.Popen[str], count: int) -> list[str]:
    assert process.stdout is not None
    return [process.stdout.readline().strip() for _ in range(count)]


def test_killed_starter_is_not_noticed_by_a_process_that_prints_megabytes(folders: Folders, tmp_path: Path) -> None:
    one = folders.make()
    go_on = tmp_path / "go-on"
    noise = "i=0; while [ $i -lt 40 ]; do seq 1 20000; i=$((i+1)); done"
    doomed = starter(
        folders.root / "one", shell(f"{noise}; until [ -e {go_on} ]; do sleep 0.02; done; {noise}; echo the end; exit 7")
    )
    pid = int(lines(doomed, 2)[1])
    kill(doomed)
    running = one.observe()
    assert isinstance(running, Running)
    assert running.pid == pid
    go_on.touch()
    seen = ended(one)
    assert (seen.exit_code, seen.lost) == (7, False)
    assert one.tail(2) == "20000\nthe end\n"


def test_starter_killed_at_any_moment_of_the_start_leaves_a_folder_that_works(folders: Folders) -> None:
    outcomes = set()
    for round_number in range(12):
        one = folders.make(f"round-{round_number}")
        doomed = starter(folders.root / f"round-{round_number}", shell("exec sleep 60"))
        lines(doomed, 1)
        select.poll().poll(round_number * 3)  # 0 to 33 ms after its begin
        kill(doomed)

        def started_here(one: Supervised = one) -> Running | None:
            try:
                return one.start(shell("exec sleep 60"))
            except AlreadyRunning:  # the shim of the killed starter went on
                seen = one.observe()
                return seen if isinstance(seen, Running) else None

        running = wait_for(started_here, what="a process that runs, the first or ours")
        assert running is not None
        outcomes.add(running.pid)
        assert isinstance(one.stop(5), Exited)
        assert not alive(running.pid)
    assert len(outcomes) == 12


def test_killed_shim_takes_its_process_with_it_and_the_loss_is_said(folders: Folders) -> None:
    one = folders.make()
    running = one.start(shell("trap '' TERM; while :; do sleep 0.05; done"))
    fd = one.exit_fd()
    assert fd is not None
    os.kill(folders.record()["shim_pid"], signal.SIGKILL)
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    assert poller.poll(10_000), "the exit descriptor wakes its reader then, too"
    os.close(fd)
    wait_for(lambda: not alive(running.pid), what="the death of the process")
    seen = one.observe()
    assert isinstance(seen, Exited)
    assert (seen.lost, seen.reason) == (True, "the supervising process was killed")
    assert (seen.exit_code, seen.signal, seen.ended_at, seen.started_at) == (None, None, None, running.started_at)


def test_killed_shim_of_a_process_with_another_user_takes_it_along(folders: Folders) -> None:
    need_root()
    one = folders.make()
    running = one.start(shell("exec sleep 60", uid=64123))
    os.kill(folders.record()["shim_pid"], signal.SIGKILL)
    wait_for(lambda: not alive(running.pid), what="the death of the process")


@pytest.mark.parametrize("way", ["stop", "start"])
def test_what_a_killed_shim_leaves_is_ended_by_the_next_stop_or_start(folders: Folders, tmp_path: Path, way: str) -> None:
    one = folders.make()
    pids = tmp_path / "pids"
    one.start(shell(f"(trap '' TERM; while :; do sleep 0.05; done) & echo $! >> {pids}; wait"))
    (orphan,) = pids_in(pids, 1)
    os.kill(folders.record()["shim_pid"], signal.SIGKILL)
    wait_for(lambda: isinstance(one.observe(), Exited), what="the loss to be seen")
    assert alive(orphan)
    if way == "stop":
        one.stop(5)
    else:
        one.start(shell("exec sleep 60"))
    assert not alive(orphan)


@pytest.mark.parametrize("ignores_term", [False, True], ids=["obeys TERM", "ignores TERM"])
def test_process_tied_to_its_starter_ends_with_it(folders: Folders, ignores_term: bool) -> None:
    one = folders.make()
    trap = "''" if ignores_term else "'echo bye; exit 9'"
    spec = shell(f"trap {trap} TERM; echo ready; while :; do sleep 0.05; done", exit_with_starter=True)
    doomed = starter(folders.root / "one", spec)
    lines(doomed, 2)
    wait_for(lambda: "ready" in one.tail(1), what="the trap")
    assert isinstance(one.observe(), Running)
    kill(doomed)
    seen = ended(one)
    how = "killed by signal 9 (SIGKILL)" if ignores_term else "exit code 9"
    assert seen.reason == f"{how} after the process that started it had ended"


def test_process_tied_to_its_starter_survives_the_object(folders: Folders) -> None:
    """The tie is to the starting process, not to what it keeps in memory."""
    one = folders.make()
    running = Supervised(folders.root / "one").start(shell("sleep 0.3; exit 0", exit_with_starter=True))
    assert running.pid > 0
    assert ended(one).exit_code == 0


def fill(path: Path) -> None:
    """Write until the disk is full, without using up its inodes."""
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"x" * 4096)


def test_full_disk_costs_log_lines_but_neither_the_process_nor_its_exit_status(tmp_path: Path) -> None:
    flooded, go_on = tmp_path / "flooded", tmp_path / "go-on"
    with small_disk(tmp_path / "disk", "64k") as disk, process_folders(disk) as folders:
        filler = disk / "filler"
        filler.write_bytes(b"x" * 20_000)
        one = folders.make()
        # 2 MB on a disk with some 30 kB, twice: a process that waited for its log would never be done.
        flood = "seq 1 300000"
        one.start(shell(f"{flood}; touch {flooded}; until [ -e {go_on} ]; do sleep 0.02; done; {flood}; exit 8"))
        wait_for(flooded.exists, what="a process that writes more than the disk takes")
        assert isinstance(one.observe(), Running)
        filler.unlink()
        go_on.touch()
        seen = ended(one)
        assert (seen.exit_code, seen.lost) == (8, False)
        text = one.log_path.read_text()
        record: dict[str, Any] = msgspec.json.decode((disk / "one" / "exit.json").read_bytes())
    assert text.startswith("1\n2\n3\n")
    notices = [line for line in text.splitlines() if line.startswith("[hedgerow]")]
    assert notices
    assert all(notice.endswith("are missing here: No space left on device") for notice in notices)
    assert record["log_lines_lost"] > 200_000, "the second flood did not fit either, and that is on record"
    kept = len(text.splitlines()) - len(notices)
    lost = sum(int(notice.split()[1]) for notice in notices) + record["log_lines_lost"]
    assert 600_000 <= kept + lost <= 600_000 + 2 * (len(notices) + 1), "all accounted for; a line that was cut may count twice"


def test_start_on_a_full_disk_is_refused_before_anything_runs(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "64k") as disk, process_folders(disk) as folders:
        fill(disk / "filler")
        ran = tmp_path / "ran"
        one = folders.make()
        with pytest.raises(SupervisionFailed, match="No space left on device"):
            one.start(shell(f"touch {ran}"))
        assert not ran.exists()
        assert one.observe() == Absent()
        (disk / "filler").unlink()
        one.start(shell(f"touch {ran}"))
        assert ended(one).exit_code == 0


def test_recycled_pid_is_neither_taken_for_ours_nor_signalled(folders: Folders) -> None:
    stranger = subprocess.Popen(["/bin/sleep", "60"], start_new_session=True)
    try:
        ticks = start_time_ticks(stranger.pid)
        assert ticks is not None
        one = folders.make()
        one.start(shell("exit 0"))
        ended(one)
        # The records of a shim that was killed long ago; both its number and its child's belong to a stranger now.
        forged = folders.record() | {"pid": stranger.pid, "shim_pid": stranger.pid}
        forged |= {"start_time_ticks": ticks - 1, "shim_start_time_ticks": ticks - 1}
        (folders.root / "one" / "exit.json").unlink()
        (folders.root / "one" / "state.json").write_bytes(msgspec.json.encode(forged))

        seen = one.observe()
        assert isinstance(seen, Exited)
        assert seen.lost
        assert one.exit_fd() is None
        one.signal(signal.SIGKILL)
        one.stop(0)
        one.start(shell("exit 0"))
        ended(one)
        one.forget()
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_after_a_restart_of_the_machine_everything_unended_is_lost(folders: Folders) -> None:
    one = folders.make()
    one.start(shell("exec sleep 60"))
    state = folders.record()
    os.kill(state["shim_pid"], signal.SIGKILL)
    # The same numbers may well be in use in the new boot: they mean nothing.
    state |= {
        "boot_id": "00000000-0000-0000-0000-000000000000",
        "shim_pid": os.getpid(),
        "shim_start_time_ticks": start_time_ticks(os.getpid()),
    }
    (folders.root / "one" / "state.json").write_bytes(msgspec.json.encode(state))
    seen = one.observe()
    assert isinstance(seen, Exited)
    assert (seen.lost, seen.reason) == (True, "the machine was restarted")


@pytest.mark.parametrize("content", [b"", b"{", b"\0" * 1024, b"[1]"])
def test_damaged_record_is_a_loss_and_the_folder_can_be_used_again(folders: Folders, content: bytes) -> None:
    one = folders.make()
    (folders.root / "one").mkdir()
    (folders.root / "one" / "state.json").write_bytes(content)
    seen = one.observe()
    assert isinstance(seen, Exited)
    assert (seen.lost, seen.reason) == (True, "its record is damaged")
    assert one.stop(0) == seen
    one.start(shell("exit 0"))
    assert ended(one).exit_code == 0


def test_removed_state_folder_does_not_harm_the_process(folders: Folders, tmp_path: Path) -> None:
    """Somebody's rm -rf: the process goes on and ends as it would; only its record is gone."""
    one = folders.make()
    done = tmp_path / "done"
    one.start(shell(f"echo ready; until [ -e {tmp_path}/go-on ]; do sleep 0.02; done; seq 1 100000; touch {done}"))
    wait_for(lambda: "ready" in one.tail(1), what="its start")
    (folders.root / "one").rename(tmp_path / "moved")
    (tmp_path / "go-on").touch()
    wait_for(done.exists, what="the end of the process")
    assert ended(Supervised(tmp_path / "moved")).exit_code == 0


@pytest.mark.alone
def test_frozen_shim_is_thawed_by_stop(folders: Folders) -> None:
    one = folders.make()
    one.start(shell("exec sleep 60"))
    os.kill(folders.record()["shim_pid"], signal.SIGSTOP)
    began = time.monotonic()
    seen = one.stop(5)
    assert isinstance(seen, Exited)
    assert seen.signal == signal.SIGTERM
    assert time.monotonic() - began < 4


def test_child_that_gives_up_before_it_is_recorded_is_told_of(folders: Folders, tmp_path: Path) -> None:
    """The shim of a busy machine: held while it writes its record, until its child has met a folder that it may not enter."""
    need_root()
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    one = folders.make()
    folder = folders.root / "one"
    folder.mkdir()
    told: list[Exception] = []

    def start() -> None:
        try:
            one.start(ProcessSpec(argv=["/bin/true"], cwd=str(private), environment={}, uid=64123))
        except HedgerowError as problem:
            told.append(problem)

    thread = threading.Thread(target=start)
    with open_held(folder / "exit.json.new"):
        thread.start()
        wait_for(lambda: zombie_below(folder), what="the end of the child")
    thread.join(30)
    assert [type(problem) for problem in told] == [ProcessStartFailed]
    assert "private: Permission denied" in str(told[0])
    assert one.observe() == Absent()


@contextlib.contextmanager
def open_held(path: Path) -> Iterator[None]:
    """While this lasts, whoever opens the file waits: its lease is ours, and the kernel asks us first."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.fcntl(fd, fcntl.F_SETSIG, signal.SIGURG)  # how we are asked; nobody minds this one
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        yield
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    finally:
        os.close(fd)


def zombie_below(folder: Path) -> bool:
    """Whether a child of the shim of ``folder`` has ended without having been waited for."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.NoSuchProcess):
            if str(folder) in process.cmdline() and any(c.status() == psutil.STATUS_ZOMBIE for c in process.children()):
                return True
    return False
