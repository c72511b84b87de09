"""Contexts: named workspaces in one small file of this user, chosen with ``hedgerow workspace use``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

from hedgerow.atomic_write import atomic_write
from hedgerow.contracts.document import decode


class Context(msgspec.Struct, frozen=True, kw_only=True):
    """``where`` is a URL or a folder."""

    name: str
    where: str
    token: str | None = None


class ContextsFile(msgspec.Struct, frozen=True, kw_only=True):
    """``contexts.json``, mode 0600: it may hold tokens."""

    in_use: str | None = None
    contexts: list[Context] = []


def contexts_path(environment: Mapping[str, str]) -> Path | None:
    """The file's place, or None for a user without a home folder (who then simply has no contexts)."""
    if config := environment.get("XDG_CONFIG_HOME"):
        return Path(config, "hedgerow", "contexts.json")
    if home := environment.get("HOME"):
        return Path(home, ".config", "hedgerow", "contexts.json")
    return None


def load_contexts(environment: Mapping[str, str]) -> ContextsFile:
    path = contexts_path(environment)
    try:
        return decode(path.read_bytes(), ContextsFile) if path else ContextsFile()
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return ContextsFile()


def save_contexts(contexts: ContextsFile, environment: Mapping[str, str]) -> None:
    """Raises OSError where there is no home to keep it in."""
    path = contexts_path(environment)
    if path is None:
        raise FileNotFoundError("there is no home folder to keep contexts in; use HEDGEROW_WORKSPACE instead")
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    atomic_write(path, msgspec.json.format(msgspec.json.encode(contexts)), mode=0o600)


def context_in_use(environment: Mapping[str, str]) -> Context | None:
    contexts = load_contexts(environment)
    return next((context for context in contexts.contexts if context.name == contexts.in_use), None)
