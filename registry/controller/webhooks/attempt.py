"""One attempt: the claimed event as a signed request, through the egress policy, and what the receiver made of it."""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from hedgerow import __version__
from hedgerow.clock import Clock
from hedgerow.contracts.document import encode
from hedgerow.contracts.webhook_signature import HEADER_DELIVERY, HEADER_EVENT, HEADER_SIGNATURE, sign
from hedgerow.egress import EgressPolicy, Resolve, check_url, connect, resolve, tls_context
from hedgerow.errors import HedgerowError
from registry.controller.webhooks.post import NoAnswer, post
from registry.controller.webhooks.verdict import Answered, Failed, Rules
from registry.store.webhooks import Claim

if TYPE_CHECKING:
    import ssl


class Trust:
    """The certificates that receivers may have; read when the first https receiver is sent to."""

    def __init__(self, ca_file: Path | None) -> None:
        self._ca_file = ca_file

    @cached_property
    def context(self) -> ssl.SSLContext:
        """Those of the machine, and of ``ca_file``. Raises OSError when that cannot be read."""
        return tls_context(self._ca_file)


@dataclass(frozen=True)
class Attempts:
    """Makes attempts. ``unseal`` gives the secret of a claim's webhook; ``look_up`` asks for the addresses of a name."""

    policy: EgressPolicy
    trust: Trust
    rules: Rules
    clock: Clock
    unseal: Callable[[Claim], str]
    look_up: Resolve = resolve

    def make(self, claimed: Claim, hold: Callable[[socket.socket], None]) -> Answered | Failed:
        """``hold`` is given the connection, so that somebody else can break it off."""
        give_up_s = self.clock.monotonic_s() + self.rules.timeout_s

        def left() -> float:
            left_s = give_up_s - self.clock.monotonic_s()
            if left_s <= 0:
                raise TimeoutError
            return left_s

        body = encode(claimed.event)
        try:
            target = check_url(claimed.url, self.policy)
            headers = self._headers(claimed, body)
            connected = connect(
                target,
                self.policy,
                timeout_s=min(self.rules.connect_s, self.rules.timeout_s),
                tls=lambda: self.trust.context,
                look_up=self.look_up,
            )
            with connected as stream:
                hold(stream)
                return post(stream, target, headers, body, left)
        except HedgerowError as problem:
            return Failed(str(problem))
        except TimeoutError:
            return Failed(f"the receiver did not answer within {self.rules.timeout_s:g} s")
        except OSError as problem:
            return Failed(_words(problem))

    def _headers(self, claimed: Claim, body: bytes) -> dict[str, str]:
        return {
            "Content-Type": "application/json",
            "User-Agent": f"hedgerow/{__version__}",
            HEADER_EVENT: claimed.event.kind,
            HEADER_DELIVERY: claimed.delivery_id,
            HEADER_SIGNATURE: sign(self.unseal(claimed), body, self.clock.now()),
        }


def _words(problem: OSError) -> str:
    if isinstance(problem, NoAnswer):
        return str(problem)
    if isinstance(problem, socket.gaierror):
        return f"the receiver's name cannot be looked up: {problem.strerror}"
    # ssl is loaded if it is its error; otherwise it need not be.
    said = getattr(problem, "verify_message", None) or problem.strerror or str(problem) or type(problem).__name__
    if type(problem).__module__ == "ssl":
        return f"no encrypted connection could be made: {said}"
    return f"the receiver cannot be reached: {said}"
