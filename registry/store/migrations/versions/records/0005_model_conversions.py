"""Which model versions were converted from which."""

import sqlalchemy as sa
from alembic import op

revision = "records_0005"
down_revision = "records_0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Frozen here: later changes to the code must not change this step."""
    op.create_table(
        "model_conversions",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("source_name", sa.Text(), nullable=False),
        sa.Column("source_version", sa.Integer(), nullable=False),
        sa.Column("conversion_key", sa.Text(), nullable=False),
        sa.Column("asked", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["name", "version"],
            ["model_versions.name", "model_versions.version"],
            name="fk_model_conversions_name_version_model_versions",
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["source_name", "source_version"],
            ["model_versions.name", "model_versions.version"],
            name="fk_model_conversions_source",
        ),
        sa.PrimaryKeyConstraint("name", "version", "source_name", "source_version", name="pk_model_conversions"),
    )
    for columns in (["asked"], ["conversion_key"], ["source_name", "source_version"]):
        op.create_index(f"ix_model_conversions_{'_'.join(columns)}", "model_conversions", columns, unique=False)
