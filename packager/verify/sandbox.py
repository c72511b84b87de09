"""The sandbox of an image that is tested as a process: folders of its own and, as root, a user and a group of its own.

The user is lent to one test at a time on the whole machine. So a bound on its number of processes is a bound for the test
alone, and at the end everything that runs as that user is ended, whatever it did to get away. What a killed packager left
behind is ended by the shim of its process (hedgerow/process), and what escaped from that by the next test that gets the user.

Not closed off: the network (the test itself talks over loopback) and files that everybody may read.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from hedgerow.process.procfs import read_stat
from hedgerow.process.reach import barred_by, open_way
from hedgerow.process.sandbox import SANDBOX_GID, TEST_UIDS, sandboxed
from hedgerow.process.spec import ProcessSpec, ResourceLimits
from packager.errors import VerificationFailed

log = logging.getLogger(__name__)
_LEAST_MEMORY_BYTES = 1 << 30
_SHARE_OF_MEMORY = 0.8
# kill(-1): everything that this user may signal, but for the one that asks.
_KILL_ALL = ("/bin/sh", "-c", "kill -KILL -1")
_KILL_TIMEOUT_S = 10
_KILLS = 3
_LIMITS = ResourceLimits(open_files=4096, cpu_time_s=3600, processes=1024, file_size_bytes=1 << 30)


@dataclass(frozen=True)
class Sandbox:
    """``root`` holds the unpacked image and can be read, ``home`` can be written, ``records`` are ours alone.

    ``uid`` None: it runs as our own user, for the reason in ``note`` (empty where that is no surprise).
    """

    root: Path
    home: Path
    records: Path
    uid: int | None
    note: str
    memory_bytes: int

    def spec(self, argv: Iterable[str], environment: Mapping[str, str]) -> ProcessSpec:
        """A process of foreign code that ends when we do."""
        home = str(self.home)
        given = {"PATH": os.defpath, **environment, "HOME": home, "TMPDIR": home}
        limits = msgspec.structs.replace(_LIMITS, memory_bytes=self.memory_bytes)
        bare = ProcessSpec(argv=list(argv), cwd=home, environment=given, limits=limits, exit_with_starter=True)
        inside = sandboxed(bare, uid=self.uid)
        if self.uid is None:
            return inside
        # A group of its own as well; that of all sandboxes only to pass through the workspace's folders.
        return msgspec.structs.replace(inside, gid=self.uid, groups=[SANDBOX_GID])

    def open_for_reading(self) -> None:
        """Let its user read what was unpacked into ``root``, whatever our umask was."""
        if self.uid is None:
            return
        for folder, names, files in os.walk(self.root):
            for name in (*names, *files):
                path = Path(folder, name)
                if not path.is_symlink():
                    path.chmod(path.stat().st_mode | (0o055 if name in names else 0o044))


@contextlib.contextmanager
def borrowed_sandbox(scratch: Path, cache: Path, installation: Iterable[Path], *, required: bool = False) -> Iterator[Sandbox]:
    """Folders below ``scratch``, which is a folder of ``cache``. ``installation``: what the process must be able to enter.

    When the block ends nothing of it runs any more where it had a user of its own; the caller stops what it started itself.
    Raises VerificationFailed when root can give it none and one is ``required``.
    """
    place = scratch / "verify"
    folders = [place / name for name in ("root", "home", "records")]
    for folder in folders:
        folder.mkdir(parents=True)
    root, home, records = folders
    with _own_user((*installation, cache.resolve().parent)) as (uid, note):
        if required and note:
            raise VerificationFailed(problem=f"it may not be tested without a user of its own, and {note}")
        if uid is not None:
            _open_way(cache, place)
            # Here the way of all sandboxes ends: of the group below there is only this one.
            os.chown(place, -1, uid)
            place.chmod(0o710)
            records.chmod(0o700)
            root.chmod(0o755)
            home.chmod(0o700)
            os.chown(home, uid, uid)
        try:
            yield Sandbox(root, home, records, uid, note, _memory_bytes())
        finally:
            if uid is not None:
                end_all_of(uid)


@contextlib.contextmanager
def _own_user(ways: Iterable[Path]) -> Iterator[tuple[int | None, str]]:
    """A user that nobody else has now, with nothing running as it; None and the reason where there can be none.

    Raises VerificationFailed when others have all of them.
    """
    if sys.platform != "linux" or os.geteuid() != 0:
        yield None, ""
        return
    with _lent() as uid:
        if uid is None:
            # Any program of this machine can take these names, so being without one must not be worth anything.
            raise VerificationFailed(problem="all users for tests of this machine are taken")
        barred = barred_by(ways, uid)
        if barred is not None:
            yield None, f"user {uid} cannot enter {barred}"
            return
        end_all_of(uid)
        yield uid, ""


@contextlib.contextmanager
def _lent() -> Iterator[int | None]:
    # A name without a file: it is free again the moment that its holder ends, however it ends.
    with socket.socket(socket.AF_UNIX) as held:
        for uid in TEST_UIDS:
            try:
                held.bind(f"\0hedgerow-test-user-{uid}")
            except OSError:
                continue
            yield uid
            return
        yield None


def end_all_of(uid: int) -> None:
    """KILL to everything that runs as ``uid``, in one step of the kernel: something that forks cannot be faster."""
    for _ in range(_KILLS):
        if not processes_of(uid):
            return
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            subprocess.run(_KILL_ALL, user=uid, group=uid, extra_groups=[], env={}, cwd="/", timeout=_KILL_TIMEOUT_S, check=False)
    log.warning("processes of user %d are still there: %s", uid, processes_of(uid))


def processes_of(uid: int) -> list[int]:
    """Pids of what runs as ``uid``; zombies do not."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                stat = read_stat(int(entry.name)) if entry.stat().st_uid == uid else None
                if stat is not None and not stat.ended:
                    found.append(int(entry.name))
    return found


def _open_way(cache: Path, place: Path) -> None:
    """For passing through only; ``cache`` and what lies between are ours, what is above is not touched."""
    folder = place.resolve()
    while folder.is_relative_to(cache.resolve()):
        open_way(folder)
        folder = folder.parent


def _memory_bytes() -> int:
    """Most of what is free now: a test must not be what the machine runs out of memory for."""
    free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with contextlib.suppress(OSError, ValueError, IndexError):
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    return max(int(free * _SHARE_OF_MEMORY), _LEAST_MEMORY_BYTES)
