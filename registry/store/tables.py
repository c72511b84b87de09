"""Every table of a workspace, as SQLAlchemy Core metadata; migrations in ``migrations/`` must lead to exactly this.

Two metadata objects: ``RECORDS`` (everything that must be whole) and ``SERIES`` (telemetry and metric points, which
on SQLite live in a file of their own so that their writes never queue behind a record's commit). Documents are kept as
canonical JSON text; columns beside them exist to be searched, joined or constrained. Times are RFC 3339 text in UTC,
which sorts; series use integer milliseconds.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Float,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
)

# Named constraints are what Alembic needs to alter them later, on SQLite as on PostgreSQL.
_NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}
RECORDS = MetaData(naming_convention=_NAMING)
SERIES = MetaData(naming_convention=_NAMING)


def _states(column: str, *allowed: str) -> CheckConstraint:
    quoted = ", ".join(f"'{state}'" for state in allowed)
    return CheckConstraint(f"{column} IN ({quoted})", name=column)


# --- the workspace itself -------------------------------------------------------------------------------------------

facts = Table("facts", RECORDS, Column("key", Text, primary_key=True), Column("value", Text, nullable=False))
"""Workspace id, incarnation, format version: one row each."""

leases = Table(
    "leases",
    RECORDS,
    Column("name", Text, primary_key=True),
    Column("holder", Text, nullable=False),
    # Grows by one with every new holder; a write under an old token is refused (fencing).
    Column("token", BigInteger, nullable=False),
    Column("expires_at", Text, nullable=False),
)

tokens = Table(
    "tokens",
    RECORDS,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("role", Text, nullable=False),
    Column("subject", Text, nullable=False, server_default=""),  # device uuid or run id that the token is bound to
    Column("secret_hash", Text, nullable=False, unique=True),
    Column("created_at", Text, nullable=False),
    Column("expires_at", Text),
    Column("revoked_at", Text),
    Column("last_used_at", Text),
    _states("role", "owner", "contributor", "reader", "puller", "device", "run"),
)

blobs = Table(
    "blobs",
    RECORDS,
    Column("digest", Text, primary_key=True),
    Column("size_bytes", BigInteger, nullable=False),
    Column("stored_at", Text, nullable=False),
)

# --- activities -----------------------------------------------------------------------------------------------------

activities = Table(
    "activities",
    RECORDS,
    Column("id", Text, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("request", Text, nullable=False),
    Column("progress", Float, nullable=False, server_default="0"),
    Column("step", Text, nullable=False, server_default=""),
    Column("attempt", Integer, nullable=False, server_default="0"),
    Column("lease_token", BigInteger),
    Column("cancel_requested", Integer, nullable=False, server_default="0"),
    Column("result", Text, nullable=False, server_default="{}"),
    Column("problem", Text),
    Column("created_at", Text, nullable=False),
    Column("started_at", Text),
    Column("ended_at", Text),
    _states("state", "queued", "running", "succeeded", "failed", "cancelled"),
    Index(None, "state", "created_at"),
)

activity_events = Table(
    "activity_events",
    RECORDS,
    Column("activity_id", Text, ForeignKey("activities.id", ondelete="CASCADE"), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("at", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("progress", Float, nullable=False),
    Column("step", Text, nullable=False),
    Column("log", Text, nullable=False),
)

# --- models, environments, images -----------------------------------------------------------------------------------

model_names = Table(
    "model_names",
    RECORDS,
    Column("name", Text, primary_key=True),
    Column("last_version", Integer, nullable=False),  # never goes down: a deleted number is never used again
)

model_versions = Table(
    "model_versions",
    RECORDS,
    Column("name", Text, ForeignKey("model_names.name"), primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("digest", Text, nullable=False, index=True),
    Column("framework", Text, nullable=False),
    Column("run_id", Text, ForeignKey("runs.id"), index=True),
    Column("manifest", Text, nullable=False),
    Column("created_at", Text, nullable=False, index=True),
)

model_files = Table(
    "model_files",
    RECORDS,
    Column("name", Text, primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("path", Text, primary_key=True),
    Column("digest", Text, ForeignKey("blobs.digest"), nullable=False, index=True),
    ForeignKeyConstraint(["name", "version"], ["model_versions.name", "model_versions.version"], ondelete="CASCADE"),
)

environment_names = Table(
    "environment_names", RECORDS, Column("name", Text, primary_key=True), Column("last_version", Integer, nullable=False)
)

environment_versions = Table(
    "environment_versions",
    RECORDS,
    Column("name", Text, ForeignKey("environment_names.name"), primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("digest", Text, nullable=False),
    Column("document", Text, nullable=False),
    Column("created_at", Text, nullable=False),
)

image_names = Table(
    "image_names", RECORDS, Column("name", Text, primary_key=True), Column("last_version", Integer, nullable=False)
)

image_versions = Table(
    "image_versions",
    RECORDS,
    Column("name", Text, ForeignKey("image_names.name"), primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("digest", Text, nullable=False, index=True),
    Column("kind", Text, nullable=False),
    Column("record", Text, nullable=False),
    Column("created_at", Text, nullable=False, index=True),
    _states("kind", "onnx", "docker", "fpga"),
)

image_models = Table(
    "image_models",
    RECORDS,
    Column("image_name", Text, primary_key=True),
    Column("image_version", Integer, primary_key=True),
    Column("model_name", Text, primary_key=True),
    Column("model_version", Integer, primary_key=True),
    ForeignKeyConstraint(["image_name", "image_version"], ["image_versions.name", "image_versions.version"], ondelete="CASCADE"),
    # No cascade: the database itself refuses to drop a model that an image is made of.
    ForeignKeyConstraint(["model_name", "model_version"], ["model_versions.name", "model_versions.version"]),
    Index(None, "model_name", "model_version"),
)

image_blobs = Table(
    "image_blobs",
    RECORDS,
    Column("image_name", Text, primary_key=True),
    Column("image_version", Integer, primary_key=True),
    Column("digest", Text, ForeignKey("blobs.digest"), primary_key=True),
    Column("media_type", Text, nullable=False),
    ForeignKeyConstraint(["image_name", "image_version"], ["image_versions.name", "image_versions.version"], ondelete="CASCADE"),
    Index(None, "digest"),
)

# --- services -------------------------------------------------------------------------------------------------------

endpoints = Table(
    "endpoints",
    RECORDS,
    Column("name", Text, primary_key=True),
    Column("revision", Integer, nullable=False),
    Column("traffic", Text, nullable=False),
    Column("scoring_url", Text),
    Column("created_at", Text, nullable=False),
)

deployments = Table(
    "deployments",
    RECORDS,
    Column("endpoint", Text, ForeignKey("endpoints.name"), primary_key=True),
    Column("name", Text, primary_key=True),
    Column("revision", Integer, nullable=False),
    Column("image_name", Text, nullable=False),
    Column("image_version", Integer, nullable=False),
    Column("settings", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("reason", Text, nullable=False, server_default=""),
    Column("replicas", Text, nullable=False, server_default="[]"),
    Column("created_at", Text, nullable=False),
    ForeignKeyConstraint(["image_name", "image_version"], ["image_versions.name", "image_versions.version"]),
    _states("state", "starting", "ready", "degraded", "failed", "deleting"),
    Index(None, "image_name", "image_version"),
)

# --- fleet ----------------------------------------------------------------------------------------------------------

devices = Table(
    "devices",
    RECORDS,
    Column("uuid", Text, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("tags", Text, nullable=False),
    Column("key_generation", Integer, nullable=False),
    Column("enrolled_at", Text, nullable=False),
    Column("revoked_at", Text),
)

edge_deployments = Table(
    "edge_deployments",
    RECORDS,
    Column("name", Text, primary_key=True),
    Column("revision", Integer, nullable=False),
    Column("target", Text, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("document", Text, nullable=False),
    Column("created_at", Text, nullable=False),
)

twins = Table(
    "twins",
    RECORDS,
    Column("device_uuid", Text, ForeignKey("devices.uuid", ondelete="CASCADE"), primary_key=True),
    Column("desired_version", Integer, nullable=False, server_default="0"),
    Column("edge_deployment", Text, ForeignKey("edge_deployments.name")),
    Column("edge_revision", Integer),
    Column("desired", LargeBinary),  # the signed envelope, byte for byte as the device gets it
    Column("reported", Text),
    Column("seen_at", Text),
)

desired_images = Table(
    "desired_images",
    RECORDS,
    Column("device_uuid", Text, ForeignKey("devices.uuid", ondelete="CASCADE"), primary_key=True),
    Column("module", Text, primary_key=True),
    Column("image_name", Text, nullable=False),
    Column("image_version", Integer, nullable=False),
    ForeignKeyConstraint(["image_name", "image_version"], ["image_versions.name", "image_versions.version"]),
    Index(None, "image_name", "image_version"),
)

device_sessions = Table(
    "device_sessions",
    RECORDS,
    Column("device_uuid", Text, ForeignKey("devices.uuid", ondelete="CASCADE"), primary_key=True),
    Column("session", Text, nullable=False),
    Column("instance", Text, nullable=False),
    Column("starts", Integer, nullable=False),
    Column("expires_at", Text, nullable=False),
)

fleet_events = Table(
    "fleet_events",
    RECORDS,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("at", Text, nullable=False),
    Column("device_uuid", Text, nullable=False, index=True),
    Column("kind", Text, nullable=False),
    Column("reason", Text, nullable=False),
)

# --- training -------------------------------------------------------------------------------------------------------

runs = Table(
    "runs",
    RECORDS,
    Column("id", Text, primary_key=True),
    Column("experiment", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("activity_id", Text, ForeignKey("activities.id"), nullable=False),
    Column("document", Text, nullable=False),
    Column("created_at", Text, nullable=False),
    _states("state", "queued", "running", "succeeded", "failed", "cancelled"),
    Index(None, "experiment", "created_at"),
)

run_blobs = Table(
    "run_blobs",
    RECORDS,
    Column("run_id", Text, ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True),
    Column("part", Text, primary_key=True),  # snapshot | outputs
    Column("path", Text, primary_key=True),
    Column("digest", Text, ForeignKey("blobs.digest"), nullable=False, index=True),
)

# --- series ---------------------------------------------------------------------------------------------------------

watermarks = Table(
    "watermarks",
    SERIES,
    Column("device_uuid", Text, primary_key=True),
    Column("epoch", Text, primary_key=True),
    Column("stream", Text, primary_key=True),
    Column("watermark", BigInteger, nullable=False),
    Column("chain", Text, nullable=False),
    Column("updated_ms", BigInteger, nullable=False),
)
"""Outlives retention: what was once taken is never taken again, however old."""

messages = Table(
    "messages",
    SERIES,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("device_uuid", Text, nullable=False),
    Column("epoch", Text, nullable=False),
    Column("stream", Text, nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("module", Text, nullable=False),
    Column("time_ms", BigInteger, nullable=False),
    Column("received_ms", BigInteger, nullable=False),
    Column("historical", Integer, nullable=False, server_default="0"),
    Column("body", Text, nullable=False),
    UniqueConstraint("device_uuid", "epoch", "stream", "sequence"),
    Index(None, "device_uuid", "id"),
)

gaps = Table(
    "gaps",
    SERIES,
    Column("device_uuid", Text, primary_key=True),
    Column("epoch", Text, primary_key=True),
    Column("stream", Text, primary_key=True),
    Column("first_sequence", BigInteger, primary_key=True),
    Column("last_sequence", BigInteger, nullable=False),
    Column("reason", Text, nullable=False),
    Column("recorded_ms", BigInteger, nullable=False),
)

quarantine = Table(
    "quarantine",
    SERIES,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("device_uuid", Text, nullable=False, index=True),
    Column("received_ms", BigInteger, nullable=False),
    Column("reason", Text, nullable=False),
    Column("payload", LargeBinary, nullable=False),
)

metric_points = Table(
    "metric_points",
    SERIES,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("run_id", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("step", BigInteger, nullable=False),
    Column("value", Float, nullable=False),
    Column("time_ms", BigInteger, nullable=False),
    Index(None, "run_id", "name", "id"),
)
