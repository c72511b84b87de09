"""What can go wrong at the hub, in words for the person who asked."""

from __future__ import annotations

from hedgerow.errors import ConflictError, NotFoundError, UserError


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


class ShadowInvalid(UserError):
    """A module of a manifest cannot have the shadow that it asks for."""

    key = "shadow_invalid"
    message = "Module {module} of edge deployment {name} cannot have this shadow: {problem}"
    remedy = "Give both the module and its shadow an image of kind onnx (hedgerow image build), or take the shadow away."


class TwinInvalid(UserError):
    """A change of a module's desired properties that cannot be kept."""

    key = "twin_invalid"
    message = "The desired properties of module {module} of device {device} cannot be changed so: {problem}"
    remedy = "Send a JSON object of at most 256 KiB as `desired`; null takes a key away that was patched before."


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


class RolloutOver(ConflictError):
    """A rollout is in a state in which what was asked for means nothing."""

    key = "rollout_over"
    message = "The rollout of revision {revision} of edge deployment {name} is {state}: it cannot be asked to {action}"
    remedy = "See how far it is with: hedgerow edge rollout show {name}. A new revision begins a new rollout."


class NoRollout(NotFoundError):
    """An edge deployment without a rollout."""

    key = "no_rollout"
    message = "Edge deployment {name} has no rollout: its revisions go to every device at once"
    remedy = "Deploy a change with --rollout, or with `rollout` in the manifest."
