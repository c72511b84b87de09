"""Direct methods: calls on their way, and the parts of their answers. Rows go some time after the call has ended."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Float, ForeignKey, Index, Integer, LargeBinary, Table, Text

from registry.store.tables.metadata import RECORDS, states

method_calls = Table(
    "method_calls",
    RECORDS,
    Column("id", Text, primary_key=True),
    Column("device_uuid", Text, ForeignKey("devices.uuid", ondelete="CASCADE"), nullable=False),
    Column("module", Text),
    Column("method", Text, nullable=False),
    # Taken away when the call ends: it may hold addresses that are secrets.
    Column("payload", Text, nullable=False),
    Column("timeout_s", Float, nullable=False),
    Column("streamed", Integer, nullable=False),
    Column("state", Text, nullable=False),
    Column("asked_at", Text, nullable=False),
    # Until then an offline device is waited for.
    Column("connect_by", Text, nullable=False),
    # When something was heard of the call last: it was sent, a part came, a reader took one.
    Column("moved_at", Text, nullable=False),
    Column("sent_at", Text, nullable=False, server_default=""),
    Column("sends", Integer, nullable=False, server_default="0"),
    Column("session", Text, nullable=False, server_default=""),
    # Parts that the hub has without a hole, those that the device was told of, those that a reader has taken.
    Column("parts", Integer, nullable=False, server_default="0"),
    Column("told_parts", Integer, nullable=False, server_default="0"),
    Column("read_parts", Integer, nullable=False, server_default="0"),
    Column("answer_bytes", BigInteger, nullable=False, server_default="0"),
    Column("status", Integer),
    Column("problem", Text, nullable=False, server_default=""),
    Column("ended_at", Text),
    states("state", "waiting", "sent", "answering", "cancelled", "done", "failed"),
    Index(None, "device_uuid"),
    Index(None, "state"),
)

method_parts = Table(
    "method_parts",
    RECORDS,
    Column("call_id", Text, ForeignKey("method_calls.id", ondelete="CASCADE"), primary_key=True),
    Column("part", Integer, primary_key=True),
    Column("last", Integer, nullable=False),
    Column("status", Integer, nullable=False),
    Column("payload", LargeBinary, nullable=False),
)
