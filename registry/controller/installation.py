"""Which code of ours is installed, told without reading it: a build by other code is another build."""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from hedgerow import __version__
from hedgerow.contracts.document import digest_of

# What an image is made by and of; all of them are installed together.
_PACKAGES = ("hedgerow", "packager", "runtime")


def fingerprint(root: Path = Path(__file__).parents[2]) -> str:
    """Digest over names, sizes and times of our files below ``root``, and over when packages were last installed or removed."""
    lines = [f"{__version__} {sys.version}"]
    lines += [line for package in _PACKAGES for line in _files(str(root / package))]
    for name in ("purelib", "platlib"):
        place = Path(sysconfig.get_path(name))
        lines.append(f"{place} {place.stat().st_mtime_ns if place.is_dir() else 'absent'}")
    return digest_of("\n".join(sorted(lines)).encode())


def _files(folder: str) -> Iterator[str]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                if entry.name != "__pycache__":
                    yield from _files(entry.path)
            else:
                try:
                    found = entry.stat()
                    yield f"{entry.path} {found.st_size} {found.st_mtime_ns} {found.st_ctime_ns}"
                except FileNotFoundError:  # a link to nothing, or a file that an editor has just taken away
                    yield f"{entry.path} absent"
