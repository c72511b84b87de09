"""Keys on the device: what is stored and used, what is believed, and what a listener or a thief gets (nothing)."""

from __future__ import annotations

import base64
import os
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edge_agent.link.desired import Accepted, DesiredKeeper, Refusal
from edge_agent.link.keys import BrokerLogins, DeviceKeys, kept_secrets
from edge_agent.link.trusted import FILE, TrustedKeys, trusted_in
from edge_agent.methods.gate import Gate
from edge_agent.state_store import StateStore
from hedgerow.contracts.broker_login import device_login
from hedgerow.contracts.device import KeyUse, TrustedKey
from hedgerow.contracts.device_keys import KeyGrant, KeyRequest, grant_for, new_secret, open_grant, public_text
from hedgerow.contracts.document import encode
from hedgerow.contracts.edge import DesiredState
from hedgerow.contracts.methods import MethodCall
from hedgerow.contracts.names import PAYLOAD_DESIRED_STATE, PAYLOAD_METHOD_CALL
from hedgerow.contracts.seal import SealRefused
from hedgerow.contracts.signed import SignatureRefused, sign
from tests.agent_builders import NOW, Workspace, desired

WORKSPACE = Workspace()
CONFIG = WORKSPACE.config


def grant(generation: int = 2, raw: bytes | None = None) -> KeyGrant:
    key = base64.b64encode(raw or os.urandom(32)).decode()
    return KeyGrant(generation=generation, device_key=key, pull_token=f"token-{generation}")


def store(tmp_path: Path) -> StateStore:
    made = StateStore(tmp_path / "state")
    made.prepare()
    return made


# --- the exchange ----------------------------------------------------------------------------------------------------------


def test_only_the_maker_of_a_request_reads_its_answer() -> None:
    secret, given = new_secret(), grant()
    request = KeyRequest(device_uuid=WORKSPACE.uuid, generation=1, public_key=public_text(secret))
    answer = grant_for(request, given)
    assert open_grant(answer, secret) == given
    assert given.device_key not in encode(answer).decode()
    for changed, by in (
        (answer, new_secret()),
        (msgspec.structs.replace(answer, device_uuid="another"), secret),
        (msgspec.structs.replace(answer, public_key=public_text(new_secret())), secret),
        (msgspec.structs.replace(answer, box=base64.b64encode(b"short").decode()), secret),
        (msgspec.structs.replace(answer, box="no base64"), secret),
        # A key of order 1 would make every exchange end with the same secret.
        (msgspec.structs.replace(answer, public_key=base64.b64encode(bytes(32)).decode()), secret),
    ):
        with pytest.raises(SealRefused):
            open_grant(changed, by)
    with pytest.raises(ValueError, match=r"."):
        grant_for(msgspec.structs.replace(request, public_key=base64.b64encode(bytes(32)).decode()), given)


# --- keys in the state folder ----------------------------------------------------------------------------------------------


def test_a_later_key_is_kept_and_used_and_the_first_is_not_forgotten(tmp_path: Path) -> None:
    keys = DeviceKeys(CONFIG, store(tmp_path))
    assert (keys.generation, keys.key, keys.pull_token, keys.untold) == (1, WORKSPACE.device_key, "pull-secret", False)
    second, third = os.urandom(32), os.urandom(32)
    keys.store(grant(2, second))
    keys.told()
    keys.store(grant(3, third))
    again = DeviceKeys(CONFIG, store(tmp_path))
    for one in (keys, again):
        assert (one.generation, one.key, one.pull_token, one.untold) == (3, third, "token-3", True)
        assert one.logins() == [device_login(WORKSPACE.uuid, key) for key in (third, second, WORKSPACE.device_key)]
    with pytest.raises(ValueError, match="not newer"):
        again.store(grant(3))
    with pytest.raises(ValueError, match=r"."):
        again.store(msgspec.structs.replace(grant(4), device_key="AAAA"))
    assert again.generation == 3
    assert {"token-3", base64.b64encode(second).decode()} <= kept_secrets(CONFIG, tmp_path / "state")
    assert (tmp_path / "state" / "keys.json").stat().st_mode & 0o777 == 0o600


def test_a_disk_that_is_full_changes_nothing(tmp_path: Path) -> None:
    folder = store(tmp_path)
    keys = DeviceKeys(CONFIG, folder)
    (folder.folder / "keys.json").mkdir()  # nothing can take its place
    with pytest.raises(OSError, match=r"."):
        keys.store(grant())
    assert (keys.generation, keys.key, keys.pull_token) == (1, WORKSPACE.device_key, "pull-secret")


def test_another_device_toml_takes_the_place_of_what_was_kept(tmp_path: Path) -> None:
    DeviceKeys(CONFIG, store(tmp_path)).store(grant(2))
    other_token = msgspec.structs.replace(CONFIG, pull_token="made anew")
    assert DeviceKeys(other_token, store(tmp_path)).pull_token == "made anew"
    newer = msgspec.structs.replace(CONFIG, key_generation=2)
    assert DeviceKeys(newer, store(tmp_path)).key == WORKSPACE.device_key
    other = msgspec.structs.replace(CONFIG, device_uuid="0" * 8)
    assert DeviceKeys(other, store(tmp_path)).generation == 1


@pytest.mark.parametrize(
    "content", [b"", b"{", b'{"device_uuid":"UUID","keys":[{"generation":2,"key":"x"}],"pull_token":"","toml_token":""}']
)
def test_a_damaged_file_is_moved_aside(tmp_path: Path, content: bytes) -> None:
    folder = store(tmp_path)
    (folder.folder / "keys.json").write_bytes(content.replace(b"UUID", WORKSPACE.uuid.encode()))
    assert DeviceKeys(CONFIG, folder).generation == 1
    assert folder.damaged == ["keys.json"]


def test_logins_go_back_while_the_broker_refuses_and_forward_with_a_new_key(tmp_path: Path) -> None:
    keys = DeviceKeys(CONFIG, store(tmp_path))
    logins = BrokerLogins(keys)
    first = logins.current()
    logins.refused()
    assert logins.current() == first
    keys.store(grant(2))
    second = logins.current()
    assert second != first
    logins.refused()
    assert logins.current() == first
    logins.refused()
    assert logins.current() == second


def test_a_device_that_the_broker_lets_in_by_no_login_says_so_once(tmp_path: Path) -> None:
    said: list[str] = []
    keys = DeviceKeys(CONFIG, store(tmp_path))
    keys.store(grant(2))
    logins = BrokerLogins(keys, said.append)
    for _ in range(40):
        logins.current()
        logins.refused()
    assert len(said) == 1
    assert "enrol it anew" in said[0]


# --- which keys of the workspace are believed ------------------------------------------------------------------------------

NEW, METHODS, STRANGE = (Ed25519PrivateKey.generate() for _ in range(3))


def public(name: str, key: Ed25519PrivateKey, *uses: KeyUse) -> TrustedKey:
    raw = base64.b64encode(key.public_key().public_bytes_raw()).decode()
    return TrustedKey(keyid=name, key=raw, uses=list(uses))


OLD_PUBLIC, NEW_PUBLIC, METHODS_PUBLIC = public("k1", WORKSPACE.key), public("new", NEW), public("m", METHODS, "methods")


def state(version: int, *keys: TrustedKey) -> DesiredState:
    return msgspec.structs.replace(desired({}, version=version), trusted_keys=list(keys))


def by(document: DesiredState, **keys: Ed25519PrivateKey) -> bytes:
    return sign(PAYLOAD_DESIRED_STATE, encode(document), {name: key.sign for name, key in keys.items()})


def keeper(tmp_path: Path) -> DesiredKeeper:
    made = DesiredKeeper(CONFIG, store(tmp_path))
    made.load()
    return made


def accepts(keeper: DesiredKeeper, envelope: bytes) -> bool:
    answer = keeper.offer(envelope, "inc-1")
    assert isinstance(answer, Accepted | Refusal)
    return isinstance(answer, Accepted)


def test_a_new_key_is_believed_when_an_old_one_names_it(tmp_path: Path) -> None:
    device = keeper(tmp_path)
    assert not accepts(device, by(state(1, NEW_PUBLIC), new=NEW)), "it names itself"
    assert not accepts(device, by(state(1, NEW_PUBLIC), k1=STRANGE)), "another key under a known name"
    assert accepts(device, by(state(1, OLD_PUBLIC, NEW_PUBLIC), k1=WORKSPACE.key, new=NEW))
    assert device.trusted.keyids == ["k1", "new"]
    assert accepts(device, by(state(2, NEW_PUBLIC), new=NEW))
    for one in (device, keeper(tmp_path)):
        assert one.version == 2
        assert not accepts(one, by(state(3), k1=WORKSPACE.key)), "the old key is retired"
    assert accepts(keeper(tmp_path), by(state(3, NEW_PUBLIC), new=NEW))
    assert trusted_in(CONFIG, tmp_path / "state").keyids == ["new"]


def test_what_an_earlier_key_signed_as_well_makes_the_chain_shorter(tmp_path: Path) -> None:
    device = keeper(tmp_path)
    for version in range(1, 20):
        both = (OLD_PUBLIC, public(f"extra-{version}", NEW))
        assert accepts(device, by(state(version, *both), k1=WORKSPACE.key))
    kept = msgspec.json.decode((tmp_path / "state" / FILE).read_bytes())
    assert len(kept["links"]) == 1
    assert keeper(tmp_path).trusted.keyids == ["k1", "extra-19"]


def test_the_last_word_of_a_key_is_still_read_after_it(tmp_path: Path) -> None:
    last = by(state(1, NEW_PUBLIC), k1=WORKSPACE.key)
    assert accepts(keeper(tmp_path), last)
    again = keeper(tmp_path)
    assert (again.version, again.trusted.keyids) == (1, ["new"])


def test_a_power_cut_between_the_two_files_loses_nothing(tmp_path: Path) -> None:
    assert accepts(keeper(tmp_path), by(state(1, OLD_PUBLIC, NEW_PUBLIC), k1=WORKSPACE.key))
    (tmp_path / "state" / FILE).unlink()
    assert keeper(tmp_path).trusted.keyids == ["k1", "new"]
    assert (tmp_path / "state" / FILE).exists()


def test_who_can_write_the_file_is_not_believed(tmp_path: Path) -> None:
    forged = by(state(1, public("s", STRANGE)), s=STRANGE)
    folder = store(tmp_path)
    (folder.folder / FILE).write_bytes(msgspec.json.encode({"links": [base64.b64encode(forged).decode()]}))
    assert trusted_in(CONFIG, folder.folder).keyids == ["k1"]
    device = keeper(tmp_path)
    assert device.trusted.keyids == ["k1"]
    assert (folder.folder / f"{FILE}.damaged").exists()
    assert accepts(device, by(state(1), k1=WORKSPACE.key))


@pytest.mark.parametrize(
    "keys",
    [[METHODS_PUBLIC], [TrustedKey(keyid="x", key="AAAA")], [public(f"k{n}", NEW) for n in range(17)]],
    ids=["none for desired states", "no key", "too many"],
)
def test_a_set_that_would_end_everything_is_refused(tmp_path: Path, keys: list[TrustedKey]) -> None:
    device = keeper(tmp_path)
    assert not accepts(device, by(state(1, *keys), k1=WORKSPACE.key))
    assert device.trusted.keyids == ["k1"]


def test_a_key_for_methods_signs_methods_only(tmp_path: Path) -> None:
    device = keeper(tmp_path)
    assert accepts(device, by(state(1, OLD_PUBLIC, METHODS_PUBLIC), k1=WORKSPACE.key))
    assert not accepts(device, by(state(2), m=METHODS))
    gate = Gate(CONFIG, device.trusted)
    called = MethodCall(device_uuid=WORKSPACE.uuid, incarnation="inc-1", session="s", id="1", name="ping", expires_at=NOW)
    envelope = sign(PAYLOAD_METHOD_CALL, encode(called), {"m": METHODS.sign})
    assert gate.open(envelope, "s", "inc-1") == called
    with pytest.raises(SignatureRefused):
        Gate(CONFIG, TrustedKeys(CONFIG, store(tmp_path))).open(envelope, "s", "inc-1")
    only_desired = public("new", NEW, "desired")
    assert accepts(device, by(state(2, OLD_PUBLIC, only_desired), k1=WORKSPACE.key))
    with pytest.raises(SignatureRefused):
        gate.open(sign(PAYLOAD_METHOD_CALL, encode(called), {"new": NEW.sign}), "s", "inc-1")
    assert accepts(device, by(state(3, OLD_PUBLIC, only_desired), new=NEW))
