"""`python -I -S sandbox_entry.py ORDER.json`: shuts itself in and becomes the command of the order. Standard library only.

As root (or where users may make namespaces): no network, no processes but its own, a file system that holds the order's readable
paths (read only), its one writable folder and nothing else, an own user without rights, limits. When a namespace is refused, only
user and limits remain. Which of the two is written to the descriptor `report_fd` before foreign code begins.
"""

import ctypes
import json
import os
import resource
import signal
import sys
from pathlib import Path

NEWNS, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET = 0x20000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1, 2, 4, 32, 4096, 16384, 1 << 18
PR_SET_PDEATHSIG, PR_SET_NO_NEW_PRIVS = 1, 38
CLOSED, OPEN = b"closed", b"open"
# How it ends where foreign code could not even begin.
NOT_ENTERED, NOT_ENTERED_WORDS = 126, "the sandbox could not be entered"
_DEVICES = ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom")

_libc = ctypes.CDLL(None, use_errno=True)


def main(order: dict) -> None:  # type: ignore[type-arg]  # the JSON of sandbox.py
    """Never returns."""
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != order["parent"]:
        os._exit(125)
    try:
        _unshare()
    except OSError:
        _become(order, isolated=False)
    # The first process of a process namespace takes all others with it when it ends.
    first = os.fork()
    if first:
        os._exit(_exit_code(first))
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    try:
        _build_root(order)
        isolated = True
    except OSError as problem:
        os.write(2, f"no file system of its own: {problem}\n".encode())
        isolated = False
    child = os.fork()
    if child:
        os._exit(_exit_code(child))
    _become(order, isolated=isolated)


def _unshare() -> None:
    user, group = os.geteuid(), os.getegid()
    flags = NEWNS | NEWUTS | NEWIPC | NEWPID | NEWNET | (0 if user == 0 else NEWUSER)
    _check(_libc.unshare(flags), "unshare")
    if user != 0:
        Path("/proc/self/setgroups").write_text("deny", encoding="ascii")
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1", encoding="ascii")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1", encoding="ascii")
    _mount("none", "/", None, MS_REC | MS_PRIVATE)


def _build_root(order: dict) -> None:  # type: ignore[type-arg]  # the JSON of sandbox.py
    """A small file system in memory; what may be seen stands at its own path in it, so that paths mean the same inside."""
    root = order["root"]
    _mount("tmpfs", root, "tmpfs", MS_NOSUID | MS_NODEV, "size=16m,mode=0755")
    for link in ("/bin", "/lib", "/lib64", "/sbin"):
        if Path(link).is_symlink():
            Path(root + link).symlink_to(Path(link).readlink())
        elif Path(link).is_dir():
            _bind(root, link, read_only=True)
    for path in ("/usr", "/etc/ld.so.cache", "/sys/devices/system/cpu", *order["readable"]):
        _bind(root, path, read_only=True)
    for path in _DEVICES:
        _bind(root, path, read_only=False)
    for path in order["writable"]:
        _bind(root, path, read_only=False)
    Path(root, "etc/passwd").write_text(f"sandbox:x:{order['uid']}:{order['gid']}::{order['cwd']}:/bin/false\n", encoding="ascii")
    Path(root, "dev/shm").mkdir(parents=True, exist_ok=True)
    shared = f"{root}/dev/shm"  # noqa: S108 - a mount in its own file system
    _mount("tmpfs", shared, "tmpfs", MS_NOSUID | MS_NODEV, "size=256m,mode=1777")
    Path(root, "proc").mkdir(exist_ok=True)
    _mount("proc", root + "/proc", "proc", MS_NOSUID | MS_NODEV)
    os.chroot(root)
    os.chdir("/")


def _bind(root: str, path: str, *, read_only: bool) -> None:
    source, target = Path(path), Path(root + path)
    if not source.exists():
        return
    if source.is_dir():
        target.mkdir(parents=True, exist_ok=True)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.touch(mode=0o644)
    _mount(path, str(target), None, MS_BIND | (MS_REC if os.geteuid() != 0 else 0))
    if read_only:
        _mount("none", str(target), None, MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID)


def _become(order: dict, *, isolated: bool) -> None:  # type: ignore[type-arg]  # the JSON of sandbox.py
    """Limits, user, folder, exec."""
    try:
        os.umask(0o022)
        for name, value in order["limits"].items():
            number = getattr(resource, name)
            most = resource.getrlimit(number)[1]
            value = value if most == resource.RLIM_INFINITY else min(value, most)
            resource.setrlimit(number, (value, value))
        if os.geteuid() == 0:
            os.setgroups([])
            os.setresgid(order["gid"], order["gid"], order["gid"])
            os.setresuid(order["uid"], order["uid"], order["uid"])
        _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)  # the change of user cleared it
        _libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        os.chdir(order["cwd"])
        os.write(order["report_fd"], CLOSED if isolated else OPEN)
        os.close(order["report_fd"])
        os.execve(order["argv"][0], order["argv"], order["environment"])  # noqa: S606 - no shell is wanted
    except BaseException as problem:  # noqa: BLE001 - foreign code must not begin outside of its sandbox
        os.write(2, f"{NOT_ENTERED_WORDS}: {problem!r}\n".encode())
    finally:
        os._exit(NOT_ENTERED)


def _exit_code(pid: int) -> int:
    while True:
        found, status = os.waitpid(-1, 0)
        if found == pid:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code


def _mount(source: str, target: str, kind: "str | None", flags: int, data: "str | None" = None) -> None:
    encoded = [None if text is None else os.fsencode(text) for text in (source, target, kind, data)]
    _check(_libc.mount(encoded[0], encoded[1], encoded[2], ctypes.c_ulong(flags), encoded[3]), f"mount {target}")


def _check(answer: int, what: str) -> None:
    if answer != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
