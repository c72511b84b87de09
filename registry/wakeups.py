"""How one role tells another "look again" without anybody polling.

A wake-up carries no data: the database is the truth, a wake-up only says when to read it. Lost wake-ups are therefore
harmless; waiters also look by themselves every ``fallback_s``. Two adapters: Unix datagram sockets in the workspace's
``run`` folder (``wakeups_socket.py``) and LISTEN/NOTIFY (``wakeups_postgres.py``) for roles on several machines.
"""

from __future__ import annotations

from typing import Protocol

# The name under which the controller hears of new events; its own name wakes everything that it does.
FEED = "events"
# The name under which the hub hears of direct methods; its own name makes it look at the whole fleet.
METHODS = "methods"


class Wakeups(Protocol):
    """Sending never blocks and never fails the sender."""

    def wake(self, role: str) -> None:
        """Tell ``role`` (server, hub, controller) to look again; called after a commit."""
        ...


class WakeupReceiver(Protocol):
    """The receiving end of one role."""

    def wait(self, timeout_s: float) -> bool:
        """Block until woken (True) or ``timeout_s`` has passed (False); drains what is pending."""
        ...

    def fileno(self) -> int:
        """Readable when woken, for selectors."""
        ...

    def close(self) -> None: ...
