"""A full disk: the old file stays whole, nothing is left over, and with space again everything works."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from hedgerow.atomic_write import atomic_write


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    prefix = [] if os.geteuid() == 0 else ["sudo", "-n"]
    subprocess.run([*prefix, "mount", "-t", "tmpfs", "-o", "size=256k,mode=0777", "none", str(folder)], check=True, timeout=20)
    yield folder
    subprocess.run([*prefix, "umount", str(folder)], check=True, timeout=20)


def test_atomic_write_on_a_full_disk(small_disk: Path) -> None:
    state = small_disk / "state"
    atomic_write(state, b"old")
    with pytest.raises(OSError, match="No space left") as caught:
        atomic_write(state, b"x" * 400_000)
    assert caught.value.errno == errno.ENOSPC
    assert state.read_bytes() == b"old"
    assert list(small_disk.iterdir()) == [state]
    atomic_write(state, b"new" * 1000)
    assert state.read_bytes() == b"new" * 1000
