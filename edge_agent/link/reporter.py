"""Tells the hub (and the disk) how this device is: soon after every change, and now and then without one.

Reports carry the whole state, so a lost one costs nothing: the next replaces it. They travel beside the telemetry buffer.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from edge_agent.decisions import DecisionLog
from edge_agent.state_store import StateStore
from hedgerow.clock import Clock
from hedgerow.contracts.document import encode
from hedgerow.contracts.status import (
    AgentReleaseStatus,
    BufferStatus,
    DesiredOutcome,
    LinkStatus,
    ModuleStatus,
    StatusReport,
)

# Changes that come together are told together; a change is told within twice this time.
SETTLE_S = 0.1
DECISIONS_SENT = 20
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Snapshot:
    """What the supervisor found in its last round."""

    desired: DesiredOutcome
    modules: Mapping[str, ModuleStatus]


@dataclass(frozen=True)
class Self:
    """What stays the same in all reports of this agent."""

    device_uuid: str
    agent_version: str
    boot_id: str
    period_s: float
    limits_by: str = ""


class Reporter:
    """``session`` gives the hub's session (None: no report can be sent), ``publish`` hands a report to the link.

    ``with_counts`` adds what changes all the time: such a change alone is no reason for a report.
    """

    def __init__(
        self,
        myself: Self,
        store: StateStore,
        clock: Clock,
        decisions: DecisionLog,
        *,
        session: Callable[[], str | None],
        buffer: Callable[[], BufferStatus],
        publish: Callable[[bytes], bool],
        agent_release: Callable[[], AgentReleaseStatus | None] = lambda: None,
        with_counts: Callable[[Mapping[str, ModuleStatus]], dict[str, ModuleStatus]] = dict,
        trusts: Callable[[], list[str]] = list,
        link: Callable[[], LinkStatus | None] = lambda: None,
    ) -> None:
        self._self = myself
        self._store = store
        self._clock = clock
        self._decisions = decisions
        self._session = session
        self._buffer = buffer
        self._publish = publish
        self._agent_release = agent_release
        self._with_counts = with_counts
        self._trusts = trusts
        self._link = link
        self._snapshot = Snapshot(DesiredOutcome(version=0, code=202, message="no desired state was received yet"), {})
        self._sequence = 0
        self._changed = threading.Condition()
        self._news = False
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="reporter", daemon=True)

    def start(self) -> None:
        """Begin to report."""
        self._thread.start()

    def close(self) -> None:
        """Send the last state, then stop."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        self._thread.join()

    def show(self, snapshot: Snapshot) -> None:
        """What the supervisor found; reported when it differs from the last."""
        with self._changed:
            if snapshot == self._snapshot:
                return
            self._snapshot = snapshot
        self.hurry()

    def hurry(self) -> None:
        """Something beside the modules changed (a decision, the session): report soon."""
        with self._changed:
            self._news = True
            self._changed.notify_all()

    def current(self) -> StatusReport:
        """The report as it would be sent now."""
        with self._changed:
            snapshot = self._snapshot
        return StatusReport(
            device_uuid=self._self.device_uuid,
            session=self._session() or "",
            sequence=self._sequence,
            reported_at=self._clock.now(),
            agent_version=self._self.agent_version,
            boot_id=self._self.boot_id,
            desired=snapshot.desired,
            modules=self._with_counts(snapshot.modules),
            decisions=self._decisions.newest(DECISIONS_SENT),
            buffer=self._buffer(),
            limits_by=self._self.limits_by,
            agent_release=self._agent_release(),
            trusted_keys=self._trusts(),
            link=self._link(),
        )

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._news or self._stopped, timeout=self._self.period_s)
                news, stopped = self._news, self._stopped
                if not stopped and news:
                    self._changed.wait_for(lambda: self._stopped, timeout=SETTLE_S)
                self._news = False
            try:
                self._report(on_disk=news or stopped)
            except Exception:
                log.exception("a report failed; the next one follows")
            if stopped:
                return

    def _report(self, *, on_disk: bool) -> None:
        self._sequence += 1
        report = self.current()
        if report.session:
            self._publish(encode(report))
        if on_disk:
            try:
                self._store.save("report.json", report)
            except OSError as problem:
                log.warning("the report could not be written: %s", problem)
