"""Which names a token's scopes cover."""

from __future__ import annotations

import pytest

from registry.server.scopes import allows


@pytest.mark.parametrize(
    ("scope", "noun", "name", "expected"),
    [
        ("models:iris", "models", "iris", True),
        ("models:iris", "models", "iris2", False),
        ("models:iris", "models", "iri", False),
        ("models:iris", "models", "", False),
        ("models:iris", "images", "iris", False),
        ("models:iris", "model", "iris", False),
        ("models:team-a.*", "models", "team-a.x", True),
        ("models:team-a.*", "models", "team-a.", True),
        ("models:team-a.*", "models", "team-a", False),
        ("models:team-a.*", "models", "team-ab", False),
        ("models:team-a.*", "models", "team-a.x*", True),
        ("models:team-a.*", "models", "team-*", False),
        ("models:iris", "models", "iris*", False),
        ("models:*", "models", "anything", True),
        ("models:*", "images", "anything", False),
    ],
)
def test_a_scope_covers(scope: str, noun: str, name: str, expected: bool) -> None:
    assert allows([scope], noun, name) is expected
    assert allows(["endpoints:other", scope], noun, name) is expected
    assert not allows([], noun, name)
