"""Supervised processes as their users see them: real programs, real signals, real folders."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from hedgerow.process import Absent, AlreadyRunning, Exited, ProcessSpec, ProcessStartFailed, ResourceLimits, Running, Supervised
from hedgerow.process.errors import ProcessGone
from hedgerow.process.identity import is_alive, start_time_ticks
from hedgerow.process.memory import pss_bytes
from hedgerow.process.sandbox import SANDBOX_UID, sandboxed
from tests.process_folders import PATH, REPOSITORY, Folders, alive, ended, need_root, pids_in, process_folders, python, shell
from tests.waiting import wait_for

LOOK = """
import sys
from pathlib import Path
from hedgerow.process import Supervised
print(Supervised(Path(sys.argv[1])).observe())
"""


@pytest.fixture
def folders(tmp_path: Path) -> Iterator[Folders]:
    with process_folders(tmp_path) as made:
        yield made


def test_output_exit_code_and_times_are_kept(folders: Folders) -> None:
    one = folders.make()
    assert one.observe() == Absent()

    running = one.start(shell("echo out; echo err >&2; exit 3"))
    assert running.start_time_ticks > 0
    seen = ended(one)

    assert (seen.exit_code, seen.signal, seen.lost, seen.reason) == (3, None, False, "exit code 3")
    assert seen.started_at == running.started_at
    assert seen.ended_at is not None
    assert seen.started_at <= seen.ended_at <= datetime.now(UTC) + timedelta(seconds=1)
    assert one.log_path.read_text() == "out\nerr\n"


def test_running_is_seen_by_any_object_and_by_other_processes(folders: Folders) -> None:
    one = folders.make()
    running = one.start(shell("exec sleep 60"))
    assert one.observe() == Supervised(folders.root / "one").observe() == running
    assert is_alive(running.pid, running.start_time_ticks)
    assert start_time_ticks(running.pid) == running.start_time_ticks
    command = [sys.executable, "-c", LOOK, str(folders.root / "one")]
    seen = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert seen.stdout.strip() == repr(running), seen.stderr


def test_exit_fd_wakes_its_reader_when_the_end_is_recorded(folders: Folders) -> None:
    one = folders.make()
    one.start(shell("read nothing; exit 5"))  # stdin is /dev/null
    fd = one.exit_fd()
    if fd is not None:
        poller = select.poll()
        poller.register(fd, select.POLLIN)
        assert poller.poll(10_000)
        os.close(fd)
    seen = one.observe()
    assert isinstance(seen, Exited)
    assert seen.exit_code == 5
    assert one.exit_fd() is None


def test_nothing_of_the_starter_is_inherited(folders: Folders, tmp_path: Path) -> None:
    leak = os.open(tmp_path, os.O_RDONLY)
    os.set_inheritable(leak, True)
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        one = folders.make()
        script = (
            "import os\n"
            "fds = [fd for fd in os.listdir('/proc/self/fd') if os.path.exists(f'/proc/self/fd/{fd}')]\n"
            "leads = os.getpid() == os.getsid(0) == os.getpgid(0)\n"
            "print(sorted(fds), os.readlink('/proc/self/fd/0'), os.umask(0), leads, dict(os.environ), flush=True)\n"
            "os.execv('/bin/grep', ['grep', '-E', 'Sig(Blk|Ign)', '/proc/self/status'])"
        )
        one.start(python(script))
        ended(one)
    finally:
        os.close(leak)
        signal.signal(signal.SIGHUP, before)
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    first, blocked_line, ignored_line = one.log_path.read_text().splitlines()
    # LC_CTYPE is what Python sets for itself in an environment without a locale.
    assert first.replace(", 'LC_CTYPE': 'C.UTF-8'", "") == f"['0', '1', '2'] /dev/null {0o077} True {{'PATH': '{PATH}'}}"
    assert int(blocked_line.split()[1], 16) == 0
    # Python ignores SIGPIPE and SIGXFSZ itself; nothing else.
    # Signals from 32 on are the C library's own; a shell may have had them ignored before any of us was started.
    assert int(ignored_line.split()[1], 16) & 0x7FFF_FFFF == (1 << (signal.SIGPIPE - 1)) | (1 << (signal.SIGXFSZ - 1))


def test_program_without_a_slash_comes_from_the_path_of_the_spec(folders: Folders, tmp_path: Path) -> None:
    program = tmp_path / "bin" / "greet"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho hello $1\n")
    program.chmod(0o755)
    one = folders.make()
    one.start(ProcessSpec(argv=["greet", "you"], cwd=str(tmp_path), environment={"PATH": str(program.parent)}))
    assert ended(one).exit_code == 0
    assert one.tail(1) == "hello you\n"


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"argv": []}, "the command is empty"),
        ({"argv": ["/no/such/program"]}, "No such file or directory"),
        ({"argv": ["no-such-program"]}, "no such program in PATH"),
        ({"argv": ["/etc/passwd"]}, "Permission denied"),
        ({"argv": ["/bin/sh", "a\0b"]}, "a NUL character"),
        ({"cwd": "/no/such/folder"}, "its folder /no/such/folder: No such file or directory"),
        ({"cwd": "relative"}, "not absolute"),
        ({"environment": {"A=B": "c"}}, "cannot name an environment variable"),
        ({"log_files": 0}, "at least one file"),
        ({"limits": ResourceLimits(open_files=-5)}, "a limit cannot be negative"),
        ({"limits": ResourceLimits(open_files=1 << 40)}, "limit open_files: Operation not permitted"),
    ],
)
def test_a_spec_that_cannot_run_is_refused_and_leaves_nothing(folders: Folders, change: dict[str, object], problem: str) -> None:
    one = folders.make()
    fields: dict[str, object] = {"argv": ["/bin/true"], "cwd": "/", "environment": {"PATH": PATH}}
    with pytest.raises(ProcessStartFailed) as refused:
        one.start(ProcessSpec(**(fields | change)))  # type: ignore[arg-type]  # fields by name
    assert problem in str(refused.value)
    assert one.observe() == Absent()
    one.start(shell("exit 0"))
    assert ended(one).exit_code == 0


def test_scripts_that_no_interpreter_runs_say_why(folders: Folders, tmp_path: Path) -> None:
    script = tmp_path / "script"
    for text, problem in (("no first line", "Exec format error"), ("#!/no/such/python\n", "interpreter in its first line")):
        script.write_text(text)
        script.chmod(0o755)
        with pytest.raises(ProcessStartFailed, match=problem):
            folders.make().start(ProcessSpec(argv=[str(script)], cwd="/", environment={}))


def test_second_start_is_refused_while_the_first_runs(folders: Folders) -> None:
    one = folders.make()
    running = one.start(shell("exec sleep 60"))
    with pytest.raises(AlreadyRunning) as refused:
        Supervised(folders.root / "one").start(shell("exit 0"))
    assert refused.value.fields["pid"] == running.pid
    assert one.observe() == running


@pytest.mark.parametrize("earlier", [False, True], ids=["new folder", "after an earlier process"])
def test_of_starts_that_race_exactly_one_wins(folders: Folders, earlier: bool) -> None:
    one = folders.make()
    if earlier:
        one.start(shell("exit 0"))
        ended(one)
    barrier = threading.Barrier(4)
    results: list[Running | AlreadyRunning] = []

    def race() -> None:
        barrier.wait()
        try:
            results.append(Supervised(folders.root / "one").start(shell("exec sleep 60")))
        except AlreadyRunning as refused:
            results.append(refused)

    threads = [threading.Thread(target=race) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    winners = [result for result in results if isinstance(result, Running)]
    assert len(winners) == 1
    assert len(results) == 4
    assert one.observe() == winners[0]


def test_an_ended_process_can_be_started_again_at_once_and_the_log_goes_on(folders: Folders) -> None:
    one = folders.make()
    for round_number in range(5):
        one.start(shell(f"echo round {round_number}"))
        ended(one)
    assert one.tail(10) == "".join(f"round {n}\n" for n in range(5))


def test_stop_lets_a_process_end_in_its_own_way(folders: Folders) -> None:
    one = folders.make()
    one.start(shell("trap 'echo bye; exit 4' TERM; echo ready; while :; do sleep 0.05; done"))
    wait_for(lambda: "ready" in one.tail(1), what="the trap")
    seen = one.stop(10)
    assert isinstance(seen, Exited)
    assert seen.exit_code == 4
    assert one.tail(1) == "bye\n"
    assert one.stop(10) == seen, "a second stop changes nothing"


def test_stop_kills_what_ignores_term(folders: Folders) -> None:
    one = folders.make()
    one.start(shell("trap '' TERM; echo ready; while :; do sleep 0.05; done"))
    wait_for(lambda: "ready" in one.tail(1), what="the trap")
    seen = one.stop(0.3)
    assert isinstance(seen, Exited)
    assert (seen.signal, seen.reason) == (9, "killed by signal 9 (SIGKILL)")


def test_stop_leaves_no_grandchild_of_the_session(folders: Folders, tmp_path: Path) -> None:
    one = folders.make()
    # One child in the group, one in a process group of its own; both ignore TERM.
    stubborn = (
        "import os, signal, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN); open(sys.argv[1], 'a').write(f'{os.getpid()}\\n')"
    )
    script = (
        f"import os, subprocess, sys, signal\n"
        f"code = {stubborn!r} + '; import time; time.sleep(60)'\n"
        f"subprocess.Popen([sys.executable, '-c', code, sys.argv[1]])\n"
        f"subprocess.Popen([sys.executable, '-c', code, sys.argv[1]], process_group=0)\n"
        f"signal.pause()"
    )
    pids = tmp_path / "pids"
    one.start(ProcessSpec(argv=[sys.executable, "-c", script, str(pids)], cwd="/", environment={}))
    children = pids_in(pids, 2)
    seen = one.stop(0.3)
    assert isinstance(seen, Exited)
    assert not [pid for pid in children if alive(pid)]


def test_stop_gives_the_children_of_a_hasty_leader_their_grace(folders: Folders, tmp_path: Path) -> None:
    one = folders.make()
    done = tmp_path / "done"
    # The leader dies of TERM at once; its child needs longer than leftovers get when nobody asked for a stop.
    one.start(shell(f"sh -c \"trap 'sleep 1; echo saved > {done}; exit' TERM; echo ready; while :; do sleep 0.05; done\"; true"))
    wait_for(lambda: "ready" in one.tail(1), what="the trap")
    seen = one.stop(10)
    assert isinstance(seen, Exited)
    assert seen.signal == signal.SIGTERM
    assert done.read_text() == "saved\n"


def test_what_a_process_leaves_in_its_session_ends_with_it(folders: Folders, tmp_path: Path) -> None:
    one = folders.make()
    pids = tmp_path / "pids"
    one.start(shell(f"sleep 60 & echo $! >> {pids}; (trap '' TERM; while :; do sleep 0.05; done) & echo $! >> {pids}; exit 6"))
    assert ended(one).exit_code == 6
    assert not [pid for pid in pids_in(pids, 2) if alive(pid)]


def test_signals_reach_the_group_and_nobody_after_the_end(folders: Folders) -> None:
    one = folders.make()
    one.start(
        shell("trap 'echo leader' USR1; sh -c \"trap 'echo child; exit' USR1; echo ready; while :; do sleep 0.05; done\"; exit 0")
    )
    wait_for(lambda: "ready" in one.tail(1), what="both traps")
    one.signal(signal.SIGUSR1)
    assert ended(one).exit_code == 0
    assert {"child", "leader"} <= set(one.tail(10).split())
    one.signal(signal.SIGUSR1)


def test_death_by_signal_is_told_from_an_exit_code(folders: Folders) -> None:
    one = folders.make()
    one.start(shell("kill -SEGV $$"))
    seen = ended(one)
    assert (seen.exit_code, seen.signal, seen.reason) == (None, 11, "killed by signal 11 (SIGSEGV)")


def test_ten_thousand_lines_rotate_and_lines_stay_whole(folders: Folders) -> None:
    one = folders.make()
    one.start(shell("seq -f 'line %06.0f of many' 10000", log_bytes_max=50_000, log_files=3))
    ended(one)
    files = [folders.root / "one" / name for name in ("log.2", "log.1", "log")]
    assert not (folders.root / "one" / "log.3").exists()
    assert all(0 < file.stat().st_size <= 50_000 for file in files)
    lines = b"".join(file.read_bytes() for file in files).decode().splitlines()
    assert lines == [f"line {n:06d} of many" for n in range(10_001 - len(lines), 10_001)]
    assert all(file.read_bytes().endswith(b"\n") for file in files)
    assert one.tail(4000).splitlines() == lines[-4000:]
    assert one.tail(0) == ""
    assert len(one.tail(100_000).splitlines()) == len(lines)


def test_binary_output_is_kept_byte_for_byte(folders: Folders, tmp_path: Path) -> None:
    nasty = tmp_path / "nasty"
    nasty.write_bytes(bytes(range(256)) * 300 + b"\xff" * 5000 + b"\r\n\0\n" + b"x" * 20_000)
    one = folders.make()
    one.start(ProcessSpec(argv=["/bin/cat", str(nasty)], cwd="/", environment={}, log_bytes_max=7_001, log_files=100))
    assert ended(one).exit_code == 0
    generations = sorted((folders.root / "one").glob("log*"), key=lambda path: int(path.suffix[1:] or 0), reverse=True)
    assert b"".join(path.read_bytes() for path in generations) == nasty.read_bytes()
    assert "\ufffd" in one.tail(3)


def test_one_log_file_starts_over_when_it_is_full(folders: Folders) -> None:
    one = folders.make()
    one.start(shell("seq 1 3000", log_bytes_max=2000, log_files=1))
    ended(one)
    assert [path.name for path in (folders.root / "one").glob("log*")] == ["log"]
    assert one.log_path.stat().st_size <= 2000
    assert one.tail(1) == "3000\n"


def test_user_group_and_limits_are_set(folders: Folders, tmp_path: Path) -> None:
    need_root()
    one = folders.make()
    limits = ResourceLimits(open_files=64, cpu_time_s=30, file_size_bytes=4096, processes=40)
    one.start(shell("id -u; id -g; id -G; ulimit -n; ulimit -t; ulimit -f; ulimit -c", uid=64123, limits=limits))
    ended(one)
    assert one.log_path.read_text().split() == ["64123", "64123", "64123", "64", "30", "8", "0"]
    assert one.log_path.stat().st_uid == 0, "the process cannot rewrite its own log"


def test_user_that_may_not_enter_the_folder_is_told_so(folders: Folders, tmp_path: Path) -> None:
    need_root()
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    with pytest.raises(ProcessStartFailed, match="private: Permission denied"):
        folders.make().start(ProcessSpec(argv=["/bin/true"], cwd=str(private), environment={}, uid=64123))


def test_memory_limit_ends_in_a_memory_error(folders: Folders) -> None:
    one = folders.make()
    one.start(python("bytearray(300 << 20)", limits=ResourceLimits(memory_bytes=100 << 20)))
    assert ended(one).exit_code == 1
    assert one.tail(1) == "MemoryError\n"


def test_sandboxed_code_sees_no_secret_and_no_file_of_ours(folders: Folders, tmp_path: Path) -> None:
    need_root()
    secret = tmp_path / "secret"
    secret.write_text("hunter2")
    secret.chmod(0o600)
    spec = ProcessSpec(argv=["/bin/sh", "-c", f"cat {secret}; env; id -u"], cwd="/", environment={"PATH": PATH})
    one = folders.make()
    one.start(sandboxed(spec, uid=SANDBOX_UID))
    ended(one)
    output = one.log_path.read_text()
    assert "hunter2" not in output
    variables = {name for name, sign, _ in (line.partition("=") for line in output.splitlines()) if sign}
    assert {"PATH", "LANG"} <= variables <= {"PATH", "LANG", "PWD", "OLDPWD", "SHLVL", "_"}, "nothing of ours"
    assert output.splitlines()[-1] == "64999"


def test_forget_removes_an_ended_process_and_spares_a_running_one(folders: Folders) -> None:
    one = folders.make()
    one.start(shell("exec sleep 60"))
    with pytest.raises(AlreadyRunning):
        one.forget()
    one.stop(5)
    one.forget()
    assert not (folders.root / "one").exists()
    assert one.observe() == Absent()
    one.forget()


def test_forget_and_start_at_the_same_time_do_not_hurt_each_other(folders: Folders) -> None:
    folders.make()
    done = threading.Event()
    problems: list[Exception] = []

    def forget_again_and_again() -> None:
        while not done.is_set():
            try:
                Supervised(folders.root / "one").forget()
            except AlreadyRunning:
                continue
            except Exception as problem:  # noqa: BLE001 - whatever it is, the test shows it
                problems.append(problem)
                return

    thread = threading.Thread(target=forget_again_and_again)
    thread.start()
    seen: set[object] = set()
    try:
        for _ in range(30):
            try:
                one = Supervised(folders.root / "one")
                running = one.start(shell("exec sleep 60"))
                assert one.observe() == running
                seen.add(one.stop(5))
            except AlreadyRunning:  # the folder is being removed at this moment
                continue
    finally:
        done.set()
        thread.join()
    assert not problems
    assert seen
    # Between stop's end and its look the other one may have forgotten it: never does it seem lost.
    assert all(isinstance(look, Absent) or (isinstance(look, Exited) and not look.lost) for look in seen)


def test_a_shim_stays_small(folders: Folders) -> None:
    """The figures of the design: at most 8 MB resident, 7 MB of its own share."""
    one = folders.make()
    one.start(shell("seq 1 20000; exec sleep 60"))
    wait_for(lambda: one.tail(1) == "20000\n", what="the output")
    shim = folders.record()["shim_pid"]
    status = Path(f"/proc/{shim}/status").read_text()
    resident_kb = int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS:")))
    assert resident_kb <= 8 * 1024
    assert 500_000 < pss_bytes(shim) <= 7 << 20


def test_pss_of_a_pid_that_is_gone_says_so() -> None:
    child = subprocess.Popen(["/bin/true"])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    with pytest.raises(ProcessGone):  # a zombie has no memory
        pss_bytes(child.pid)
    child.wait()
    with pytest.raises(ProcessGone):
        pss_bytes(child.pid)
