"""The grammar of names and references, and every well-known name: topics, labels, headers, environment variables.

The name grammar is the common part of what OCI repositories, URL segments, MQTT topic levels and file names take: words of
a-z and 0-9 joined by one dot, one or two underscores, or dashes (OCI distribution specification, "Pulling manifests").
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated

import msgspec

from hedgerow.errors import InvalidName, InvalidReference

# The lookahead refuses a trailing newline, which Python's ``$`` would let through.
NAME_PATTERN = r"^[a-z0-9]+((\.|__?|-+)[a-z0-9]+)*$(?!\n)"
MAX_NAME_LENGTH = 128
# What 0.1.0 took, also ``a..b`` and ``a___b``: such a name is kept where it stands and never given anew (docs/decisions/006).
KNOWN_NAME_PATTERN = r"^[a-z0-9]([a-z0-9._-]*[a-z0-9])?$(?!\n)"
DIGEST_PATTERN = r"^sha256:[0-9a-f]{64}$(?!\n)"
SCOPE_PATTERN = r"^[a-z-]{1,40}:([a-z0-9._-]{1,128}\*?|\*)$(?!\n)"
EVENT_KIND_PATTERN = r"^[a-z][a-z-]{0,39}\.([a-z][a-z_-]{0,59}|\*)$(?!\n)"

# What a person reads instead of the pattern when something that they wrote does not fit it. Who writes a name should follow
# today's rule, wherever it stands.
_NAME_IN_WORDS = "a name (1 to 128 of a-z and 0-9; words may be joined with one '.', one or two '_', or '-')"
PATTERNS_IN_WORDS = {
    NAME_PATTERN: _NAME_IN_WORDS,
    KNOWN_NAME_PATTERN: _NAME_IN_WORDS,
    DIGEST_PATTERN: "a digest (sha256: and 64 of 0-9 and a-f)",
    SCOPE_PATTERN: "a scope (NOUN:NAME, NOUN:BEGINNING* or NOUN:*, for example models:churn-*)",
    EVENT_KIND_PATTERN: "a kind of events (NOUN.VERB or NOUN.*, for example model.registered)",
}

# In requests that give a name, and in everything that 0.1.0 did not have.
Name = Annotated[str, msgspec.Meta(pattern=NAME_PATTERN, max_length=MAX_NAME_LENGTH)]
# In documents about what there is: records, answers, images, what devices hold and say.
KnownName = Annotated[str, msgspec.Meta(pattern=KNOWN_NAME_PATTERN, max_length=MAX_NAME_LENGTH)]
Digest = Annotated[str, msgspec.Meta(pattern=DIGEST_PATTERN)]
# The database keeps versions as 32-bit and sequences as 64-bit integers.
Version = Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)]

_NAME = re.compile(NAME_PATTERN)
_KNOWN_NAME = re.compile(KNOWN_NAME_PATTERN)
_DIGEST = re.compile(DIGEST_PATTERN)
_NUMBER = re.compile(r"[0-9]{1,10}\Z")

# Identity and environment of processes that Hedgerow starts.
ENV_URL = "HEDGEROW_URL"
# The kind of a garbage collection's activity.
BLOBS_COLLECT = "blobs.collect"
ENV_TOKEN = "HEDGEROW_TOKEN"  # noqa: S105 - a variable's name, not a secret
ENV_WORKSPACE = "HEDGEROW_WORKSPACE"
ENV_RUN_ID = "HEDGEROW_RUN_ID"
ENV_OUTPUTS = "HEDGEROW_OUTPUTS"
ENV_MODULE = "HEDGEROW_MODULE"
ENV_TELEMETRY_URL = "HEDGEROW_TELEMETRY_URL"
ENV_MQTT_URL = "HEDGEROW_MQTT_URL"
ENV_TELEMETRY_TOKEN = "HEDGEROW_TELEMETRY_TOKEN"  # noqa: S105 - a variable's name, not a secret

# Labels on containers and OCI manifests.
LABEL_WORKSPACE = "hedgerow.workspace"
LABEL_OWNER = "hedgerow.owner"
LABEL_MODULE = "hedgerow.module"
LABEL_IMAGE_KIND = "hedgerow.image.kind"
LABEL_TOOL = "hedgerow.tool.version"
LABEL_BASE_DIGEST = "org.opencontainers.image.base.digest"

# A variable of a run with the value ``secret:NAME`` gets the secret's value when the run starts.
SECRET_PREFIX = "secret:"  # noqa: S105 - how a secret is named, not a secret

# HTTP headers of our own.
HEADER_IDEMPOTENCY = "idempotency-key"
HEADER_REPLAYED = "idempotency-replayed"
HEADER_LAST_EVENT = "last-event-id"
HEADER_METHOD_STATUS = "hedgerow-method-status"

# OCI media types. The model part uses the CNCF ModelPack types so that any OCI tool can fetch a model.
MEDIA_OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
MEDIA_OCI_INDEX = "application/vnd.oci.image.index.v1+json"
MEDIA_OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
MEDIA_OCI_LAYER_TAR = "application/vnd.oci.image.layer.v1.tar"
MEDIA_OCI_LAYER_GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
MEDIA_OCI_LAYER_ZSTD = "application/vnd.oci.image.layer.v1.tar+zstd"
MEDIA_OCI_EMPTY = "application/vnd.oci.empty.v1+json"
# What Docker called the same before there was a specification.
MEDIA_DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
MEDIA_DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
MEDIA_DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
MANIFEST_TYPES = frozenset({MEDIA_OCI_MANIFEST, MEDIA_DOCKER_MANIFEST})
INDEX_TYPES = frozenset({MEDIA_OCI_INDEX, MEDIA_DOCKER_INDEX})
# Of an image that a container engine can run.
CONTAINER_CONFIG_TYPES = frozenset({MEDIA_OCI_CONFIG, MEDIA_DOCKER_CONFIG})
MEDIA_MODEL_MANIFEST = "application/vnd.cncf.model.manifest.v1+json"
MEDIA_MODEL_CONFIG = "application/vnd.cncf.model.config.v1+json"
MEDIA_MODEL_WEIGHT_TAR = "application/vnd.cncf.model.weight.v1.tar"
MEDIA_SCORING_CONFIG = "application/vnd.hedgerow.scoring.v1.tar"
# What lies beside an image as an artifact that refers to it (OCI image-spec 1.1, manifest `subject`).
ARTIFACT_SBOM = "application/vnd.cyclonedx+json"
ARTIFACT_BUILD_REPORT = "application/vnd.hedgerow.build.v1+json"
ARTIFACT_VERIFICATION = "application/vnd.hedgerow.verification.v1+json"

# The largest MQTT payload (seal or signature included) that either end publishes; every broker must let it pass.
MAX_MQTT_PAYLOAD_BYTES = 1024 * 1024

# DSSE payload types of what a workspace signs.
PAYLOAD_DESIRED_STATE = "application/vnd.hedgerow.desired-state.v1+json"
PAYLOAD_METHOD_CALL = "application/vnd.hedgerow.method-call.v1+json"


def check_name(value: str, kind: str) -> str:
    """Return ``value``, a name to be given, or raise InvalidName; ``kind`` says what it names ("model", "device", …)."""
    return _checked(_NAME, value, kind)


def check_known_name(value: str, kind: str) -> str:
    """Like :func:`check_name` for a name by which something is looked up: 0.1.0 may have given it."""
    return _checked(_KNOWN_NAME, value, kind)


def _checked(grammar: re.Pattern[str], value: str, kind: str) -> str:
    if len(value) > MAX_NAME_LENGTH or not grammar.match(value):
        raise InvalidName(kind=kind, value=value if len(value) <= 80 else value[:77] + "...")
    return value


def is_digest(value: str) -> bool:
    return bool(_DIGEST.match(value))


@dataclass(frozen=True)
class Reference:
    """``name`` (newest), ``name:version``, ``name@sha256:…`` or, for models, ``name@alias``."""

    name: str
    version: int | None = None
    digest: str | None = None
    alias: str | None = None

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Raises InvalidReference, or InvalidName when only the name part is wrong."""
        name, at, digest = text.partition("@")
        if at and is_digest(digest):
            return cls(check_known_name(name, "referenced"), digest=digest)
        if at:
            if len(digest) > MAX_NAME_LENGTH or not _NAME.match(digest):
                raise InvalidReference(value=text[:300])
            return cls(check_known_name(name, "referenced"), alias=digest)
        name, colon, version = text.partition(":")
        # int() itself refuses digits by the thousand.
        number = int(version) if _NUMBER.match(version) else 0
        if colon and not 0 < number < 2**31:
            raise InvalidReference(value=text[:300])
        return cls(check_known_name(name, "referenced"), version=number if colon else None)

    def __str__(self) -> str:
        if self.digest:
            return f"{self.name}@{self.digest}"
        if self.alias:
            return f"{self.name}@{self.alias}"
        return self.name if self.version is None else f"{self.name}:{self.version}"


UPLINK_LEAVES = ("hello", "telemetry", "status", "answers", "twins")


@dataclass(frozen=True)
class DeviceTopics:
    """MQTT topics of one device; ``prefix`` is the workspace's own (``hedgerow/WORKSPACE``).

    Up (device to hub): hello, telemetry, status, answers, twins. Down: welcome, desired, acks, methods, twin-acks. Nothing in a
    topic is secret; every payload is sealed (``contracts/seal.py``) or signed (``contracts/signed.py``).
    """

    prefix: str
    device_uuid: str

    def _topic(self, leaf: str) -> str:
        return f"{self.prefix}/v1/devices/{self.device_uuid}/{leaf}"

    @property
    def hello(self) -> str:
        return self._topic("hello")

    @property
    def telemetry(self) -> str:
        return self._topic("telemetry")

    @property
    def status(self) -> str:
        return self._topic("status")

    @property
    def welcome(self) -> str:
        return self._topic("welcome")

    @property
    def desired(self) -> str:
        return self._topic("desired")

    @property
    def acks(self) -> str:
        return self._topic("acks")

    @property
    def methods(self) -> str:
        return self._topic("methods")

    @property
    def answers(self) -> str:
        return self._topic("answers")

    @property
    def twins(self) -> str:
        return self._topic("twins")

    @property
    def twin_acks(self) -> str:
        return self._topic("twin-acks")

    @staticmethod
    def uplink_filters(prefix: str) -> list[str]:
        """Subscriptions by which a hub hears every device."""
        return [f"{prefix}/v1/devices/+/{leaf}" for leaf in UPLINK_LEAVES]

    @staticmethod
    def parse(topic: str, prefix: str) -> tuple[str, str] | None:
        """``(device_uuid, leaf)`` of a topic below ``prefix``, or None for a foreign one."""
        head = f"{prefix}/v1/devices/"
        rest = topic.removeprefix(head).split("/")
        return (rest[0], rest[1]) if topic.startswith(head) and len(rest) == 2 else None
