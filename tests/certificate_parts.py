"""Keys, requests and certificates of devices for tests, and a client at the listener that wants certificates."""

from __future__ import annotations

import json
import ssl
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import paho.mqtt.client as mqtt
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from paho.mqtt.enums import CallbackAPIVersion

from hedgerow.contracts.device import DeviceConfig
from hedgerow.contracts.enrollment import sealed_request
from tests.waiting import wait_for

PATIENCE_S = 30.0
Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey


def new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def request_of(key: Key, name: str = "whoever") -> str:
    """A PKCS #10 request (PEM) for ``key``."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    signed = builder.sign(key, None) if isinstance(key, ed25519.Ed25519PrivateKey) else builder.sign(key, SHA256())
    return signed.public_bytes(Encoding.PEM).decode()


def sealed(config: DeviceConfig, request: object, key: bytes | None = None) -> dict[str, Any]:
    """The body as the device, or somebody with another ``key``, sends it."""
    made = sealed_request(key or config.key_bytes(), config.device_uuid, str(request))
    return {"request": request, "seal": made.seal}


def ask(
    config: DeviceConfig, request: object, *, name: str = "", token: str = "", key: bytes | None = None
) -> tuple[int, dict[str, Any]]:
    """Status and answer of the registry to a request for a certificate, as a device sends it."""
    asked = urllib.request.Request(
        f"{config.registry_url}/api/v1/devices/{name or config.name}/certificates",
        json.dumps(sealed(config, request, key)).encode(),
        {"Authorization": f"Bearer {token or config.pull_token}", "Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(asked, timeout=PATIENCE_S) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code, json.load(refused)


@dataclass(frozen=True)
class Certified:
    """A key with its certificate, in one file as an agent keeps it."""

    path: Path
    serial: str
    certificate: x509.Certificate

    def context(self, config: DeviceConfig) -> ssl.SSLContext:
        context = ssl.create_default_context(cadata=config.broker_ca)
        context.load_cert_chain(self.path)
        return context


def write_certified(path: Path, key: Key, certificate: bytes) -> Certified:
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()) + certificate)
    read = x509.load_pem_x509_certificate(certificate)
    return Certified(path, f"{read.serial_number:x}", read)


def certify(config: DeviceConfig, folder: Path, key: Key | None = None) -> Certified:
    """As the device itself."""
    mine = key or new_key()
    status, answer = ask(config, request_of(mine))
    assert status == 201, answer
    return write_certified(folder / f"{answer['serial']}.pem", mine, answer["certificate"].encode())


class CertificateVisitor:
    """An MQTT client that shows ``context``'s certificate. ``outcome`` is the broker's answer; None: it hung up without one."""

    def __init__(self, config: DeviceConfig, context: ssl.SSLContext) -> None:
        self.outcome: str | None = None
        self.lost = False
        self.heard: list[bytes] = []
        url = urlsplit(config.broker_url)
        self._mqtt = mqtt.Client(CallbackAPIVersion.VERSION2, reconnect_on_failure=False)
        self._mqtt.tls_set_context(context)
        self._mqtt.on_connect = lambda _c, _d, _f, reason, _p: self._note(str(reason))
        self._mqtt.on_disconnect = lambda *_: self._end()
        self._mqtt.on_message = lambda _c, _d, message: self.heard.append(bytes(message.payload))
        self._granted = 0
        self._mqtt.on_subscribe = lambda *_: self._count()
        try:
            self._mqtt.connect(url.hostname or "", url.port or 8883)
        except ssl.SSLError:
            self.lost = True
            return
        self._mqtt.loop_start()
        wait_for(lambda: self.outcome is not None or self.lost, timeout_s=PATIENCE_S, what="the broker's answer, or its end")

    def _note(self, reason: str) -> None:
        self.outcome = reason

    def _end(self) -> None:
        self.lost = True

    def _count(self) -> None:
        self._granted += 1

    def subscribe(self, topic: str) -> None:
        before = self._granted
        self._mqtt.subscribe(topic, 1)
        wait_for(lambda: self._granted > before, timeout_s=PATIENCE_S, what="the subscription's answer")

    def publish(self, topic: str, payload: bytes) -> None:
        self._mqtt.publish(topic, payload, qos=1).wait_for_publish(PATIENCE_S)

    def close(self) -> None:
        self._mqtt.disconnect()
        self._mqtt.loop_stop()


def visit(config: DeviceConfig, context: ssl.SSLContext) -> CertificateVisitor:
    """One that is let in; the broker may be starting at this moment."""
    found: list[CertificateVisitor] = []

    def try_it() -> bool:
        try:
            visitor = CertificateVisitor(config, context)
        except OSError:
            return False
        if visitor.outcome != "Success":
            visitor.close()
            return False
        found.append(visitor)
        return True

    wait_for(try_it, timeout_s=PATIENCE_S, what="a certificate that is taken")
    return found[0]


def is_refused(config: DeviceConfig, context: ssl.SSLContext) -> bool:
    """Whether the broker, which listens, ends the connection without an answer."""
    try:
        visitor = CertificateVisitor(config, context)
    except OSError:
        return False
    visitor.close()
    return visitor.outcome is None
