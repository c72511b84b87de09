"""What a handler does for every request, read from its code: a document that is derived cannot promise something else.

A handler that checks If-Match calls the one function that does; whoever calls it takes the header. Only the server's own
functions are followed.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import CodeType, FunctionType, ModuleType
from typing import TypeGuard

from registry.server.once import takes_key

_PACKAGE = "registry.server."


@dataclass(frozen=True)
class Promises:
    """``tagged``: answers have an ETag. ``matched``: If-Match is honoured. ``once``: so is Idempotency-Key."""

    tagged: bool
    matched: bool
    once: bool
    ranged: bool
    paged: bool


def promises_of(handler: Callable[..., object]) -> Promises:
    """What the code behind ``handler`` calls."""
    seen = names_used_by(handler)
    return Promises(
        tagged="answer_tagged" in seen or "send_blob" in seen,
        matched=bool(seen & {"check_match", "check_revision"}),
        once=takes_key(handler),
        ranged="send_blob" in seen,
        paged="page_arguments" in seen,
    )


def names_used_by(handler: Callable[..., object]) -> frozenset[str]:
    """Every name in the code of ``handler`` (below its decorators) and of our functions that it calls."""
    found: set[str] = set()
    waiting, known = [inspect.unwrap(handler)], set()
    while waiting:
        function = waiting.pop()
        if not isinstance(function, FunctionType) or function in known:
            continue
        known.add(function)
        names = set(_names(function.__code__))
        found |= names
        waiting += [inspect.unwrap(below) for below in _functions(function, names)]
    return frozenset(found)


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


def _functions(function: FunctionType, names: set[str]) -> Iterator[FunctionType]:
    """Our functions among ``names``: imported by name, or as ``module.function``."""
    for name in names:
        value = function.__globals__.get(name)
        if isinstance(value, ModuleType) and value.__name__.startswith(_PACKAGE):
            yield from (part for below in names if _is_ours(part := getattr(value, below, None)))
        elif _is_ours(value):
            yield value


def _is_ours(value: object) -> TypeGuard[FunctionType]:
    return isinstance(value, FunctionType) and value.__module__.startswith(_PACKAGE)
