"""What /proc says about a process. Used by the shims too, so it imports next to nothing."""

import os

from hedgerow.process.raw_signal import raw_signal


class ProcessStat:
    """What /proc/PID/stat says: ``state`` (one letter), ``session`` and ``start_time_ticks`` since boot."""

    __slots__ = ("session", "start_time_ticks", "state")

    def __init__(self, state: str, session: int, start_time_ticks: int) -> None:
        self.state = state
        self.session = session
        self.start_time_ticks = start_time_ticks

    @property
    def ended(self) -> bool:
        """True for a zombie: nothing of it runs any more, its parent only did not ask yet."""
        return self.state in "ZXx"


def read_stat(pid: int) -> ProcessStat | None:
    """The stat line of a process, None when there is no such process."""
    try:
        fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY)
    except OSError:
        return None
    try:
        text = os.read(fd, 4096)
    except OSError:  # ESRCH: it ended between open and read
        return None
    finally:
        os.close(fd)
    # The name in parentheses may hold spaces and parentheses; the numbers begin after the last one.
    fields = text[text.rfind(b")") + 2 :].split()
    return ProcessStat(fields[0].decode(), int(fields[3]), int(fields[19]))


def session_members(session: int) -> list[int]:
    """Pids of the living processes of a session, its leader included."""
    members = []
    for name in os.listdir("/proc"):  # noqa: PTH208 - pathlib costs each shim 2 MB
        if name.isdigit():
            stat = read_stat(int(name))
            if stat is not None and stat.session == session and not stat.ended:
                members.append(int(name))
    return members


def signal_session(session: int, signum: int, *, not_before_ticks: int = 0) -> list[int]:
    """Signal every living process of a session; returns the pids that were there.

    ``not_before_ticks`` spares processes that are older than the session's leader and so cannot belong to it.
    """
    members = session_members(session)
    for pid in members:
        try:
            fd = os.pidfd_open(pid)
        except ProcessLookupError:  # it ended by itself meanwhile
            continue
        try:
            # Looked at again through the descriptor's eyes: from here on the number cannot mean another process.
            stat = read_stat(pid)
            if stat is not None and stat.session == session and stat.start_time_ticks >= not_before_ticks:
                raw_signal.pidfd_send_signal(fd, signum)
        except ProcessLookupError:
            continue
        finally:
            os.close(fd)
    return members
