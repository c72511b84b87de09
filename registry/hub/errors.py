"""What can go wrong at the hub, in words for the person who asked."""

from __future__ import annotations

from hedgerow.errors import UserError


class TargetInvalid(UserError):
    """A target condition that cannot be read."""

    key = "target_invalid"
    message = "The target condition {target!r} is wrong at position {position}: {problem}"
    remedy = "Write * for every device, deviceId = 'NAME', or tags.KEY = 'VALUE', combined with AND, OR, NOT and parentheses."


class ManifestInvalid(UserError):
    """An edge deployment that no device could run."""

    key = "manifest_invalid"
    message = "Edge deployment {name} cannot be used: {problem}"
    remedy = "Correct the manifest and deploy it again."


class BrokerUrlInvalid(UserError):
    """The broker's address is not one that an MQTT client can use."""

    key = "broker_url_invalid"
    message = "{url!r} is not the URL of an MQTT broker"
    remedy = "Use mqtt://HOST:PORT or mqtts://HOST:PORT, with USER:PASSWORD@ before the host if the broker wants them."
