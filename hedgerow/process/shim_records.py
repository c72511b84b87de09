"""``state.json`` and ``exit.json``, written by the shim and read by ``records.py``; small enough without the json module."""

import os

from hedgerow.process.procfs import read_stat

# Room kept from before the start, so that a disk that is full by then does not swallow the exit status.
RECORD_BYTES = 1024

Value = int | float | str | None


def record(leader: int, started_at: float) -> dict[str, Value]:
    """What is known when the process is about to run; ``started_at`` in seconds since 1970."""
    shim, process = read_stat(os.getpid()), read_stat(leader)
    fd = os.open("/proc/sys/kernel/random/boot_id", os.O_RDONLY | os.O_CLOEXEC)
    boot_id = os.read(fd, 64).decode().strip()
    os.close(fd)
    return {
        "boot_id": boot_id,
        "shim_pid": os.getpid(),
        "shim_start_time_ticks": shim.start_time_ticks if shim else 0,
        "pid": leader,
        "start_time_ticks": process.start_time_ticks if process else 0,
        "started_at": round(started_at, 3),
    }


def write_state(fields: dict[str, Value]) -> None:
    """Record what is about to run. Raises OSError (ENOSPC, EROFS, …): then it must not run."""
    _write("exit.json.new", {})
    _write("state.json.new", fields)
    os.rename("state.json.new", "state.json")  # noqa: PTH104 - pathlib costs each shim 2 MB


def remove_state() -> None:
    """Leave the folder as if nothing had been started."""
    for name in ("state.json.new", "state.json", "exit.json.new"):
        try:
            os.unlink(name)  # noqa: PTH108 - pathlib costs each shim 2 MB
        except FileNotFoundError:
            continue


def write_exit(fields: dict[str, Value]) -> None:
    """Record the end, through a power cut too: nothing else knows the exit status."""
    _write("exit.json.new", fields, sync=True)
    os.rename("exit.json.new", "exit.json")  # noqa: PTH104 - pathlib costs each shim 2 MB
    fd = os.open(".", os.O_RDONLY | os.O_CLOEXEC)
    os.fsync(fd)
    os.close(fd)


def _write(name: str, fields: dict[str, Value], *, sync: bool = False) -> None:
    content = _json(fields).ljust(RECORD_BYTES)
    # Overwritten in place and never truncated: that is what makes the reservation hold.
    fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if os.pwrite(fd, content, 0) < len(content):
            raise OSError(28, os.strerror(28))  # ENOSPC; the errno module is one import more
        if sync:
            os.fsync(fd)
    finally:
        os.close(fd)


def _json(fields: dict[str, Value]) -> bytes:
    # The only texts are the boot id and words of our own: nothing needs escaping.
    rows = [f'"{name}": {_literal(value)}' for name, value in fields.items()]
    return ("{\n  " + ",\n  ".join(rows) + "\n}\n").encode()


def _literal(value: Value) -> str:
    if value is None:
        return "null"
    return f'"{value}"' if isinstance(value, str) else str(value)
