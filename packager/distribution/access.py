"""What talking to registries needs from outside: whom we may call, who we are, what we trust, how patient we are."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hedgerow.backoff import Backoff
from hedgerow.egress import EgressPolicy, Resolve, resolve, tls_context
from packager.distribution.logins import Login

if TYPE_CHECKING:
    import ssl


def _machine_trust() -> ssl.SSLContext:
    return tls_context(None)


def _pause(seconds: float) -> None:
    threading.Event().wait(seconds)


@dataclass(frozen=True)
class RemoteAccess:
    """``logins`` by host with port. Times in seconds; ``attempts``: how often in a row one thing may fail."""

    policy: EgressPolicy = field(default_factory=EgressPolicy)
    logins: Mapping[str, Login] = field(default_factory=dict)
    tls: Callable[[], ssl.SSLContext] = _machine_trust
    attempts: int = 5
    backoff: Backoff = field(default_factory=lambda: Backoff(first_s=0.5, cap_s=15.0))
    connect_timeout_s: float = 10.0
    answer_timeout_s: float = 60.0
    look_up: Resolve = resolve
    pause: Callable[[float], None] = _pause
    chance: Callable[[], float] = random.random
