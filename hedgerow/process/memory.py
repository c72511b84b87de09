"""What a process costs in memory, for benchmarks and ``hedgerow doctor``."""

from __future__ import annotations

from pathlib import Path

from hedgerow.process.errors import ProcessGone


def pss_bytes(pid: int) -> int:
    """Proportional set size in bytes: private pages, plus each shared page divided by the number of its users.

    Raises ProcessGone; PermissionError for a process of another user.
    """
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        raise ProcessGone(pid=pid) from None
    for line in text.splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise ProcessGone(pid=pid)  # a zombie: its file has no lines
