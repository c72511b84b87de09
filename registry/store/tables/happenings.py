"""Events, webhooks and their deliveries, secrets, answers kept for idempotency keys."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, ForeignKey, Index, Integer, LargeBinary, Table, Text

from registry.store.tables.metadata import RECORDS, states

events = Table(
    "events",
    RECORDS,
    Column("number", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    # PostgreSQL's transaction id: numbers become visible out of order there, (transaction, number) does not (0 on SQLite).
    Column("transaction_id", BigInteger, nullable=False, server_default="0"),
    Column("at", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("details", Text, nullable=False, server_default="{}"),
    Index(None, "transaction_id", "number"),
    Index(None, "kind", "transaction_id", "number"),
    Index(None, "subject", "transaction_id", "number"),
    Index(None, "actor", "transaction_id", "number"),
)
"""Every change, written in the transaction that makes it: the audit log, the feed and what webhooks are fed from."""

webhooks = Table(
    "webhooks",
    RECORDS,
    Column("name", Text, primary_key=True),
    Column("url", Text, nullable=False),
    Column("kinds", Text, nullable=False, server_default="[]"),
    Column("state", Text, nullable=False),
    Column("key_id", Text, nullable=False),
    Column("sealed_secret", LargeBinary, nullable=False),
    # Events up to here have been given to it.
    Column("after_transaction", BigInteger, nullable=False),
    Column("after_number", BigInteger, nullable=False),
    # The first failure since the last success, if the last attempt failed.
    Column("failing_since", Text),
    Column("revision", Integer, nullable=False, server_default="1"),
    Column("created_at", Text, nullable=False),
    Column("created_by", Text, nullable=False, server_default=""),
    states("state", "active", "paused"),
)

webhook_deliveries = Table(
    "webhook_deliveries",
    RECORDS,
    Column("webhook", Text, ForeignKey("webhooks.name", ondelete="CASCADE"), primary_key=True),
    Column("event_number", BigInteger, ForeignKey("events.number", ondelete="CASCADE"), primary_key=True, index=True),
    Column("state", Text, nullable=False),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("next_at", Text, nullable=False),
    Column("status_code", Integer),
    Column("problem", Text, nullable=False, server_default=""),
    Column("ended_at", Text),
    states("state", "waiting", "delivered", "dead"),
    Index(None, "webhook", "state", "event_number"),
)

secrets = Table(
    "secrets",
    RECORDS,
    Column("name", Text, primary_key=True),
    Column("key_id", Text, nullable=False),
    Column("sealed", LargeBinary, nullable=False),
    Column("revision", Integer, nullable=False, server_default="1"),
    Column("created_at", Text, nullable=False),
    Column("updated_at", Text, nullable=False),
    Column("updated_by", Text, nullable=False, server_default=""),
)

idempotency_keys = Table(
    "idempotency_keys",
    RECORDS,
    Column("token_id", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("request_digest", Text, nullable=False),
    Column("status", Integer, nullable=False),
    Column("answer", Text, nullable=False),
    Column("created_at", Text, nullable=False, index=True),
)
"""Answers of requests that carried an Idempotency-Key, written with their effect."""
