"""The device's certificate for the broker: asked for, kept, renewed; only the next connection notices.

    a key of this device's own ──▶ sealed request ──▶ registry ──▶ certificate.pem, key and certificate in one file
                                                                                      │
                                                    link: a new connection with it ◀──┘

Each certificate has a key of its own, which never leaves the device. The registry goes by the token, not by the old certificate,
so a device that was off beyond its end gets another one. The file is replaced whole: after a power cut there is the old one
or the new one. A damaged one is moved aside, and there is another key and another certificate.
"""

from __future__ import annotations

import logging
import random
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import NameOID

from edge_agent.errors import CertificateNotIssued
from edge_agent.link.certificate_plan import Validity, wait_s
from edge_agent.registry_http import DeviceRegistry
from hedgerow.atomic_write import atomic_write
from hedgerow.backoff import Backoff
from hedgerow.clock import Clock
from hedgerow.contracts.device import DeviceConfig
from hedgerow.contracts.document import decode
from hedgerow.contracts.enrollment import DeviceCertificate, SignCertificate, sealed_request
from hedgerow.errors import HedgerowError

FILE_NAME = "certificate.pem"
ANSWER_BYTES_MAX = 256 * 1024
# The wall clock is looked at so often: it may have been set.
LOOK_S = 60.0
# Whatever a registry sends, this thread does not run hot.
LEAST_S = 0.5
RETRY = Backoff(first_s=2.0, factor=2.0, cap_s=300.0)
# Without one there is no link at all, so the registry is asked as often as the broker would be.
RETRY_WITHOUT = Backoff(first_s=1.0, factor=2.0, cap_s=30.0)
# So many connections in a row that ended unanswered mean that the broker may not like it (it was revoked, perhaps).
REFUSALS = 3
REFUSALS_PERIOD_S = 3600.0
log = logging.getLogger(__name__)


class ClientCertificate(Protocol):
    """What the link needs. ``on_new`` is called from another thread when there is another certificate."""

    on_new: Callable[[], None]

    def load_into(self, context: ssl.SSLContext) -> bool:
        """Put certificate and key into ``context``; False while there is none."""
        ...

    def met(self, *, answered: bool) -> None:
        """The broker answered a connection, or ended it without a word."""
        ...


@dataclass(frozen=True)
class Held:
    """What ``certificate.pem`` holds."""

    serial: str
    validity: Validity


def read_certificate(pem: bytes, device_uuid: str) -> Held:
    """Of the file's content, key and certificate. Raises ValueError unless they belong together and to this device."""
    certificate = x509.load_pem_x509_certificate(pem)
    try:
        mine, certified = load_pem_private_key(pem, password=None).public_key(), certificate.public_key()
    except (TypeError, UnsupportedAlgorithm) as problem:  # an encrypted key, a kind that nobody knows
        raise ValueError(str(problem)) from None
    if _public(mine.public_bytes) != _public(certified.public_bytes):
        raise ValueError("its key is not the one of its certificate")
    names = [name.value for name in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    if names != [device_uuid]:
        raise ValueError("it is for somebody else")
    begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if ends <= begins:
        raise ValueError("it ends before it begins")
    spread = (certificate.serial_number & 0xFFFF) / 0x10000
    return Held(f"{certificate.serial_number:x}", Validity(begins, ends, spread))


def _public(public_bytes: Callable[[Encoding, PublicFormat], bytes]) -> bytes:
    return public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


class CertificateKeeper:
    """``record`` gets decisions (action, reason). ``start`` returns at once: a device boots without its registry."""

    def __init__(
        self,
        config: DeviceConfig,
        folder: Path,
        clock: Clock,
        record: Callable[[str, str], object],
        token: Callable[[], str] | None = None,
        key: Callable[[], bytes] | None = None,
    ) -> None:
        """``token``, ``key`` None: those of device.toml."""
        self._registry = DeviceRegistry(config, token or (lambda: config.pull_token))
        self._key = key or config.key_bytes
        self._config, self._path, self._clock, self._record = config, folder / FILE_NAME, clock, record
        self.on_new: Callable[[], None] = lambda: None
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._closed = False
        self._held: Held | None = None
        self._fresh, self._held_since_s = False, clock.monotonic_s()
        self._refusals, self._doubted_at_s = 0, float("-inf")
        self._thread = threading.Thread(target=self._keep, name="certificate", daemon=True)

    def start(self) -> None:
        """Read what there is, and begin to care for it."""
        self._read()
        self._thread.start()

    def close(self) -> None:
        """End; a request under way is left to the end of the process."""
        self._closed = True
        self._wake.set()

    @property
    def expires_at(self) -> datetime | None:
        """None while there is no certificate."""
        held = self._held
        return held.validity.ends if held else None

    def load_into(self, context: ssl.SSLContext) -> bool:
        with self._lock:  # the file is opened twice, and must be the same
            if self._held is None:
                return False
            try:
                context.load_cert_chain(self._path)
            except OSError as problem:
                log.warning("%s cannot be used any more: %s", FILE_NAME, problem)
                self._held = None
            else:
                return True
        self._wake.set()
        return False

    def met(self, *, answered: bool) -> None:
        self._refusals = 0 if answered else self._refusals + 1
        if self._doubtful():
            self._wake.set()

    def _doubtful(self) -> bool:
        lately = self._clock.monotonic_s() < self._doubted_at_s + REFUSALS_PERIOD_S
        return self._refusals >= REFUSALS and not lately

    def _keep(self) -> None:
        failures = 0
        while not self._closed:
            wait = self._wait_s()
            if wait <= 0.0:
                failures = 0 if self._renewed(failures) else failures + 1
                retry = RETRY if self._held else RETRY_WITHOUT
                wait = retry.delay_s(failures, random.random) if failures else self._wait_s()
            self._wake.wait(max(LEAST_S, wait if failures else min(wait, LOOK_S)))
            self._wake.clear()

    def _wait_s(self) -> float:
        if self._doubtful():
            return 0.0
        held = self._held.validity if self._held else None
        held_s = self._clock.monotonic_s() - self._held_since_s
        return wait_s(held, self._clock.now(), held_s, fresh=self._fresh)

    def _renewed(self, failures: int) -> bool:
        doubted = self._doubtful()
        try:
            held = self._issue()
        except (HedgerowError, OSError, ValueError) as problem:
            if failures == 0:
                self._record("certificate-failed", str(problem))
            log.warning("no new certificate for the broker: %s", problem)
            return False
        except Exception:
            # Whatever a registry can make the libraries raise: there is another try.
            log.exception("asking for a certificate failed unexpectedly")
            return False
        if doubted:
            self._doubted_at_s = self._clock.monotonic_s()
        self._refusals = 0
        self._record("certificate", f"{held.serial} is good until {held.validity.ends:%Y-%m-%d %H:%M:%S} UTC")
        self.on_new()
        return True

    def _issue(self) -> Held:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, self._config.device_uuid)])
        request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, SHA256())
        text = request.public_bytes(Encoding.PEM).decode()
        answer = self._ask(sealed_request(self._key(), self._config.device_uuid, text))
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        pem = private + answer.certificate.encode()
        held = read_certificate(pem, self._config.device_uuid)
        with self._lock:
            atomic_write(self._path, pem, mode=0o600)
            self._held, self._fresh, self._held_since_s = held, True, self._clock.monotonic_s()
        return held

    def _ask(self, body: SignCertificate) -> DeviceCertificate:
        """Raises CertificateNotIssued, InvalidDocument."""

        def failed(problem: str) -> CertificateNotIssued:
            return CertificateNotIssued(registry=self._registry.url, problem=problem)

        return decode(self._registry.ask("certificates", failed, ANSWER_BYTES_MAX, body), DeviceCertificate)

    def _read(self) -> None:
        try:
            self._held = read_certificate(self._path.read_bytes(), self._config.device_uuid)
        except FileNotFoundError:
            return
        except (OSError, ValueError) as problem:
            self._record("set-aside", f"{FILE_NAME} was damaged: {problem}")
            try:
                self._path.replace(self._path.with_name(f"{FILE_NAME}.damaged"))
            except OSError as disk:
                log.warning("%s cannot be moved aside: %s", FILE_NAME, disk)
