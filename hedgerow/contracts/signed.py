"""Signed documents: DSSE envelopes (secure-systems-lab/dsse, v1.0.2) over exact bytes.

The workspace signs, devices verify. The signature covers the payload type as well, so a document of one kind can
never be replayed as another.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping

import msgspec

from hedgerow.contracts.document import decode, encode
from hedgerow.errors import UserError

Signer = Callable[[bytes], bytes]
Verifier = Callable[[bytes, bytes], bool]


class SignatureRefused(UserError):
    """No known key signed this document as it stands."""

    key = "signature_refused"
    message = "The signature of a {payload_type} document was refused: {problem}"
    remedy = "Check that the device trusts this workspace's key (enrol it again), and that nothing altered the document."


class Signature(msgspec.Struct, frozen=True, kw_only=True):
    keyid: str
    sig: str


class SignedEnvelope(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The DSSE JSON envelope; ``payload`` and ``sig`` are standard base64."""

    payload: str
    payload_type: str
    signatures: list[Signature]


def pre_authentication(payload_type: str, payload: bytes) -> bytes:
    """DSSE's PAE: what is actually signed."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)


def sign(payload_type: str, payload: bytes, signers: Mapping[str, Signer]) -> bytes:
    """Wrap ``payload``, signed by every key in ``signers`` (key id to signing function)."""
    message = pre_authentication(payload_type, payload)
    return encode(
        SignedEnvelope(
            payload=base64.b64encode(payload).decode(),
            payload_type=payload_type,
            signatures=[
                Signature(keyid=keyid, sig=base64.b64encode(signer(message)).decode()) for keyid, signer in signers.items()
            ],
        )
    )


def open_signed(data: bytes, payload_type: str, verifiers: Mapping[str, Verifier]) -> bytes:
    """The payload, if one of ``verifiers`` (key id to check) accepts it as ``payload_type``; else SignatureRefused."""
    envelope = decode(data, SignedEnvelope)
    if envelope.payload_type != payload_type:
        raise SignatureRefused(payload_type=payload_type, problem=f"it is a {envelope.payload_type}")
    try:
        payload = base64.b64decode(envelope.payload, validate=True)
        signatures = [(s.keyid, base64.b64decode(s.sig, validate=True)) for s in envelope.signatures]
    except ValueError:
        raise SignatureRefused(payload_type=payload_type, problem="it is not base64") from None
    message = pre_authentication(payload_type, payload)
    for keyid, signature in signatures:
        if keyid in verifiers and verifiers[keyid](signature, message):
            return payload
    raise SignatureRefused(payload_type=payload_type, problem="no signature by a trusted key")
