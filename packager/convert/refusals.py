"""What a step inside the sandbox left behind, read with suspicion: bounded files, JSON that fits, failures as errors."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TypeVar

import msgspec

from hedgerow.errors import HedgerowError
from packager.convert import errors
from packager.convert.sandbox import Finished

_JSON_BYTES_MAX = 4 << 20
_TEXT_MAX = 2000
_FAILURE = "failure.json"
_NO_MEMORY = ("MemoryError", "std::bad_alloc", "Cannot allocate memory", "can't allocate memory", "bad allocation")
T = TypeVar("T")

_KINDS: dict[str, type[HedgerowError]] = {
    "missing_module": errors.LibraryMissing,
    "unpickle": errors.ModelUnreadable,
    "other_version": errors.OtherVersion,
    "no_predict": errors.NothingToPredict,
    "state_dict": errors.OnlyWeights,
    "sample_needed": errors.SampleNeeded,
    "sample_unfit": errors.SampleUnfit,
    "outside_files": errors.OutsideFiles,
    "unsupported": errors.ConversionUnsupported,
    "wrong": errors.ConversionWrong,
    "costly": errors.QuantisationTooCostly,
    "opset": errors.OpsetNotKept,
    "crashed": errors.ModelCrashed,
}


class _Told(msgspec.Struct, frozen=True):
    kind: str
    fields: dict[str, str] = {}


def refuse(finished: Finished, result: Path, file: str, *, memory_bytes: int, timeout_s: float) -> HedgerowError:
    """The error that stands for a step that did not end well."""
    too_large = errors.ConversionTooLarge(file=file, limit_mb=memory_bytes >> 20)
    if finished.timed_out:
        return errors.ConversionTooSlow(file=file, limit_s=f"{timeout_s:g}")
    told = _told(result)
    if told is not None and told.kind == "memory":
        return too_large
    if told is not None and told.kind in _KINDS:
        fields = {name: value[:_TEXT_MAX] for name, value in told.fields.items()}
        try:
            return _KINDS[told.kind](**{"file": file, **fields})
        except KeyError:
            return errors.ModelCrashed(file=file, problem=f"it said {told.kind!r} without saying enough")
    lines = [line.strip() for line in finished.log.splitlines() if line.strip()]
    if any(word in line for word in _NO_MEMORY for line in lines[-5:]):
        return too_large
    last = f": {_printable(lines[-1])}" if lines else ""
    return errors.ModelCrashed(file=file, problem=f"its process ended with exit code {finished.exit_code}{last}")


def read_json(path: Path, kind: type[T], file: str) -> T:
    """A JSON file that foreign code may have written. Raises ModelCrashed."""
    try:
        return msgspec.json.decode(read_bounded(path, _JSON_BYTES_MAX), type=kind)
    except (OSError, msgspec.DecodeError, msgspec.ValidationError, UnicodeError, RecursionError) as problem:
        raise errors.ModelCrashed(file=file, problem=f"what it handed back cannot be used ({problem})") from problem


def read_bounded(path: Path, most: int) -> bytes:
    """The content of a regular file of at most ``most`` bytes; never follows a link, never waits for a pipe. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(fd, "rb") as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode) or found.st_size > most:
            raise OSError(27, f"no regular file of at most {most} bytes", str(path))
        return file.read(most)


def _told(result: Path) -> _Told | None:
    try:
        return msgspec.json.decode(read_bounded(result / _FAILURE, _JSON_BYTES_MAX), type=_Told)
    except (OSError, msgspec.DecodeError, msgspec.ValidationError, UnicodeError, RecursionError):
        return None


def _printable(text: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in text)[:300]
