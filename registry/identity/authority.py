"""The workspace's own certificate authority: what devices trust when the broker has no certificate of a public one.

``keys/ca.key`` and ``keys/ca.pem`` are made when first needed. Its certificates are for servers of this workspace and for its
devices as clients; neither does for the other (extended key usage). What was revoked stands in its revocation list.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from hedgerow.errors import Bug
from registry.workspace import Workspace, link_once

AUTHORITY_DAYS = 3650
SERVER_DAYS = 365
# Clocks differ: what is issued now has to hold for a device that is a little behind.
_BEFORE = timedelta(days=1)
# Of a client's certificate, at most a tenth of its life: who renews by its dates must not find most of it gone.
_CLIENT_BEFORE = timedelta(minutes=5)


@dataclass(frozen=True)
class Issued:
    """A certificate with its key, both PEM."""

    certificate: bytes
    key: bytes


@dataclass(frozen=True)
class IssuedClient:
    """A client's certificate (PEM); ``serial`` is hexadecimal."""

    certificate: bytes
    serial: str
    expires_at: datetime


def authority_certificate(workspace: Workspace, now: datetime) -> bytes:
    """The authority's certificate (PEM), made with its key at the first call. Safe to call at once from several processes."""
    path = workspace.keys / "ca.pem"
    if not path.exists():
        key = _authority_key(workspace)
        name = _name(f"Hedgerow workspace {workspace.id}")
        made = (
            _builder(name, name, key.public_key(), _days(now, AUTHORITY_DAYS))
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
        _builder(_name(names[0][:64]), authority.subject, key.public_key(), _days(now, SERVER_DAYS))
        .add_extension(x509.SubjectAlternativeName([_general(name) for name in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(authority=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(_authority_key(workspace), SHA256())
    )
    return Issued(made.public_bytes(Encoding.PEM), _pem(key))


def issue_client(
    workspace: Workspace, name: str, key: CertificatePublicKeyTypes, now: datetime, life: timedelta, list_url: str = ""
) -> IssuedClient:
    """A certificate for the client ``name`` (at most 64 characters) with this public key, whose other half never was here.

    ``list_url`` is where brokers find the revocation list; empty: not said.
    """
    authority = x509.load_pem_x509_certificate(authority_certificate(workspace, now))
    # Certificates count whole seconds.
    begins, ends = now - min(_CLIENT_BEFORE, life / 10), (now + life).replace(microsecond=0)
    builder = (
        _builder(_name(name), authority.subject, key, (begins, ends))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(authority=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        .add_extension(_identifier_of(authority), critical=False)
    )
    if list_url:
        point = x509.DistributionPoint([x509.UniformResourceIdentifier(list_url)], None, None, None)
        builder = builder.add_extension(x509.CRLDistributionPoints([point]), critical=False)
    made = builder.sign(_authority_key(workspace), SHA256())
    return IssuedClient(made.public_bytes(Encoding.PEM), f"{made.serial_number:x}", ends)


def revocation_list(
    workspace: Workspace, revoked: Sequence[tuple[str, datetime]], now: datetime, issued: datetime, until: datetime
) -> x509.CertificateRevocationList:
    """The signed list of ``revoked`` (serial, when), which says that it was ``issued`` then and counts until ``until``."""
    authority = x509.load_pem_x509_certificate(authority_certificate(workspace, now))
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(authority.subject)
        .last_update(issued)
        .next_update(until)
        .add_extension(x509.CRLNumber(int(issued.timestamp())), critical=False)
        .add_extension(_identifier_of(authority), critical=False)
    )
    for serial, at in revoked:
        entry = x509.RevokedCertificateBuilder().serial_number(int(serial, 16)).revocation_date(at)
        builder = builder.add_revoked_certificate(entry.build())
    return builder.sign(_authority_key(workspace), SHA256())


def _authority_key(workspace: Workspace) -> ec.EllipticCurvePrivateKey:
    path: Path = workspace.keys / "ca.key"
    if not path.exists():
        link_once(path, _pem(ec.generate_private_key(ec.SECP256R1())), 0o600)
    key = load_pem_private_key(path.read_bytes(), password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise Bug(what=f"{path.name} holds another kind of key")
    return key


def _days(now: datetime, days: int) -> tuple[datetime, datetime]:
    return now - _BEFORE, now + timedelta(days=days)


def _identifier_of(authority: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    found = authority.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(found)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: CertificatePublicKeyTypes, valid: tuple[datetime, datetime]
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(valid[0])
        .not_valid_after(valid[1])
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
