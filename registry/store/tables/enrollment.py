"""How devices prove who they are: enrolment keys, and certificates for the broker."""

from __future__ import annotations

from sqlalchemy import Column, ForeignKey, Integer, Table, Text

from registry.store.tables.metadata import RECORDS

enrollment_keys = Table(
    "enrollment_keys",
    RECORDS,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("secret_hash", Text, nullable=False, unique=True),
    Column("tags", Text, nullable=False, server_default="{}"),
    Column("device", Text),
    Column("names", Text),
    Column("uses_max", Integer),
    Column("uses", Integer, nullable=False, server_default="0"),
    Column("created_at", Text, nullable=False),
    Column("created_by", Text, nullable=False, server_default=""),
    Column("expires_at", Text),
    Column("revoked_at", Text),
    Column("last_used_at", Text),
)

enrollments = Table(
    "enrollments",
    RECORDS,
    Column("key_id", Text, ForeignKey("enrollment_keys.id", ondelete="CASCADE"), primary_key=True),
    Column("installation", Text, primary_key=True),
    Column("device_uuid", Text, ForeignKey("devices.uuid", ondelete="CASCADE"), nullable=False, index=True),
    Column("at", Text, nullable=False),
)
"""Who enrolled with which key: the same installation gets the same device again."""

device_certificates = Table(
    "device_certificates",
    RECORDS,
    Column("serial", Text, primary_key=True),  # hex
    Column("device_uuid", Text, nullable=False, index=True),  # outlives the device: a revocation list names it until it expires
    Column("issued_at", Text, nullable=False),
    Column("expires_at", Text, nullable=False, index=True),
    Column("revoked_at", Text),
)
