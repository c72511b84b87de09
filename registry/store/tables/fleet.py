"""Devices, their twins and sessions, edge deployments."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, ForeignKey, ForeignKeyConstraint, Index, Integer, LargeBinary, Table, Text

from registry.store.tables.metadata import RECORDS, states

devices = Table(
    "devices",
    RECORDS,
    Column("uuid", Text, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("tags", Text, nullable=False),
    Column("key_generation", Integer, nullable=False),
    Column("enrolled_at", Text, nullable=False),
    Column("revoked_at", Text),
    # The generation that the device should fetch; above key_generation until it was heard under the new key.
    Column("wanted_key_generation", Integer, nullable=False, server_default="0"),
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

edge_images = Table(
    "edge_images",
    RECORDS,
    Column("edge_deployment", Text, ForeignKey("edge_deployments.name", ondelete="CASCADE"), primary_key=True),
    Column("module", Text, primary_key=True),
    Column("image_name", Text, nullable=False),
    Column("image_version", Integer, nullable=False),
    ForeignKeyConstraint(["image_name", "image_version"], ["image_versions.name", "image_versions.version"]),
    Index(None, "image_name", "image_version"),
)
"""Images that a manifest names by version or digest; what follows the newest is resolved for each device."""

twins = Table(
    "twins",
    RECORDS,
    Column("device_uuid", Text, ForeignKey("devices.uuid", ondelete="CASCADE"), primary_key=True),
    Column("desired_version", Integer, nullable=False, server_default="0"),
    Column("edge_deployment", Text, ForeignKey("edge_deployments.name"), index=True),
    Column("edge_revision", Integer),
    Column("desired", LargeBinary),  # the signed envelope, byte for byte as the device gets it
    Column("unsigned", LargeBinary),  # the next one's payload, while it waits for a key that is kept elsewhere
    Column("unsigned_version", Integer, nullable=False, server_default="0"),  # of that; 0: nothing waits, or it was signed
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
    # Whether its silence was told of (an event), so that it is told once.
    Column("told_offline", Integer, nullable=False, server_default="0"),
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

edge_revisions = Table(
    "edge_revisions",
    RECORDS,
    Column("edge_deployment", Text, ForeignKey("edge_deployments.name", ondelete="CASCADE"), primary_key=True),
    Column("revision", Integer, primary_key=True),
    Column("document", Text, nullable=False),
)
"""Revisions of before that devices still have or may get again: while a rollout runs, and the one before the newest."""

edge_wheels = Table(
    "edge_wheels",
    RECORDS,
    Column("edge_deployment", Text, ForeignKey("edge_deployments.name", ondelete="CASCADE"), primary_key=True),
    Column("digest", Text, ForeignKey("blobs.digest"), primary_key=True, index=True),
    Column("revision", Integer, nullable=False),  # the newest that names it
)
"""Wheels of the agent that deployments name: kept as long as a revision does that some device may have."""

edge_rollouts = Table(
    "edge_rollouts",
    RECORDS,
    Column("id", Text, primary_key=True),
    Column("edge_deployment", Text, ForeignKey("edge_deployments.name", ondelete="CASCADE"), nullable=False),
    Column("revision", Integer, nullable=False),
    Column("previous_revision", Integer),
    Column("policy", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("reason", Text, nullable=False, server_default=""),
    Column("groups", Text, nullable=False, server_default="[]"),  # RolloutGroupStatus, newest look
    Column("created_at", Text, nullable=False),
    Column("ended_at", Text),
    states("state", "running", "paused", "reversing", "reversed", "succeeded", "superseded"),
    Index(None, "edge_deployment", "created_at"),
    Index(None, "state"),
)

edge_rollout_devices = Table(
    "edge_rollout_devices",
    RECORDS,
    Column("rollout_id", Text, ForeignKey("edge_rollouts.id", ondelete="CASCADE"), primary_key=True),
    Column("device_uuid", Text, ForeignKey("devices.uuid", ondelete="CASCADE"), primary_key=True),
    Column("group_number", Integer, nullable=False),
    Column("state", Text, nullable=False),
    Column("reason", Text, nullable=False, server_default=""),
    Column("held_revision", Integer),  # what it has while it waits; None: nothing of this deployment
    # By which it was told; 0: it is to be told yet, -1: there was nothing to tell.
    Column("desired_version", Integer, nullable=False, server_default="0"),
    Column("released_at", Text),
    Column("ended_at", Text),  # of one that is released: since when it is in trouble
    states("state", "waiting", "released", "succeeded", "failed", "timed-out"),
    Index(None, "device_uuid"),
    Index(None, "rollout_id", "group_number", "state"),
)

module_twins = Table(
    "module_twins",
    RECORDS,
    Column("device_uuid", Text, ForeignKey("devices.uuid", ondelete="CASCADE"), primary_key=True),
    Column("module", Text, primary_key=True),
    Column("patch", Text, nullable=False, server_default="{}"),
    Column("revision", Integer, nullable=False, server_default="0"),  # of the patch
    Column("epoch", Text, nullable=False, server_default=""),
    Column("reported", Text, nullable=False, server_default="{}"),
    Column("reported_version", BigInteger, nullable=False, server_default="0"),
    Column("reported_at", Text),
)
