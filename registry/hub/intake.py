"""A group of uplinks through the hub: open, settle sessions, store, and only then answer.

Takes what waited (of all devices, in order of arrival), returns the answers that may be published now. Everything that
an answer promises is committed before this returns. Raises DatabaseUnavailable without having answered; the same group
can be handed in again, whole or in parts.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import Connection

from hedgerow.clock import unix_ms
from hedgerow.contracts.document import encode
from hedgerow.contracts.methods import MethodAnswer
from hedgerow.contracts.seal import SealRefused, device_key, seal
from hedgerow.contracts.status import StatusReport
from hedgerow.contracts.telemetry import Hello, TelemetryAck, TelemetryBatch, Watermark, Welcome
from hedgerow.contracts.twins import TwinReport
from hedgerow.errors import DocumentTooNew, InvalidDocument
from registry.hub import presence, revoked, sessions
from registry.hub.device_seals import open_sealed
from registry.hub.holes import Holes
from registry.hub.ingest import BatchUplink, StreamAnswer, store_batches
from registry.hub.key_changes import KeyChanges
from registry.hub.link import Downlink, Uplink
from registry.hub.methods import Methods
from registry.hub.notes import Notes
from registry.hub.sessions import Granted, Refused
from registry.hub.twins import ModuleTwins
from registry.hub.uplinks import Said
from registry.store import facts, fleet, telemetry, twins
from registry.store.database import Database
from registry.store.telemetry import StreamKey
from registry.store.twins import KnownDevice, Session


@dataclass(frozen=True)
class Handled:
    """``answers`` to publish; ``greeted`` devices (with the desired version they have) want their desired state now.

    ``reported`` devices said something new of themselves.
    """

    answers: Sequence[Downlink]
    greeted: Mapping[str, int]
    reported: frozenset[str] = frozenset()


@dataclass
class _Group:
    """What is known so far of one group."""

    now: datetime
    now_s: float
    incarnation: str
    devices: dict[str, KnownDevice]
    said: list[tuple[Said, bytes]] = field(default_factory=list)
    sessions: dict[str, Session] = field(default_factory=dict)
    greetings: list[tuple[Hello, Granted | Refused]] = field(default_factory=list)
    keys: KeyChanges = field(default_factory=KeyChanges)
    reported: set[str] = field(default_factory=set)
    revoked: list[Downlink] = field(default_factory=list)


class Intake:
    """See the module's docstring. One thread at a time."""

    def __init__(
        self,
        database: Database,
        device_master: bytes,
        notes: Notes,
        methods: Methods | None = None,
        *,
        holes: Holes | None = None,
        on_new_key: Callable[[], None] | None = None,
    ) -> None:
        """``holes`` when other hubs take some of a device's batches (MQTT 5 shared subscriptions); ``on_new_key`` is called
        after a device was heard under another key than before: its login at the broker is another, too."""
        self._on_new_key = on_new_key or _nobody_asks
        self._database = database
        self._holes = holes
        self._methods = methods
        self._master = device_master
        self._notes = notes
        self._twins = ModuleTwins(database, notes)

    def handle(self, uplinks: Sequence[Uplink], now: datetime, now_s: float) -> Handled:
        """``now_s`` is monotonic. Raises DatabaseUnavailable."""
        with self._database.read() as connection:
            speakers = {uplink.device_uuid for uplink in uplinks} | (self._holes.devices if self._holes else set())
            known = twins.known_devices(connection, speakers)
            group = _Group(now, now_s, facts.incarnation(connection), known)
        group.sessions = {uuid: device.session for uuid, device in known.items() if device.session is not None}
        self._open(uplinks, group)
        self._settle_records(group)
        acks = self._store_telemetry(group)
        self._keep_answers(group)
        acks += self._keep_twins(group)
        welcomes = self._welcome(group)
        if group.keys.risen:
            self._on_new_key()
        self.record_events(now)
        greeted = {
            hello.device_uuid: hello.accepted_desired_version
            for hello, decision in group.greetings
            if isinstance(decision, Granted)
        }
        return Handled([*welcomes, *acks, *group.revoked], greeted, frozenset(group.reported))

    def wake_in_s(self) -> float | None:
        """When :meth:`handle` wants to be called even if nothing arrives; None while it does not care."""
        return None if self._holes is None else self._holes.wake_in_s()

    def record_events(self, now: datetime) -> None:
        """Commit the events that wait in the notes. Raises DatabaseUnavailable; they wait on then."""
        if self._notes.pending:
            with self._database.write() as connection:
                fleet.record_events(connection, self._notes.pending, now)
                for note in self._notes.pending:
                    presence.tell(connection, f"device.{note.kind}", note.device, now, reason=note.reason)
            self._notes.pending.clear()

    def tell_silence(self, now: datetime) -> None:
        """Record which devices went offline. Raises DatabaseUnavailable."""
        presence.tell_silence(self._database, now)

    def _open(self, uplinks: Sequence[Uplink], group: _Group) -> None:
        for uplink in uplinks:
            device = group.devices.get(uplink.device_uuid)
            if device is None:
                self._notes.count("unknown-device", f"A message for no device of ours: {uplink.device_uuid[:40]!r}", group.now_s)
                continue
            if device.revoked:
                self._event(device, "revoked-device", "it was revoked and still sends", group)
                group.revoked += revoked.told(uplink, device, self._master, group.incarnation)
                continue
            try:
                opened = open_sealed(uplink, device, self._master)
            except SealRefused:
                self._event(device, "forged", f"a {uplink.leaf} message without its seal was dropped", group)
            except (InvalidDocument, DocumentTooNew) as problem:
                self._event(device, "malformed", f"a {uplink.leaf} message was dropped: {problem}", group)
            else:
                refused = group.keys.note(device, opened)
                if not refused:
                    group.said.append((opened.said, opened.payload))
                elif isinstance(opened.said, Hello):
                    self._event(device, "old-key", refused, group)
                else:  # what was on its way while the key changed: the device sends it again
                    self._notes.count("old-key", f"A {uplink.leaf} message of {device.name}: {refused}", group.now_s)

    def _settle_records(self, group: _Group) -> None:
        """Sessions and reports; a transaction only when there is something to write."""
        hellos = [said for said, _ in group.said if isinstance(said, Hello)]
        speakers = {said.device_uuid for said, _ in group.said if not isinstance(said, Hello) and self._speaks(said, group)}
        reports = [said for said, _ in group.said if isinstance(said, StatusReport)]
        due = [uuid for uuid in speakers if sessions.renewal_due(group.sessions[uuid], group.now)]
        if not hellos and not reports and not due and not group.keys.risen:
            return
        with self._database.write() as connection:
            uuids = {hello.device_uuid for hello in hellos} | {report.device_uuid for report in reports} | set(due)
            known = twins.known_devices(connection, uuids | group.keys.risen.keys(), lock=True)
            group.keys.settle(connection, known, self._master, group.now)
            for uuid, device in known.items():
                group.devices[uuid] = group.keys.now_held(device)
                group.sessions.pop(uuid, None)
                if device.session is not None:
                    group.sessions[uuid] = device.session
            written: dict[str, Session] = {}
            for hello in hellos:
                self._greet(connection, hello, group, written)
            # A broker that comes back brings a whole fleet's hellos: they are written in one go.
            twins.put_sessions(connection, written)
            if due:
                for uuid in twins.renew_sessions(connection, due, sessions.lease_end(group.now), group.now):
                    presence.tell(connection, presence.ONLINE, group.devices[uuid].name, group.now, reason="it was heard again")
            newest = {report.device_uuid: report for report in reports if self._in_session(report, group)}
            for report in newest.values():
                if twins.put_report(connection, report, group.now):
                    group.reported.add(report.device_uuid)

    def _greet(self, connection: Connection, hello: Hello, group: _Group, written: dict[str, Session]) -> None:
        device = group.devices.get(hello.device_uuid)
        if device is None or device.revoked:
            return  # deleted or revoked since this group began
        held = group.sessions.get(device.uuid)
        decision = sessions.decide(hello, held, group.now, lambda: secrets.token_hex(16))
        group.greetings.append((hello, decision))
        if isinstance(decision, Refused):
            self._event(device, "second-holder", f"a hello was refused: {decision.reason}", group)
            return
        if held is None or held.session != decision.session.session or sessions.renewal_due(held, group.now):
            written[device.uuid] = decision.session
            presence.tell_session(connection, device.name, held, decision.session, group.now)
        group.sessions[device.uuid] = decision.session
        if decision.event:
            self._event(device, "taken-over", decision.event, group)

    def _store_telemetry(self, group: _Group) -> list[Downlink]:
        batches = [
            BatchUplink(said, payload)
            for said, payload in group.said
            if isinstance(said, TelemetryBatch) and self._in_session(said, group)
        ]
        if self._holes is not None:
            batches = [uplink for uplink in self._holes.joined(batches) if self._speaks(uplink.batch, group)]
        if not batches:
            return []
        with self._database.write_series() as connection:
            answers = store_batches(connection, batches, unix_ms(group.now))
        if self._holes is not None:
            answers = self._holes.settle(batches, answers, group.now_s)
        return [self._ack(answer, group) for answer in answers]

    def _keep_answers(self, group: _Group) -> None:
        if self._methods is not None:
            spoken = [said for said, _ in group.said if isinstance(said, MethodAnswer) and self._in_session(said, group)]
            self._methods.take(spoken, group.now)

    def _keep_twins(self, group: _Group) -> list[Downlink]:
        spoken = [said for said, _ in group.said if isinstance(said, TwinReport) and self._in_session(said, group)]
        acks = self._twins.take(spoken, group.now, group.now_s)
        return [
            Downlink(ack.device_uuid, "twin-acks", seal(self._key(device), ack.device_uuid, "twin-acks", encode(ack)))
            for ack in acks
            if (device := group.devices[ack.device_uuid])
        ]

    def _ack(self, answer: StreamAnswer, group: _Group) -> Downlink:
        device = group.devices[answer.key.device_uuid]
        if answer.lost:
            reason = f"{answer.lost} messages of epoch {answer.key.epoch}, stream {answer.key.stream} are lost"
            self._event(device, "gap", reason, group)
        if answer.refused == "chain-mismatch":
            reason = f"telemetry of epoch {answer.key.epoch}, stream {answer.key.stream} was refused: {answer.reason}"
            self._event(device, "chain-mismatch", reason, group)
        ack = TelemetryAck(
            device_uuid=device.uuid,
            session=group.sessions[device.uuid].session,
            incarnation=group.incarnation,
            epoch=answer.key.epoch,
            stream=answer.key.stream,
            watermark=answer.mark.watermark,
            chain=answer.mark.chain,
            refused=answer.refused,
        )
        return Downlink(device.uuid, "acks", seal(self._key(device), device.uuid, "acks", encode(ack)))

    def _welcome(self, group: _Group) -> list[Downlink]:
        refusals = group.keys.refusals(group.devices, self._master, group.incarnation)
        if not group.greetings:
            return refusals
        wanted = [_stream_keys(hello) for hello, _ in group.greetings]
        keys = {key for some in wanted for key in some}
        with self._database.read_series() as connection:
            marks = telemetry.marks(connection, keys, lock=False) if keys else {}
        welcomes = refusals
        for (hello, decision), stream_keys in zip(group.greetings, wanted, strict=True):
            device = group.devices[hello.device_uuid]
            granted = isinstance(decision, Granted)
            welcome = Welcome(
                device_uuid=device.uuid,
                nonce=hello.nonce,
                session=decision.session.session if isinstance(decision, Granted) else None,
                incarnation=group.incarnation,
                lease_s=sessions.LEASE_S,
                watermarks=[
                    Watermark(epoch=key.epoch, stream=key.stream, watermark=marks[key].watermark, chain=marks[key].chain)
                    for key in (stream_keys if granted else [])
                ],
                refused=decision.reason if isinstance(decision, Refused) else "",
                reads_holes=True,
                reads_twins=True,
            )
            payload = seal(self._key(device), device.uuid, "welcome", encode(welcome))
            welcomes.append(Downlink(device.uuid, "welcome", payload))
        return welcomes

    def _in_session(self, said: TelemetryBatch | StatusReport | MethodAnswer | TwinReport, group: _Group) -> bool:
        if self._speaks(said, group):
            return True
        name = group.devices[said.device_uuid].name
        self._notes.count("foreign-session", f"Device {name} was ignored: it speaks in a session that is over", group.now_s)
        return False

    @staticmethod
    def _speaks(said: TelemetryBatch | StatusReport | MethodAnswer | TwinReport, group: _Group) -> bool:
        held = group.sessions.get(said.device_uuid)
        return held is not None and held.session == said.session

    def _event(self, device: KnownDevice, kind: str, reason: str, group: _Group) -> None:
        self._notes.event(kind, device.uuid, device.name, reason, group.now_s)

    def _key(self, device: KnownDevice) -> bytes:
        return device_key(self._master, device.uuid, device.key_generation)


def _nobody_asks() -> None:
    """Where no broker asks for logins."""


def _stream_keys(hello: Hello) -> list[StreamKey]:
    return [StreamKey(hello.device_uuid, hello.epoch, stream) for stream in hello.streams]
