"""One module's versions under trial, looked at again and again."""

from __future__ import annotations

from typing import Any

from edge_agent.reconcile import trial
from edge_agent.reconcile.restart_policy import Moment
from edge_agent.reconcile.situation import History, Seen, Wanted
from edge_agent.reconcile.trial import Event, Look
from edge_agent.reconcile.versions import Versions
from hedgerow.contracts.edge import DesiredModule, UpdatePolicy
from tests.agent_builders import BOOT, exited, running, wanted

OLD = wanted(command=["old"])
UPDATE = UpdatePolicy(commit_after_s=60.0, ready_within_s=120.0)
NEW = wanted(command=["new"], update=UPDATE)
GOOD = Versions(good=DesiredModule(spec=OLD.spec))


class Watched:
    """One module's versions, looked at again and again."""

    def __init__(self, known: Versions = GOOD, asked: Wanted = NEW) -> None:
        self.known = known
        self.asked = asked
        self.events: list[Event] = []

    def look(
        self, now_s: float, seen: Seen | None, *, boot: str = BOOT, past: History | None = None, **more: Any
    ) -> Event | None:
        moment = Moment(now_s, boot, 1, lambda: 0.5)
        self.known, event = trial.advance(self.known, Look(self.asked, seen, past or History(), moment, **more))
        if event is not None:
            self.events.append(event)
        return event

    @property
    def runs(self) -> list[str]:
        """The command that the device aims at."""
        return trial.target(self.asked, self.known).spec.command


def refused() -> Watched:
    watched = Watched()
    watched.look(0.0, running(NEW))
    watched.look(5.0, exited(NEW))
    return watched
