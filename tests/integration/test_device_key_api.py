"""``/devices/NAME/key`` against those who are not that device, and desired states that wait for a signature in the hub."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from hedgerow.contracts.api_fleet import EnrollDevice
from hedgerow.contracts.device import DeviceConfig
from hedgerow.contracts.document import convert, encode
from hedgerow.contracts.edge import DesiredState
from hedgerow.contracts.names import PAYLOAD_DESIRED_STATE
from hedgerow.contracts.signed import sign
from registry.hub.desired import DesiredStates
from registry.hub.notes import Notes
from registry.hub.signing import Signing
from registry.hub.unsigned import read_waiting
from registry.store import edge_deployments, fleet, twins, unsigned
from registry.store.database import Database
from tests.hub_parts import manifest
from tests.key_parts import Fetching
from tests.registry_server import Api, RunningServer, running_server
from tests.registry_stores import NOW, ready_database


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with running_server(tmp_path_factory.mktemp("server")) as started:
        yield started


def enroll(api: Api, name: str) -> DeviceConfig:
    return convert(api.post("/api/v1/devices", json={"name": name}).json()["config"], DeviceConfig)


def post(api: Api, path: str, token: str, body: Any) -> httpx.Response:
    return api.request("POST", f"/api/v1/devices/{path}", json=body, headers={"authorization": f"Bearer {token}"})


def refusal(answer: httpx.Response) -> str:
    assert 400 <= answer.status_code < 500, answer.text
    return str(answer.json()["error"]["code"])


def test_only_the_device_itself_gets_its_key(server: RunningServer) -> None:
    with server.client() as api:
        mine, other = enroll(api, "mine"), enroll(api, "other")
        for name in ("mine", "other"):
            api.post(f"/api/v1/devices/{name}/rotate-key")
        right = Fetching(mine)
        # Who has only the token; another device, with its own key or with mine; people, whatever their role.
        assert refusal(post(api, "mine/key", mine.pull_token, Fetching(mine, os.urandom(32)).request())) == "seal_refused"
        assert refusal(post(api, "mine/key", other.pull_token, right.request())) == "not_this_device"
        assert refusal(post(api, "other/key", other.pull_token, right.request())) == "seal_refused"
        assert refusal(api.post("/api/v1/devices/mine/key", json=right.request())) == "role_forbids"
        assert (
            refusal(post(api, "mine/key", mine.pull_token, right.request(device_uuid=other.device_uuid))) == "key_request_invalid"
        )
        assert refusal(post(api, "mine/key", mine.pull_token, right.request(public_key="x"))) == "key_request_invalid"
        assert refusal(post(api, "mine/key", mine.pull_token, {"sealed": "no base64"})) == "key_request_invalid"
        granted = right.grant(post(api, "mine/key", mine.pull_token, right.request()).json())
        # A lost answer is asked for again; a recorded request brings what its sender cannot read.
        assert right.grant(post(api, "mine/key", mine.pull_token, right.request()).json()) == granted
        replayed = Fetching(mine)
        with pytest.raises(Exception, match="seal"):
            replayed.grant(post(api, "mine/key", mine.pull_token, right.request()).json())
        # Nobody but who has the new key can end the old one.
        forged = msgspec.structs.replace(granted, device_key=mine.device_key)
        assert refusal(post(api, "mine/key/taken", mine.pull_token, right.taken(forged))) == "key_request_invalid"
        assert api.get("/api/v1/devices/mine").json()["key_generation"] == 1
        assert post(api, "mine/key/taken", granted.pull_token, right.taken(granted)).status_code == 204
        assert api.get("/api/v1/devices/mine").json()["key_generation"] == 2
        assert refusal(post(api, "mine/key", mine.pull_token, right.request())) == "token_refused", "the old token has ended"
        assert refusal(post(api, "mine/key", granted.pull_token, right.request())) == "seal_refused", "so has the old key"
        api.post("/api/v1/devices/mine/revoke")
        assert refusal(api.post("/api/v1/devices/mine/rotate-key")) == "device_revoked"


def test_who_repeats_what_a_device_said_does_not_take_its_new_token_away(server: RunningServer) -> None:
    """With the token of before, which is good until the device itself has said that it has the new key."""
    with server.client() as api:
        config = enroll(api, "listened-to")
        api.post("/api/v1/devices/listened-to/rotate-key")
        fetching = Fetching(config)
        granted = fetching.grant(post(api, "listened-to/key", config.pull_token, fetching.request()).json())
        said = fetching.taken(granted)
        assert post(api, "listened-to/key/taken", config.pull_token, said).status_code == 204
        assert post(api, "listened-to/key/taken", granted.pull_token, said).status_code == 204
        assert refusal(post(api, "listened-to/key/taken", config.pull_token, said)) == "token_refused"


def test_a_device_that_asks_for_its_key_all_day_does_not_fill_the_events(server: RunningServer) -> None:
    with server.client() as api:
        config = enroll(api, "eager")
        api.post("/api/v1/devices/eager/rotate-key")
        fetching = Fetching(config)
        grants = [fetching.grant(post(api, "eager/key", config.pull_token, fetching.request()).json()) for _ in range(3)]
        assert grants[0] == grants[1] == grants[2]
        told = [event["kind"] for event in api.get("/api/v1/events?subject=device/eager").json()["items"]]
        assert told.count("device.key-fetched") == 1


class Hub:
    """Desired states of one device, with keys that come and go."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.now: datetime = NOW
        self.key = Ed25519PrivateKey.generate()
        self.signers = {"k": self.key.sign}
        self.desired = DesiredStates(database, lambda: Signing(self.signers, self.signers), "me", Notes())
        with database.write() as connection:
            self.uuid = fleet.enroll(connection, EnrollDevice(name="porch"), NOW).uuid

    def deploy(self, argument: str) -> None:
        self.now += timedelta(seconds=1)
        with self.database.write() as connection:
            edge_deployments.put(connection, manifest("line", m=["run", argument]), self.now)

    def settle(self) -> list[int]:
        """Versions that are published."""
        published = self.desired.settle(self.now, 0.0)
        return [self.stored().desired_version for _ in published]

    def stored(self) -> twins.StoredTwin:
        with self.database.read() as connection:
            (twin,) = twins.stored_twins(connection)
        return twin

    def waiting(self) -> DesiredState | None:
        found = read_waiting(self.stored().unsigned)
        return found.state if found else None

    def bring(self, state: DesiredState) -> bool:
        payload = encode(state)
        with self.database.write() as connection:
            envelope = sign(PAYLOAD_DESIRED_STATE, payload, {"k": self.key.sign})
            return unsigned.put_signed(connection, self.uuid, payload, envelope)

    def count(self) -> int:
        with self.database.read() as connection:
            return unsigned.count(connection)


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    with ready_database(tmp_path / "workspace", None) as database:
        yield Hub(database)


def test_what_cannot_be_signed_waits_and_is_published_when_it_is(hub: Hub) -> None:
    hub.deploy("1")
    assert hub.settle() == [1]
    hub.signers.clear()
    assert (hub.settle(), hub.waiting(), hub.count()) == ([], None, 0), "nothing changes"
    hub.deploy("2")
    assert hub.settle() == []
    first = hub.waiting()
    assert first is not None
    assert (first.version, hub.count(), hub.stored().desired_version) == (2, 1, 1)
    assert (hub.settle(), hub.waiting()) == ([], first), "it is composed once, with one time in it"
    assert hub.bring(first)
    assert hub.count() == 0
    assert hub.settle() == [2]
    assert hub.waiting() is None


def test_what_changed_again_gets_a_higher_version_and_the_signature_of_before_is_stale(hub: Hub) -> None:
    hub.deploy("1")
    hub.settle()
    hub.signers.clear()
    hub.deploy("2")
    hub.settle()
    first = hub.waiting()
    hub.deploy("3")
    hub.settle()
    second = hub.waiting()
    assert first is not None
    assert second is not None
    assert (first.version, second.version) == (2, 3)
    assert not hub.bring(first)
    # Signed, but something else is wanted before the hub looks.
    assert hub.bring(second)
    hub.deploy("4")
    assert hub.settle() == []
    third = hub.waiting()
    assert third is not None
    assert third.version == 4
    # Wanted as it was before all this: nothing waits any more.
    hub.deploy("1")
    assert (hub.settle(), hub.waiting(), hub.count()) == ([], None, 0)
    assert not hub.bring(third)


def test_a_key_that_comes_back_signs_what_waits(hub: Hub) -> None:
    hub.signers.clear()
    hub.deploy("1")
    assert hub.settle() == []
    hub.signers["k"] = hub.key.sign
    assert hub.settle() == [1]
    assert hub.waiting() is None
