"""Endpoints and their deployments."""

from __future__ import annotations

from sqlalchemy import Column, ForeignKey, ForeignKeyConstraint, Index, Integer, Table, Text

from registry.store.tables.metadata import RECORDS, states

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
    states("state", "starting", "ready", "degraded", "failed", "deleting"),
    Index(None, "image_name", "image_version"),
)
