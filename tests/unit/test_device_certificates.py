"""What certificate requests are taken, what the workspace's authority issues, and its list of what was revoked."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from edge_agent.link.certificate import read_certificate
from hedgerow.errors import InvalidSetting
from registry.identity.authority import authority_certificate, issue_client, issue_server
from registry.identity.device_certificates import life_of, requested_key
from registry.identity.errors import CertificateRequestRefused
from registry.identity.revocations import Revocations
from registry.mosquitto.configuration import Listening, configuration, rules
from registry.workspace import Workspace, open_workspace
from tests.certificate_parts import new_key, request_of, write_certified

NOW = datetime(2026, 3, 1, 12, 0, 0, 500_000, tzinfo=UTC)
UUID = "0b0e7a7e-1111-4222-8333-444455556666"


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return open_workspace(tmp_path / "w")


def test_keys_that_brokers_take_are_taken() -> None:
    for key in (new_key(), ec.generate_private_key(ec.SECP384R1()), ed25519.Ed25519PrivateKey.generate()):
        assert requested_key(request_of(key)) == key.public_key()
    assert requested_key(request_of(rsa.generate_private_key(65_537, 2048)))


def test_weak_and_strange_keys_are_refused() -> None:
    weak = rsa.generate_private_key(65_537, 1024)
    strange = ec.generate_private_key(ec.SECP256K1())
    for key, said in ((weak, "1024 bits"), (strange, "secp256k1")):
        with pytest.raises(CertificateRequestRefused, match=said):
            requested_key(request_of(key))
    other = dsa.generate_private_key(2048)
    signed = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(other, SHA256())
    with pytest.raises(CertificateRequestRefused, match="another kind"):
        requested_key(signed.public_bytes(Encoding.PEM).decode())


def test_a_request_for_somebody_elses_key_is_refused() -> None:
    """The key of one request under the signature of another."""
    der = x509.load_pem_x509_csr(request_of(new_key()).encode()).public_bytes(Encoding.DER)
    forged = bytearray(der)
    forged[-1] ^= 1
    pem = x509.load_der_x509_csr(bytes(forged)).public_bytes(Encoding.PEM).decode()
    with pytest.raises(CertificateRequestRefused, match="signature"):
        requested_key(pem)


@pytest.mark.parametrize(
    "text",
    ["", "x", "\u00e9", "\0", "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n", "A" * 16_384],
    ids=["empty", "letter", "accent", "nul", "short", "long"],
)
def test_what_is_no_request_is_refused(text: str) -> None:
    with pytest.raises(CertificateRequestRefused):
        requested_key(text)


def test_a_clients_certificate_is_for_its_device_and_for_clients_only(workspace: Workspace) -> None:
    key = new_key()
    made = issue_client(workspace, UUID, key.public_key(), NOW, timedelta(days=30), "https://plant.example/authority.crl")
    read = x509.load_pem_x509_certificate(made.certificate)
    assert read.subject.rfc4514_string() == f"CN={UUID}"
    assert read.public_key() == key.public_key()
    assert f"{read.serial_number:x}" == made.serial
    assert read.not_valid_after_utc == made.expires_at == NOW.replace(microsecond=0) + timedelta(days=30)
    assert timedelta(0) < NOW - read.not_valid_before_utc <= timedelta(minutes=6)
    assert list(read.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert not read.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert read.extensions.get_extension_for_class(x509.CRLDistributionPoints)
    read.verify_directly_issued_by(x509.load_pem_x509_certificate(authority_certificate(workspace, NOW)))
    server = x509.load_pem_x509_certificate(issue_server(workspace, ["plant.example"], NOW).certificate)
    assert list(server.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == [ExtendedKeyUsageOID.SERVER_AUTH]
    assert (workspace.keys / "ca.key").stat().st_mode & 0o077 == 0


def test_a_short_life_is_not_begun_before_its_time(workspace: Workspace) -> None:
    made = issue_client(workspace, UUID, new_key().public_key(), NOW, timedelta(seconds=30))
    read = x509.load_pem_x509_certificate(made.certificate)
    assert timedelta(0) < NOW - read.not_valid_before_utc <= timedelta(seconds=5)


@pytest.mark.parametrize("seconds", [0.0, -1.0, 4.9, float("nan"), float("inf"), 1e9])
def test_a_life_that_no_certificate_can_have_is_refused(seconds: float) -> None:
    with pytest.raises(InvalidSetting):
        life_of(seconds)


def test_the_list_is_signed_by_the_authority_and_stays_until_something_changes(workspace: Workspace) -> None:
    lists = Revocations(workspace, timedelta(days=4))
    empty = lists.current([], NOW)
    assert lists.current([], NOW + timedelta(hours=23)) == empty
    revoked = [("ab12", NOW)]
    # Several within one second still follow upon each other: Mosquitto goes by the youngest.
    second, third = lists.current(revoked, NOW), lists.current([*revoked, ("cd34", NOW)], NOW)
    read = [x509.load_pem_x509_crl(pem) for pem in (empty, second, third)]
    authority = x509.load_pem_x509_certificate(authority_certificate(workspace, NOW))
    public = authority.public_key()
    assert isinstance(public, ec.EllipticCurvePublicKey)
    assert all(one.is_signature_valid(public) for one in read)
    times = [one.last_update_utc for one in read]
    assert times == sorted(set(times))
    assert times[-1] < NOW
    assert [len(list(one)) for one in read] == [0, 1, 2]
    assert read[1].get_revoked_certificate_by_serial_number(0xAB12) is not None
    assert x509.load_der_x509_crl(lists.current_der([*revoked, ("cd34", NOW)], NOW)) == read[2]


def test_the_list_is_renewed_long_before_its_end(workspace: Workspace) -> None:
    lists = Revocations(workspace, timedelta(days=4))
    assert lists.due_in(NOW) == timedelta(0)
    first = x509.load_pem_x509_crl(lists.current([], NOW))
    assert lists.due_in(NOW) == timedelta(days=1)
    later = NOW + timedelta(days=1)
    assert lists.due_in(later) == timedelta(0)
    second = x509.load_pem_x509_crl(lists.current([], later))
    assert first.next_update_utc is not None
    assert second.next_update_utc is not None
    assert later < first.next_update_utc < second.next_update_utc


def test_a_clock_that_was_set_back_makes_no_list_of_the_future(workspace: Workspace) -> None:
    lists = Revocations(workspace, timedelta(days=4))
    lists.current([], NOW)
    back = NOW - timedelta(days=300)
    assert lists.due_in(back) == timedelta(0)
    assert x509.load_pem_x509_crl(lists.current([], back)).last_update_utc < back


def test_what_an_agent_keeps_belongs_together_and_to_its_device(workspace: Workspace, tmp_path: Path) -> None:
    key = new_key()
    made = issue_client(workspace, UUID, key.public_key(), NOW, timedelta(days=30))
    whole = write_certified(tmp_path / "whole.pem", key, made.certificate).path.read_bytes()
    assert read_certificate(whole, UUID).serial == made.serial
    mixed = write_certified(tmp_path / "mixed.pem", new_key(), made.certificate).path.read_bytes()
    for pem, uuid in (
        (whole, UUID[::-1]),
        (mixed, UUID),
        (made.certificate, UUID),
        (whole[: len(whole) // 2], UUID),
        (b"", UUID),
    ):
        with pytest.raises(ValueError):  # noqa: PT011 - whatever the library says of it
            read_certificate(pem, uuid)


def test_certificates_have_a_listener_of_their_own() -> None:
    text = configuration(Listening(1883, ("0.0.0.0", 8883), ("0.0.0.0", 8884)), Path("/f"))
    before, _, after = text.partition("listener 8884 0.0.0.0")
    for line in (
        "require_certificate true",
        "use_identity_as_username true",
        "cafile /f/authority.pem",
        "crlfile /f/revoked.pem",
    ):
        assert line not in before
        assert line in after.splitlines()
    assert "listener 8883 0.0.0.0" in before


def test_who_is_barred_may_do_nothing_and_others_what_they_may() -> None:
    lines = rules("hedgerow/w", ["b", "a"]).splitlines()
    assert lines[lines.index("user a") + 1] == lines[lines.index("user b") + 1] == "topic deny #"
    assert [line for line in lines if line.startswith("pattern")] == [
        line for line in rules("hedgerow/w").splitlines() if line.startswith("pattern")
    ]
