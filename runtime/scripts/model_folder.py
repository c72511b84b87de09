"""A folder as an indented list, for the log of a script whose init() did not find its model."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator
from pathlib import Path

_log = logging.getLogger("azmlinfsrv")
_MOST_LINES = 200


def log_model_folder(folder: Path) -> None:
    """At most 200 lines."""
    if not folder.exists():
        _log.info("The model directory %s does not exist", folder)
        return
    _log.info("Model Directory Contents:")
    lines = tree_lines(folder)
    for line in itertools.islice(lines, _MOST_LINES):
        _log.info("%s", line)
    if next(lines, None) is not None:
        _log.info("Output Truncated. First %d lines shown.", _MOST_LINES)


def tree_lines(place: Path, depth: int = 0) -> Iterator[str]:
    """Names, folders with a slash, four spaces for each level. Links are named, not followed."""
    indent = " " * (4 * depth)
    if not place.is_dir() or (depth and place.is_symlink()):
        yield f"{indent}{place.name}"
        return
    yield f"{indent}{place.name}/"
    try:
        entries = sorted(place.iterdir())
    except OSError as problem:
        yield f"{indent}    ({problem.strerror})"
        return
    for entry in entries:
        yield from tree_lines(entry, depth + 1)
