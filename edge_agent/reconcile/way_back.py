"""Keeps the versions of all modules on the disk and moves them on, round by round, by the rules of ``trial.py``."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import msgspec

from edge_agent.decisions import DecisionLog
from edge_agent.observing.metrics import Metrics
from edge_agent.reconcile import trial
from edge_agent.reconcile.restart_policy import Moment
from edge_agent.reconcile.situation import EngineKind, History, ProofState, Seen, Wanted
from edge_agent.reconcile.trial import Event, Look, Signals
from edge_agent.reconcile.versions import Versions
from edge_agent.state_store import StateStore

FILE = "versions.json"
_COUNTED: Mapping[str, str] = {
    "commit": "hedgerow_agent_update_commits_total",
    "rollback": "hedgerow_agent_update_rollbacks_total",
    "refuse-update": "hedgerow_agent_updates_refused_total",
}
log = logging.getLogger(__name__)


class AllVersions(msgspec.Struct, frozen=True):
    """``versions.json``."""

    modules: dict[str, Versions] = {}


@dataclass(frozen=True)
class Circumstances:
    """One round's view of everything that versions are judged by, by module name (``proofs`` by image digest).

    ``start_problems``: starts that failed since the last round; the text is "" when it was not by the module's own fault.
    """

    seen: Mapping[str, Seen]
    history: Mapping[str, History]
    moment: Moment
    blind: Collection[EngineKind] = ()
    proofs: Mapping[str, ProofState] = field(default_factory=dict)
    signals: Mapping[str, Signals] = field(default_factory=dict)
    start_problems: Mapping[str, str] = field(default_factory=dict)


class WayBack:
    """Called by the supervisor only. ``known`` is what the next agent would know, too, once ``keep`` was called."""

    def __init__(self, store: StateStore, decisions: DecisionLog, metrics: Metrics) -> None:
        self._store = store
        self._decisions = decisions
        self._metrics = metrics
        loaded = store.load(FILE, AllVersions)
        self._known: Mapping[str, Versions] = loaded.modules if loaded else {}
        self._on_disk: Mapping[str, Versions] | None = self._known
        self._resumed = False

    @property
    def known(self) -> Mapping[str, Versions]:
        """The versions of each module."""
        return self._known

    def targets(self, asked: Mapping[str, Wanted]) -> dict[str, Wanted]:
        """What the device aims at: what the hub wants, or the version before it where that was refused."""
        return {name: trial.target(wanted, self._of(name)) for name, wanted in asked.items()}

    def before(self, asked: Mapping[str, Wanted]) -> dict[str, Wanted]:
        """What runs on until the wanted version can be switched to."""
        found = {name: trial.before(wanted, self._of(name)) for name, wanted in asked.items() if self._on_trial(wanted)}
        return {name: before for name, before in found.items() if before is not None}

    def unproven(self, asked: Mapping[str, Wanted]) -> frozenset[str]:
        """Modules whose new image has to be proven first."""
        return frozenset(name for name, wanted in asked.items() if trial.needs_proof(wanted, self._of(name)))

    def images(self, asked: Mapping[str, Wanted]) -> set[str]:
        """Digests of the images that must stay on this device."""
        return trial.images_kept(self.targets(asked), self._known)

    def deadline_s(self, asked: Mapping[str, Wanted], now_s: float) -> float | None:
        """Monotonic time of the next decision that time alone can bring."""
        times = [trial.deadline_s(self._of(name), wanted) for name, wanted in asked.items()]
        # One that has passed waits for something else: to see the module, for example.
        return min((time_s for time_s in times if time_s is not None and time_s > now_s), default=None)

    def advance(self, asked: Mapping[str, Wanted], now: Circumstances) -> set[str]:
        """Take in one look at everything; returns the modules that have just been taken back or refused."""
        known: dict[str, Versions] = {}
        events: dict[str, Event] = {}
        for name, wanted in asked.items():
            before = self._of(name) if self._resumed else trial.resumed(self._of(name), now.moment)
            if wanted.spec.kind in now.blind:
                known[name] = trial.unseen(before)
                continue
            known[name], event = trial.advance(before, _look(wanted, now))
            if event is not None:
                events[name] = event
        self._known, self._resumed = known, True
        # On the disk first: what was told must not be forgotten.
        self.keep()
        for name, event in events.items():
            self._decisions.record(name, event.action, event.reason)
            self._count(event.action, name)
        return {name for name in events if known[name].refused is not None}

    def try_again(self, name: str) -> str | None:
        """Refused versions get another trial: an operator says so. Returns the one that is wanted now, None for none."""
        known = self._of(name)
        if known.refused is None and not known.earlier:
            return None
        self._known = {**self._known, name: msgspec.structs.replace(known, refused=None, earlier=())}
        return known.refused.version if known.refused is not None else None

    def keep(self) -> None:
        """Write what is known, before it is acted upon. A disk that cannot take it is tried again in the next round."""
        if self._known == self._on_disk:
            return
        try:
            self._store.save(FILE, AllVersions(dict(self._known)))
            self._on_disk = self._known
        except OSError as problem:
            log.warning("the versions of modules could not be written: %s", problem)

    def _of(self, name: str) -> Versions:
        return self._known.get(name) or Versions()

    def _on_trial(self, wanted: Wanted) -> bool:
        return trial.has_way_back(wanted, self._of(wanted.name))

    def _count(self, action: str, module: str) -> None:
        if action in _COUNTED:
            self._metrics.count(_COUNTED[action], module_name=module)


def _look(wanted: Wanted, now: Circumstances) -> Look:
    return Look(
        wanted,
        now.seen.get(wanted.name),
        now.history.get(wanted.name, History()),
        now.moment,
        proof=now.proofs.get(wanted.image.digest) if wanted.image else None,
        signals=now.signals.get(wanted.name),
        start_problem=now.start_problems.get(wanted.name, ""),
        start_tried=wanted.name in now.start_problems,
    )
