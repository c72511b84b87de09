"""The first schema of the records: workspace, activities, models, environments, images, services, fleet, training."""

import sqlalchemy as sa
from alembic import op

revision = "records_0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "activities",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("request", sa.Text(), nullable=False),
        sa.Column("progress", sa.Float(), server_default="0", nullable=False),
        sa.Column("step", sa.Text(), server_default="", nullable=False),
        sa.Column("attempt", sa.Integer(), server_default="0", nullable=False),
        sa.Column("lease_token", sa.BigInteger(), nullable=True),
        sa.Column("cancel_requested", sa.Integer(), server_default="0", nullable=False),
        sa.Column("result", sa.Text(), server_default="{}", nullable=False),
        sa.Column("problem", sa.Text(), nullable=True),
        sa.Column("created_at", sa.Text(), nullable=False),
        sa.Column("started_at", sa.Text(), nullable=True),
        sa.Column("ended_at", sa.Text(), nullable=True),
        sa.CheckConstraint("state IN ('queued', 'running', 'succeeded', 'failed', 'cancelled')", name="ck_activities_state"),
        sa.PrimaryKeyConstraint("id", name="pk_activities"),
    )
    op.create_index("ix_activities_state_created_at", "activities", ["state", "created_at"], unique=False)
    op.create_table(
        "blobs",
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("stored_at", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("digest", name="pk_blobs"),
    )
    op.create_table(
        "devices",
        sa.Column("uuid", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("tags", sa.Text(), nullable=False),
        sa.Column("key_generation", sa.Integer(), nullable=False),
        sa.Column("enrolled_at", sa.Text(), nullable=False),
        sa.Column("revoked_at", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("uuid", name="pk_devices"),
        sa.UniqueConstraint("name", name="uq_devices_name"),
    )
    op.create_table(
        "edge_deployments",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("target", sa.Text(), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("document", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_edge_deployments"),
    )
    op.create_table(
        "endpoints",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("traffic", sa.Text(), nullable=False),
        sa.Column("scoring_url", sa.Text(), nullable=True),
        sa.Column("created_at", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_endpoints"),
    )
    op.create_table(
        "environment_names",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("last_version", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_environment_names"),
    )
    op.create_table(
        "facts",
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("key", name="pk_facts"),
    )
    op.create_table(
        "fleet_events",
        sa.Column("number", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("at", sa.Text(), nullable=False),
        sa.Column("device_uuid", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("number", name="pk_fleet_events"),
    )
    op.create_index("ix_fleet_events_device_uuid", "fleet_events", ["device_uuid"], unique=False)
    op.create_table(
        "image_names",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("last_version", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_image_names"),
    )
    op.create_table(
        "leases",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("holder", sa.Text(), nullable=False),
        sa.Column("token", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_leases"),
    )
    op.create_table(
        "model_names",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("last_version", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_model_names"),
    )
    op.create_table(
        "tokens",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), server_default="", nullable=False),
        sa.Column("secret_hash", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Text(), nullable=False),
        sa.Column("expires_at", sa.Text(), nullable=True),
        sa.Column("revoked_at", sa.Text(), nullable=True),
        sa.Column("last_used_at", sa.Text(), nullable=True),
        sa.CheckConstraint("role IN ('owner', 'contributor', 'reader', 'puller', 'device', 'run')", name="ck_tokens_role"),
        sa.PrimaryKeyConstraint("id", name="pk_tokens"),
        sa.UniqueConstraint("secret_hash", name="uq_tokens_secret_hash"),
    )
    op.create_table(
        "activity_events",
        sa.Column("activity_id", sa.Text(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("at", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("progress", sa.Float(), nullable=False),
        sa.Column("step", sa.Text(), nullable=False),
        sa.Column("log", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["activity_id"], ["activities.id"], name="fk_activity_events_activity_id_activities", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("activity_id", "number", name="pk_activity_events"),
    )
    op.create_table(
        "device_sessions",
        sa.Column("device_uuid", sa.Text(), nullable=False),
        sa.Column("session", sa.Text(), nullable=False),
        sa.Column("instance", sa.Text(), nullable=False),
        sa.Column("starts", sa.Integer(), nullable=False),
        sa.Column("expires_at", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["device_uuid"], ["devices.uuid"], name="fk_device_sessions_device_uuid_devices", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("device_uuid", name="pk_device_sessions"),
    )
    op.create_table(
        "environment_versions",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("document", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["name"], ["environment_names.name"], name="fk_environment_versions_name_environment_names"),
        sa.PrimaryKeyConstraint("name", "version", name="pk_environment_versions"),
    )
    op.create_table(
        "image_versions",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("record", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Text(), nullable=False),
        sa.CheckConstraint("kind IN ('onnx', 'docker', 'fpga')", name="ck_image_versions_kind"),
        sa.ForeignKeyConstraint(["name"], ["image_names.name"], name="fk_image_versions_name_image_names"),
        sa.PrimaryKeyConstraint("name", "version", name="pk_image_versions"),
    )
    op.create_index("ix_image_versions_created_at", "image_versions", ["created_at"], unique=False)
    op.create_index("ix_image_versions_digest", "image_versions", ["digest"], unique=False)
    op.create_table(
        "runs",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("experiment", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("activity_id", sa.Text(), nullable=False),
        sa.Column("document", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Text(), nullable=False),
        sa.CheckConstraint("state IN ('queued', 'running', 'succeeded', 'failed', 'cancelled')", name="ck_runs_state"),
        sa.ForeignKeyConstraint(["activity_id"], ["activities.id"], name="fk_runs_activity_id_activities"),
        sa.PrimaryKeyConstraint("id", name="pk_runs"),
    )
    op.create_index("ix_runs_experiment_created_at", "runs", ["experiment", "created_at"], unique=False)
    op.create_table(
        "twins",
        sa.Column("device_uuid", sa.Text(), nullable=False),
        sa.Column("desired_version", sa.Integer(), server_default="0", nullable=False),
        sa.Column("edge_deployment", sa.Text(), nullable=True),
        sa.Column("edge_revision", sa.Integer(), nullable=True),
        sa.Column("desired", sa.LargeBinary(), nullable=True),
        sa.Column("reported", sa.Text(), nullable=True),
        sa.Column("seen_at", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["device_uuid"], ["devices.uuid"], name="fk_twins_device_uuid_devices", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["edge_deployment"], ["edge_deployments.name"], name="fk_twins_edge_deployment_edge_deployments"),
        sa.PrimaryKeyConstraint("device_uuid", name="pk_twins"),
    )
    op.create_table(
        "deployments",
        sa.Column("endpoint", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("image_name", sa.Text(), nullable=False),
        sa.Column("image_version", sa.Integer(), nullable=False),
        sa.Column("settings", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), server_default="", nullable=False),
        sa.Column("replicas", sa.Text(), server_default="[]", nullable=False),
        sa.Column("created_at", sa.Text(), nullable=False),
        sa.CheckConstraint("state IN ('starting', 'ready', 'degraded', 'failed', 'deleting')", name="ck_deployments_state"),
        sa.ForeignKeyConstraint(["endpoint"], ["endpoints.name"], name="fk_deployments_endpoint_endpoints"),
        sa.ForeignKeyConstraint(
            ["image_name", "image_version"],
            ["image_versions.name", "image_versions.version"],
            name="fk_deployments_image_name_image_version_image_versions",
        ),
        sa.PrimaryKeyConstraint("endpoint", "name", name="pk_deployments"),
    )
    op.create_index("ix_deployments_image_name_image_version", "deployments", ["image_name", "image_version"], unique=False)
    op.create_table(
        "desired_images",
        sa.Column("device_uuid", sa.Text(), nullable=False),
        sa.Column("module", sa.Text(), nullable=False),
        sa.Column("image_name", sa.Text(), nullable=False),
        sa.Column("image_version", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["device_uuid"], ["devices.uuid"], name="fk_desired_images_device_uuid_devices", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["image_name", "image_version"],
            ["image_versions.name", "image_versions.version"],
            name="fk_desired_images_image_name_image_version_image_versions",
        ),
        sa.PrimaryKeyConstraint("device_uuid", "module", name="pk_desired_images"),
    )
    op.create_index("ix_desired_images_image_name_image_version", "desired_images", ["image_name", "image_version"], unique=False)
    op.create_table(
        "image_blobs",
        sa.Column("image_name", sa.Text(), nullable=False),
        sa.Column("image_version", sa.Integer(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("media_type", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["digest"], ["blobs.digest"], name="fk_image_blobs_digest_blobs"),
        sa.ForeignKeyConstraint(
            ["image_name", "image_version"],
            ["image_versions.name", "image_versions.version"],
            name="fk_image_blobs_image_name_image_version_image_versions",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("image_name", "image_version", "digest", name="pk_image_blobs"),
    )
    op.create_index("ix_image_blobs_digest", "image_blobs", ["digest"], unique=False)
    op.create_table(
        "model_versions",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("framework", sa.Text(), nullable=False),
        sa.Column("run_id", sa.Text(), nullable=True),
        sa.Column("manifest", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["name"], ["model_names.name"], name="fk_model_versions_name_model_names"),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name="fk_model_versions_run_id_runs"),
        sa.PrimaryKeyConstraint("name", "version", name="pk_model_versions"),
    )
    op.create_index("ix_model_versions_created_at", "model_versions", ["created_at"], unique=False)
    op.create_index("ix_model_versions_digest", "model_versions", ["digest"], unique=False)
    op.create_index("ix_model_versions_run_id", "model_versions", ["run_id"], unique=False)
    op.create_table(
        "run_blobs",
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("part", sa.Text(), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["digest"], ["blobs.digest"], name="fk_run_blobs_digest_blobs"),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name="fk_run_blobs_run_id_runs", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run_id", "part", "path", name="pk_run_blobs"),
    )
    op.create_index("ix_run_blobs_digest", "run_blobs", ["digest"], unique=False)
    op.create_table(
        "image_models",
        sa.Column("image_name", sa.Text(), nullable=False),
        sa.Column("image_version", sa.Integer(), nullable=False),
        sa.Column("model_name", sa.Text(), nullable=False),
        sa.Column("model_version", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["image_name", "image_version"],
            ["image_versions.name", "image_versions.version"],
            name="fk_image_models_image_name_image_version_image_versions",
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["model_name", "model_version"],
            ["model_versions.name", "model_versions.version"],
            name="fk_image_models_model_name_model_version_model_versions",
        ),
        sa.PrimaryKeyConstraint("image_name", "image_version", "model_name", "model_version", name="pk_image_models"),
    )
    op.create_index("ix_image_models_model_name_model_version", "image_models", ["model_name", "model_version"], unique=False)
    op.create_table(
        "model_files",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["digest"], ["blobs.digest"], name="fk_model_files_digest_blobs"),
        sa.ForeignKeyConstraint(
            ["name", "version"],
            ["model_versions.name", "model_versions.version"],
            name="fk_model_files_name_version_model_versions",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("name", "version", "path", name="pk_model_files"),
    )
    op.create_index("ix_model_files_digest", "model_files", ["digest"], unique=False)
