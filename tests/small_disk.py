"""A file system of its own that is soon full."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.process_folders import need_root


@contextlib.contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """A tmpfs of ``size`` ("64k", "24m") at ``folder``, which is made when it is not there."""
    need_root()
    folder.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        # Lazily: a test that failed half-way may still have a file open.
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def enlarge(folder: Path, size: str) -> None:
    """Give the disk at ``folder`` more room."""
    subprocess.run(["mount", "-o", f"remount,size={size}", str(folder)], check=True)
