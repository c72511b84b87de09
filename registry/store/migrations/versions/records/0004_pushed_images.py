"""What lies beside an image (its referrers), and what was pushed into a repository before an image is made of it."""

import sqlalchemy as sa
from alembic import op

revision = "records_0004"
down_revision = "records_0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Frozen here: later changes to the code must not change this step."""
    op.create_table(
        "image_referrers",
        sa.Column("image_name", sa.Text(), nullable=False),
        sa.Column("image_version", sa.Integer(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("media_type", sa.Text(), nullable=False),
        sa.Column("artifact_type", sa.Text(), nullable=False),
        sa.Column("size_bytes", sa.Integer(), nullable=False),
        sa.Column("annotations", sa.Text(), server_default="{}", nullable=False),
        sa.ForeignKeyConstraint(
            ["image_name", "image_version"],
            ["image_versions.name", "image_versions.version"],
            name="fk_image_referrers_image_name_image_version_image_versions",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("image_name", "image_version", "digest", name="pk_image_referrers"),
    )
    op.create_index("ix_image_referrers_image_name_subject", "image_referrers", ["image_name", "subject"], unique=False)
    op.create_table(
        "pushed_blobs",
        sa.Column("repository", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("media_type", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=True),
        sa.Column("referrer", sa.Text(), nullable=True),
        sa.Column("expires_at", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["digest"], ["blobs.digest"], name="fk_pushed_blobs_digest_blobs", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("repository", "digest", name="pk_pushed_blobs"),
    )
    for columns in (["digest"], ["expires_at"], ["repository", "subject"]):
        op.create_index(f"ix_pushed_blobs_{'_'.join(columns)}", "pushed_blobs", columns, unique=False)
