"""Rollouts, module twins, enrolment keys, device certificates, keys that are rotated or kept elsewhere."""

import sqlalchemy as sa
from alembic import op

revision = "records_0007"
down_revision = "records_0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Frozen here: later changes to the code must not change this step."""
    op.add_column("devices", sa.Column("wanted_key_generation", sa.Integer(), server_default="0", nullable=False))
    op.add_column("twins", sa.Column("unsigned", sa.LargeBinary(), nullable=True))
    op.add_column("twins", sa.Column("unsigned_version", sa.Integer(), server_default="0", nullable=False))
    op.create_table(
        "edge_revisions",
        sa.Column("edge_deployment", sa.Text(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("document", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["edge_deployment"],
            ["edge_deployments.name"],
            name="fk_edge_revisions_edge_deployment_edge_deployments",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("edge_deployment", "revision", name="pk_edge_revisions"),
    )
    op.create_table(
        "edge_wheels",
        sa.Column("edge_deployment", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["digest"], ["blobs.digest"], name="fk_edge_wheels_digest_blobs"),
        sa.ForeignKeyConstraint(
            ["edge_deployment"],
            ["edge_deployments.name"],
            name="fk_edge_wheels_edge_deployment_edge_deployments",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("edge_deployment", "digest", name="pk_edge_wheels"),
    )
    op.create_index("ix_edge_wheels_digest", "edge_wheels", ["digest"], unique=False)
    op.create_table(
        "edge_rollouts",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("edge_deployment", sa.Text(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("previous_revision", sa.Integer(), nullable=True),
        sa.Column("policy", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), server_default="", nullable=False),
        sa.Column("groups", sa.Text(), server_default="[]", nullable=False),
        sa.Column("created_at", sa.Text(), nullable=False),
        sa.Column("ended_at", sa.Text(), nullable=True),
        sa.CheckConstraint(
            "state IN ('running', 'paused', 'reversing', 'reversed', 'succeeded', 'superseded')",
            name="ck_edge_rollouts_state",
        ),
        sa.ForeignKeyConstraint(
            ["edge_deployment"],
            ["edge_deployments.name"],
            name="fk_edge_rollouts_edge_deployment_edge_deployments",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name="pk_edge_rollouts"),
    )
    op.create_index(
        "ix_edge_rollouts_edge_deployment_created_at", "edge_rollouts", ["edge_deployment", "created_at"], unique=False
    )
    op.create_index("ix_edge_rollouts_state", "edge_rollouts", ["state"], unique=False)
    op.create_table(
        "edge_rollout_devices",
        sa.Column("rollout_id", sa.Text(), nullable=False),
        sa.Column("device_uuid", sa.Text(), nullable=False),
        sa.Column("group_number", sa.Integer(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), server_default="", nullable=False),
        sa.Column("held_revision", sa.Integer(), nullable=True),
        sa.Column("desired_version", sa.Integer(), server_default="0", nullable=False),
        sa.Column("released_at", sa.Text(), nullable=True),
        sa.Column("ended_at", sa.Text(), nullable=True),
        sa.CheckConstraint(
            "state IN ('waiting', 'released', 'succeeded', 'failed', 'timed-out')",
            name="ck_edge_rollout_devices_state",
        ),
        sa.ForeignKeyConstraint(
            ["device_uuid"], ["devices.uuid"], name="fk_edge_rollout_devices_device_uuid_devices", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["rollout_id"], ["edge_rollouts.id"], name="fk_edge_rollout_devices_rollout_id_edge_rollouts", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("rollout_id", "device_uuid", name="pk_edge_rollout_devices"),
    )
    op.create_index("ix_edge_rollout_devices_device_uuid", "edge_rollout_devices", ["device_uuid"], unique=False)
    op.create_index(
        "ix_edge_rollout_devices_rollout_id_group_number_state",
        "edge_rollout_devices",
        ["rollout_id", "group_number", "state"],
        unique=False,
    )
    op.create_table(
        "module_twins",
        sa.Column("device_uuid", sa.Text(), nullable=False),
        sa.Column("module", sa.Text(), nullable=False),
        sa.Column("patch", sa.Text(), server_default="{}", nullable=False),
        sa.Column("revision", sa.Integer(), server_default="0", nullable=False),
        sa.Column("epoch", sa.Text(), server_default="", nullable=False),
        sa.Column("reported", sa.Text(), server_default="{}", nullable=False),
        sa.Column("reported_version", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("reported_at", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(
            ["device_uuid"], ["devices.uuid"], name="fk_module_twins_device_uuid_devices", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("device_uuid", "module", name="pk_module_twins"),
    )
    op.create_table(
        "enrollment_keys",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("secret_hash", sa.Text(), nullable=False),
        sa.Column("tags", sa.Text(), server_default="{}", nullable=False),
        sa.Column("device", sa.Text(), nullable=True),
        sa.Column("names", sa.Text(), nullable=True),
        sa.Column("uses_max", sa.Integer(), nullable=True),
        sa.Column("uses", sa.Integer(), server_default="0", nullable=False),
        sa.Column("created_at", sa.Text(), nullable=False),
        sa.Column("created_by", sa.Text(), server_default="", nullable=False),
        sa.Column("expires_at", sa.Text(), nullable=True),
        sa.Column("revoked_at", sa.Text(), nullable=True),
        sa.Column("last_used_at", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_enrollment_keys"),
        sa.UniqueConstraint("secret_hash", name="uq_enrollment_keys_secret_hash"),
    )
    op.create_table(
        "enrollments",
        sa.Column("key_id", sa.Text(), nullable=False),
        sa.Column("installation", sa.Text(), nullable=False),
        sa.Column("device_uuid", sa.Text(), nullable=False),
        sa.Column("at", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["device_uuid"], ["devices.uuid"], name="fk_enrollments_device_uuid_devices", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(
            ["key_id"], ["enrollment_keys.id"], name="fk_enrollments_key_id_enrollment_keys", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("key_id", "installation", name="pk_enrollments"),
    )
    op.create_index("ix_enrollments_device_uuid", "enrollments", ["device_uuid"], unique=False)
    op.create_table(
        "device_certificates",
        sa.Column("serial", sa.Text(), nullable=False),
        sa.Column("device_uuid", sa.Text(), nullable=False),
        sa.Column("issued_at", sa.Text(), nullable=False),
        sa.Column("expires_at", sa.Text(), nullable=False),
        sa.Column("revoked_at", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("serial", name="pk_device_certificates"),
    )
    op.create_index("ix_device_certificates_device_uuid", "device_certificates", ["device_uuid"], unique=False)
    op.create_index("ix_device_certificates_expires_at", "device_certificates", ["expires_at"], unique=False)
