"""YAML from strangers: a tree of text with line numbers, or one reason why not."""

from __future__ import annotations

import pytest

from registry.safe_yaml import MAX_CHARACTERS, MAX_DEPTH, MAX_NODES, Node, YamlRefused, read_yaml


def plain(node: Node) -> object:
    if isinstance(node.value, dict):
        return {key: plain(value) for key, value in node.value.items()}
    return [plain(item) for item in node.value] if isinstance(node.value, list) else node.value


def test_scalars_stay_the_text_that_was_written() -> None:
    text = "python: 3.10\nyes: no\nday: 2026-11-21\nbig: 1e400\nnothing: ~\nalso: null\nquoted: 'null'\nempty:\nlist: [1, a b]\n"
    assert plain(read_yaml(text)) == {
        "python": "3.10",
        "yes": "no",
        "day": "2026-11-21",
        "big": "1e400",
        "nothing": None,
        "also": None,
        "quoted": "null",
        "empty": None,
        "list": ["1", "a b"],
    }


@pytest.mark.parametrize("text", ["", "\n\n", "# a comment only\n", "---\n...\n"])
def test_an_empty_document_is_nothing(text: str) -> None:
    assert read_yaml(text).value is None


def test_each_value_knows_its_line() -> None:
    root = read_yaml("# first\na: 1\nb:\n  - x\n  - y: z\n")
    assert isinstance(root.value, dict)
    items = root.value["b"].value
    assert isinstance(items, list)
    assert [root.value["a"].line, *(item.line for item in items)] == [2, 4, 5]


BOMB = "a: &a [x, x]\n" + "".join(f"{key}: &{key} [*{last}, *{last}]\n" for last, key in zip("abcdefgh", "bcdefghi", strict=True))


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        (BOMB, 1, "anchors and aliases"),
        ("a: 1\nb: *a\n", 2, "anchors and aliases|undefined alias"),
        ("a: 1\nb:\n  c: 1\n  c: 2\n", 4, "the key 'c' is given twice"),
        ("a:\n\tb: 1\n", 2, "indented with a tab"),
        ("x: 1\na: !!python/object/apply:os.system [ls]\n", 2, "the tag .*os.system is not taken"),
        ("a: !!binary aGk=\n", 1, "the tag"),
        ("<<: {a: b}\n", 1, "merge keys"),
        ("? [a, b]\n: c\n", 1, "a key must be plain text"),
        ("a: 1\n---\nb: 2\n", 2, "a second document"),
        ("a: b: c\n", 1, "mapping values are not allowed"),
        ("a: [1, 2\n", 2, "did not find|expected"),
        ("ok: 1\nx: \x07\n", 2, "the character 7 is not allowed"),
        ("a: \ud800\n", 1, "surrogate|not allowed"),
        ("[" * (MAX_DEPTH + 1), 1, f"more than {MAX_DEPTH} deep"),
        ("[" * 400_000, 1, f"more than {MAX_DEPTH} deep"),
        ("- a\n" * (MAX_NODES + 1), MAX_NODES, f"more than {MAX_NODES} values"),
        ("a" * (MAX_CHARACTERS + 1), 1, "more than"),
        ("%YAML 9.9\n---\na: 1\n", 1, "incompatible|version"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_is_refused_is_refused_with_its_line(text: str, line: int, words: str) -> None:
    with pytest.raises(YamlRefused, match=words) as refused:
        read_yaml(text)
    assert refused.value.line == line


def test_a_literal_block_may_hold_tabs() -> None:
    assert plain(read_yaml("a: |\n  x\n  \ty\n")) == {"a": "x\n\ty\n"}
