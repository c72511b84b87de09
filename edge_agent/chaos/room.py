"""The agent's side of chaos: a gate before its link and a socket for orders. Without leave there is neither."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path

from edge_agent.chaos.gate import GatedLink
from edge_agent.chaos.orders import LONGEST_S, Facts, ModuleFacts, Order
from edge_agent.chaos.socket import NAME, ChaosSocket
from edge_agent.decisions import DecisionLog
from edge_agent.link.link import Link
from hedgerow.contracts.status import StatusReport

# What `disk-full` fills the disk with. An agent that starts takes away what a killed command left.
BALLAST = "chaos.ballast"
log = logging.getLogger(__name__)


class ChaosRoom:
    """``allowed`` is the setting; ``report`` gives the agent's state of this moment."""

    def __init__(self, *, allowed: bool, folder: Path, report: Callable[[], StatusReport], decisions: DecisionLog) -> None:
        self._allowed, self._folder, self._report, self._decisions = allowed, folder, report, decisions
        self._gate: GatedLink | None = None
        self._socket = ChaosSocket(folder, self._carry_out)

    def link(self, make: Callable[[], Link]) -> Link:
        """The link to use: ``make()``, behind a gate if chaos is allowed."""
        if not self._allowed:
            return make()
        self._gate = GatedLink(make)
        return self._gate

    def start(self) -> None:
        """Take orders, if that is allowed."""
        (self._folder / BALLAST).unlink(missing_ok=True)
        if not self._allowed:
            # An agent that was killed may have left one.
            (self._folder / NAME).unlink(missing_ok=True)
            return
        try:
            self._socket.start()
        except OSError as problem:
            log.warning("chaos was allowed, but its socket cannot be made: %s", problem)

    def close(self) -> None:
        self._socket.close()

    def _carry_out(self, order: Order) -> Facts:
        if order.do == "offline" and self._gate is not None:
            seconds = min(LONGEST_S, max(0.0, order.seconds))
            self._decisions.record(None, "chaos", f"the link is kept down for {seconds:g} s, as ordered on this device")
            self._gate.keep_down(seconds)
        return _facts(self._report())


def _facts(report: StatusReport) -> Facts:
    buffer = report.buffer
    return Facts(
        pid=os.getpid(),
        in_session=bool(report.session),
        queued=buffer.queued_messages if buffer else 0,
        dropped=buffer.dropped_messages if buffer else 0,
        modules={
            name: ModuleFacts(state=module.state, pid=module.pid, restarts=module.restart_count)
            for name, module in report.modules.items()
        },
    )
