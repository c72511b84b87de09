"""What talking to registries needs from outside: whom we may call, who we are, what we trust, how patient we are."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hedgerow.backoff import Backoff
from hedgerow.contracts.remote_image import RemoteImage
from hedgerow.egress import EgressPolicy, Resolve, resolve, tls_context
from packager.distribution.login import Login

if TYPE_CHECKING:
    import ssl


def _machine_trust() -> ssl.SSLContext:
    return tls_context(None)


def _pause(seconds: float) -> None:
    threading.Event().wait(seconds)


def _nobody(_image: RemoteImage) -> Login | None:
    return None


@dataclass(frozen=True)
class RemoteAccess:
    """``logins`` by host with port; ``look_up_login`` is asked for the others, when a registry wants to know who asks.

    Times in seconds; ``attempts``: how often in a row one thing may fail.
    """

    policy: EgressPolicy = field(default_factory=EgressPolicy)
    logins: Mapping[str, Login] = field(default_factory=dict)
    look_up_login: Callable[[RemoteImage], Login | None] = _nobody
    tls: Callable[[], ssl.SSLContext] = _machine_trust
    attempts: int = 5
    backoff: Backoff = field(default_factory=lambda: Backoff(first_s=0.5, cap_s=15.0))
    connect_timeout_s: float = 10.0
    answer_timeout_s: float = 60.0
    look_up: Resolve = resolve
    pause: Callable[[float], None] = _pause
    chance: Callable[[], float] = random.random

    def login_for(self, image: RemoteImage) -> Login | None:
        """Raises what ``look_up_login`` raises."""
        return self.logins.get(image.host) or self.look_up_login(image)
