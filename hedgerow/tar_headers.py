"""The parts of a tar that are not content, for whoever writes one piece by piece. Pure.

No times, no owners: the same member has the same bytes on any day and any machine.
"""

from __future__ import annotations

import tarfile

BLOCK_BYTES = 512
END_OF_TAR = bytes(2 * BLOCK_BYTES)


def plain_header(name: str, size: int, mode: int = 0o644) -> bytes:
    """What stands in front of a file's content: one block of :data:`BLOCK_BYTES`. ``name``: up to 100 characters of ASCII."""
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, mode
    return info.tobuf(tarfile.GNU_FORMAT, "ascii", "strict")


def padding(size: int) -> bytes:
    """What follows content of ``size`` bytes up to the next header."""
    return bytes(-size % BLOCK_BYTES)
