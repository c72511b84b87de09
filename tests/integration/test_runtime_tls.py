"""TLS at a running server: versions, silent callers, plain HTTP on the port, reload of the files, refusal of wrong ones."""

from __future__ import annotations

import contextlib
import datetime as dt
import ipaddress
import os
import signal
import socket
import ssl
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from runtime.errors import TlsUnusable
from runtime.front.tls import read_pair
from tests import scoring_models as models
from tests.scoring_server import ScoringServer
from tests.waiting import wait_for

ROW = [5.1, 3.5, 1.4, 0.2]


def make_pair(folder: Path, name: str) -> tuple[Path, Path]:
    """A certificate of its own for 127.0.0.1, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    who = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(who)
        .issuer_name(who)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    place, key_place = folder / f"{name}.crt", folder / f"{name}.key"
    place.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    key_place.write_bytes(pem)
    return place, key_place


def trusting(*certificates: Path) -> ssl.SSLContext:
    context = ssl.create_default_context()
    for certificate in certificates:
        context.load_verify_locations(certificate)
    return context


def served_name(server: ScoringServer) -> str:
    """The name in the certificate that the server shows now."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as plain, context.wrap_socket(plain) as caller:
        shown = x509.load_der_x509_certificate(caller.getpeercert(binary_form=True) or b"")
    return str(shown.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)


def serve(tmp_path: Path, *more: object) -> tuple[ScoringServer, Path, Path]:
    certificate, key = make_pair(tmp_path, "one")
    return ScoringServer(tmp_path, "--model", models.iris(), "--tls-cert", certificate, "--tls-key", key, *more), certificate, key


def test_requests_of_all_sizes_over_tls(tmp_path: Path) -> None:
    server, certificate, _ = serve(tmp_path)
    with server, httpx.Client(verify=trusting(certificate), trust_env=False, timeout=20) as client:
        assert server.url.startswith("https://")
        for rows in (1, 3, 5000, 50_000):
            answer = client.post(f"{server.url}/score", json=[ROW] * rows)
            assert answer.status_code == 200
            assert len(next(iter(answer.json().values()))) == rows
        assert client.get(f"{server.url}/v2/health/ready").status_code == 200


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_versions_that_are_spoken(tmp_path: Path, version: ssl.TLSVersion) -> None:
    server, certificate, _ = serve(tmp_path)
    context = trusting(certificate)
    context.minimum_version = context.maximum_version = version
    with server, httpx.Client(verify=context, trust_env=False) as client:
        assert client.get(server.url).text == "Healthy"


def test_old_versions_are_not_spoken(tmp_path: Path) -> None:
    server, certificate, _ = serve(tmp_path)
    with server, socket.create_connection(("127.0.0.1", server.port), timeout=10) as caller:
        # A ClientHello of TLS 1.0 with one cipher of its time; client libraries refuse to send one.
        hello = b"\x03\x01" + b"r" * 32 + b"\x00" + b"\x00\x02\x00\x2f" + b"\x01\x00"
        message = b"\x01" + len(hello).to_bytes(3, "big") + hello
        caller.sendall(b"\x16\x03\x01" + len(message).to_bytes(2, "big") + message)
        answer = caller.recv(4096)
        assert answer[:1] in (b"", b"\x15"), "an alert, or nothing"
        assert httpx.get(server.url, verify=trusting(certificate), trust_env=False).status_code == 200


def test_plain_http_is_told_so(tmp_path: Path) -> None:
    server, certificate, _ = serve(tmp_path)
    with server:
        answer = httpx.get(server.url.replace("https", "http"), trust_env=False)
        assert answer.status_code == 400
        assert "HTTPS" in answer.json()["message"]
        assert httpx.get(server.url, verify=trusting(certificate), trust_env=False).status_code == 200


def test_silent_callers_hold_up_neither_others_nor_the_end(tmp_path: Path) -> None:
    server, certificate, _ = serve(tmp_path)
    with server, contextlib.ExitStack() as closing:
        for _ in range(5):
            closing.enter_context(socket.create_connection(("127.0.0.1", server.port)))
        assert httpx.get(server.url, verify=trusting(certificate), trust_env=False).status_code == 200
        os.kill(server.process.pid, signal.SIGTERM)
        wait_for(lambda: server.exit_code is not None, timeout_s=5, what="the end, long before a handshake's time is over")


def test_new_files_are_shown_after_sighup_and_wrong_ones_never(tmp_path: Path) -> None:
    server, certificate, key = serve(tmp_path)
    with server:
        assert served_name(server) == "one"
        new_certificate, new_key = make_pair(tmp_path, "two")
        new_certificate.replace(certificate)
        os.kill(server.process.pid, signal.SIGHUP)
        server.wait_for_log("not reloaded: TLS cannot be offered")
        assert served_name(server) == "one", "a certificate without its key changes nothing"
        new_key.replace(key)
        os.kill(server.process.pid, signal.SIGHUP)
        # Until the new worker answers, the old one goes on with the old certificate.
        wait_for(lambda: len(server.workers()) == 1 and served_name(server) == "two", what="the new certificate alone")
        assert httpx.get(server.url, verify=trusting(certificate), trust_env=False).text == "Healthy"


def test_what_is_wrong_with_the_files_is_said(tmp_path: Path) -> None:
    certificate, key = make_pair(tmp_path, "one")
    _, other = make_pair(tmp_path, "two")
    with pytest.raises(TlsUnusable, match="key values mismatch"):
        read_pair(certificate, other)
    with pytest.raises(TlsUnusable, match="No such file"):
        read_pair(tmp_path / "none", key)
    for pair in ((key, key), (certificate, certificate)):
        with pytest.raises(TlsUnusable, match="one of them is no PEM file of its kind"):
            read_pair(*pair)
    loaded = serialization.load_pem_private_key(key.read_bytes(), None)
    secret = loaded.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"pass")
    )
    key.write_bytes(secret)
    with pytest.raises(TlsUnusable, match="encrypted"):
        read_pair(certificate, key)


def test_one_file_without_the_other_is_refused_at_the_start(tmp_path: Path) -> None:
    certificate, _ = make_pair(tmp_path, "one")
    with ScoringServer(tmp_path, "--model", models.iris(), "--tls-cert", certificate, wait=False) as server:
        wait_for(lambda: server.exit_code is not None, what="the end of it")
        assert server.exit_code == 3
        assert "there is no private key" in server.process.log_text()
