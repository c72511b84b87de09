"""The list of signing keys: what it says after each change, and after one that was cut off; who may sign what."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from hedgerow.contracts.backup import BackupHeader
from hedgerow.contracts.device import TRUSTED_KEYS_MAX
from hedgerow.contracts.names import PAYLOAD_DESIRED_STATE
from hedgerow.contracts.signed import SignatureRefused, open_signed, sign
from hedgerow.contracts.signing import kept_words
from registry.backup.errors import KeysUnusable
from registry.backup.keys import keys_from, take_identity
from registry.hub.signing import signing_of
from registry.identity.errors import LastSigningKey, SigningKeyUnknown, TooManySigningKeys
from registry.identity.signing_keys import (
    FIRST,
    LIST,
    SigningKeys,
    add_key,
    public_of,
    read_signing_keys,
    retire_key,
    take_offline,
)
from registry.workspace import open_workspace

READ = read_signing_keys


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return open_workspace(tmp_path / "workspace").keys


def ids(keys: SigningKeys) -> list[str]:
    return [key.keyid for key in keys.trusted]


def private_of(folder: Path, keyid: str) -> Ed25519PrivateKey:
    keys = READ(folder)
    return Ed25519PrivateKey.from_private_bytes(keys.private_of(keys.find(keyid)))


def test_as_long_as_there_is_one_key_devices_are_told_nothing(folder: Path) -> None:
    keys = READ(folder)
    assert keys.told == []
    assert not (folder / LIST).exists()
    assert [*keys.signers("desired")] == [*keys.signers("methods")] == ids(keys) == [keys.identity.keyid]


def test_two_keys_sign_and_the_old_one_goes(folder: Path) -> None:
    (old,) = ids(READ(folder))
    hub = signing_of(folder)
    assert [*hub().desired] == [old]
    new = add_key(folder).public.keyid
    assert [*hub().desired] == [*hub().methods] == [key.keyid for key in hub().told] == [old, new]
    both = sign(PAYLOAD_DESIRED_STATE, b"{}", hub().desired)
    retire_key(folder, old)
    assert [*hub().desired] == [key.keyid for key in hub().told] == [new]
    assert not (folder / FIRST).exists()
    assert open_signed(both, PAYLOAD_DESIRED_STATE, READ(folder).verifiers("desired")) == b"{}"
    assert READ(folder).was_ever(old)
    with pytest.raises(LastSigningKey):
        retire_key(folder, new)
    with pytest.raises(SigningKeyUnknown):
        retire_key(folder, old)


def test_a_private_half_leaves_only_when_somebody_has_it(folder: Path) -> None:
    (first,) = ids(READ(folder))
    private = private_of(folder, first)
    assert public_of(private).keyid == first
    for proof in (b"", Ed25519PrivateKey.generate().sign(kept_words(first)), private.sign(b"something else")):
        with pytest.raises(SigningKeyUnknown):
            take_offline(folder, first, proof)
    assert (folder / FIRST).exists()
    take_offline(folder, first, private.sign(kept_words(first)))
    keys = READ(folder)
    assert not (folder / FIRST).exists()
    assert [*keys.signers("desired")] == []
    (online,) = keys.signers("methods")
    assert online != first
    assert [*keys.verifiers("desired")] == [first], "the key that stays may sign no desired state"
    signed = sign(PAYLOAD_DESIRED_STATE, b"{}", {online: private_of(folder, online).sign})
    with pytest.raises(SignatureRefused):
        open_signed(signed, PAYLOAD_DESIRED_STATE, keys.verifiers("desired"))
    with pytest.raises(SigningKeyUnknown):
        keys.private_of(keys.find(first))
    with pytest.raises(LastSigningKey):
        retire_key(folder, first)


def test_there_are_never_more_keys_than_devices_take(folder: Path) -> None:
    """A device refuses a desired state that names more, so also the one by which a key would go."""
    (first,) = ids(READ(folder))
    private = private_of(folder, first)
    for _ in range(TRUSTED_KEYS_MAX - 1):
        add_key(folder, ["desired"])
    with pytest.raises(TooManySigningKeys):
        add_key(folder)
    # The first is the only one for method calls: away with it, there would have to be another.
    with pytest.raises(TooManySigningKeys):
        take_offline(folder, first, private.sign(kept_words(first)))
    assert (len(READ(folder).told), len(list(folder.glob("signing*.key")))) == (TRUSTED_KEYS_MAX, TRUSTED_KEYS_MAX)
    retire_key(folder, ids(READ(folder))[-1])
    add_key(folder)


def test_what_a_cut_off_change_leaves_is_harmless(folder: Path) -> None:
    (first,) = ids(READ(folder))
    # A key was written, the list was not; and the other way round: the list says that it is gone, the file is still there.
    (folder / "signing-0123456789ab.key").write_bytes(base64.b64encode(bytes(32)))
    assert ids(READ(folder)) == [first]
    new = add_key(folder).public.keyid
    raw = (folder / FIRST).read_bytes()
    retire_key(folder, first)
    (folder / FIRST).write_bytes(raw)
    assert ids(READ(folder)) == [new]


def test_a_key_is_found_by_how_its_id_begins(folder: Path) -> None:
    (first,) = ids(READ(folder))
    keys = READ(folder)
    for text in (first, first.removeprefix("sha256:"), first.removeprefix("sha256:")[:8]):
        assert keys.find(text).public.keyid == first
    for text in ("", "sha256:", "xyz"):
        with pytest.raises(SigningKeyUnknown):
            keys.find(text)


def test_files_are_for_the_owner_only(folder: Path) -> None:
    add_key(folder)
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}


def header(keyid: str) -> BackupHeader:
    return BackupHeader(
        format=1,
        workspace_id="0123456789abcdef",
        incarnation="i",
        hedgerow_version="0",
        revisions={},
        has_keys=True,
        has_blobs=False,
        created_at=datetime(2026, 11, 22, tzinfo=UTC),
        keyid=keyid,
        size_bytes=0,
    )


def test_a_backup_of_before_a_change_takes_the_keys_of_after(folder: Path, tmp_path: Path) -> None:
    (old,) = ids(READ(folder))
    new = add_key(folder).public.keyid
    retire_key(folder, old)
    (tmp_path / "restored").mkdir()
    restored = take_identity(tmp_path / "restored", header(old), keys_from(folder), "keys")
    assert restored.trusted_key.keyid == new
    (tmp_path / "another").mkdir()
    with pytest.raises(KeysUnusable, match="of another workspace"):
        take_identity(tmp_path / "another", header("sha256:other"), keys_from(folder), "keys")
    (tmp_path / "torn").mkdir()
    torn = {name: content for name, content in keys_from(folder).items() if not name.startswith("signing-") or name == LIST}
    with pytest.raises(KeysUnusable):
        take_identity(tmp_path / "torn", header(old), torn, "keys")
