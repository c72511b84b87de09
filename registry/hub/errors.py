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


class ForeignImageUnresolved(UserError):
    """A tag in somebody else's registry that could not be resolved to a digest."""

    key = "foreign_image_unresolved"
    message = "Image {image} could not be resolved to a digest: {problem}"
    remedy = "Name it by digest (HOST/NAME@sha256:…), or let the control plane reach it (--egress-allow, --registry-logins)."


class SharingNeedsPostgres(UserError):
    """A hub that is to share its work on a database that takes one writer."""

    key = "sharing_needs_postgres"
    message = "Hubs of workspace {folder} cannot share their work: its database is SQLite"
    remedy = "Give all processes a PostgreSQL database (--database), or start one hub without --share."


class BrokerUrlInvalid(UserError):
    """The broker's address is not one that an MQTT client can use."""

    key = "broker_url_invalid"
    message = "{url!r} is not the URL of an MQTT broker"
    remedy = "Use mqtt://HOST:PORT or mqtts://HOST:PORT, with USER:PASSWORD@ before the host if the broker wants them."
