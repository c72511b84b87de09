"""Seals and signatures: what was altered, moved or replayed elsewhere is refused."""

from __future__ import annotations

import base64
import contextlib
import json

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

from hedgerow.contracts.names import PAYLOAD_DESIRED_STATE
from hedgerow.contracts.seal import DEVICE_KEY_BYTES, SealRefused, device_key, seal, unseal
from hedgerow.contracts.signed import SignatureRefused, Verifier, open_signed, pre_authentication, sign
from hedgerow.errors import InvalidDocument

KEY = bytes(range(32))
DEVICE = "7d1f0a52-3c1b-4a53-9a38-0d5a8f6a4c11"


def test_the_wire_form_is_fixed() -> None:
    """Devices in the field hold old agents: these bytes may never change."""
    assert seal(KEY, DEVICE, "acks", b"hello") == (
        b"hedgerow-seal-v1 51ced7d1754e64eadfa62d43f68b91009c454ce78864272bbb82e48990dfab6d\nhello"
    )
    assert device_key(KEY, DEVICE, 1).hex() == "2d0afe6ec7936501fad93a79809f0ba29b7181651d533cfc9c4bb937c504468e"


@given(st.binary(), st.sampled_from(["hello", "telemetry", "acks"]))
def test_what_was_sealed_opens(payload: bytes, purpose: str) -> None:
    assert unseal(KEY, DEVICE, purpose, seal(KEY, DEVICE, purpose, payload)) == payload


@given(st.binary(max_size=40), st.data())
def test_any_changed_byte_breaks_the_seal(payload: bytes, data: st.DataObject) -> None:
    sealed = bytearray(seal(KEY, DEVICE, "acks", payload))
    position = data.draw(st.integers(0, len(sealed) - 1))
    sealed[position] ^= data.draw(st.integers(1, 255))
    with pytest.raises(SealRefused):
        unseal(KEY, DEVICE, "acks", bytes(sealed))


@given(st.binary(max_size=200))
def test_what_was_never_sealed_is_refused(message: bytes) -> None:
    with pytest.raises(SealRefused) as caught:
        unseal(KEY, DEVICE, "acks", message)
    assert DEVICE in str(caught.value)


@pytest.mark.parametrize("cut", [0, 1, 16, 50, 81, 82, -1])
def test_a_truncated_message_is_refused(cut: int) -> None:
    with pytest.raises(SealRefused):
        unseal(KEY, DEVICE, "acks", seal(KEY, DEVICE, "acks", b"payload")[:cut])


def test_a_seal_counts_for_its_key_device_and_purpose_only() -> None:
    sealed = seal(KEY, DEVICE, "telemetry", b"x")
    for key, device, purpose in [(b"\0" * 32, DEVICE, "telemetry"), (KEY, DEVICE[::-1], "telemetry"), (KEY, DEVICE, "acks")]:
        with pytest.raises(SealRefused):
            unseal(key, device, purpose, sealed)


def test_device_keys_differ_by_device_and_generation() -> None:
    keys = {device_key(KEY, device, generation) for device in (DEVICE, DEVICE[::-1]) for generation in (1, 2)}
    assert len(keys) == 4
    assert {len(key) for key in keys} == {DEVICE_KEY_BYTES}


def _verifier(key: Ed25519PublicKey) -> Verifier:
    def verify(signature: bytes, message: bytes) -> bool:
        try:
            key.verify(signature, message)
        except InvalidSignature:
            return False
        return True

    return verify


PRIVATE = Ed25519PrivateKey.from_private_bytes(KEY)
TRUSTED = {"k1": _verifier(PRIVATE.public_key())}
SIGNED = sign(PAYLOAD_DESIRED_STATE, b'{"version":1}', {"k1": PRIVATE.sign})


def test_the_encoding_to_be_signed_is_that_of_dsse() -> None:
    """The example of the DSSE specification."""
    assert (
        pre_authentication("http://example.com/HelloWorld", b"hello world")
        == b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )


@given(st.binary(), st.sampled_from([PAYLOAD_DESIRED_STATE, "x", "ä"]))
def test_what_was_signed_opens(payload: bytes, kind: str) -> None:
    assert open_signed(sign(kind, payload, {"k1": PRIVATE.sign}), kind, TRUSTED) == payload


@given(st.integers(0, len(SIGNED) - 1), st.integers(1, 255))
def test_any_changed_byte_is_noticed(position: int, change: int) -> None:
    """Either refused, or (unused base64 bits, spaces) still exactly the payload that was signed."""
    altered = bytearray(SIGNED)
    altered[position] ^= change
    with contextlib.suppress(SignatureRefused, InvalidDocument):
        assert open_signed(bytes(altered), PAYLOAD_DESIRED_STATE, TRUSTED) == b'{"version":1}'


def test_a_document_of_one_kind_is_none_of_another() -> None:
    with pytest.raises(SignatureRefused, match=r"it is a application/vnd\.hedgerow\.desired-state"):
        open_signed(SIGNED, "application/vnd.hedgerow.method.v1+json", TRUSTED)
    relabelled = json.loads(SIGNED) | {"payloadType": "application/vnd.hedgerow.method.v1+json"}
    with pytest.raises(SignatureRefused, match="no signature by a trusted key"):
        open_signed(json.dumps(relabelled).encode(), "application/vnd.hedgerow.method.v1+json", TRUSTED)


def test_another_payload_under_the_same_signature_is_refused() -> None:
    swapped = json.loads(SIGNED) | {"payload": base64.b64encode(b'{"version":2}').decode()}
    with pytest.raises(SignatureRefused):
        open_signed(json.dumps(swapped).encode(), PAYLOAD_DESIRED_STATE, TRUSTED)


def test_a_strangers_signature_under_a_trusted_key_id_is_refused() -> None:
    stranger = Ed25519PrivateKey.generate()
    for signers in ({"k1": stranger.sign}, {"k2": stranger.sign}, {}):
        with pytest.raises(SignatureRefused):
            open_signed(sign(PAYLOAD_DESIRED_STATE, b"{}", signers), PAYLOAD_DESIRED_STATE, TRUSTED)


def test_one_trusted_signature_among_others_is_enough() -> None:
    """During a rotation a document carries the old and the new key's signature."""
    both = sign(PAYLOAD_DESIRED_STATE, b"{}", {"k0": Ed25519PrivateKey.generate().sign, "k1": PRIVATE.sign})
    assert open_signed(both, PAYLOAD_DESIRED_STATE, TRUSTED) == b"{}"


@pytest.mark.parametrize("field", ["payload", "sig"])
@pytest.mark.parametrize("rubbish", ["é", "====", "a", "a b", "\n"])
def test_what_is_not_base64_is_refused(field: str, rubbish: str) -> None:
    envelope = json.loads(SIGNED)
    if field == "payload":
        envelope["payload"] = rubbish
    else:
        envelope["signatures"][0]["sig"] = rubbish
    with pytest.raises(SignatureRefused):
        open_signed(json.dumps(envelope).encode(), PAYLOAD_DESIRED_STATE, TRUSTED)
