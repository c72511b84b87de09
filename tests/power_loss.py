"""What a disk may hold after the power went: a trace of what a program did to its files, and disks made of its beginnings.

The model is as strict as POSIX, not as kind as one file system. What was synced is there. Of what was not, each page has its old
content or any of the later ones; a file that was cut may have been cut or not. A name (created, renamed, removed) is sure once
its folder was synced; of the later changes of names the first few, or all, or none are there.
"""

from __future__ import annotations

import random
import shutil
import struct
import subprocess
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from tests.fixtures.parts import program

PAGE = 4096
_HEAD = struct.Struct("<cQQII")
_SOURCE = Path(__file__).with_name("power_trace.c")


class Op(NamedTuple):
    """See ``power_trace.c``."""

    kind: str
    file: int
    offset: int
    first: bytes
    second: bytes


def build_tracer(folder: Path) -> Path:
    """The library to preload."""
    library = folder / "power_trace.so"
    argv = [program("cc"), "-O2", "-Wall", "-shared", "-fPIC", "-o", str(library), str(_SOURCE), "-ldl", "-pthread"]
    subprocess.run(argv, check=True, timeout=120)
    return library


def read_trace(path: Path) -> list[Op]:
    data, at, found = path.read_bytes(), 0, list[Op]()
    while at + _HEAD.size <= len(data):
        kind, file, offset, first, second = _HEAD.unpack_from(data, at)
        at += _HEAD.size
        found.append(Op(kind.decode(), file, offset, data[at : at + first], data[at + first : at + first + second]))
        at += first + second
    assert at == len(data), "the trace ends within a record"
    return found


@dataclass
class _File:
    """``safe`` is on the disk; ``waiting`` is not, or not surely."""

    safe: bytearray = field(default_factory=bytearray)
    waiting: list[Op] = field(default_factory=list)

    def sync(self) -> None:
        for op in self.waiting:
            _apply(self.safe, op)
        self.waiting.clear()

    def after_loss(self, chance: random.Random) -> bytes:
        content = bytearray(self.safe)
        part: list[Op] = []
        for op in self.waiting:
            if op.kind == "W":
                part.append(op)
            elif chance.random() < 0.5:
                for done in [*part, op]:
                    _apply(content, done)
                part = []
            else:
                break
        _some_pages(content, part, chance)
        return bytes(content)


def _apply(content: bytearray, op: Op) -> None:
    if op.kind == "T":
        del content[op.offset :]
        content.extend(bytes(op.offset - len(content)))
    else:
        content.extend(bytes(max(0, op.offset - len(content))))
        content[op.offset : op.offset + len(op.first)] = op.first


def _some_pages(content: bytearray, writes: Sequence[Op], chance: random.Random) -> None:
    pages: dict[int, list[Op]] = defaultdict(list)
    for op in writes:
        at = op.offset
        while at < op.offset + len(op.first):
            end = min((at // PAGE + 1) * PAGE, op.offset + len(op.first))
            pages[at // PAGE].append(op._replace(offset=at, first=op.first[at - op.offset : end - op.offset]))
            at = end
    kept = chance.choice([0.0, 0.5, 0.9, 1.0])
    for page in sorted(pages):
        versions = pages[page]
        count = len(versions) if chance.random() < kept else chance.randrange(len(versions) + 1)
        for op in versions[:count]:
            _apply(content, op)


class Disk:
    """Follows a trace; can be asked what is left if the power goes now. Paths are absolute."""

    def __init__(self) -> None:
        self._files: dict[int, _File] = {}
        self._names: dict[str, _File] = {}
        self._waiting: list[tuple[Op, _File | None]] = []

    def follow(self, op: Op) -> None:
        match op.kind:
            case "C":
                made = self._files[op.file] = _File()
                self._waiting.append((op, made))
            case "W" | "T":
                self._files.setdefault(op.file, _File()).waiting.append(op)
            case "S":
                self._files.setdefault(op.file, _File()).sync()
            case "D":
                self._sync_folder(op.first.decode())
            case _:
                self._waiting.append((op, None))

    def after_loss(self, chance: random.Random) -> Mapping[str, bytes]:
        """Path to content."""
        names = dict(self._names)
        for op, file in self._waiting[: chance.choice([0, len(self._waiting), chance.randint(0, len(self._waiting))])]:
            _rename(names, op, file)
        return {path: file.after_loss(chance) for path, file in names.items()}

    def _sync_folder(self, folder: str) -> None:
        left: list[tuple[Op, _File | None]] = []
        for op, file in self._waiting:
            if folder in {path.decode().rpartition("/")[0] for path in (op.first, op.second) if path}:
                _rename(self._names, op, file)
            else:
                left.append((op, file))
        self._waiting = left


def _rename(names: dict[str, _File], op: Op, file: _File | None) -> None:
    first, second = op.first.decode(), op.second.decode()
    match op.kind:
        case "C" if file is not None:
            names[first] = file
        case "U":
            names.pop(first, None)
        case "L" if first in names:
            names[second] = names[first]
        case "R":
            for path in [name for name in names if name == first or name.startswith(first + "/")]:
                names[second + path[len(first) :]] = names.pop(path)


def lay_out(content: Mapping[str, bytes], root: Path, target: Path) -> None:
    """Write the files below ``root`` to ``target``, which is made anew. SQLite's shared memory is none of the disk's business."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(mode=0o700, parents=True)
    for path, data in content.items():
        if path.startswith(f"{root}/") and not path.endswith("-shm"):
            place = target / path[len(str(root)) + 1 :]
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(data)
