"""Receivers of webhooks as tests need them: well-behaved ones that keep what they got, and rude ones on bare sockets."""

from __future__ import annotations

import contextlib
import datetime as dt
import ipaddress
import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.waiting import wait_for


@dataclass(frozen=True)
class Got:
    """One request, and what it was answered."""

    path: str
    headers: dict[str, str]
    body: bytes
    status: int

    @property
    def event(self) -> dict[str, Any]:
        return dict(json.loads(self.body))

    @property
    def subject(self) -> str:
        return str(self.event["subject"])

    @property
    def delivery(self) -> str:
        return self.headers["hedgerow-delivery"]


class Receiver:
    """Answers with the next of ``statuses`` (200 when there are none left); ``hold`` blocks answers while it is set."""

    def __init__(self) -> None:
        self.got: list[Got] = []
        self.statuses: list[int] = []
        self.headers: dict[str, str] = {}
        self.goes_on = threading.Event()
        self.goes_on.set()
        self.url = ""
        self.asked = 0

    def subjects(self, *, status: int = 200) -> list[str]:
        """What was taken, pings left out."""
        taken = [one for one in list(self.got) if one.status == status and one.event["kind"] != "webhook.pinged"]
        return [one.subject for one in taken]

    def wait_for(self, number: int, *, timeout_s: float = 20.0) -> list[Got]:
        wait_for(lambda: len(self.got) >= number, timeout_s=timeout_s, what=f"{number} requests at the receiver")
        return list(self.got)

    def take(self, path: str, headers: dict[str, str], body: bytes) -> int:
        self.asked += 1
        self.goes_on.wait(60)
        status = self.statuses.pop(0) if self.statuses else 200
        self.got.append(Got(path, headers, body, status))
        return status


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that the sender broke off is none of our business."""


@contextmanager
def receiver(tls: ssl.SSLContext | None = None) -> Iterator[Receiver]:
    """An HTTP(S) server on loopback, in threads, until the end of the block."""
    made = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            status = made.take(self.path, {name.lower(): value for name, value in self.headers.items()}, body)
            self.send_response(status)
            for name, value in made.headers.items():
                self.send_header(name, value)
            self.send_header("content-length", "2")
            self.end_headers()
            self.wfile.write(b"ok")

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - http.server's own name
            """Silence."""

    server = _Server(("127.0.0.1", 0), Handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    made.url = f"http{'s' if tls else ''}://127.0.0.1:{server.server_address[1]}/hook"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield made
    finally:
        made.goes_on.set()
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def rude_receiver(behave: Callable[[socket.socket, threading.Event], None]) -> Iterator[str]:
    """A socket on loopback whose every connection is handed to ``behave`` after the request's head came; its URL."""
    stop = threading.Event()
    threads: list[threading.Thread] = []

    def serve(listener: socket.socket) -> None:
        while not stop.is_set():
            with contextlib.suppress(TimeoutError):
                stream, _ = listener.accept()
                thread = threading.Thread(target=one, args=(stream,))
                threads.append(thread)
                thread.start()

    def one(stream: socket.socket) -> None:
        with stream, contextlib.suppress(OSError):
            stream.settimeout(30)
            stream.recv(65536)
            behave(stream, stop)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.05)
        accepting = threading.Thread(target=serve, args=(listener,))
        accepting.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/hook"
        finally:
            stop.set()
            accepting.join()
            for thread in threads:
                thread.join(10)


def make_ca(folder: Path, *names: str) -> tuple[Path, ssl.SSLContext]:
    """A certificate authority of the test's own: its file, and a server's context with a certificate for ``names``."""
    now = dt.datetime.now(dt.UTC)
    day = dt.timedelta(days=1)
    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test authority")])
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "receiver")])

    def build(name: x509.Name, public: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        serial = x509.random_serial_number()
        made = x509.CertificateBuilder().subject_name(name).issuer_name(issuer).public_key(public).serial_number(serial)
        return made.not_valid_before(now - day).not_valid_after(now + day)

    uses = x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )
    authority = (
        build(issuer, ca_key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(uses, critical=True)
        .sign(ca_key, hashes.SHA256())
    )
    leaf = (
        build(subject, key.public_key())
        .add_extension(x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    ca_file, chain, key_file = folder / "ca.pem", folder / "receiver.pem", folder / "receiver.key"
    ca_file.write_bytes(authority.public_bytes(pem))
    chain.write_bytes(leaf.public_bytes(pem))
    key_file.write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain, key_file)
    return ca_file, context


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
