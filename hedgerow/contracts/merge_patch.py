"""JSON merge patches (RFC 7386): objects key by key, ``null`` takes a key away, everything else replaces. Pure.

What was merged holds no ``null`` but inside lists, so every two such objects have a patch that makes one of the other.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec


def merge_patch(below: Mapping[str, object], patch: Mapping[str, object]) -> dict[str, object]:
    """``below`` with ``patch`` applied; neither is changed."""
    found = dict(below)
    for key, value in patch.items():
        if value is None:
            found.pop(key, None)
        elif isinstance(value, dict):
            under = found.get(key)
            found[key] = merge_patch(under if isinstance(under, dict) else {}, value)
        else:
            found[key] = value
    return found


def patch_between(before: Mapping[str, object], after: Mapping[str, object]) -> dict[str, object]:
    """The patch that makes ``after`` of ``before``; both hold no ``null`` but inside lists. Empty when they are the same."""
    patch: dict[str, object] = {key: None for key in before if key not in after}
    for key, value in after.items():
        old = before.get(key)
        if isinstance(value, dict) and isinstance(old, dict):
            if inner := patch_between(old, value):
                patch[key] = inner
        elif key not in before or json_text(old) != json_text(value):
            # As text: in Python 1, 1.0 and True are equal.
            patch[key] = value
    return patch


def json_text(value: object) -> bytes:
    """The one way in which a value is written: equal values give equal bytes."""
    return msgspec.json.encode(value, order="sorted")
