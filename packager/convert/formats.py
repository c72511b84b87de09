"""Which file of a model is converted, and how it is to be opened: by what was asked, by its name, by its first bytes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from packager.convert.errors import NoSuchEntry, SeveralModelFiles, UnknownModelFormat

Kind = Literal["onnx", "pickle", "xgboost", "lightgbm", "torch"]

_BY_SUFFIX: dict[str, Kind] = {
    ".onnx": "onnx",
    ".pkl": "pickle",
    ".pickle": "pickle",
    ".joblib": "pickle",
    ".ubj": "xgboost",
    ".xgb": "xgboost",
    ".bst": "xgboost",
    ".lgb": "lightgbm",
    ".pt": "torch",
    ".pth": "torch",
    ".pt2": "torch",
    ".ts": "torch",
}
# Suffixes that anything may have: the file's beginning must look like a model.
_BY_BEGINNING: dict[str, tuple[Kind, tuple[bytes, ...]]] = {
    ".json": ("xgboost", (b'"learner"',)),
    ".txt": ("lightgbm", (b"tree\n", b"tree\r\n")),
    ".model": ("xgboost", (b'"learner"', b"learner")),
}
_BEGINNING_BYTES = 4096
_FRAMEWORKS: dict[str, tuple[Kind, ...]] = {
    "onnx": ("onnx",),
    "sklearn": ("pickle",),
    "scikit-learn": ("pickle",),
    "xgboost": ("xgboost", "pickle"),
    "lightgbm": ("lightgbm", "pickle"),
    "torch": ("torch", "pickle"),
    "pytorch": ("torch", "pickle"),
}


@dataclass(frozen=True)
class Entry:
    """The file to open, relative to the model's folder."""

    path: str
    kind: Kind


def choose_entry(model: str, files: list[str], beginning: Callable[[str], bytes], *, entry: str | None, framework: str) -> Entry:
    """The one file to convert. ``beginning`` reads the first bytes of a file.

    Raises NoSuchEntry, UnknownModelFormat, SeveralModelFiles.
    """
    if entry is not None:
        if entry not in files:
            raise NoSuchEntry(model=model, entry=entry, found=_some(files))
        kind = _kind(entry, beginning)
        if kind is None:
            raise UnknownModelFormat(model=model, found=entry)
        return Entry(entry, kind)
    fitting = [Entry(file, kind) for file in files if (kind := _kind(file, beginning)) is not None]
    wanted = _FRAMEWORKS.get(framework.lower(), ())
    by_framework = [one for kind in wanted for one in fitting if one.kind == kind]
    chosen = [one for one in by_framework if one.kind == by_framework[0].kind] or fitting
    if not chosen:
        raise UnknownModelFormat(model=model, found=_some(files))
    if len(chosen) > 1:
        named = [one for one in chosen if PurePosixPath(one.path).stem == "model" and "/" not in one.path]
        if len(named) != 1:
            raise SeveralModelFiles(model=model, files=_some([one.path for one in chosen]))
        chosen = named
    return chosen[0]


def beginning_of(folder: Path) -> Callable[[str], bytes]:
    """Reads the first bytes of files below ``folder``."""

    def read(path: str) -> bytes:
        with (folder / path).open("rb") as file:
            return file.read(_BEGINNING_BYTES)

    return read


def _kind(path: str, beginning: Callable[[str], bytes]) -> Kind | None:
    suffix = PurePosixPath(path).suffix.lower()
    if suffix in _BY_SUFFIX:
        return _BY_SUFFIX[suffix]
    if suffix in _BY_BEGINNING:
        kind, signs = _BY_BEGINNING[suffix]
        start = beginning(path)
        if any(sign in start if kind == "xgboost" else start.startswith(sign) for sign in signs):
            return kind
    return None


def _some(files: list[str]) -> str:
    more = f" and {len(files) - 5} more" if len(files) > 5 else ""
    return (", ".join(sorted(files)[:5]) or "nothing") + more
