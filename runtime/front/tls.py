"""The server's certificate and key as an SSL context: TLS 1.2 and later, read again at SIGHUP."""

from __future__ import annotations

import ssl
from pathlib import Path

from runtime.errors import TlsUnusable
from runtime.settings import RuntimeSettings


def tls_context(settings: RuntimeSettings) -> ssl.SSLContext | None:
    """None where no certificate is set. Raises TlsUnusable."""
    certificate, private_key = settings.tls_cert, settings.tls_key
    if certificate is None and private_key is None:
        return None
    if certificate is None or private_key is None:
        missing = "certificate" if certificate is None else "private key"
        problem = f"there is no {missing}"
        raise TlsUnusable(certificate=certificate or "nothing", private_key=private_key or "nothing", problem=problem)
    return read_pair(certificate, private_key)


def read_pair(certificate: Path, private_key: Path) -> ssl.SSLContext:
    """Raises TlsUnusable."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # Callers that may choose (curl) would otherwise try HTTP/2 first.
    context.set_alpn_protocols(["http/1.1"])

    def no_questions() -> str:
        # OpenSSL would ask at the terminal of whoever started the server.
        raise TlsUnusable(certificate=certificate, private_key=private_key, problem="the private key is encrypted")

    try:
        context.load_cert_chain(certificate, private_key, password=no_questions)
    except ssl.SSLError as problem:
        # OpenSSL gives no reason where it found nothing to read.
        reason = problem.reason.lower().replace("_", " ") if problem.reason else "one of them is no PEM file of its kind"
        raise TlsUnusable(certificate=certificate, private_key=private_key, problem=reason) from None
    except OSError as problem:
        raise TlsUnusable(certificate=certificate, private_key=private_key, problem=problem.strerror or str(problem)) from None
    return context
