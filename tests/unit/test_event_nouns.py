"""What kinds of events begin with: one list, the page and the code agree on it."""

from __future__ import annotations

import re
from pathlib import Path

from hedgerow.contracts.events import EVENT_NOUNS

TOP = Path(__file__).parents[2]


def test_the_page_names_every_noun() -> None:
    table = (TOP / "docs" / "events.md").read_text().split("## What there is")[1].split("## ")[0]
    named = re.findall(r"`([a-z][a-z-]*)\.[a-z*]", table)
    assert sorted(set(named)) == sorted(EVENT_NOUNS)


def test_the_code_tells_of_no_other() -> None:
    sources = "".join(file.read_text() for file in (TOP / "registry").rglob("*.py"))
    told = set(re.findall(r'\bkind=f?"([a-z][a-z-]*)\.[a-z{]', sources)) - {"image"}
    assert len(told) >= 7, "the code writes kinds in another way"
    assert told <= set(EVENT_NOUNS)
