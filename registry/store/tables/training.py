"""Recorded runs."""

from __future__ import annotations

from sqlalchemy import Column, ForeignKey, Index, Table, Text

from registry.store.tables.metadata import RECORDS, states

runs = Table(
    "runs",
    RECORDS,
    Column("id", Text, primary_key=True),
    Column("experiment", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("activity_id", Text, ForeignKey("activities.id"), nullable=False),
    Column("document", Text, nullable=False),
    Column("created_at", Text, nullable=False),
    Column("source_commit", Text, index=True),
    states("state", "queued", "running", "succeeded", "failed", "cancelled"),
    Index(None, "experiment", "created_at"),
)

run_data = Table(
    "run_data",
    RECORDS,
    Column("run_id", Text, ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True),
    Column("data_name", Text, primary_key=True),
    Column("digest", Text, nullable=False, index=True),
    Index(None, "data_name", "digest"),
)
"""Data sets that a run read, by digest."""

run_blobs = Table(
    "run_blobs",
    RECORDS,
    Column("run_id", Text, ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True),
    Column("part", Text, primary_key=True),  # snapshot | outputs
    Column("path", Text, primary_key=True),
    Column("digest", Text, ForeignKey("blobs.digest"), nullable=False, index=True),
)
