"""What can go wrong with the embedded broker."""

from __future__ import annotations

from hedgerow.errors import UnavailableError, UserError


class NotLoopback(UserError):
    """The embedded broker knows no passwords and no access rules."""

    key = "not_loopback"
    message = "The embedded broker listens on this machine only, not on {host!r}"
    remedy = "For devices elsewhere run a broker of your own (Mosquitto, EMQX) and start with --broker mqtts://HOST:8883."


class BrokerFailed(UnavailableError):
    """The broker ended by itself or never listened."""

    key = "broker_failed"
    message = "The embedded broker does not run: {problem}"
    remedy = "Start it again; if it fails again, run a broker of your own (Mosquitto, EMQX) and use --broker URL."
