"""The last lines of a rotated log, read from its end. Bounded by the log's own size limits."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

_BLOCK_BYTES = 65536


def tail_bytes(log: Path, lines: int) -> bytes:
    """The last ``lines`` lines over ``log``, ``log.1``, …, oldest first; a rotation meanwhile may repeat or skip some."""
    if lines <= 0:
        return b""
    blocks: list[bytes] = []
    newlines = 0
    for block in _blocks_from_end(log):
        blocks.append(block)
        newlines += block.count(b"\n")
        if newlines > lines:
            break
    text = b"".join(reversed(blocks))
    last = text.removesuffix(b"\n").split(b"\n")[-lines:]
    return b"\n".join(last) + (b"\n" if text.endswith(b"\n") else b"")


def _blocks_from_end(log: Path) -> Iterator[bytes]:
    path, generation = log, 0
    while True:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        try:
            end = os.fstat(fd).st_size
            while end > 0:
                start = max(0, end - _BLOCK_BYTES)
                yield os.pread(fd, end - start, start)
                end = start
        finally:
            os.close(fd)
        generation += 1
        path = log.with_name(f"{log.name}.{generation}")
