"""Certificates of devices over the REST API: by the device's own token, for its own key, and never for more."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa

from hedgerow.contracts.device import DeviceConfig
from hedgerow.contracts.seal import device_key
from hedgerow.sdk.client import Client
from hedgerow.sdk.errors import ApiError
from registry.identity.device_certificates import ISSUED_MOST
from registry.workspace import open_workspace
from tests.certificate_parts import ask, certify, new_key, request_of
from tests.fixtures.control_plane import ControlPlane
from tests.fixtures.parts import search_path


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    plane = ControlPlane(tmp_path_factory.mktemp("plane"))
    try:
        yield plane.start()
    finally:
        plane.end()


@pytest.fixture
def client(plane: ControlPlane) -> Iterator[Client]:
    with plane.client() as connected:
        yield connected


def enroll(client: Client, name: str) -> DeviceConfig:
    return client.devices.enroll(name).config


def test_the_name_in_a_request_is_passed_over(client: Client, tmp_path: Path) -> None:
    one, other = enroll(client, "one"), enroll(client, "other")
    key = new_key()
    status, answer = ask(one, request_of(key, other.device_uuid))
    assert status == 201
    read = x509.load_pem_x509_certificate(answer["certificate"].encode())
    assert read.subject.rfc4514_string() == f"CN={one.device_uuid}"
    assert read.public_key() == key.public_key()
    read.verify_directly_issued_by(x509.load_pem_x509_certificate(answer["authority"].encode()))
    assert [found.serial for found in client.devices.certificates("one").items] == [answer["serial"]]
    assert client.devices.certificates("one").items[0].certificate == ""
    assert client.devices.certificates("other").items == []


def test_only_the_device_itself_is_given_one(client: Client, plane: ControlPlane) -> None:
    mine, victim = enroll(client, "mine"), enroll(client, "victim")
    request = request_of(new_key())
    owner = (plane.workspace / "run" / "owner.token").read_text().strip()
    for name, token, status, code in (
        ("victim", mine.pull_token, 403, "not_this_device"),
        ("nobody", mine.pull_token, 403, "not_this_device"),
        ("victim", owner, 403, "role_forbids"),
        ("victim", "hrw_x_y", 401, "token_refused"),
    ):
        answered = ask(mine, request, name=name, token=token)
        assert (answered[0], answered[1]["error"]["code"]) == (status, code)
    assert client.devices.certificates("victim").items == []
    assert ask(victim, request)[0] == 201


def test_the_token_alone_brings_no_certificate(client: Client, plane: ControlPlane) -> None:
    """It goes with every pull of an image; a certificate lets its holder hear all that the device is told."""
    config, other = enroll(client, "sealing"), enroll(client, "sealing-too")
    request, master = request_of(new_key()), open_workspace(plane.workspace).device_master
    for key in (bytes(32), other.key_bytes(), device_key(master, config.device_uuid, 0)):
        status, answer = ask(config, request, key=key)
        assert (status // 100, answer["error"]["code"]) == (4, "seal_refused")
    assert client.devices.certificates("sealing").items == []
    # Of a key that it fetched a moment ago, or before this database was restored, only the device knows yet.
    assert ask(config, request, key=device_key(master, config.device_uuid, 3))[0] == 201
    assert ask(config, request)[0] == 201


def test_hostile_requests_are_refused_in_one_shape(client: Client) -> None:
    config = enroll(client, "hostile")
    good = request_of(new_key())
    weak = request_of(rsa.generate_private_key(65_537, 1024))
    for request, code in (
        (weak, "certificate_request_refused"),
        (good.replace("REQUEST", "RUMOUR"), "certificate_request_refused"),
        (good[:200] + good[220:], "certificate_request_refused"),
        ("x" * 16_384, "certificate_request_refused"),
        ("x" * 16_385, "invalid_document"),
        ("x" * 2_000_000, "document_too_large"),
        (17, "invalid_document"),
        (None, "invalid_document"),
    ):
        status, answer = ask(config, request)
        assert (status in (400, 413), answer["error"]["code"]) == (True, code), str(request)[:40]
    assert client.devices.certificates("hostile").items == []


def test_a_device_that_asks_again_and_again_has_to_wait(client: Client) -> None:
    config, other = enroll(client, "greedy"), enroll(client, "modest")
    request = request_of(new_key())
    assert [ask(config, request)[0] for _ in range(ISSUED_MOST)] == [201] * ISSUED_MOST
    status, answer = ask(config, request)
    assert (status, answer["error"]["code"]) == (503, "too_many_certificates")
    assert ask(other, request)[0] == 201
    first = client.devices.certificates("greedy", 15)
    rest = client.devices.certificates("greedy", 15, first.next)
    assert len({found.serial for found in (*first.items, *rest.items)}) == ISSUED_MOST
    assert rest.next is None


def revoked(client: Client, name: str) -> set[str]:
    return {found.serial for found in client.devices.certificates(name).items if found.revoked_at is not None}


def listed(config: DeviceConfig) -> set[str]:
    """Serials in the public list; nobody has to show anything for it."""
    der = httpx.get(f"{config.registry_url}/authority.crl").raise_for_status()
    pem = httpx.get(f"{config.registry_url}/authority.crl.pem").raise_for_status()
    read = x509.load_der_x509_crl(der.content)
    assert read == x509.load_pem_x509_crl(pem.content)
    assert der.headers["content-type"] == "application/pkix-crl"
    authority = httpx.get(f"{config.registry_url}/authority.pem").raise_for_status()
    assert read.issuer == x509.load_pem_x509_certificate(authority.content).subject
    return {f"{one.serial_number:x}" for one in read}


def test_what_is_revoked_stands_in_the_public_list(client: Client, tmp_path: Path) -> None:
    config = enroll(client, "listed")
    first, second = certify(config, tmp_path), certify(config, tmp_path)
    assert client.devices.revoke_certificate("listed", first.serial).revoked_at is not None
    # Again changes nothing.
    again = client.devices.revoke_certificate("listed", first.serial)
    assert again == next(found for found in client.devices.certificates("listed").items if found.serial == first.serial)
    assert first.serial in listed(config)
    assert second.serial not in listed(config)
    events = [event.kind for event in client.devices.events("listed").items]
    assert events.count("certificate-revoked") == 1
    with pytest.raises(ApiError, match="no certificate"):
        client.devices.revoke_certificate("listed", "feed")


def test_of_another_device_none_can_be_revoked_through_this_one(client: Client, tmp_path: Path) -> None:
    one, _ = enroll(client, "holder"), enroll(client, "bystander")
    serial = certify(one, tmp_path).serial
    with pytest.raises(ApiError):
        client.devices.revoke_certificate("bystander", serial)
    assert revoked(client, "holder") == set()


def test_with_a_device_go_all_its_certificates(client: Client, tmp_path: Path) -> None:
    config = enroll(client, "leaving")
    serials = {certify(config, tmp_path).serial for _ in range(2)}
    client.devices.revoke("leaving")
    assert revoked(client, "leaving") == serials
    assert ask(config, request_of(new_key()))[0] == 401
    gone = enroll(client, "gone")
    other = certify(gone, tmp_path).serial
    client.devices.delete("gone")
    assert listed(config) >= serials | {other}


def test_the_command_line_shows_and_revokes_them(client: Client, plane: ControlPlane, tmp_path: Path) -> None:
    config = enroll(client, "shown")

    def run(*words: str) -> str:
        code = "import sys; sys.argv[0] = 'hedgerow'; from hedgerow.cli.main import main; main()"
        env = {"PATH": search_path(), "HOME": str(tmp_path), "HEDGEROW_WORKSPACE": str(plane.workspace)}
        done = subprocess.run(
            [sys.executable, "-c", code, "device", *words], env=env, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "certificate" not in run("show", "shown")
    assert "has no certificate" in run("certificate", "list", "shown")
    serial = certify(config, tmp_path).serial
    assert "good until" in run("show", "shown")
    assert serial in run("certificate", "list", "shown", "--json")
    run("certificate", "revoke", "shown", serial, "--yes")
    assert revoked(client, "shown") == {serial}
    assert "good until" not in run("show", "shown")
