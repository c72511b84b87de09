"""What the workspace says of itself: facts, leases, tokens, blobs, activities."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Float, ForeignKey, Index, Integer, LargeBinary, Table, Text

from registry.store.tables.metadata import RECORDS, states

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
    Column("scopes", Text, nullable=False, server_default="[]"),
    Column("created_by", Text, nullable=False, server_default=""),
    states("role", "owner", "contributor", "reader", "puller", "device", "run"),
)

blobs = Table(
    "blobs",
    RECORDS,
    Column("digest", Text, primary_key=True),
    Column("size_bytes", BigInteger, nullable=False),
    Column("stored_at", Text, nullable=False),
    # Until then nothing needs to refer to it: whoever uploaded it is about to (`hedgerow gc` leaves it alone).
    Column("leased_until", Text, nullable=False, server_default=""),
)

blob_chunks = Table(
    "blob_chunks",
    RECORDS,
    Column("digest", Text, ForeignKey("blobs.digest", ondelete="CASCADE"), primary_key=True),
    Column("chunk_bytes", Integer, nullable=False),
    Column("hashes", LargeBinary, nullable=False),  # 32 bytes for each chunk, in order
)
"""For blobs of more than one chunk: what proves a range without reading the rest."""

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
    states("state", "queued", "running", "succeeded", "failed", "cancelled"),
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

activity_blobs = Table(
    "activity_blobs",
    RECORDS,
    Column("activity_id", Text, ForeignKey("activities.id", ondelete="CASCADE"), primary_key=True),
    Column("digest", Text, ForeignKey("blobs.digest"), primary_key=True, index=True),
)
"""What work that has not ended needs (the source files of a build); rows go when it ends."""
