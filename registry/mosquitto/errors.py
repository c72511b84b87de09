"""What can go wrong with Mosquitto as the control plane's broker."""

from __future__ import annotations

from hedgerow.errors import UnavailableError, UserError


class MosquittoMissing(UserError):
    """The program is not there."""

    key = "mosquitto_missing"
    message = "There is no program {program} to run as the broker for devices"
    remedy = "Install it (apt install mosquitto), or use a broker of your own with --broker URL."


class MosquittoFailed(UnavailableError):
    """It ended by itself or never listened."""

    key = "mosquitto_failed"
    message = "Mosquitto does not run: {problem}"
    remedy = "Look at the reason: a port that is taken needs another HOST:PORT, a certificate another file."


class CertificateUnusable(UserError):
    """A certificate or key given for the broker cannot be read."""

    key = "certificate_unusable"
    message = "The broker's certificate {path} cannot be used: {problem}"
    remedy = "Give --mosquitto-cert and --mosquitto-key a PEM certificate (with its chain) and its key."
