"""Budgets with teeth. The aim is lower (functions 40 lines, files 400); here is where it stops."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

from scripts.inventory import TOP

LONGEST_FUNCTION = 60
LONGEST_FILE = 450
MOCKS_PER_1000_TEST_LINES = 2
_MOCK = re.compile(r"\b(?:Mock|MagicMock|AsyncMock)\(|\bpatch(?:\.object)?\(|monkeypatch\.setattr")
# Spelled in two halves so that this file does not find itself.
_UNFINISHED = re.compile(r"\bTO" r"DO\b|\bFIX" r"ME\b|\bXX" r"X\b|NotImplemented" r"Error")
_SUPPRESSION = re.compile(
    r"#\s*(?:noqa(?::\s*[A-Z0-9, ]+)?|type:\s*ignore(?:\[[\w, -]+\])?|pragma: no cover|mypy: ignore-errors)(?P<rest>[^\n]*)"
)


def tracked(pattern: str = "*.py") -> list[Path]:
    """Files of the tree as git sees them, also those not yet committed."""
    argv = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", pattern]
    listed = subprocess.run(argv, cwd=TOP, capture_output=True, text=True, timeout=30, check=True).stdout
    return sorted(path for name in listed.split("\0") if name and (path := TOP / name).is_file())


def _written_by_hand(path: Path) -> bool:
    """Alembic writes the steps of a migration, in the order of the tables."""
    return "migrations/versions" not in path.as_posix()


def _python_files(*, tests: bool) -> list[Path]:
    return [path for path in tracked() if (path.relative_to(TOP).parts[0] in ("tests", "loadtests")) == tests]


def _functions(path: Path) -> Iterator[tuple[str, int]]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield f"{path.relative_to(TOP)}:{node.lineno} {node.name}", (node.end_lineno or node.lineno) - node.lineno + 1


def test_functions_stay_short() -> None:
    long = [
        f"{size} lines: {where}"
        for path in filter(_written_by_hand, _python_files(tests=False))
        for where, size in _functions(path)
        if size > LONGEST_FUNCTION
    ]
    assert not long, "\n".join(long)


def test_files_stay_short() -> None:
    sizes = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in filter(_written_by_hand, tracked())}
    long = [f"{size} lines: {path.relative_to(TOP)}" for path, size in sizes.items() if size > LONGEST_FILE]
    assert not long, "\n".join(long)


def test_nothing_is_left_unfinished() -> None:
    found = _lines_matching(_UNFINISHED, _python_files(tests=False))
    assert not found, "\n".join(found)


def test_every_suppressed_rule_has_its_reason() -> None:
    bare = [
        f"{path.relative_to(TOP)}:{number} {line.strip()}"
        for path in tracked()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if (found := _SUPPRESSION.search(line)) and len(re.sub(r"[^A-Za-z]", "", found["rest"])) < 8 and '"' not in found["rest"]
    ]
    assert not bare, "\n".join(bare)


def test_mocks_stay_rare() -> None:
    files = [path for path in _python_files(tests=True) if path != Path(__file__)]
    lines = sum(len(path.read_text(encoding="utf-8").splitlines()) for path in files)
    found = _lines_matching(_MOCK, files)
    assert len(found) <= lines * MOCKS_PER_1000_TEST_LINES / 1000, "\n".join(found)


def test_unit_tests_have_no_mocks() -> None:
    found = _lines_matching(_MOCK, list((TOP / "tests" / "unit").glob("*.py")))
    assert not found, "\n".join(found)


def _lines_matching(pattern: re.Pattern[str], files: list[Path]) -> list[str]:
    return [
        f"{path.relative_to(TOP)}:{number} {line.strip()}"
        for path in files
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if pattern.search(line)
    ]
