"""What looks like a secret among files on their way into a workspace: refused in a scoring source, told of in a model."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from hedgerow.contracts.secret_files import (
    SEARCHED_BYTES_MAX,
    SecretInSource,
    is_left_out,
    secret_by_content,
    secret_by_name,
)
from hedgerow.sdk.files import LocalFile, collect, read_again


def collect_source(folder: Path, allowed: Collection[str]) -> list[LocalFile]:
    """The files of a scoring source, without what an image leaves out; nothing is sent yet.

    Raises SecretInSource for a file that is not in ``allowed``, and what ``files.collect`` raises.
    """
    found = [file for file in collect([folder]) if not is_left_out(file.entry.path)]
    for file, what in secrets_among(found):
        if file.entry.path not in allowed:
            raise SecretInSource(file.entry.path, what)
    return found


def secrets_among(found: Iterable[LocalFile]) -> Iterator[tuple[LocalFile, str]]:
    """Each file that looks like a secret, by name or (small ones) content, and what speaks against it. Raises FileChanged."""
    for file in found:
        path = file.entry.path
        what = secret_by_name(path, _real(file))
        if what is None and file.entry.size_bytes <= SEARCHED_BYTES_MAX:
            what = secret_by_content(b"".join(read_again(file)))
        if what is not None:
            yield file, what


def _real(file: LocalFile) -> str:
    """What the file is inside its folder when links are followed."""
    source = file.source.absolute()
    root = source.parents[file.entry.path.count("/")].resolve()
    real = source.resolve()
    return real.relative_to(root).as_posix() if real.is_relative_to(root) else file.entry.path
