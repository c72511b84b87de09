"""The generated reference pages are those of today's code."""

from __future__ import annotations

import pytest

from hedgerow import settings
from scripts import golden, inventory


@pytest.mark.parametrize("name", golden.PAGES)
def test_reference_page_is_what_the_code_says(name: str) -> None:
    path = inventory.TOP / golden.REFERENCE / name
    assert path.exists(), f"{name} is missing: run `make golden` and commit it"
    assert path.read_text(encoding="utf-8") == golden.PAGES[name](), (
        f"{name} is stale: run `make golden`, read the difference, commit it"
    )


def test_every_error_has_its_heading() -> None:
    headings = [line.removeprefix("## ") for line in golden.errors_page().splitlines() if line.startswith("## ")]
    assert set(headings) == {kind.key for kind in inventory.error_classes()}


def test_every_setting_has_its_row_and_a_sentence() -> None:
    page = golden.settings_page()
    tables = inventory.settings_tables()
    assert tables
    for table in tables:
        assert f"\n## {table.__name__}\n" in page
        for row in settings.rows(table):
            assert f"| `{row.name}` | `{row.env}` |" in page
            assert row.help, f"{table.__name__}.{row.name} has no help"
