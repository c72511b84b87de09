"""What model versions are found by: words and label values, and that the migration's frozen copy agrees."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.store import model_words, schema
from registry.store.model_words import LONGEST_WORD, MOST_WORDS, Word, lookup_of, parse_words, words_of


def migration() -> ModuleType:
    path = schema.MIGRATIONS / "versions" / "records" / "0002_registry.py"
    spec = importlib.util.spec_from_file_location(Path(path).stem, path)
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def test_words_come_from_everything_that_people_type() -> None:
    found = words_of(
        name="pump-model_v2", framework="ONNX", tags={"Standort": "Köln/Süd"}, description="Isolation forest, 9 inputs."
    )
    assert found == ["pump", "model", "v2", "onnx", "standort", "köln", "süd", "isolation", "forest", "9", "inputs"]


def test_a_long_description_never_hides_the_name() -> None:
    found = words_of(name="zzz", framework="onnx", tags={}, description=" ".join(f"word{n}" for n in range(1000)))
    assert len(found) == MOST_WORDS
    assert found[0] == "zzz"
    assert "word197" in found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("  ", []),
        ("*", []),
        ("!?", []),
        ("Shuttle", [Word("shuttle")]),
        ("shuttle anom*", [Word("shuttle"), Word("anom", prefix=True)]),
        ("pump-model*", [Word("pump"), Word("model", prefix=True)]),
        ("a*b", [Word("a"), Word("b")]),
        ("STRASSE ß", [Word("strasse"), Word("ss")]),
        ("x" * 100, [Word("x" * LONGEST_WORD)]),
    ],
)
def test_what_is_searched_for(text: str, expected: list[Word]) -> None:
    assert parse_words(text) == expected


@given(st.text(max_size=300))
def test_every_text_is_found_by_its_own_words(text: str) -> None:
    stored = words_of(name="n", framework="", tags={}, description=text)
    assert all(word.text in stored for word in parse_words(text)[: MOST_WORDS // 2])


@given(st.text(max_size=150), st.dictionaries(st.text(min_size=1, max_size=20), st.text(max_size=120), max_size=5))
def test_the_migration_writes_the_same(text: str, tags: dict[str, str]) -> None:
    frozen = migration()
    manifest = {"name": "some-model", "framework": "onnx", "description": text, "tags": tags}
    assert frozen._words(manifest) == words_of(name="some-model", framework="onnx", tags=tags, description=text)
    assert frozen._words({"name": "bare"}) == words_of(name="bare", framework="", tags={}, description="")
    assert [frozen._lookup(value) for value in tags.values()] == [lookup_of(value) for value in tags.values()]


def test_long_values_are_looked_up_by_digest() -> None:
    assert model_words.lookup_of("x" * 100) == "x" * 100
    assert model_words.lookup_of("x" * 101).startswith("sha256:")
