"""The files of a source folder as a mapping from path to content, each read when it is asked for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from packager.errors import UnreadableFile
from packager.source_files import FoundFile


class SourceTexts(Mapping[str, bytes]):
    """``files`` by their path. Reading one raises UnreadableFile."""

    def __init__(self, files: Iterable[FoundFile]) -> None:
        self._files = {file.path: file for file in files}

    def __getitem__(self, path: str) -> bytes:
        file = self._files[path]
        try:
            return file.source.read_bytes()
        except OSError as problem:
            raise UnreadableFile(path=file.source, problem=problem.strerror) from problem

    def __contains__(self, path: object) -> bool:
        return path in self._files

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)
