"""Reads our own Markdown: links, headings, code blocks. Enough for the tests beside it, not a parser for the world."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from scripts.inventory import TOP

_FENCE = re.compile(r"^(?P<mark>```+|~~~+)(?P<language>\w*)[^\n]*\n(?P<text>.*?)^(?P=mark)[ \t]*$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^\]\[]*\]\((?P<target>[^)\s]+)\)")
_SPAN = re.compile(r"`([^`\n]+)`")
_GENERATED = TOP / "docs" / "reference"


@dataclass(frozen=True)
class Block:
    """A fenced block: ``where`` is FILE:LINE of its first line of text."""

    where: str
    language: str
    text: str


def pages() -> list[Path]:
    """Every Markdown file of the tree that people wrote, as git sees it, also those not yet committed."""
    argv = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", "*.md"]
    listed = subprocess.run(argv, cwd=TOP, capture_output=True, text=True, timeout=30, check=True).stdout
    found = [TOP / name for name in listed.split("\0") if name]
    return sorted(path for path in found if path.is_file() and path.parent != _GENERATED)


def blocks(path: Path) -> list[Block]:
    text = path.read_text(encoding="utf-8")
    return [
        Block(f"{path.relative_to(TOP)}:{text.count(chr(10), 0, found.start('text')) + 1}", found["language"], found["text"])
        for found in _FENCE.finditer(text)
    ]


def prose(path: Path) -> str:
    """The text without its fenced blocks."""
    return _FENCE.sub("", path.read_text(encoding="utf-8"))


def spans(path: Path) -> list[str]:
    """Code between single backticks, in the prose."""
    return _SPAN.findall(prose(path))


def links(path: Path) -> list[str]:
    """Targets of links in the prose."""
    return [found["target"] for found in _LINK.finditer(_SPAN.sub("", prose(path)))]


def anchors(path: Path) -> set[str]:
    """Fragments that GitHub and others make of headings."""
    headings = [line.lstrip("#").strip() for line in prose(path).splitlines() if line.startswith("#")]
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
