"""What a model version is found by: its rows in ``model_labels`` and ``model_words``.

Migration ``records_0002`` holds a frozen copy of these rules for the versions that were there before it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from hedgerow.contracts.model import ModelManifest
from registry.store.prepared import Prepared
from registry.store.tables import model_labels, model_words
from registry.store.time_text import to_text

LONGEST_WORD = 64
MOST_WORDS = 200
# An index entry must stay small.
_LONGEST_LOOKUP = 100
_WORD = re.compile(r"[^\W_]+")
_INSERT_LABELS = Prepared(lambda _: model_labels.insert(), columns=("name", "version", "kind", "key", "lookup", "created_at"))
_INSERT_WORDS = Prepared(lambda _: model_words.insert(), columns=("name", "version", "word", "created_at"))

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Word:
    """One word of a search; with ``prefix`` every word that begins with it."""

    text: str
    prefix: bool = False


def lookup_of(value: str) -> str:
    """What stands for a label's value in the index: itself, or its digest when it is long."""
    return value if len(value) <= _LONGEST_LOOKUP else "sha256:" + hashlib.sha256(value.encode()).hexdigest()


def words_of(*, name: str, framework: str, tags: Mapping[str, str], description: str) -> list[str]:
    """Its words, lower-case; those of a long description that come after the first MOST_WORDS are not searched by."""
    texts = [name, framework, *tags.keys(), *tags.values(), description]
    found = dict.fromkeys(word[:LONGEST_WORD] for text in texts for word in _WORD.findall(text.casefold()))
    return list(found)[:MOST_WORDS]


def parse_words(text: str) -> list[Word]:
    """``shuttle anom*``: what is asked for, word by word, as the index has it; ``iris-v2`` means both ``iris`` and ``v2``."""
    return [word for part in text.split() for word in _words_in(part.casefold())]


def insert(connection: Connection, manifest: ModelManifest) -> None:
    """Write the labels and words of a version that has none."""
    _INSERT_LABELS.run_many(connection, label_rows(manifest))
    _INSERT_WORDS.run_many(connection, word_rows(manifest))


def label_rows(manifest: ModelManifest) -> Rows:
    """Of ``model_labels``."""
    key = _key(manifest)
    return [
        {**key, "kind": kind, "key": label, "lookup": lookup_of(value)}
        for kind, values in (("tag", manifest.tags), ("property", manifest.properties))
        for label, value in values.items()
    ]


def word_rows(manifest: ModelManifest) -> Rows:
    """Of ``model_words``."""
    key = _key(manifest)
    words = words_of(name=manifest.name, framework=manifest.framework, tags=manifest.tags, description=manifest.description)
    return [{**key, "word": word} for word in words]


def delete(connection: Connection, name: str, version: int) -> None:
    """Take the labels and words of a version away: nothing finds it any more."""
    for table in (model_labels, model_words):
        connection.execute(table.delete().where(table.c.name == name, table.c.version == version))


def _key(manifest: ModelManifest) -> dict[str, Any]:
    return {"name": manifest.name, "version": manifest.version, "created_at": to_text(manifest.created_at)}


def _words_in(part: str) -> Iterator[Word]:
    found = _WORD.findall(part)
    for number, word in enumerate(found, 1):
        # A word of the greatest length stands for all that begin with it: they were cut when they were written.
        yield Word(word[:LONGEST_WORD], prefix=part.endswith("*") and number == len(found) and len(word) < LONGEST_WORD)
