"""A hub's rollouts on a real database, with devices that report what a test says. No process, no broker, a clock to turn."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import select

from hedgerow.contracts.api_fleet import EnrollDevice
from hedgerow.contracts.edge import DesiredState, EdgeDeployment
from hedgerow.contracts.rollout import OnError, Rollout, RolloutDevice, RolloutGroup, RolloutPolicy
from hedgerow.contracts.status import DesiredOutcome, ModuleStatus, StatusReport
from registry.hub.desired import DesiredStates, read_envelope
from registry.hub.manifest import check_manifest
from registry.hub.notes import Notes
from registry.hub.rollouts.plan import Action, steer
from registry.hub.rollouts.rollouts import Rollouts, reverse
from registry.store import edge_deployments, events, fleet, rollout_devices, rollouts, tables, twins
from registry.store.database import Database
from tests.hub_parts import manifest
from tests.registry_stores import NOW

NAME = "line"


def in_groups(*groups: RolloutGroup, on_error: OnError = "pause") -> RolloutPolicy:
    return RolloutPolicy(groups=list(groups), on_error=on_error)


def of_devices(number: int, **rules: object) -> RolloutGroup:
    return msgspec.structs.replace(RolloutGroup(devices=number), **rules)


@dataclass
class RolloutPlace:
    """The hub's part of rollouts: :meth:`go` does what its loop does until nothing is left to do."""

    database: Database
    now: datetime = NOW
    key: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)
    uuids: dict[str, str] = field(default_factory=dict)
    _sequence: int = 0

    def __post_init__(self) -> None:
        self.start_hub()

    def start_hub(self, holder: str = "me") -> None:
        """Also another one after the one before ended without a word."""
        self.desired = DesiredStates(self.database, {"k": self.key.sign}, holder, Notes())
        self.rollouts = Rollouts(self.database, holder)

    def enroll(self, *names: str, **tags: str) -> list[str]:
        for name in names:
            with self.database.write() as connection:
                self.uuids[name] = fleet.enroll(connection, EnrollDevice(name=name, tags=tags), self.now).uuid
        return list(names)

    def deploy(self, command: str, policy: RolloutPolicy | None = None, **changes: object) -> EdgeDeployment:
        """A revision whose only module runs ``command``; then the hub looks."""
        wanted = msgspec.structs.replace(manifest(NAME, m=[command]), rollout=policy, **changes)
        with self.database.write() as connection:
            stored = edge_deployments.put(connection, check_manifest(connection, wanted), self.now)
        self.go()
        return stored

    def go(self, **later: float) -> None:
        self.now += timedelta(**later)
        now_s = (self.now - NOW).total_seconds()
        self.rollouts.hurry()
        for _ in range(20):
            changed = self.rollouts.tend(self.now, now_s)
            self.desired.settle(self.now, now_s)
            told = self.desired.take_told()
            self.rollouts.heard(told, now_s)
            if not changed and not told:
                return
        raise AssertionError("it does not come to rest")

    def steer(self, action: Action, why: str = "asked for") -> None:
        with self.database.write() as connection:
            edge_deployments.get(connection, NAME, lock=True)
            found = rollouts.newest(connection, NAME, lock=True)
            assert found is not None
            after, _ = steer(found, action, why, self.now)
            rollouts.write(connection, after)
            if after.state == "reversing":
                reverse(connection, after, events.system("test"), self.now)
        self.go()

    def state_of(self, name: str) -> DesiredState | None:
        with self.database.read() as connection:
            envelope = twins.desired_envelopes(connection, [self.uuids[name]]).get(self.uuids[name])
        return None if envelope is None else read_envelope(envelope)

    def runs(self) -> dict[str, str]:
        """What each device should run, by name; "" for nothing."""
        found = {name: self.state_of(name) for name in self.uuids}
        return {name: state.modules["m"].spec.command[0] if state and state.modules else "" for name, state in found.items()}

    def with_command(self, command: str) -> set[str]:
        return {name for name, found in self.runs().items() if found == command}

    def report(self, *names: str, code: int = 200, version: int | None = None, go: bool = True, **module: object) -> None:
        """These devices say how they do with their newest desired state; then the hub looks."""
        for name in names:
            self._sequence += 1
            state = self.state_of(name)
            told = state.version if state else 0
            status = msgspec.structs.replace(ModuleStatus(state="running", reason=""), **module)
            report = StatusReport(
                device_uuid=self.uuids[name],
                session="s",
                sequence=self._sequence,
                reported_at=self.now,
                agent_version="test",
                boot_id="b",
                desired=DesiredOutcome(version=told if version is None else version, code=code, message="so it is"),
                modules={"m": status} if state and state.modules else {},
            )
            with self.database.write() as connection:
                twins.put_report(connection, report, self.now)
            self.rollouts.heard([self.uuids[name]], (self.now - NOW).total_seconds())
        if go:
            self.go()

    def roll_back(self, *names: str, go: bool = True) -> None:
        self.report(*names, code=500, rolled_back_from="x", rollback_reason="exit code 3", go=go)

    def rollout(self) -> Rollout:
        with self.database.read() as connection:
            found = rollouts.newest(connection, NAME)
        assert found is not None
        return found

    def groups(self) -> list[tuple[str, int, int, int, int]]:
        """State, devices, released, succeeded, failed of each group."""
        return [(one.state, one.devices, one.released, one.succeeded, one.failed) for one in self.rollout().groups]

    def members(self) -> dict[str, RolloutDevice]:
        with self.database.read() as connection:
            found, _ = rollout_devices.page(connection, self.rollout().id, 1000, None)
        return {one.device: one for one in found}

    def in_group(self, number: int) -> list[str]:
        return [name for name, one in self.members().items() if one.group == number]

    def deployment(self) -> EdgeDeployment:
        with self.database.read() as connection:
            return edge_deployments.get(connection, NAME)

    def told(self) -> list[str]:
        """Kinds of all events of rollouts, oldest first."""
        # Not as followers read them: on a PostgreSQL with other tests they are shown when those have committed.
        with self.database.read() as connection:
            rows = connection.execute(select(tables.events.c.kind).order_by(tables.events.c.number))
            return [row.kind.partition(".")[2] for row in rows if row.kind.startswith("edge-rollout.")]
