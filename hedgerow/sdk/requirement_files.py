"""A requirements.txt on this machine's disk: its lines, with those of the files that it names by ``-r`` in their place.

A conda file can name such files too, below ``pip:``; its text stays YAML, so that lines keep their meaning and their comments.

Only files are followed here; what the lines mean is checked where the environment is made.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from hedgerow.sdk.errors import RequirementsUnreadable

MAX_BYTES = 1 << 20
_MOST_FILES = 100
# `-r FILE`, `-rFILE`, `--requirement FILE`, `--requirement=FILE`, and a comment behind it.
_NESTED = re.compile(r"\s*(?:-r\s*|--requirement(?:\s*=\s*|\s+))(?P<file>\S.*?)(?:\s+#.*)?\s*")
# An entry of a list in YAML, plain or in quotes.
_ENTRY = re.compile(r"""(?P<dash>\s*-\s+)(?P<quote>["']?)(?P<text>-.*?)(?P=quote)\s*(?:\s#.*)?""", re.S)


def read_lines(path: Path) -> list[str]:
    """Every line of ``path`` and of what it names. Raises RequirementsUnreadable, OSError (a missing file)."""
    lines: list[str] = []
    _read(path, (), lines, set())
    return lines


def read_conda_text(path: Path) -> str:
    """The text of a conda file, with the lines of what it names by ``- -r FILE`` in their place.

    Raises RequirementsUnreadable, OSError (a missing file).
    """
    return "".join(_conda_line(path, line) for line in read_text(path).splitlines(keepends=True))


def _conda_line(path: Path, line: str) -> str:
    entry = _ENTRY.fullmatch(line)
    nested = _NESTED.fullmatch(entry["text"]) if entry else None
    if entry is None or nested is None or "://" in nested["file"]:
        return line
    wanted = path.parent / nested["file"].strip("'\"")
    # One entry is one line, and a line of the file may go on behind a backslash.
    joined = re.sub(r"\\\n", " ", "\n".join(read_lines(wanted)))
    kept = [text for found in joined.splitlines() if (text := re.sub(r"(^|\s)#.*$", "", found).strip())]
    # A text in JSON is one in YAML.
    return "".join(f"{entry['dash']}{json.dumps(text)}\n" for text in kept)


def read_text(path: Path) -> str:
    """The text of a small UTF-8 file. Raises RequirementsUnreadable, OSError."""
    with path.open("rb") as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise RequirementsUnreadable(path=path, problem=f"it holds more than {MAX_BYTES >> 20} MiB")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        raise RequirementsUnreadable(path=path, problem=f"it is not UTF-8 text (byte {problem.start})") from None


def _read(path: Path, above: tuple[Path, ...], lines: list[str], seen: set[Path]) -> None:
    here = path.resolve()
    if here in above:
        raise RequirementsUnreadable(path=path, problem="it names itself, directly or through another file")
    seen.add(here)
    if len(seen) > _MOST_FILES or len(above) > _MOST_FILES:
        raise RequirementsUnreadable(path=path, problem=f"more than {_MOST_FILES} files name each other")
    for line in read_text(path).splitlines():
        nested = _NESTED.fullmatch(line)
        if nested is None:
            lines.append(line)
        elif "://" in nested["file"]:
            raise RequirementsUnreadable(path=path, problem=f"it names {nested['file']}, which is no file on this disk")
        else:
            _read(path.parent / nested["file"].strip("'\""), (*above, here), lines, seen)
