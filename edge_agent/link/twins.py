"""The device's half of the twin protocol (``contracts/twins.py``), without I/O: what modules report reaches the hub.

Theory of operation.

- What the hub has of a module is unknown when a session begins. Then its version is asked for, by an empty patch from the
  newest version to itself (or, when they are small, the properties are sent at once: that costs as much).
- Every report is answered by an ack that says which version the hub has, with a digest of it. Of each module one report is on
  its way; what changed meanwhile goes into the next one, at most one in ``MIN_INTERVAL_S``: the newest wins.
- From the version that the hub has acknowledged in this session a patch is sent, from any other one the whole.
- An ack that does not come makes the version unknown again. So does one that was not asked for and says something else, and
  an hour: whatever happened to the hub's record meanwhile is noticed then.
- A hub that is ahead of us, or has other properties under our version, has met another holder of our files (a copied card, a
  disk that went back in time): the module's versions begin a new epoch, and the whole is sent.

All methods are called by one thread (``link/courier.py``), which hands in monotonic seconds as ``now_s``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from edge_agent.twins.held import Held
from hedgerow.backoff import Backoff
from hedgerow.contracts.merge_patch import json_text, patch_between
from hedgerow.contracts.twins import TwinAck, TwinReport

# Of one module.
MIN_INTERVAL_S = 1.0
# Of all modules; each may have 256 KiB.
FLIGHTS_MAX = 8
AUDIT_S = 3600.0
# Properties up to this size are sent instead of asking which ones the hub has.
SMALL_BYTES = 2048
# How long an ack is waited for; longer each time.
PATIENCE = Backoff(first_s=5.0, factor=2.0, cap_s=60.0, immediate_s=5.0)


class Reports(Protocol):
    """What modules have reported, as the protocol needs it (``ReportedTwins``)."""

    def held(self) -> Mapping[str, Held]:
        """By module."""
        ...

    def begin_epoch(self, module: str, epoch: str) -> None:
        """Count this module's versions in another epoch than ``epoch``; takes effect later."""
        ...


@dataclass(frozen=True)
class _Flight:
    """A report on its way; ``what`` it makes the hub have."""

    what: Held
    due_s: float


@dataclass
class _Module:
    """``has`` is what the hub has (``known``) or had, None for something else than what we have had in this session.

    ``doubtful``: an ack came that was none for the report on its way.
    """

    known: bool = False
    has: Held | None = None
    flight: _Flight | None = None
    doubtful: bool = False
    not_before_s: float = 0.0
    audit_s: float = 0.0
    unanswered: int = 0
    # Another epoch was asked for in the place of this one.
    contested: str = ""


class TwinSync:
    """One per agent; sessions come and go."""

    def __init__(self, device_uuid: str, reports: Reports) -> None:
        self._device_uuid = device_uuid
        self._reports = reports
        self._session: tuple[str, str] | None = None
        self._modules: dict[str, _Module] = {}

    def opened(self, session: str, incarnation: str) -> None:
        """There is a session with a hub that reads twins; again changes nothing, unless either is another one."""
        if self._session != (session, incarnation):
            self._session, self._modules = (session, incarnation), {}

    def closed(self) -> None:
        """The session is over, or its connection: what was on its way may be lost."""
        self._session, self._modules = None, {}

    def acknowledged(self, ack: TwinAck, now_s: float) -> None:
        """The hub says what it has. Of another session, or of a module that is gone, it means nothing."""
        module, newest = self._modules.get(ack.module), self._reports.held().get(ack.module)
        ours = self._session is not None and (ack.device_uuid, ack.session) == (self._device_uuid, self._session[0])
        if not ours or module is None or newest is None:
            return
        flight = module.flight
        if flight is None or ack.epoch != flight.what.epoch:
            if module.has is None or not _says(ack, module.has):
                module.known, module.doubtful = False, flight is not None
        elif _says(ack, flight.what):
            module.known, module.has, module.flight = not module.doubtful, flight.what, None
            module.doubtful, module.unanswered, module.audit_s = False, 0, now_s + AUDIT_S
        elif ack.version >= flight.what.version:
            module.known, module.has, module.flight = False, None, None
            module.contested, module.not_before_s = ack.epoch, now_s
        elif module.has is None or not _says(ack, module.has):
            # The hub is behind, with what we do not have any more: the whole brings it here.
            module.known, module.has, module.flight = True, None, None
        elif not module.known:
            # It is where it was; if it was known to be there, this is an ack of before that came twice.
            module.known, module.flight = True, None

    def outgoing(self, now_s: float) -> list[TwinReport]:
        """What is to be sent now."""
        if self._session is None:
            return []
        held = self._reports.held()
        self._modules = {name: self._modules.get(name) or _Module() for name in held}
        under_way = sum(module.flight is not None and now_s < module.flight.due_s for module in self._modules.values())
        reports: list[TwinReport] = []
        for name, module in self._modules.items():
            if under_way + len(reports) >= FLIGHTS_MAX:
                break
            report = self._next(name, module, held[name], now_s)
            if report is not None:
                reports.append(report)
        return reports

    def unsent(self, report: TwinReport) -> None:
        """``report`` could not be handed to the connection: it is made again next time."""
        module = self._modules.get(report.module)
        if module is not None:
            module.flight, module.not_before_s = None, 0.0

    def next_wake_s(self) -> float | None:
        """When ``outgoing`` has something to do at the latest, in monotonic seconds; new reports come on top."""
        under_way = [module.flight.due_s for module in self._modules.values() if module.flight is not None]
        if len(under_way) >= FLIGHTS_MAX:
            return min(under_way)
        held = self._reports.held() if self._modules else {}
        return min((_due_s(module, held[name]) for name, module in self._modules.items() if name in held), default=None)

    def _next(self, name: str, module: _Module, newest: Held, now_s: float) -> TwinReport | None:
        if now_s < _due_s(module, newest):
            return None
        if module.flight is not None:
            module.flight, module.known, module.unanswered = None, False, module.unanswered + 1
        elif module.known and _is_same(module.has, newest):
            module.known = False  # the audit
        if module.contested == newest.epoch:
            self._reports.begin_epoch(name, newest.epoch)
            module.not_before_s = now_s + PATIENCE.first_s
            return None
        module.contested = ""
        report = self._report(name, module, newest)
        module.flight = _Flight(newest, now_s + PATIENCE.delay_s(module.unanswered, _never_shorter))
        module.not_before_s = now_s + MIN_INTERVAL_S
        return report

    def _report(self, name: str, module: _Module, newest: Held) -> TwinReport:
        base, said = None, None
        if not module.known and len(newest.text) > SMALL_BYTES:
            base, said = newest.version, {}
        elif module.known and module.has is not None and module.has.epoch == newest.epoch:
            patch = patch_between(module.has.properties, newest.properties)
            if len(json_text(patch)) < len(newest.text):
                base, said = module.has.version, patch
        return TwinReport(
            device_uuid=self._device_uuid,
            session=self._session[0] if self._session else "",
            epoch=newest.epoch,
            module=name,
            version=newest.version,
            base_version=base,
            reported=newest.properties if said is None else said,
        )


def _due_s(module: _Module, newest: Held) -> float:
    """When something is to be done for this module."""
    if module.flight is not None:
        return module.flight.due_s
    if module.contested and module.contested != newest.epoch:
        return 0.0
    return module.audit_s if module.known and _is_same(module.has, newest) else module.not_before_s


def _is_same(has: Held | None, newest: Held) -> bool:
    return has is not None and (has.epoch, has.version, has.digest) == (newest.epoch, newest.version, newest.digest)


def _says(ack: TwinAck, what: Held) -> bool:
    """Whether this is the hub's word that it has exactly that."""
    return (ack.epoch, ack.version) == (what.epoch, what.version) and ack.digest in ("", what.digest)


def _never_shorter() -> float:
    return 1.0
