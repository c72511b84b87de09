"""Desired states: composed for every device they concern, signed, stored under the hub's lease, ready to be published.

Looks at the whole fleet in one snapshot, plans without touching anything, and writes only what changed.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from sqlalchemy import Connection

from hedgerow.contracts.desired_reference import needs_reference, reference_to
from hedgerow.contracts.document import decode, encode
from hedgerow.contracts.edge import DesiredState
from hedgerow.contracts.foreign_image import is_foreign, pin_of
from hedgerow.contracts.names import PAYLOAD_DESIRED_STATE, Reference
from hedgerow.contracts.service import ImagePin
from hedgerow.contracts.signed import SignedEnvelope, Signer, sign
from registry.errors import RecordNotFound
from registry.hub.compose import Composition, Incomposable, compose, next_state
from registry.hub.link import Downlink
from registry.hub.manifest import MAX_STATE_BYTES
from registry.hub.notes import Notes
from registry.hub.presence import tell
from registry.hub.reported import facts_of, read_report
from registry.hub.rollouts import staging
from registry.hub.rollouts.staging import Staging
from registry.hub.rollouts.telling import Settled, write_told
from registry.hub.signing import GetSigning, Signing, always
from registry.hub.unsigned import read_waiting
from registry.store import facts, images, leases, module_twins, twins
from registry.store.database import Database
from registry.store.leases import Lease
from registry.store.twins import StoredTwin

LEASE = "hub"
LEASE_TTL_S = 60.0
# One transaction holds the records database this long at most: other writers wait for it.
_DEVICES_PER_TRANSACTION = 100


@dataclass(frozen=True)
class Fleet:
    """All that composition depends on, read in one snapshot."""

    twins: list[StoredTwin]
    staging: Staging
    pins: Mapping[str, ImagePin]
    incarnation: str
    patches: Mapping[str, Mapping[str, dict[str, object]]] = field(default_factory=dict)


@dataclass(frozen=True)
class Issue:
    """A device's desired state changes."""

    uuid: str
    name: str
    state: DesiredState
    revision: int | None
    envelope: bytes | None = None  # when somebody else signed it


@dataclass(frozen=True)
class Defer:
    """A device's desired state would change, but no key is here that may sign it."""

    uuid: str
    name: str
    state: DesiredState


@dataclass(frozen=True)
class Undefer:
    """What waits for a signature is not wanted any more."""

    uuid: str


@dataclass(frozen=True)
class Relabel:
    """The content stays, its source is another revision."""

    uuid: str
    edge_deployment: str | None
    revision: int | None


@dataclass(frozen=True)
class Stuck:
    """A device cannot get what it should."""

    uuid: str
    name: str
    reason: str


Change = Issue | Defer | Undefer | Relabel | Stuck


class DesiredStates:
    """Keeps the twins' desired states up to date with deployments, devices and images. One thread at a time."""

    def __init__(self, database: Database, signers: Mapping[str, Signer] | GetSigning, holder: str, notes: Notes) -> None:
        self._database, self._holder, self._notes = database, holder, notes
        self._signing = signers if callable(signers) else always(signers)
        self._published: set[str] = set()
        self._told: set[str] = set()

    def settle(
        self, now: datetime, now_s: float, *, only: Iterable[str] | None = None, accepted: Mapping[str, int] | None = None
    ) -> list[Downlink]:
        """Bring desired states up to date; returns what has to be published for that.

        ``only`` are the devices to look at (None: all), ``accepted`` the versions that some say they have. While another
        hub holds the lease nothing is written. Raises DatabaseUnavailable, LeaseLost.
        """
        wanted = None if only is None else list(only)
        with self._database.read() as connection:
            fleet_now = _read(connection, wanted)
        found = _changes(fleet_now, accepted or {}, self._signing(), now)
        for change in found:
            if isinstance(change, Stuck):
                self._notes.event("image-missing", change.uuid, change.name, change.reason, now_s)
        # Of a rollout, devices are told also when nothing changes for them, or when they cannot get what they should.
        untold = fleet_now.staging.untold & {twin.uuid for twin in fleet_now.twins}
        concerned = [change.uuid for change in found if not isinstance(change, Stuck) and change.uuid not in untold]
        concerned += sorted(untold)
        issued: list[Downlink] = []
        for start in range(0, len(concerned), _DEVICES_PER_TRANSACTION):
            part = concerned[start : start + _DEVICES_PER_TRANSACTION]
            issued += self._write(part, accepted or {}, now, now_s)
        if wanted is None:
            issued += self._withdrawn({twin.uuid for twin in fleet_now.twins})
        return issued

    def for_greeted(self, accepted: Mapping[str, int], now: datetime, now_s: float) -> list[Downlink]:
        """The desired states of devices that just said hello and which version they have; composed anew where needed.

        A device that has the newest one gets nothing: hellos also renew sessions, all the time.
        """
        self.settle(now, now_s, only=accepted, accepted=accepted)
        with self._database.read() as connection:
            found = twins.stored_twins(connection, accepted)
        news = {twin.uuid: twin.desired for twin in found if twin.desired and twin.desired_version > accepted[twin.uuid]}
        self._published |= news.keys()
        return [_downlink(uuid, envelope) for uuid, envelope in news.items()]

    def take_told(self) -> set[str]:
        """Devices that were told of a rollout since this was asked last: their newest report may say already how they do."""
        told, self._told = self._told, set()
        return told

    def stored(self) -> list[Downlink]:
        """Every device's desired state as it was signed, to be published again: a broker forgets."""
        with self._database.read() as connection:
            envelopes = twins.desired_envelopes(connection)
        self._published |= envelopes.keys()
        return [_downlink(uuid, envelope) for uuid, envelope in envelopes.items()]

    def _write(self, uuids: list[str], accepted: Mapping[str, int], now: datetime, now_s: float) -> list[Downlink]:
        issued: list[Downlink] = []
        with self._database.write() as connection:
            lease = leases.acquire(connection, LEASE, self._holder, LEASE_TTL_S, now)
            if lease is None:
                self._notes.count("no-lease", "Another hub is in charge of desired states", now_s)
                return []
            # Planned again from what is true inside this transaction: the first look may be old by now.
            signing = self._signing()
            seen = _read(connection, uuids, hold=True)
            changes = _changes(seen, accepted, signing, now)
            for change in changes:
                issued += _apply(connection, lease, change, signing, now)
            self._told |= write_told(connection, _settled(seen.twins, changes), now)
        self._published |= {downlink.device_uuid for downlink in issued}
        return issued

    def _withdrawn(self, present: set[str]) -> list[Downlink]:
        """Take retained desired states away from the broker when their device is gone or revoked."""
        gone = self._published - present
        self._published &= present
        return [_downlink(uuid, b"") for uuid in gone]


def read_envelope(envelope: bytes) -> DesiredState:
    """The desired state inside a stored envelope. Its signature is ours; devices check it, not we."""
    return decode(base64.b64decode(decode(envelope, SignedEnvelope).payload, validate=True), DesiredState)


def resolve_images(connection: Connection, references: Iterable[str], *, hold: bool = False) -> dict[str, ImagePin]:
    """Pins of those references that name an image version, or somebody else's image by its digest.

    ``hold``: for a transaction that writes the pins down.
    """
    pins: dict[str, ImagePin] = {}
    look = images.hold if hold else images.get
    for text in sorted(set(references)):
        if is_foreign(text):
            if (pin := pin_of(text)) is not None:
                pins[text] = pin
            continue
        try:
            record = look(connection, Reference.parse(text))
        except RecordNotFound:
            continue
        pins[text] = ImagePin(name=record.name, version=record.version, digest=record.digest, kind=record.kind)
    return pins


def _read(connection: Connection, only: Iterable[str] | None, *, hold: bool = False) -> Fleet:
    """``hold`` what the desired states will point at: of a deletion meanwhile, one of the two waits for the other."""
    stages = staging.load(connection, only, hold=hold)
    references = [image for one in stages.every_one() for spec in one.modules.values() for image in spec.images().values()]
    return Fleet(
        twins=twins.stored_twins(connection, only, hold=hold, with_reports=stages.asks_for_reports()),
        staging=stages,
        pins=resolve_images(connection, references, hold=hold),
        incarnation=facts.incarnation(connection),
        patches=module_twins.patches(connection, only),
    )


def _changes(seen: Fleet, accepted: Mapping[str, int], signing: Signing, now: datetime) -> list[Change]:
    """What has to be written, device by device."""
    found: list[Change] = []
    for twin in seen.twins:
        reported = facts_of(read_report(twin.reported))
        composition = compose(
            twin.name, twin.tags, seen.staging.for_device(twin.uuid), seen.pins, reported, seen.patches.get(twin.uuid, {})
        )
        if isinstance(composition, Incomposable):
            reason = (
                f"edge deployment {composition.edge_deployment} asks for image {composition.missing_image}, which is not there"
            )
            found.append(Stuck(twin.uuid, twin.name, reason))
            continue
        change = _change(twin, composition, seen.incarnation, accepted.get(twin.uuid, 0), signing, now)
        if change is not None:
            found.append(change)
    return found


def _settled(seen: Iterable[StoredTwin], changes: Iterable[Change]) -> dict[str, Settled]:
    """What rollouts have to know of these devices; nothing of one whose desired state still waits for a signature."""
    changed = {change.uuid: change for change in changes}
    found: dict[str, Settled] = {}
    for twin in seen:
        match changed.get(twin.uuid):
            case Issue(state=state):
                found[twin.uuid] = Settled(state.version, issued=True)
            case Stuck(reason=reason):
                found[twin.uuid] = Settled(twin.desired_version, stuck=reason)
            case Defer():
                pass
            case None if twin.unsigned is not None:
                pass
            case _:
                found[twin.uuid] = Settled(twin.desired_version)
    return found


def _apply(connection: Connection, lease: Lease, change: Change, signing: Signing, now: datetime) -> list[Downlink]:
    match change:
        case Issue(uuid, name, state, revision, envelope):
            envelope = envelope or sign(PAYLOAD_DESIRED_STATE, encode(state), signing.desired)
            twins.put_desired(connection, lease, state, revision, envelope)
            module_twins.forget_others(connection, uuid, state.modules)
            tell(
                connection,
                "device.desired-set",
                name,
                now,
                version=str(state.version),
                modules=" ".join(sorted(state.modules))[:1000],
            )
            return [_downlink(uuid, envelope)]
        case Defer(uuid, name, state):
            twins.put_unsigned(connection, lease, uuid, state)
            tell(connection, "device.desired-waits", name, now, version=str(state.version), reason="it waits for a signature")
        case Undefer(uuid):
            twins.put_unsigned(connection, lease, uuid, None)
        case Relabel(uuid, edge_deployment, revision):
            twins.put_edge_revision(connection, lease, uuid, edge_deployment, revision)
        case Stuck():
            pass  # it keeps what it has
    return []


def _change(twin: StoredTwin, found: Composition, incarnation: str, above: int, signing: Signing, now: datetime) -> Change | None:
    found = replace(found, key_generation=twin.key_generation, trusted_keys=signing.told)
    previous = None if twin.desired is None else read_envelope(twin.desired)
    waiting = read_waiting(twin.unsigned)
    state = next_state(twin.uuid, previous, found, incarnation=incarnation, above=above, now=now)
    if state is None:
        if waiting is not None:
            return Undefer(twin.uuid)
        if previous is not None and (twin.edge_deployment, twin.edge_revision) != (found.edge_deployment, found.revision):
            return Relabel(twin.uuid, found.edge_deployment, found.revision)
        return None
    if waiting is not None:
        newer = next_state(twin.uuid, waiting.state, found, incarnation=incarnation, above=max(above, state.version), now=now)
        if newer is None:  # what waits is what is wanted
            if waiting.envelope is None and not signing.desired:
                return None
            return Issue(twin.uuid, twin.name, waiting.state, found.revision, waiting.envelope)
        state = newer
    if len(encode(state)) > MAX_STATE_BYTES:
        return Stuck(twin.uuid, twin.name, f"what it should run has more than {MAX_STATE_BYTES} bytes with all its layers")
    return Issue(twin.uuid, twin.name, state, found.revision) if signing.desired else Defer(twin.uuid, twin.name, state)


def _downlink(device_uuid: str, envelope: bytes) -> Downlink:
    """What is too large for a message is fetched by the device itself."""
    if needs_reference(envelope):
        envelope = encode(reference_to(envelope, device_uuid, read_envelope(envelope).version))
    return Downlink(device_uuid, "desired", envelope, retain=True)
