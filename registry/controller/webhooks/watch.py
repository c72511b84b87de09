"""Where webhooks meet the controller's loop: news from the feed's own wake-ups, gathered, and a look now and then."""

from __future__ import annotations

import logging

from registry.controller.event_loop import EventLoop, Timer
from registry.controller.webhooks.dispatch import QUIET_S, Webhooks
from registry.errors import DatabaseUnavailable
from registry.wakeups import WakeupReceiver

# A flood of changes is looked at a few times a second, not once for each.
_GATHER_S = 0.1
log = logging.getLogger(__name__)


class WebhookWatch:
    """Made by the composition root; everything here happens in the controller's thread."""

    def __init__(self, loop: EventLoop, receiver: WakeupReceiver, outgoing: Webhooks) -> None:
        self._loop, self._receiver, self._outgoing = loop, receiver, outgoing
        self._gathering: Timer | None = None

    def begin(self) -> None:
        """Look at once, and from then on."""
        self._loop.watch(self._receiver.fileno(), self._woken)
        self._loop.after(0.0, self._quiet)

    def stop(self) -> None:
        self._outgoing.stop()

    def _woken(self) -> None:
        self._receiver.wait(0.0)
        if self._gathering is None:
            self._gathering = self._loop.after(_GATHER_S, self._gathered)

    def _gathered(self) -> None:
        self._gathering = None
        self._look()

    def _quiet(self) -> None:
        self._look()
        self._loop.after(QUIET_S, self._quiet)

    def _look(self) -> None:
        try:
            self._outgoing.look()
        except DatabaseUnavailable as problem:
            log.warning("Webhooks wait: %s", problem.sentence())
