"""Logs of process modules: the shim's files ``log.N`` … ``log.1``, ``log``, read as they were when they were opened.

A position is ``INODE:OFFSET``: files are renamed when a new one begins, so that a reader who comes back finds its place.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from edge_agent.methods.errors import LogsUnreadable
from edge_agent.methods.log_lines import LINE_BYTES, Line, Wanted, time_of

_BLOCK_BYTES = 64 * 1024
_FILES_MOST = 100


@dataclass(frozen=True)
class _File:
    fd: int
    inode: int
    size: int
    modified_s: float


def process_lines(log: Path, module: str, wanted: Wanted) -> Generator[Line, None, None]:
    """The lines of a module's log, from the first that can be wanted on. Raises LogsUnreadable."""
    with ExitStack() as opened:
        try:
            files = _open(log, opened)
        except OSError as problem:
            raise LogsUnreadable(module=module, problem=problem.strerror or str(problem)) from None
        needed, start = _beginning(files, wanted)
        timed = wanted.since_s is not None or wanted.until_s is not None
        for place, file in enumerate(needed):
            last = place == len(needed) - 1
            for text, end in _lines(file, start if place == 0 else 0, unfinished=wanted.unfinished or not last):
                yield Line(text, f"{file.inode}:{end}", time_of(text) if timed else None)


def _open(log: Path, opened: ExitStack) -> list[_File]:
    """Oldest first. The newest is opened first: a rotation meanwhile repeats a file, which is left out, and loses none."""
    found: dict[int, _File] = {}
    for number in range(_FILES_MOST):
        path = log if number == 0 else log.with_name(f"{log.name}.{number}")
        try:
            # A module that puts a pipe there must not keep us waiting for somebody who writes into it.
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except FileNotFoundError:
            if number == 0:
                continue  # between two files, or nothing was written yet
            break
        opened.callback(os.close, fd)
        facts = os.fstat(fd)
        found.setdefault(facts.st_ino, _File(fd, facts.st_ino, facts.st_size, facts.st_mtime))
    return list(reversed(found.values()))


def _beginning(files: Sequence[_File], wanted: Wanted) -> tuple[Sequence[_File], int]:
    """The files from the first that is needed on, and where to begin in it."""
    start = 0
    inode, _, offset = wanted.after.partition(":")
    for place, file in enumerate(files):
        if str(file.inode) == inode and offset.isdecimal() and int(offset) <= file.size:
            files, start = files[place:], int(offset)
            break
    if wanted.tail is not None:
        files, start = _tail(files, start, wanted.tail)
    if wanted.since_s is not None:
        # What was written last before then holds nothing newer.
        while len(files) > 1 and files[0].modified_s < wanted.since_s:
            files, start = files[1:], 0
    return files, start


def _tail(files: Sequence[_File], start: int, lines: int) -> tuple[Sequence[_File], int]:
    """Where the last ``lines`` lines begin, not before ``start`` in the first file."""
    if lines <= 0:
        return [], 0
    seen = -1  # the newline at the very end ends the last line
    for place in range(len(files) - 1, -1, -1):
        file, first = files[place], start if place == 0 else 0
        at = file.size
        if seen < 0 and at and os.pread(file.fd, 1, at - 1) != b"\n":
            seen = 0
        while at > first:
            begin = max(first, at - _BLOCK_BYTES)
            block = os.pread(file.fd, at - begin, begin)
            end = len(block)
            while (found := block.rfind(b"\n", 0, end)) >= 0:
                seen += 1
                if seen == lines:
                    return files[place:], begin + found + 1
                end = found
            at = begin
    return files, start


def _lines(file: _File, start: int, *, unfinished: bool) -> Iterator[tuple[str, int]]:
    """Each line without its end, and the offset behind it. One that is too long comes in pieces."""
    at, rest, behind = start, b"", start
    while at < file.size:
        block = os.pread(file.fd, min(_BLOCK_BYTES, file.size - at), at)
        if not block:
            break  # it was cut shorter meanwhile
        at += len(block)
        *whole, rest = (rest + block).split(b"\n")
        for line in whole:
            behind += len(line) + 1
            yield from _pieces(line, behind)
        while len(rest) > LINE_BYTES:
            behind += LINE_BYTES
            yield rest[:LINE_BYTES].decode(errors="replace"), behind
            rest = rest[LINE_BYTES:]
    if rest and unfinished:
        yield rest.decode(errors="replace"), behind + len(rest)


def _pieces(line: bytes, behind: int) -> Iterator[tuple[str, int]]:
    if len(line) <= LINE_BYTES:
        yield line.removesuffix(b"\r").decode(errors="replace"), behind
        return
    for begin in range(0, len(line), LINE_BYTES):
        end = min(len(line), begin + LINE_BYTES)
        yield line[begin:end].decode(errors="replace"), behind - (len(line) - end) - (0 if end == len(line) else 1)
