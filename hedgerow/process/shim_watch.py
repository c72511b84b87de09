"""The supervising process: one tiny process per supervised process, so that the starter's death harms nobody.

It begins as a child of the starter (``launch.py``), forks away from it, starts the process, owns its output and its exit
status, and ends after it. Its working folder is the state folder: ``state.json`` is there before the process runs,
``log``, ``log.1``, … while it runs, and ``exit.json`` when it has ended and left nothing behind in its session.
"""

import os
import select
import time

from hedgerow.process.procfs import session_members, signal_session
from hedgerow.process.raw_signal import raw_signal
from hedgerow.process.shim_child import Spec, become
from hedgerow.process.shim_log import Log
from hedgerow.process.shim_records import Value, record, remove_state, write_exit, write_state

LEFTOVER_GRACE_S = 0.5  # what children of an ended process get between TERM and KILL
STOP_GRACE_MAX_S = 60.0  # the same while somebody stops it: the stopper sends KILL himself, this is for a stopper that died
STARTER_GRACE_S = 5.0  # between TERM and KILL when the starter has ended
GIVE_UP_AFTER_KILL_S = 5.0  # a process in uninterruptible sleep does not keep the exit of its leader unrecorded
LEFTOVER_POLL_MS = 20
READ_BYTES = 32768
DRAIN_READS_MAX = 128  # a process that left our session may write for ever
CLD_EXITED = 1


def main(answer_fd: int, lock_fd: int, starter_fd: int) -> None:
    """Read the spec from stdin, leave the starter, run the process, record its end. ``starter_fd`` is a pidfd or -1.

    ``lock_fd`` holds the folder's lock as long as we live. The answer is ``ok PID TICKS STARTED_AT``, ``refused STEP ERRNO``
    (the child's step) or ``unable ERRNO`` (ours).
    """
    spec = Spec(_read_all(0))
    for fd in (answer_fd, lock_fd, starter_fd):
        if fd >= 0:
            os.set_inheritable(fd, False)
    if os.fork():
        os._exit(0)
    _own_signals()
    os.dup2(os.open("/dev/null", os.O_RDWR), 0)
    log = Log(spec.number(b"log_bytes_max") or 1, spec.number(b"log_files") or 1)
    try:
        fields, output_fd = _start(spec, answer_fd, lock_fd)
        watch = Watch(fields, output_fd, starter_fd, log)
        _answer(answer_fd, f"ok {fields['pid']} {fields['start_time_ticks']} {fields['started_at']}")
        os.close(answer_fd)
        del spec  # with the environment, and the secrets in it
        watch.run()
        write_exit(watch.fields)
    except BaseException as problem:  # noqa: BLE001 - last words; the process ends with us (PDEATHSIG)
        log.write(f"[hedgerow] the supervising process failed: {problem!r}\n".encode())
        os._exit(1)
    os._exit(0)


def _own_signals() -> None:
    # Whoever wants the process to end tells the process (or its group), or ends us for good.
    for name in ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGPIPE"):
        raw_signal.signal(getattr(raw_signal, name), raw_signal.SIG_IGN)
    raw_signal.pthread_sigmask(raw_signal.SIG_SETMASK, ())


def _start(spec: Spec, answer_fd: int, lock_fd: int) -> tuple[dict[str, Value], int]:
    output_fd, output_write = os.pipe()
    go_read, go_write = os.pipe()
    problem_fd, problem_write = os.pipe()
    shim_pid = os.getpid()
    started_at = time.time()
    leader = os.fork()
    if leader == 0:
        os.close(go_write)  # or the child would wait for itself when the go never comes
        become(spec, shim_pid, output_write, go_read, problem_write)
    for fd in (output_write, go_read, problem_write):
        os.close(fd)
    try:
        fields = record(leader, started_at)
        write_state(fields)
    except OSError as problem:
        os.close(go_write)  # the child reads the end of file instead of its go, and leaves
        os.waitpid(leader, 0)
        _refuse(answer_fd, lock_fd, f"unable {problem.errno}")
    _give_go(go_write)
    refusal = _read_all(problem_fd)
    os.close(problem_fd)
    if refusal:
        os.waitpid(leader, 0)
        _refuse(answer_fd, lock_fd, f"refused {refusal.decode()}")
    return fields, output_fd


def _give_go(go_write: int) -> None:
    try:
        os.write(go_write, b"g")
    except BrokenPipeError:  # it ended before we had recorded it: its last words, or else its exit status, say why
        return
    finally:
        os.close(go_write)


def _refuse(answer_fd: int, lock_fd: int, text: str) -> None:
    try:
        remove_state()
    finally:
        os.close(lock_fd)  # before the answer: who is told "no" may try again at once
        _answer(answer_fd, text)
        os._exit(1)


def _answer(answer_fd: int, text: str) -> None:
    try:
        os.write(answer_fd, text.encode())
    except BrokenPipeError:  # the starter was killed meanwhile; whoever comes next finds the records
        return


def _read_all(fd: int) -> bytes:
    data = b""
    while part := os.read(fd, READ_BYTES):
        data += part
    return data


class Watch:
    """From the start to the end of the process and of everything that it leaves in its session."""

    def __init__(self, fields: dict[str, Value], output_fd: int, starter_fd: int, log: Log) -> None:
        self.fields = fields
        self.leader = int(fields["pid"] or 0)
        self.output_fd = output_fd
        self.starter_fd = starter_fd
        self.log = log
        self.leader_fd = os.pidfd_open(self.leader)
        self.poller = select.poll()
        for fd in (output_fd, starter_fd, self.leader_fd):
            if fd >= 0:
                self.poller.register(fd, select.POLLIN)
        os.set_blocking(output_fd, False)
        self.cause = "self"
        self.leader_ended = False
        self.kill_at: float | None = None
        raw_signal.signal(raw_signal.SIGUSR1, self._stop_is_coming)

    def run(self) -> None:
        """Return when all has ended; ``fields`` then says how."""
        while not self._finished(time.monotonic()):
            for fd, _ in self.poller.poll(self._timeout_ms()):
                if fd == self.output_fd:
                    self._copy_output()
                elif fd == self.leader_fd:
                    self.leader_ended = True
                    self.poller.unregister(fd)
                else:
                    self._starter_ended()
        for _ in range(DRAIN_READS_MAX):
            if not self._copy_output():
                break
        self._record_end()

    def _stop_is_coming(self, _signum: int, _frame: object) -> None:
        self.cause = "stopped"

    def _timeout_ms(self) -> int | None:
        return LEFTOVER_POLL_MS if self.leader_ended or self.kill_at is not None else None

    def _copy_output(self) -> bool:
        """False when there is nothing to read now, or never again."""
        if self.output_fd < 0:
            return False
        try:
            data = os.read(self.output_fd, READ_BYTES)
        except BlockingIOError:
            return False
        if data:
            self.log.write(data)
            return True
        self.poller.unregister(self.output_fd)
        os.close(self.output_fd)
        self.output_fd = -1
        return False

    def _starter_ended(self) -> None:
        self.poller.unregister(self.starter_fd)
        self.cause = "starter-ended"
        self.kill_at = time.monotonic() + STARTER_GRACE_S
        os.killpg(self.leader, raw_signal.SIGTERM)

    def _finished(self, now: float) -> bool:
        if not self.leader_ended:
            if self.kill_at is not None and now >= self.kill_at:
                os.killpg(self.leader, raw_signal.SIGKILL)
            return False
        # Until we wait for it the leader is a zombie, so that no other process can get its number as pid or session.
        if not session_members(self.leader):
            return True
        if self.kill_at is None:
            self.kill_at = now + (STOP_GRACE_MAX_S if self.cause == "stopped" else LEFTOVER_GRACE_S)
            if self.cause == "self":
                signal_session(self.leader, raw_signal.SIGTERM)
        if now >= self.kill_at:
            signal_session(self.leader, raw_signal.SIGKILL)
        return now >= self.kill_at + GIVE_UP_AFTER_KILL_S

    def _record_end(self) -> None:
        # Not reaped before the record is there: whoever signals the process meanwhile can hit only a zombie.
        result = os.waitid(os.P_PID, self.leader, os.WEXITED | os.WNOWAIT)
        status = result.si_status if result else None
        by_itself = result is not None and result.si_code == CLD_EXITED
        self.fields |= {
            "exit_code": status if by_itself else None,
            "signal": None if by_itself else status,
            "ended_at": round(time.time(), 3),
            "cause": self.cause,
            "log_lines_lost": self.log.lost_lines,
        }
