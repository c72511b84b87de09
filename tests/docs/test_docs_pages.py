"""What the pages claim: links lead somewhere, commands and options exist, examples are what they say they are."""

from __future__ import annotations

import ast
import json
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from hedgerow import settings
from hedgerow.cli.main import cli
from hedgerow.contracts import names
from scripts import inventory
from scripts.inventory import TOP
from tests.docs import markdown

PAGES = markdown.pages()
_VARIABLE = re.compile(r"\bHEDGEROW_[A-Z0-9_]+\b")
_MAKE = re.compile(r"\bmake ([a-z][a-z-]*)\b")


def _page_id(path: Path) -> str:
    return str(path.relative_to(TOP))


def _text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


@pytest.mark.parametrize("path", PAGES, ids=_page_id)
def test_links_lead_somewhere(path: Path) -> None:
    broken = []
    for target in markdown.links(path):
        if re.match(r"[a-z]+:", target):
            continue
        place, _, anchor = target.partition("#")
        file = (path.parent / place).resolve() if place else path
        if not file.exists() or (anchor and file.suffix == ".md" and anchor not in markdown.anchors(file)):
            broken.append(target)
    assert not broken


def _command_lines(path: Path) -> Iterator[tuple[str, str]]:
    """``hedgerow …`` as a page shows it in a shell block, with where it stands."""
    for block in markdown.blocks(path):
        if block.language in {"console", "shell", "bash", "sh", ""}:
            for line in block.text.replace("\\\n", " ").splitlines():
                words = line.strip().removeprefix("$ ").removeprefix("sudo ")
                if words.startswith("hedgerow ") and not re.match(r"hedgerow (is|on) ", words):
                    yield block.where, words


def _words(line: str) -> list[str]:
    """The line's words up to a comment, a pipe or a redirection."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    words = []
    for word in lexer:
        if word[0] in ";&|<>()" or word.startswith("#"):
            break
        words.append(word)
    return words[1:]


def _complaint(arguments: list[str], *, whole: bool) -> str | None:
    """What click says of these words; files that only the example has, and (for a fragment) missing arguments, are fine."""
    command: click.Command = cli
    name: str | None = "hedgerow"
    context: click.Context | None = None
    while True:
        try:
            context = command.make_context(name, list(arguments), parent=context)
        except click.exceptions.Exit:
            return None
        except click.MissingParameter as problem:
            return problem.format_message() if whole else None
        except (click.NoSuchOption, click.BadOptionUsage, click.BadArgumentUsage) as problem:
            return problem.format_message()
        except click.BadParameter:
            return None
        except click.UsageError as problem:
            return problem.format_message() if whole or not isinstance(problem, click.exceptions.NoArgsIsHelpError) else None
        if not isinstance(command, click.Group):
            return None
        rest = [*context._protected_args, *context.args]
        try:
            name, below, arguments = command.resolve_command(context, rest)
        except click.UsageError as problem:
            return problem.format_message()
        assert below is not None
        command = below


@pytest.mark.parametrize("path", PAGES, ids=_page_id)
def test_commands_on_the_page_exist(path: Path) -> None:
    wrong = [
        f"{where} {line}: {problem}" for where, line in _command_lines(path) if (problem := _complaint(_words(line), whole=True))
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("path", PAGES, ids=_page_id)
def test_commands_in_the_text_exist(path: Path) -> None:
    """`hedgerow device show` in a sentence: the command is there; its arguments may be left out."""
    shown = [span for span in markdown.spans(path) if span.startswith("hedgerow ") and not set(span) & set("…|[(")]
    wrong = [f"`{span}`: {problem}" for span in shown if (problem := _complaint(_words(span), whole=False))]
    assert not wrong, "\n".join(wrong)


def test_the_checks_above_can_fail() -> None:
    assert _complaint(["model", "lost"], whole=False)
    assert _complaint(["model", "list", "--no-such-option"], whole=True)
    assert _complaint(["nonsense"], whole=False)
    assert not _complaint(["--help"], whole=True)


@pytest.mark.parametrize("path", PAGES, ids=_page_id)
def test_environment_variables_on_the_page_exist(path: Path) -> None:
    known = {row.env for table in inventory.settings_tables() for row in settings.rows(table)}
    known |= {value for name, value in vars(names).items() if name.startswith("ENV_")} | {"HEDGEROW_NO_INSTALL"}
    assert set(_VARIABLE.findall(_text_of(path))) <= known


@pytest.mark.parametrize("path", PAGES, ids=_page_id)
def test_make_targets_on_the_page_exist(path: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", _text_of(TOP / "Makefile"), re.MULTILINE))
    code = [*markdown.spans(path), *(block.text for block in markdown.blocks(path) if block.language != "text")]
    assert {name for text in code for name in _MAKE.findall(text)} <= targets


def test_contributing_names_every_make_target() -> None:
    targets = re.findall(r"^([a-z-]+):.*## ", _text_of(TOP / "Makefile"), re.MULTILINE)
    page = _text_of(TOP / "CONTRIBUTING.md")
    assert not [name for name in targets if f"make {name}" not in page]


def test_readme_begins_with_the_two_commands() -> None:
    first = markdown.blocks(TOP / "README.md")[0]
    assert [line.split("#")[0].strip() for line in first.text.splitlines()] == ["make quickstart", "make test"]


@pytest.mark.parametrize("path", PAGES, ids=_page_id)
def test_examples_are_well_formed(path: Path) -> None:
    for block in markdown.blocks(path):
        try:
            _parse(block)
        except (SyntaxError, ValueError) as problem:
            pytest.fail(f"{block.where} ({block.language}): {problem}")


def _parse(block: markdown.Block) -> None:
    match block.language:
        case "python":
            ast.parse(block.text)
        case "toml":
            tomllib.loads(block.text)
        case "json":
            json.loads(block.text)
        case _:
            return


def test_tests_readme_names_the_fixtures_that_there_are() -> None:
    rows = [
        line.split("|")[1]
        for line in _text_of(TOP / "tests" / "README.md").splitlines()
        if line.startswith("| `") and "/`" not in line
    ]
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    sources = "".join(_text_of(path) for path in (TOP / "tests" / "fixtures").glob("*.py"))
    assert named == set(re.findall(r"^@pytest\.fixture.*\ndef (\w+)\(", sources, re.MULTILINE))
