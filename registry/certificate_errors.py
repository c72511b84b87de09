"""What can go wrong with certificates of devices; their operators read it in the log of the device."""

from __future__ import annotations

from hedgerow.errors import ForbiddenError, UnavailableError, UserError


class CertificateRequestRefused(UserError):
    """A certificate request that no certificate is made for."""

    key = "certificate_request_refused"
    message = "The certificate request is refused: {problem}"
    remedy = "Send a PKCS #10 request (PEM) for a key on the curve P-256 or P-384, Ed25519, or RSA with 2048 to 4096 bits."


class NotThisDevice(ForbiddenError):
    """A device that asks for what is another one's."""

    key = "not_this_device"
    message = "This token is not the one of a device {name}"
    remedy = "Use the token and the name in the device's own device.toml."


class TooManyCertificates(UnavailableError):
    """A device that asks for certificates again and again."""

    key = "too_many_certificates"
    message = "Device {name} was given {limit} certificates lately; there is none for it now"
    remedy = "Find out why it asks so often (a disk that forgets, a copied card); an hour later it is given one again."
