"""What a device may ask a certificate for: its key, and that it has it. Everything else in its request is passed over. Pure.

The keys taken are those that Mosquitto 2 and OpenSSL 3 take for a TLS client.
"""

from __future__ import annotations

import math
from datetime import timedelta

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes

from hedgerow.errors import InvalidSetting
from registry.identity.errors import CertificateRequestRefused

# So many in an hour (or in a life, where that is shorter); a device asks for one in two thirds of a life.
ISSUED_MOST = 20
ISSUED_PERIOD = timedelta(hours=1)
# Shorter, and a device does nothing else but renew; longer, and revoking is all that ever ends one.
_SHORTEST_S, _LONGEST_S = 5.0, 825 * 86_400.0
_RSA_LEAST, _RSA_MOST = 2048, 4096
_CURVES = (ec.SECP256R1, ec.SECP384R1)


def requested_key(pem: str) -> CertificatePublicKeyTypes:
    """The public key of a PKCS #10 request whose sender has the private one. Raises CertificateRequestRefused."""
    try:
        request = x509.load_pem_x509_csr(pem.encode("ascii"))
        key = request.public_key()
        # What kind of key it is comes first: a signature of a giant one takes long to look at.
        problem = _problem(key)
        if not problem and not request.is_signature_valid:
            problem = "its signature is not that of its key"
    except (ValueError, UnsupportedAlgorithm) as unreadable:
        problem = f"it cannot be read ({type(unreadable).__name__})"
    if problem:
        raise CertificateRequestRefused(problem=problem)
    return key


def _problem(key: CertificatePublicKeyTypes) -> str:
    if isinstance(key, ec.EllipticCurvePublicKey):
        return "" if isinstance(key.curve, _CURVES) else f"its key is on the curve {key.curve.name}"
    if isinstance(key, rsa.RSAPublicKey):
        return "" if _RSA_LEAST <= key.key_size <= _RSA_MOST else f"its RSA key has {key.key_size} bits"
    return "" if isinstance(key, ed25519.Ed25519PublicKey) else "its key is of another kind"


def life_of(seconds: float) -> timedelta:
    """How long a certificate is good, from the setting. Raises InvalidSetting."""
    if not (math.isfinite(seconds) and _SHORTEST_S <= seconds <= _LONGEST_S):
        problem = f"it must be between {_SHORTEST_S:g} and {_LONGEST_S:g}"
        raise InvalidSetting(name="device_certificate_s", value=seconds, problem=problem, source="--device-certificate-s")
    return timedelta(seconds=seconds)
