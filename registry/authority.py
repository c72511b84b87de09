"""The workspace's own certificate authority: what devices trust when the broker has no certificate of a public one.

``keys/ca.key`` and ``keys/ca.pem`` are made when first needed. Its certificates are for servers of this workspace only.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from hedgerow.errors import Bug
from registry.workspace import Workspace, link_once

AUTHORITY_DAYS = 3650
SERVER_DAYS = 365
# Clocks differ: what is issued now has to hold for a device that is a little behind.
_BEFORE = timedelta(days=1)


@dataclass(frozen=True)
class Issued:
    """A certificate with its key, both PEM."""

    certificate: bytes
    key: bytes


def authority_certificate(workspace: Workspace, now: datetime) -> bytes:
    """The authority's certificate (PEM), made with its key at the first call. Safe to call at once from several processes."""
    path = workspace.keys / "ca.pem"
    if not path.exists():
        key = _authority_key(workspace)
        name = _name(f"Hedgerow workspace {workspace.id}")
        made = (
            _builder(name, name, key.public_key(), now, AUTHORITY_DAYS)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(authority=True), critical=True)
            .sign(key, SHA256())
        )
        link_once(path, made.public_bytes(Encoding.PEM), 0o644)
    return path.read_bytes()


def issue_server(workspace: Workspace, names: Sequence[str], now: datetime) -> Issued:
    """A certificate for a server that is reached by ``names`` (host names and addresses, at least one)."""
    authority = x509.load_pem_x509_certificate(authority_certificate(workspace, now))
    key = ec.generate_private_key(ec.SECP256R1())
    made = (
        _builder(_name(names[0][:64]), authority.subject, key.public_key(), now, SERVER_DAYS)
        .add_extension(x509.SubjectAlternativeName([_general(name) for name in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(authority=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(_authority_key(workspace), SHA256())
    )
    return Issued(made.public_bytes(Encoding.PEM), _pem(key))


def _authority_key(workspace: Workspace) -> ec.EllipticCurvePrivateKey:
    path: Path = workspace.keys / "ca.key"
    if not path.exists():
        link_once(path, _pem(ec.generate_private_key(ec.SECP256R1())), 0o600)
    key = load_pem_private_key(path.read_bytes(), password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise Bug(what=f"{path.name} holds another kind of key")
    return key


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime, days: int
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BEFORE)
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
