"""Finds the workspace to talk to. Never switched silently: the order is fixed and the first that is set wins.

1. ``HEDGEROW_URL`` (with ``HEDGEROW_TOKEN``)   2. ``HEDGEROW_WORKSPACE`` (a folder)   3. the context in use
(``hedgerow workspace use``)   4. ``./hedgerow-workspace``
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hedgerow.contracts.names import ENV_TOKEN, ENV_URL, ENV_WORKSPACE
from hedgerow.sdk.client import Client
from hedgerow.sdk.contexts import context_in_use
from hedgerow.sdk.local_server import join_or_start
from hedgerow.sdk.transport import Transport

DEFAULT_FOLDER = "hedgerow-workspace"


@dataclass(frozen=True)
class Target:
    """Where a workspace is: a URL with a token, or a folder of this machine."""

    url: str | None = None
    token: str | None = None
    folder: Path | None = None
    chosen_by: str = ""


def choose_target(where: str | Path | None, token: str | None, environment: Mapping[str, str], current: Path) -> Target:
    """Apply the order above; ``where`` (an argument or option) comes before all of it. Pure but for the contexts file."""
    if where is not None:
        return _target(str(where), token or environment.get(ENV_TOKEN), "the given workspace")
    if url := environment.get(ENV_URL):
        return _target(url, token or environment.get(ENV_TOKEN), ENV_URL)
    if folder := environment.get(ENV_WORKSPACE):
        return _target(folder, token, ENV_WORKSPACE)
    if context := context_in_use(environment):
        return _target(context.where, token or context.token, f"the context {context.name}")
    return Target(folder=current / DEFAULT_FOLDER, chosen_by="the default")


def connect(where: str | Path | None = None, *, token: str | None = None, start: bool = True) -> Client:
    """A client for a workspace: a URL, a folder, or (None) the one in use.

    Given a folder, joins the server that runs on it or, with ``start``, starts one for as long as this client is open
    (needs the extra ``[server]``). Raises ServerUnreachable, ServerDidNotStart, MissingExtra.
    """
    target = choose_target(where, token, os.environ, Path.cwd())  # noqa: TID251 - a user's script has no composition root of ours
    if target.folder is None:
        return Client(Transport(target.url or "", target.token))
    transport, server = join_or_start(target.folder, target.token, start=start)
    return Client(transport, server)


def _target(where: str, token: str | None, chosen_by: str) -> Target:
    if where.startswith(("http://", "https://")):
        return Target(url=where, token=token, chosen_by=chosen_by)
    return Target(folder=Path(where).absolute(), token=token, chosen_by=chosen_by)
