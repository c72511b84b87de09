"""Unpacks an image's own layers into a folder, for its test. They are treated as hostile, though we wrote them.

Whiteouts are not applied: our layers never delete anything, and `source_files.py` lets no file of such a name in.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from hedgerow.safe_tar import unpack_tar
from packager.oci.blobs import disk_error


def unpack_layers(layers: Iterable[Path], root: Path) -> None:
    """Apply ``layers`` (tar, plain or gzip) in order to the existing folder ``root``. Raises UnsafeArchive, DiskFull."""
    for layer in layers:
        try:
            with layer.open("rb") as archive:
                unpack_tar(archive, root, name=layer.name)
        except OSError as problem:
            raise disk_error(problem, root) from problem
