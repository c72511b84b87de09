"""Numbers in telemetry, as Prometheus gets them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.server.numeric_leaves import MAX_LEAVES, numeric_leaves


@pytest.mark.parametrize(
    ("body", "leaves"),
    [
        ('{"a": 1, "b": {"c": [2.5, "x", null, true]}}', [("a", 1.0), ("b.c.0", 2.5), ("b.c.3", 1.0)]),
        ("7", [("value", 7.0)]),
        ('"text"', []),
        ("not json", []),
        ("", []),
        ("[" * 10_000 + "]" * 10_000, []),
        ('{"a.b": 1, "a": {"b": 2}}', [("a.b", 1.0)]),
        (f'{{"big": 1{"0" * 400}}}', []),
    ],
)
def test_leaves(body: str, leaves: list[tuple[str, float]]) -> None:
    assert numeric_leaves(body) == leaves


def test_there_is_an_end_to_them() -> None:
    assert len(numeric_leaves(str(list(range(1000))))) == MAX_LEAVES


def test_no_depth_breaks_the_page_of_all_others() -> None:
    """At one depth reading still ends well and the walk does not; which, depends on who calls."""
    for depth in range(700, 1000):
        assert numeric_leaves("[" * depth + "1" + "]" * depth) in ([], [(".".join("0" * depth), 1.0)])


@given(st.text())
def test_any_text_will_do(body: str) -> None:
    assert len(numeric_leaves(body)) <= MAX_LEAVES
