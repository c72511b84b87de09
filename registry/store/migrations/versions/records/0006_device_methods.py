"""Direct methods: calls to devices and the parts of their answers."""

import sqlalchemy as sa
from alembic import op

revision = "records_0006"
down_revision = "records_0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Frozen here: later changes to the code must not change this step."""
    op.create_table(
        "method_calls",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("device_uuid", sa.Text(), nullable=False),
        sa.Column("module", sa.Text(), nullable=True),
        sa.Column("method", sa.Text(), nullable=False),
        sa.Column("payload", sa.Text(), nullable=False),
        sa.Column("timeout_s", sa.Float(), nullable=False),
        sa.Column("streamed", sa.Integer(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("asked_at", sa.Text(), nullable=False),
        sa.Column("connect_by", sa.Text(), nullable=False),
        sa.Column("moved_at", sa.Text(), nullable=False),
        sa.Column("sent_at", sa.Text(), server_default="", nullable=False),
        sa.Column("sends", sa.Integer(), server_default="0", nullable=False),
        sa.Column("session", sa.Text(), server_default="", nullable=False),
        sa.Column("parts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("told_parts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("read_parts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("answer_bytes", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("status", sa.Integer(), nullable=True),
        sa.Column("problem", sa.Text(), server_default="", nullable=False),
        sa.Column("ended_at", sa.Text(), nullable=True),
        sa.CheckConstraint(
            "state IN ('waiting', 'sent', 'answering', 'cancelled', 'done', 'failed')", name="ck_method_calls_state"
        ),
        sa.ForeignKeyConstraint(
            ["device_uuid"], ["devices.uuid"], name="fk_method_calls_device_uuid_devices", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_method_calls"),
    )
    for column in ("device_uuid", "state"):
        op.create_index(f"ix_method_calls_{column}", "method_calls", [column], unique=False)
    op.create_table(
        "method_parts",
        sa.Column("call_id", sa.Text(), nullable=False),
        sa.Column("part", sa.Integer(), nullable=False),
        sa.Column("last", sa.Integer(), nullable=False),
        sa.Column("status", sa.Integer(), nullable=False),
        sa.Column("payload", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["call_id"], ["method_calls.id"], name="fk_method_parts_call_id_method_calls", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("call_id", "part", name="pk_method_parts"),
    )
