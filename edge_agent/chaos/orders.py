"""What the command and the running agent say to each other over the agent's chaos socket. Local, so not versioned."""

from __future__ import annotations

from typing import Literal

import msgspec

LONGEST_S = 86_400.0


class Order(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``look`` only asks; ``offline`` keeps the link down for ``seconds`` from now on."""

    do: Literal["look", "offline"]
    seconds: float = 0.0


class ModuleFacts(msgspec.Struct, frozen=True, kw_only=True):
    """One module as the agent sees it now."""

    state: str
    pid: int | None
    restarts: int


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """The agent's answer to every order: how things are. ``in_session``: the hub hears it and answers."""

    pid: int
    in_session: bool
    queued: int
    dropped: int
    modules: dict[str, ModuleFacts]
