"""Every error speaks for itself: its own key, what happened, what to do."""

from __future__ import annotations

import re
import string

import pytest

from hedgerow.errors import Bug, HedgerowError
from scripts import inventory

KEY = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
ERRORS = inventory.error_classes()


def _name(kind: type[HedgerowError]) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


@pytest.mark.parametrize("kind", ERRORS, ids=_name)
def test_error_has_its_own_key_message_and_remedy(kind: type[HedgerowError]) -> None:
    lacking = [name for name in ("key", "message", "remedy") if name not in vars(kind)]
    assert not lacking, f"{_name(kind)} takes {', '.join(lacking)} from its family"
    assert KEY.fullmatch(kind.key), kind.key


@pytest.mark.parametrize("kind", ERRORS, ids=_name)
def test_error_says_whose_fault_it_is(kind: type[HedgerowError]) -> None:
    assert issubclass(kind, (*inventory.FAMILIES, Bug)) or _name(kind) in inventory.RELAYS


class _AnyValue:
    """Takes every format and attribute, so that any template can be filled."""

    def __format__(self, spec: str) -> str:
        return "VALUE"

    def __getattr__(self, name: str) -> _AnyValue:
        return self

    def __repr__(self) -> str:
        return "VALUE"


@pytest.mark.parametrize("kind", ERRORS, ids=_name)
def test_error_has_sentences_that_can_be_filled(kind: type[HedgerowError]) -> None:
    for text in (kind.message, kind.remedy):
        fields = {re.split(r"[.\[]", name)[0] for _, name, _, _ in string.Formatter().parse(text) if name is not None}
        assert "" not in fields, f"{text!r} has a field without a name"
        assert text.format(**dict.fromkeys(fields, _AnyValue())).strip()


def test_keys_are_unique() -> None:
    by_key: dict[str, list[str]] = {}
    for kind in ERRORS:
        by_key.setdefault(kind.key, []).append(_name(kind))
    assert not {key: names for key, names in by_key.items() if len(names) > 1}
