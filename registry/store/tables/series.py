"""Telemetry and metric points: on SQLite in a file of their own."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Float, Index, Integer, LargeBinary, Table, Text, UniqueConstraint

from registry.store.tables.metadata import SERIES

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
    Column("properties", Text),  # JSON; NULL when there are none
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
